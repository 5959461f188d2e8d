//! What became of one recipient in one attempt.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::smtp::client::response::Class;
use crate::smtp::client::response::Response;

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it comes to.
    pub fate: Fate,
    /// What the peer said, or what we found ([`Response::speaker`] tells). Its text is cleaned, and
    /// fit for the log and for a bounce.
    pub reply: Response,
    /// With whom we spoke. None where nobody was reached, and for a Maildir.
    pub peer: Option<Arc<Peer>>,
}

/// What an outcome comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The next hop has taken responsibility.
    Delivered(Handover),
    /// It may come off later.
    Deferred(Cause),
    /// It will never come off.
    Failed,
}

/// How far a delivered message has come, for the notifications that a sender has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// Into its mailbox, as far as SMTP goes (LMTP, Maildir).
    Final,
    /// To a server that was told the sender's wishes and reports on (RFC 3461 §5.2.1).
    WishesPassedOn,
    /// To a server that knows no such wishes: it is ours to report "relayed" (RFC 3461 §5.2.2).
    WishesUnknown,
}

/// What a delivery has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// This message or recipient was put off; others may fare better.
    Message,
    /// The destination takes nothing now: what waits for it need not be tried one by one.
    Destination,
}

/// The server that was spoken to: `mx1.example.com[192.0.2.1]:25`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// By which we looked for it: a host name, an address, or the path of a unix socket.
    pub name: Box<str>,
    /// Where it was found. None for a unix socket.
    pub address: Option<SocketAddr>,
    /// Our own address. None where there was no connection.
    pub source: Option<IpAddr>,
    /// What was asked of TLS with it, why, and what came of it: `dane: 1 TLSA record at
    /// _25._tcp.mx1.example.com; TLS1.3`. None where it was not asked for.
    pub tls: Option<Box<str>>,
}

impl Outcome {
    /// What a reply to a recipient or to the message means for a recipient.
    pub(super) fn of(reply: Response, handover: Handover) -> Outcome {
        let fate = match reply.class() {
            Class::Done => Fate::Delivered(handover),
            // RFC 5321 §3.8: with 421 the server is going away.
            Class::Later if reply.is_goodbye() => Fate::Deferred(Cause::Destination),
            Class::Later | Class::GoOn => Fate::Deferred(Cause::Message),
            Class::Never => Fate::Failed,
        };
        Outcome {
            fate,
            reply,
            peer: None,
        }
    }

    /// The destination could not be had. Whatever the code in `reply`, there is a later.
    pub(super) fn unreachable(reply: Response) -> Outcome {
        Outcome {
            fate: Fate::Deferred(Cause::Destination),
            reply,
            peer: None,
        }
    }

    /// Whether it is worth trying again.
    pub(super) fn may_come_off(&self) -> bool {
        match self.fate {
            Fate::Deferred(_) => true,
            Fate::Delivered(_) | Fate::Failed => false,
        }
    }

    /// There is no way to the recipient, for now.
    pub fn no_route(text: &str) -> Outcome {
        Outcome {
            fate: Fate::Deferred(Cause::Message),
            reply: Response::ours(451, (4, 4, 4), text), // RFC 3463 §3.5: unable to route
            peer: None,
        }
    }

    /// Whoever looks after this server has given the message up.
    pub fn given_up() -> Outcome {
        let text = "the postmaster of this site gave the message up";
        Outcome {
            fate: Fate::Failed,
            reply: Response::ours(554, (5, 3, 0), text), // RFC 3463 §3.4: other mail system status
            peer: None,
        }
    }

    /// This, from this peer.
    pub(super) fn from(self, peer: &Arc<Peer>) -> Outcome {
        Outcome {
            peer: Some(Arc::clone(peer)),
            ..self
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}[{}]:{}", self.name, address.ip(), address.port()),
            None => f.write_str(&self.name),
        }
    }
}

/// What a next hop says of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is such a mailbox: the next hop said 2xx to RCPT.
    Exists,
    /// There is no such mailbox (550, 551 or 553 to RCPT, and no enhanced code that says otherwise).
    Unknown(Response),
    /// It did not say: 4xx, a refusal for another reason, or no connection.
    Unsure(Response),
}
