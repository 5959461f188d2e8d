//! What the outcomes of an attempt mean for its recipients: marked, reported on, or left.
//!
//! Whoever is to hear of a failure is told first: the report is in the spool before the recipient has its
//! mark. A crash in between brings a second report and loses none. Where the report cannot be stored, its
//! recipients are left, to be tried again. Other reports are made once, and not made up for.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::SystemTime;

use super::patience::Patience;
use crate::delivery::outcome::Fate;
use crate::delivery::outcome::Handover;
use crate::delivery::outcome::Outcome;
use crate::delivery::outcome::Peer;
use crate::mail::address::Host;
use crate::mail::id::SpoolId;
use crate::report::Finding;
use crate::report::Kind;
use crate::report::Reporter;
use crate::spool::Arrival;
use crate::spool::Mark;
use crate::spool::Spool;
use crate::telemetry::events;

/// An attempt that is over.
pub(super) struct Verdict<'a> {
    pub(super) id: SpoolId,
    /// Which one it was, from 1.
    pub(super) attempt: u32,
    /// With its content.
    pub(super) message: &'a Arrival,
    /// Where it led.
    pub(super) host: &'a (dyn Display + Sync),
    pub(super) patience: Patience,
    pub(super) spool: &'a Spool,
    pub(super) reporter: &'a Reporter,
}

/// A recipient that will be tried again, and why.
pub(super) type Left = (usize, String);

/// The recipients by what they come to.
#[derive(Default)]
struct Sorted {
    delivered: Vec<Finding>,
    relayed: Vec<Finding>,
    failed: Vec<Finding>,
    deferred: Vec<Finding>,
}

impl Verdict<'_> {
    /// Settles what can be settled; gives who is left.
    pub(super) async fn settle(self, outcomes: Vec<(usize, Outcome)>) -> Vec<Left> {
        let sorted = self.sort(outcomes);
        let mut left = self.fail(sorted.failed).await;
        self.tell(Kind::Delivered, &sorted.delivered).await;
        self.tell(Kind::Relayed, &sorted.relayed).await;
        if self.patience.is_warned(self.message, SystemTime::now()) {
            let until = self.message.arrived + self.patience.of(&self.message.envelope);
            self.tell(Kind::Delayed { until }, &sorted.deferred).await;
        }
        let deferred = sorted.deferred.iter();
        left.extend(deferred.map(|finding| (finding.recipient, finding.reply.to_string())));
        left
    }

    /// Marks the delivered ones, and says what all others come to.
    fn sort(&self, outcomes: Vec<(usize, Outcome)>) -> Sorted {
        let lifetime = self.patience.of(&self.message.envelope);
        let waited = self.message.arrived.elapsed().unwrap_or_default();
        let mut sorted = Sorted::default();
        let mut marks = Vec::with_capacity(outcomes.len());
        for (recipient, outcome) in outcomes {
            let mut finding = Finding {
                recipient,
                remote: outcome.peer.as_deref().and_then(name),
                reply: outcome.reply,
                given_up_after: None,
            };
            match outcome.fate {
                Fate::Delivered(handover) => {
                    marks.push((recipient, Mark::Delivered));
                    let host: &dyn Display = match &outcome.peer {
                        Some(peer) => peer,
                        None => self.host,
                    };
                    let address = &self.message.envelope.recipients[recipient].address;
                    let tls = outcome.peer.as_deref().and_then(|peer| peer.tls.as_deref());
                    let (reply, attempt) = (&finding.reply, self.attempt);
                    events::delivered(self.id, address, host, tls, reply, attempt, waited);
                    match handover {
                        Handover::Final => sorted.delivered.push(finding),
                        Handover::WishesUnknown => sorted.relayed.push(finding),
                        Handover::WishesPassedOn => {}
                    }
                }
                Fate::Deferred(_) if waited >= lifetime => {
                    finding.given_up_after = Some(lifetime);
                    sorted.failed.push(finding);
                }
                Fate::Deferred(_) => sorted.deferred.push(finding),
                Fate::Failed => sorted.failed.push(finding),
            }
        }
        if !marks.is_empty() {
            self.spool.mark(self.id, marks);
        }
        sorted
    }

    /// Reports and marks those that will not be tried again. Gives them back where that did not come off.
    async fn fail(&self, failed: Vec<Finding>) -> Vec<Left> {
        if failed.is_empty() {
            return Vec::new();
        }
        let reported = self.reporter.report(self.message, Kind::Failed, &failed);
        if let Err(error) = reported.await {
            events::report_failed(self.id, "failed", &error);
            let left =
                |finding: Finding| (finding.recipient, format!("{}; {error}", finding.reply));
            return failed.into_iter().map(left).collect();
        }
        let mut marks = Vec::with_capacity(failed.len());
        for finding in failed {
            let reason = match finding.given_up_after {
                Some(time) => {
                    let time = humantime_serde::re::humantime::format_duration(time);
                    format!("given up after {time}: {}", finding.reply)
                }
                None => finding.reply.to_string(),
            };
            let recipient = &self.message.envelope.recipients[finding.recipient].address;
            events::failed(self.id, recipient, self.host, &reason, self.attempt);
            marks.push((finding.recipient, Mark::Failed(reason)));
        }
        self.spool.mark(self.id, marks);
        Vec::new()
    }

    async fn tell(&self, kind: Kind, findings: &[Finding]) {
        if let Err(error) = self.reporter.report(self.message, kind, findings).await {
            events::report_failed(self.id, kind.action(), &error);
        }
    }
}

/// How a server is called in a report. None where it is a unix socket of ours.
fn name(peer: &Peer) -> Option<String> {
    peer.address?;
    let literal = peer.name.parse::<IpAddr>().map(Host::Literal);
    Some(literal.map_or_else(|_| peer.name.to_string(), |host| host.to_string()))
}
