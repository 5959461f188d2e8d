//! What is in the spool, in memory: where each message stands and how far it has come.
//!
//! About 60 octets a message; the envelope stays on disk. It also counts what lives in each segment,
//! for [`super::space`].
//! Always as new as what was asked for, so at times ahead of the disk; a crash sets it back.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::mail::id::SpoolId;
use crate::spool::record::State;

/// Where a record stands. A backend without segments counts the rows in `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// Where the message itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    InLog,
    InFile,
}

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    due: u64,
    rare: Option<Box<Rare>>,
    place: Place,
    attempts: u32,
    recipients: u32,
    /// Of its content, in octets.
    size: u32,
    stored: Stored,
}

/// What few messages have.
#[derive(Debug, Clone, Default)]
struct Rare {
    marked: Vec<u32>,
    held: Option<String>,
}

impl Entry {
    /// A message of so many recipients and octets that stands at `place`.
    pub(super) fn new(
        place: Place,
        recipients: usize,
        size: u32,
        stored: Stored,
        state: State,
    ) -> Entry {
        let rare = Rare {
            marked: state.marked,
            held: state.held,
        };
        let plain = rare.marked.is_empty() && rare.held.is_none();
        Entry {
            due: state.due,
            rare: (!plain).then(|| Box::new(rare)),
            place,
            attempts: state.attempts,
            recipients: u32::try_from(recipients).unwrap_or(u32::MAX),
            size,
            stored,
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The octets of a large message, 0 for any other.
    pub(super) fn large(&self) -> u32 {
        match self.stored {
            Stored::InLog => 0,
            Stored::InFile => self.size,
        }
    }

    pub(super) fn stored(&self) -> Stored {
        self.stored
    }

    pub(super) fn state(&self) -> State {
        let rare = self.rare.as_deref().cloned().unwrap_or_default();
        State {
            due: self.due,
            attempts: self.attempts,
            held: rare.held,
            marked: rare.marked,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.held.is_some())
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// What became of a message by a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    Unknown,
    SomeLeft,
    Finished(Stored),
}

/// What lives in a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) messages: usize,
    pub(super) octets: u64,
}

/// All messages in the spool.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<SpoolId, Entry>,
    usage: BTreeMap<u32, Usage>,
}

/// The index, also after a thread died with it: every change below is whole.
pub(super) fn locked(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn find(&self, id: SpoolId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// All messages in the order in which they came.
    pub(super) fn ids(&self) -> Vec<SpoolId> {
        let mut ids: Vec<_> = self.entries.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn insert(&mut self, id: SpoolId, entry: Entry) {
        self.remove(id);
        let usage = self.usage.entry(entry.place.generation).or_default();
        usage.messages += 1;
        usage.octets += u64::from(entry.place.length);
        self.entries.insert(id, entry);
    }

    /// The message was copied forward, if it is still here.
    pub(super) fn relocate(&mut self, id: SpoolId, place: Place) {
        if let Some(mut entry) = self.remove(id) {
            entry.place = place;
            self.insert(id, entry);
        }
    }

    /// The message is no longer here.
    pub(super) fn remove(&mut self, id: SpoolId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Some(usage) = self.usage.get_mut(&entry.place.generation) {
            usage.messages -= 1;
            usage.octets -= u64::from(entry.place.length);
            if usage.messages == 0 {
                self.usage.remove(&entry.place.generation);
            }
        }
        Some(entry)
    }

    /// These recipients are done with. The message is gone once all of them are.
    pub(super) fn mark(&mut self, id: SpoolId, recipients: &[u32]) -> Marked {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Marked::Unknown;
        };
        let total = entry.recipients;
        let rare = entry.rare();
        rare.marked
            .extend(recipients.iter().filter(|r| **r < total));
        rare.marked.sort_unstable();
        rare.marked.dedup();
        if rare.marked.len() < total as usize {
            return Marked::SomeLeft;
        }
        let stored = entry.stored;
        self.remove(id);
        Marked::Finished(stored)
    }

    /// The message waits until `due`. False where it is not here.
    pub(super) fn defer(&mut self, id: SpoolId, due: u64, attempts: u32) -> bool {
        self.change(id, |entry| {
            entry.due = due;
            entry.attempts = attempts;
        })
    }

    /// The message is held. False where it is not here.
    pub(super) fn hold(&mut self, id: SpoolId, reason: String) -> bool {
        self.change(id, |entry| entry.rare().held = Some(reason))
    }

    /// The message is held no longer. False where it is not here.
    pub(super) fn release(&mut self, id: SpoolId, now: u64) -> bool {
        self.change(id, |entry| {
            entry.rare().held = None;
            entry.due = now;
        })
    }

    fn change(&mut self, id: SpoolId, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        change(entry);
        true
    }

    pub(super) fn usage(&self, generation: u32) -> Usage {
        self.usage.get(&generation).copied().unwrap_or_default()
    }

    /// Octets of living records in all segments.
    pub(super) fn octets(&self) -> u64 {
        self.usage.values().map(|usage| usage.octets).sum()
    }

    /// The messages in this segment, in the order in which they stand there.
    pub(super) fn living_in(&self, generation: u32) -> Vec<SpoolId> {
        let mut living: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.place.generation == generation)
            .map(|(id, entry)| (entry.place.offset, *id))
            .collect();
        living.sort_unstable();
        living.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::SessionId;

    const PLACE: Place = Place {
        generation: 1,
        offset: 8,
        length: 100,
    };

    fn id(serial: u32) -> SpoolId {
        SpoolId {
            session: SessionId(1),
            serial,
        }
    }

    fn entry(recipients: usize) -> Entry {
        Entry::new(PLACE, recipients, 60, Stored::InLog, State::default())
    }

    #[test]
    fn a_message_is_gone_when_each_recipient_has_a_mark() {
        let mut index = Index::default();
        index.insert(id(1), entry(3));
        assert_eq!(index.mark(id(1), &[0, 2, 2, 9]), Marked::SomeLeft);
        assert_eq!(index.find(id(1)).unwrap().state().marked, [0, 2]);
        assert_eq!(index.mark(id(1), &[1]), Marked::Finished(Stored::InLog));
        assert_eq!(index.mark(id(1), &[1]), Marked::Unknown);
        assert_eq!(index.usage(1), Usage::default());
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<(SpoolId, Entry)>() <= 64);
    }
}
