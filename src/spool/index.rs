//! What is in the spool, in memory: where each message stands and how far it has come.
//!
//! Below 50 octets a message however many there are; the envelope stays on disk. The rows lie side by
//! side and grow by an eighth, a table of their numbers finds them, and what few messages have stands
//! beside. It also counts what lives in each segment, for [`super::space`].
//! Always as new as what was asked for, so at times ahead of the disk; a crash sets it back.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::mem;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use hashbrown::HashTable;
use hashbrown::hash_table;

use crate::mail::id::PackedId;
use crate::mail::id::SpoolId;
use crate::spool::entry::Entry;
use crate::spool::entry::Place;
use crate::spool::entry::Rare;
use crate::spool::entry::Row;
use crate::spool::entry::SECOND;
use crate::spool::entry::Stored;
use crate::spool::record::Deferral;

/// For so few messages memory is not counted.
const SMALL: usize = 1024;

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
pub struct Index {
    rows: Vec<Row>,
    /// Where in `rows` each message is.
    numbers: HashTable<u32>,
    hasher: RandomState,
    rare: BTreeMap<PackedId, Rare>,
    usage: BTreeMap<u32, Usage>,
}

/// The index, also after a thread died with it: every change below is whole.
pub(super) fn locked(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn number(&self, key: PackedId) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let number = self
            .numbers
            .find(hash, |at| self.rows[*at as usize].key == key);
        number.map(|number| *number as usize)
    }

    pub(super) fn contains(&self, id: SpoolId) -> bool {
        self.number(id.into()).is_some()
    }

    pub(super) fn find(&self, id: SpoolId) -> Option<Entry> {
        let row = self.rows[self.number(id.into())?];
        Some(Entry::unpack(row, self.rare.get(&row.key).cloned()))
    }

    /// All messages in the order in which they came.
    pub(super) fn ids(&self) -> Vec<PackedId> {
        let mut ids = self.keys();
        ids.sort_unstable();
        ids
    }

    /// All messages in no order.
    pub(super) fn keys(&self) -> Vec<PackedId> {
        self.rows.iter().map(|row| row.key).collect()
    }

    /// The message that came first.
    pub(super) fn oldest(&self) -> Option<SpoolId> {
        self.rows.iter().map(|row| row.key).min().map(SpoolId::from)
    }

    /// How many messages are held.
    pub(super) fn held(&self) -> usize {
        self.rare
            .values()
            .filter(|rare| rare.held.is_some())
            .count()
    }

    /// The messages that have a file of their own.
    pub(super) fn large(&self) -> impl Iterator<Item = SpoolId> {
        let large = self.rare.iter().filter(|(_, rare)| rare.large > 0);
        large.map(|(key, _)| SpoolId::from(*key))
    }

    /// The message is here, as this says, and no longer as was said before.
    pub(super) fn insert(&mut self, id: SpoolId, entry: Entry) {
        let (row, rare) = entry.pack(id.into());
        self.reserve(1);
        let Index {
            rows,
            numbers,
            hasher,
            ..
        } = self;
        let number = rows.len() as u32;
        let entry = numbers.entry(
            hasher.hash_one(row.key),
            |at| rows[*at as usize].key == row.key,
            |at| hasher.hash_one(rows[*at as usize].key),
        );
        match entry {
            hash_table::Entry::Vacant(entry) => {
                entry.insert(number);
                rows.push(row);
            }
            hash_table::Entry::Occupied(entry) => {
                let before = mem::replace(&mut rows[*entry.get() as usize], row);
                self.rare.remove(&row.key);
                self.leave(before.place);
            }
        }
        let usage = self.usage.entry(row.place.generation).or_default();
        usage.messages += 1;
        usage.octets += u64::from(row.place.length);
        self.rare.extend(rare.map(|rare| (row.key, rare)));
    }

    /// Nothing lives at this place any longer.
    fn leave(&mut self, place: Place) {
        if let Some(usage) = self.usage.get_mut(&place.generation) {
            usage.messages -= 1;
            usage.octets -= u64::from(place.length);
            if usage.messages == 0 {
                self.usage.remove(&place.generation);
            }
        }
    }

    /// Makes room for so many more; an eighth at least, and no more, as that may lie idle.
    pub(super) fn reserve(&mut self, more: usize) {
        let rows = &mut self.rows;
        if rows.capacity() - rows.len() < more {
            rows.reserve_exact(more.max(rows.len() / 8).max(SMALL));
        }
        if self.numbers.capacity() - self.numbers.len() < more {
            // Those that were removed take room, too: not so little that it would be used up at once.
            self.number_anew(self.rows.len() + self.rows.len() / 8 + more);
        }
    }

    /// Gives memory back where most of it is idle.
    fn shrink(&mut self) {
        let rows = &mut self.rows;
        let used = rows.len();
        if rows.capacity() > 2 * (used + SMALL) {
            rows.shrink_to(used + used / 8);
        }
        if self.numbers.capacity() > 4 * (used + SMALL) {
            self.number_anew(used);
        }
    }

    /// Makes the table of numbers anew, for so many messages. It could do that itself, but would go
    /// through the rows in its own order, and wait for memory at each.
    fn number_anew(&mut self, room: usize) {
        let hash = |row: &Row| self.hasher.hash_one(row.key);
        let mut numbers = HashTable::with_capacity(room);
        for (number, row) in (0..).zip(&self.rows) {
            numbers.insert_unique(hash(row), number, |at: &u32| hash(&self.rows[*at as usize]));
        }
        self.numbers = numbers;
    }

    /// Takes in all of `newer`; where both have a message, that of `newer` counts.
    pub(super) fn absorb(&mut self, newer: Index) {
        for row in newer.rows {
            let rare = newer.rare.get(&row.key).cloned();
            self.insert(row.key.into(), Entry::unpack(row, rare));
        }
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
        let key = PackedId::from(id);
        let hash = self.hasher.hash_one(key);
        let rows = &mut self.rows;
        let found = self
            .numbers
            .find_entry(hash, |at| rows[*at as usize].key == key);
        let (number, _) = found.ok()?.remove();
        let row = rows.swap_remove(number as usize);
        if let Some(moved) = rows.get(number as usize) {
            // It was the last one.
            let (hash, last) = (self.hasher.hash_one(moved.key), rows.len() as u32);
            let moved = self.numbers.find_mut(hash, |at| *at == last);
            moved.into_iter().for_each(|at| *at = number);
        }
        self.shrink();
        self.leave(row.place);
        Some(Entry::unpack(row, self.rare.remove(&key)))
    }

    /// These recipients are done with. The message is gone once all of them are.
    pub(super) fn mark(&mut self, id: SpoolId, recipients: &[u32]) -> Marked {
        let mut marked = Marked::Unknown;
        self.change(id, |entry| {
            let total = entry.recipients;
            let done = &mut entry.state.marked;
            done.extend(recipients.iter().filter(|at| **at < total));
            done.sort_unstable();
            done.dedup();
            marked = if done.len() < total as usize {
                Marked::SomeLeft
            } else {
                Marked::Finished(entry.stored())
            };
        });
        if let Marked::Finished(_) = marked {
            self.remove(id);
        }
        marked
    }

    /// The message waits until `due`. False where it is not here.
    pub(super) fn defer(&mut self, id: SpoolId, due: u64, attempts: u32) -> bool {
        self.change(id, |entry| {
            entry.state.due = due;
            entry.state.attempts = attempts;
        })
    }

    /// The message is due `now`. None where it is not here, or was due by then.
    pub(super) fn hasten(&mut self, id: SpoolId, now: u64) -> Option<Deferral> {
        let mut hastened = None;
        self.change(id, |entry| {
            let due = now - now % SECOND;
            if entry.state.due > due {
                entry.state.due = due;
                let attempts = entry.state.attempts;
                hastened = Some(Deferral { due, attempts });
            }
        });
        hastened
    }

    /// The message is held. False where it is not here.
    pub(super) fn hold(&mut self, id: SpoolId, reason: String) -> bool {
        self.change(id, |entry| entry.state.held = Some(reason))
    }

    /// The message is held no longer, and due `now`. False where it is not here.
    pub(super) fn release(&mut self, id: SpoolId, now: u64) -> bool {
        self.change(id, |entry| {
            entry.state.held = None;
            entry.state.due = now - now % SECOND;
        })
    }

    fn change(&mut self, id: SpoolId, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(number) = self.number(id.into()) else {
            return false;
        };
        let row = &mut self.rows[number];
        let mut entry = Entry::unpack(*row, self.rare.remove(&row.key));
        change(&mut entry);
        let (changed, rare) = entry.pack(row.key);
        *row = changed;
        self.rare.extend(rare.map(|rare| (changed.key, rare)));
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
        let living = self
            .rows
            .iter()
            .filter(|row| row.place.generation == generation);
        let mut living: Vec<_> = living.map(|row| (row.place.offset, row.key)).collect();
        living.sort_unstable();
        living.into_iter().map(|(_, key)| key.into()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::SessionId;
    use crate::spool::record::State;

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
        assert_eq!(index.find(id(1)).unwrap().state.marked, [0, 2]);
        assert_eq!(index.mark(id(1), &[1]), Marked::Finished(Stored::InLog));
        assert_eq!(index.mark(id(1), &[1]), Marked::Unknown);
        assert_eq!(index.usage(1), Usage::default());
    }

    #[test]
    fn what_a_row_is_too_small_for_is_kept_all_the_same() {
        let mut index = Index::default();
        let recipients = usize::from(u16::MAX) + 1;
        index.insert(
            id(1),
            Entry::new(PLACE, recipients, 9, Stored::InFile, State::default()),
        );
        index.defer(id(1), 7_000_001, 70_000);
        index.hold(id(1), "odd".into());
        let all_but_one: Vec<_> = (1..recipients as u32).collect();
        assert_eq!(index.mark(id(1), &all_but_one), Marked::SomeLeft);
        let entry = index.find(id(1)).unwrap();
        assert_eq!((entry.large, entry.stored()), (9, Stored::InFile));
        // Not before it was asked for.
        assert_eq!((entry.state.due, entry.state.attempts), (8_000_000, 70_000));
        assert!(entry.is_held() && entry.state.marked == all_but_one);
        assert!(index.large().eq([id(1)]));
        assert_eq!(index.mark(id(1), &[0]), Marked::Finished(Stored::InFile));
        assert!(index.rare.is_empty());
    }

    #[test]
    fn a_message_is_hastened_and_never_put_off_by_it() {
        let mut index = Index::default();
        index.insert(id(1), entry(1));
        index.defer(id(1), 9_000_000, 3);
        let deferral = index.hasten(id(1), 7_000_001).unwrap();
        assert_eq!((deferral.due, deferral.attempts), (7_000_000, 3));
        assert!(index.hasten(id(1), 8_000_000).is_none());
        assert!(index.hasten(id(2), 8_000_000).is_none());
        assert_eq!(index.find(id(1)).unwrap().state.due, 7_000_000);
    }

    #[test]
    fn a_message_that_was_never_tried_is_due_at_once() {
        let state = State {
            due: 7_000_001,
            ..State::default()
        };
        let new = Entry::new(PLACE, 1, 9, Stored::InLog, state);
        assert_eq!(new.state.due, 7_000_000);
    }

    #[test]
    fn of_two_indexes_the_newer_counts() {
        let (mut old, mut new) = (Index::default(), Index::default());
        (1..4).for_each(|serial| old.insert(id(serial), entry(1)));
        (3..6).for_each(|serial| new.insert(id(serial), entry(2)));
        new.hold(id(5), "odd".into());
        old.absorb(new);
        assert!(old.ids().into_iter().map(SpoolId::from).eq((1..6).map(id)));
        assert_eq!(old.mark(id(3), &[0]), Marked::SomeLeft);
        assert!(old.find(id(5)).unwrap().is_held());
        assert_eq!((old.usage(1).messages, old.octets()), (5, 500));
    }

    #[test]
    fn a_message_takes_less_than_50_octets_however_many_there_are() {
        let mut index = Index::default();
        let size = |index: &Index| {
            index.rows.capacity() * size_of::<Row>() + index.numbers.allocation_size()
        };
        for serial in 0..120_000 {
            index.insert(id(serial), entry(1));
            if serial > 20_000 {
                assert!(size(&index) < 50 * index.len(), "{serial}");
            }
        }
        let full = size(&index);
        for serial in (0..119_000).rev() {
            assert_eq!(index.remove(id(serial)), Some(entry(1)));
        }
        assert!((119_000..120_000).all(|serial| index.contains(id(serial))));
        assert!(size(&index) < full / 16, "{} of {full}", size(&index));
    }
}
