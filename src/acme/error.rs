//! Why there is no certificate.

use std::io;
use std::path::PathBuf;

use instant_acme::Problem;

use super::answers;
use super::config::Challenge;
use crate::telemetry::events;
use crate::tls;

/// A certificate was not obtained, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Keys, certificates or the roots that we trust.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// What the authority was to see could not be shown.
    #[error(transparent)]
    Show(#[from] answers::Error),
    /// A file of ours cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// A file of ours is not as we wrote it.
    #[error("{} cannot be used: {reason}", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The authority says no. Its words (RFC 8555 §6.7).
    #[error("the authority says: {reason}")]
    Refused {
        /// The last part of the problem's type, such as `rateLimited`.
        kind: String,
        /// All that it says.
        reason: String,
    },
    /// The authority has looked, and does not believe that a name is ours.
    #[error("the authority does not believe that {name} is ours: {reason}")]
    Unproven {
        /// The name.
        name: String,
        /// What it says.
        reason: String,
    },
    /// The authority offers no such challenge for a name.
    #[error("the authority offers no {challenge} for {name}; use another challenge")]
    NoChallenge {
        /// The name.
        name: String,
        /// What we would have shown.
        challenge: Challenge,
    },
    /// The authority does not say why.
    #[error("the authority has given the order up, and does not say why")]
    NotReady,
    /// The certificate is not what was ordered.
    #[error("the authority's certificate lacks the name {name}")]
    OtherNames {
        /// One that is missing.
        name: String,
    },
    /// It took too long.
    #[error("the authority did not finish in time")]
    Late,
    /// The authority could not be reached, or does not keep to the protocol.
    #[error("{0}")]
    Protocol(String),
}

impl Error {
    /// Whether it means that the authority does not take our account any more: it was deactivated or
    /// revoked, or the authority has forgotten it (RFC 8555 §7.3.6, §6.7).
    pub(super) fn is_about_the_account(&self) -> bool {
        match self {
            Error::Refused { kind, .. } => kind == "accountDoesNotExist" || kind == "unauthorized",
            _ => false,
        }
    }
}

impl From<instant_acme::Error> for Error {
    fn from(error: instant_acme::Error) -> Error {
        match error {
            instant_acme::Error::Api(problem) => Error::Refused {
                kind: kind(&problem).to_owned(),
                reason: words(&problem),
            },
            instant_acme::Error::Timeout(_) => Error::Late,
            other => Error::Protocol(cleaned(&events::in_full(&other))),
        }
    }
}

fn kind(problem: &Problem) -> &str {
    let whole = problem.r#type.as_deref().unwrap_or_default();
    whole.rsplit(':').next().unwrap_or(whole)
}

/// What a problem document says, for people.
pub(super) fn words(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_default();
    for part in problem.subproblems.iter().take(4) {
        text.push_str(&format!("; {part}"));
    }
    cleaned(&format!("{text} ({})", kind(problem)))
}

/// The longest text of somebody else's that is kept.
const LONGEST: usize = 500;

/// Somebody else's text, in one line and short.
fn cleaned(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_in_its_own_words_but_short_and_clean() {
        let text = r#"{"type":"urn:ietf:params:acme:error:unauthorized","detail":"no\n\u001bway"}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(words(&problem), "no  way (unauthorized)");
        let error = Error::from(instant_acme::Error::Api(problem));
        assert!(error.is_about_the_account());
        assert_eq!(cleaned(&"x".repeat(9000)).len(), LONGEST);
    }
}
