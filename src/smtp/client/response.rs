//! Reads the replies of a server (RFC 5321 §4.2, RFC 2034).
//!
//! A reply is bounded in lines and in the length of each; what is longer, or no reply at all, is an
//! error, after which the connection is of no use. Texts are cleaned here once: no control
//! character and no broken UTF-8 gets past this file, into the log or into a bounce.

use std::fmt;

use memchr::memchr;

/// RFC 5321 §4.5.3.1.5 says 512 octets; some servers write more.
const LINE_LIMIT: usize = 2048;
const LINES_LIMIT: usize = 100;
/// How much of a text `Display` shows, in octets.
const SHOWN: usize = 512;

/// Class, subject and detail (RFC 3463).
pub type Enhanced = (u8, u16, u16);

/// What became of a command: what the server said, or what we found without asking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 200 to 599.
    pub code: u16,
    /// RFC 3463. Its class always is the first digit of `code`.
    pub enhanced: Option<Enhanced>,
    /// Whose words they are.
    pub speaker: Speaker,
    text: Box<str>,
}

/// Who speaks in a [`Response`]. A bounce quotes only the other side as its diagnostic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The server said it.
    Peer,
    /// We say it of the server, or of the way to it.
    Us,
}

/// What a reply is for the command it answers (RFC 5321 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 2xx
    Done,
    /// 3xx
    GoOn,
    /// 4xx
    Later,
    /// 5xx
    Never,
}

/// Why bytes are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Three digits from 200 to 599, then a space, a hyphen or the end (RFC 5321 §4.2).
    #[error("a line does not begin with a reply code")]
    Code,
    /// RFC 5321 §4.2.1: each line repeats the code.
    #[error("the lines of one reply have different codes")]
    Mixed,
    /// No end of a line within the limit.
    #[error("a line is longer than {LINE_LIMIT} octets")]
    LineTooLong,
    /// No last line within the limit.
    #[error("there are more than {LINES_LIMIT} lines")]
    TooManyLines,
}

impl Response {
    /// What we found ourselves. `enhanced` is its detail in RFC 3463's words, `code` a 4xx or 5xx.
    pub fn ours(code: u16, enhanced: Enhanced, text: &str) -> Response {
        Response {
            code,
            enhanced: Some(enhanced),
            speaker: Speaker::Us,
            text: cleaned(text.as_bytes()).into_boxed_str(),
        }
    }

    /// Reads one reply from the front of `bytes`; gives it and its length, or None where its end has
    /// not come yet.
    ///
    /// # Errors
    /// [`Malformed`] as soon as the bytes can no longer become a reply.
    pub fn read(bytes: &[u8]) -> Result<Option<(Response, usize)>, Malformed> {
        let mut at = 0;
        let mut lines = Vec::new();
        let mut code = None;
        loop {
            let rest = &bytes[at..];
            let Some(end) = memchr(b'\n', &rest[..rest.len().min(LINE_LIMIT)]) else {
                if rest.len() >= LINE_LIMIT {
                    return Err(Malformed::LineTooLong);
                }
                return Ok(None);
            };
            at += end + 1;
            let line = Line::read(&rest[..end])?;
            if *code.get_or_insert(line.code) != line.code {
                return Err(Malformed::Mixed); // RFC 5321 §4.2.1
            }
            lines.push(line.text);
            if line.last {
                return Ok(Some((Response::from_lines(line.code, &lines), at)));
            }
            if lines.len() == LINES_LIMIT {
                return Err(Malformed::TooManyLines);
            }
        }
    }

    fn from_lines(code: u16, lines: &[&[u8]]) -> Response {
        let enhanced = lines
            .first()
            .and_then(|line| split_enhanced(code, line))
            .map(|(enhanced, _)| enhanced);
        let texts: Vec<String> = lines
            .iter()
            .map(|line| match split_enhanced(code, line) {
                Some((_, rest)) => cleaned(rest),
                None => cleaned(line),
            })
            .collect();
        Response {
            code,
            enhanced,
            speaker: Speaker::Peer,
            text: texts.join("\n").into_boxed_str(),
        }
    }

    /// What the first digit says.
    pub fn class(&self) -> Class {
        match self.code / 100 {
            2 => Class::Done,
            3 => Class::GoOn,
            4 => Class::Later,
            _ => Class::Never,
        }
    }

    /// RFC 5321 §3.8: the server closes the connection after it, whatever it answers.
    pub fn is_goodbye(&self) -> bool {
        self.code == 421 && self.speaker == Speaker::Peer
    }

    /// The text line by line, without codes.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }
}

/// One line, at most 512 octets of text: `550 5.1.1 no such user`; what we found ourselves is
/// written as a sentence, `cannot connect (4.4.1)`, so that nobody takes it for the server's words.
impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self.text.len() {
            0..=SHOWN => &*self.text,
            _ => &self.text[..self.text.floor_char_boundary(SHOWN)],
        };
        let enhanced = self.enhanced.map(|(a, b, c)| format!("{a}.{b}.{c}"));
        if self.speaker == Speaker::Us {
            f.write_str(shown)?;
            return enhanced.map_or(Ok(()), |enhanced| write!(f, " ({enhanced})"));
        }
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = enhanced {
            write!(f, " {enhanced}")?;
        }
        for line in shown.split('\n').filter(|line| !line.is_empty()) {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

struct Line<'a> {
    code: u16,
    last: bool,
    text: &'a [u8],
}

impl Line<'_> {
    /// Reads a line without its LF. A missing CR is forgiven: nothing can be smuggled to us here.
    fn read(line: &[u8]) -> Result<Line<'_>, Malformed> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
            return Err(Malformed::Code);
        };
        let code = [a, b, c]
            .iter()
            .fold(0, |code, digit| code * 10 + u16::from(**digit - b'0'));
        let (last, text) = match rest {
            [] => (true, rest), // RFC 5321 §4.2: the space may be missing where no text follows.
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(Malformed::Code),
        };
        Ok(Line { code, last, text })
    }
}

/// The enhanced code at the front of a text, and the text behind it (RFC 2034 §4). A code of another
/// class than the reply's is no code but text.
fn split_enhanced(code: u16, text: &[u8]) -> Option<(Enhanced, &[u8])> {
    let end = memchr(b' ', text).unwrap_or(text.len());
    let word = std::str::from_utf8(&text[..end]).ok()?;
    let mut numbers = word.split('.');
    let mut number = |longest: usize| {
        let digits = numbers.next()?;
        let valid = (1..=longest).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_digit());
        valid.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
    if numbers.next().is_some() || class != code / 100 || class == 3 {
        return None;
    }
    let rest = text.get(end + 1..).unwrap_or_default();
    Some(((class as u8, subject, detail), rest))
}

/// Text fit for a log: every control character is a space, what is no UTF-8 is U+FFFD.
fn cleaned(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_with_code_enhanced_code_and_text() {
        for (bytes, want) in [
            ("250 2.1.5 fine\r\n", "250 2.1.5 fine"),
            ("250\r\n", "250"),
            ("250 \r\n", "250"),
            ("250-a\r\n250-b\r\n250 c\r\nrest", "250 a b c"),
            ("550-5.1.1 no\r\n550 5.1.1 way\r\n", "550 5.1.1 no way"),
            ("550 5.7.509 long detail\r\n", "550 5.7.509 long detail"),
            ("550 4.1.1 other class\r\n", "550 4.1.1 other class"),
            ("550 5.1 is text\r\n", "550 5.1 is text"),
            ("550 5.1.1.1 is text\r\n", "550 5.1.1.1 is text"),
            ("550 5.1.1\r\n", "550 5.1.1"),
            ("250 lf only\n", "250 lf only"),
            ("250 a\x07b\x1b[31m\r\n", "250 a b [31m"),
        ] {
            let (got, _) = Response::read(bytes.as_bytes()).unwrap().unwrap();
            assert_eq!(got.to_string(), want, "{bytes:?}");
        }
        let (got, used) = Response::read(b"550 5.7.509 x\r\n250 y\r\n")
            .unwrap()
            .unwrap();
        assert_eq!((got.enhanced, used), (Some((5, 7, 509)), 15));
    }

    #[test]
    fn the_end_of_a_reply_is_waited_for() {
        let reply = b"250-a\r\n250 b\r\n";
        for cut in 0..reply.len() {
            assert_eq!(Response::read(&reply[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        let long = format!("250 {}", "x".repeat(3000));
        let many = "250-x\r\n".repeat(101);
        for (bytes, want) in [
            ("hello\r\n", Malformed::Code),
            ("25 x\r\n", Malformed::Code),
            ("250x\r\n", Malformed::Code),
            ("150 x\r\n", Malformed::Code),
            ("650 x\r\n", Malformed::Code),
            ("\r\n", Malformed::Code),
            ("250-a\r\n550 b\r\n", Malformed::Mixed),
            (&long, Malformed::LineTooLong),
            (&many, Malformed::TooManyLines),
        ] {
            assert_eq!(Response::read(bytes.as_bytes()), Err(want), "{bytes:.20}");
        }
    }

    #[test]
    fn what_we_found_is_not_shown_as_the_words_of_the_server() {
        let ours = Response::ours(451, (4, 4, 1), "cannot connect\r\n250 fine");
        assert_eq!(ours.to_string(), "cannot connect  250 fine (4.4.1)");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_fall_over(bytes: Vec<u8>) {
            if let Ok(Some((response, used))) = Response::read(&bytes) {
                assert!(used <= bytes.len());
                assert!(!response.to_string().chars().any(char::is_control));
            }
        }
    }
}
