//! The header of a message, field by field, as byte ranges of what came in (RFC 5322 §2.2).
//!
//! Takes what the world sends: a line that is no field ends the header, as the body would begin
//! there for most readers. Decodes nothing and copies nothing.

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
}

/// The fields of `message`, which begins with its header.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { message, at: 0 }
}

impl Fields<'_> {
    /// Where the next field, or else what is behind the header, begins.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let rest = &self.message[self.at..];
        let end = field_end(rest);
        let field = &rest[..end];
        let colon = memchr(b':', field)?;
        // RFC 5322 §4.5.8: white space before the colon is obsolete, not wrong.
        let name = std::str::from_utf8(field[..colon].trim_ascii_end()).ok()?;
        let valid = !name.is_empty() && name.bytes().all(|b| (33..=126).contains(&b));
        if !valid {
            return None;
        }
        let value = &field[colon + 1..];
        let value = value.strip_suffix(b"\r\n").unwrap_or(value);
        let range = self.at..self.at + end;
        self.at = range.end;
        Some(Field { name, value, range })
    }
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
    fn a_line_that_is_no_field_ends_the_header() {
        let mut walk = fields(b"A: 1\r\nnot a field\r\nB: 2\r\n\r\n");
        assert_eq!(walk.by_ref().count(), 1);
        assert_eq!(walk.position(), 6);
        assert_eq!(fields(b"").count(), 0);
        assert_eq!(fields(b"\r\nbody").count(), 0);
        assert_eq!(fields(b"A: 1").next().map(|field| field.range), Some(0..4));
    }
}
