//! The part of a report that programs read: message/delivery-status (RFC 3464 §2) and
//! message/global-delivery-status (RFC 6533 §4).
//!
//! What strangers chose stays in its field: control characters are gone, long values are folded.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::dsn::Charset;
use super::dsn::Report;
use super::finding::Finding;
use super::finding::Kind;
use crate::mail::address::Address;
use crate::mail::envelope::Recipient;
use crate::smtp::client::response::Speaker;

/// Where a line is folded, if it has a space there.
const FOLD: usize = 76;
/// RFC 5322 §2.1.1: where it is folded though it has none, in octets. The limit is 998.
const LONGEST: usize = 900;

/// All fields, those of the message first, then an empty line and a group for each recipient.
pub(super) fn fields(report: &Report<'_>, charset: Charset) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| text.push_str(&folded(name, value));
    if let Some(id) = report.envelope.envid.as_deref().and_then(from_xtext) {
        field("Original-Envelope-Id", &id); // RFC 3461 §4.4
    }
    field("Reporting-MTA", &format!("dns; {}", report.hostname));
    field("Arrival-Date", &date(report.arrived));
    for finding in report.findings {
        text.push_str("\r\n");
        text.push_str(&of_recipient(report, finding, charset));
    }
    text
}

/// RFC 3464 §2.3
fn of_recipient(report: &Report<'_>, finding: &Finding, charset: Charset) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| text.push_str(&folded(name, value));
    if let Some(recipient) = report.envelope.recipients.get(finding.recipient) {
        if let Some(original) = original_recipient(recipient, charset) {
            field("Original-Recipient", &original);
        }
        field(
            "Final-Recipient",
            &final_recipient(&recipient.address, charset),
        );
    }
    field("Action", report.kind.action());
    let (class, subject, detail) = finding.status(report.kind);
    field("Status", &format!("{class}.{subject}.{detail}"));
    if let Some(remote) = &finding.remote {
        field(
            "Remote-MTA",
            &format!("dns; {}", in_charset(remote, charset)),
        );
    }
    let words = in_charset(&finding.reply.to_string(), charset);
    match finding.reply.speaker {
        Speaker::Peer => field("Diagnostic-Code", &format!("smtp; {words}")),
        // RFC 3464 §2.3.6: "smtp" is for what a server said.
        Speaker::Us => field("Diagnostic-Code", &format!("x-gatepost; {words}")),
    }
    field("Last-Attempt-Date", &date(report.now));
    if let Kind::Delayed { until } = report.kind {
        field("Will-Retry-Until", &date(until));
    }
    text
}

/// RFC 3464 §2.3.2, RFC 6533 §3
fn final_recipient(address: &Address, charset: Charset) -> String {
    match charset {
        _ if address.is_ascii() => format!("rfc822; {address}"),
        Charset::Utf8 => format!("utf-8; {address}"),
        Charset::Ascii => format!("utf-8; {}", embedded(&address.to_string())),
    }
}

/// RFC 3464 §2.3.1: what the sender named, in the words that it chose. None where it cannot be read.
fn original_recipient(recipient: &Recipient, charset: Charset) -> Option<String> {
    let (kind, address) = recipient.orcpt.as_deref()?.split_once(';')?;
    let address = match kind.eq_ignore_ascii_case("utf-8") {
        true => from_embedded(address)?,
        false => from_xtext(address)?,
    };
    Some(match charset {
        _ if address.is_ascii() => format!("{kind}; {address}"),
        Charset::Utf8 => format!("{kind}; {address}"),
        Charset::Ascii => format!("{kind}; {}", embedded(&address)),
    })
}

/// Reads xtext (RFC 3461 §4). None where a control character or no ASCII comes out.
fn from_xtext(text: &str) -> Option<String> {
    let mut read = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, behind)) = rest.split_once('+') {
        let code = u8::from_str_radix(behind.get(..2)?, 16).ok()?;
        read.push_str(plain);
        read.push(char::from(code));
        rest = &behind[2..];
    }
    read.push_str(rest);
    is_plain(&read).then_some(read)
}

/// Reads utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 §3): `\x{20AC}` is a character.
fn from_embedded(text: &str) -> Option<String> {
    let mut read = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, behind)) = rest.split_once("\\x{") {
        let (code, behind) = behind.split_once('}')?;
        read.push_str(plain);
        read.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        rest = behind;
    }
    read.push_str(rest);
    (!read.chars().any(char::is_control)).then_some(read)
}

/// Writes utf-8-addr-xtext (RFC 6533 §3).
fn embedded(address: &str) -> String {
    let mut text = String::with_capacity(address.len());
    for c in address.chars() {
        match c {
            '!'..='~' if !matches!(c, '\\' | '+' | '=') => text.push(c),
            c => text.push_str(&format!("\\x{{{:02X}}}", u32::from(c))),
        }
    }
    text
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The text as far as the charset has it.
pub(super) fn in_charset(text: &str, charset: Charset) -> String {
    match charset {
        Charset::Utf8 => text.to_owned(),
        Charset::Ascii => text.replace(|c: char| !c.is_ascii(), "?"),
    }
}

/// RFC 5322 §3.3
pub(super) fn date(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    jiff::fmt::rfc2822::to_string(&time.to_zoned(TimeZone::UTC)).unwrap_or_default()
}

/// One field, folded at its spaces, with its final CRLF.
pub(super) fn folded(name: &str, value: &str) -> String {
    let mut text = format!("{name}:");
    let mut column = text.len();
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        let mut rest = word;
        while !rest.is_empty() {
            let piece = &rest[..rest.floor_char_boundary(LONGEST)];
            if column + piece.len() >= FOLD && column > name.len() + 1 {
                text.push_str("\r\n   ");
                column = 3;
            }
            text.push(' ');
            text.push_str(piece);
            column += 1 + piece.len();
            rest = &rest[piece.len()..];
        }
    }
    text.push_str("\r\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_folded_and_no_line_is_too_long() {
        let value = format!("smtp; 550 {} {}", "word ".repeat(30), "x".repeat(2000));
        let field = folded("Diagnostic-Code", &value);
        assert!(field.lines().all(|line| line.len() < 998));
        let unfolded = field.replace("\r\n   ", "");
        let words = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(
            words(&unfolded),
            format!("Diagnostic-Code:{}", words(&value))
        );
        assert_eq!(crate::mail::headers::fields(field.as_bytes()).count(), 1);
    }

    #[test]
    fn what_a_sender_named_is_decoded_and_cannot_end_its_field() {
        let original = |orcpt: &str, charset| {
            let recipient = Recipient {
                orcpt: Some(orcpt.to_owned()),
                ..Recipient::new(Address::parse("a@b.example").unwrap())
            };
            original_recipient(&recipient, charset)
        };
        for (orcpt, ascii, utf8) in [
            (
                "rfc822;a+2Bc@b.example",
                Some("rfc822; a+c@b.example"),
                None,
            ),
            ("rfc822;a+0D+0AX:y", None, None),
            ("rfc822;a+zz", None, None),
            (
                "utf-8;j\\x{F6}rg@b.example",
                Some("utf-8; j\\x{F6}rg@b.example"),
                Some("utf-8; jörg@b.example"),
            ),
            (
                "utf-8;jörg@b.example",
                Some("utf-8; j\\x{F6}rg@b.example"),
                Some("utf-8; jörg@b.example"),
            ),
            ("utf-8;a\\x{A}b", None, None),
            ("utf-8;a\\x{D800}b", None, None),
        ] {
            assert_eq!(original(orcpt, Charset::Ascii).as_deref(), ascii, "{orcpt}");
            let want = utf8.or(ascii);
            assert_eq!(original(orcpt, Charset::Utf8).as_deref(), want, "{orcpt}");
        }
    }
}
