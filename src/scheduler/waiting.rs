//! What waits, packed: a million messages may wait, so each octet counts.
//!
//! A message waits in 16 octets for its turn, in 24 for a time. The containers grow by an eighth and
//! give back what is more than a quarter empty, so that either costs at most a third more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::LaneId;
use crate::mail::id::PackedId;
use crate::mail::id::SpoolId;

/// Room that is kept whatever the number.
const SMALLEST: usize = 64;

/// One message in one lane, not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    key: PackedId,
    /// Attempts made so far.
    pub(super) attempts: u32,
}

impl Waiting {
    pub(super) fn new(id: SpoolId, attempts: u32) -> Waiting {
        Waiting {
            key: id.into(),
            attempts,
        }
    }

    pub(super) fn id(&self) -> SpoolId {
        self.key.into()
    }
}

/// Those that wait for their turn, the first that came first.
#[derive(Debug, Default)]
pub(super) struct Line(VecDeque<Waiting>);

impl Line {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push_back(&mut self, waiting: Waiting) {
        self.make_room();
        self.0.push_back(waiting);
    }

    pub(super) fn push_front(&mut self, waiting: Waiting) {
        self.make_room();
        self.0.push_front(waiting);
    }

    /// Takes the first `most`, or as many as there are.
    pub(super) fn take(&mut self, most: usize) -> Vec<Waiting> {
        let taken = self.0.drain(..most.min(self.0.len())).collect();
        self.shrink();
        taken
    }

    /// Takes all of which this is true.
    pub(super) fn take_those(&mut self, those: impl Fn(SpoolId) -> bool) -> Vec<Waiting> {
        let mut taken = Vec::new();
        self.0.retain(|waiting| {
            let is_taken = those(waiting.id());
            if is_taken {
                taken.push(*waiting);
            }
            !is_taken
        });
        self.shrink();
        taken
    }

    fn shrink(&mut self) {
        if let Some(room) = too_much(self.0.len(), self.0.capacity()) {
            self.0.shrink_to(room);
        }
    }

    fn make_room(&mut self) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(growth(self.0.len()));
        }
    }
}

/// One message that waits for a time, in one lane. In the order of their times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Later {
    /// When it is due, in milliseconds since the beginning, and in the last 16 bits its attempts.
    due_and_attempts: u64,
    key: PackedId,
    lane: LaneId,
}

impl Later {
    fn due(&self) -> Duration {
        Duration::from_millis(self.due_and_attempts >> 16)
    }

    /// At most 65535, which nobody counts any more.
    fn attempts(&self) -> u32 {
        u32::from(self.due_and_attempts as u16)
    }

    fn waiting(&self) -> Waiting {
        Waiting {
            key: self.key,
            attempts: self.attempts(),
        }
    }
}

/// All that is put off.
#[derive(Debug)]
pub(super) struct Clock {
    beginning: Instant,
    later: BinaryHeap<Reverse<Later>>,
}

impl Clock {
    /// Nothing can be due before the `beginning`.
    pub(super) fn new(beginning: Instant) -> Clock {
        Clock {
            beginning,
            later: BinaryHeap::new(),
        }
    }

    /// Puts a message off until `due`, or up to a millisecond longer.
    pub(super) fn put_off(&mut self, lane: LaneId, waiting: Waiting, due: Instant) {
        let later = self.later(lane, waiting, due);
        if self.later.len() == self.later.capacity() {
            self.later.reserve_exact(growth(self.later.len()));
        }
        self.later.push(Reverse(later));
    }

    fn later(&self, lane: LaneId, waiting: Waiting, due: Instant) -> Later {
        let due = due.saturating_duration_since(self.beginning);
        let due = due.as_nanos().div_ceil(1_000_000);
        let due = u64::try_from(due).unwrap_or(u64::MAX).min(u64::MAX >> 16);
        let attempts = u16::try_from(waiting.attempts).unwrap_or(u16::MAX);
        Later {
            due_and_attempts: due << 16 | u64::from(attempts),
            key: waiting.key,
            lane,
        }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let Reverse(later) = self.later.peek()?;
        self.beginning.checked_add(later.due())
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(LaneId, Waiting)> {
        self.next().filter(|due| *due <= now)?;
        let Reverse(later) = self.later.pop()?;
        if let Some(room) = too_much(self.later.len(), self.later.capacity()) {
            self.later.shrink_to(room);
        }
        Some((later.lane, later.waiting()))
    }

    /// Takes all of which this is true, in no order.
    pub(super) fn take_those(&mut self, those: impl Fn(SpoolId) -> bool) -> Vec<(LaneId, Waiting)> {
        let mut taken = Vec::new();
        let mut all = std::mem::take(&mut self.later).into_vec();
        all.retain(|Reverse(later)| {
            let is_taken = those(later.key.into());
            if is_taken {
                taken.push((later.lane, later.waiting()));
            }
            !is_taken
        });
        if let Some(room) = too_much(all.len(), all.capacity()) {
            all.shrink_to(room);
        }
        self.later = all.into();
        taken
    }

    /// Moves all that is put off, and `others` as due at `now`, to one lane: each message once, with
    /// its earliest time and its most attempts. Gives how many there are.
    pub(super) fn gather(
        &mut self,
        lane: LaneId,
        others: impl IntoIterator<Item = Waiting>,
        now: Instant,
    ) -> usize {
        let mut all = std::mem::take(&mut self.later).into_vec();
        all.extend(
            others
                .into_iter()
                .map(|waiting| Reverse(self.later(lane, waiting, now))),
        );
        all.sort_unstable_by_key(|Reverse(later)| later.key);
        all.dedup_by(|Reverse(again), Reverse(kept)| {
            let same = again.key == kept.key;
            if same {
                let due = kept.due().min(again.due()).as_millis() as u64;
                let attempts = kept.attempts().max(again.attempts());
                kept.due_and_attempts = due << 16 | u64::from(attempts);
            }
            same
        });
        all.iter_mut().for_each(|later| later.0.lane = lane);
        all.shrink_to_fit();
        self.later = all.into();
        self.later.len()
    }
}

/// By how much a full container grows.
fn growth(length: usize) -> usize {
    length / 8 + SMALLEST
}

/// The room that a container is to keep, where it has too much.
fn too_much(length: usize, room: usize) -> Option<usize> {
    let wanted = length + growth(length);
    (room > SMALLEST && length < room / 4 * 3 && wanted < room).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::SessionId;

    const MANY: u64 = 100_000;
    /// What a message may cost here, with all that the containers keep in reserve.
    const COST: usize = 40;

    fn waiting(number: u64) -> Waiting {
        let id = SpoolId {
            session: SessionId(number << 20),
            serial: 1,
        };
        Waiting::new(id, 3)
    }

    #[test]
    fn a_message_in_line_costs_at_most_40_octets_while_the_line_grows_and_shrinks() {
        let mut line = Line::default();
        let check = |line: &Line| {
            let cost = line.0.capacity() * size_of::<Waiting>();
            assert!(cost <= COST * (line.len() + SMALLEST), "{}", line.len());
        };
        for number in 0..MANY {
            line.push_back(waiting(number));
            check(&line);
        }
        while !line.take(16).is_empty() {
            check(&line);
        }
    }

    #[test]
    fn a_message_put_off_costs_at_most_40_octets_while_there_are_more_and_fewer() {
        let now = Instant::now();
        let mut clock = Clock::new(now);
        let check = |clock: &Clock| {
            let length = clock.later.len();
            let cost = clock.later.capacity() * size_of::<Reverse<Later>>();
            assert!(cost <= COST * (length + SMALLEST), "{length}");
        };
        for number in 0..MANY {
            clock.put_off(LaneId(0), waiting(number), now);
            check(&clock);
        }
        while clock.take_due(now).is_some() {
            check(&clock);
        }
    }

    #[test]
    fn what_is_put_off_comes_in_the_order_of_its_times_and_never_early() {
        let now = Instant::now();
        let mut clock = Clock::new(now);
        let due = |number: u64| now + Duration::from_micros(1500 * number);
        for number in [3, 1, 2] {
            clock.put_off(LaneId(7), waiting(number), due(number));
        }
        assert!(clock.take_due(due(1)).is_none());
        for number in [1, 2, 3] {
            let next = clock.next().unwrap();
            assert!(next >= due(number) && next < due(number) + Duration::from_millis(1));
            assert_eq!(clock.take_due(next), Some((LaneId(7), waiting(number))));
        }
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn gathered_messages_are_there_once_with_the_earliest_time() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut clock = Clock::new(now);
        clock.put_off(LaneId(1), waiting(1), now + 2 * second);
        let tried = Waiting {
            attempts: 5,
            ..waiting(1)
        };
        clock.put_off(LaneId(2), tried, now + second);
        clock.put_off(LaneId(2), waiting(2), now + second);
        clock.gather(LaneId(9), [waiting(2)], now);
        assert_eq!(clock.take_due(now), Some((LaneId(9), waiting(2))));
        assert_eq!(clock.take_due(now), None);
        assert_eq!(clock.take_due(now + second), Some((LaneId(9), tried)));
        assert_eq!(clock.next(), None);
    }
}
