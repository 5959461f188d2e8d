//! What Dovecot's authentication service says, line by line: words with tabs between them.
//!
//! Pure. A line of which we know nothing is passed over, as the protocol wants it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Longest line, with its end.
pub(super) const LIMIT: usize = 16_384;

/// The version of the protocol that we speak: what differs in its second number does not matter to us.
pub(super) const MAJOR: &str = "1";

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The protocol that the service speaks, its first number.
    Version(String),
    /// One of its mechanisms.
    Mechanism(String),
    /// It has said all about itself.
    Done,
    /// Request `id` needs an answer to this.
    Continue { id: u32, octets: Vec<u8> },
    /// Request `id` is granted to this user.
    Granted { id: u32, user: Option<String> },
    /// Request `id` failed.
    Failed { id: u32, failure: Failure },
    /// Nothing that matters to us.
    Other,
}

/// Why a request failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) user: Option<String>,
    /// The service itself is in trouble; the password may be right.
    pub(super) is_temporary: bool,
    /// In a few words, for the log.
    pub(super) reason: String,
}

/// A line that breaks the protocol, so that nothing behind it can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Dovecot said something that is not its protocol")]
pub(super) struct Broken;

/// Reads a line, without its LF.
pub(super) fn parse(line: &[u8]) -> Result<Line, Broken> {
    let line = std::str::from_utf8(line).map_err(|_| Broken)?;
    let mut words = line.split('\t');
    let verb = words.next().unwrap_or_default();
    let mut next = || words.next().ok_or(Broken);
    Ok(match verb {
        "VERSION" => Line::Version(next()?.to_owned()),
        "MECH" => Line::Mechanism(next()?.to_owned()),
        "DONE" => Line::Done,
        "CONT" => {
            let id = id(next()?)?;
            let octets = BASE64_STANDARD.decode(words.next().unwrap_or_default());
            let octets = octets.map_err(|_| Broken)?;
            Line::Continue { id, octets }
        }
        "OK" => {
            let id = id(next()?)?;
            let user = words.find_map(|word| word.strip_prefix("user="));
            let user = user.map(unescape).filter(|user| !user.is_empty());
            Line::Granted { id, user }
        }
        "FAIL" => Line::Failed {
            id: id(next()?)?,
            failure: failure(words),
        },
        _ => Line::Other,
    })
}

fn id(word: &str) -> Result<u32, Broken> {
    word.parse().map_err(|_| Broken)
}

fn failure<'a>(words: impl Iterator<Item = &'a str>) -> Failure {
    let mut failure = Failure::default();
    let mut reasons = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("user", user)) => failure.user = Some(unescape(user)),
            Some(("reason", text)) => reasons.push(unescape(text)),
            Some(("code", "temp_fail")) => failure.is_temporary = true,
            None if word == "temp" => failure.is_temporary = true,
            Some(("code", code)) => reasons.push(code.to_owned()),
            None if ["user_disabled", "pass_expired", "authz"].contains(&word) => {
                reasons.push(word.to_owned());
            }
            Some(_) | None => {}
        }
    }
    reasons.retain(|reason| !reason.trim().is_empty());
    failure.reason = match (reasons.is_empty(), failure.is_temporary) {
        (false, _) => reasons.join(", "),
        (true, true) => "Dovecot has a temporary failure".to_owned(),
        (true, false) => "wrong password or no such user".to_owned(),
    };
    failure
}

/// A value as it may stand between tabs.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\0' => escaped.push_str("\u{1}0"),
            '\u{1}' => escaped.push_str("\u{1}1"),
            '\t' => escaped.push_str("\u{1}t"),
            '\r' => escaped.push_str("\u{1}r"),
            '\n' => escaped.push_str("\u{1}n"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// What was meant by a value between tabs.
fn unescape(text: &str) -> String {
    let mut chars = text.chars();
    let mut meant = String::with_capacity(text.len());
    while let Some(char) = chars.next() {
        if char != '\u{1}' {
            meant.push(char);
            continue;
        }
        match chars.next() {
            Some('0') => meant.push('\0'),
            Some('1') => meant.push('\u{1}'),
            Some('t') => meant.push('\t'),
            Some('r') => meant.push('\r'),
            Some('n') => meant.push('\n'),
            Some(other) => meant.push(other),
            None => {}
        }
    }
    meant
}

#[cfg(test)]
#[path = "../../../../tests/fuzz/dovecot.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dovecot_says_is_read() {
        let failed = |id, user: Option<&str>, is_temporary, reason: &str| Line::Failed {
            id,
            failure: Failure {
                user: user.map(str::to_owned),
                is_temporary,
                reason: reason.to_owned(),
            },
        };
        let wrong = "wrong password or no such user";
        for (line, want) in [
            ("VERSION\t1\t2", Line::Version("1".to_owned())),
            (
                "MECH\tPLAIN\tplaintext",
                Line::Mechanism("PLAIN".to_owned()),
            ),
            ("SPID\t4711", Line::Other),
            ("COOKIE\tdeadbeef", Line::Other),
            ("DONE", Line::Done),
            (
                "CONT\t2\tVXNlcm5hbWU6",
                Line::Continue {
                    id: 2,
                    octets: b"Username:".to_vec(),
                },
            ),
            (
                "CONT\t2\t",
                Line::Continue {
                    id: 2,
                    octets: vec![],
                },
            ),
            (
                "CONT\t2",
                Line::Continue {
                    id: 2,
                    octets: vec![],
                },
            ),
            (
                "OK\t3\tuser=ann@a.example\ttoken=x",
                Line::Granted {
                    id: 3,
                    user: Some("ann@a.example".to_owned()),
                },
            ),
            ("OK\t3", Line::Granted { id: 3, user: None }),
            (
                "FAIL\t4\tuser=a\u{1}tb",
                failed(4, Some("a\tb"), false, wrong),
            ),
            ("FAIL\t4", failed(4, None, false, wrong)),
            (
                "FAIL\t4\tuser=a\ttemp",
                failed(4, Some("a"), true, "Dovecot has a temporary failure"),
            ),
            (
                "FAIL\t4\tcode=temp_fail",
                failed(4, None, true, "Dovecot has a temporary failure"),
            ),
            (
                "FAIL\t4\tuser=a\tuser_disabled\treason=gone",
                failed(4, Some("a"), false, "user_disabled, gone"),
            ),
            (
                "FAIL\t4\tcode=user_disabled",
                failed(4, None, false, "user_disabled"),
            ),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(want), "{line:?}");
        }
        for line in ["OK", "OK\tx", "FAIL\t-1", "CONT\t1\t***", "VERSION", "CONT"] {
            assert_eq!(parse(line.as_bytes()), Err(Broken), "{line:?}");
        }
    }
}
