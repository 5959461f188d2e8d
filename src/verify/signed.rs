//! A message as its signers saw it: header fields and body, and the hashes of the body that
//! signatures ask for (RFC 6376 §3.4, §3.7).
//!
//! Read by our own walk of the header, so that what is verified is what we take for the header, and
//! so that only the hashes of signatures that are looked at are ever computed.

use std::sync::OnceLock;

use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::common::headers::Writable;
use mail_auth::dkim::Canonicalization;

use crate::mail::content::without_blank_end;
use crate::mail::headers::fields;

/// Messages with more fields than this have no signature looked at: the work for one grows with
/// the number of fields times the number of signed names.
pub(super) const MAX_FIELDS: usize = 10_000;
/// The same for the names that one signature signs.
pub(super) const MAX_SIGNED_NAMES: usize = 256;

/// A message, split.
pub(super) struct Signed<'x> {
    /// Names without white space, values as they came with their final CRLF.
    headers: Vec<(&'x [u8], &'x [u8])>,
    malformed_lines: usize,
    body: &'x [u8],
    simple: OnceLock<Vec<u8>>,
    relaxed: OnceLock<Vec<u8>>,
}

/// How much of the body a signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    Whole,
    Part,
}

impl<'x> Signed<'x> {
    pub(super) fn read(message: &'x [u8]) -> Signed<'x> {
        let mut walk = fields(message);
        let headers = walk
            .by_ref()
            .map(|field| {
                // The value reaches to the end of the field, which has one octet for the colon
                // and white space before it, if any, more than name and value.
                let end = field.range.end;
                let line_end = message[field.range.clone()].ends_with(b"\r\n");
                let length = field.value.len() + if line_end { 2 } else { 0 };
                (field.name.as_bytes(), &message[end - length..end])
            })
            .collect();
        let rest = &message[walk.position()..];
        Signed {
            headers,
            malformed_lines: walk.malformed(),
            body: rest.strip_prefix(b"\r\n").unwrap_or(rest),
            simple: OnceLock::new(),
            relaxed: OnceLock::new(),
        }
    }

    /// How many fields the header has.
    pub(super) fn field_count(&self) -> usize {
        self.headers.len()
    }

    /// How many lines of the header are no fields.
    pub(super) fn malformed_lines(&self) -> usize {
        self.malformed_lines
    }

    /// The fields of one name, from the top.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = (&'x [u8], &'x [u8])> {
        self.headers
            .iter()
            .copied()
            .filter(move |(of, _)| of.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// For the library: all fields, none of the signatures yet.
    pub(super) fn authenticated(&self) -> AuthenticatedMessage<'x> {
        AuthenticatedMessage {
            headers: self.headers.clone(),
            ..AuthenticatedMessage::default()
        }
    }

    /// The SHA-256 of the canonical body, or of its first `limit` octets (RFC 6376 §3.4.5). None
    /// where the body is shorter than that.
    pub(super) fn body_hash(
        &self,
        canonicalization: Canonicalization,
        limit: Option<u64>,
    ) -> Option<(Vec<u8>, Coverage)> {
        let Some(limit) = limit else {
            let slot = match canonicalization {
                Canonicalization::Simple => &self.simple,
                Canonicalization::Relaxed => &self.relaxed,
            };
            let body = self.body_for(canonicalization);
            let hash = slot.get_or_init(|| sha256(canonicalization.canonical_body(body, 0)));
            return Some((hash.clone(), Coverage::Whole));
        };
        // The library counts `l=` before canonicalization, RFC 6376 after it.
        let mut canonical = Vec::with_capacity(self.body.len());
        canonicalization
            .canonical_body(self.body_for(canonicalization), 0)
            .write(&mut canonical);
        let limit = usize::try_from(limit).ok()?;
        let coverage = if limit == canonical.len() {
            Coverage::Whole
        } else {
            Coverage::Part
        };
        Some((sha256(canonical.get(..limit)?), coverage))
    }

    /// What the library is to put into canonical form. RFC 6376 §3.4.4: a line of white space at the
    /// end is an empty one; the library keeps it.
    fn body_for(&self, canonicalization: Canonicalization) -> &'x [u8] {
        match canonicalization {
            Canonicalization::Simple => self.body,
            Canonicalization::Relaxed => without_blank_end(self.body),
        }
    }
}

fn sha256(data: impl Writable) -> Vec<u8> {
    HashAlgorithm::Sha256.hash(data).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_folding_and_line_end() {
        let signed = Signed::read(b"A : 1\r\n 2\r\nB:\r\n\r\nbody\r\n");
        assert_eq!(
            signed.headers,
            [(&b"A"[..], &b" 1\r\n 2\r\n"[..]), (&b"B"[..], &b"\r\n"[..]),]
        );
        assert_eq!(signed.body, b"body\r\n");
        assert_eq!(Signed::read(b"A: 1").headers, [(&b"A"[..], &b" 1"[..])]);
        assert_eq!(Signed::read(b"").field_count(), 0);
    }

    #[test]
    fn lines_of_white_space_at_the_end_are_empty_where_it_may_change() {
        let hash = |body: &str, canonicalization| {
            let message = format!("A: 1\r\n\r\n{body}");
            let signed = Signed::read(message.as_bytes());
            signed.body_hash(canonicalization, None).unwrap().0
        };
        let relaxed = Canonicalization::Relaxed;
        for body in ["a\r\n \r\n", "a \t\r\n\r\n\t \r\n\r\n", "a\r\n "] {
            assert_eq!(hash(body, relaxed), hash("a\r\n", relaxed), "{body:?}");
            let simple = Canonicalization::Simple;
            assert_ne!(hash(body, simple), hash("a\r\n", simple), "{body:?}");
        }
        assert_eq!(hash(" \r\n", relaxed), hash("", relaxed));
        assert_ne!(hash("a\r\n \r\nb", relaxed), hash("a\r\nb", relaxed));
    }

    #[test]
    fn a_length_is_counted_in_the_canonical_body() {
        let signed = Signed::read(b"A: 1\r\n\r\na  b\r\n\r\n\r\n");
        let whole = signed.body_hash(Canonicalization::Relaxed, None);
        // "a b\r\n"
        assert_eq!(signed.body_hash(Canonicalization::Relaxed, Some(5)), whole);
        let part = signed
            .body_hash(Canonicalization::Relaxed, Some(3))
            .unwrap();
        assert_eq!(part.1, Coverage::Part);
        assert_eq!(signed.body_hash(Canonicalization::Relaxed, Some(6)), None);
        assert_eq!(
            signed.body_hash(Canonicalization::Relaxed, Some(u64::MAX)),
            None
        );
    }
}
