//! What of a message matters to the one who sends it: its size, and whether it is 8-bit.

use memchr::memmem;

/// What of a message matters to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// In octets, with the last CRLF, without the dots that DATA adds (RFC 1870 §3).
    pub size: u64,
    /// Those of its header fields: with SMTPUTF8, the next hop has to offer that too (RFC 6531 §3.4).
    pub header: Octets,
    /// Those behind the header (RFC 6152).
    pub body: Octets,
}

/// Whether there are octets above 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Octets {
    /// There are none.
    SevenBit,
    /// There is at least one.
    EightBit,
}

impl Shape {
    /// Looks at a message in pieces.
    pub fn of(pieces: &[&[u8]]) -> Shape {
        let last_two = pieces.iter().rev().flat_map(|piece| piece.iter().rev());
        let ended = last_two.take(2).eq(b"\n\r") || pieces.is_empty();
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let (header, body) = eight_bit_parts(pieces);
        Shape {
            size: length as u64 + if ended { 0 } else { 2 },
            header,
            body,
        }
    }
}

/// A blank line that lies across two pieces is not seen; then the body counts as header. The pieces of
/// a message are cut between fields, so this does not happen.
fn eight_bit_parts(pieces: &[&[u8]]) -> (Octets, Octets) {
    let (mut header, mut body) = (Octets::SevenBit, Octets::SevenBit);
    let mut in_header = true;
    for piece in pieces {
        let end = match in_header {
            true if piece.starts_with(b"\r\n") => Some(0),
            true => memmem::find(piece, b"\r\n\r\n"),
            false => Some(0),
        };
        let (front, back) = piece.split_at(end.unwrap_or(piece.len()));
        in_header = end.is_none();
        if !front.is_ascii() {
            header = Octets::EightBit;
        }
        if !back.is_ascii() {
            body = Octets::EightBit;
        }
    }
    (header, body)
}
