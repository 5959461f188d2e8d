//! Whether a message is from whom its From field says: DMARC (RFC 9989).
//!
//! A message passes where SPF or a DKIM signature passed for a domain that is aligned with the
//! author's. The result is computed here from those facts, so that a temporary error that could have
//! made the difference is never taken for a fail, nor for a pass.

use futures_util::future::join_all;

use crate::dns::Dns;
use crate::dns::Error;
use crate::dns::Existence;
use crate::mail::address::Domain;
use crate::verify::DkimResult;
use crate::verify::Dmarc;
use crate::verify::DmarcPolicy;
use crate::verify::DmarcResult;
use crate::verify::Signature;
use crate::verify::Spf;
use crate::verify::SpfIdentity;
use crate::verify::SpfResult;
use crate::verify::dmarc::record::Alignment;
use crate::verify::dmarc::record::Policies;
use crate::verify::dmarc::record::Record;
use crate::verify::dmarc::walk::Place;
use crate::verify::dmarc::walk::Walk;
use crate::verify::names::is_related;
use crate::verify::names::is_within;

mod record;
mod walk;

/// The author's domain and what was found on the way up from it.
pub(super) struct Discovery {
    author: Domain,
    walk: Walk,
}

/// Finds the records that apply to each author. Those of `signers` and of who SPF speaks for are asked
/// for beside them, where they could matter for alignment, so that [`evaluate`] need not wait for them.
pub(super) async fn discover(
    dns: &Dns,
    authors: &[Domain],
    spf: &[Spf],
    signers: impl Iterator<Item = String>,
) -> Vec<Discovery> {
    let found = authors.iter().map(|author| async move {
        Discovery {
            author: author.clone(),
            walk: Walk::from(dns, author.as_str()).await,
        }
    });
    let speakers = of_sender(spf).map(|spf| spf.domain.clone());
    let near = speakers.into_iter().chain(signers).filter_map(|name| {
        let domain = Domain::parse(&name).ok()?;
        (is_related(&name, authors) && !authors.contains(&domain)).then_some(domain)
    });
    let near = near.map(|domain| async move { drop(Walk::from(dns, domain.as_str()).await) });
    tokio::join!(join_all(found), join_all(near)).0
}

/// Whether a record applies to mail from a domain.
pub(super) async fn applies(dns: &Dns, domain: &Domain) -> Result<bool, Error> {
    let walk = Walk::from(dns, domain.as_str()).await;
    match (walk.policy(), &walk.broken_off) {
        (Some((_, record, _)), _) => Ok(record.policies != Policies::DoNotApply),
        (None, None) => Ok(false),
        (None, Some(error)) => Err(error.clone()),
    }
}

/// The result for a message: with several authors, the strictest of theirs.
pub(super) async fn evaluate(
    dns: &Dns,
    discoveries: &[Discovery],
    spf: &[Spf],
    signatures: &[Signature],
) -> Dmarc {
    let identifiers = identifiers(spf, signatures);
    let mut strictest: Option<Dmarc> = None;
    for discovery in discoveries {
        let dmarc = evaluate_one(dns, discovery, &identifiers).await;
        if strictest
            .as_ref()
            .is_none_or(|so_far| strictness(&dmarc) > strictness(so_far))
        {
            strictest = Some(dmarc);
        }
    }
    strictest.unwrap_or_else(without_record)
}

/// No record applies, or there is nobody to apply one to.
pub(super) fn without_record() -> Dmarc {
    Dmarc {
        result: DmarcResult::None,
        policy: DmarcPolicy::None,
        policy_domain: None,
        spf_aligned: false,
        dkim_aligned: false,
    }
}

/// It cannot be known now whether a record applies, nor what it asks: perhaps the worst.
pub(super) fn unknown() -> Dmarc {
    Dmarc {
        result: DmarcResult::TempError,
        policy: DmarcPolicy::Reject,
        ..without_record()
    }
}

/// How much a result speaks against a message.
fn strictness(dmarc: &Dmarc) -> (u8, DmarcPolicy, u8) {
    match dmarc.result {
        DmarcResult::Pass => (0, DmarcPolicy::None, 0),
        DmarcResult::None => (1, DmarcPolicy::None, 0),
        DmarcResult::TempError => (2, dmarc.policy, 0),
        DmarcResult::Fail => (2, dmarc.policy, 1),
    }
}

/// A domain that SPF or DKIM speaks for, or may speak for once the DNS answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identifier<'a> {
    method: Method,
    standing: Standing,
    domain: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Spf,
    Dkim,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Authenticated,
    Unknown,
}

/// RFC 9989 §4.4.2: the MAIL FROM identity; HELO only where there is no sender (RFC 7208 §2.4).
fn of_sender(spf: &[Spf]) -> Option<&Spf> {
    let sender = spf.iter().find(|spf| spf.identity == SpfIdentity::MailFrom);
    sender.or(spf.first())
}

fn identifiers<'a>(spf: &'a [Spf], signatures: &'a [Signature]) -> Vec<Identifier<'a>> {
    let spf = of_sender(spf).and_then(|spf| {
        let standing = match spf.result {
            SpfResult::Pass => Standing::Authenticated,
            SpfResult::TempError => Standing::Unknown,
            SpfResult::None
            | SpfResult::Neutral
            | SpfResult::Fail
            | SpfResult::SoftFail
            | SpfResult::PermError => return None,
        };
        Some(Identifier {
            method: Method::Spf,
            standing,
            domain: &spf.domain,
        })
    });
    let dkim = signatures.iter().filter_map(|signature| {
        let standing = match signature.result {
            DkimResult::Pass if signature.counts => Standing::Authenticated,
            DkimResult::TempError => Standing::Unknown,
            DkimResult::Pass
            | DkimResult::Fail
            | DkimResult::Neutral
            | DkimResult::Policy
            | DkimResult::PermError => return None,
        };
        Some(Identifier {
            method: Method::Dkim,
            standing,
            domain: &signature.domain,
        })
    });
    spf.into_iter().chain(dkim).collect()
}

/// Which record applies cannot be known now; but a message that the author's very domain speaks for
/// passes each of them.
fn unless_certain(author: &Domain, identifiers: &[Identifier<'_>]) -> Dmarc {
    let speaks = |method| {
        identifiers.iter().any(|identifier| {
            identifier.method == method
                && identifier.standing == Standing::Authenticated
                && identifier.domain.eq_ignore_ascii_case(author.as_str())
        })
    };
    let (spf_aligned, dkim_aligned) = (speaks(Method::Spf), speaks(Method::Dkim));
    let policy = match spf_aligned || dkim_aligned {
        true => DmarcPolicy::None,
        false => DmarcPolicy::Reject,
    };
    Dmarc {
        policy,
        spf_aligned,
        dkim_aligned,
        ..unknown()
    }
}

async fn evaluate_one(dns: &Dns, discovery: &Discovery, identifiers: &[Identifier<'_>]) -> Dmarc {
    let walk = &discovery.walk;
    let (policy_domain, record, place) = match (walk.policy(), &walk.broken_off) {
        // The domain's own record applies, whatever is published above it.
        (Some(found @ (_, _, Place::Author)), _) | (Some(found), None) => found,
        (None, None) => return without_record(),
        (Some((_, _, Place::Above)) | None, Some(_)) => {
            return unless_certain(&discovery.author, identifiers);
        }
    };
    let mut dmarc = Dmarc {
        policy_domain: Domain::parse(policy_domain).ok(),
        ..without_record()
    };
    let Policies::Apply {
        domain,
        subdomains,
        nonexistent,
    } = record.policies
    else {
        return without_record();
    };
    let mut certain = walk.broken_off.is_none();
    for identifier in identifiers {
        match (
            aligns(dns, discovery, record, identifier).await,
            identifier.standing,
        ) {
            (Aligned::No, _) => {}
            (Aligned::Yes, Standing::Authenticated) => match identifier.method {
                Method::Spf => dmarc.spf_aligned = true,
                Method::Dkim => dmarc.dkim_aligned = true,
            },
            (Aligned::Yes, Standing::Unknown) | (Aligned::Unknown, _) => certain = false,
        }
    }
    let passes = dmarc.spf_aligned || dmarc.dkim_aligned;
    dmarc.policy = match place {
        Place::Author => domain,
        // Only a message that fails is worth the question whether its domain exists.
        Place::Above if passes || subdomains == nonexistent => subdomains,
        Place::Above => match dns.existence(&discovery.author).await {
            Ok(Existence::Exists) => subdomains,
            Ok(Existence::DoesNotExist) => nonexistent,
            Err(_) => {
                certain = false;
                subdomains.max(nonexistent)
            }
        },
    };
    dmarc.result = match (passes, certain) {
        (true, _) => DmarcResult::Pass,
        (false, true) => DmarcResult::Fail,
        (false, false) => DmarcResult::TempError,
    };
    dmarc
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aligned {
    Yes,
    No,
    Unknown,
}

/// RFC 9989 §4.10.2: the same domain, or when relaxed the same organisation.
async fn aligns(
    dns: &Dns,
    discovery: &Discovery,
    record: &Record,
    identifier: &Identifier<'_>,
) -> Aligned {
    // What is no domain aligns with nothing.
    let Ok(domain) = Domain::parse(identifier.domain) else {
        return Aligned::No;
    };
    if domain == discovery.author {
        return Aligned::Yes;
    }
    let alignment = match identifier.method {
        Method::Spf => record.spf,
        Method::Dkim => record.dkim,
    };
    let organization = discovery.walk.organization();
    // A domain's organisation is itself or above it: no need to ask about any other.
    if alignment == Alignment::Strict || !is_within(domain.as_str(), organization) {
        return Aligned::No;
    }
    let walk = Walk::from(dns, domain.as_str()).await;
    match (walk.organization() == organization, walk.broken_off) {
        (true, _) => Aligned::Yes,
        (false, None) => Aligned::No,
        (false, Some(_)) => Aligned::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dmarc(result: DmarcResult, policy: DmarcPolicy) -> Dmarc {
        Dmarc {
            result,
            policy,
            ..without_record()
        }
    }

    #[test]
    fn of_several_results_the_strictest_is_known() {
        let order = [
            dmarc(DmarcResult::Pass, DmarcPolicy::Reject),
            dmarc(DmarcResult::None, DmarcPolicy::None),
            dmarc(DmarcResult::TempError, DmarcPolicy::None),
            dmarc(DmarcResult::Fail, DmarcPolicy::None),
            dmarc(DmarcResult::Fail, DmarcPolicy::Quarantine),
            dmarc(DmarcResult::TempError, DmarcPolicy::Reject),
            dmarc(DmarcResult::Fail, DmarcPolicy::Reject),
        ];
        for pair in order.windows(2) {
            assert!(strictness(&pair[0]) < strictness(&pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn helo_speaks_only_for_mail_without_a_sender() {
        let spf = |identity, result, domain: &str| Spf {
            result,
            identity,
            domain: domain.to_owned(),
            explanation: None,
        };
        let helo = spf(SpfIdentity::Helo, SpfResult::Pass, "mx.example");
        let sender = spf(SpfIdentity::MailFrom, SpfResult::Fail, "a.example");
        assert_eq!(identifiers(&[helo.clone(), sender], &[]), []);
        assert_eq!(identifiers(&[helo], &[])[0].domain, "mx.example");
    }
}
