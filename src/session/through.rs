//! Mail that is handed on while its client waits: the client gets the next hop's own answer, and
//! nothing is queued.
//!
//! Who delivers and who takes mail in do not know each other; [`Through`] is what the one is told of
//! the other, as two closures. One answer is for one recipient, so such a message has no other: the
//! rest are put off to transactions of their own.
//!
//! # Limits
//! Nothing is written to anybody, so a wish to hear of success comes to nothing where the next hop knows no
//! such wishes (RFC 3461 §5.2.2, not followed: a sender that is forged would get what it never asked for).

use std::pin::Pin;

use tokio::time::Instant;

use super::Session;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::smtp::client::response::Response;
use crate::smtp::client::response::Speaker;
use crate::smtp::reply::Refusal;
use crate::smtp::reply::Reply;
use crate::telemetry::events;

/// Whether mail from this sender to this recipient goes through.
pub type Goes = Box<dyn Fn(&ReversePath, &Address) -> bool + Send + Sync>;

/// Hands a message on to its one recipient, who is named beside the envelope. Ends before a client
/// has waited for too long. Not cancel safe.
pub type HandOn = Box<
    dyn Fn(SpoolId, Address, Envelope, Content) -> Pin<Box<dyn Future<Output = Answer> + Send>>
        + Send
        + Sync,
>;

/// What goes through, and how.
pub struct Through {
    /// Asked at RCPT and after the final dot.
    pub goes: Goes,
    /// Called after the final dot.
    pub hand_on: HandOn,
}

/// What came of handing a message on.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What it means.
    pub verdict: Verdict,
    /// What was said, or what we found.
    pub reply: Response,
    /// Who was to have it, for the log.
    pub host: String,
    /// What was asked of TLS there, why, and what came of it; for the log, too.
    pub tls: Option<String>,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next hop has taken responsibility.
    Taken,
    /// The client has to come again.
    Later,
    /// It need not come again.
    Never,
}

impl Session<'_> {
    /// Mail that goes through has one recipient; the others are to come in transactions of their own.
    pub(super) fn alone_if_through(
        &self,
        from: &ReversePath,
        address: Address,
    ) -> Result<Address, Refusal> {
        let goes = |to: &Address| (self.shared.through.goes)(from, to);
        let transaction = self.server.transaction();
        let first = transaction.and_then(|transaction| transaction.recipients.first());
        match first {
            Some(first) if goes(&first.address) || goes(&address) => {
                Err(Refusal::one_recipient_each())
            }
            Some(_) | None => Ok(address),
        }
    }

    /// Hands the message on while the client waits.
    pub(super) async fn hand_on(
        &mut self,
        id: SpoolId,
        to: &Address,
        envelope: &Envelope,
        content: Content,
    ) -> Result<Reply, Refusal> {
        let (began, size) = (Instant::now(), content.len());
        let hand_on = &self.shared.through.hand_on;
        let answer = hand_on(id, to.clone(), envelope.clone(), content).await;
        let (host, reply) = (&answer.host, &answer.reply);
        match answer.verdict {
            Verdict::Taken => {
                events::accepted(id, envelope, size);
                let tls = answer.tls.as_deref();
                events::delivered(id, to, host, tls, reply, 1, began.elapsed());
                self.stored += 1;
            }
            Verdict::Later | Verdict::Never => events::passed_back(id, to, host, reply),
        }
        answer.for_client()
    }
}

impl Answer {
    /// What the client is told: the next hop's own words. What we found on the way there is for the log,
    /// and no stranger's business.
    fn for_client(&self) -> Result<Reply, Refusal> {
        match (self.verdict, self.reply.speaker) {
            (Verdict::Taken, _) => Ok(Reply::of_next_hop(&self.reply)),
            (Verdict::Never, _) => Err(Refusal::of_next_hop(&self.reply)),
            // With 421 the next hop leaves us, and we do not leave our client.
            (Verdict::Later, Speaker::Peer)
                if (400..500).contains(&self.reply.code) && !self.reply.is_goodbye() =>
            {
                Err(Refusal::of_next_hop(&self.reply))
            }
            (Verdict::Later, Speaker::Peer | Speaker::Us) => Err(Refusal::next_hop_away()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(verdict: Verdict, reply: Response) -> String {
        let answer = Answer {
            verdict,
            reply,
            host: String::new(),
            tls: None,
        };
        match answer.for_client() {
            Ok(reply) => reply.to_string(),
            Err(refusal) => refusal.into_reply().to_string(),
        }
    }

    #[test]
    fn the_client_gets_the_next_hops_own_words() {
        for (verdict, said) in [
            (Verdict::Taken, "250 2.6.0 taken as 4711"),
            (Verdict::Taken, "250 ok"),
            (Verdict::Never, "554 5.7.1 spam"),
            (Verdict::Later, "451 4.7.1 greylisted"),
        ] {
            let line = format!("{said}\r\n");
            let (reply, _) = Response::read(line.as_bytes()).unwrap().unwrap();
            assert_eq!(told(verdict, reply), said);
        }
    }

    #[test]
    fn the_client_is_not_told_how_we_failed() {
        let goodbye = Response::read(b"421 4.3.2 going down\r\n")
            .unwrap()
            .unwrap()
            .0;
        let greeting = Response::read(b"554 no mail here\r\n").unwrap().unwrap().0;
        let ours = Response::ours(451, (4, 4, 1), "cannot connect to 10.0.0.1:25");
        for reply in [goodbye, greeting, ours] {
            let told = told(Verdict::Later, reply);
            assert_eq!(
                told,
                "451 4.4.1 The server behind us cannot be reached now, try again later"
            );
        }
    }
}
