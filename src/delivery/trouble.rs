//! Why a message does not go to one server, what that means for it, and who hears of it.

use super::connect::Connected;
use super::outcome::Fate;
use super::outcome::Outcome;
use super::outcome::Peer;
use super::security::Level;
use super::security::Refusal;
use super::security::Security;
use super::security::Wish;
use super::security::result::Failure;
use super::security::result::PolicyType;
use super::security::result::TlsResult;
use super::target::Target;
use crate::mail::address::Host;
use crate::smtp::client::response::Response;
use crate::smtp::client::response::Speaker;

/// What there is to tell of TLS with one server.
pub(super) enum Told {
    /// It had no part in what happened.
    Nothing,
    CameOff,
    Failed(PolicyType, Failure, String),
}

/// What came of TLS with a mail exchanger is counted, and logged where it is against a policy.
/// `security` is None where nothing could be decided.
pub(super) fn tell(target: &Target, peer: &Peer, security: Option<&Security>, told: Told) {
    let Some(domain) = target.host().and_then(Host::domain) else {
        return;
    };
    let (policy_type, failure, reason) = match told {
        Told::Nothing => return,
        Told::CameOff => (PolicyType::NoPolicyFound, None, String::new()),
        Told::Failed(policy_type, failure, reason) => (policy_type, Some(failure), reason),
    };
    let published = security.map(|security| security.published.to_vec());
    let result = TlsResult {
        policy_type: security.map_or(policy_type, Security::policy_type),
        policy: published.unwrap_or_default(),
        policy_domain: domain.to_string(),
        mx_host: peer.name.to_string(),
        sending_ip: peer.source,
        receiving_ip: peer.address.map(|address| address.ip()),
        failure,
        reason,
    };
    result.tell();
}

impl Connected {
    /// What there is to tell where mail can go.
    pub(super) fn told(&self, level: &Level) -> Told {
        let failed = |failure| Told::Failed(PolicyType::NoPolicyFound, failure, String::new());
        match (level, self.is_secure, self.offered.starttls) {
            (Level::None, _, _) => Told::Nothing,
            (_, true, _) => Told::CameOff,
            (_, false, true) => failed(Failure::Validation),
            (_, false, false) => failed(Failure::StarttlsNotSupported),
        }
    }
}

/// Why a message does not go to one server.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: Response,
    /// What is wrong with TLS, where it is that, and whose word was not kept, where that is known here.
    pub(super) failure: Option<Failure>,
    pub(super) policy_type: PolicyType,
    /// The server cannot keep what was promised to the sender.
    breaks_promise: bool,
}

impl Trouble {
    pub(super) fn with_tls(reason: Response, policy_type: PolicyType, failure: Failure) -> Trouble {
        Trouble {
            reason,
            failure: Some(failure),
            policy_type,
            breaks_promise: failure != Failure::DnssecInvalid,
        }
    }

    /// It may be another time, so that it breaks no promise yet.
    pub(super) fn for_now(self) -> Trouble {
        Trouble {
            breaks_promise: false,
            ..self
        }
    }

    pub(super) fn not_offered() -> Trouble {
        let text = "the server offers no TLS, and nothing goes there without";
        let reason = Response::ours(451, (4, 7, 4), text);
        let policy_type = PolicyType::NoPolicyFound;
        Trouble::with_tls(reason, policy_type, Failure::StarttlsNotSupported)
    }

    /// The same, with what was decided, so that whoever reads it knows why it matters.
    pub(super) fn under(mut self, security: &Security) -> Trouble {
        self.policy_type = security.policy_type();
        if self.failure.is_some() && self.reason.speaker == Speaker::Us {
            let enhanced = self.reason.enhanced.unwrap_or((4, 7, 5));
            let text = format!(
                "{} ({security})",
                self.reason.lines().collect::<Vec<_>>().join(" ")
            );
            self.reason = Response::ours(self.reason.code, enhanced, &text);
        }
        self
    }

    /// RFC 8689 §4.2.1
    pub(super) fn no_requiretls() -> Trouble {
        let text = "the server does not offer REQUIRETLS, which the sender asks for";
        Trouble {
            reason: Response::ours(550, (5, 7, 30), text),
            failure: None,
            policy_type: PolicyType::NoPolicyFound,
            breaks_promise: true,
        }
    }

    /// What there is to tell of it.
    pub(super) fn told(&self) -> Told {
        match self.failure {
            Some(failure) => Told::Failed(self.policy_type, failure, self.reason.to_string()),
            None => Told::Nothing,
        }
    }

    /// What it comes to for a message with this wish, if no other server takes it.
    pub(super) fn outcome(self, wish: Wish) -> Outcome {
        if wish != Wish::Required || !self.breaks_promise {
            return Outcome::unreachable(self.reason);
        }
        let reply = match self.reason.enhanced {
            Some((5, 7, 30)) => self.reason,
            _ => {
                let text = format!("the sender requires TLS: {}", self.reason);
                Response::ours(550, (5, 7, 10), &text)
            }
        };
        Outcome {
            fate: Fate::Failed,
            reply,
            peer: None,
        }
    }
}

impl From<Response> for Trouble {
    fn from(reason: Response) -> Trouble {
        Trouble {
            reason,
            failure: None,
            policy_type: PolicyType::NoPolicyFound,
            breaks_promise: false,
        }
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        let reason = Response::ours(451, (4, 7, 5), &refusal.text);
        Trouble::with_tls(reason, refusal.policy_type, refusal.failure)
    }
}
