//! The server's half of the dialogue: whatever is said, in whatever order, and whatever the policy
//! answers, a message is asked for only with a sender and recipients that were granted.
//!
//! An input is a script. Each line is what comes next: a command, or where the server asked for
//! something else, what came of it. `yes` grants a recipient, stores a message, and shakes hands; `whole`
//! is a message or chunk without fault; `bare`, `large` and `long` are such with one; `later` is a
//! refusal for now, and anything else one for good. A script whose first line is `submission` has to log
//! in; there `yes` grants it, and `more` is a challenge.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::lines;
use super::replies::assert_well_formed;
use super::run;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::ForwardPath;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::smtp::command;
use crate::smtp::command::Command;
use crate::smtp::data::Fault;
use crate::smtp::reply::Refusal;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Mechanism;
use crate::smtp::server::Login;
use crate::smtp::server::Question;
use crate::smtp::server::Rules;
use crate::smtp::server::Server;
use crate::smtp::server::Step;
use crate::smtp::server::Tls;

const SIZE: u64 = 1000;
const RECIPIENTS: usize = 3;
const ERRORS: u32 = 8;
const TRANSACTIONS: u32 = 4;

/// What the client may believe by the replies that it got.
#[derive(Debug, Default, PartialEq, Eq)]
struct Client {
    is_greeted: bool,
    sender: Option<ReversePath>,
    granted: Vec<Address>,
    octets: u64,
    /// A chunk was taken, so that only more of them may come.
    within_chunks: bool,
    is_in: bool,
}

struct Game<'a> {
    server: Server,
    client: Client,
    script: Box<dyn Iterator<Item = &'a [u8]> + 'a>,
    is_secure: bool,
    /// Clients have to log in.
    is_submission: bool,
    /// The next line is no command.
    is_challenged: bool,
    refusals: u32,
    senders: u32,
    stored: u32,
    /// Which replies there were, to which words.
    seen: BTreeSet<(u16, &'static str)>,
    is_closed: bool,
}

#[test]
fn no_dialogue_leads_to_a_message_without_a_sender_and_granted_recipients() {
    run("dialogue", |input| {
        let rules = Rules {
            hostname: Domain::parse("mx.example").unwrap(),
            size: SIZE,
            recipients: RECIPIENTS,
            errors: ERRORS,
            transactions: TRANSACTIONS,
        };
        let mut game = Game {
            server: Server::new(Arc::new(rules), Tls::Offered),
            client: Client::default(),
            script: Box::new(lines(input)),
            is_secure: false,
            is_submission: false,
            is_challenged: false,
            refusals: 0,
            senders: 0,
            stored: 0,
            seen: BTreeSet::new(),
            is_closed: false,
        };
        if input.starts_with(b"submission\n") {
            game.script.next();
            game.is_submission = true;
            game.server
                .require_login(vec![Mechanism::Plain, Mechanism::Login]);
        }
        game.said(&game.server.greeting(), "greeting");
        while let Some(line) = game.script.next() {
            game.command(line);
            if game.is_closed {
                break;
            }
            game.check();
        }
        (game.seen, game.stored, game.is_secure)
    });
}

impl Game<'_> {
    fn command(&mut self, line: &[u8]) {
        let is_command = !std::mem::take(&mut self.is_challenged);
        let said = command::parse(line).ok().filter(|_| is_command);
        let step = self.server.command(line);
        self.take(step, said);
    }

    /// Does what a session does for the step.
    fn take(&mut self, step: Step, said: Option<Command>) {
        match step {
            Step::Reply(reply) => self.replied(&reply, said),
            Step::Close(reply) => {
                self.said(&reply, "close");
                self.is_closed = true;
            }
            Step::StartTls(reply) => self.start_tls(&reply),
            Step::Ask(Question::Recipient(path)) => self.recipient(&path),
            Step::Ask(Question::Message(envelope)) => self.message(&envelope),
            Step::Ask(Question::Login { .. } | Question::Response(_)) => self.login(),
            Step::ReceiveData(reply) => {
                assert_eq!(reply.code, 354);
                self.said(&reply, "data");
                assert!(!self.client.within_chunks);
                let fault = self.fault();
                let step = self.server.data_received(fault);
                let is_lost = fault == Some(Fault::BareNewline);
                assert_eq!(matches!(step, Step::Close(_)), is_lost);
                self.received(step, fault);
            }
            Step::RefuseData(reply) => {
                assert!(reply.is_refusal());
                self.said(&reply, "no data");
            }
            Step::ReceiveChunk { size, chunk } => {
                self.client.octets = self.client.octets.checked_add(size).unwrap();
                self.client.within_chunks = true;
                assert!(self.client.octets <= SIZE, "more octets than the limit");
                let fault = self.fault();
                let step = self.server.chunk_received(size, chunk, fault);
                self.received(step, fault);
            }
            Step::SkipChunk { size, reply } => {
                assert!(size <= SIZE && reply.is_refusal());
                self.said(&reply, "no chunk");
            }
        }
    }

    /// What the client learns from the reply to a command.
    fn replied(&mut self, reply: &Reply, said: Option<Command>) {
        self.said(reply, "reply");
        let Some(said) = said else {
            assert!(reply.is_refusal());
            return;
        };
        if reply.is_refusal() {
            return;
        }
        match said {
            Command::Ehlo(_) | Command::Helo(_) => {
                self.reset();
                self.client.is_greeted = true;
                let offered = reply.text.contains("\nSTARTTLS");
                let is_extended = matches!(said, Command::Ehlo(_));
                assert_eq!(offered, is_extended && !self.is_secure);
                let offered = reply.text.contains("\nAUTH PLAIN LOGIN");
                let is_offered = self.is_submission && self.is_secure;
                assert_eq!(offered, is_extended && is_offered);
            }
            Command::Rset => self.reset(),
            Command::Mail(mail) => {
                assert!(self.client.is_greeted, "MAIL before EHLO");
                assert_eq!(self.client.is_in, self.is_submission, "MAIL before AUTH");
                assert_eq!(self.client.sender, None, "MAIL within a transaction");
                assert!(mail.size.is_none_or(|size| size <= SIZE));
                self.client.sender = Some(mail.from);
                self.senders += 1;
            }
            Command::Noop | Command::Vrfy | Command::Help => {}
            said => panic!("{said:?} was answered {reply}"),
        }
    }

    fn login(&mut self) {
        assert!(self.is_submission && self.is_secure && self.client.is_greeted);
        assert!(!self.client.is_in && self.client.sender.is_none());
        let answer = match self.next() {
            b"yes" => Login::Granted("ann".to_owned()),
            b"more" => Login::Challenge(b"Password:".to_vec()),
            b"later" => Login::Refused(Refusal::login_unsure()),
            _ => Login::Refused(Refusal::login_failed()),
        };
        let Step::Reply(reply) = self.server.login_answered(answer) else {
            panic!("no reply to AUTH");
        };
        self.client.is_in = reply.code == 235;
        self.is_challenged = reply.code == 334;
        assert!(self.client.is_in || self.is_challenged || reply.is_refusal());
        self.said(&reply, "auth");
    }

    fn recipient(&mut self, path: &ForwardPath) {
        assert!(self.client.sender.is_some(), "RCPT before MAIL");
        assert!(!self.client.within_chunks, "RCPT after BDAT");
        let address = match path {
            ForwardPath::Address(address) => address.clone(),
            ForwardPath::Postmaster => Address::parse("postmaster@mx.example").unwrap(),
        };
        let answer = match self.next() {
            b"yes" => Ok(address.clone()),
            b"later" => Err(Refusal::user_unsure(path)),
            _ => Err(Refusal::unknown_user(path)),
        };
        let is_granted = answer.is_ok();
        let Step::Reply(reply) = self.server.recipient_answered(answer) else {
            panic!("no reply to RCPT");
        };
        assert_eq!(reply.is_refusal(), !is_granted);
        self.said(&reply, "rcpt");
        if is_granted {
            self.client.granted.push(address);
        }
        assert!(self.client.granted.len() <= RECIPIENTS);
    }

    /// What comes of a message or a chunk that was read.
    fn received(&mut self, step: Step, fault: Option<Fault>) {
        match (&step, fault) {
            (Step::Ask(Question::Message(_)), None) => {}
            (Step::Reply(reply), None) => assert_eq!(reply.code, 250),
            (Step::Reply(reply) | Step::Close(reply), Some(_)) => {
                assert!(reply.code >= 500);
                self.reset();
            }
            (step, fault) => panic!("{fault:?} leads to {step:?}"),
        }
        match step {
            Step::Reply(reply) => self.said(&reply, "received"),
            step => self.take(step, None),
        }
    }

    fn message(&mut self, envelope: &Envelope) {
        assert_eq!(Some(&envelope.from), self.client.sender.as_ref());
        let login = self.client.is_in.then_some("ann");
        assert_eq!(envelope.login.as_deref(), login);
        let asked: Vec<_> = envelope
            .recipients
            .iter()
            .map(|to| to.address.clone())
            .collect();
        assert_eq!(asked, self.client.granted);
        assert!((1..=RECIPIENTS).contains(&asked.len()));
        self.reset();
        let id = SpoolId {
            session: SessionId(1),
            serial: self.server.serial(),
        };
        let answer = match self.next() {
            b"yes" => Ok(Reply::stored(id)),
            b"later" => Err(Refusal::no_space()),
            _ => Err(Refusal::dmarc_reject("a.example")),
        };
        self.stored += u32::from(answer.is_ok());
        let is_stored = answer.is_ok();
        let Step::Reply(reply) = self.server.message_answered(answer) else {
            panic!("no reply to the message");
        };
        assert_eq!(reply.code == 250, is_stored);
        assert_eq!(reply.is_refusal(), !is_stored);
        self.said(&reply, "message");
    }

    /// RFC 3207 §4.2: after the handshake nothing is known of what was said before.
    fn start_tls(&mut self, reply: &Reply) {
        assert!(!self.is_secure, "TLS within TLS");
        assert_eq!(reply.code, 220);
        self.said(reply, "starttls");
        if self.next() != b"yes" {
            self.is_closed = true;
            return;
        }
        self.server.tls_started();
        self.is_secure = true;
        self.client = Client::default();
        assert_eq!(self.server.hello(), None);
    }

    fn check(&self) {
        let transaction = self.server.transaction();
        assert_eq!(transaction.is_some(), self.client.sender.is_some());
        if let Some(transaction) = transaction {
            assert_eq!(transaction.recipients.len(), self.client.granted.len());
        }
        assert_eq!(self.server.hello().is_some(), self.client.is_greeted);
        assert_eq!(self.server.serial(), self.senders);
        assert!(self.senders <= TRANSACTIONS && self.stored <= self.senders);
        assert!(self.refusals <= ERRORS, "refused too often");
    }

    fn said(&mut self, reply: &Reply, to: &'static str) {
        assert_well_formed(reply);
        // What the client can do nothing for is not held against it, nor the last word to it.
        let is_ours = reply.code < 500 && (to == "message" || to == "auth");
        let is_free = is_ours || *reply == Reply::TOO_MANY_RECIPIENTS;
        if reply.is_refusal() && !is_free && to != "close" {
            self.refusals += 1;
        }
        self.seen.insert((reply.code, to));
    }

    fn reset(&mut self) {
        let Client {
            is_greeted, is_in, ..
        } = self.client;
        self.client = Client {
            is_greeted,
            is_in,
            ..Client::default()
        };
    }

    fn fault(&mut self) -> Option<Fault> {
        match self.next() {
            b"bare" => Some(Fault::BareNewline),
            b"large" => Some(Fault::TooLarge),
            b"long" => Some(Fault::LineTooLong),
            _ => None,
        }
    }

    fn next(&mut self) -> &[u8] {
        self.script.next().unwrap_or_default()
    }
}
