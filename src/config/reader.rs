//! Reads a [`Document`] into plain serde structs and names every fault of shape, not only the first.
//!
//! Serde stops at the first error. So what is wrong is struck out of the tree and the tree is read
//! again, until it reads or nothing is left to strike. Errors come as values ([`Problem`]) with the
//! place where they arose; what follows only from an earlier stroke is not said.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;

use serde::de;
use serde::de::DeserializeOwned;
use serde::de::Expected;
use serde::de::Unexpected;

use crate::config::document::Document;
use crate::config::document::KeyPath;
use crate::config::document::Step;
use crate::config::fault::nearest;
use crate::config::node::Node;

/// So many faults of shape are enough to say at once.
const MOST_FAULTS: usize = 100;

/// What is wrong with a key or a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The section has no such key.
    UnknownKey {
        /// As it is written.
        key: String,
        /// The keys that the section has.
        allowed: &'static [&'static str],
    },
    /// The value is a word, and none of those that may stand there.
    UnknownWord {
        /// As it is written.
        given: String,
        /// The words that may stand there.
        allowed: &'static [&'static str],
    },
    /// The section lacks this key, which has no default.
    MissingKey(&'static str),
    /// The value is of another kind than the key wants.
    Wrong {
        /// What the value is.
        given: String,
        /// What the key wants.
        wanted: String,
    },
    /// What a part says of the value, in its own words.
    Said(String),
}

/// What came of reading a document.
#[derive(Debug)]
pub struct Reading<T> {
    /// None where the tree could not be read even without what is wrong.
    pub value: Option<T>,
    /// In the order of discovery.
    pub faults: Vec<(KeyPath, Problem)>,
    /// Places that `value` was read without.
    pub struck: BTreeSet<KeyPath>,
    /// The keys of each section that was read.
    pub sections: BTreeMap<KeyPath, &'static [&'static str]>,
}

/// Reads `document`, leaving out what is already known to be wrong.
pub fn read<T: DeserializeOwned>(document: &Document<'_>, struck: BTreeSet<KeyPath>) -> Reading<T> {
    let mut reading = Reading {
        value: None,
        faults: Vec::new(),
        struck,
        sections: BTreeMap::new(),
    };
    for _ in 0..MOST_FAULTS {
        let sections = RefCell::default();
        let result = T::deserialize(Node {
            value: document.root(),
            path: KeyPath::default(),
            struck: &reading.struck,
            sections: &sections,
        });
        reading.sections.append(&mut sections.into_inner());
        let error = match result {
            Ok(value) => {
                reading.value = Some(value);
                break;
            }
            Err(error) => error,
        };
        let path = error.path.unwrap_or_default();
        if !reading.explains(&error.problem, &path) {
            reading.faults.push((path.clone(), error.problem));
        }
        if path.is_root() {
            break;
        }
        reading.struck.insert(path);
    }
    reading
}

impl<T> Reading<T> {
    /// Whether the problem only follows from what was found and struck out before.
    fn explains(&self, problem: &Problem, path: &KeyPath) -> bool {
        match problem {
            Problem::UnknownKey { .. } => false,
            Problem::MissingKey(key) => {
                self.struck.contains(&path.key(key)) || self.was_meant(path, key)
            }
            Problem::UnknownWord { .. } | Problem::Wrong { .. } | Problem::Said(_) => {
                self.struck.iter().any(|inner| path.holds(inner))
            }
        }
    }

    /// Whether what should stand at `path` does not, because its key was written wrongly.
    pub fn is_misspelt(&self, document: &Document<'_>, path: &KeyPath) -> bool {
        let [before @ .., Step::Key(key)] = path.steps() else {
            return false;
        };
        let parent: KeyPath = before.iter().cloned().collect();
        document.value(path).is_none() && self.was_meant(&parent, key)
    }

    /// Whether an unknown key at `path` was meant to be `key`.
    fn was_meant(&self, path: &KeyPath, key: &str) -> bool {
        self.faults.iter().any(|(at, problem)| match problem {
            Problem::UnknownKey { key: given, .. } => {
                *at == path.key(given) && nearest(given, &[key]).is_some()
            }
            _ => false,
        })
    }
}

/// A problem and where it arose, as serde hands it up.
#[derive(Debug)]
pub(super) struct Error {
    path: Option<KeyPath>,
    problem: Problem,
}

impl Error {
    /// The first to say where is nearest to the problem.
    pub(super) fn at(mut self, path: &KeyPath) -> Error {
        self.path.get_or_insert_with(|| path.clone());
        self
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error {
            path: None,
            problem,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.problem)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Problem::Said(message.to_string()).into()
    }

    fn invalid_type(given: Unexpected<'_>, wanted: &dyn Expected) -> Error {
        Problem::Wrong {
            given: shown(given),
            wanted: wanted.to_string(),
        }
        .into()
    }

    fn invalid_value(given: Unexpected<'_>, wanted: &dyn Expected) -> Error {
        Error::invalid_type(given, wanted)
    }

    fn unknown_variant(given: &str, allowed: &'static [&'static str]) -> Error {
        Problem::UnknownWord {
            given: format!("{given:?}"),
            allowed,
        }
        .into()
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Error {
        Problem::UnknownKey {
            key: key.to_owned(),
            allowed,
        }
        .into()
    }

    fn missing_field(key: &'static str) -> Error {
        Problem::MissingKey(key).into()
    }
}

/// A value in the operator's words.
fn shown(given: Unexpected<'_>) -> String {
    match given {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a section".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;
    use std::time::Duration;

    use bytesize::ByteSize;
    use ipnet::IpNet;
    use serde::Deserialize;

    use super::*;
    use crate::config::fault;

    /// Of everything that a part may ask for, one.
    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        limits: Limits,
        listen: Vec<Listen>,
        chains: Vec<Chain>,
        mode: Mode,
        data_dir: Option<PathBuf>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Limits {
        per_address: u32,
        per_network: u16,
        factor: f64,
        #[serde(with = "humantime_serde")]
        timeout: Duration,
        size: ByteSize,
        from: Vec<IpNet>,
        reports: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape is read")]
    struct Listen {
        address: SocketAddr,
        #[serde(default)]
        mode: Mode,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape is read")]
    struct Chain {
        chain: PathBuf,
        key: PathBuf,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        #[default]
        Enforce,
        Observe,
        Off,
    }

    fn faults(text: &str) -> Vec<String> {
        let document = Document::parse(text).unwrap();
        let reading: Reading<Sample> = read(&document, BTreeSet::new());
        assert!(reading.value.is_some(), "{text}");
        let top = reading.sections[&KeyPath::default()];
        let lines = reading.faults.iter().map(|(path, problem)| {
            let value = document.value(path);
            let words = fault::words(problem, value, top);
            format!("{}: {path}: {words}", document.line_of(path))
        });
        lines.collect()
    }

    #[test]
    fn each_fault_of_shape_is_named_with_what_would_be_right() {
        for (text, want) in [
            ("", vec![]),
            (
                "[limits]\nper_adress = 3\nper_netwrok = 4",
                vec![
                    "2: limits.per_adress: unknown key; did you mean per_address?",
                    "3: limits.per_netwrok: unknown key; did you mean per_network?",
                ],
            ),
            (
                "[limits]\nreports = true\ndata_dir = '/x'",
                vec![
                    "3: limits.data_dir: unknown key here; data_dir belongs at the top, above the \
                     first [section]",
                ],
            ),
            (
                "colour = 1",
                vec!["1: colour: unknown key; known here: limits, listen, chains, mode, data_dir"],
            ),
            (
                "[limits]\nper_address = 'many'\nper_network = 70000\ntimeout = 30\nsize = '25 Mug'\n\
                 from = ['10.0.0.0/8', 'all']\nreports = 'yes'\nfactor = '2'",
                vec![
                    "8: limits.factor: \"2\" is not a number, such as 2 or 0.5",
                    "6: limits.from[2]: \"all\": not an IP address or network, such as \
                     \"192.0.2.0/24\"",
                    "2: limits.per_address: \"many\" is not a whole number from 0 to 4294967295",
                    "3: limits.per_network: 70000 is not a whole number from 0 to 65535",
                    "7: limits.reports: \"yes\" is not true or false",
                    "5: limits.size: \"25 Mug\" is not a size with its unit, such as \"512KiB\" or \
                     \"25MiB\"",
                    "4: limits.timeout: 30 is not a time with its unit, such as \"30s\", \"5min\" \
                     or \"2days\"",
                ],
            ),
            (
                "mode = 'observ'\nlimits = 3",
                vec![
                    "2: limits: 3 is not a section with keys",
                    "1: mode: \"observ\" is unknown; did you mean \"observe\"? allowed: \
                     \"enforce\", \"observe\", \"off\"",
                ],
            ),
            (
                "mode = false\ndata_dir = 2026-01-01",
                vec![
                    "2: data_dir: a date is not a path in quotes",
                    "1: mode: false is unknown; allowed: \"enforce\", \"observe\", \"off\"",
                ],
            ),
            (
                "[[listen]]\naddress = '127.0.0.1:25'\n[[listen]]\nadress = '[::1]:25'\n\
                 mode = 'on'\n[[listen]]\naddress = 'localhost'\n",
                vec![
                    "4: listen[2].adress: unknown key; did you mean address?",
                    "5: listen[2].mode: \"on\" is unknown; allowed: \"enforce\", \"observe\", \
                     \"off\"",
                    "7: listen[3].address: \"localhost\": not an address with its port, such as \
                     \"127.0.0.1:25\" or \"[::1]:25\"",
                ],
            ),
            (
                "chains = [{ chain = '/c', key = '/k' }, { chain = '/c' }]",
                vec!["1: chains[2]: missing; this key has no default"],
            ),
        ] {
            assert_eq!(faults(text), want, "{text}");
        }
    }

    #[test]
    fn a_file_of_nothing_but_faults_comes_to_an_end() {
        let text: String = (0..1000).map(|number| format!("x{number} = 1\n")).collect();
        let document = Document::parse(&text).unwrap();
        let reading: Reading<Sample> = read(&document, BTreeSet::new());
        assert_eq!(reading.faults.len(), MOST_FAULTS);
    }
}
