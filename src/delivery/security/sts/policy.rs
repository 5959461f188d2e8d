//! An MTA-STS record and policy as they are published (RFC 8461 §3.1, §3.2), and whom a policy names.

use std::fmt;
use std::time::Duration;

use crate::mail::address::Domain;

/// A policy is kept no longer (RFC 8461 §3.2).
const LONGEST: Duration = Duration::from_secs(31_557_600);
/// So many patterns of one policy are looked at; more make it invalid.
const MOST_PATTERNS: usize = 500;

/// What a domain says of its mail exchangers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delivery) struct Policy {
    pub(in crate::delivery) mode: Mode,
    pub(in crate::delivery) max_age: Duration,
    patterns: Vec<Pattern>,
    /// As it was published, for reports.
    pub(in crate::delivery) text: Box<str>,
}

/// How seriously it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::delivery) enum Mode {
    /// Mail goes by it or not at all.
    Enforce,
    /// Mail goes, and what is against the policy is told.
    Testing,
    /// There is no policy any more.
    None,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Host(Domain),
    /// Any name of one label more.
    Below(Domain),
}

impl Policy {
    /// Reads a policy. The error says what is wrong.
    pub(in crate::delivery) fn parse(text: &str) -> Result<Policy, String> {
        let fields: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        // RFC 8461 §3.2: of a key that may stand once, the first counts.
        let first = |wanted: &str| {
            let found = fields.iter().find(|(key, _)| *key == wanted);
            found
                .map(|(_, value)| *value)
                .ok_or(format!("it has no {wanted}"))
        };
        match first("version")? {
            "STSv1" => {}
            other => return Err(format!("its version is {other:?}")),
        }
        let mode = match first("mode")? {
            "enforce" => Mode::Enforce,
            "testing" => Mode::Testing,
            "none" => Mode::None,
            other => return Err(format!("its mode is {other:?}")),
        };
        let max_age = first("max_age")?;
        let seconds: u64 = max_age
            .parse()
            .map_err(|_| format!("its max_age is {max_age:?}"))?;
        let patterns = fields.iter().filter(|(key, _)| *key == "mx");
        let patterns = patterns.map(|(_, value)| Pattern::parse(value));
        let patterns: Vec<Pattern> = patterns.collect::<Result<_, _>>()?;
        if patterns.is_empty() && mode != Mode::None {
            return Err("it names no mx".to_owned());
        }
        if patterns.len() > MOST_PATTERNS {
            return Err(format!("it has {} lines of mx", patterns.len()));
        }
        Ok(Policy {
            mode,
            max_age: Duration::from_secs(seconds).min(LONGEST),
            patterns,
            text: text.into(),
        })
    }

    /// Whether the policy names this host (RFC 8461 §4.1).
    pub(in crate::delivery) fn names(&self, host: &str) -> bool {
        self.patterns.iter().any(|pattern| match pattern {
            Pattern::Host(name) => name.as_str() == host,
            Pattern::Below(name) => {
                let above = host.split_once('.').map(|(_, above)| above);
                above == Some(name.as_str())
            }
        })
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern, String> {
        let (name, pattern): (_, fn(Domain) -> Pattern) = match text.strip_prefix("*.") {
            Some(name) => (name, Pattern::Below),
            None => (text, Pattern::Host),
        };
        let name = Domain::parse(name).map_err(|_| format!("its mx is {text:?}"))?;
        Ok(pattern(name))
    }
}

/// The id of the policy that a domain has, by the TXT records at `_mta-sts.DOMAIN`. None where there
/// is no record or more than one (RFC 8461 §3.1).
pub(super) fn id(texts: &[Vec<u8>]) -> Option<Box<str>> {
    let mut records = texts.iter().filter(|text| text.starts_with(b"v=STSv1;"));
    let record = records.next()?;
    if records.next().is_some() {
        return None;
    }
    let record = std::str::from_utf8(record).ok()?;
    let mut fields = record.split(';').filter_map(|field| field.split_once('='));
    let (_, id) = fields.find(|(key, _)| key.trim() == "id")?;
    let id = id.trim();
    let is_id = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    is_id.then(|| id.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_hosts_and_those_one_label_below() {
        let text = "version: STSv1\r\nmode: enforce\r\nmx: Mail.example.com\r\nmx: *.example.net\r\n\
                    mode: none\r\nnew: thing\r\nmax_age: 604800\r\n";
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.mode, Mode::Enforce);
        assert_eq!(policy.max_age, Duration::from_secs(604_800));
        for (host, want) in [
            ("mail.example.com", true),
            ("a.mail.example.com", false),
            ("example.com", false),
            ("mx.example.net", true),
            ("a.mx.example.net", false),
            ("example.net", false),
            ("notexample.net", false),
        ] {
            assert_eq!(policy.names(host), want, "{host}");
        }
    }

    #[test]
    fn what_is_no_policy_is_told_apart() {
        let long = "version: STSv1\nmode: none\nmax_age: 99999999999\n";
        assert_eq!(Policy::parse(long).unwrap().max_age, LONGEST);
        for (text, want) in [
            ("", "it has no version"),
            (
                "version: STSv2\nmode: none\nmax_age: 1\n",
                "its version is \"STSv2\"",
            ),
            (
                "version: STSv1\nmode: maybe\nmax_age: 1\n",
                "its mode is \"maybe\"",
            ),
            ("version: STSv1\nmode: none\n", "it has no max_age"),
            (
                "version: STSv1\nmode: none\nmax_age: -1\n",
                "its max_age is \"-1\"",
            ),
            (
                "version: STSv1\nmode: enforce\nmax_age: 1\n",
                "it names no mx",
            ),
            (
                "version: STSv1\nmode: enforce\nmax_age: 1\nmx: a..b\n",
                "its mx is \"a..b\"",
            ),
            (
                "version: STSv1\nmode: enforce\nmax_age: 1\nmx: *\n",
                "its mx is \"*\"",
            ),
        ] {
            assert_eq!(Policy::parse(text).err().as_deref(), Some(want), "{text:?}");
        }
    }

    #[test]
    fn one_record_has_an_id() {
        for (texts, want) in [
            (
                &["v=STSv1; id=20160831085700Z;"][..],
                Some("20160831085700Z"),
            ),
            (&["v=spf1 -all", "v=STSv1;id=1"], Some("1")),
            (&["v=STSv1; new=x; id=1"], Some("1")),
            (&["v=STSv1; id=1", "v=STSv1; id=2"], None),
            (&["v=STSv1; id=a-b"], None),
            (&["v=STSv1; id="], None),
            (&["v=STSv1"], None),
            (&[], None),
        ] {
            let texts: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
            assert_eq!(id(&texts).as_deref(), want, "{texts:?}");
        }
    }
}

#[cfg(test)]
#[path = "../../../../tests/fuzz/policies.rs"]
mod fuzz;
