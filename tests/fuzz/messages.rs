//! What stands between DATA or BDAT and the end of a message, held against a slow reader that looks at
//! whole lines, and against our own client's writer.

use rand::Rng;
use rand::rngs::SmallRng;

use super::chance;
use super::run;
use crate::smtp::client::dots;
use crate::smtp::data::Fault;
use crate::smtp::data::Limits;
use crate::smtp::data::Progress;
use crate::smtp::data::Receiver;

const LIMITS: Limits = Limits {
    size: 300,
    line: 60,
};

/// What was read: the message, what is wrong with it, and where its end is.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    message: Vec<u8>,
    fault: Option<Fault>,
    /// None: there is no end yet, or it was lost with a bare newline.
    end: Option<usize>,
}

#[test]
fn a_message_after_data_is_the_same_in_any_pieces_and_is_written_as_it_was_read() {
    run("data", |input| {
        let want = slowly(input);
        assert_eq!(dotted(&[input]), want, "in one piece");
        let mut chance = chance(input);
        for _ in 0..3 {
            let pieces = pieces(input, &mut chance);
            assert_eq!(dotted(&pieces), want, "in {pieces:?}");
        }
        if want.end.is_some() && want.fault.is_none() {
            assert_only_whole_lines(&want.message);
            assert_written_again(&want.message, &mut chance);
        }
        let size = want.message.len() / 16;
        (
            want.fault.map(|fault| fault as u8),
            want.end.is_some(),
            size,
        )
    });
}

#[test]
fn a_message_in_chunks_is_the_same_in_any_pieces_and_has_nothing_but_whole_line_ends() {
    run("chunks", |input| {
        let lines = Lines::of(input);
        let fault = lines.fault();
        let mut chance = chance(input);
        let many = pieces(input, &mut chance);
        for pieces in [vec![input], many] {
            let mut receiver = Receiver::new(LIMITS);
            let mut message = Vec::new();
            for piece in &pieces {
                receiver.chunk(piece, &mut message);
            }
            assert_eq!(receiver.fault(), fault, "in {pieces:?}");
            let want = if fault.is_none() { input } else { &[] };
            assert_eq!(message, want, "in {pieces:?}");
            let unfinished = input.ends_with(b"\r");
            if fault != Some(Fault::BareNewline) {
                assert_eq!(receiver.ends_with_bare_cr(), unfinished);
            }
            if fault.is_none() && !unfinished {
                assert_written_again(&message, &mut chance);
            }
        }
        let count = lines.whole.len().min(16);
        (
            fault.map(|fault| fault as u8),
            lines.unfinished.is_some(),
            count,
        )
    });
}

fn dotted(pieces: &[&[u8]]) -> Read {
    let mut receiver = Receiver::new(LIMITS);
    let mut message = Vec::new();
    let mut at = 0;
    let mut end = None;
    for piece in pieces {
        match receiver.dotted(piece, &mut message) {
            Progress::More => at += piece.len(),
            Progress::End { taken } => {
                assert!(taken >= 1 && taken <= piece.len());
                end = Some(at + taken);
                break;
            }
        }
        assert!(message.capacity() as u64 <= 4 * LIMITS.size);
    }
    let fault = receiver.fault();
    if fault == Some(Fault::BareNewline) {
        assert!(end.is_some(), "nothing may be read behind a bare newline");
        end = None;
    }
    Read {
        message,
        fault,
        end,
    }
}

/// The pieces of the input, cut by chance; at times a cut is between any two octets.
fn pieces<'a>(input: &'a [u8], chance: &mut SmallRng) -> Vec<&'a [u8]> {
    let most = 1 << chance.random_range(0..8);
    let mut pieces = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(chance.random_range(1..=most).min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// The input cut into lines, up to the first bare CR or LF.
struct Lines<'a> {
    whole: Vec<&'a [u8]>,
    unfinished: Option<&'a [u8]>,
    is_bare: bool,
}

impl<'a> Lines<'a> {
    fn of(input: &'a [u8]) -> Lines<'a> {
        let mut lines = Lines {
            whole: Vec::new(),
            unfinished: None,
            is_bare: false,
        };
        let mut rest = input;
        while !rest.is_empty() {
            let Some(end) = rest.iter().position(|octet| b"\r\n".contains(octet)) else {
                lines.unfinished = Some(rest);
                break;
            };
            match &rest[end..] {
                [b'\r', b'\n', ..] => lines.whole.push(&rest[..end + 2]),
                [b'\r'] => {
                    lines.unfinished = Some(rest);
                    break;
                }
                _ => {
                    lines.is_bare = true;
                    break;
                }
            }
            rest = &rest[end + 2..];
        }
        lines
    }

    /// A bare newline, or else the limit that is passed first.
    fn fault(&self) -> Option<Fault> {
        if self.is_bare {
            return Some(Fault::BareNewline);
        }
        let mut size = 0;
        for line in self.whole.iter().copied().chain(self.unfinished) {
            for (length, _) in (1..).zip(line) {
                size += 1;
                if length > LIMITS.line {
                    return Some(Fault::LineTooLong);
                }
                if size > LIMITS.size {
                    return Some(Fault::TooLarge);
                }
            }
        }
        None
    }
}

/// Reads as RFC 5321 §4.5.2 tells it, line by line.
fn slowly(input: &[u8]) -> Read {
    let mut lines = Lines::of(input);
    let last = lines.whole.iter().position(|line| line == b".\r\n");
    let end = last.map(|last| {
        lines.whole.truncate(last);
        (lines.unfinished, lines.is_bare) = (None, false);
        lines.whole.iter().map(|line| line.len()).sum::<usize>() + 3
    });
    let undotted = |line: &mut &[u8]| *line = line.strip_prefix(b".").unwrap_or(line);
    lines.whole.iter_mut().for_each(undotted);
    if let Some(line) = &mut lines.unfinished {
        // A dot, and the CR behind it, are held back until it is known whether they are the end.
        match *line {
            b"." | b".\r" => lines.unfinished = None,
            _ => undotted(line),
        }
    }
    let fault = lines.fault();
    let message = match fault {
        None => [
            lines.whole.concat(),
            lines.unfinished.unwrap_or_default().to_vec(),
        ]
        .concat(),
        Some(_) => Vec::new(),
    };
    let end = end.filter(|_| fault != Some(Fault::BareNewline));
    Read {
        message,
        fault,
        end,
    }
}

fn assert_only_whole_lines(message: &[u8]) {
    assert!(message.len() as u64 <= LIMITS.size);
    let lines = Lines::of(message);
    assert!(!lines.is_bare && lines.unfinished.is_none());
    assert_eq!(lines.whole.concat(), message);
    assert!(lines.whole.iter().all(|line| line.len() <= LIMITS.line));
}

/// What our client writes, another gateway like ours reads as the same message and nothing behind it.
fn assert_written_again(message: &[u8], chance: &mut SmallRng) {
    let mut want = message.to_vec();
    if !want.is_empty() && !want.ends_with(b"\r\n") {
        want.extend_from_slice(b"\r\n");
    }
    let wire = dots::dotted(pieces(message, chance)).collect::<Vec<_>>();
    let wire = wire.concat();
    let limits = Limits {
        size: LIMITS.size + 2,
        line: LIMITS.line + 2,
    };
    let mut receiver = Receiver::new(limits);
    let mut got = Vec::new();
    let mut at = 0;
    for piece in pieces(&wire, chance) {
        at += match receiver.dotted(piece, &mut got) {
            Progress::More => piece.len(),
            Progress::End { taken } => taken,
        };
    }
    assert_eq!(
        (got, receiver.fault(), at),
        (want.clone(), None, wire.len())
    );
    let plain = dots::plain(pieces(message, chance)).collect::<Vec<_>>();
    assert_eq!(plain.concat(), want);
}
