//! Dovecot's authentication service: it knows the users, we carry the words.
//!
//! All logins share one connection, which is made anew when it is lost (`link`). A Dovecot that is away
//! leads to a word that nobody can tell now, at once or within seconds; it never lets anybody in, and
//! never holds anybody up. Protocol 1 as Dovecot 2.2 and later speak it; `line` reads what it says.

mod line;
mod link;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Client;
use super::Verdict;
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::Secret;

use self::link::Address;
use self::link::Answer;
use self::link::Request;
use self::link::Said;
use self::link::Ticket;

/// How many requests may wait to be sent.
const LINE: usize = 64;

/// One login that Dovecot judges.
pub struct Dialogue {
    mechanism: Mechanism,
    client: Client,
    /// Where Dovecot waits for an answer to its challenge.
    ticket: Option<Ticket>,
}

/// What Dovecot says.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Send this to the client; its answer is the next message.
    Challenge(Vec<u8>),
    /// The end of it.
    Verdict(Verdict),
}

impl Dialogue {
    /// One of which nothing was said yet.
    pub fn new(mechanism: Mechanism, client: Client) -> Dialogue {
        Dialogue {
            mechanism,
            client,
            ticket: None,
        }
    }
}

/// The service, and the connection to it, which ends when it is dropped.
pub(super) struct Dovecot {
    requests: mpsc::Sender<Request>,
    /// The mechanisms that Dovecot named last; None before it was reached for the first time.
    offered: Arc<ArcSwapOption<Vec<String>>>,
    timeout: Duration,
    _link: JoinSet<()>,
}

impl Dovecot {
    pub(super) fn unix(path: PathBuf, timeout: Duration) -> Dovecot {
        Dovecot::start(Address::Unix(path), timeout)
    }

    pub(super) fn tcp(address: String, timeout: Duration) -> Dovecot {
        Dovecot::start(Address::Tcp(address), timeout)
    }

    fn start(address: Address, timeout: Duration) -> Dovecot {
        let (requests, incoming) = mpsc::channel(LINE);
        let offered = Arc::new(ArcSwapOption::empty());
        let mut link = JoinSet::new();
        link.spawn(link::run(address, incoming, Arc::clone(&offered), timeout));
        Dovecot {
            requests,
            offered,
            timeout,
            _link: link,
        }
    }

    /// Whether Dovecot has the mechanism. Before it was reached, what every Dovecot has: a client that is
    /// told to try again is better off than one that finds no way to log in.
    pub(super) fn offers(&self, mechanism: &str) -> bool {
        match &*self.offered.load() {
            Some(offered) => offered
                .iter()
                .any(|name| name.eq_ignore_ascii_case(mechanism)),
            None => mechanism == Mechanism::Plain.name(),
        }
    }

    /// What Dovecot says to the client's next message; None where the client sent none with AUTH.
    pub(super) async fn respond(&self, dialogue: &mut Dialogue, message: Option<Secret>) -> Turn {
        let message = message.map(|secret| BASE64_STANDARD.encode(secret.expose()));
        let said = match dialogue.ticket.take() {
            None => Said::Begin {
                mechanism: dialogue.mechanism.name(),
                client: dialogue.client,
                message,
            },
            Some(ticket) => Said::Go {
                ticket,
                message: message.unwrap_or_default(),
            },
        };
        let unsure = |reason: &str| {
            Turn::Verdict(Verdict::Unsure {
                reason: reason.to_owned(),
            })
        };
        let (answer, answered) = oneshot::channel();
        match self.requests.try_send(Request { said, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return unsure("too many logins wait for Dovecot"),
            Err(TrySendError::Closed(_)) => return unsure("the connection to Dovecot has ended"),
        }
        match tokio::time::timeout(self.timeout, answered).await {
            Err(_) => unsure("Dovecot did not answer in time"),
            Ok(Err(_)) => unsure("the connection to Dovecot was lost"),
            Ok(Ok(Answer::Unsure(reason))) => unsure(&reason),
            Ok(Ok(Answer::Challenge { ticket, octets })) => {
                dialogue.ticket = Some(ticket);
                Turn::Challenge(octets)
            }
            Ok(Ok(Answer::Granted(login))) => Turn::Verdict(Verdict::Granted(login)),
            Ok(Ok(Answer::Refused { user, reason })) => {
                Turn::Verdict(Verdict::Refused { user, reason })
            }
        }
    }
}
