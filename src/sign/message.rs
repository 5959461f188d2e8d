//! A message as its signatures see it: the signed fields in canonical form and the hash of the body
//! (RFC 6376 §3.4, §3.7, §5.4). Made once for all keys that sign it.

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use mail_auth::common::crypto::HashContext;
use mail_auth::common::crypto::HashImpl;
use mail_auth::common::crypto::Sha256;
use mail_auth::dkim;
use mail_auth::dkim::canonicalize::BodyHasher;
use memchr::memchr;

use crate::mail::content::Content;
use crate::mail::content::without_blank_end;
use crate::mail::headers::Field;
use crate::mail::headers::fields;
use crate::sign::Canonicalization;
use crate::sign::Config;
use crate::sign::Error;

/// What signatures cover, and how.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) header: dkim::Canonicalization,
    pub(super) body: dkim::Canonicalization,
    names: Vec<Name>,
    expire: Option<Duration>,
}

/// A field to sign.
#[derive(Debug)]
struct Name {
    text: String,
    /// How often it is signed beyond its occurrences.
    extra: usize,
}

impl Form {
    pub(super) fn new(config: &Config) -> Form {
        use dkim::Canonicalization::Relaxed;
        use dkim::Canonicalization::Simple;
        let (header, body) = match config.canonicalization {
            Canonicalization::RelaxedRelaxed => (Relaxed, Relaxed),
            Canonicalization::RelaxedSimple => (Relaxed, Simple),
            Canonicalization::SimpleRelaxed => (Simple, Relaxed),
            Canonicalization::SimpleSimple => (Simple, Simple),
        };
        let mut names: Vec<Name> = Vec::new();
        let oversigned = config.oversign.iter().map(|text| (text, 1));
        let signed = config.fields.iter().map(|text| (text, 0));
        for (text, extra) in oversigned.chain(signed) {
            if !names
                .iter()
                .any(|name| name.text.eq_ignore_ascii_case(text))
            {
                let text = text.clone();
                names.push(Name { text, extra });
            }
        }
        Form {
            header,
            body,
            names,
            expire: config.expire,
        }
    }

    /// t= and x=, in seconds; 0 for an x= that is not given.
    pub(super) fn times(&self, now: SystemTime) -> (u64, u64) {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let end = self.expire.map_or(0, |expire| now + expire.as_secs());
        (now, end)
    }
}

/// What is signed of a message.
pub(super) struct Canonical {
    /// The fields, one behind the other; the signature's own comes behind them.
    pub(super) header: Vec<u8>,
    /// h=
    pub(super) names: Vec<String>,
    /// bh=
    pub(super) body_hash: Vec<u8>,
}

impl Canonical {
    /// Copies the header, and of the body nothing.
    pub(super) fn of(message: &Content, form: &Form) -> Result<Canonical, Error> {
        let (raw, body) = split(message);
        let all: Vec<Field<'_>> = fields(&raw).collect();
        if !all.iter().any(|field| field.is("From")) {
            // RFC 6376 §5.4
            return Err(Error::Message("it has no From field".to_owned()));
        }
        let (mut header, mut names) = (Vec::with_capacity(raw.len()), Vec::new());
        for name in &form.names {
            // RFC 6376 §5.4.2: the lowest first; those beyond are signed as not there.
            let found = all.iter().rev().filter(|field| field.is(&name.text));
            let mut count = name.extra;
            let found = found
                .inspect(|_| count += 1)
                .map(|field| halves(&raw, field));
            form.header.canonicalize_headers(found, &mut header);
            names.extend((0..count).map(|_| name.text.clone()));
        }
        Ok(Canonical {
            header,
            names,
            body_hash: body_hash(body, form.body),
        })
    }
}

/// The header, its last field ended by CRLF, and the pieces of the body.
fn split(message: &Content) -> (Vec<u8>, Vec<&[u8]>) {
    let mut header = Vec::new();
    let mut chunks = message.chunks();
    let mut body = Vec::new();
    'header: for chunk in chunks.by_ref() {
        let mut at = 0;
        for line in chunk.split_inclusive(|octet| *octet == b'\n') {
            header.extend_from_slice(line);
            at += line.len();
            if header == b"\r\n" || header.ends_with(b"\n\r\n") {
                header.truncate(header.len() - 2);
                body.push(&chunk[at..]);
                break 'header;
            }
        }
    }
    body.extend(chunks);
    if !header.is_empty() && !header.ends_with(b"\n") {
        header.extend_from_slice(b"\r\n");
    }
    (header, body)
}

/// What stands left and right of the colon, as it came: simple keeps all white space.
fn halves<'x>(header: &'x [u8], field: &Field<'_>) -> (&'x [u8], &'x [u8]) {
    let whole = &header[field.range.clone()];
    let colon = memchr(b':', whole).unwrap_or(whole.len());
    (&whole[..colon], whole.get(colon + 1..).unwrap_or_default())
}

fn body_hash(mut body: Vec<&[u8]>, form: dkim::Canonicalization) -> Vec<u8> {
    if form == dkim::Canonicalization::Relaxed {
        // RFC 6376 §3.4.4: a line of white space at the end is an empty one. The library keeps it.
        while let Some(last) = body.pop() {
            let kept = without_blank_end(last);
            if !kept.is_empty() {
                body.push(kept);
                break;
            }
        }
    }
    let mut hasher = BodyHasher::new(Sha256::hasher(), form, 0);
    for piece in body {
        hasher.write(piece);
    }
    hasher.finish().0.complete().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mail_auth::common::crypto::HashAlgorithm;

    use super::*;

    fn form(text: &str) -> Form {
        #[derive(serde::Deserialize)]
        struct Word {
            word: Canonicalization,
        }
        let word: Word = toml::from_str(&format!("word = '{text}'")).unwrap();
        Form::new(&Config {
            canonicalization: word.word,
            oversign: vec!["From".to_owned(), "Subject".to_owned()],
            fields: vec!["subject".to_owned(), "X".to_owned()],
            ..Config::default()
        })
    }

    fn canonical(message: &str, text: &str) -> Canonical {
        let content = Content::from(Bytes::copy_from_slice(message.as_bytes()));
        Canonical::of(&content, &form(text)).unwrap()
    }

    #[test]
    fn fields_are_signed_from_the_lowest_up_and_once_more() {
        let message = "X: 1\r\nFrom : a@b.c\r\nx:2\r\n\tthree\r\n\r\n";
        let relaxed = canonical(message, "relaxed/relaxed");
        assert_eq!(relaxed.names.join(":"), "From:From:Subject:X:X");
        let text = String::from_utf8(relaxed.header).unwrap();
        assert_eq!(text, "from:a@b.c\r\nx:2 three\r\nx:1\r\n");
        let simple = canonical(message, "simple/simple");
        let text = String::from_utf8(simple.header).unwrap();
        assert_eq!(text, "From : a@b.c\r\nx:2\r\n\tthree\r\nX: 1\r\n");
    }

    #[test]
    fn a_body_is_hashed_as_rfc_6376_wants_it() {
        for (body, relaxed, simple) in [
            ("", "", "\r\n"),
            ("\r\n\r\n", "", "\r\n"),
            (" \t\r\n", "", " \t\r\n"),
            (
                " C \r\nD \t E\r\n\r\n\r\n",
                " C\r\nD E\r\n",
                " C \r\nD \t E\r\n",
            ),
            ("a\r\n \r\n\r\n", "a\r\n", "a\r\n \r\n"),
            ("a\r\n \r\nb", "a\r\n\r\nb\r\n", "a\r\n \r\nb\r\n"),
            ("a  ", "a\r\n", "a  \r\n"),
        ] {
            let message = format!("From: a@b.c\r\n\r\n{body}");
            for (form, want) in [("relaxed/relaxed", relaxed), ("relaxed/simple", simple)] {
                let want = HashAlgorithm::Sha256.hash(want.as_bytes());
                let got = canonical(&message, form).body_hash;
                assert_eq!(got, want.as_ref(), "{body:?} {form}");
            }
        }
    }

    #[test]
    fn it_does_not_matter_how_a_message_is_cut_into_pieces() {
        let message = "X: 1\r\nFrom: a@b.c\r\n\r\n one \r\n two\r\n \r\n\r\n";
        let bytes = Bytes::copy_from_slice(message.as_bytes());
        for text in ["relaxed/relaxed", "simple/simple"] {
            let whole = canonical(message, text);
            for first in 0..=message.len() {
                for second in first..=message.len() {
                    let gap = second..second;
                    let rest = bytes.slice(first..);
                    let gap = gap.start - first..gap.end - first;
                    let content = Content::assemble(bytes.slice(..first), &rest, &[gap]);
                    let cut = Canonical::of(&content, &form(text)).unwrap();
                    assert_eq!(cut.header, whole.header, "{first} {second}");
                    assert_eq!(cut.body_hash, whole.body_hash, "{first} {second}");
                }
            }
        }
    }

    #[test]
    fn a_header_without_an_end_is_a_message_without_a_body() {
        let cut = canonical("From: a@b.c\r\nX: 1", "relaxed/relaxed");
        assert_eq!(cut.header, b"from:a@b.c\r\nx:1\r\n");
        for message in [
            "",
            "\r\n",
            "\r\nFrom: a@b.c\r\n",
            "X: 1\r\n\r\nFrom: a@b.c\r\n",
        ] {
            let content = Content::from(Bytes::copy_from_slice(message.as_bytes()));
            let form = form("relaxed/relaxed");
            assert!(Canonical::of(&content, &form).is_err(), "{message:?}");
        }
    }
}
