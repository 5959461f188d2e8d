//! One attempt, one outcome for each recipient.
//!
//! [`Delivery::attempt`] hands a message to one [`target::Target`] and says what became of each
//! recipient; [`Delivery::probe`] asks whether one exists. Connections are used again. Who is tried
//! when, and how often, is the scheduler's business.
//!
//! Promises: each wait has a deadline; a message whose end a server has seen is never sent to it
//! again by the same attempt; a Return-Path stands in front of a finally delivered message once.

mod broken;
mod callout;
pub mod config;
mod connect;
mod exchange;
mod exchangers;
mod hosts;
mod login;
pub mod look;
mod maildir;
pub mod next_hop;
pub mod outcome;
mod pool;
mod return_path;
pub mod route;
pub mod routing;
pub mod security;
mod server;
mod starttls;
pub mod target;
mod trouble;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use tokio::time::Instant;
use tokio::time::timeout_at;
use tracing::debug;

use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::mail::id::SpoolId;
use crate::smtp::client::response::Response;
use connect::Connector;
use hosts::Hosts;
use next_hop::Mailboxes;
use next_hop::NextHop;
use outcome::Handover;
use pool::Pool;
use security::Wish;
use server::Age;
use server::Mail;

pub use config::Config;
pub use outcome::Answer;
pub use outcome::Cause;
pub use outcome::Fate;
pub use outcome::Outcome;
pub use target::Target;

/// Less than the ten minutes that a client waits after its final dot (RFC 5321 §4.5.3.2.6), with some
/// time for what comes before.
const CLIENT_WAITS: Duration = Duration::from_secs(8 * 60);

/// Why there can be no deliveries.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TLS library cannot be set up, and why.
    #[error("cannot set up TLS for deliveries: {0}")]
    Tls(String),
}

/// Hands messages on. Shared by all that deliver or ask.
pub struct Delivery {
    hostname: Domain,
    recipients: usize,
    /// For a whole attempt.
    deadline: Duration,
    connector: Connector,
    pool: Pool,
}

impl Delivery {
    /// `hostname` is what we call ourselves in EHLO and LHLO.
    ///
    /// # Errors
    /// [`Error::Tls`] where the TLS library cannot be set up.
    pub fn new(config: &Config, hostname: Domain, dns: Dns) -> Result<Delivery, Error> {
        let hosts = Hosts {
            dns,
            hostname: hostname.clone(),
            ports: BTreeSet::new(),
            limit: config.addresses.max(1),
        };
        let connector = Connector::new(hosts, config);
        Ok(Delivery {
            hostname,
            recipients: config.recipients.max(1),
            deadline: config.deadlines.attempt,
            connector: connector.map_err(Error::Tls)?,
            pool: Pool::new(config.reuse),
        })
    }

    /// Where we listen ourselves: a mail exchanger at one of these ports of this machine is us.
    pub fn listening_on(mut self, ports: BTreeSet<u16>) -> Delivery {
        self.connector.hosts.ports = ports;
        self
    }

    /// Keeps what destinations have asked for in this folder, beyond a restart. Reads what is there; blocks.
    pub fn keeping_in(mut self, data_dir: &Path) -> Delivery {
        if let Some(policies) = &mut self.connector.policies {
            policies.open(data_dir.join("mta-sts"));
        }
        self
    }

    /// Tries to deliver a message to the recipients `which` of its envelope, and gives one outcome for
    /// each, in their order. `id` is for the debug log.
    ///
    /// Ends by the deadlines of the config. Not cancel safe: when dropped, some recipients may have the
    /// message, and nobody knows which.
    pub async fn attempt(
        &self,
        target: &Target,
        id: SpoolId,
        envelope: &Envelope,
        which: &[usize],
        content: &Content,
    ) -> Vec<Outcome> {
        let until = Until {
            time: Instant::now() + self.deadline,
            why: "the attempt took longer than it may ([delivery.deadlines] attempt)",
        };
        self.attempt_until(until, target, id, envelope, which, content)
            .await
    }

    /// As [`Delivery::attempt`], to the first recipient, for a client that waits for the outcome.
    pub async fn hand_on(
        &self,
        target: &Target,
        id: SpoolId,
        envelope: &Envelope,
        content: &Content,
    ) -> Outcome {
        let until = Until {
            time: Instant::now() + self.deadline.min(CLIENT_WAITS),
            why: "the client would not have waited any longer",
        };
        let attempt = self.attempt_until(until, target, id, envelope, &[0], content);
        let outcome = attempt.await.pop();
        outcome.unwrap_or_else(|| until.passed())
    }

    async fn attempt_until(
        &self,
        until: Until,
        target: &Target,
        id: SpoolId,
        envelope: &Envelope,
        which: &[usize],
        content: &Content,
    ) -> Vec<Outcome> {
        let outcomes = match &target.route().to {
            NextHop::Maildir(mailboxes) => {
                self.to_maildirs(until, mailboxes, envelope, which, content)
                    .await
            }
            NextHop::LmtpUnix(_) | NextHop::Lmtp(_) => {
                // RFC 2033: the server delivers finally and writes its Return-Path.
                let pieces = &return_path::without(content);
                let mail = Mail {
                    id,
                    envelope,
                    pieces,
                    wish: Wish::Usual,
                };
                self.to_server(until, target, &mail, which).await
            }
            NextHop::Mx(_) | NextHop::Smtp(_) => {
                let pieces = &content.chunks().collect::<Vec<&[u8]>>();
                let mail = Mail {
                    id,
                    envelope,
                    pieces,
                    wish: Wish::of(envelope, content),
                };
                self.to_server(until, target, &mail, which).await
            }
        };
        debug!(%id, host = %target, ?outcomes, "attempted");
        outcomes
    }

    /// Asks the target whether `recipient` exists (RCPT callout with the null sender). A Maildir takes
    /// everyone. Cancel safe.
    pub async fn probe(&self, target: &Target, recipient: &Recipient) -> Answer {
        if let NextHop::Maildir(_) = target.route().to {
            return Answer::Exists;
        }
        let mut wanted = Age::Used;
        loop {
            let (mut connection, age) = match self.connection(target, wanted, Wish::Usual).await {
                Ok(connection) => connection,
                Err(outcome) => return Answer::Unsure(outcome.reply),
            };
            wanted = Age::New;
            if connection.taken_for_another {
                // What it says to that client is no answer to us.
                connection.quit().await;
                continue;
            }
            match connection.callout(recipient).await {
                Ok(None) => {
                    self.keep(target, connection).await;
                    let text = "the next hop takes no internationalised addresses (SMTPUTF8)";
                    return Answer::Unknown(Response::ours(553, (5, 6, 7), text));
                }
                Ok(Some([mail, rcpt])) if !mail.is_goodbye() && !rcpt.is_goodbye() => {
                    self.keep(target, connection).await;
                    return callout::answer(mail, rcpt);
                }
                Ok(Some(_)) | Err(_) if age == Age::Used => self.pool.forget(target),
                Ok(Some([mail, rcpt])) => return callout::answer(mail, rcpt),
                Err(broken) => return Answer::Unsure(broken.response()),
            }
        }
    }

    /// Closes connections that were idle for too long, until cancelled. To be run beside deliveries,
    /// once. Cancel safe: what is left is closed without a goodbye.
    pub async fn tend(&self) {
        loop {
            for connection in self.pool.expired().await {
                connection.quit().await;
            }
        }
    }

    /// Closes all idle connections. Takes at most a second for each. Cancel safe.
    pub async fn close(&self) {
        for connection in self.pool.take_all() {
            connection.quit().await;
        }
    }

    async fn to_maildirs(
        &self,
        until: Until,
        mailboxes: &Mailboxes,
        envelope: &Envelope,
        which: &[usize],
        content: &Content,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(which.len());
        for index in which {
            let recipient = envelope.recipients.get(*index);
            let path = recipient.map(|recipient| maildir::path(mailboxes, &recipient.address));
            let outcome = match path {
                Some(Ok(path)) => {
                    let written = self.to_maildir(path, envelope, content);
                    let written = timeout_at(until.time, written).await;
                    written.unwrap_or_else(|_| until.passed())
                }
                Some(Err(outcome)) => outcome,
                None => {
                    let reply = Response::ours(451, (4, 3, 0), "there is no such recipient");
                    Outcome::of(reply, Handover::Final)
                }
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn to_maildir(
        &self,
        path: std::path::PathBuf,
        envelope: &Envelope,
        content: &Content,
    ) -> Outcome {
        let top = return_path::field(&envelope.from);
        let (content, hostname) = (content.clone(), self.hostname.clone());
        let written = tokio::task::spawn_blocking(move || {
            let mut pieces = return_path::without(&content);
            pieces.insert(0, top.as_bytes());
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            maildir::deliver(&path, &pieces, hostname.as_str(), now.unwrap_or_default())
        });
        written.await.unwrap_or_else(|error| {
            let text = format!("writing ended early: {error}");
            Outcome::of(Response::ours(451, (4, 3, 0), &text), Handover::Final)
        })
    }
}

/// How long an attempt may take. Those whom it has settled by then stay settled.
#[derive(Debug, Clone, Copy)]
struct Until {
    time: Instant,
    why: &'static str,
}

impl Until {
    /// What becomes of those for whom there is no time left.
    fn passed(self) -> Outcome {
        Outcome::unreachable(Response::ours(451, (4, 4, 2), self.why))
    }
}

#[cfg(test)]
mod tests;
