//! What is wrong with a configuration, in the words that an operator reads.
//!
//! Each fault is one line: `FILE:LINE: KEY: what is wrong; what would be right`.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use strsim::damerau_levenshtein;
use toml::de::DeValue;

use crate::config::reader::Problem;

/// One thing that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From one.
    pub line: usize,
    /// From one; only for errors of syntax.
    pub column: Option<usize>,
    /// The key with its section; empty where there is none.
    pub key: String,
    /// What is wrong and what would be right, for the operator.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.line)?;
        if let Some(column) = self.column {
            write!(f, "{column}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Why a file gives no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Faults {
    /// The file cannot be read at all.
    #[error("cannot read the configuration {}", .path.display())]
    Unreadable {
        /// The file that was named.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The file was read. All that is wrong with it, by line.
    #[error("{}", lines(.path, .faults))]
    Wrong {
        /// The file that was read.
        path: PathBuf,
        /// At least one, by line.
        faults: Vec<Fault>,
    },
}

impl Faults {
    /// Each fault with its line; none for a file that cannot be read.
    pub fn list(&self) -> &[Fault] {
        match self {
            Faults::Unreadable { .. } => &[],
            Faults::Wrong { faults, .. } => faults,
        }
    }
}

fn lines(path: &Path, faults: &[Fault]) -> String {
    let lines: Vec<_> = faults
        .iter()
        .map(|fault| format!("{}:{fault}", path.display()))
        .collect();
    lines.join("\n")
}

/// The problem in words. `value` is what stands there, `top` the keys
/// that belong at the top of the file.
pub(super) fn words(problem: &Problem, value: Option<&DeValue<'_>>, top: &[&str]) -> String {
    match problem {
        Problem::UnknownKey { key, allowed } => unknown_key(key, allowed, top),
        Problem::UnknownWord { given, allowed } => unknown_word(given, allowed),
        Problem::MissingKey(_) => "missing; this key has no default".to_owned(),
        Problem::Wrong { given, wanted } => format!("{given} is not {}", plain(wanted)),
        Problem::Said(message) => match value {
            Some(DeValue::String(text)) if !message.contains(text.as_ref()) => {
                format!("{text:?}: {}", plain(message))
            }
            Some(DeValue::Integer(number)) => format!("{number}: {}", plain(message)),
            Some(DeValue::Float(number)) => format!("{number}: {}", plain(message)),
            Some(DeValue::Boolean(truth)) => format!("{truth}: {}", plain(message)),
            _ => plain(message),
        },
    }
}

fn unknown_key(key: &str, allowed: &[&str], top: &[&str]) -> String {
    if let Some(near) = nearest(key, allowed) {
        return format!("unknown key; did you mean {near}?");
    }
    if top.contains(&key) {
        return format!("unknown key here; {key} belongs at the top, above the first [section]");
    }
    match allowed {
        [] => "unknown key; this section has no keys".to_owned(),
        allowed => format!("unknown key; known here: {}", allowed.join(", ")),
    }
}

fn unknown_word(given: &str, allowed: &[&str]) -> String {
    let quoted: Vec<_> = allowed.iter().map(|word| format!("{word:?}")).collect();
    let list = quoted.join(", ");
    match nearest(given.trim_matches('"'), allowed) {
        Some(near) => format!("{given} is unknown; did you mean {near:?}? allowed: {list}"),
        None => format!("{given} is unknown; allowed: {list}"),
    }
}

/// The word that was probably meant: one slip of the finger for each three letters.
pub(super) fn nearest<'w>(given: &str, words: &[&'w str]) -> Option<&'w str> {
    let given = given.to_ascii_lowercase().replace('-', "_");
    words
        .iter()
        .map(|word| (damerau_levenshtein(&given, &word.replace('-', "_")), *word))
        .filter(|(distance, word)| *distance <= word.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// What the libraries call a thing, and what an operator would. Serde and the types' own readers
/// name what they want in the programmer's words.
const WORDS: [(&str, &str); 19] = [
    ("a string", "text in quotes"),
    ("path string", "a path in quotes"),
    ("a boolean", "true or false"),
    ("a sequence", "a list in [ ]"),
    ("a map", "a section with keys"),
    (
        "a duration",
        "a time with its unit, such as \"30s\", \"5min\" or \"2days\"",
    ),
    (
        "an integer or string",
        "a size with its unit, such as \"25MiB\"",
    ),
    (
        "parsable string",
        "a size with its unit, such as \"512KiB\" or \"25MiB\"",
    ),
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("f64", "a number, such as 2 or 0.5"),
    (
        "socket address",
        "an address with its port, such as \"127.0.0.1:25\" or \"[::1]:25\"",
    ),
    (
        "invalid socket address syntax",
        "not an address with its port, such as \"127.0.0.1:25\" or \"[::1]:25\"",
    ),
    (
        "invalid IP address syntax",
        "not an IP address or network, such as \"192.0.2.0/24\"",
    ),
    ("IP address", "an IP address, such as \"192.0.2.1\""),
    (
        "IP network address",
        "a network, such as \"192.0.2.0/24\" or \"2001:db8::/32\"",
    ),
];

fn plain(text: &str) -> String {
    if text.starts_with("struct ") {
        return "a section with keys".to_owned();
    }
    WORDS
        .iter()
        .find(|(theirs, _)| *theirs == text)
        .map_or(text, |(_, ours)| ours)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_word_that_was_meant() {
        let keys = ["per_address", "per_network", "in_all"];
        for (given, want) in [
            ("per_adress", Some("per_address")),
            ("per-address", Some("per_address")),
            ("PER_NETWORK", Some("per_network")),
            ("inall", Some("in_all")),
            ("colour", None),
        ] {
            assert_eq!(nearest(given, &keys), want, "{given:?}");
        }
    }
}
