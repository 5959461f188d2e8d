//! SPF at RCPT TO: what each result leads to (RFC 7208 §8, RFC 7372).
//!
//! The HELO identity is judged first and refuses only on fail; then MAIL FROM, or HELO again in its
//! place for the null sender. Evaluated once a transaction, whatever the number of recipients.

use ipnet::IpNet;
use serde::Deserialize;

use super::Action;
use super::Client;
use super::Mode;
use super::loopback;
use crate::mail::address::Domain;
use crate::mail::address::ReversePath;
use crate::smtp::reply::Refusal;
use crate::verify::Spf;
use crate::verify::SpfIdentity;
use crate::verify::SpfResult;
use crate::verify::Verifier;

/// `[spf]`: what each result does. `hold` is none of them: there is no message yet.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// enforce, observe or off. Off, the results still serve DMARC.
    pub mode: Mode,
    /// The domain says that this client may not send for it.
    pub fail: Action,
    /// The same for the name in EHLO.
    pub helo_fail: Action,
    /// With "fail": where the sender's domain publishes DMARC, mark only, and let DKIM have its say at
    /// DATA. Saves forwarded mail.
    pub unless_dmarc: bool,
    /// The domain thinks that this client should not send for it.
    pub softfail: Action,
    /// The domain does not say.
    pub neutral: Action,
    /// There is no record.
    pub none: Action,
    /// The record cannot be evaluated.
    pub permerror: Action,
    /// The DNS does not answer.
    pub temperror: Action,
    /// Networks that are not checked. DMARC has only DKIM to go by in their mail; name them there too
    /// where that is not enough.
    pub exempt: Vec<IpNet>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            mode: Mode::Enforce,
            fail: Action::Reject,
            helo_fail: Action::Reject,
            unless_dmarc: false,
            softfail: Action::Mark,
            neutral: Action::Accept,
            none: Action::Accept,
            permerror: Action::Mark,
            temperror: Action::Defer,
            exempt: loopback(),
        }
    }
}

impl Config {
    /// What is wrong with the values: key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        [
            ("fail", self.fail),
            ("helo_fail", self.helo_fail),
            ("softfail", self.softfail),
            ("neutral", self.neutral),
            ("none", self.none),
            ("permerror", self.permerror),
            ("temperror", self.temperror),
        ]
        .into_iter()
        .filter(|(_, action)| *action == Action::Hold)
        .map(|(key, _)| {
            let right = "there is no message to hold at RCPT TO; use reject, defer, mark or accept";
            (key.to_owned(), right.to_owned())
        })
        .collect()
    }

    fn action(&self, result: SpfResult) -> Action {
        match result {
            SpfResult::Pass => Action::Accept,
            SpfResult::Fail => self.fail,
            SpfResult::SoftFail => self.softfail,
            SpfResult::Neutral => self.neutral,
            SpfResult::None => self.none,
            SpfResult::PermError => self.permerror,
            SpfResult::TempError => self.temperror,
        }
    }
}

/// What SPF says of a transaction.
#[derive(Debug)]
pub struct Finding {
    /// HELO first, then MAIL FROM where there is a sender.
    pub results: Vec<Spf>,
    /// The client was not checked.
    pub exempt: bool,
    /// What to say to each recipient, where it is no.
    pub refusal: Option<Refusal>,
    /// The word for the mark field.
    pub mark: Option<&'static str>,
}

/// Evaluates SPF for a transaction.
pub(super) async fn find(
    config: &Config,
    verifier: &Verifier,
    client: &Client,
    from: &ReversePath,
) -> Finding {
    let mut finding = Finding {
        results: Vec::new(),
        exempt: client.is_in(&config.exempt),
        refusal: None,
        mark: None,
    };
    if finding.exempt {
        return finding;
    }
    let host = client.host();
    let helo = verifier.spf_helo(client.address, &host);
    let Some(sender) = from.address() else {
        finding.results.push(helo.await);
        finding.judge(config, client);
        finding.keep_to(config.mode);
        return finding;
    };
    let sender_check = verifier.spf_sender(client.address, &host, sender);
    let (helo, mail_from) = tokio::join!(helo, sender_check);
    finding.results = vec![helo, mail_from];
    finding.judge(config, client);
    if config.mode != Mode::Off && config.unless_dmarc && finding.is_reject_of_sender_fail(config) {
        finding.defer_to_dmarc(verifier, sender.domain()).await;
    }
    finding.keep_to(config.mode);
    finding
}

impl Finding {
    fn judge(&mut self, config: &Config, client: &Client) {
        let client = client.address.to_string();
        let last = self.results.len().saturating_sub(1);
        for (at, spf) in self.results.iter().enumerate() {
            let action = match (at == last, spf.result) {
                (true, result) => config.action(result),
                (false, SpfResult::Fail) => config.helo_fail,
                (false, _) => Action::Accept,
            };
            match action {
                Action::Reject => self.refusal = Some(refusal(spf, &client)),
                Action::Defer => self.refusal = Some(refusal(spf, &client).deferred()),
                Action::Mark | Action::Hold => self.mark = Some(mark(spf.result)),
                Action::Accept => {}
            }
            if self.refusal.is_some() {
                return;
            }
        }
    }

    /// A rule that does not act leaves no mark; what it would have refused is logged at each
    /// recipient. The results stay: DMARC needs them.
    fn keep_to(&mut self, mode: Mode) {
        match mode {
            Mode::Enforce => {}
            Mode::Observe => self.mark = None,
            Mode::Off => (self.refusal, self.mark) = (None, None),
        }
    }

    fn is_reject_of_sender_fail(&self, config: &Config) -> bool {
        let helo_refuses = self
            .results
            .first()
            .is_some_and(|helo| helo.result == SpfResult::Fail)
            && matches!(config.helo_fail, Action::Reject | Action::Defer);
        let sender_fails = self.results.last().is_some_and(|spf| {
            spf.identity == SpfIdentity::MailFrom && spf.result == SpfResult::Fail
        });
        self.refusal.is_some() && sender_fails && !helo_refuses
    }

    /// A sender's domain with a DMARC record is judged at DATA, where DKIM can rescue a forward.
    async fn defer_to_dmarc(&mut self, verifier: &Verifier, domain: Option<&Domain>) {
        let Some(domain) = domain else { return };
        match verifier.publishes_dmarc(domain).await {
            Ok(true) => {
                self.refusal = None;
                self.mark = Some(mark(SpfResult::Fail));
            }
            Ok(false) => {}
            Err(_) => self.refusal = Some(Refusal::spf_error(domain.as_str(), false)),
        }
    }
}

fn refusal(spf: &Spf, client: &str) -> Refusal {
    let explanation = spf.explanation.as_deref();
    match spf.result {
        SpfResult::Fail => {
            Refusal::spf_fail(identity(spf.identity), &spf.domain, client, explanation)
        }
        SpfResult::TempError => Refusal::spf_error(&spf.domain, false),
        SpfResult::PermError => Refusal::spf_error(&spf.domain, true),
        SpfResult::SoftFail | SpfResult::Neutral | SpfResult::None | SpfResult::Pass => {
            Refusal::spf_other(name(spf.result), &spf.domain)
        }
    }
}

/// How RFC 7208 §2.4 calls an identity in Received-SPF.
pub(super) fn identity(identity: SpfIdentity) -> &'static str {
    match identity {
        SpfIdentity::Helo => "helo",
        SpfIdentity::MailFrom => "mailfrom",
    }
}

/// How RFC 7208 §2.6 calls a result.
pub(super) fn name(result: SpfResult) -> &'static str {
    match result {
        SpfResult::None => "none",
        SpfResult::Neutral => "neutral",
        SpfResult::Pass => "pass",
        SpfResult::Fail => "fail",
        SpfResult::SoftFail => "softfail",
        SpfResult::TempError => "temperror",
        SpfResult::PermError => "permerror",
    }
}

fn mark(result: SpfResult) -> &'static str {
    match result {
        SpfResult::None => "spf-none",
        SpfResult::Neutral => "spf-neutral",
        SpfResult::Pass => "spf-pass",
        SpfResult::Fail => "spf-fail",
        SpfResult::SoftFail => "spf-softfail",
        SpfResult::TempError => "spf-temperror",
        SpfResult::PermError => "spf-permerror",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_does_not_act_leaves_no_mark_but_its_results() {
        for (mode, refuses, marks) in [
            (Mode::Enforce, true, true),
            (Mode::Observe, true, false),
            (Mode::Off, false, false),
        ] {
            let mut finding = Finding {
                results: vec![Spf {
                    result: SpfResult::Fail,
                    identity: SpfIdentity::Helo,
                    domain: "a.example".to_owned(),
                    explanation: None,
                }],
                exempt: false,
                refusal: Some(Refusal::spf_error("a.example", false)),
                mark: Some("spf-fail"),
            };
            finding.keep_to(mode);
            let got = (finding.refusal.is_some(), finding.mark.is_some());
            assert_eq!(got, (refuses, marks), "{mode:?}");
            assert_eq!(finding.results.len(), 1);
        }
    }
}
