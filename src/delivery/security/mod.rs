//! How safe the way to a server has to be, and why.
//!
//! What an operator has written counts alone. Where that is [`Tls::Published`], it is the destination
//! that decides by what it has published: DANE first (RFC 7672), then MTA-STS (RFC 8461), and where
//! there is neither, TLS is used where it is offered. A message may ask for more (REQUIRETLS) or for
//! less (`TLS-Required: No`, RFC 8689).
//!
//! `decide` is pure: facts come in. What cannot be found out is an error of whoever finds facts, and
//! puts the message off.

use std::sync::Arc;

use tokio_rustls::TlsConnector;

use super::hosts::Candidate;
use super::route::Tls;
use super::trouble::Trouble;
use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::smtp::client::response::Response;

pub mod result;

pub(super) mod dane;
mod decision;
pub(super) mod sts;
mod wish;

pub(super) use decision::Basis;
pub(super) use decision::Level;
pub(super) use decision::Pins;
pub(super) use decision::Refusal;
pub(super) use decision::Security;
pub(super) use wish::Wish;

use dane::Dane;
use result::Failure;
use result::PolicyType;
use sts::Kept;
use sts::Mode;
use sts::Policies;

/// How a host was found that a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// An operator named it.
    Named,
    /// An MX record did.
    Exchanger,
}

/// What facts are found out with.
pub(super) struct Means<'a> {
    pub(super) dns: &'a Dns,
    /// None where MTA-STS is not looked at.
    pub(super) policies: Option<&'a Policies>,
    /// For fetching policies; None where nobody's certificate can be verified.
    pub(super) tls: Option<&'a TlsConnector>,
}

/// What is asked of TLS with one server, found out and decided. `domain` is that of the recipients,
/// where its MX records led here. Cancel safe.
pub(super) async fn of(
    means: &Means<'_>,
    asked: Tls,
    wish: Wish,
    domain: Option<&Domain>,
    candidate: &Candidate,
) -> Result<Security, Trouble> {
    let dane = match &candidate.way {
        Some(way) if asks_for_more(asked, wish) => {
            let found = dane::look_up(means.dns, way, candidate.address.port()).await;
            found.map_err(|error| {
                let text = format!("cannot resolve the TLSA records of {}: {error}", way.host);
                let reason = Response::ours(451, (4, 4, 3), &text);
                Trouble::with_tls(reason, PolicyType::Tlsa, Failure::DnssecInvalid)
            })?
        }
        Some(_) | None => Dane::Unproven,
    };
    // RFC 8461 §2: DANE comes first.
    let counts = asks_for_more(asked, wish) && matches!(dane, Dane::Absent | Dane::Unproven);
    let sts = match (means.policies, domain) {
        (Some(policies), Some(domain)) if counts && asked != Tls::DaneOnly => {
            policies.of(means.dns, means.tls, domain).await
        }
        _ => None,
    };
    let origin = match domain {
        Some(_) => Origin::Exchanger,
        None => Origin::Named,
    };
    let sts = sts.as_deref();
    Ok(decide(asked, wish, origin, &dane, sts, &candidate.name)?)
}

/// Whether what is published counts.
fn asks_for_more(asked: Tls, wish: Wish) -> bool {
    match (asked, wish) {
        (Tls::DaneOnly, _) | (Tls::Published, Wish::Usual | Wish::Required) => true,
        // What an operator wants less safe is no reason to break a promise to the sender.
        (Tls::None | Tls::May | Tls::Encrypt | Tls::Verify, Wish::Required) => true,
        (Tls::None | Tls::May | Tls::Encrypt | Tls::Verify, Wish::Usual | Wish::NotRequired)
        | (Tls::Published, Wish::NotRequired) => false, // RFC 8689 §3
    }
}

/// What is asked of TLS with one host. `asked` is what an operator has written.
fn decide(
    asked: Tls,
    wish: Wish,
    origin: Origin,
    dane: &Dane,
    sts: Option<&Kept>,
    host: &str,
) -> Result<Security, Refusal> {
    if !asks_for_more(asked, wish) {
        let (level, basis) = match asked {
            Tls::None => (Level::None, Basis::Configured),
            Tls::Encrypt => (Level::Encrypt, Basis::Configured),
            Tls::Verify => (Level::Verify, Basis::Configured),
            Tls::May => (Level::May, Basis::Configured),
            Tls::Published | Tls::DaneOnly => (Level::May, Basis::NotRequired),
        };
        return Ok(Security::new(level, basis));
    }
    if asked == Tls::Verify {
        // That it is the right host has to be proven; what it shows then is as an operator wrote.
        decide(Tls::Published, wish, origin, dane, sts, host)?;
        return Ok(Security::new(Level::Verify, Basis::Configured));
    }
    let sts = sts.filter(|kept| kept.policy.mode != Mode::None);
    match dane {
        Dane::Pinned { pins, at } => {
            let (records, at) = (pins.associations.len(), at.clone());
            let basis = Basis::Dane { records, at };
            let security = Security::new(Level::Dane(Arc::clone(pins)), basis);
            Ok(security.by(pins.associations.iter().map(ToString::to_string)))
        }
        Dane::Unusable { at } if asked == Tls::DaneOnly || wish == Wish::Required => Err(Refusal {
            policy_type: PolicyType::Tlsa,
            failure: Failure::TlsaInvalid,
            text: format!("none of the TLSA records at {at} can be used"),
        }),
        // RFC 7672 §2.2: encrypted all the same.
        Dane::Unusable { at } => {
            let basis = Basis::NoUsableTlsa { at: at.clone() };
            Ok(Security::new(Level::Encrypt, basis))
        }
        Dane::Absent | Dane::Unproven if asked == Tls::DaneOnly => Err(Refusal {
            policy_type: PolicyType::Tlsa,
            failure: Failure::DaneRequired,
            text: "it has no TLSA records that are proven, and tls is \"dane-only\"".to_owned(),
        }),
        Dane::Absent | Dane::Unproven if let Some(kept) = sts => by_policy(wish, kept, host),
        // RFC 8689 §4.2.1: its name has to be proven, or it could be anybody's with a certificate.
        Dane::Absent if wish == Wish::Required => Ok(Security::new(Level::Verify, Basis::Required)),
        Dane::Unproven if wish == Wish::Required && origin == Origin::Named => {
            Ok(Security::new(Level::Verify, Basis::Required))
        }
        Dane::Unproven if wish == Wish::Required => Err(Refusal {
            policy_type: PolicyType::NoPolicyFound,
            failure: Failure::Validation,
            text: "nothing proves that it is an exchanger of the domain".to_owned(),
        }),
        Dane::Absent | Dane::Unproven => Ok(Security::new(Level::May, Basis::NothingPublished)),
    }
}

/// What a policy of MTA-STS comes to for one host (RFC 8461 §4, §5).
fn by_policy(wish: Wish, kept: &Kept, host: &str) -> Result<Security, Refusal> {
    let Kept { id, policy, .. } = kept;
    let refusal = (!policy.names(host)).then(|| Refusal {
        policy_type: PolicyType::Sts,
        failure: Failure::Validation,
        text: format!("it is not among the hosts of the domain's MTA-STS policy {id}"),
    });
    let is_tested = policy.mode == Mode::Testing && wish != Wish::Required;
    let (level, against) = match refusal {
        Some(refusal) if is_tested => (Level::May, Some(refusal)),
        Some(refusal) => return Err(refusal),
        None if is_tested => (Level::Trial, None),
        None => (Level::Verify, None),
    };
    let (mode, id) = (policy.mode, id.clone());
    let security = Security::new(level, Basis::Sts { mode, id });
    let security = security.by(policy.text.lines().map(str::to_owned));
    Ok(Security {
        against,
        ..security
    })
}

#[cfg(test)]
mod tests;
