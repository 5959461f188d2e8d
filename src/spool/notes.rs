//! Notes on their way to the committer ([`Line`]), and those that wait for a disk which does not take
//! them: what later ones say again is left out ([`shorten`]), so that there are never more than the
//! messages and their recipients are worth.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::mem;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::spool::record::Draft;
use crate::spool::record::Kind;

/// Notes that the committer has not fetched yet. They are put in line under the lock of the index.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<Vec<Draft>>);

impl Line {
    fn notes(&self) -> MutexGuard<'_, Vec<Draft>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a note in line. True where the committer does not know yet that there are any.
    pub(super) fn put(&self, note: Draft) -> bool {
        let mut notes = self.notes();
        notes.push(note);
        notes.len() == 1
    }

    /// Takes all of them.
    pub(super) fn take(&self) -> Vec<Draft> {
        mem::take(&mut *self.notes())
    }
}

/// What a note can say of a message, so that an earlier note of it says nothing any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Says {
    Due,
    Attempts,
    Held,
    Finished,
}

impl Says {
    fn of(kind: Kind) -> &'static [Says] {
        match kind {
            // Each says something of its own.
            Kind::Accept | Kind::Result => &[],
            Kind::Defer => &[Says::Due, Says::Attempts],
            Kind::Hold => &[Says::Held],
            Kind::Release => &[Says::Held, Says::Due],
            Kind::Done => &[Says::Finished],
        }
    }
}

/// Leaves out the notes that change nothing because of those behind them.
pub(super) fn shorten(notes: &mut VecDeque<Draft>) {
    let mut said = HashSet::new();
    let mut kept = VecDeque::new();
    while let Some(note) = notes.pop_back() {
        let says = Says::of(note.kind);
        let again = !says.is_empty() && says.iter().all(|what| said.contains(&(note.id, *what)));
        if again || said.contains(&(note.id, Says::Finished)) {
            continue;
        }
        said.extend(says.iter().map(|what| (note.id, *what)));
        kept.push_front(note);
    }
    *notes = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::SessionId;
    use crate::mail::id::SpoolId;

    #[test]
    fn a_note_is_left_out_when_later_ones_say_all_of_it() {
        let note = |kind: Kind, serial| {
            let id = SpoolId {
                session: SessionId(1),
                serial,
            };
            Draft::note(kind, id, &())
        };
        for (given, kept) in [
            (vec![Kind::Defer, Kind::Defer], vec![Kind::Defer]),
            (
                vec![Kind::Release, Kind::Defer],
                vec![Kind::Release, Kind::Defer],
            ),
            (
                vec![Kind::Release, Kind::Defer, Kind::Hold],
                vec![Kind::Defer, Kind::Hold],
            ),
            (
                vec![Kind::Defer, Kind::Release, Kind::Hold],
                vec![Kind::Defer, Kind::Release, Kind::Hold],
            ),
            (
                vec![Kind::Result, Kind::Result],
                vec![Kind::Result, Kind::Result],
            ),
            (vec![Kind::Result, Kind::Hold, Kind::Done], vec![Kind::Done]),
        ] {
            let mut notes: VecDeque<_> = given.iter().map(|kind| note(*kind, 1)).collect();
            // One of another message says nothing of this one.
            notes.push_back(note(Kind::Done, 2));
            shorten(&mut notes);
            notes.pop_back();
            let left: Vec<_> = notes.iter().map(|note| note.kind).collect();
            assert_eq!(left, kept, "{given:?}");
        }
    }
}
