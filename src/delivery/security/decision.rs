//! What is asked of TLS with one server: a decision with its reason, in words for the log.

use std::fmt;
use std::sync::Arc;

use super::result::Failure;
use super::result::PolicyType;
use super::sts::Mode;
use crate::mail::address::Domain;
use crate::tls::dane::Association;

/// What a connection has to be before a message goes over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delivery) enum Level {
    /// Not encrypted.
    None,
    /// As it comes (RFC 7435).
    May,
    /// Encrypted, with whoever it is.
    Encrypt,
    /// Encrypted, with a host of this name that the system trusts.
    Verify,
    /// As `Verify`, but where that does not come off it is told, and the message goes as with `May`.
    Trial,
    /// Encrypted, with a host that its TLSA records know.
    Dane(Arc<Pins>),
}

/// What a server is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delivery) struct Pins {
    pub(in crate::delivery) associations: Vec<Association>,
    /// The TLSA base domain: asked for in the handshake.
    pub(in crate::delivery) base: Domain,
    /// Those that a certificate below an authority may be for; the base domain is among them.
    pub(in crate::delivery) names: Vec<Domain>,
}

/// Why it has to be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delivery) enum Basis {
    /// An operator wrote it.
    Configured,
    /// The destination has published nothing that binds us.
    NothingPublished,
    /// So many TLSA records of this name can be used.
    Dane { records: usize, at: Box<str> },
    /// There are TLSA records of this name, and none can be used.
    NoUsableTlsa { at: Box<str> },
    /// The domain's MTA-STS policy of this id names the host; or need not, where it is only testing.
    Sts { mode: Mode, id: Box<str> },
    /// The message does not want it safer.
    NotRequired,
    /// The message wants it, and the exchanger is proven.
    Required,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delivery) struct Security {
    pub(in crate::delivery) level: Level,
    pub(in crate::delivery) basis: Basis,
    /// What is against a policy that is only tested, so that it need not be kept.
    pub(in crate::delivery) against: Option<Refusal>,
    /// What was published, a line or a record each, for reports.
    pub(in crate::delivery) published: Arc<[String]>,
}

/// Why nothing may go to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delivery) struct Refusal {
    pub(in crate::delivery) policy_type: PolicyType,
    pub(in crate::delivery) failure: Failure,
    pub(in crate::delivery) text: String,
}

impl Security {
    pub(super) fn new(level: Level, basis: Basis) -> Security {
        Security {
            level,
            basis,
            against: None,
            published: Arc::default(),
        }
    }

    /// The same, for when a trial has failed.
    pub(in crate::delivery) fn without_trial(&self) -> Security {
        Security {
            level: Level::May,
            ..self.clone()
        }
    }

    pub(super) fn by(self, published: impl Iterator<Item = String>) -> Security {
        Security {
            published: published.collect(),
            ..self
        }
    }

    /// By whose word it is so.
    pub(in crate::delivery) fn policy_type(&self) -> PolicyType {
        match self.basis {
            Basis::Dane { .. } | Basis::NoUsableTlsa { .. } => PolicyType::Tlsa,
            Basis::Sts { .. } => PolicyType::Sts,
            Basis::Configured | Basis::NothingPublished | Basis::NotRequired | Basis::Required => {
                PolicyType::NoPolicyFound
            }
        }
    }
}

/// `dane: 2 TLSA records at _25._tcp.mx.example.com`
impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.level, self.basis)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::None => "none",
            Level::May => "may",
            Level::Encrypt => "encrypt",
            Level::Verify => "verify",
            Level::Trial => "trial",
            Level::Dane(_) => "dane",
        })
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Basis::Configured => f.write_str("configured"),
            Basis::NothingPublished => f.write_str("nothing published"),
            Basis::Dane { records: 1, at } => write!(f, "1 TLSA record at {at}"),
            Basis::Dane { records, at } => write!(f, "{records} TLSA records at {at}"),
            Basis::NoUsableTlsa { at } => write!(f, "no usable TLSA record at {at}"),
            Basis::Sts { mode, id } => write!(f, "MTA-STS {mode} {id}"),
            Basis::NotRequired => f.write_str("TLS-Required: No"),
            Basis::Required => f.write_str("REQUIRETLS"),
        }
    }
}
