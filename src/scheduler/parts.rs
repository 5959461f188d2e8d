//! What the lanes of one message have in common: how many have it, and who has failed.
//!
//! Most messages are in one lane and fail nowhere; nothing is kept for those.

use std::collections::HashMap;

use crate::mail::id::SpoolId;

#[derive(Debug, Default)]
struct Part {
    lanes: usize,
    failed: Vec<(usize, String)>,
}

/// The messages that are in several lanes, or have recipients that failed for good.
#[derive(Debug, Default)]
pub(super) struct Parts(HashMap<SpoolId, Part>);

impl Parts {
    /// The message is in so many lanes now.
    pub(super) fn enter(&mut self, id: SpoolId, lanes: usize) {
        if lanes != 1 || self.0.contains_key(&id) {
            self.0.entry(id).or_default().lanes = lanes;
        }
    }

    /// A recipient will never be delivered.
    pub(super) fn fail(&mut self, id: SpoolId, recipient: usize, reason: String) {
        let part = self.0.entry(id).or_insert(Part {
            lanes: 1,
            failed: Vec::new(),
        });
        part.failed.push((recipient, reason));
    }

    /// The recipients that have failed, as indexes.
    pub(super) fn failed(&self, id: SpoolId) -> Vec<usize> {
        let part = self.0.get(&id).into_iter();
        part.flat_map(|part| part.failed.iter().map(|failed| failed.0))
            .collect()
    }

    /// One lane is done with the message. When it was the last and recipients have failed: why.
    pub(super) fn leave(&mut self, id: SpoolId) -> Option<String> {
        let part = self.0.get_mut(&id)?;
        part.lanes = part.lanes.saturating_sub(1);
        if part.lanes > 0 {
            return None;
        }
        let failed = self.0.remove(&id)?.failed;
        let reasons: Vec<String> = failed.into_iter().map(|failed| failed.1).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
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

    #[test]
    fn the_last_lane_tells_who_failed() {
        let mut parts = Parts::default();
        parts.enter(ID, 2);
        parts.fail(ID, 4, "a: no".to_owned());
        assert_eq!(parts.leave(ID), None);
        parts.fail(ID, 2, "b: no".to_owned());
        assert_eq!(parts.failed(ID), [4, 2]);
        assert_eq!(parts.leave(ID).as_deref(), Some("a: no; b: no"));
        assert!(parts.0.is_empty());
    }

    #[test]
    fn a_message_in_one_lane_without_failures_is_not_kept() {
        let mut parts = Parts::default();
        parts.enter(ID, 1);
        assert!(parts.0.is_empty());
        assert_eq!(parts.leave(ID), None);
        parts.fail(ID, 0, "no".to_owned());
        assert_eq!(parts.leave(ID).as_deref(), Some("no"));
    }
}
