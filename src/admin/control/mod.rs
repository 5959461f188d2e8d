//! The control socket: an operator looks at the queue and steers it while the gateway runs.
//!
//! HTTP over a Unix socket that only we and root may open (0600):
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /queue/list` with a [`Filter`] | one [`Message`] a line, in the order in which they came |
//! | `GET /queue/ID` | one [`Message`] with its header |
//! | `GET /queue/ID/message` | the message itself |
//! | `POST /queue/retry` (`hold`, `release`, `bounce`, `delete`) with a [`Command`] | a [`Done`] a line, as it goes on; the last one counts |
//! | `GET /status` | a [`Status`] |
//!
//! Bodies and answers are JSON.
//!
//! Whoever may open the socket may read and delete all mail, as root may. What is asked is bounded as
//! at the door for metrics; a list is read piece by piece and never stands in memory as a whole. Who
//! stops listening to an order ends it after the piece that is being done.

pub mod client;
mod command;
mod filter;
mod questions;
mod rates;
mod server;

use std::time::SystemTime;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

use crate::mail::address::ReversePath;
use crate::mail::id::SpoolId;
use crate::scheduler::orders;
use crate::scheduler::orders::Destination;
use crate::spool::Look;

pub use filter::Filter;
pub use filter::State;
pub use server::Error;
pub use server::bind;
pub use server::serve;

/// A message in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its name.
    pub id: String,
    /// How it stands.
    pub state: State,
    /// The envelope's sender; empty for none.
    pub from: String,
    /// Who is to get it still, and who was.
    pub recipients: Vec<Recipient>,
    /// Octets.
    pub size: u32,
    /// When it was accepted.
    pub arrived: Timestamp,
    /// When it is tried next.
    pub due: Timestamp,
    /// Attempts made so far.
    pub attempts: u32,
    /// Why it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Who gave it to us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// As whom that client had logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Its header, where it was asked for. What is no UTF-8 is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// One recipient of a message in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipient {
    /// Its address.
    pub address: String,
    /// Whether it is still to be delivered to.
    pub open: bool,
    /// Why it was put off last, as far as is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
}

/// What was said of a recipient that was put off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What the next hop said, or what we found.
    pub text: String,
    /// When.
    pub at: Timestamp,
    /// In which attempt, from 1.
    pub attempt: u32,
}

/// What is to be done, and to which messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Which messages; an empty one is refused.
    pub filter: Filter,
    /// Why they are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What an order came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Done {
    /// Messages that the filter names.
    pub matched: usize,
    /// Those to which it was done.
    pub done: usize,
    /// Those that stay as they were, because an attempt at them is under way.
    pub under_way: usize,
    /// Those that stay as they were, because of trouble that is in the log. What is left was so already.
    pub failed: usize,
    /// Those that were named, and are not in the queue.
    pub missing: Vec<SpoolId>,
}

/// How the gateway is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// For so many seconds it runs.
    pub uptime: u64,
    /// What is wrong; nothing where all is well.
    pub troubles: Vec<String>,
    /// Whether what an earlier run left in the queue is still being read, and not counted yet.
    pub loading: bool,
    /// Messages in the queue, held ones too.
    pub messages: usize,
    /// Messages that are held.
    pub held: usize,
    /// When the oldest of them was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
    /// A minute, over the last minutes: what was accepted, delivered, deferred, refused ...
    pub rates: Vec<Rate>,
    /// How many destinations have mail, or are left alone.
    pub lanes: usize,
    /// Those of them with most mail.
    pub destinations: Vec<Lane>,
}

/// One counter over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// What is counted: `accepted`, `delivered` ...
    pub what: String,
    /// Since the start.
    pub total: u64,
    /// In a minute, over the last minute; None in the first seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<f64>,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// Its name.
    pub destination: String,
    /// Messages that could be tried now.
    pub ready: usize,
    /// Messages that wait for a later time.
    pub put_off: usize,
    /// Attempts under way.
    pub running: usize,
    /// Why it is left alone, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
    /// Seconds until it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_in: Option<u64>,
}

impl Message {
    /// What is shown of a message, with the last replies in the order of its recipients.
    fn of(look: &Look, replies: Vec<orders::Reply>, now: SystemTime) -> Message {
        let mut replies = replies.into_iter().peekable();
        let mut reply = |at: usize| loop {
            let reply = replies.next_if(|reply| reply.recipient <= at)?;
            if reply.recipient == at {
                return Some(Reply {
                    text: reply.text,
                    at: timestamp(reply.at),
                    attempt: reply.attempt,
                });
            }
        };
        let envelope = &look.envelope;
        let recipients = envelope.recipients.iter().enumerate();
        Message {
            id: look.id.to_string(),
            state: State::of(look, now),
            from: match &envelope.from {
                ReversePath::Null => String::new(),
                ReversePath::Address(address) => address.to_string(),
            },
            recipients: recipients
                .map(|(at, recipient)| Recipient {
                    address: recipient.address.to_string(),
                    open: look.open.contains(&at),
                    reply: reply(at),
                })
                .collect(),
            size: look.size,
            arrived: timestamp(look.arrived),
            due: timestamp(look.due),
            attempts: look.attempts,
            held: look.held.clone(),
            client: envelope.client.map(|client| client.to_string()),
            login: envelope.login.clone(),
            header: None,
        }
    }
}

impl From<Destination> for Lane {
    fn from(destination: Destination) -> Lane {
        let (down, again_in) = destination.down.unzip();
        Lane {
            destination: destination.name,
            ready: destination.ready,
            put_off: destination.put_off,
            running: destination.running,
            down,
            again_in: again_in.map(|wait| wait.as_secs()),
        }
    }
}

/// To the second, which is all that the queue keeps of some times.
fn timestamp(time: SystemTime) -> Timestamp {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = seconds.map_or(0, |since| since.as_secs() as i64);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
