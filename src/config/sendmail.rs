//! `[sendmail]`: mail from users of this machine, by the sendmail command.

use std::path::PathBuf;

use serde::Deserialize;

use crate::mail::address::Domain;
use crate::pipeline::submission::local;

/// All of `[sendmail]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sendmail {
    /// Where the socket and the drop directory are. Default: nowhere, and the command works not.
    pub directory: Option<PathBuf>,
    /// What is put behind a name without a domain. Default: the host name where it is one of our domains,
    /// else the first of these.
    pub domain: Option<Domain>,
    /// Accounts that may send as anybody.
    pub trusted_users: Vec<String>,
}

impl Default for Sendmail {
    fn default() -> Sendmail {
        Sendmail {
            directory: None,
            domain: None,
            trusted_users: vec!["root".to_owned()],
        }
    }
}

impl Sendmail {
    /// What is wrong with the values: key, and what would be right.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, right: &str| faults.push((key.to_owned(), right.to_owned()));
        if let Some(directory) = &self.directory {
            if !directory.is_absolute() {
                fault("directory", "give the full path, from the first / on");
            } else if directory.as_os_str().len() > LONGEST {
                fault(
                    "directory",
                    "must be short enough for a socket in it: 90 octets",
                );
            }
        }
        faults
    }

    /// What the pipeline is told.
    pub(super) fn accounts(&self, domain: &Domain, hostname: &Domain) -> local::Config {
        local::Config {
            trusted: self.trusted_users.clone(),
            domains: vec![domain.clone(), hostname.clone()],
        }
    }
}

/// The system has 108 octets for the path of a socket.
const LONGEST: usize = 90;
