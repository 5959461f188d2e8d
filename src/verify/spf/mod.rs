//! Whether a host may send for a domain: `check_host()` of RFC 7208.
//!
//! Our own evaluator, because the one of the mail authentication library takes the first of several
//! records, counts no void lookups and trusts names that it has not validated. It is measured by
//! the public RFC 7208 suite (`tests/vectors.rs`).
//!
//! # Limits
//!
//! Ten terms that ask the DNS, two of which may find nothing (RFC 7208 §4.6.4); ten names for an
//! `mx` or `ptr`; and the whole has a deadline, after which it is a temporary error.

use std::net::IpAddr;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use tokio::time::Instant;

use crate::dns::Dns;
use crate::verify::SpfResult;

mod ahead;
mod evaluate;
mod macros;
mod record;

/// The arguments of `check_host()` (RFC 7208 §4.1), as texts: what a client says need not be a valid
/// name to be asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The client.
    pub ip: IpAddr,
    /// What stands left of the @ of the sender. Empty: "postmaster" (RFC 7208 §4.3).
    pub local: &'a str,
    /// The domain to check: of the sender, or the HELO name.
    pub domain: &'a str,
    /// The HELO name, for macros.
    pub helo: &'a str,
    /// Our own name, for macros.
    pub receiver: &'a str,
}

impl Question<'_> {
    fn local_part(&self) -> &str {
        match self.local {
            "" => "postmaster", // RFC 7208 §4.3
            local => local,
        }
    }
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What the domain says of the client.
    pub result: SpfResult,
    /// What the domain says of a fail, printable ASCII of at most 256 characters.
    pub explanation: Option<String>,
}

impl From<SpfResult> for Answer {
    fn from(result: SpfResult) -> Answer {
        Answer {
            result,
            explanation: None,
        }
    }
}

/// Evaluates the record of a domain; a temporary error where that takes longer than `limit`.
///
/// Cancel safe.
pub async fn check_host(dns: &Dns, question: &Question<'_>, limit: Duration) -> Answer {
    // An IPv4 client on an IPv6 socket is an IPv4 client (RFC 7208 §5).
    let question = Question {
        ip: question.ip.to_canonical(),
        domain: question.domain.strip_suffix('.').unwrap_or(question.domain),
        ..*question
    };
    if !is_full_name(question.domain) {
        return SpfResult::None.into(); // RFC 7208 §4.3
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    evaluate::evaluate(dns, &question, now, Instant::now() + limit).await
}

/// RFC 7208 §4.3: a domain of several labels, none empty or too long, and no address literal.
fn is_full_name(domain: &str) -> bool {
    domain.len() <= 253
        && domain.contains('.')
        && !domain.starts_with('[')
        && domain
            .split('.')
            .all(|label| (1..=63).contains(&label.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_name_is_asked_about() {
        for (domain, want) in [
            ("example.com", true),
            ("localhost", false),
            ("a..example", false),
            ("[192.0.2.1]", false),
            ("", false),
        ] {
            assert_eq!(is_full_name(domain), want, "{domain:?}");
        }
        assert!(!is_full_name(&format!("{}.example", "a".repeat(64))));
    }
}
