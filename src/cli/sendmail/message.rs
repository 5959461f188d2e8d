//! A message as programs of this machine write it, made one that can go out.
//!
//! Lines end with LF, or as they like; a header may be missing, or have names without a domain; the From
//! line of mailboxes may stand in front. What else is to be put right, the gateway does for all mail of
//! ours.

use std::io;
use std::io::BufRead;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::memchr;

use super::mailboxes;
use super::mailboxes::is_bare;
use super::options::Dot;
use crate::mail::headers;

/// Standard input gave no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It broke.
    #[error("cannot read the message")]
    Read(#[from] io::Error),
    /// There is too much of it.
    #[error("the message is larger than {0} octets, which is the most that is taken")]
    TooLarge(u64),
}

/// Reads a message to its end; each line ends with CRLF then. Holds no more than `largest` octets and the
/// CRs that were missing.
pub(super) fn read(input: impl BufRead, dot: Dot, largest: u64) -> Result<Vec<u8>, Error> {
    let mut input = input.take(largest + 1);
    let mut message = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text == b"." && dot == Dot::Ends {
            break;
        }
        // A lone CR begins a line anew on a terminal; in mail it would be an offence (RFC 5321 §2.3.8).
        for part in text.split(|octet| *octet == b'\r') {
            message.extend_from_slice(part);
            message.extend_from_slice(b"\r\n");
        }
    }
    match input.limit() {
        0 => Err(Error::TooLarge(largest)),
        _ => Ok(message),
    }
}

/// A message that has a header, with the addresses that it names as recipients.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) message: Vec<u8>,
    /// Of Resent-To, Resent-Cc and Resent-Bcc where there is one of them, else of To, Cc and Bcc.
    pub(super) recipients: Vec<String>,
}

/// Gives a message the header that it lacks. `author` is the value of From where there is none.
pub(super) fn prepare(message: &[u8], domain: &str, author: &str) -> Prepared {
    let message = without_mailbox_line(message);
    let end = header_end(message);
    let (header, body) = message.split_at(end);
    let mut out = Vec::with_capacity(message.len() + 256);
    let (mut named, mut resent, mut has_author) = (Vec::new(), None, false);
    for field in headers::fields(header) {
        has_author |= field.is("From");
        let whole = &header[field.range.clone()];
        if !is_address_field(field.name) {
            out.extend_from_slice(whole);
            continue;
        }
        let value_at = whole.len() - field.value.len() - 2;
        out.extend_from_slice(&whole[..value_at]);
        let addresses = qualify(field.value, domain, &mut out);
        out.extend_from_slice(b"\r\n");
        match RECIPIENTS.iter().find(|name| field.is(name)) {
            Some(name) if name.starts_with("Resent-") => {
                resent.get_or_insert_with(Vec::new).extend(addresses);
            }
            Some(_) => named.extend(addresses),
            None => {}
        }
    }
    if !has_author {
        let from = format!("From: {author}\r\n");
        out.splice(0..0, from.into_bytes());
    }
    if !body.starts_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(body);
    Prepared {
        message: out,
        recipients: resent.unwrap_or(named),
    }
}

/// The value of a From field: a name, if there is one, and an address.
pub(super) fn author(name: &str, address: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim();
    if name.is_empty() {
        return address.to_owned();
    }
    if name.is_ascii() {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("\"{quoted}\" <{address}>");
    }
    // RFC 2047 §2: a word has 75 characters at most.
    let mut words = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.floor_char_boundary(45));
        words.push(format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode(word)));
        rest = behind;
    }
    format!("{} <{address}>", words.join("\r\n "))
}

const RECIPIENTS: [&str; 6] = ["To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"];

fn is_address_field(name: &str) -> bool {
    const OTHERS: [&str; 5] = ["From", "Sender", "Reply-To", "Resent-From", "Resent-Sender"];
    let mut all = OTHERS.iter().chain(&RECIPIENTS);
    all.any(|other| other.eq_ignore_ascii_case(name))
}

/// Writes a list of addresses with the domains that are missing; gives the addresses.
fn qualify(value: &[u8], domain: &str, out: &mut Vec<u8>) -> Vec<String> {
    let mut addresses = Vec::new();
    let mut at = 0;
    for span in mailboxes::spans(value) {
        out.extend_from_slice(&value[at..span.end]);
        at = span.end;
        let mut address = String::from_utf8_lossy(&value[span]).into_owned();
        if is_bare(&address) {
            let missing = format!("@{domain}");
            out.extend_from_slice(missing.as_bytes());
            address.push_str(&missing);
        }
        addresses.push(address);
    }
    out.extend_from_slice(&value[at..]);
    addresses
}

/// Mailboxes have a line `From anna Tue Nov 24 ...` in front of each message; some programs pass it on.
fn without_mailbox_line(message: &[u8]) -> &[u8] {
    let is_one = message.starts_with(b"From ") || message.starts_with(b">From ");
    match memchr(b'\n', message) {
        Some(end) if is_one => &message[end + 1..],
        Some(_) | None => message,
    }
}

/// Where the header ends: at an empty line, or at the first that is neither a field nor continues one.
fn header_end(message: &[u8]) -> usize {
    let mut at = 0;
    while let Some(length) = memchr(b'\n', &message[at..]) {
        let line = &message[at..=at + length];
        let continues = matches!(line, [b' ' | b'\t', ..]) && at > 0;
        if !continues && headers::fields(line).next().is_none() {
            return at;
        }
        at += line.len();
    }
    message.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(input: &str, dot: Dot) -> String {
        let message = read(input.as_bytes(), dot, 1000).unwrap();
        String::from_utf8(message).unwrap()
    }

    #[test]
    fn lines_are_ended_by_crlf_and_a_dot_ends_where_it_is_to() {
        for (input, dot, want) in [
            ("a\nb\r\nc", Dot::Ends, "a\r\nb\r\nc\r\n"),
            ("a\n.\nb\n", Dot::Ends, "a\r\n"),
            ("a\r\n.\r\nb\r\n", Dot::Ends, "a\r\n"),
            ("a\n.\n..\n.b\n", Dot::IsText, "a\r\n.\r\n..\r\n.b\r\n"),
            ("a\n..\n.b\n", Dot::Ends, "a\r\n..\r\n.b\r\n"),
            ("10%\r20%\r\n", Dot::Ends, "10%\r\n20%\r\n"),
            ("", Dot::Ends, ""),
            ("\n", Dot::Ends, "\r\n"),
        ] {
            assert_eq!(got(input, dot), want, "{input:?}");
        }
        let error = read(&b"0123456789\n"[..], Dot::Ends, 10);
        assert!(matches!(error, Err(Error::TooLarge(10))));
        assert!(read(&b"012345678\n"[..], Dot::Ends, 10).is_ok());
    }

    #[test]
    fn a_message_gets_the_header_that_it_lacks() {
        for (message, want, recipients) in [
            (
                "From: root (Cron Daemon)\r\nTo: root\r\nSubject: s\r\n\r\nTo: body\r\n",
                "From: root@a.example (Cron Daemon)\r\nTo: root@a.example\r\nSubject: s\r\n\r\nTo: body\r\n",
                "root@a.example",
            ),
            ("hello\r\n", "From: us\r\n\r\nhello\r\n", ""),
            ("", "From: us\r\n\r\n", ""),
            ("\r\nTo: x\r\n", "From: us\r\n\r\nTo: x\r\n", ""),
            (" x\r\n", "From: us\r\n\r\n x\r\n", ""),
            (
                "To: b@c.example\r\nno field\r\n",
                "From: us\r\nTo: b@c.example\r\n\r\nno field\r\n",
                "b@c.example",
            ),
            (
                "From anna Tue Nov 24\r\nfrom : a@b.example\r\nBcc: c@d.example,\r\n e\r\ncc:f@g.example\r\n",
                "from : a@b.example\r\nBcc: c@d.example,\r\n e@a.example\r\ncc:f@g.example\r\n\r\n",
                "c@d.example e@a.example f@g.example",
            ),
            (
                "From: a@b.example\r\nTo: c@d.example\r\nResent-To: e@f.example\r\nResent-Bcc: g\r\n\r\n",
                "From: a@b.example\r\nTo: c@d.example\r\nResent-To: e@f.example\r\nResent-Bcc: g@a.example\r\n\r\n",
                "e@f.example g@a.example",
            ),
        ] {
            let got = prepare(message.as_bytes(), "a.example", "us");
            assert_eq!(String::from_utf8_lossy(&got.message), want, "{message:?}");
            assert_eq!(got.recipients.join(" "), recipients, "{message:?}");
        }
    }

    #[test]
    fn a_name_is_written_so_that_it_stays_a_name() {
        for (name, want) in [
            ("", "a@b"),
            ("Anna", "\"Anna\" <a@b>"),
            ("A \"x\" \\ <y@z>, B", "\"A \\\"x\\\" \\\\ <y@z>, B\" <a@b>"),
            ("Änna\r\nBcc: x", "=?UTF-8?B?w4RubmFCY2M6IHg=?= <a@b>"),
        ] {
            assert_eq!(author(name, "a@b"), want, "{name}");
        }
        let long = author(&"ä".repeat(60), "a@b");
        assert!(long.lines().all(|line| line.len() <= 78), "{long}");
    }
}
