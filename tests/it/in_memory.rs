//! Plays the dialogues against the protocol alone, without a network, however the bytes are cut.
//!
//! What the session does with a socket is done here with a buffer; what the pipeline decides is a
//! list of recipients, and that a message has an author; one user may log in.

use std::fs;
use std::mem;
use std::sync::Arc;

use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ForwardPath;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;
use gatepost::smtp::command::Chunk;
use gatepost::smtp::data::Limits;
use gatepost::smtp::data::Progress;
use gatepost::smtp::data::Receiver;
use gatepost::smtp::line;
use gatepost::smtp::line::Line;
use gatepost::smtp::reply::Refusal;
use gatepost::smtp::reply::Reply;
use gatepost::smtp::sasl;
use gatepost::smtp::sasl::Exchange;
use gatepost::smtp::sasl::Mechanism;
use gatepost::smtp::sasl::Secret;
use gatepost::smtp::sasl::scram::Bindings;
use gatepost::smtp::server::Login;
use gatepost::smtp::server::Question;
use gatepost::smtp::server::Rules;
use gatepost::smtp::server::Server;
use gatepost::smtp::server::Step;
use gatepost::smtp::server::Tls;

use crate::dialogues::files;
use crate::dialogues::is_submission;
use crate::support::dialogue;
use crate::support::dialogue::Turn;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::RECIPIENTS;

/// What the next octets are.
enum Expecting {
    Command,
    Message,
    Chunk { size: u64, rest: u64, chunk: Chunk },
    Nothing { rest: u64, reply: Reply },
    Handshake,
    End,
}

/// One session: octets in, replies out.
struct Session {
    server: Server,
    expecting: Expecting,
    input: Vec<u8>,
    output: Vec<u8>,
    receiver: Receiver,
    message: Vec<u8>,
    exchange: Option<Exchange>,
}

fn receiver() -> Receiver {
    Receiver::new(Limits {
        size: 1_000_000,
        line: 65_536,
    })
}

impl Session {
    fn new(is_submission: bool) -> Session {
        let rules = Rules {
            hostname: Domain::parse(HOSTNAME).expect("a name"),
            size: 1_000_000,
            recipients: 100,
            errors: 20,
            transactions: 100,
        };
        let mut server = Server::new(Arc::new(rules), Tls::Offered);
        if is_submission {
            server.require_login(vec![Mechanism::Plain, Mechanism::Login]);
        }
        let mut output = Vec::new();
        server.greeting().write(&mut output);
        Session {
            server,
            expecting: Expecting::Command,
            input: Vec::new(),
            output,
            receiver: receiver(),
            message: Vec::new(),
            exchange: None,
        }
    }

    fn feed(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while let Some(step) = self.advance() {
            self.perform(step);
        }
    }

    /// The next step that what has come so far leads to.
    fn advance(&mut self) -> Option<Step> {
        match mem::replace(&mut self.expecting, Expecting::Command) {
            Expecting::Command => self.advance_command(),
            Expecting::Message => match self.receiver.dotted(&self.input, &mut self.message) {
                Progress::More => {
                    self.input.clear();
                    self.expecting = Expecting::Message;
                    None
                }
                Progress::End { taken } => {
                    self.input.drain(..taken);
                    Some(self.server.data_received(self.receiver.fault()))
                }
            },
            Expecting::Chunk { size, rest, chunk } => {
                let rest = rest - self.take_chunk(rest);
                if rest > 0 {
                    self.expecting = Expecting::Chunk { size, rest, chunk };
                    return None;
                }
                let fault = self.receiver.fault();
                Some(self.server.chunk_received(size, chunk, fault))
            }
            Expecting::Nothing { rest, reply } => {
                let taken = self.input.len().min(size_of(rest));
                self.input.drain(..taken);
                let rest = rest - taken as u64;
                if rest > 0 {
                    self.expecting = Expecting::Nothing { rest, reply };
                    return None;
                }
                Some(Step::Reply(reply))
            }
            ended @ (Expecting::Handshake | Expecting::End) => {
                self.expecting = ended;
                None
            }
        }
    }

    fn advance_command(&mut self) -> Option<Step> {
        match line::first(&self.input, self.server.line_limit())? {
            Line::Whole(length) => {
                let line: Vec<u8> = self.input.drain(..length + 2).collect();
                Some(self.server.command(&line[..length]))
            }
            Line::BareNewline => Some(Step::Close(Reply::BARE_NEWLINE_IN_COMMAND)),
            Line::TooLong => Some(Step::Close(self.server.line_too_long(&self.input))),
        }
    }

    fn take_chunk(&mut self, rest: u64) -> u64 {
        let taken = self.input.len().min(size_of(rest));
        let octets: Vec<u8> = self.input.drain(..taken).collect();
        self.receiver.chunk(&octets, &mut self.message);
        taken as u64
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Reply(reply) => reply.write(&mut self.output),
            Step::Close(reply) => {
                reply.write(&mut self.output);
                self.expecting = Expecting::End;
            }
            Step::StartTls(reply) => {
                reply.write(&mut self.output);
                self.expecting = Expecting::Handshake;
            }
            Step::ReceiveData(reply) => {
                reply.write(&mut self.output);
                self.expecting = Expecting::Message;
            }
            Step::RefuseData(reply) => {
                reply.write(&mut self.output);
                if !self.input.is_empty() {
                    self.expecting = Expecting::End;
                }
            }
            Step::ReceiveChunk { size, chunk } => {
                let rest = size;
                self.expecting = Expecting::Chunk { size, rest, chunk };
            }
            Step::SkipChunk { size, reply } => {
                self.expecting = Expecting::Nothing { rest: size, reply };
            }
            Step::Ask(question) => {
                let step = self.answer(question);
                self.perform(step);
            }
        }
        if self.server.transaction().is_none() {
            self.receiver = receiver();
            self.message.clear();
        }
    }

    fn answer(&mut self, question: Question) -> Step {
        match question {
            Question::Recipient(to) => {
                let answer = recipient(&to);
                self.server.recipient_answered(answer)
            }
            Question::Message(_) => {
                let id = SpoolId {
                    session: SessionId(1),
                    serial: self.server.serial(),
                };
                let has_author = self.message.starts_with(b"From: ");
                let answer = has_author.then(|| Reply::stored(id));
                let answer = answer.ok_or_else(|| Refusal::bad_author("no From field"));
                self.server.message_answered(answer)
            }
            Question::Login { mechanism, initial } => {
                self.exchange = Exchange::begin(mechanism, Bindings::default(), "x".to_owned());
                let answer = self.login(initial);
                self.server.login_answered(answer)
            }
            Question::Response(response) => {
                let answer = self.login(Some(response));
                self.server.login_answered(answer)
            }
        }
    }

    fn login(&mut self, message: Option<Secret>) -> Login {
        let exchange = self.exchange.as_mut().expect("a login has begun");
        match exchange.take(message.as_ref().map(Secret::expose)) {
            sasl::Turn::Challenge(octets) => Login::Challenge(octets),
            sasl::Turn::Password(credentials) => {
                let is_ann = credentials.name == "ann" && credentials.authorize_as.is_none();
                match is_ann && credentials.password.expose() == b"tanstaaftanstaaf" {
                    true => Login::Granted(credentials.name),
                    false => Login::Refused(Refusal::login_failed()),
                }
            }
            _ => Login::Refused(Refusal::login_malformed()),
        }
    }

    /// The handshake is done.
    fn secure(&mut self) -> Result<(), String> {
        if !matches!(self.expecting, Expecting::Handshake) {
            return Err("no handshake is due".to_owned());
        }
        self.server.tls_started();
        self.expecting = Expecting::Command;
        Ok(())
    }

    /// Takes the first of the replies that were said and not yet taken.
    fn next_reply(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.output).into_owned();
        let mut lines = Vec::new();
        let mut taken = 0;
        for line in text.split_inclusive("\r\n") {
            taken += line.len();
            let line = line.trim_end();
            lines.push(line);
            if line.as_bytes().get(3) != Some(&b'-') {
                self.output.drain(..taken);
                return Some(lines.join("\n"));
            }
        }
        None
    }
}

fn size_of(rest: u64) -> usize {
    usize::try_from(rest).unwrap_or(usize::MAX)
}

/// What the usual site says of a recipient.
fn recipient(to: &ForwardPath) -> Result<Address, Refusal> {
    let address = match to {
        ForwardPath::Address(address) => address.clone(),
        ForwardPath::Postmaster => Address::parse("postmaster@gate.example").expect("an address"),
    };
    let text = address.to_string().to_lowercase();
    if !text.ends_with("@gate.example") {
        return Err(Refusal::relay_denied(&address));
    }
    let known = RECIPIENTS.contains(&text.as_str());
    known
        .then_some(address)
        .ok_or_else(|| Refusal::unknown_user(to))
}

/// Plays a dialogue; the octet number `cut` of the client's is the first of a packet of its own.
fn play(turns: &[Turn], cut: usize, is_submission: bool) -> Result<(), String> {
    let mut session = Session::new(is_submission);
    let mut sent = 0;
    let mut said = String::new();
    for turn in turns {
        match turn {
            Turn::Client(octets) => {
                let at = cut.saturating_sub(sent).min(octets.len());
                session.feed(&octets[..at]);
                session.feed(&octets[at..]);
                sent += octets.len();
                said = String::from_utf8_lossy(&octets[..octets.len().min(70)]).into_owned();
            }
            Turn::Server(pattern) => {
                let reply = session.next_reply();
                if !reply
                    .as_ref()
                    .is_some_and(|reply| dialogue::matches(pattern, reply))
                {
                    return Err(format!("{said:?} was answered {reply:?}, not {pattern:?}"));
                }
            }
            Turn::Tls => session.secure()?,
            Turn::Close => {
                if !matches!(session.expecting, Expecting::End) || !session.output.is_empty() {
                    return Err(format!("the session goes on after {said:?}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn dialogues_go_in_memory_as_written_wherever_they_are_cut() {
    let mut faults = Vec::new();
    for file in files() {
        let name = file.file_stem().expect("a file").display().to_string();
        let text = fs::read_to_string(&file).expect("a dialogue");
        let turns = dialogue::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let length: usize = turns
            .iter()
            .map(|turn| match turn {
                Turn::Client(octets) => octets.len(),
                Turn::Server(_) | Turn::Tls | Turn::Close => 0,
            })
            .sum();
        let is_submission = is_submission(&file);
        let broken = (0..=length).find_map(|cut| {
            let fault = play(&turns, cut, is_submission).err()?;
            Some((cut, fault))
        });
        if let Some((cut, fault)) = broken {
            faults.push(format!("{name}, cut at {cut}: {fault}"));
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}
