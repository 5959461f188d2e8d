//! Did its author send it? DMARC enforced at DATA (RFC 9989), and the From field that it hangs on.
//!
//! Takes evidence, gives a verdict; asks nobody. What config overrides stays visible: the verdict
//! carries a note that goes into the result header.

use ipnet::IpNet;
use serde::Deserialize;

use super::Action;
use super::Case;
use super::Client;
use super::Mode;
use super::loopback;
use crate::mail::address::Domain;
use crate::smtp::reply::Refusal;
use crate::verify::ArcResult;
use crate::verify::Author;
use crate::verify::DkimResult;
use crate::verify::DmarcPolicy;
use crate::verify::DmarcResult;
use crate::verify::Evidence;
use crate::verify::SpfIdentity;
use crate::verify::SpfResult;

/// `[dmarc]`: what each result does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// enforce, observe or off.
    pub mode: Mode,
    /// A fail where the domain asks for rejection.
    pub reject: Action,
    /// A fail where the domain asks for quarantine.
    pub quarantine: Action,
    /// The DNS does not answer and the answer could mean rejection.
    pub temperror: Action,
    /// No From field: the message has no author.
    pub missing_from: Action,
    /// More than one From field.
    pub several_from: Action,
    /// One From field with addresses in several domains. Accepted ones are held to each of them.
    pub several_domains: Action,
    /// A From field in which no address with a domain can be found for certain.
    pub broken_from: Action,
    /// Networks whose mail is not refused for DMARC.
    pub exempt: Vec<IpNet>,
    /// Domains whose ARC seals are believed: a forward that they sealed is not refused.
    pub trusted_forwarders: Vec<Domain>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mode: Mode::Enforce,
            reject: Action::Reject,
            quarantine: Action::Mark,
            temperror: Action::Defer,
            missing_from: Action::Reject,
            several_from: Action::Reject,
            several_domains: Action::Reject,
            broken_from: Action::Reject,
            exempt: loopback(),
            trusted_forwarders: Vec::new(),
        }
    }
}

/// What is to become of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What to say, where it is refused.
    pub refusal: Option<Refusal>,
    /// Why it is held, where it is.
    pub hold: Option<String>,
    /// The word for the mark field.
    pub mark: Option<&'static str>,
    /// Why a DMARC fail was not acted on, as the value of `policy.dmarc` in the result header.
    pub override_reason: Option<&'static str>,
}

/// Weighs the evidence.
pub(super) fn judge(config: &Config, client: &Client, evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    if config.mode == Mode::Off {
        return verdict;
    }
    let exempt = client.is_in(&config.exempt);
    if let Some((action, what)) = author_fault(config, &evidence.author)
        && !exempt
    {
        verdict.act(action, "from-invalid", what, || Refusal::bad_author(what));
        if verdict.refusal.is_some() {
            return verdict;
        }
    }
    let domain = dmarc_domain(evidence);
    let (action, mark, refusal) = match (evidence.dmarc.result, evidence.dmarc.policy) {
        (DmarcResult::Fail, DmarcPolicy::Reject) => (
            config.reject,
            "dmarc-reject",
            Refusal::dmarc_reject(&domain),
        ),
        (DmarcResult::Fail, DmarcPolicy::Quarantine) => (
            config.quarantine,
            "dmarc-quarantine",
            Refusal::dmarc_reject(&domain),
        ),
        // Where the answer could not have led to a refusal, nothing is lost without it.
        (DmarcResult::TempError, policy) if refuses(config, policy) => (
            config.temperror,
            "dmarc-temperror",
            Refusal::dmarc_unsure(&domain),
        ),
        (DmarcResult::None | DmarcResult::Pass | DmarcResult::Fail | DmarcResult::TempError, _) => {
            return verdict;
        }
    };
    if exempt {
        verdict.override_reason = Some("exempt-network");
        return verdict;
    }
    match (evidence.arc.result, is_sealed_by_trusted(config, evidence)) {
        (ArcResult::Pass, true) => verdict.override_reason = Some("trusted-forwarder"),
        // The chain could save the message, once its keys are to be had.
        (ArcResult::TempError, true) if action != Action::Accept => {
            let unsure = Refusal::dmarc_unsure(&domain);
            verdict.act(config.temperror, "dmarc-temperror", mark, || unsure.clone());
        }
        (ArcResult::None | ArcResult::Pass | ArcResult::Fail | ArcResult::TempError, _) => {
            verdict.act(action, mark, mark, || refusal.clone());
        }
    }
    verdict
}

/// Whether a bounce would likely reach somebody who never sent the message. In doubt it is: a bounce
/// that is missing harms one sender, and one too many an innocent.
///
/// A sender is genuine where its own domain speaks for it, by SPF or by a signature; a list or a
/// forwarder is its own sender, whatever DMARC says of the author. Where the domain says no, it is
/// forged, and where the domain says nothing, it is so with the author.
pub(super) fn is_forged(case: &Case, evidence: &Evidence, verdict: &Verdict) -> bool {
    let Some(sender) = case.from.address() else {
        return false; // There is nobody to bounce to.
    };
    let mut spf = case.spf().iter();
    let spf = spf.find(|spf| spf.identity == SpfIdentity::MailFrom);
    let signed = sender.domain().is_some_and(|domain| {
        let mut signatures = evidence.dkim.iter();
        signatures.any(|signature| {
            signature.result == DkimResult::Pass
                && signature.counts
                && is_within(domain, &signature.domain)
        })
    });
    match spf.map(|spf| spf.result) {
        Some(SpfResult::Pass) => false,
        _ if signed => false,
        Some(SpfResult::Fail | SpfResult::SoftFail) => true,
        Some(
            SpfResult::Neutral | SpfResult::None | SpfResult::TempError | SpfResult::PermError,
        )
        | None => evidence.dmarc.result == DmarcResult::Fail && verdict.override_reason.is_none(),
    }
}

/// Whether a domain is the signer's, or below it.
fn is_within(domain: &Domain, signer: &str) -> bool {
    let signer = signer.to_ascii_lowercase();
    let above = domain.as_str().strip_suffix(signer.as_str());
    above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// Whether a fail under this policy would be kept from its recipients.
fn refuses(config: &Config, policy: DmarcPolicy) -> bool {
    match policy {
        DmarcPolicy::Reject => true,
        DmarcPolicy::Quarantine => matches!(
            config.quarantine,
            Action::Reject | Action::Defer | Action::Hold
        ),
        DmarcPolicy::None => false,
    }
}

impl Verdict {
    /// Takes back what would touch the message; gives why it would have been held.
    pub(super) fn observe(&mut self) -> Option<String> {
        self.mark = None;
        self.hold.take()
    }

    fn act(
        &mut self,
        action: Action,
        mark: &'static str,
        why: &str,
        refusal: impl Fn() -> Refusal,
    ) {
        match action {
            Action::Reject => self.refusal = Some(refusal()),
            Action::Defer => self.refusal = Some(refusal().deferred()),
            Action::Hold => self.hold = Some(why.to_owned()),
            Action::Mark => self.mark = Some(mark),
            Action::Accept => {}
        }
    }
}

fn author_fault(config: &Config, author: &Author) -> Option<(Action, &'static str)> {
    match author {
        Author::Domain(_) => None,
        Author::Missing => Some((config.missing_from, "has no From field")),
        Author::Fields(_) => Some((config.several_from, "has several From fields")),
        Author::Domains(_) => Some((
            config.several_domains,
            "has a From field with several domains",
        )),
        Author::Broken => Some((
            config.broken_from,
            "has a From field without a valid address",
        )),
    }
}

/// RFC 8617 §7.2: a chain that holds is worth as much as who sealed it; each must be trusted.
fn is_sealed_by_trusted(config: &Config, evidence: &Evidence) -> bool {
    let sealers = &evidence.arc.sealers;
    let is_trusted = |sealer: &String| {
        config
            .trusted_forwarders
            .iter()
            .any(|domain| domain.as_str().eq_ignore_ascii_case(sealer))
    };
    !sealers.is_empty() && sealers.iter().all(is_trusted)
}

/// The domain to name in a reply: the author's, which is what a sender knows.
fn dmarc_domain(evidence: &Evidence) -> String {
    match &evidence.author {
        Author::Domain(domain) => domain.to_string(),
        Author::Domains(domains) => {
            let names: Vec<_> = domains.iter().map(Domain::as_str).collect();
            names.join(", ")
        }
        Author::Missing | Author::Fields(_) | Author::Broken => evidence
            .dmarc
            .policy_domain
            .as_ref()
            .map_or_else(String::new, Domain::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Service;
    use crate::smtp::command::Hello;
    use crate::smtp::server::Verb;
    use crate::verify::Arc;
    use crate::verify::Dmarc;

    fn client(address: &str) -> Client {
        Client {
            address: address.parse().unwrap(),
            service: Service::Mx,
            login: None,
            verb: Verb::Ehlo,
            hello: Hello {
                text: "c.example".to_owned(),
                host: None,
            },
            tls: None,
            certificate: None,
        }
    }

    fn evidence(author: Author, result: DmarcResult, policy: DmarcPolicy) -> Evidence {
        Evidence {
            author,
            dkim: Vec::new(),
            arc: Arc {
                result: ArcResult::None,
                sealers: Vec::new(),
            },
            dmarc: Dmarc {
                result,
                policy,
                policy_domain: Some(Domain::parse("a.example").unwrap()),
                spf_aligned: false,
                dkim_aligned: false,
            },
        }
    }

    fn from(name: &str) -> Author {
        Author::Domain(Domain::parse(name).unwrap())
    }

    #[test]
    fn each_result_leads_to_what_config_says() {
        let config = Config::default();
        for (result, policy, code, mark) in [
            (DmarcResult::Pass, DmarcPolicy::Reject, None, None),
            (DmarcResult::None, DmarcPolicy::None, None, None),
            (DmarcResult::Fail, DmarcPolicy::None, None, None),
            (
                DmarcResult::Fail,
                DmarcPolicy::Quarantine,
                None,
                Some("dmarc-quarantine"),
            ),
            (DmarcResult::Fail, DmarcPolicy::Reject, Some(550), None),
            (DmarcResult::TempError, DmarcPolicy::Reject, Some(451), None),
            (DmarcResult::TempError, DmarcPolicy::Quarantine, None, None),
        ] {
            let evidence = evidence(from("a.example"), result, policy);
            let verdict = judge(&config, &client("192.0.2.1"), &evidence);
            let got = verdict.refusal.map(|refusal| refusal.reply().code);
            assert_eq!((got, verdict.mark), (code, mark), "{result:?} {policy:?}");
        }
    }

    #[test]
    fn trouble_matters_where_a_fail_would_have_been_refused() {
        use DmarcPolicy::Quarantine;
        use DmarcPolicy::Reject;
        let strict = Config {
            quarantine: Action::Reject,
            ..Config::default()
        };
        for (config, policy, want) in [
            (Config::default(), Reject, true),
            (Config::default(), Quarantine, false),
            (strict.clone(), Quarantine, true),
            (strict, DmarcPolicy::None, false),
        ] {
            let evidence = evidence(from("a.example"), DmarcResult::TempError, policy);
            let verdict = judge(&config, &client("192.0.2.1"), &evidence);
            let unsure = Some(Refusal::dmarc_unsure("a.example"));
            assert_eq!(verdict.refusal, unsure.filter(|_| want), "{policy:?}");
        }
    }

    #[test]
    fn a_message_without_one_author_is_refused() {
        let names = ["a.example", "b.example"].map(|name| Domain::parse(name).unwrap());
        for author in [
            Author::Missing,
            Author::Fields(2),
            Author::Domains(names.to_vec()),
            Author::Broken,
        ] {
            let evidence = evidence(author.clone(), DmarcResult::None, DmarcPolicy::None);
            let verdict = judge(&Config::default(), &client("192.0.2.1"), &evidence);
            let code = verdict.refusal.map(|refusal| refusal.reply().code);
            assert_eq!(code, Some(550), "{author:?}");
            let verdict = judge(&Config::default(), &client("127.0.0.1"), &evidence);
            assert_eq!(verdict.refusal, None, "{author:?} from an exempt network");
        }
    }

    #[test]
    fn an_observed_verdict_touches_nothing() {
        let config = Config {
            quarantine: Action::Hold,
            ..Config::default()
        };
        let failed = evidence(
            from("a.example"),
            DmarcResult::Fail,
            DmarcPolicy::Quarantine,
        );
        let mut verdict = judge(&config, &client("192.0.2.1"), &failed);
        assert_eq!(verdict.observe().as_deref(), Some("dmarc-quarantine"));
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn a_sender_is_forged_where_nothing_speaks_for_it() {
        use crate::mail::address::ReversePath;
        use crate::pipeline::spf::Finding;
        use crate::verify::Signature;
        use crate::verify::Spf;
        let case = |from: &str, spf: Option<SpfResult>| {
            let from = ReversePath::parse(from).unwrap();
            let mut case = Case::new("01JDQ4T9X2K.1".parse().unwrap(), from);
            let result = |identity, result| Spf {
                result,
                identity,
                domain: "s.example".to_owned(),
                explanation: None,
            };
            case.spf = Some(Finding {
                results: spf.map_or(Vec::new(), |spf| {
                    let helo = result(SpfIdentity::Helo, SpfResult::Pass);
                    vec![helo, result(SpfIdentity::MailFrom, spf)]
                }),
                exempt: spf.is_none(),
                refusal: None,
                mark: None,
            });
            case
        };
        let signature = |domain: &str| Signature {
            result: DkimResult::Pass,
            domain: domain.to_owned(),
            selector: "s".to_owned(),
            identity: None,
            algorithm: "rsa-sha256",
            b: String::new(),
            reason: None,
            counts: true,
        };
        let (fail, none) = (DmarcResult::Fail, DmarcResult::None);
        for (sender, spf, signer, dmarc, want) in [
            ("<b@s.example>", Some(SpfResult::Pass), None, fail, false),
            ("<b@s.example>", Some(SpfResult::Fail), None, none, true),
            ("<b@s.example>", Some(SpfResult::SoftFail), None, none, true),
            (
                "<b@s.example>",
                Some(SpfResult::SoftFail),
                Some("S.example"),
                none,
                false,
            ),
            (
                "<b@x.s.example>",
                Some(SpfResult::Fail),
                Some("s.example"),
                none,
                false,
            ),
            (
                "<b@xs.example>",
                Some(SpfResult::Fail),
                Some("s.example"),
                none,
                true,
            ),
            (
                "<b@s.example>",
                Some(SpfResult::Fail),
                Some("x.s.example"),
                none,
                true,
            ),
            (
                "<b@s.example>",
                Some(SpfResult::Fail),
                Some("a.example"),
                none,
                true,
            ),
            ("<b@s.example>", Some(SpfResult::None), None, fail, true),
            (
                "<b@s.example>",
                Some(SpfResult::None),
                Some("s.example"),
                fail,
                false,
            ),
            (
                "<b@s.example>",
                Some(SpfResult::PermError),
                None,
                none,
                false,
            ),
            ("<b@s.example>", Some(SpfResult::Neutral), None, fail, true),
            ("<b@s.example>", None, None, fail, true),
            ("<b@s.example>", None, None, none, false),
            (
                "<b@[192.0.2.1]>",
                Some(SpfResult::None),
                Some("s.example"),
                fail,
                true,
            ),
            ("<>", Some(SpfResult::Fail), None, fail, false),
        ] {
            let mut evidence = evidence(from("a.example"), dmarc, DmarcPolicy::None);
            evidence.dkim = signer.map(signature).into_iter().collect();
            let got = is_forged(&case(sender, spf), &evidence, &Verdict::default());
            assert_eq!(got, want, "{sender} {spf:?} {signer:?} {dmarc:?}");
        }
        let trusted = Verdict {
            override_reason: Some("exempt-network"),
            ..Verdict::default()
        };
        let failed = evidence(from("a.example"), fail, DmarcPolicy::Reject);
        assert!(!is_forged(&case("<b@s.example>", None), &failed, &trusted));
    }

    #[test]
    fn an_override_is_noted() {
        let failed = evidence(from("a.example"), DmarcResult::Fail, DmarcPolicy::Reject);
        let verdict = judge(&Config::default(), &client("127.0.0.1"), &failed);
        assert_eq!(verdict.refusal, None);
        assert_eq!(verdict.override_reason, Some("exempt-network"));

        let config = Config {
            trusted_forwarders: vec![Domain::parse("list.example").unwrap()],
            ..Config::default()
        };
        let mut sealed = failed;
        sealed.arc.result = ArcResult::Pass;
        for (sealers, want) in [
            (vec!["list.example"], Some("trusted-forwarder")),
            (vec!["list.example", "other.example"], None),
            (vec![], None),
        ] {
            sealed.arc.sealers = sealers.iter().map(|name| name.to_string()).collect();
            let verdict = judge(&config, &client("192.0.2.1"), &sealed);
            assert_eq!(verdict.override_reason, want, "{sealers:?}");
            assert_eq!(verdict.refusal.is_none(), want.is_some(), "{sealers:?}");
        }

        // A chain of theirs that cannot be validated now puts the message off; no other one does.
        sealed.arc.result = ArcResult::TempError;
        for (sealer, code) in [("list.example", 451), ("other.example", 550)] {
            sealed.arc.sealers = vec![sealer.to_owned()];
            let verdict = judge(&config, &client("192.0.2.1"), &sealed);
            let got = verdict.refusal.map(|refusal| refusal.reply().code);
            assert_eq!(got, Some(code), "{sealer}");
        }
    }
}
