//! A delivery status notification as a message: multipart/report (RFC 6522) with words for people, fields
//! for programs (RFC 3464), and the message or its header.
//!
//! Pure: id, time and all else are given, so the same report is the same octets. Internationalised forms
//! (RFC 6533) are used where the message makes use of SMTPUTF8. The message is passed on as it is, neither
//! encoded nor copied; that, and all fields in the order of the RFC, is why no MIME library writes this.

use std::time::SystemTime;

use bytes::Bytes;
use memchr::memmem;

use super::finding::Finding;
use super::finding::Kind;
use super::status;
use super::status::date;
use super::status::folded;
use super::words;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Ret;
use crate::mail::headers;
use crate::mail::id::SpoolId;

/// How much of a header is looked at and returned, in octets.
const HEADER: usize = 256 << 10;
/// The longest Subject and the longest list of References that are taken over, in octets.
const TAKEN_OVER: usize = 800;

/// All that a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The report's own.
    pub id: SpoolId,
    /// Who reports.
    pub hostname: &'a Domain,
    /// Who stands in From.
    pub from: &'a Address,
    /// Who is told.
    pub to: &'a Address,
    /// As whom.
    pub reader: Reader,
    /// What is told.
    pub kind: Kind,
    /// Of whom: at least one.
    pub findings: &'a [Finding],
    /// The message's.
    pub envelope: &'a Envelope,
    /// The message.
    pub content: &'a Content,
    /// When the message came.
    pub arrived: SystemTime,
    /// When the report is made.
    pub now: SystemTime,
    /// The largest message that is returned whole where the sender did not say, in octets.
    pub full_up_to: u64,
}

/// As whom somebody reads a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Who sent the message.
    Sender,
    /// Who looks after the server, where a message has no sender to tell.
    Postmaster,
}

/// What the words and the fields may be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    Ascii,
    Utf8,
}

/// What is returned of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returned {
    Full,
    Header,
}

/// The message with all its fields, not signed yet.
pub fn write(report: &Report<'_>) -> Content {
    let header = report.content.header(HEADER);
    let charset = charset(report, &header);
    let returned = returned(report);
    let words = words::text(report);
    let status = status::fields(report, charset);
    let original = match returned {
        Returned::Full => report.content.clone(),
        Returned::Header => Content::from(Bytes::from(header.clone())),
    };
    let kind = match (returned, charset) {
        (Returned::Full, Charset::Ascii) => "message/rfc822",
        (Returned::Full, Charset::Utf8) => "message/global",
        (Returned::Header, Charset::Ascii) => "text/rfc822-headers", // RFC 6522 §4
        (Returned::Header, Charset::Utf8) => "message/global-headers",
    };
    let status_kind = match charset {
        Charset::Ascii => "message/delivery-status",
        Charset::Utf8 => "message/global-delivery-status",
    };
    let boundary = boundary(report.id, &original);
    let mut text = top(report, &header, &boundary);
    text.push_str(&part(&boundary, "text/plain", words.as_bytes().into()));
    text.push_str(&words);
    text.push_str(&part(&boundary, status_kind, status.as_bytes().into()));
    text.push_str(&status);
    text.push_str(&part(&boundary, kind, Octets::of(&original)));
    let end = format!("\r\n--{boundary}--\r\n");
    Content::join([Bytes::from(text).into(), original, Bytes::from(end).into()])
}

/// RFC 6533 §4: the internationalised forms are for messages that need them.
fn charset(report: &Report<'_>, header: &[u8]) -> Charset {
    let envelope = report.envelope;
    let mut addresses = envelope
        .recipients
        .iter()
        .map(|recipient| &recipient.address);
    let all_ascii = header.is_ascii()
        && addresses.all(Address::is_ascii)
        && envelope.from.address().is_none_or(Address::is_ascii);
    match envelope.smtputf8 && !all_ascii {
        true => Charset::Utf8,
        false => Charset::Ascii,
    }
}

/// RFC 3461 §4.3: RET is about reports of failure; all others have the header.
fn returned(report: &Report<'_>) -> Returned {
    let is_small = report.content.len() as u64 <= report.full_up_to;
    match (report.kind, report.envelope.ret) {
        // RFC 8689 §5: what was not to be read on the way is not sent back.
        (Kind::Failed, _) if report.envelope.requiretls => Returned::Header,
        (Kind::Failed, Some(Ret::Full)) => Returned::Full,
        (Kind::Failed, None) if is_small => Returned::Full,
        (Kind::Failed, None | Some(Ret::Headers)) => Returned::Header,
        (Kind::Delayed { .. } | Kind::Delivered | Kind::Relayed, _) => Returned::Header,
    }
}

/// The header of the report. The empty line comes with the first part.
fn top(report: &Report<'_>, original: &[u8], boundary: &str) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| text.push_str(&folded(name, value));
    field("Date", &date(report.now));
    field(
        "From",
        &format!("\"Mail Delivery System\" <{}>", report.from),
    );
    field("To", &format!("<{}>", report.to));
    field("Subject", &subject(report, original));
    field(
        "Message-ID",
        &format!("<{}@{}>", report.id, report.hostname),
    );
    if let Some(id) = value_of(report, original, "Message-ID") {
        // RFC 5322 §3.6.4
        let before = value_of(report, original, "References").unwrap_or_default();
        field("In-Reply-To", &id);
        field("References", &format!("{before} {id}"));
    }
    field("Auto-Submitted", "auto-replied"); // RFC 3834 §5
    field("MIME-Version", "1.0");
    // RFC 6522 §3
    text.push_str(&format!(
        "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n"
    ));
    text
}

fn subject(report: &Report<'_>, original: &[u8]) -> String {
    let what = match report.kind {
        Kind::Failed => "Not delivered",
        Kind::Delayed { .. } => "Not delivered yet",
        Kind::Delivered => "Delivered",
        Kind::Relayed => "Handed on",
    };
    match value_of(report, original, "Subject") {
        Some(subject) => format!("{what}: {subject}"),
        None => format!("{what}: your message"),
    }
}

/// The value of the first field of this name, where it can be taken over as it is: printable, not too
/// long, and of a charset that the report's header may have.
fn value_of(report: &Report<'_>, original: &[u8], name: &str) -> Option<String> {
    let field = headers::fields(original).find(|field| field.is(name))?;
    let value = std::str::from_utf8(field.value).ok()?;
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let value = words.join(" ");
    // RFC 6531 §3.4: only who has such an address is sure to take such a header.
    let fits = value.is_ascii() || !report.to.is_ascii();
    let fits = fits && (1..=TAKEN_OVER).contains(&value.len());
    (fits && !value.chars().any(char::is_control)).then_some(value)
}

/// A line that does not stand in the original, so that nobody can end a part of ours.
fn boundary(id: SpoolId, original: &Content) -> String {
    let mut boundary = format!("=_{id}");
    while contains(original, boundary.as_bytes()) {
        boundary.push('_');
    }
    boundary
}

/// Whether these octets stand in one of its chunks, or across several.
fn contains(content: &Content, octets: &[u8]) -> bool {
    let seam = octets.len().saturating_sub(1);
    let mut before = Vec::new();
    content.chunks().any(|chunk| {
        before.extend_from_slice(&chunk[..chunk.len().min(seam)]);
        let found = memmem::find(&before, octets).or_else(|| memmem::find(chunk, octets));
        match chunk.len().checked_sub(seam) {
            Some(tail) => before = chunk[tail..].to_vec(),
            None => drop(before.drain(..before.len().saturating_sub(seam))),
        }
        found.is_some()
    })
}

/// Whether there are octets above 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Octets {
    SevenBit,
    EightBit,
}

impl Octets {
    pub(super) fn of(content: &Content) -> Octets {
        match content.chunks().all(<[u8]>::is_ascii) {
            true => Octets::SevenBit,
            false => Octets::EightBit,
        }
    }
}

impl From<&[u8]> for Octets {
    fn from(octets: &[u8]) -> Octets {
        match octets.is_ascii() {
            true => Octets::SevenBit,
            false => Octets::EightBit,
        }
    }
}

/// The head of a part. RFC 2045 §6.2: what is above 127 is declared.
fn part(boundary: &str, kind: &str, octets: Octets) -> String {
    let charset = match (kind, octets) {
        ("text/plain" | "text/rfc822-headers", Octets::EightBit) => "; charset=utf-8",
        ("text/plain", Octets::SevenBit) => "; charset=us-ascii",
        _ => "",
    };
    let encoding = match octets {
        Octets::SevenBit => "7bit",
        Octets::EightBit => "8bit",
    };
    format!(
        "\r\n--{boundary}\r\nContent-Type: {kind}{charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::id::SessionId;

    #[test]
    fn no_original_holds_the_boundary() {
        let id = SpoolId {
            session: SessionId(1),
            serial: 1,
        };
        let plain = boundary(id, &Content::default());
        assert_eq!(plain, "=_00000000001.1");
        for pieces in [
            vec!["x=_00000000001.1--"],
            vec!["a long line with =_0000", "0000001.1"],
            vec!["=_00", "000", "000", "001.1 and much more than that"],
        ] {
            let pieces = pieces
                .into_iter()
                .map(|piece| Bytes::from_static(piece.as_bytes()).into());
            let longer = boundary(id, &Content::join(pieces));
            assert_eq!(longer, "=_00000000001.1_");
        }
    }
}
