//! Holds the files in `conf/` to the code: `gatepost.toml` names every key with its true default, and
//! each file for a kind of site is right.
//!
//! In `gatepost.toml` a key or section that is commented out stands as `#key` or `#[section]`, prose
//! as `# text`. What is shown though it is not the default has `Example:` at the end of the prose
//! above it; such an example lasts until the next empty line, or for a section until the next one.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::config::Config;
use crate::config::document::Document;
use crate::config::document::KeyPath;
use crate::config::reader;
use crate::config::reader::Reading;

fn shipped(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    fs::read_to_string(path.join(name)).unwrap()
}

/// What an uncommented file holds.
#[derive(Clone, Copy, PartialEq)]
enum Keep {
    Everything,
    OnlyDefaults,
}

/// How far what is being left out goes.
#[derive(PartialEq)]
enum Example {
    None,
    Key,
    Section,
}

fn uncommented(text: &str, keep: Keep) -> String {
    let mut example = Example::None;
    let mut announced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let code = match line.strip_prefix('#') {
            Some(code) if !code.is_empty() && !code.starts_with(' ') => code,
            Some(prose) => {
                announced = prose.ends_with("Example:");
                continue;
            }
            None => line,
        };
        if code.is_empty() && example == Example::Key {
            example = Example::None;
        }
        if code.starts_with('[') && !code.starts_with("[\"") {
            example = Example::None;
        }
        if announced {
            let is_section = code.starts_with('[');
            example = if is_section {
                Example::Section
            } else {
                Example::Key
            };
        }
        announced = false;
        if keep == Keep::Everything || example == Example::None {
            lines.push(code);
        }
    }
    lines.join("\n")
}

#[test]
fn the_reference_shows_every_default() {
    let text = uncommented(&shipped("gatepost.toml"), Keep::OnlyDefaults);
    let document = Document::parse(&text).unwrap();
    let reading: Reading<Config> = reader::read(&document, BTreeSet::new());
    assert!(reading.faults.is_empty(), "{:?}", reading.faults);
    assert_eq!(reading.value.unwrap(), Config::default());
}

#[test]
fn the_reference_names_every_key_and_is_right() {
    let text = uncommented(&shipped("gatepost.toml"), Keep::Everything);
    let document = Document::parse(&text).unwrap();
    let reading: Reading<Config> = reader::read(&document, BTreeSet::new());
    let missing: Vec<KeyPath> = reading
        .sections
        .iter()
        .flat_map(|(path, keys)| keys.iter().map(|key| path.key(key)))
        .filter(|path| document.value(path).is_none())
        .collect();
    let missing: Vec<_> = missing.iter().map(KeyPath::to_string).collect();
    assert_eq!(missing, Vec::<String>::new(), "not in conf/gatepost.toml");
    let faults = Config::parse(&text).err().unwrap_or_default();
    assert_eq!(faults, []);
}

#[test]
fn every_key_of_the_reference_has_its_sentence() {
    let text = shipped("gatepost.toml");
    let mut above = "";
    for line in text.lines() {
        let is_key = line.starts_with('#') && !line.starts_with("# ") && line.contains(" = ");
        if is_key {
            assert!(
                above.starts_with("# "),
                "{line:?} stands without a sentence"
            );
        }
        above = line;
    }
}

#[test]
fn each_site_file_is_right() {
    for name in ["dovecot.toml", "postfix.toml"] {
        let faults = Config::parse(&shipped(name)).err().unwrap_or_default();
        assert_eq!(faults, [], "{name}");
    }
}

#[test]
fn each_example_of_the_pages_is_right() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut examples = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let page = entry.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let example = block.split("```").next().unwrap();
            let mut whole = example.to_owned();
            if !example.contains("hostname = ") {
                whole.insert_str(0, "hostname = \"mx.example.com\"\n");
            }
            if !example.contains("[domains.") {
                whole.push_str("\n[domains.\"example.com\"]\n");
            }
            let faults = Config::parse(&whole).err().unwrap_or_default();
            assert_eq!(faults, [], "{}: {example}", page.display());
            examples += 1;
        }
    }
    assert!(examples > 0);
}
