//! The Return-Path field of a message at final delivery: one, and ours (RFC 5321 §4.4).
//!
//! One that came with the message says nothing about its envelope, so it goes. An LMTP server makes
//! its own, as it is the one who delivers finally; for our own Maildirs we do.

use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::headers;

/// The line for the top of the message.
pub(super) fn field(from: &ReversePath) -> String {
    format!("Return-Path: {from}\r\n")
}

/// The message without any Return-Path. Nothing is copied.
///
/// A field that lies across two chunks would not be seen; chunks are cut between fields.
pub(super) fn without(content: &Content) -> Vec<&[u8]> {
    let mut pieces = Vec::with_capacity(4);
    let mut in_header = true;
    for chunk in content.chunks() {
        let mut kept = 0;
        if in_header {
            let mut fields = headers::fields(chunk);
            for field in fields.by_ref().filter(|field| field.is("Return-Path")) {
                pieces.push(&chunk[kept..field.range.start]);
                kept = field.range.end;
            }
            in_header = fields.position() == chunk.len();
        }
        pieces.push(&chunk[kept..]);
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn each_return_path_of_the_header_goes_and_nothing_else() {
        let received = "A: b\r\nreturn-path: <x>\r\n folded\r\nReturn-Pathology: y\r\n\
                        Return-Path:<z>\r\n\r\nReturn-Path: <body>\r\n";
        let received = Bytes::from_static(received.as_bytes());
        let prefix = Bytes::from_static(b"Return-Path: <w>\r\nReceived: x\r\n");
        let content = Content::assemble(prefix, &received, &[]);
        assert_eq!(
            String::from_utf8(without(&content).concat()).unwrap(),
            "Received: x\r\nA: b\r\nReturn-Pathology: y\r\n\r\nReturn-Path: <body>\r\n"
        );
    }
}
