//! A file of recipients: one address or local part a line, `#` begins a comment.
//!
//! A changed file is taken within seconds. One that cannot be read or has a wrong line is reported
//! and leaves the recipients as they were.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use super::Error;
use super::Probe;
use super::is_route;
use crate::mail::address;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::telemetry::events;

/// How often the file is looked at. A look is one stat(2).
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The recipients of one domain.
pub(super) struct List {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    recipients: HashSet<Box<str>>,
    version: Option<(SystemTime, u64)>,
    looked: Instant,
}

impl List {
    /// Reads the file.
    pub(super) fn open(path: PathBuf, domain: &Domain) -> Result<List, Error> {
        let state = State {
            recipients: read(&path, domain)?,
            version: version(&path),
            looked: Instant::now(),
        };
        Ok(List {
            path,
            state: Mutex::new(state),
        })
    }

    /// Whether `local` is a recipient of `domain`, with or without what follows the delimiter.
    pub(super) fn find(&self, local: &str, domain: &Domain, delimiter: Option<char>) -> Probe {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() > LOOK_EVERY {
            self.look(&mut state, domain);
        }
        let local = local.to_lowercase();
        let base = delimiter
            .and_then(|d| local.split_once(d))
            .map(|(base, _)| base);
        let known = |name: &str| state.recipients.contains(name);
        let matches_a_rule = || base.is_some_and(known) || known("");
        if known(&local) || !is_route(&local) && matches_a_rule() {
            Probe::Exists
        } else {
            Probe::Unknown
        }
    }

    fn look(&self, state: &mut State, domain: &Domain) {
        state.looked = Instant::now();
        let found = version(&self.path);
        if found == state.version {
            return;
        }
        state.version = found;
        match read(&self.path, domain) {
            Ok(recipients) => state.recipients = recipients,
            Err(error) => events::recipients_broken(&self.path, &error),
        }
    }
}

fn version(path: &PathBuf) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The local parts in lower case; an empty one stands for the whole domain.
fn read(path: &PathBuf, domain: &Domain) -> Result<HashSet<Box<str>>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.clone(),
        source,
    })?;
    parse(&text, domain).map_err(|wrong| Error::Line {
        path: path.clone(),
        line: wrong.number,
        text: wrong.text,
        reason: wrong.reason,
    })
}

/// A line that names nobody.
#[derive(Debug)]
struct Wrong {
    /// From 1.
    number: usize,
    text: String,
    reason: address::Error,
}

fn parse(text: &str, domain: &Domain) -> Result<HashSet<Box<str>>, Wrong> {
    let mut recipients = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if line
            .strip_prefix('@')
            .is_some_and(|name| name.eq_ignore_ascii_case(domain.as_str()))
        {
            recipients.insert("".into());
            continue;
        }
        let address = if line.contains('@') {
            Address::parse(line)
        } else {
            Address::parse(&format!("{line}@{domain}"))
        };
        let address = address.map_err(|reason| Wrong {
            number: number + 1,
            text: line.to_owned(),
            reason,
        })?;
        // One file may serve several domains; each takes its own.
        if address.domain() == Some(domain) {
            recipients.insert(address.local().to_lowercase().into());
        }
    }
    Ok(recipients)
}

#[cfg(test)]
#[path = "../../tests/fuzz/recipients.rs"]
mod fuzz;
