//! MTA-STS records and policies: what is read is bounded, and reads the same once it was kept.

use super::*;
use crate::fuzz::run;

#[test]
fn a_policy_is_bounded_and_reads_the_same_when_it_was_kept() {
    run("policies", |input| {
        let id = id(&[input.to_vec()]);
        let is_id = |id: &str| id.len() <= 32 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        assert!(id.as_deref().is_none_or(is_id));
        let policy = Policy::parse(&String::from_utf8_lossy(input));
        if let Ok(policy) = &policy {
            assert!(policy.max_age <= LONGEST && policy.patterns.len() <= MOST_PATTERNS);
            assert!(policy.mode == Mode::None || !policy.patterns.is_empty());
            assert!(!policy.names(""));
            assert_eq!(Policy::parse(&policy.text).as_ref(), Ok(policy));
        }
        let seen = policy.map(|policy| (policy.mode, policy.patterns.len().min(8)));
        (id.is_some(), seen.map_err(|reason| reason.len()))
    });
}
