//! What is known about a certificate that we get for ourselves, beside the certificate: when it was
//! got, when it is to be tried again, what went wrong. Kept over restarts, so that a gateway that
//! crashes again and again does not run into the authority's limits.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use super::Error;
use super::renewal::Window;
use super::wanted::Wanted;
use super::wanted::folder;
use crate::tls::keep;

/// What is kept about one certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The authority that gives it.
    directory: String,
    /// The names that it is to be for.
    names: Vec<String>,
    /// When one was obtained for these names of this authority.
    pub obtained: Option<Timestamp>,
    /// When the authority is asked next.
    pub next: Timestamp,
    /// Attempts that have failed since the last one that did not.
    pub failures: u32,
    /// What the last attempt failed for; None where it did not.
    pub last_error: Option<String>,
    /// Until when the authority wants to be left alone.
    pub(super) busy_until: Option<Timestamp>,
    /// When the authority would like the certificate to be renewed (RFC 9773).
    pub(super) window: Option<Window>,
    /// When it is asked for that again.
    pub(super) ask_window: Option<Timestamp>,
}

impl State {
    /// Nothing was obtained yet, and nothing stands in the way.
    pub(super) fn fresh(wanted: &Wanted, now: Timestamp) -> State {
        State {
            directory: wanted.directory.clone(),
            names: wanted.names.clone(),
            obtained: None,
            next: now,
            failures: 0,
            last_error: None,
            busy_until: None,
            window: None,
            ask_window: None,
        }
    }

    /// What was kept; afresh where that is about other names or another authority, or the certificate
    /// has gone.
    pub(super) fn load(wanted: &Wanted, data_dir: &Path, now: Timestamp) -> Result<State, Error> {
        let Some(kept) = State::read(wanted, data_dir)? else {
            return Ok(State::fresh(wanted, now));
        };
        let is_there = wanted.files(data_dir).chain.exists();
        match kept.obtained {
            Some(_) if !is_there => Ok(State::fresh(wanted, now)),
            _ => Ok(kept),
        }
    }

    /// What is kept about a certificate, as far as it is about these names and this authority.
    pub fn read(wanted: &Wanted, data_dir: &Path) -> Result<Option<State>, Error> {
        let path = path(wanted, data_dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let kept: State = serde_json::from_slice(&text).map_err(|error| Error::Broken {
            path,
            reason: error.to_string(),
        })?;
        let is_same = kept.directory == wanted.directory && kept.names == wanted.names;
        Ok(is_same.then_some(kept))
    }

    pub(super) fn keep(&self, wanted: &Wanted, data_dir: &Path) -> Result<(), Error> {
        let path = path(wanted, data_dir);
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Broken {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        Ok(keep(&path, &text)?)
    }
}

fn path(wanted: &Wanted, data_dir: &Path) -> PathBuf {
    wanted.path(&folder(data_dir), "json")
}

/// Asks a running gateway to get a certificate anew, however young it is. It looks for the mark that this
/// leaves every few seconds.
pub fn ask_for_renewal(wanted: &Wanted, data_dir: &Path) -> io::Result<()> {
    fs::write(mark(wanted, data_dir), "")
}

/// Whether that was asked for, once.
pub(super) fn is_renewal_asked_for(wanted: &Wanted, data_dir: &Path) -> bool {
    fs::remove_file(mark(wanted, data_dir)).is_ok()
}

fn mark(wanted: &Wanted, data_dir: &Path) -> PathBuf {
    wanted.path(&folder(data_dir), "renew")
}
