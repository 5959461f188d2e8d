//! Which old messages the committer copies forward, and what becomes of those that it cannot read.
//!
//! A message that cannot be read is copied later, as its disk may come to its senses. After some tries
//! it is given up, since what is old must not keep the log from being freed for ever.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::mail::id::SpoolId;
use crate::spool::Error;

/// So many tries a message has.
const TRIES: u32 = 5;
/// How long copying rests between two of them.
const REST: Duration = Duration::from_secs(60);

/// What is to be copied. Told the time; reads and writes nothing.
#[derive(Debug, Default)]
pub(super) struct Copying {
    waiting: VecDeque<SpoolId>,
    /// How often a message could not be read.
    unread: HashMap<SpoolId, u32>,
    /// Until when nothing more is begun.
    rest: Option<Instant>,
}

impl Copying {
    /// These are to be copied, and nothing else.
    pub(super) fn begin(&mut self, ids: Vec<SpoolId>) {
        self.waiting = ids.into();
    }

    /// Whether nothing waits to be copied.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether something could not be read a short while ago.
    pub(super) fn rests(&mut self, now: Instant) -> bool {
        self.rest.take_if(|until| *until <= now);
        self.rest.is_some()
    }

    /// The message to copy next, to be followed by one of the others.
    pub(super) fn next(&self) -> Option<SpoolId> {
        self.waiting.front().copied()
    }

    /// It was read, or is not there any more.
    pub(super) fn read(&mut self, id: SpoolId) {
        self.waiting.pop_front();
        self.unread.remove(&id);
    }

    /// It could not be read. True where it never will be: it is damaged, or was tried often.
    pub(super) fn gives_up(&mut self, id: SpoolId, error: &Error, now: Instant) -> bool {
        self.waiting.pop_front();
        let tries = self.unread.entry(id).or_default();
        *tries += 1;
        if matches!(error, Error::Read { .. }) && *tries < TRIES {
            self.rest.get_or_insert(now + REST);
            return false;
        }
        self.unread.remove(&id);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::mail::id::SessionId;

    const ID: SpoolId = SpoolId {
        session: SessionId(1),
        serial: 1,
    };

    fn failed() -> Error {
        Error::read("segment".into(), io::Error::other("no"))
    }

    #[test]
    fn a_message_is_given_up_at_once_when_damaged_and_after_five_tries_when_unread() {
        let mut copying = Copying::default();
        let now = Instant::now();
        let tries = (1..=TRIES).map(|_| copying.gives_up(ID, &failed(), now));
        let tries: Vec<_> = tries.collect();
        assert_eq!(tries, [false, false, false, false, true]);
        assert!(copying.gives_up(ID, &Error::Damaged { id: ID }, now));
        assert!(copying.unread.is_empty());
    }

    #[test]
    fn one_that_was_read_has_all_its_tries_again() {
        let mut copying = Copying::default();
        let now = Instant::now();
        copying.begin(vec![ID]);
        assert!(!copying.gives_up(ID, &failed(), now));
        assert!(copying.is_done());
        copying.read(ID);
        assert!(copying.unread.is_empty());
    }

    #[test]
    fn copying_rests_a_minute_after_one_that_could_not_be_read() {
        let mut copying = Copying::default();
        let now = Instant::now();
        assert!(!copying.rests(now));
        copying.gives_up(ID, &failed(), now);
        assert!(copying.rests(now + REST / 2));
        assert!(!copying.rests(now + REST));
    }
}
