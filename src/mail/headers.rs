//! The header of a message, field by field, as byte ranges of what came in (RFC 5322 §2.2).
//!
//! The header goes to the first empty line. A line in it that is no field is passed over and counted:
//! some readers go on behind it, so what stands there must be seen. Decodes and copies nothing.

use std::ops::Range;

use memchr::memchr;

/// One field: its name, its value with folding as it came, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// As written, without white space around it.
    pub name: &'a str,
    /// What follows the colon, without the final CRLF.
    pub value: &'a [u8],
    /// The whole field with its final CRLF, in the message.
    pub range: Range<usize>,
}

impl Field<'_> {
    /// Whether the field has this name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Walks the fields of a message from the top.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
    malformed: usize,
}

/// The fields of `message`, which begins with its header.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields {
        message,
        at: 0,
        malformed: 0,
    }
}

impl Fields<'_> {
    /// Where the next field begins; at the end, the empty line behind the header.
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many lines that are no fields were passed over so far.
    pub fn malformed(&self) -> usize {
        self.malformed
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            let rest = &self.message[self.at..];
            if rest.is_empty() || rest.starts_with(b"\r\n") {
                return None;
            }
            let start = self.at;
            self.at += field_end(rest);
            if let Some((name, value)) = split(&self.message[start..self.at]) {
                let range = start..self.at;
                return Some(Field { name, value, range });
            }
            self.malformed += 1;
        }
    }
}

/// How many octets at the start of `message` are lines that begin with white space. They continue
/// whatever stands in front of the message.
pub fn indented(message: &[u8]) -> usize {
    match message.first() {
        Some(b' ' | b'\t') => field_end(message),
        _ => 0,
    }
}

/// Name and value of a field; None where it is none.
fn split(field: &[u8]) -> Option<(&str, &[u8])> {
    let colon = memchr(b':', field)?;
    // RFC 5322 §4.5.8: white space before the colon is obsolete, not wrong.
    let name = std::str::from_utf8(field[..colon].trim_ascii_end()).ok()?;
    if name.is_empty() || !name.bytes().all(|b| (33..=126).contains(&b)) {
        return None;
    }
    let value = &field[colon + 1..];
    Some((name, value.strip_suffix(b"\r\n").unwrap_or(value)))
}

/// Where the field at the start of `rest` ends: behind the first line end that no white space follows.
fn field_end(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(line_end) = memchr(b'\n', &rest[at..]) {
        at += line_end + 1;
        if !matches!(rest.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_where_no_white_space_follows() {
        let message = b"From: a@b.example\r\nSubject : one\r\n two\r\nX:\r\n\r\nTo: body\r\n";
        let got: Vec<_> = fields(message)
            .map(|field| {
                (
                    field.name,
                    String::from_utf8_lossy(field.value).into_owned(),
                )
            })
            .collect();
        assert_eq!(
            got,
            [
                ("From", " a@b.example".to_owned()),
                ("Subject", " one\r\n two".to_owned()),
                ("X", String::new()),
            ]
        );
    }

    #[test]
    fn a_line_that_is_no_field_is_passed_over_and_counted() {
        let mut walk = fields(b"A: 1\r\nnot a field\r\nB: 2\r\n\r\nC: body\r\n");
        let names: Vec<_> = walk.by_ref().map(|field| field.name).collect();
        assert_eq!(names, ["A", "B"]);
        assert_eq!((walk.position(), walk.malformed()), (25, 1));
        assert_eq!(fields(b"").count(), 0);
        assert_eq!(fields(b"\r\nbody").count(), 0);
        assert_eq!(fields(b"A: 1").next().map(|field| field.range), Some(0..4));
    }
}
