//! Finds the first command line in what has come so far. Only CRLF ends a line (RFC 5321 §2.3.8).

use memchr::memchr;

/// Longest command line with its CRLF. RFC 5321 §4.5.3.1.4 says 512; extensions add to it.
pub const LIMIT: usize = 4096;

/// Longest line with its CRLF where a client may log in: a token or a ticket is long (RFC 4954 §4).
pub const AUTH_LIMIT: usize = 12_288 + 2;

/// What stands at the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// A line of that many octets; its CRLF follows and is not counted.
    Whole(usize),
    /// A line ended by a LF alone. Where the client thinks that it ends is not known.
    BareNewline,
    /// A line, or the beginning of one, above the limit.
    TooLong,
}

/// The first line of `input`, of `limit` octets at most; None: more has to come.
pub fn first(input: &[u8], limit: usize) -> Option<Line> {
    match memchr(b'\n', input) {
        Some(end) if end >= limit => Some(Line::TooLong),
        Some(end) if input[..end].ends_with(b"\r") => Some(Line::Whole(end - 1)),
        Some(_) => Some(Line::BareNewline),
        None if input.len() >= limit => Some(Line::TooLong),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        let long = [b'a'; LIMIT];
        for (input, want) in [
            (&b""[..], None),
            (b"NOOP", None),
            (b"NOOP\r", None),
            (b"NOOP\r\nQUIT\r\n", Some(Line::Whole(4))),
            (b"\r\n", Some(Line::Whole(0))),
            (b"NOOP\nQUIT\r\n", Some(Line::BareNewline)),
            (b"\n", Some(Line::BareNewline)),
            (&long, Some(Line::TooLong)),
        ] {
            assert_eq!(
                first(input, LIMIT),
                want,
                "{:?}",
                String::from_utf8_lossy(input)
            );
        }
    }
}
