//! One attempt, one outcome for each recipient.
//!
//! [`Delivery::attempt`] hands a message to one [`target::Target`] and says what became of each
//! recipient; [`Delivery::probe`] asks whether one exists. Connections are used again. Who is tried
//! when, and how often, is the scheduler's business.
//!
//! Promises: each wait has a deadline; a message whose end a server has seen is never sent to it
//! again by the same attempt; a Return-Path stands in front of a finally delivered message once.
//!
//! # Limits
//! TLS to a next hop is opportunistic: nothing demands it or checks a certificate yet.

mod broken;
pub mod config;
mod connect;
mod exchange;
mod maildir;
pub mod next_hop;
pub mod outcome;
mod pool;
mod return_path;
pub mod route;
pub mod routing;
pub mod target;

use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use tokio::time::timeout;
use tracing::debug;

use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::mail::id::SpoolId;
use crate::smtp::client::response::Class;
use crate::smtp::client::response::Response;
use broken::Broken;
use connect::Connected;
use connect::Connector;
use exchange::Again;
use next_hop::Mailboxes;
use next_hop::NextHop;
use outcome::Handover;
use pool::Pool;

pub use config::Config;
pub use outcome::Answer;
pub use outcome::Cause;
pub use outcome::Fate;
pub use outcome::Outcome;
pub use target::Target;

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

/// Whether a connection was used before, and so may have died unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

impl Delivery {
    /// `hostname` is what we call ourselves in EHLO and LHLO.
    ///
    /// # Errors
    /// [`Error::Tls`] where the TLS library cannot be set up.
    pub fn new(config: &Config, hostname: Domain, dns: Dns) -> Result<Delivery, Error> {
        let connector = Connector::new(hostname.clone(), config.deadlines, dns);
        Ok(Delivery {
            hostname,
            recipients: config.recipients.max(1),
            deadline: config.deadlines.attempt,
            connector: connector.map_err(Error::Tls)?,
            pool: Pool::new(config.reuse),
        })
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
        let attempt = self.hand_over(target, envelope, which, content);
        let outcomes = timeout(self.deadline, attempt).await.unwrap_or_else(|_| {
            let text = "the attempt took longer than it may ([delivery.deadlines] attempt)";
            let reason = Response::ours(451, (4, 4, 2), text);
            vec![Outcome::unreachable(reason); which.len()]
        });
        debug!(%id, host = %target, ?outcomes, "attempted");
        outcomes
    }

    async fn hand_over(
        &self,
        target: &Target,
        envelope: &Envelope,
        which: &[usize],
        content: &Content,
    ) -> Vec<Outcome> {
        match &target.route().to {
            NextHop::Maildir(mailboxes) => {
                self.to_maildirs(mailboxes, envelope, which, content).await
            }
            NextHop::LmtpUnix(_) | NextHop::Lmtp(_) => {
                // RFC 2033: the server delivers finally and writes its Return-Path.
                let pieces = return_path::without(content);
                self.to_server(target, envelope, which, &pieces).await
            }
            NextHop::Mx(_) | NextHop::Smtp(_) => {
                let pieces: Vec<&[u8]> = content.chunks().collect();
                self.to_server(target, envelope, which, &pieces).await
            }
        }
    }

    /// Asks the target whether `recipient` exists (RCPT callout with the null sender). A Maildir takes
    /// everyone. Cancel safe.
    pub async fn probe(&self, target: &Target, recipient: &Recipient) -> Answer {
        if let NextHop::Maildir(_) = target.route().to {
            return Answer::Exists;
        }
        let mut wanted = Age::Used;
        loop {
            let (mut connection, age) = match self.connection(target, wanted).await {
                Ok(connection) => connection,
                Err(outcome) => return Answer::Unsure(outcome.reply),
            };
            wanted = Age::New;
            match connection.callout(recipient).await {
                Ok(None) => {
                    self.keep(target, connection).await;
                    let text = "the next hop takes no internationalised addresses (SMTPUTF8)";
                    return Answer::Unknown(Response::ours(553, (5, 6, 7), text));
                }
                Ok(Some([mail, rcpt])) if !mail.is_goodbye() && !rcpt.is_goodbye() => {
                    self.keep(target, connection).await;
                    return answer(mail, rcpt);
                }
                Ok(Some(_)) | Err(_) if age == Age::Used => self.pool.forget(target),
                Ok(Some([mail, rcpt])) => return answer(mail, rcpt),
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

    async fn to_server(
        &self,
        target: &Target,
        envelope: &Envelope,
        which: &[usize],
        pieces: &[&[u8]],
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(which.len());
        while let Some(rest) = which.get(outcomes.len()..).filter(|rest| !rest.is_empty()) {
            let batch = self.transaction(target, envelope, rest, pieces).await;
            outcomes.extend(batch);
            if let Some(last) = outcomes.last()
                && last.fate == Fate::Deferred(Cause::Destination)
            {
                outcomes.resize(which.len(), last.clone());
            }
        }
        outcomes
    }

    /// One transaction for as many of `which` as go into one; at least one outcome.
    async fn transaction(
        &self,
        target: &Target,
        envelope: &Envelope,
        which: &[usize],
        pieces: &[&[u8]],
    ) -> Vec<Outcome> {
        let (mut wanted, mut bdat) = (Age::Used, true);
        loop {
            let (mut connection, age) = match self.connection(target, wanted).await {
                Ok(connection) => connection,
                Err(outcome) => return vec![outcome; which.len()],
            };
            connection.offered.chunking &= bdat;
            let offered = connection.offered.recipient_limit.unwrap_or(usize::MAX);
            let batch = &which[..which.len().min(self.recipients).min(offered)];
            let done = connection.transact(envelope, batch, pieces).await;
            match (done.again, age) {
                (Again::Safe, Age::Used) => {
                    // It died while idle, and the others with it most likely.
                    self.pool.forget(target);
                    wanted = Age::New;
                    continue;
                }
                (Again::WithoutBdat, _) => {
                    (wanted, bdat) = (Age::New, false);
                    continue;
                }
                (Again::Safe | Again::No, _) => {}
            }
            if connection.settle(done.connection).await {
                self.keep(target, connection).await;
            }
            let reason = done.broken.map(Broken::response);
            let reason =
                reason.unwrap_or_else(|| Response::ours(451, (4, 3, 0), "nothing was said of it"));
            let outcome = |answer: Option<Response>| {
                let reply = answer.unwrap_or_else(|| reason.clone());
                Outcome::of(reply, done.handover).from(&done.peer)
            };
            return done.answers.into_iter().map(outcome).collect();
        }
    }

    /// `wanted` is `New` where a used connection will not do.
    async fn connection(&self, target: &Target, wanted: Age) -> Result<(Connected, Age), Outcome> {
        while wanted == Age::Used
            && let Some(mut connection) = self.pool.take(target)
        {
            if connection.is_idle().await {
                return Ok((connection, Age::Used));
            }
        }
        let connected = self.connector.connect(target).await?;
        Ok((connected, Age::New))
    }

    async fn keep(&self, target: &Target, connection: Connected) {
        if let Some(connection) = self.pool.keep(target, connection) {
            connection.quit().await;
        }
    }

    async fn to_maildirs(
        &self,
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
                Some(Ok(path)) => self.to_maildir(path, envelope, content).await,
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

/// What the replies to MAIL and RCPT say about a recipient.
fn answer(mail: Response, rcpt: Response) -> Answer {
    match (mail.class(), rcpt.class()) {
        (Class::Done, Class::Done) => Answer::Exists,
        (Class::Done, Class::Never) if names_no_mailbox(&rcpt) => Answer::Unknown(rcpt),
        (Class::Done, Class::GoOn | Class::Later | Class::Never) => Answer::Unsure(rcpt),
        // Whoever refuses the null sender says nothing about the recipient.
        (Class::GoOn | Class::Later | Class::Never, _) => Answer::Unsure(mail),
    }
}

/// Whether a refusal says that there is no such mailbox. One that is full or closed, or a policy that
/// has something against us, says nothing of the kind, whatever its class.
fn names_no_mailbox(rcpt: &Response) -> bool {
    // RFC 5321 §4.2.3
    matches!(rcpt.code, 550 | 551 | 553)
        && match rcpt.enhanced {
            // RFC 3463 §3.2: all of x.1 is about addresses, and these two about the sender's.
            Some((_, subject, detail)) => subject == 1 && !matches!(detail, 7 | 8),
            None => true,
        }
}

#[cfg(test)]
mod tests;
