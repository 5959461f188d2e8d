//! The meta of an ACCEPT as far as a start needs it.
//!
//! Which addresses there are is not looked at; whoever loads the message does that.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::IgnoredAny;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::spool::record::State;

/// What the index has of it. The rest is skipped: a start may have to read a hundred thousand of them
/// before it takes mail.
#[derive(Debug, Deserialize)]
pub(super) struct Brief {
    pub(super) envelope: Recipients,
    #[serde(default)]
    pub(super) state: State,
}

/// See [`Brief`].
#[derive(Debug, Deserialize)]
pub(super) struct Recipients {
    pub(super) recipients: Count,
}

/// How many items a list has, whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        deserializer.deserialize_seq(Counting)
    }
}

struct Counting;

impl<'de> Visitor<'de> for Counting {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
        let mut count = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Count(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_counted_whatever_is_said_of_them() {
        for (list, count) in [("[]", 0), (r#"["a", {"b": [1]}, null]"#, 3)] {
            let text =
                format!(r#"{{"envelope": {{"from": 1, "recipients": {list}}}, "arrived": 2}}"#);
            let brief: Brief = serde_json::from_str(&text).unwrap();
            assert_eq!(brief.envelope.recipients, Count(count), "{list}");
            assert_eq!(brief.state, State::default());
        }
        let text = r#"{"envelope": {"recipients": 3}}"#;
        assert!(serde_json::from_str::<Brief>(text).is_err());
    }
}
