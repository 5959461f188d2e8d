//! Which messages of the queue are meant.

use std::fmt;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

use crate::mail::address::ReversePath;
use crate::mail::id::SpoolId;
use crate::spool::Look;

/// How a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is tried now, or as soon as its destination allows.
    Active,
    /// It waits for a later time.
    Deferred,
    /// It is kept until somebody releases it.
    Held,
}

impl State {
    pub(super) fn of(look: &Look, now: SystemTime) -> State {
        match look {
            Look { held: Some(_), .. } => State::Held,
            Look { due, .. } if *due > now => State::Deferred,
            Look { .. } => State::Active,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Active => "active",
            State::Deferred => "deferred",
            State::Held => "held",
        })
    }
}

/// What all messages that are meant have in common. What is not given does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Names of messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<SpoolId>,
    /// The sender; `<>` for none, `*` for any text, as in `*@example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// One that is still to get it, written likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The domain of one that is still to get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Seconds for which it is here at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than: Option<u64>,
    /// How it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// All messages are meant, so nothing else has to be given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl Filter {
    /// Whether anything is asked for.
    pub fn is_given(&self) -> bool {
        self.all || *self != Filter::default()
    }

    /// Whether names alone say what is meant, so that no message has to be looked at.
    pub(super) fn names_alone(&self) -> bool {
        let names = Filter {
            ids: self.ids.clone(),
            all: self.all,
            ..Filter::default()
        };
        *self == names
    }

    /// Whether a message is meant, as far as its name does not say so.
    pub fn matches(&self, look: &Look, now: SystemTime) -> bool {
        let age = || now.duration_since(look.arrived).unwrap_or_default();
        let sender = || match &look.envelope.from {
            ReversePath::Null => "<>".to_owned(),
            ReversePath::Address(address) => address.to_string(),
        };
        let recipients = || {
            let open = look.open.iter();
            open.filter_map(|at| look.envelope.recipients.get(*at))
        };
        let has_domain = |domain: &String| {
            recipients().any(|to| to.address.host().to_string().eq_ignore_ascii_case(domain))
        };
        self.state.is_none_or(|state| state == State::of(look, now))
            && self
                .older_than
                .is_none_or(|seconds| age() >= Duration::from_secs(seconds))
            && self.domain.as_ref().is_none_or(has_domain)
            && self
                .from
                .as_ref()
                .is_none_or(|like| is_like(&sender(), like))
            && self
                .to
                .as_ref()
                .is_none_or(|like| recipients().any(|to| is_like(&to.address.to_string(), like)))
    }
}

/// Whether a text is as the pattern says, in which `*` is any text; case does not matter.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.to_lowercase(), pattern.to_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty(); // There is no `*`.
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (text, pattern, is) in [
            ("anna@example.com", "anna@example.com", true),
            ("Anna@Example.com", "anna@example.COM", true),
            ("anna@example.com", "*@example.com", true),
            ("anna@example.com", "a*a@*.com", true),
            ("anna@example.com", "*", true),
            ("anna@example.com", "", false),
            ("anna@example.com", "anna", false),
            ("anna@example.com", "*@example", false),
            ("aa", "a*a", true),
            ("a", "a*a", false),
            ("<>", "<>", true),
        ] {
            assert_eq!(is_like(text, pattern), is, "{text} {pattern}");
        }
    }

    #[test]
    fn a_filter_with_nothing_in_it_is_not_given() {
        assert!(!Filter::default().is_given());
        let filter: Filter = serde_json::from_str(r#"{"ids":["01JDQ4T9X2K.1"]}"#).unwrap();
        assert!(filter.is_given());
        assert!(serde_json::from_str::<Filter>(r#"{"form":"x"}"#).is_err());
    }
}
