//! What is put right in a message of ours before it goes out (RFC 6409 §8), and nothing else.
//!
//! Added, in front of the header, where it is missing: Date, Message-ID, a recipient, Sender. Taken
//! out: Bcc and Resent-Bcc, which name those whom the others are not to know; Return-Path, which only
//! the last hop may write; results and marks in our name. All else stays octet for octet as it came.

use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Deserialize;

use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::content::Content;
use crate::mail::headers;
use crate::mail::id::SpoolId;
use crate::pipeline::received;
use crate::pipeline::trace;

/// `[submission.repair]`: what is added to mail of ours, and what it tells of the client.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A Date field where there is none.
    pub date: bool,
    /// A Message-ID field where there is none.
    pub message_id: bool,
    /// `To: undisclosed-recipients:;` where there is neither To nor Cc.
    pub to: bool,
    /// A Sender field with the user's own address, where From does not name that alone.
    pub sender: bool,
    /// Whether our Received field keeps quiet about the client's name and address.
    pub hide_client: bool,
    /// Whether our Received field names the login.
    pub show_login: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            date: true,
            message_id: true,
            to: true,
            sender: true,
            hide_client: false,
            show_login: false,
        }
    }
}

/// What the repair of one message needs to know.
pub(super) struct Repair<'a> {
    pub(super) config: &'a Config,
    pub(super) hostname: &'a Domain,
    /// What the message is called with us.
    pub(super) id: SpoolId,
    /// Whom a Sender field is to name, where one is wanted.
    pub(super) sender: Option<Address>,
    pub(super) now: SystemTime,
}

/// A message that may go out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repaired {
    pub(super) content: Content,
    /// What was done, as in `+Date -Bcc`; empty where nothing was.
    pub(super) changes: String,
}

impl Repair<'_> {
    /// Copies nothing of the message.
    pub(super) fn apply(&self, received: &Bytes) -> Repaired {
        let mut seen = Seen::default();
        let mut changes = Vec::new();
        let mut removed: Vec<Range<usize>> = Vec::new();
        match headers::indented(received) {
            0 => {}
            // It would carry on with the last of our fields.
            octets => {
                removed.push(0..octets);
                changes.push("-indented".to_owned());
            }
        }
        for field in headers::fields(received) {
            let is_blind = field.is("Bcc") || field.is("Resent-Bcc");
            if is_blind || trace::is_ours_alone(&field, self.hostname) {
                changes.push(format!("-{}", field.name));
                removed.push(field.range);
            } else {
                seen.note(&field);
            }
        }
        let mut added = String::new();
        for (name, value) in self.missing(&seen) {
            added.push_str(&format!("{name}: {value}\r\n"));
            changes.push(format!("+{name}"));
        }
        // A header of many such fields is no reason for a long line in the log.
        changes.truncate(10);
        Repaired {
            content: Content::assemble(added.into(), received, &removed),
            changes: changes.join(" "),
        }
    }

    /// The fields to add, with their values.
    fn missing(&self, seen: &Seen) -> Vec<(&'static str, String)> {
        let mut missing = Vec::new();
        // RFC 6409 §8.2
        if self.config.date && !seen.date {
            missing.push(("Date", received::date(self.now)));
        }
        // RFC 6409 §8.1
        if let Some(sender) = &self.sender
            && self.config.sender
            && !seen.sender
        {
            missing.push(("Sender", sender.to_string()));
        }
        // RFC 5322 §3.6.3 wants none, but many take mail without a recipient for spam.
        if self.config.to && !seen.recipient {
            missing.push(("To", "undisclosed-recipients:;".to_owned()));
        }
        // RFC 6409 §8.3
        if self.config.message_id && !seen.message_id {
            let id = format!("<{}@{}>", self.id, self.hostname);
            missing.push(("Message-ID", id));
        }
        missing
    }
}

/// Which fields the message has.
#[derive(Default)]
struct Seen {
    date: bool,
    sender: bool,
    recipient: bool,
    message_id: bool,
}

impl Seen {
    fn note(&mut self, field: &headers::Field<'_>) {
        self.date |= field.is("Date");
        self.sender |= field.is("Sender");
        self.recipient |= field.is("To") || field.is("Cc");
        self.message_id |= field.is("Message-ID");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::prop_assert_eq;
    use proptest::proptest;

    use super::*;

    fn repaired(config: &Config, sender: Option<&str>, message: impl AsRef<[u8]>) -> Repaired {
        let repair = Repair {
            config,
            hostname: &Domain::parse("mx.example.com").unwrap(),
            id: "01JDQ4T9X2K.1".parse().unwrap(),
            sender: sender.map(|sender| sender.parse().unwrap()),
            now: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_764_000_000),
        };
        repair.apply(&Bytes::copy_from_slice(message.as_ref()))
    }

    fn text(repaired: &Repaired) -> String {
        String::from_utf8_lossy(&repaired.content.to_bytes()).into_owned()
    }

    const WHOLE: &str = "Date: x\r\nFrom: a\r\nTO : b\r\nMessage-Id: <1>\r\n";

    #[test]
    fn what_is_missing_is_added_and_what_nobody_may_see_is_taken_out() {
        for (before, after, changes) in [
            (
                "Subject: s\r\n\r\nBcc: body\r\n",
                "Date: Mon, 24 Nov 2025 16:00:00 +0000\r\nTo: undisclosed-recipients:;\r\n\
              Message-ID: <01JDQ4T9X2K.1@mx.example.com>\r\nSubject: s\r\n\r\nBcc: body\r\n",
                "+Date +To +Message-ID",
            ),
            (
                "Date: x\r\nMessage-ID: <1>\r\nBcc: a,\r\n b\r\nCc: c\r\nresent-bcc:d\r\n\r\n.\r\n",
                "Date: x\r\nMessage-ID: <1>\r\nCc: c\r\n\r\n.\r\n",
                "-Bcc -resent-bcc",
            ),
            (
                "Bcc: a\r\nDate: x\r\nMessage-ID: <1>\r\n\r\n",
                "To: undisclosed-recipients:;\r\nDate: x\r\nMessage-ID: <1>\r\n\r\n",
                "-Bcc +To",
            ),
            (
                "Return-Path: <x@y.example>\r\nDate: x\r\nTo: b\r\nMessage-ID: <1>\r\n\
              Authentication-Results: mx.example.com; dmarc=pass\r\n\
              Authentication-Results: other.example; dmarc=pass\r\n\r\n",
                "Date: x\r\nTo: b\r\nMessage-ID: <1>\r\n\
              Authentication-Results: other.example; dmarc=pass\r\n\r\n",
                "-Return-Path -Authentication-Results",
            ),
            (
                " folded\r\nDate: x\r\nTo: b\r\nMessage-ID: <1>\r\n\r\n",
                "Date: x\r\nTo: b\r\nMessage-ID: <1>\r\n\r\n",
                "-indented",
            ),
        ] {
            let got = repaired(&Config::default(), None, before);
            assert_eq!(text(&got), after);
            assert_eq!(got.changes, changes);
        }
    }

    #[test]
    fn a_sender_is_added_where_one_is_wanted_and_none_stands_there() {
        let with_sender = format!("{WHOLE}sender: b@example.com\r\n\r\n");
        let without = format!("{WHOLE}\r\n");
        let off = Config {
            sender: false,
            ..Config::default()
        };
        let added = format!("Sender: anna@example.com\r\n{without}");
        for (config, sender, before, after) in [
            (
                &Config::default(),
                Some("anna@example.com"),
                &without,
                &added,
            ),
            (
                &Config::default(),
                Some("anna@example.com"),
                &with_sender,
                &with_sender,
            ),
            (&Config::default(), None, &without, &without),
            (&off, Some("anna@example.com"), &without, &without),
        ] {
            assert_eq!(text(&repaired(config, sender, before)), *after);
        }
    }

    proptest! {
        #[test]
        fn nothing_else_is_touched(
            fields in "([A-Z]{1,3}: [ -~]{0,9}\r\n( [a-z]{1,5}\r\n)?){0,5}",
            body in "([ -~]{0,20}\r\n){0,5}",
        ) {
            let message = format!("{WHOLE}Bcc: x\r\n{fields}\r\n{body}");
            let want = message.replacen("Bcc: x\r\n", "", 1);
            let got = repaired(&Config::default(), None, &message);
            prop_assert_eq!(text(&got), want);
        }

        #[test]
        fn a_message_that_was_repaired_is_whole(
            message in "(Bcc|resent-bcc ?|Date|To|X|Message-ID| |\t|:|,|\r\n|\n|\r|é){0,40}",
        ) {
            let once = repaired(&Config::default(), Some("anna@example.com"), &message);
            let twice = repaired(&Config::default(), Some("anna@example.com"), text(&once));
            prop_assert_eq!(&twice.changes, "", "{:?}", once);
            prop_assert_eq!(twice.content.to_bytes(), once.content.to_bytes());
        }
    }
}
