//! A message as DATA or BDAT wants it (RFC 5321 §4.5.2, RFC 3030).
//!
//! Gives slices of what it was given and never copies. A dot is put in front of each line that
//! begins with one, a CRLF behind a message that lacks its last, and nothing else is altered. Only
//! CRLF ends a line: what the gateway accepted holds no bare CR or LF.

use std::collections::VecDeque;

use memchr::memmem;

/// Where in a line the bytes given so far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    BehindCr,
    Within,
}

/// The pieces dot-stuffed, with the final dot.
pub fn dotted<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    Dotted {
        pieces: pieces.into_iter(),
        rest: &[],
        at: At::LineStart, // A dot in the very first byte begins a line too.
        end: VecDeque::new(),
        ended: false,
    }
}

/// The pieces as they are, with a final CRLF where it is missing, as BDAT wants them.
pub fn plain<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    let mut pieces = pieces.into_iter();
    let mut at = At::LineStart;
    let mut ended = false;
    std::iter::from_fn(move || match pieces.next() {
        Some(piece) => {
            at = behind(at, piece);
            Some(piece)
        }
        None if ended || at == At::LineStart => None,
        None => {
            ended = true;
            Some(b"\r\n")
        }
    })
}

struct Dotted<'a, I> {
    pieces: I,
    /// What of the current piece was not given yet.
    rest: &'a [u8],
    at: At,
    /// What comes behind the last piece.
    end: VecDeque<&'static [u8]>,
    ended: bool,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Iterator for Dotted<'a, I> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while self.rest.is_empty() && !self.ended {
            match self.pieces.next() {
                Some(piece) => self.rest = piece,
                None => self.finish(),
            }
        }
        if self.ended {
            return self.end.pop_front();
        }
        if self.at == At::LineStart && self.rest.starts_with(b".") {
            self.at = At::Within;
            return Some(b".");
        }
        let (run, rest) = self.rest.split_at(self.run());
        self.at = behind(self.at, run);
        self.rest = rest;
        Some(run)
    }
}

impl<'a, I> Dotted<'a, I> {
    /// How much can go out before the next dot has to be doubled; at least one byte.
    fn run(&self) -> usize {
        if self.at == At::BehindCr && self.rest.starts_with(b"\n.") {
            return 1;
        }
        // What stands before the CR does not matter, so that a CR at the end of the last piece does
        // not either: see above.
        memmem::find(self.rest, b"\r\n.").map_or(self.rest.len(), |found| found + 2)
    }

    fn finish(&mut self) {
        if self.at != At::LineStart {
            self.end.push_back(b"\r\n");
        }
        self.end.push_back(b".\r\n");
        self.ended = true;
    }
}

fn behind(at: At, piece: &[u8]) -> At {
    match piece {
        [] => at,
        [.., b'\r', b'\n'] => At::LineStart,
        [b'\n'] if at == At::BehindCr => At::LineStart,
        [.., b'\r'] => At::BehindCr,
        _ => At::Within,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::Strategy;
    use proptest::sample::select;

    use super::*;

    fn joined(pieces: &[&[u8]]) -> Vec<u8> {
        dotted(pieces.iter().copied()).collect::<Vec<_>>().concat()
    }

    #[test]
    fn dots_are_doubled_at_line_starts_only() {
        for (pieces, want) in [
            (vec![], ".\r\n"),
            (vec!["."], "..\r\n.\r\n"),
            (vec![".a\r\n.\r\n"], "..a\r\n..\r\n.\r\n"),
            (vec!["a.b\r\n"], "a.b\r\n.\r\n"),
            (vec!["a\r\n", ".b\r\n"], "a\r\n..b\r\n.\r\n"),
            (vec!["a\r", "\n", ".", ".\r\n"], "a\r\n...\r\n.\r\n"),
            (vec!["a\r", "\n.b"], "a\r\n..b\r\n.\r\n"),
            (vec!["a\n.b\r.c\r\n"], "a\n.b\r.c\r\n.\r\n"),
            (vec!["a\r"], "a\r\r\n.\r\n"),
            (vec!["..\r\n\r\n"], "...\r\n\r\n.\r\n"),
        ] {
            let bytes: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            let got = String::from_utf8(joined(&bytes)).unwrap();
            assert_eq!(got, want, "{pieces:?}");
        }
    }

    /// Reads as RFC 5321 §4.5.2 tells the server to: line by line, to the first lone dot.
    fn undotted(mut wire: &[u8]) -> (Vec<u8>, &[u8]) {
        let mut message = Vec::new();
        loop {
            let end = memmem::find(wire, b"\r\n").unwrap() + 2;
            let (line, rest) = wire.split_at(end);
            wire = rest;
            match line {
                b".\r\n" => return (message, wire),
                [b'.', line @ ..] => message.extend_from_slice(line),
                line => message.extend_from_slice(line),
            }
        }
    }

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        vec(vec(select(b"\r\n.a".to_vec()), 0..6), 0..8)
    }

    proptest::proptest! {
        #[test]
        fn a_server_reads_what_was_written_and_nothing_behind_it(pieces in pieces()) {
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let wire = joined(&slices);
            let (message, behind) = undotted(&wire);
            let mut want = pieces.concat();
            if !want.is_empty() && !want.ends_with(b"\r\n") {
                want.extend_from_slice(b"\r\n");
            }
            assert_eq!(message, want);
            assert_eq!(behind, b"");
            assert_eq!(plain(slices).collect::<Vec<_>>().concat(), want);
        }
    }
}
