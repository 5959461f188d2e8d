//! `[submission]`: mail from our users, who log in.

use std::time::Duration;

use serde::Deserialize;

use crate::directory::users;
use crate::directory::users::Mechanism;
use crate::directory::users::Source;
use crate::pipeline::submission;
use crate::session::bans;

/// All of `[submission]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Submission {
    /// Where users are known. Default: nowhere, so that nobody can log in and no port is open for it.
    pub users: Option<Source>,
    /// By what they may log in, as far as their passwords are kept in a form that allows it.
    pub mechanisms: Vec<Mechanism>,
    /// How long a password that was right is taken for right without hashing it again.
    #[serde(with = "humantime_serde")]
    pub remember: Duration,
    /// How long a client may wait for whoever verifies its password.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// What becomes of those who fail.
    pub logins: bans::Config,
    /// Who may send as whom.
    pub senders: submission::senders::Config,
    /// How much one user may send.
    pub limits: submission::limits::Config,
    /// What is added to mail of ours, and what it tells of the client.
    pub repair: submission::repair::Config,
}

impl Default for Submission {
    fn default() -> Submission {
        Submission {
            users: None,
            mechanisms: Mechanism::ALL.to_vec(),
            remember: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            logins: bans::Config::default(),
            senders: submission::senders::Config::default(),
            limits: submission::limits::Config::default(),
            repair: submission::repair::Config::default(),
        }
    }
}

impl Submission {
    /// What is wrong with the values: key, and what would be right.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, right: &str| faults.push((key.to_owned(), right.to_owned()));
        if self.timeout.is_zero() {
            fault(
                "timeout",
                "nobody answers in no time; write a duration, as in \"30s\"",
            );
        }
        if self.mechanisms.is_empty() {
            fault(
                "mechanisms",
                "nobody could log in; name one at least, such as \"PLAIN\"",
            );
        }
        let logins = self.logins.faults().into_iter();
        faults.extend(logins.map(|(key, right)| (format!("logins.{key}"), right)));
        faults
    }

    /// How users are looked up; None where nobody can log in.
    pub fn lookup(&self) -> Option<users::Config> {
        Some(users::Config {
            source: self.users.clone()?,
            remember: self.remember,
            timeout: self.timeout,
        })
    }

    /// What the pipeline is told.
    pub(super) fn stages(&self, local: submission::local::Config) -> submission::Config {
        submission::Config {
            local,
            senders: self.senders.clone(),
            limits: self.limits.clone(),
            repair: self.repair.clone(),
        }
    }
}
