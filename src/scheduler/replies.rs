//! What was said last of recipients that wait, for whoever asks.
//!
//! Kept in memory, of the latest messages only: with a million in the queue it is the log that knows
//! all. A restart forgets it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::SystemTime;

use crate::mail::id::PackedId;
use crate::mail::id::SpoolId;

/// So many replies are remembered,
const MOST: usize = 20_000;
/// of so many octets each; what is longer is cut.
const LONGEST: usize = 400;

/// What was said of one recipient, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its place in the envelope.
    pub recipient: usize,
    /// What the next hop said, or what we found.
    pub text: String,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// When it was said.
    pub at: SystemTime,
}

/// The last replies.
#[derive(Debug, Default)]
pub(super) struct Replies {
    of: HashMap<PackedId, Vec<Reply>>,
    /// Messages by when something was first said of them.
    order: VecDeque<PackedId>,
    /// Of all messages together.
    count: usize,
}

impl Replies {
    /// This was said last of a recipient.
    pub(super) fn note(
        &mut self,
        id: SpoolId,
        recipient: usize,
        reply: &str,
        attempt: u32,
        at: SystemTime,
    ) {
        let key = PackedId::from(id);
        let order = &mut self.order;
        let replies = self.of.entry(key).or_insert_with(|| {
            order.push_back(key);
            Vec::with_capacity(1)
        });
        let reply = Reply {
            recipient,
            text: reply[..reply.floor_char_boundary(LONGEST)].to_owned(),
            attempt,
            at,
        };
        match replies.binary_search_by_key(&recipient, |reply| reply.recipient) {
            Ok(place) => replies[place] = reply,
            Err(place) => {
                replies.insert(place, reply);
                self.count += 1;
            }
        }
        while self.count > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.count -= self.of.remove(&oldest).map_or(0, |replies| replies.len());
        }
    }

    /// What was said last, in the order of the recipients.
    pub(super) fn of(&self, id: SpoolId) -> Vec<Reply> {
        self.of.get(&id.into()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::SessionId;

    fn id(serial: u32) -> SpoolId {
        SpoolId {
            session: SessionId(1),
            serial,
        }
    }

    #[test]
    fn the_last_reply_counts_and_only_so_many_are_remembered() {
        let now = SystemTime::UNIX_EPOCH;
        let mut replies = Replies::default();
        replies.note(id(0), 2, "450 later", 1, now);
        replies.note(id(0), 1, "450 later", 1, now);
        replies.note(id(0), 2, &"\u{e4}".repeat(LONGEST), 2, now);
        let of = replies.of(id(0));
        assert_eq!((of.len(), of[1].text.len(), of[1].attempt), (2, LONGEST, 2));
        for serial in 1..=MOST as u32 {
            replies.note(id(serial), 0, "451 no", 1, now);
        }
        assert!(replies.of(id(0)).is_empty());
        assert_eq!(
            (replies.of.len(), replies.order.len(), replies.count),
            (MOST, MOST, MOST)
        );
    }
}
