//! What the lanes of one message have in common: how many have it, and who has failed.
//!
//! Most messages are in one lane and fail nowhere; nothing is kept for those.

use std::collections::HashMap;

use crate::mail::id::PackedId;
use crate::mail::id::SpoolId;

/// The messages that are in several lanes, or have recipients that failed for good.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// In how many lanes a message is; in one, where it does not stand here.
    lanes: HashMap<PackedId, u32>,
    failed: HashMap<PackedId, Vec<(usize, String)>>,
}

impl Parts {
    /// The message is in so many lanes now.
    pub(super) fn enter(&mut self, id: SpoolId, lanes: usize) {
        let key = id.into();
        if lanes == 1 {
            self.lanes.remove(&key);
        } else {
            let lanes = u32::try_from(lanes).unwrap_or(u32::MAX);
            self.lanes.insert(key, lanes);
        }
    }

    /// All messages have been gathered in one lane; those under way are still in theirs too.
    pub(super) fn gathered(&mut self, under_way: impl Iterator<Item = SpoolId>) {
        self.lanes = HashMap::new();
        for id in under_way {
            *self.lanes.entry(id.into()).or_insert(1) += 1;
        }
    }

    /// A recipient will never be delivered.
    pub(super) fn fail(&mut self, id: SpoolId, recipient: usize, reason: String) {
        let failed = self.failed.entry(id.into()).or_default();
        failed.push((recipient, reason));
    }

    /// The recipients that have failed, as indexes.
    pub(super) fn failed(&self, id: SpoolId) -> Vec<usize> {
        let failed = self.failed.get(&id.into()).into_iter().flatten();
        failed.map(|failed| failed.0).collect()
    }

    /// One lane is done with the message. When it was the last and recipients have failed: why.
    pub(super) fn leave(&mut self, id: SpoolId) -> Option<String> {
        let key = id.into();
        if let Some(lanes) = self.lanes.get_mut(&key) {
            *lanes = lanes.saturating_sub(1);
            if *lanes > 0 {
                return None;
            }
            self.lanes.remove(&key);
            if self.lanes.is_empty() {
                self.lanes = HashMap::new(); // A table does not shrink by itself.
            }
        }
        let failed = self.failed.remove(&key)?;
        let reasons: Vec<String> = failed.into_iter().map(|failed| failed.1).collect();
        Some(reasons.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::SessionId;

    const ID: SpoolId = SpoolId {
        session: SessionId(1),
        serial: 1,
    };

    fn is_empty(parts: &Parts) -> bool {
        parts.lanes.is_empty() && parts.failed.is_empty()
    }

    #[test]
    fn the_last_lane_tells_who_failed() {
        let mut parts = Parts::default();
        parts.enter(ID, 2);
        parts.fail(ID, 4, "a: no".to_owned());
        assert_eq!(parts.leave(ID), None);
        parts.fail(ID, 2, "b: no".to_owned());
        assert_eq!(parts.failed(ID), [4, 2]);
        assert_eq!(parts.leave(ID).as_deref(), Some("a: no; b: no"));
        assert!(is_empty(&parts));
    }

    #[test]
    fn a_message_in_one_lane_without_failures_is_not_kept() {
        let mut parts = Parts::default();
        parts.enter(ID, 1);
        assert!(is_empty(&parts));
        assert_eq!(parts.leave(ID), None);
        parts.fail(ID, 0, "no".to_owned());
        assert_eq!(parts.leave(ID).as_deref(), Some("no"));
    }

    #[test]
    fn a_gathered_message_is_in_its_new_lane_and_where_it_is_under_way() {
        let mut parts = Parts::default();
        parts.enter(ID, 3);
        parts.fail(ID, 0, "no".to_owned());
        parts.gathered([ID].into_iter());
        assert_eq!(parts.leave(ID), None);
        assert_eq!(parts.leave(ID).as_deref(), Some("no"));
    }
}
