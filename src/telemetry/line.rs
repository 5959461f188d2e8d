//! One event as one line, as text or as JSON.
//!
//! What a stranger wrote (a HELO name, an address, a reply) stands in values, so a value can never
//! end a line, begin a field or move a terminal's cursor: control characters, line separators and
//! other invisible characters are escaped. Pure: the time is an argument.

use std::fmt;
use std::fmt::Write as _;

use jiff::Timestamp;
use tracing::Level;
use tracing::field::Field;
use tracing::field::Visit;

use crate::telemetry::log::Format;

/// What is longer is cut; the mark at the end says so.
const LONGEST_VALUE: usize = 4096;

/// The fields of an event or a span, in the order in which they were given.
#[derive(Debug, Default, Clone)]
pub(super) struct Fields {
    /// The constant text of the event.
    pub(super) message: String,
    pub(super) values: Vec<(&'static str, Value)>,
}

/// The value of a field.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// A number or a truth, as it is written in JSON too.
    Plain(String),
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Plain(text)) => self.message = text,
            (name, value) => self.values.push((name, value)),
        }
    }

    /// Adds what a span knows, except what the event says itself.
    pub(super) fn inherit(&mut self, span: &Fields) {
        for (name, value) in &span.values {
            if !self.values.iter().any(|(own, _)| own == name) {
                self.values.push((name, value.clone()));
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, Value::Text(cut(value.to_owned())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Plain(value.to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Most values fit, so that they are not moved while they grow.
        let mut text = String::with_capacity(64);
        let written = write!(text, "{value:?}");
        debug_assert!(written.is_ok());
        self.push(field, Value::Text(cut(text)));
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_VALUE {
        text.truncate(text.floor_char_boundary(LONGEST_VALUE));
        text.push_str("[...]");
    }
    text
}

/// The line of an event, with its line end. `target` is given for what is not of the mail log.
pub(super) fn line(
    format: Format,
    time: Timestamp,
    level: Level,
    target: Option<&str>,
    fields: &Fields,
) -> String {
    let mut line = String::with_capacity(256);
    let written = match format {
        Format::Text => text_line(&mut line, time, level, target, fields),
        Format::Json => json_line(&mut line, time, level, target, fields),
    };
    // A String takes all that is written to it.
    debug_assert!(written.is_ok());
    line.push('\n');
    line
}

fn text_line(
    line: &mut String,
    time: Timestamp,
    level: Level,
    target: Option<&str>,
    fields: &Fields,
) -> fmt::Result {
    write!(line, "{time:.3} {level} ")?;
    escaped(line, &fields.message, text_escape)?;
    if let Some(target) = target {
        write!(line, " target={target}")?;
    }
    for (name, value) in &fields.values {
        write!(line, " {name}=")?;
        match value {
            Value::Plain(value) => line.push_str(value),
            Value::Text(value) if is_bare(value) => line.push_str(value),
            Value::Text(value) => {
                line.push('"');
                escaped(line, value, text_escape)?;
                line.push('"');
            }
        }
    }
    Ok(())
}

fn json_line(
    line: &mut String,
    time: Timestamp,
    level: Level,
    target: Option<&str>,
    fields: &Fields,
) -> fmt::Result {
    let level = level.as_str().to_ascii_lowercase();
    write!(line, "{{\"time\":\"{time:.3}\",\"level\":\"{level}\"")?;
    let mut text = |name: &str, value: &str| {
        write!(line, ",\"{name}\":\"")?;
        escaped(line, value, json_escape)?;
        line.push('"');
        Ok(())
    };
    text("message", &fields.message)?;
    if let Some(target) = target {
        text("target", target)?;
    }
    for (name, value) in &fields.values {
        match value {
            Value::Plain(value) => write!(line, ",\"{name}\":{value}")?,
            Value::Text(value) => {
                write!(line, ",\"{name}\":\"")?;
                escaped(line, value, json_escape)?;
                line.push('"');
            }
        }
    }
    line.push('}');
    Ok(())
}

/// Whether a value needs no quotes.
fn is_bare(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| is_visible(c) && !matches!(c, ' ' | '"' | '=' | '\\'))
}

/// Neither a control character nor one that moves or hides others (line separators, directions).
fn is_visible(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c if c.is_ascii() => false,
        c => c.escape_debug().len() == 1,
    }
}

fn escaped(
    line: &mut String,
    text: &str,
    escape: fn(&mut String, char) -> fmt::Result,
) -> fmt::Result {
    for c in text.chars() {
        if is_visible(c) && !matches!(c, '"' | '\\') {
            line.push(c);
        } else {
            escape(line, c)?;
        }
    }
    Ok(())
}

fn text_escape(line: &mut String, c: char) -> fmt::Result {
    match c {
        '\n' => line.write_str("\\n"),
        '\r' => line.write_str("\\r"),
        '\t' => line.write_str("\\t"),
        '"' | '\\' => write!(line, "\\{c}"),
        c => write!(line, "\\u{{{:x}}}", u32::from(c)),
    }
}

/// RFC 8259 §7
fn json_escape(line: &mut String, c: char) -> fmt::Result {
    if matches!(c, '"' | '\\') {
        return write!(line, "\\{c}");
    }
    let mut units = [0; 2];
    for unit in c.encode_utf16(&mut units) {
        write!(line, "\\u{unit:04x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, value: &str) -> String {
        let fields = Fields {
            message: "refused".to_owned(),
            values: vec![
                ("helo", Value::Text(value.to_owned())),
                ("size", Value::Plain("12".to_owned())),
            ],
        };
        let time = Timestamp::from_millisecond(1_795_496_462_345).unwrap();
        line(format, time, Level::INFO, None, &fields)
    }

    #[test]
    fn a_text_line_quotes_what_needs_it() {
        for (value, want) in [
            ("mx.example", "mx.example"),
            ("<a@b.example>", "<a@b.example>"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a=b", "\"a=b\""),
            ("say \"x\\\"", "\"say \\\"x\\\\\\\"\""),
            ("größe", "größe"),
        ] {
            assert_eq!(
                written(Format::Text, value),
                format!("2026-11-24T05:01:02.345Z INFO refused helo={want} size=12\n")
            );
        }
    }

    #[test]
    fn a_value_cannot_break_the_line_in_any_format() {
        let hostile = "x\r\n2026-01-01T00:00:00.000Z INFO accepted id=1\u{2028}\u{85}\0\x1b[2J\u{202e}\t\u{7f}";
        for format in [Format::Text, Format::Json] {
            let line = written(format, hostile);
            let body = line.strip_suffix('\n').unwrap();
            assert!(
                body.chars().all(|c| (' '..='~').contains(&c)),
                "{format:?}: {body:?}"
            );
        }
    }

    #[test]
    fn a_json_line_is_one_flat_object_and_keeps_the_value() {
        let hostile = "a\"b\\c\r\n\u{2028}\u{10ffff}é";
        let line = written(Format::Json, hostile);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            object,
            serde_json::json!({
                "time": "2026-11-24T05:01:02.345Z", "level": "info", "message": "refused",
                "helo": hostile, "size": 12,
            })
        );
    }

    #[test]
    fn a_long_value_is_cut() {
        assert!(cut("é".repeat(5000)).len() < LONGEST_VALUE + 8);
    }
}
