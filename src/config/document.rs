//! A TOML text as a tree that remembers where each key stands.
//!
//! [`KeyPath`] names a place in the tree and [`Document::line_of`] turns it into a line, so that
//! whoever finds a fault needs to know only the key. Says every syntax error that the parser can
//! tell apart, not only the first.

use std::collections::BTreeSet;
use std::fmt;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::fault::Fault;

/// One step from a table or a list into what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Into a table: the entry of this name, without quotes.
    Key(String),
    /// Counted from zero in the tree; shown counted from one.
    Index(usize),
}

/// Where a value stands: `limits.per_address`, `listen[1].address`, `domains."example.com".deliver`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyPath(Vec<Step>);

impl KeyPath {
    /// Reads a path as a part writes it: keys and indexes (from zero) with dots between them.
    pub fn parse(text: &str) -> KeyPath {
        let step = |text: &str| match text.parse() {
            Ok(index) => Step::Index(index),
            Err(_) => Step::Key(text.to_owned()),
        };
        KeyPath(
            text.split('.')
                .filter(|text| !text.is_empty())
                .map(step)
                .collect(),
        )
    }

    /// The entry `key` of the table here.
    pub fn key(&self, key: &str) -> KeyPath {
        self.then(Step::Key(key.to_owned()))
    }

    /// The element `index`, from zero, of the list here.
    pub fn index(&self, index: usize) -> KeyPath {
        self.then(Step::Index(index))
    }

    /// What `rest` names, seen from here.
    pub fn join(&self, rest: &KeyPath) -> KeyPath {
        KeyPath(self.0.iter().chain(&rest.0).cloned().collect())
    }

    /// The steps from the top.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether this is the whole document.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `other` is this place or one inside it.
    pub fn holds(&self, other: &KeyPath) -> bool {
        other.0.starts_with(&self.0)
    }

    fn then(&self, step: Step) -> KeyPath {
        let mut steps = self.0.clone();
        steps.push(step);
        KeyPath(steps)
    }
}

impl FromIterator<Step> for KeyPath {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> KeyPath {
        KeyPath(steps.into_iter().collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{}]", index + 1)?,
                Step::Key(key) => {
                    let dot = if at == 0 { "" } else { "." };
                    if is_bare(key) {
                        write!(f, "{dot}{key}")?;
                    } else {
                        write!(f, "{dot}{key:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// TOML 1.0, "Keys": what needs no quotes.
fn is_bare(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The tree of one file.
#[derive(Debug)]
pub struct Document<'i> {
    text: &'i str,
    root: DeValue<'i>,
}

impl<'i> Document<'i> {
    /// Reads a text; on errors of syntax all that were found, with line and column.
    pub fn parse(text: &'i str) -> Result<Document<'i>, Vec<Fault>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            let root = DeValue::Table(root.into_inner());
            return Ok(Document { text, root });
        }
        let mut faults: Vec<Fault> = errors
            .iter()
            .map(|error| syntax_fault(text, error))
            .collect();
        // What follows on the same line is mostly an echo of the first.
        faults.sort_by_key(|fault| (fault.line, fault.column));
        faults.dedup_by_key(|fault| fault.line);
        Err(faults)
    }

    /// The whole tree, a table.
    pub fn root(&self) -> &DeValue<'i> {
        &self.root
    }

    /// What stands at `path`.
    pub fn value(&self, path: &KeyPath) -> Option<&DeValue<'i>> {
        path.0
            .iter()
            .try_fold(&self.root, |value, step| enter(value, step).map(|at| at.1))
    }

    /// The keys of the table at `path`; none where there is no table.
    pub fn keys(&self, path: &KeyPath) -> Vec<&str> {
        match self.value(path) {
            Some(DeValue::Table(table)) => table.keys().map(|key| key.get_ref().as_ref()).collect(),
            _ => Vec::new(),
        }
    }

    /// The path in this document of a place in what was read from it without the struck places:
    /// an element that was struck out of a list moved those after it forward.
    pub fn with_struck_elements(&self, path: &KeyPath, struck: &BTreeSet<KeyPath>) -> KeyPath {
        let mut real = KeyPath::default();
        for step in &path.0 {
            let Step::Index(mut left) = *step else {
                real.0.push(step.clone());
                continue;
            };
            let mut index = 0;
            while left > 0 || struck.contains(&real.index(index)) {
                if !struck.contains(&real.index(index)) {
                    left -= 1;
                }
                index += 1;
            }
            real.0.push(Step::Index(index));
        }
        real
    }

    /// The line, from one, where `path` stands, or else the nearest place around it that exists.
    pub fn line_of(&self, path: &KeyPath) -> usize {
        let mut value = &self.root;
        let mut offset = 0;
        for step in &path.0 {
            let Some((start, inner)) = enter(value, step) else {
                break;
            };
            (offset, value) = (start, inner);
        }
        position(self.text, offset).0
    }
}

/// Where the entry begins, and what it holds.
fn enter<'v, 'i>(value: &'v DeValue<'i>, step: &Step) -> Option<(usize, &'v DeValue<'i>)> {
    let (start, inner): (usize, &Spanned<DeValue<'i>>) = match (value, step) {
        (DeValue::Table(table), Step::Key(key)) => {
            let (key, inner) = table.get_key_value(key.as_str())?;
            (key.span().start, inner)
        }
        (DeValue::Array(array), Step::Index(index)) => {
            let inner = array.get(*index)?;
            (inner.span().start, inner)
        }
        _ => return None,
    };
    Some((start, inner.get_ref()))
}

fn syntax_fault(text: &str, error: &toml::de::Error) -> Fault {
    let span = error.span().unwrap_or(text.len()..text.len());
    let (line, column) = position(text, span.start);
    let message = match text.get(span) {
        Some(word) if error.message() == "duplicate key" => {
            format!("the key {word} was given before; keep one of them")
        }
        _ => format!("not TOML: {}", error.message()),
    };
    Fault {
        line,
        column: Some(column),
        key: String::new(),
        message,
    }
}

/// Line and column, both from one, of a byte.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a = 1\n\n[b.c]\nd.e = 2\n[[l]]\n[[l]]\nx = [\n 1,\n 2]\n[\"k.l\"]\n";

    #[test]
    fn a_path_leads_to_the_line_of_its_key_or_of_what_is_around_it() {
        let document = Document::parse(TEXT).unwrap();
        for (path, line) in [
            ("a", 1),
            ("b.c", 3),
            ("b.c.d.e", 4),
            ("b.c.missing", 3),
            ("l", 5),
            ("l.0", 5),
            ("l.1.missing", 6),
            ("l.1.x", 7),
            ("l.1.x.1", 9),
            ("missing", 1),
        ] {
            assert_eq!(document.line_of(&KeyPath::parse(path)), line, "{path}");
        }
        assert_eq!(document.line_of(&KeyPath::default().key("k.l")), 10);
    }

    #[test]
    fn paths_are_shown_as_an_operator_writes_them() {
        let path = KeyPath::default().key("domains").key("a.example");
        assert_eq!(
            path.key("deliver").to_string(),
            "domains.\"a.example\".deliver"
        );
        assert_eq!(KeyPath::parse("listen.0.tls").to_string(), "listen[1].tls");
    }

    #[test]
    fn each_line_with_broken_syntax_is_named() {
        let faults = Document::parse("a = \nb = 1\nb = 2\nc = \"x\n").unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 3, 4], "{faults:?}");
        assert_eq!(
            faults[1].message,
            "the key b was given before; keep one of them"
        );
    }
}
