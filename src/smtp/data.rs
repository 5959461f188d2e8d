//! Reads the message after DATA or BDAT: takes the dots out and finds the end (RFC 5321 §4.5.2).
//!
//! Only CRLF ends a line, and only CRLF.CRLF ends a message. A bare CR or LF is a fault: a peer that
//! ends lines otherwise could smuggle a second message through us or through the next hop. Bytes
//! come in, the message goes out; how much of the input was taken is told, so that what follows
//! the end stays a command. Over a limit the rest is read and dropped.

use memchr::memchr2;

/// Why a message cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A CR without LF or a LF without CR. After DATA, where the message ends is no longer known.
    BareNewline,
    /// More octets than the limit.
    TooLarge,
    /// A line longer than the limit.
    LineTooLong,
}

/// How far it came with what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All input was taken; more is needed.
    More,
    /// The end stands behind the first `taken` octets of the input.
    End {
        /// Octets, from the start of the input.
        taken: usize,
    },
}

/// What bounds a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets in all, dots taken out.
    pub size: u64,
    /// Octets of a line with its CRLF.
    pub line: usize,
}

/// The lines of one message, followed from octet to octet.
#[derive(Debug)]
pub struct Receiver {
    limits: Limits,
    place: Place,
    line: usize,
    size: u64,
    fault: Option<Fault>,
}

/// Where in a line the next octet stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    /// Behind a dot that begins a line; it was not written.
    Dot,
    /// Behind a dot that begins a line and a CR; neither was written.
    DotCr,
    Middle,
    /// Behind a CR, which was written.
    Cr,
}

impl Receiver {
    /// Ready for the first octet.
    pub fn new(limits: Limits) -> Receiver {
        Receiver {
            limits,
            place: Place::LineStart,
            line: 0,
            size: 0,
            fault: None,
        }
    }

    /// What is wrong with the message so far, the first fault found.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether the octets so far end with a CR that no LF has followed.
    pub fn ends_with_bare_cr(&self) -> bool {
        self.place == Place::Cr
    }

    /// Takes input after DATA and appends the message, dots taken out, to `message`.
    ///
    /// Stops at the end of the message or at a bare newline, after which `fault` tells of it.
    pub fn dotted(&mut self, input: &[u8], message: &mut Vec<u8>) -> Progress {
        self.make_room(input, message);
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match (self.place, byte) {
                (Place::LineStart, b'.') => self.place = Place::Dot,
                (Place::Dot, b'\r') => self.place = Place::DotCr,
                (Place::DotCr, b'\n') => return Progress::End { taken: at + 1 },
                (Place::DotCr, _) => {
                    self.fault = Some(Fault::BareNewline);
                    *message = Vec::new();
                    return Progress::End { taken: at + 1 };
                }
                (Place::LineStart | Place::Dot | Place::Middle | Place::Cr, _) => {
                    let taken = self.plain(&input[at..], message);
                    if self.fault == Some(Fault::BareNewline) {
                        return Progress::End { taken: at + taken };
                    }
                    at += taken;
                    continue;
                }
            }
            at += 1;
        }
        Progress::More
    }

    /// Takes octets of a chunk, where dots mean nothing (RFC 3030 §2).
    pub fn chunk(&mut self, input: &[u8], message: &mut Vec<u8>) {
        self.make_room(input, message);
        let mut at = 0;
        while at < input.len() && self.fault != Some(Fault::BareNewline) {
            at += self.plain(&input[at..], message);
        }
    }

    /// All that came at once finds room at once, not line by line.
    fn make_room(&self, input: &[u8], message: &mut Vec<u8>) {
        if self.fault.is_none() {
            message.reserve(input.len());
        }
    }

    /// Takes octets up to the end of the line, at least one; says how many.
    fn plain(&mut self, input: &[u8], message: &mut Vec<u8>) -> usize {
        let taken = if self.place == Place::Cr {
            self.end_line_if(input.starts_with(b"\n"));
            1
        } else if let Some(end) = memchr2(b'\r', b'\n', input) {
            if input[end..] == *b"\r" {
                self.place = Place::Cr;
                end + 1
            } else {
                let is_crlf = input[end..].starts_with(b"\r\n");
                self.end_line_if(is_crlf);
                end + 1 + usize::from(is_crlf)
            }
        } else {
            self.place = Place::Middle;
            input.len()
        };
        self.keep(&input[..taken], message);
        taken
    }

    /// RFC 5321 §2.3.8: CR and LF stand only together.
    fn end_line_if(&mut self, is_crlf: bool) {
        if is_crlf {
            self.place = Place::LineStart;
        } else {
            self.fault = Some(Fault::BareNewline);
        }
    }

    fn keep(&mut self, octets: &[u8], message: &mut Vec<u8>) {
        // Of two limits the one that is passed first counts, however many octets come at once.
        let line_room = self.limits.line.saturating_sub(self.line);
        let size_room = self.limits.size.saturating_sub(self.size);
        let is_line_first = line_room as u64 <= size_room;
        self.size += octets.len() as u64;
        self.line += octets.len();
        if self.line > self.limits.line && (is_line_first || self.size <= self.limits.size) {
            self.fault.get_or_insert(Fault::LineTooLong);
        } else if self.size > self.limits.size {
            self.fault.get_or_insert(Fault::TooLarge);
        }
        if self.place == Place::LineStart {
            self.line = 0;
        }
        if self.fault.is_none() {
            message.extend_from_slice(octets);
        } else {
            // Will not be stored: give the memory back now, not when the client is done.
            *message = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        size: 1000,
        line: 100,
    };

    /// The message, its fault, and what was left of the input; fed whole and cut at each octet.
    ///
    /// Behind a bare newline nothing is read any more, so what is left there does not count.
    fn read(input: &[u8]) -> (String, Option<Fault>, String) {
        let whole = read_in_two(input, input.len());
        for cut in 0..input.len() {
            assert_eq!(read_in_two(input, cut), whole, "cut at {cut}");
        }
        whole
    }

    fn read_in_two(input: &[u8], cut: usize) -> (String, Option<Fault>, String) {
        let mut receiver = Receiver::new(LIMITS);
        let mut message = Vec::new();
        let mut at = 0;
        for end in [cut, input.len()] {
            match receiver.dotted(&input[at..end], &mut message) {
                Progress::More => at = end,
                Progress::End { taken } => {
                    at += taken;
                    break;
                }
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let rest = match receiver.fault() {
            Some(Fault::BareNewline) => String::new(),
            _ => text(&input[at..]),
        };
        (text(&message), receiver.fault(), rest)
    }

    #[test]
    fn dots_are_taken_out_and_the_end_is_found() {
        for (input, message, rest) in [
            ("a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n"),
            (".\r\n", "", ""),
            ("..\r\n.\r\n", ".\r\n", ""),
            (".a\r\n...\r\n.\r\n", "a\r\n..\r\n", ""),
            ("a.\r\n.\r\n", "a.\r\n", ""),
            ("\r\n\r\n.\r\n", "\r\n\r\n", ""),
        ] {
            let want = (message.to_owned(), None, rest.to_owned());
            assert_eq!(read(input.as_bytes()), want, "{input:?}");
        }
    }

    #[test]
    fn nothing_but_crlf_dot_crlf_ends_a_message() {
        for end in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r.\r\n",
            "\r\n.\r",
            "\n.\r",
            "\r.\n",
            "\r\r\n.\r\n",
            "\r\n.\r\r\n",
            "\r\n\n.\r\n",
            "\0\r.\r\n",
        ] {
            let input = format!("a{end}MAIL FROM:<evil@b.example>\r\n");
            let (message, fault, _) = read(input.as_bytes());
            assert_eq!(fault, Some(Fault::BareNewline), "{end:?}");
            assert_eq!(message, "", "{end:?}");
        }
        let (_, fault, rest) = read(b"a\r\n.\0\r\n");
        assert_eq!((fault, rest.as_str()), (None, ""));
    }

    #[test]
    fn an_end_is_never_found_without_taking_an_octet() {
        let mut receiver = Receiver::new(LIMITS);
        let mut message = Vec::new();
        assert_eq!(receiver.dotted(b"a\r\n.\r", &mut message), Progress::More);
        assert_eq!(
            receiver.dotted(b"x", &mut message),
            Progress::End { taken: 1 }
        );
        assert_eq!(receiver.fault(), Some(Fault::BareNewline));
    }

    #[test]
    fn over_a_limit_the_message_is_dropped_and_its_end_still_found() {
        let long_line = format!("{}\r\n.\r\nQUIT", "a".repeat(200));
        let (message, fault, rest) = read(long_line.as_bytes());
        assert_eq!(fault, Some(Fault::LineTooLong));
        assert_eq!((message.as_str(), rest.as_str()), ("", "QUIT"));

        let large = format!("{}.\r\nQUIT", "a\r\n".repeat(400));
        let (message, fault, rest) = read(large.as_bytes());
        assert_eq!(fault, Some(Fault::TooLarge));
        assert_eq!((message.as_str(), rest.as_str()), ("", "QUIT"));
    }

    #[test]
    fn of_two_limits_the_one_passed_first_is_told_in_whatever_pieces_the_octets_come() {
        for (lines, want) in [(330, Fault::TooLarge), (300, Fault::LineTooLong)] {
            let input = format!("{}{}\r\n.\r\n", "a\r\n".repeat(lines), "a".repeat(200));
            assert_eq!(read(input.as_bytes()).1, Some(want), "{lines}");
        }
    }

    #[test]
    fn chunks_are_kept_as_they_are() {
        for (input, want, fault) in [
            (".\r\n..\r\n", ".\r\n..\r\n", None),
            ("a\nb", "", Some(Fault::BareNewline)),
            ("a\rb", "", Some(Fault::BareNewline)),
        ] {
            for cut in 0..=input.len() {
                let mut receiver = Receiver::new(LIMITS);
                let mut message = Vec::new();
                receiver.chunk(&input.as_bytes()[..cut], &mut message);
                receiver.chunk(&input.as_bytes()[cut..], &mut message);
                assert_eq!(message, want.as_bytes(), "{input:?} cut at {cut}");
                assert_eq!(receiver.fault(), fault, "{input:?} cut at {cut}");
            }
        }
    }
}
