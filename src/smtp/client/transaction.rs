//! One message to one server: what to send, and what its replies mean for each recipient
//! (RFC 5321 §3.3, RFC 2033 §4.2, RFC 2920, RFC 3030, RFC 6152, RFC 6531, RFC 3461).
//!
//! The caller does what [`Transaction::step`] says, then hands each reply that
//! [`Transaction::waiting`] names to [`Transaction::heard`], until the step is `Done`. A server that
//! takes PIPELINING and CHUNKING gets commands and message in one go; one that takes PIPELINING gets
//! all commands in one go; any other one command at a time.
//!
//! What the server cannot take is refused here, before anything is sent: a message too large, with
//! octets or addresses that it has no extension for.

use std::collections::VecDeque;

use super::Protocol;
use super::capabilities::Capabilities;
use super::commands;
use super::response::Class;
use super::response::Response;
use super::shape::Shape;
use crate::mail::envelope::Envelope;

/// Larger messages wait for the server's answer to the recipients, so that they are not sent in vain.
const CHUNK_LIMIT: u64 = 1 << 20;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Say(Vec<u8>),
    /// Send this, and behind it the message as it is ([`super::dots::plain`]).
    SayWithMessage(Vec<u8>),
    /// Send the message ([`super::dots::dotted`]).
    Message,
    /// There is nothing more to do: see [`Transaction::end`].
    Done,
}

/// Which reply comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The one to MAIL FROM.
    Mail,
    /// Holds the recipient's place in the list that the transaction was made from.
    Rcpt(usize),
    /// The one to DATA: 354, or a refusal.
    Data,
    /// After the message: one for all.
    Last,
    /// After the message: the one for this recipient (RFC 2033 §4.2).
    LastFor(usize),
}

/// In what state a transaction leaves the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// Ready for the next MAIL.
    Ready,
    /// Ready once RSET was answered.
    ResetFirst,
    /// Of no use.
    Spent,
}

/// A reply that the protocol has no meaning for at this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unexpected reply {0}")]
pub struct Unexpected(pub Response);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Lockstep,
    Pipelined,
    Chunked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Mail,
    /// How many recipients were named.
    Rcpt(usize),
    Data,
    Message,
    End,
}

/// The state of one transaction.
#[derive(Debug)]
pub struct Transaction {
    protocol: Protocol,
    manner: Manner,
    stage: Stage,
    mail: String,
    /// Place and command of each recipient that the server is asked about.
    named: Vec<(usize, String)>,
    size: u64,
    /// By place. None is not settled yet.
    answers: Vec<Option<Response>>,
    accepted: Vec<usize>,
    waits: VecDeque<Wait>,
    mail_accepted: bool,
    knows_no_bdat: bool,
    connection: Connection,
}

impl Transaction {
    /// Plans the delivery to the recipients `which` of `envelope`. An index outside of it is passed over
    /// and stays without an answer.
    pub fn new(
        protocol: Protocol,
        offered: &Capabilities,
        envelope: &Envelope,
        which: &[usize],
        shape: Shape,
    ) -> Transaction {
        let manner = match (offered.pipelining, offered.chunking) {
            (true, true) if shape.size <= CHUNK_LIMIT => Manner::Chunked,
            (true, _) => Manner::Pipelined,
            (false, _) => Manner::Lockstep,
        };
        let mut transaction = Transaction {
            protocol,
            manner,
            stage: Stage::Mail,
            mail: String::new(),
            named: Vec::with_capacity(which.len()),
            size: shape.size,
            answers: vec![None; which.len()],
            accepted: Vec::with_capacity(which.len()),
            waits: VecDeque::with_capacity(which.len() + 2),
            mail_accepted: false,
            knows_no_bdat: false,
            connection: Connection::Ready,
        };
        transaction.plan(offered, envelope, which, shape);
        transaction
    }

    fn plan(&mut self, offered: &Capabilities, envelope: &Envelope, which: &[usize], shape: Shape) {
        if let Some(refusal) = commands::refused_for_all(offered, envelope, shape) {
            self.answers.fill(Some(refusal));
            return;
        }
        let mut smtputf8 = commands::needs_smtputf8(envelope, shape);
        let recipients = which
            .iter()
            .enumerate()
            .filter_map(|(place, index)| Some((place, envelope.recipients.get(*index)?)));
        for (place, recipient) in recipients {
            if !recipient.address.is_ascii() {
                if !offered.smtputf8 {
                    self.answers[place] = Some(commands::no_utf8_address()); // RFC 6531 §3.5
                    continue;
                }
                smtputf8 = true;
            }
            self.named.push((place, commands::rcpt(offered, recipient)));
        }
        self.mail = commands::mail(offered, envelope, shape, smtputf8);
    }

    /// What to do next. To be called when [`Transaction::waiting`] is None.
    pub fn step(&mut self) -> Step {
        match self.stage {
            Stage::Mail if self.named.is_empty() => self.finish(),
            Stage::Mail => self.begin(),
            Stage::Rcpt(_) if !self.mail_accepted => self.finish(),
            Stage::Rcpt(named) => self.name_next(named),
            Stage::Data => self.finish(),
            Stage::Message => {
                self.stage = Stage::End;
                self.expect_last();
                Step::Message
            }
            Stage::End => Step::Done,
        }
    }

    fn finish(&mut self) -> Step {
        self.stage = Stage::End;
        Step::Done
    }

    fn begin(&mut self) -> Step {
        self.waits.push_back(Wait::Mail);
        let mut lines = self.mail.clone().into_bytes();
        if self.manner == Manner::Lockstep {
            self.stage = Stage::Rcpt(0);
            return Step::Say(lines);
        }
        for (place, line) in &self.named {
            lines.extend_from_slice(line.as_bytes());
            self.waits.push_back(Wait::Rcpt(*place));
        }
        if self.manner == Manner::Chunked {
            // RFC 3030 §4.2: the replies to BDAT are known in number once the recipients are answered.
            self.stage = Stage::End;
            lines.extend_from_slice(format!("BDAT {} LAST\r\n", self.size).as_bytes());
            return Step::SayWithMessage(lines);
        }
        // RFC 2920 §3.1: DATA ends the group, as its reply decides what comes next.
        lines.extend_from_slice(b"DATA\r\n");
        self.waits.push_back(Wait::Data);
        self.stage = Stage::Data;
        Step::Say(lines)
    }

    fn name_next(&mut self, named: usize) -> Step {
        if let Some((place, line)) = self.named.get(named) {
            self.waits.push_back(Wait::Rcpt(*place));
            self.stage = Stage::Rcpt(named + 1);
            return Step::Say(line.clone().into_bytes());
        }
        if self.accepted.is_empty() {
            return self.finish();
        }
        self.waits.push_back(Wait::Data);
        self.stage = Stage::Data;
        Step::Say(b"DATA\r\n".to_vec())
    }

    fn expect_last(&mut self) {
        match self.protocol {
            Protocol::Lmtp if !self.accepted.is_empty() => {
                let places = self.accepted.iter().map(|place| Wait::LastFor(*place));
                self.waits.extend(places); // RFC 2033 §4.2
            }
            // Nobody accepted: one reply that says so, in LMTP too.
            Protocol::Lmtp | Protocol::Smtp => self.waits.push_back(Wait::Last),
        }
    }

    /// The reply that has to be read next; None when it is time for the next step.
    pub fn waiting(&self) -> Option<Wait> {
        self.waits.front().copied()
    }

    /// Takes the reply that [`Transaction::waiting`] named.
    ///
    /// # Errors
    /// [`Unexpected`] for a reply of a class that makes no sense here. The connection is spent then, and
    /// whoever has no answer yet has to be tried again.
    pub fn heard(&mut self, response: Response) -> Result<(), Unexpected> {
        let Some(wait) = self.waits.pop_front() else {
            return self.confused(response);
        };
        if response.is_goodbye() {
            self.goodbye(&response);
            return Ok(());
        }
        match (wait, response.class()) {
            (Wait::Data, Class::GoOn) => self.go_ahead(),
            (_, Class::GoOn) | (Wait::Data, Class::Done) => return self.confused(response),
            (Wait::Mail, Class::Done) => {
                self.mail_accepted = true;
                self.connection = Connection::ResetFirst;
            }
            (Wait::Mail, Class::Later | Class::Never) => self.settle_all(&response),
            (Wait::Rcpt(place), Class::Done) => {
                // After a refused MAIL the recipients are settled; what the server says of them is void.
                if self.answers[place].is_none() {
                    self.accepted.push(place);
                }
            }
            (Wait::Rcpt(place), Class::Never) if is_too_many(&response) => {
                let text = format!("the next hop takes fewer recipients at once: {response}");
                self.settle(place, Response::ours(452, (4, 5, 3), &text));
            }
            (Wait::Rcpt(place), Class::Later | Class::Never) => self.settle(place, response),
            (Wait::Data, Class::Later | Class::Never) => self.settle_all(&response),
            (Wait::Last | Wait::LastFor(_), Class::Never) if self.is_no_bdat(wait, &response) => {
                self.knows_no_bdat = true;
                self.waits.clear();
                self.connection = Connection::Spent;
            }
            (Wait::Last, class) => {
                self.settle_all(&response);
                self.message_answered(class);
            }
            (Wait::LastFor(place), class) => {
                self.settle(place, response);
                self.message_answered(class);
            }
        }
        if self.manner == Manner::Chunked && self.waits.is_empty() && self.is_before_last(wait) {
            self.expect_last();
        }
        Ok(())
    }

    /// Whether a server that offers CHUNKING does not know it after all, as where something between us
    /// passes on the offer and not the command. It may take the message for commands, too.
    fn is_no_bdat(&self, wait: Wait, response: &Response) -> bool {
        let first = self.accepted.first();
        self.manner == Manner::Chunked
            && first.is_some_and(|first| [Wait::Last, Wait::LastFor(*first)].contains(&wait))
            && matches!(response.code, 500 | 502) // RFC 5321 §4.2.4
    }

    fn is_before_last(&self, wait: Wait) -> bool {
        matches!(wait, Wait::Mail | Wait::Rcpt(_))
    }

    fn go_ahead(&mut self) {
        if self.accepted.is_empty() {
            // RFC 2920 §3.1 would have us send a lone dot; hanging up says the same in both protocols.
            self.connection = Connection::Spent;
            return;
        }
        self.stage = Stage::Message;
    }

    fn message_answered(&mut self, class: Class) {
        let failed_chunk = self.manner == Manner::Chunked && class != Class::Done;
        if self.waits.is_empty() && self.connection != Connection::Spent {
            // RFC 3030 §2: after a failed BDAT the transaction is over only with RSET.
            self.connection = match self.mail_accepted && failed_chunk {
                true => Connection::ResetFirst,
                false => Connection::Ready,
            };
        }
    }

    fn goodbye(&mut self, response: &Response) {
        self.settle_all(response);
        self.waits.clear();
        self.stage = Stage::End;
        self.connection = Connection::Spent;
    }

    fn confused(&mut self, response: Response) -> Result<(), Unexpected> {
        self.waits.clear();
        self.stage = Stage::End;
        self.connection = Connection::Spent;
        Err(Unexpected(response))
    }

    fn settle(&mut self, place: usize, response: Response) {
        if let Some(answer @ None) = self.answers.get_mut(place) {
            *answer = Some(response);
        }
    }

    /// Settles whom the server was asked about and has not answered.
    fn settle_all(&mut self, response: &Response) {
        for (place, _) in &self.named {
            self.answers[*place].get_or_insert_with(|| response.clone());
        }
    }

    /// Whether the server has taken MAIL. Before that, the same can be tried on another connection.
    pub fn is_begun(&self) -> bool {
        self.mail_accepted
    }

    /// Whether the server refused BDAT as such. The same can be tried on another connection, without it.
    pub fn knows_no_bdat(&self) -> bool {
        self.knows_no_bdat
    }

    /// Ends the transaction: the answer for each recipient in the order of `which` (None where the
    /// connection broke before there was one), and what to do with the connection.
    pub fn end(self) -> (Vec<Option<Response>>, Connection) {
        let connection = match self.stage {
            Stage::End if self.waits.is_empty() => self.connection,
            _ => Connection::Spent,
        };
        (self.answers, connection)
    }
}

/// Whether a refused RCPT is one too many and not a wrong one: 552 once stood for that, and a client
/// is to take it for 452. A mailbox that is full says so by its enhanced code.
fn is_too_many(rcpt: &Response) -> bool {
    rcpt.code == 552 && matches!(rcpt.enhanced, None | Some((5, 5, 3))) // RFC 5321 §4.5.3.1.10
}

#[cfg(test)]
#[path = "transaction_tests.rs"]
mod tests;
