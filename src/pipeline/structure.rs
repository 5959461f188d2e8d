//! Is it a message at all? The rules of RFC 5322 §3.6 that a mail reader or a filter could be fooled
//! over, and the end of mail loops (RFC 5321 §6.3).
//!
//! The From field is not judged here: who wrote a message is a question of authenticity.

use serde::Deserialize;

use super::Action;
use super::Mode;
use crate::mail::headers;
use crate::smtp::reply::Refusal;

/// RFC 5321 §6.3: "at least 100" is what it says for counting hops; fifty is what all others use, and
/// no honest message comes near it.
const HOPS: usize = 50;

/// `[structure]`: what is done with a message that is not built as RFC 5322 says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// enforce, observe or off.
    pub mode: Mode,
    /// No Date field: reject, defer or accept.
    pub missing_date: Action,
    /// A field twice that may stand only once (Date, Sender, Reply-To, To, Cc, Bcc, Message-ID,
    /// In-Reply-To, References, Subject): reject, defer or accept.
    pub repeated_field: Action,
    /// A line in the header that is no field: reject, defer or accept.
    pub malformed_line: Action,
    /// Octets of the whole header.
    pub header_size: bytesize::ByteSize,
    /// Fields in the header.
    pub header_fields: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mode: Mode::Enforce,
            missing_date: Action::Reject,
            repeated_field: Action::Reject,
            malformed_line: Action::Reject,
            header_size: bytesize::ByteSize::kib(256),
            header_fields: 1000,
        }
    }
}

impl Config {
    /// What is wrong with the values: key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        [
            ("missing_date", self.missing_date),
            ("repeated_field", self.repeated_field),
            ("malformed_line", self.malformed_line),
        ]
        .into_iter()
        .filter(|(_, action)| matches!(action, Action::Hold | Action::Mark))
        .map(|(key, _)| (key.to_owned(), "use reject, defer or accept".to_owned()))
        .collect()
    }
}

/// Fields that RFC 5322 §3.6 allows once, From left out.
const ONCE: [&str; 10] = [
    "Date",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Subject",
];

/// A loop is ended in every mode.
pub(super) fn check_hops(message: &[u8]) -> Result<(), Refusal> {
    let hops = headers::fields(message).filter(|field| field.is("Received"));
    if hops.take(HOPS + 1).count() > HOPS {
        return Err(Refusal::too_many_hops());
    }
    Ok(())
}

/// Is the message built as it must be?
pub(super) fn check(config: &Config, message: &[u8]) -> Result<(), Refusal> {
    let mut fields = headers::fields(message);
    let mut seen = [0usize; ONCE.len()];
    let mut count = 0;
    for field in fields.by_ref() {
        count += 1;
        if count > config.header_fields {
            return Err(Refusal::header_too_large());
        }
        if let Some(at) = ONCE.iter().position(|name| field.is(name)) {
            seen[at] += 1;
        }
    }
    if fields.position() as u64 > config.header_size.as_u64() {
        return Err(Refusal::header_too_large());
    }
    if fields.malformed() > 0 {
        act(config.malformed_line, || {
            "The header has a line that is no field".to_owned()
        })?;
    }
    if seen[0] == 0 {
        act(config.missing_date, || {
            "The message has no Date field".to_owned()
        })?;
    }
    if let Some(at) = seen.iter().position(|times| *times > 1) {
        act(config.repeated_field, || {
            format!(
                "The message has {} {} fields, one is allowed",
                seen[at], ONCE[at]
            )
        })?;
    }
    Ok(())
}

fn act(action: Action, what: impl Fn() -> String) -> Result<(), Refusal> {
    match action {
        Action::Reject => Err(Refusal::malformed(what())),
        Action::Defer => Err(Refusal::malformed(what()).deferred()),
        Action::Hold | Action::Mark | Action::Accept => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_5322_forbids_is_refused() {
        let config = Config::default();
        let many = "X: 1\r\n".repeat(1001);
        let large = format!("Date: x\r\nX: {}\r\n\r\n", "a".repeat(300_000));
        for (message, want) in [
            ("Date: x\r\nSubject: s\r\n\r\nbody", None),
            ("Date: x\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n", None),
            ("Subject: s\r\n\r\nDate: in the body\r\n", Some(550)),
            ("Date: x\r\nTo: a\r\ntO : b\r\n\r\n", Some(550)),
            ("Date: x\r\nno field\r\n\r\n", Some(550)),
            (large.as_str(), Some(552)),
            (many.as_str(), Some(552)),
        ] {
            let got = check(&config, message.as_bytes())
                .err()
                .map(|refusal| refusal.reply().code);
            assert_eq!(got, want, "{}", &message[..message.len().min(60)]);
        }
    }

    #[test]
    fn config_may_let_it_pass() {
        let config = Config {
            missing_date: Action::Accept,
            malformed_line: Action::Defer,
            ..Config::default()
        };
        assert_eq!(check(&config, b"Subject: s\r\n\r\n"), Ok(()));
        let refusal = check(&config, b"Subject: s\r\nno field\r\n\r\n").unwrap_err();
        assert_eq!(refusal.reply().code, 451);
    }

    #[test]
    fn a_message_that_goes_in_a_circle_is_refused() {
        let hops = |n: usize| format!("{}\r\n", "Received: x\r\n".repeat(n)).into_bytes();
        assert_eq!(check_hops(&hops(50)), Ok(()));
        assert_eq!(check_hops(&hops(51)), Err(Refusal::too_many_hops()));
    }
}
