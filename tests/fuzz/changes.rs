//! Makes new inputs of old ones, as somebody might who looks for a gap: an octet changed, a word of
//! another input put in, a line said twice, a number at the edge of its type.

use std::collections::BTreeSet;
use std::ops::Range;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

/// Octets that mean something to somebody.
const OCTETS: &[u8] = b"\0\t\n\r .:;,@<>()[]{}\"'\\/=+-%#*?!~_0aZ\x7f\x80\xc3\xff";

/// Texts that no seed needs to have for a target to meet them.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n.\r\n",
    b"\n",
    b"..",
    b"-1",
    b"0",
    b"255",
    b"65536",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    "\u{fc}".as_bytes(),
    "\u{2028}".as_bytes(),
    "\u{3002}".as_bytes(),
    "\u{202e}".as_bytes(),
    b"\xed\xa0\x80",
    b"xn--",
];

/// Makes changes.
pub(super) struct Changes {
    rng: SmallRng,
    /// All words of the seeds, and [`WORDS`].
    words: Vec<Vec<u8>>,
}

impl Changes {
    pub(super) fn new(rng: SmallRng, seeds: &[Vec<u8>]) -> Changes {
        let ends_word = |octet: &u8| b" \r\n\t:;=,@<>".contains(octet);
        let words = seeds.iter().flat_map(|seed| seed.split(ends_word));
        let words = words.chain(WORDS.iter().copied());
        let words: BTreeSet<_> = words.filter(|word| !word.is_empty()).collect();
        Changes {
            rng,
            words: words.into_iter().map(<[u8]>::to_vec).collect(),
        }
    }

    /// One of `kept`, changed in one place or a few, of at most so many octets.
    pub(super) fn of(&mut self, kept: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut input = one(&mut self.rng, kept).to_vec();
        for _ in 0..1 << self.rng.random_range(0..4) {
            self.change(&mut input, kept);
        }
        input.truncate(longest);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, kept: &[Vec<u8>]) {
        let place = self.place(input.len());
        match self.rng.random_range(0..10) {
            0 => self.with_octet(input, |octet, rng| *octet ^= 1 << rng.random_range(0..8)),
            1 => self.with_octet(input, |octet, rng| *octet = rng.random()),
            2 => {
                let octet = OCTETS.choose(&mut self.rng).copied().unwrap_or_default();
                input.insert(place.start, octet);
            }
            3 => {
                input.drain(place);
            }
            4 => {
                let piece = input[place.clone()].to_vec();
                input.splice(place.end..place.end, piece);
            }
            5 => {
                let word = one(&mut self.rng, &self.words);
                input.splice(place.start..place.start, word.iter().copied());
            }
            6 => {
                let word = one(&mut self.rng, &self.words);
                input.splice(place, word.iter().copied());
            }
            7 => {
                let other = one(&mut self.rng, kept);
                let from = self.place(other.len());
                input.splice(place, other[from].iter().copied());
            }
            8 => self.move_line(input),
            _ => self.change_number(input),
        }
    }

    /// Takes a line out, or says it again, at another place.
    fn move_line(&mut self, input: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = input.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        let from = self.rng.random_range(0..lines.len());
        let line = match self.rng.random() {
            true => lines.remove(from),
            false => lines[from].clone(),
        };
        let to = self.rng.random_range(0..=lines.len());
        lines.insert(to, line);
        *input = lines.join(&b'\n');
    }

    /// Puts another number where one stands.
    fn change_number(&mut self, input: &mut Vec<u8>) {
        let Some(start) = input.iter().position(u8::is_ascii_digit) else {
            return;
        };
        // Any, not always the first.
        let numbers: Vec<usize> = (start..input.len())
            .filter(|at| input[*at].is_ascii_digit())
            .collect();
        let start = numbers.choose(&mut self.rng).copied().unwrap_or(start);
        let digits = input[start..].iter().take_while(|b| b.is_ascii_digit());
        let end = start + digits.count();
        let number: u64 = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(0..20),
            1 => self.rng.random_range(0..20_000),
            _ => u64::MAX >> self.rng.random_range(0..64),
        };
        input.splice(start..end, number.to_string().into_bytes());
    }

    fn with_octet(&mut self, input: &mut [u8], change: impl Fn(&mut u8, &mut SmallRng)) {
        let place = self.place(input.len());
        if let Some(octet) = input.get_mut(place.start) {
            change(octet, &mut self.rng);
        }
    }

    /// Somewhere, mostly short.
    fn place(&mut self, length: usize) -> Range<usize> {
        let start = self.rng.random_range(0..=length);
        let most = (length - start).min(1 << self.rng.random_range(0..8));
        start..start + self.rng.random_range(0..=most)
    }
}

fn one<'a>(rng: &mut SmallRng, all: &'a [Vec<u8>]) -> &'a [u8] {
    all.choose(rng).map_or(&[], Vec::as_slice)
}
