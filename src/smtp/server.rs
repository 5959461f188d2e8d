//! The server's half of the dialogue: fed commands, it says what to do next (RFC 5321 §4.1.4,
//! RFC 4954 §4).
//!
//! No I/O, no clock. What is not the protocol's to know it asks ([`Step::Ask`]) and goes on when it is
//! answered. A test of it is a list of calls. Whoever drives it does each step before the next call
//! and calls what the step names.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::ForwardPath;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::smtp::command;
use crate::smtp::command::Auth;
use crate::smtp::command::Chunk;
use crate::smtp::command::Command;
use crate::smtp::command::Hello;
use crate::smtp::command::Mail;
use crate::smtp::command::Rcpt;
use crate::smtp::data::Fault;
use crate::smtp::line;
use crate::smtp::reply::Refusal;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::Secret;

/// What a server allows; the same for all sessions of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The name in the greeting.
    pub hostname: Domain,
    /// Octets of a message.
    pub size: u64,
    /// Recipients of a transaction; RFC 5321 §4.5.3.1.8 wants 100 at least.
    pub recipients: usize,
    /// Replies that say no, after which a session is closed.
    pub errors: u32,
    /// Transactions of a session.
    pub transactions: u32,
}

/// Whether TLS is to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// No.
    NotOffered,
    /// By STARTTLS.
    Offered,
    /// It is in use.
    Active,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Say this, read the next command.
    Reply(Reply),
    /// Find out, then call the method that the question names.
    Ask(Question),
    /// Say this, shake hands, then call [`Server::tls_started`].
    StartTls(Reply),
    /// Say this, read the message to its final dot, then call [`Server::data_received`].
    ReceiveData(Reply),
    /// Say this, and hang up if octets stand behind the command already: they may be a message.
    RefuseData(Reply),
    /// Read that many octets as part of the message, then call [`Server::chunk_received`].
    ReceiveChunk {
        /// Octets.
        size: u64,
        /// Whether it is the last.
        chunk: Chunk,
    },
    /// Read that many octets, drop them, say this.
    SkipChunk {
        /// Octets.
        size: u64,
        /// Why they are not wanted.
        reply: Reply,
    },
    /// Say this, then hang up.
    Close(Reply),
}

/// What the protocol cannot know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// May this recipient have mail from this client? Then [`Server::recipient_answered`].
    Recipient(ForwardPath),
    /// The message to this envelope is here: is it taken, and stored? Then
    /// [`Server::message_answered`].
    Message(Envelope),
    /// The client begins to log in: what comes of it? Then [`Server::login_answered`].
    Login {
        /// One of those that were offered.
        mechanism: Mechanism,
        /// What it sent with the command, decoded.
        initial: Option<Secret>,
    },
    /// What comes of its answer to the last challenge, decoded? Then [`Server::login_answered`].
    Response(Secret),
}

/// What comes of a message of a client that logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Something to be answered.
    Challenge(Vec<u8>),
    /// It is in, under this name.
    Granted(String),
    /// It is not.
    Refused(Refusal),
}

/// A message on its way in: from MAIL to the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// What began it.
    pub mail: Mail,
    /// Those that were granted, in the order of RCPT.
    pub recipients: Vec<Recipient>,
    /// Octets that came by BDAT; None before the first chunk.
    chunked: Option<u64>,
    /// A RCPT was said, granted or not.
    rcpt_tried: bool,
}

/// One session's place in the dialogue.
#[derive(Debug)]
pub struct Server {
    rules: Arc<Rules>,
    tls: Tls,
    hello: Option<(Verb, Hello)>,
    transaction: Option<Transaction>,
    pending: Option<Rcpt>,
    /// By what clients may log in, and have to before MAIL; None where nobody does.
    mechanisms: Option<Vec<Mechanism>>,
    /// The client is known otherwise, and need not log in.
    is_excused: bool,
    /// As whom the client has.
    login: Option<String>,
    /// The next line is no command, but the answer to a challenge.
    is_challenged: bool,
    errors: u32,
    transactions: u32,
}

/// How the client said hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// HELO: the client wants no extensions.
    Helo,
    /// EHLO: the client was told the extensions.
    Ehlo,
}

impl Server {
    /// A session before its greeting.
    pub fn new(rules: Arc<Rules>, tls: Tls) -> Server {
        Server {
            rules,
            tls,
            hello: None,
            transaction: None,
            pending: None,
            mechanisms: None,
            is_excused: false,
            login: None,
            is_challenged: false,
            errors: 0,
            transactions: 0,
        }
    }

    /// From now on clients have to log in before MAIL, within TLS and by one of `mechanisms`.
    pub fn require_login(&mut self, mechanisms: Vec<Mechanism>) {
        self.mechanisms = Some(mechanisms);
    }

    /// The client is known by other means than AUTH, under this name.
    pub fn known_as(&mut self, name: String) {
        self.login = Some(name);
    }

    /// The client is known otherwise: it may log in, and need not.
    pub fn excuse_from_login(&mut self) {
        self.is_excused = true;
    }

    /// As whom the client has logged in.
    pub fn login(&self) -> Option<&str> {
        self.login.as_deref()
    }

    /// How long the next line may be, with its CRLF.
    pub fn line_limit(&self) -> usize {
        match &self.mechanisms {
            Some(_) if self.tls == Tls::Active => line::AUTH_LIMIT,
            Some(_) | None => line::LIMIT,
        }
    }

    /// What is said of a line beyond the limit that begins like this, before we hang up.
    pub fn line_too_long(&self, start: &[u8]) -> Reply {
        let is_auth = |start: &[u8]| {
            start
                .get(..5)
                .is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
        };
        match self.is_challenged || self.mechanisms.is_some() && is_auth(start) {
            true => Reply::AUTH_TOO_LONG,
            false => Reply::LINE_TOO_LONG,
        }
    }

    /// The first thing to say.
    pub fn greeting(&self) -> Reply {
        Reply::greeting(&self.rules.hostname)
    }

    /// How the client named itself, once it has.
    pub fn hello(&self) -> Option<&(Verb, Hello)> {
        self.hello.as_ref()
    }

    /// The transaction under way.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Which transaction of the session is under way or was the last, from 1; 0 before the first.
    pub fn serial(&self) -> u32 {
        self.transactions
    }

    /// A line has come, without its CRLF.
    pub fn command(&mut self, line: &[u8]) -> Step {
        // Not in place of the last refusal: a 5xx there must not become a 4xx.
        if self.errors >= self.rules.errors {
            return Step::Close(Reply::TOO_MANY_ERRORS);
        }
        if std::mem::take(&mut self.is_challenged) {
            return self.response(line);
        }
        match command::parse(line) {
            Ok(command) => self.take(command),
            // RFC 3030 §2: octets follow whatever we say, and how many is not known.
            Err(reply) if reply == Reply::BDAT_SYNTAX => Step::Close(reply),
            Err(reply) => self.say(reply),
        }
    }

    fn take(&mut self, command: Command) -> Step {
        match command {
            Command::Ehlo(hello) => self.ehlo(hello),
            Command::Helo(hello) => {
                self.transaction = None; // RFC 5321 §4.1.4
                self.hello = Some((Verb::Helo, hello));
                Step::Reply(Reply::helo(&self.rules.hostname))
            }
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(rcpt) => self.rcpt(rcpt),
            Command::Data => self.data(),
            Command::Bdat { size, chunk } => self.bdat(size, chunk),
            Command::StartTls => match self.tls {
                Tls::Offered => Step::StartTls(Reply::READY_FOR_TLS),
                Tls::Active => self.say(Reply::TLS_ALREADY),
                Tls::NotOffered => self.say(Reply::STARTTLS_NOT_OFFERED),
            },
            Command::Rset => {
                self.transaction = None;
                self.say(Reply::RESET)
            }
            Command::Noop => self.say(Reply::OK),
            Command::Quit => Step::Close(Reply::BYE),
            Command::Vrfy => self.say(Reply::CANNOT_VERIFY),
            Command::Expn => self.say(Reply::EXPN_REFUSED),
            Command::Help => self.say(Reply::HELP),
            Command::Auth(auth) => self.auth(auth),
        }
    }

    fn ehlo(&mut self, hello: Hello) -> Step {
        self.transaction = None; // RFC 5321 §4.1.4
        self.hello = Some((Verb::Ehlo, hello));
        let mut extensions = vec![
            "PIPELINING".to_owned(),
            format!("SIZE {}", self.rules.size),
            "8BITMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
            "DSN".to_owned(),
            "CHUNKING".to_owned(),
            // RFC 9422 §4
            format!(
                "LIMITS MAILMAX={} RCPTMAX={}",
                self.rules.transactions, self.rules.recipients
            ),
        ];
        match self.tls {
            Tls::Offered => extensions.push("STARTTLS".to_owned()),
            // RFC 8689 §2: offered only where it can be kept to.
            Tls::Active => extensions.push("REQUIRETLS".to_owned()),
            Tls::NotOffered => {}
        }
        // RFC 4954 §4, RFC 8314 §3.3: passwords are not even asked for in the open.
        if let (Some(mechanisms), Tls::Active) = (&self.mechanisms, self.tls)
            && !mechanisms.is_empty()
        {
            let names: Vec<_> = mechanisms.iter().map(|one| one.name()).collect();
            extensions.push(format!("AUTH {}", names.join(" ")));
        }
        Step::Reply(Reply::ehlo(&self.rules.hostname, &extensions))
    }

    fn mail(&mut self, mail: Mail) -> Step {
        if self.hello.is_none() {
            return self.say(Reply::HELLO_FIRST);
        }
        if self.mechanisms.is_some() && self.login.is_none() && !self.is_excused {
            return self.say(match self.tls {
                Tls::Offered => Reply::TLS_FIRST,
                Tls::Active | Tls::NotOffered => Reply::LOGIN_FIRST,
            });
        }
        if self.transaction.is_some() {
            return self.say(Reply::MAIL_ALREADY);
        }
        if mail.requiretls && self.tls != Tls::Active {
            return self.say(Reply::REQUIRETLS_WITHOUT_TLS);
        }
        if mail.size.is_some_and(|size| size > self.rules.size) {
            return self.say(Reply::too_large(self.rules.size)); // RFC 1870 §6.1
        }
        if self.transactions >= self.rules.transactions {
            return Step::Close(Reply::TOO_MANY_TRANSACTIONS);
        }
        self.transactions += 1;
        self.transaction = Some(Transaction {
            mail,
            recipients: Vec::new(),
            chunked: None,
            rcpt_tried: false,
        });
        self.say(Reply::SENDER_OK)
    }

    /// RFC 4954 §4
    fn auth(&mut self, auth: Auth) -> Step {
        let Some(mechanisms) = &self.mechanisms else {
            return self.say(Reply::AUTH_NOT_HERE);
        };
        if self.hello.is_none() {
            return self.say(Reply::HELLO_FIRST);
        }
        if self.login.is_some() {
            return self.say(Reply::AUTH_ALREADY);
        }
        if self.transaction.is_some() {
            return self.say(Reply::AUTH_WITHIN_MAIL);
        }
        if self.tls != Tls::Active {
            return self.say(Reply::AUTH_NEEDS_TLS);
        }
        if auth.mechanism.is_empty() {
            return self.say(Reply::AUTH_SYNTAX);
        }
        let offered = auth.mechanism.parse().ok();
        let Some(mechanism) = offered.filter(|one| mechanisms.contains(one)) else {
            return self.say(Reply::AUTH_MECHANISM_UNKNOWN);
        };
        let initial = match auth.initial.as_ref().map(Secret::expose) {
            None => None,
            Some(b"=") => Some(Secret::new([])),
            Some(encoded) => match BASE64_STANDARD.decode(encoded) {
                Ok(octets) => Some(Secret::new(octets)),
                Err(_) => return self.say(Reply::AUTH_MALFORMED),
            },
        };
        Step::Ask(Question::Login { mechanism, initial })
    }

    /// The line that answers a challenge.
    fn response(&mut self, line: &[u8]) -> Step {
        if line == b"*" {
            return self.say(Reply::AUTH_CANCELLED);
        }
        match BASE64_STANDARD.decode(line) {
            Ok(octets) => Step::Ask(Question::Response(Secret::new(octets))),
            Err(_) => self.say(Reply::AUTH_MALFORMED),
        }
    }

    /// What the client sent to log in leads to this.
    pub fn login_answered(&mut self, answer: Login) -> Step {
        match answer {
            Login::Challenge(octets) => {
                self.is_challenged = true;
                Step::Reply(Reply::challenge(&octets))
            }
            Login::Granted(name) => {
                self.login = Some(name);
                self.say(Reply::LOGGED_IN)
            }
            Login::Refused(refusal) => match refusal.into_reply() {
                reply if reply.code == 421 => Step::Close(reply),
                // Our trouble, for which the client can do nothing.
                reply if reply.code < 500 => Step::Reply(reply),
                reply => self.say(reply),
            },
        }
    }

    fn rcpt(&mut self, rcpt: Rcpt) -> Step {
        let Some(transaction) = &mut self.transaction else {
            return self.say(Reply::MAIL_FIRST);
        };
        if transaction.chunked.is_some() {
            return self.say(Reply::ONLY_BDAT_NOW);
        }
        transaction.rcpt_tried = true;
        if transaction.recipients.len() >= self.rules.recipients {
            // RFC 5321 §4.5.3.1.10: no error of the client's, who is to go on with DATA.
            return Step::Reply(Reply::TOO_MANY_RECIPIENTS);
        }
        // RFC 6531 §3.5
        if let ForwardPath::Address(address) = &rcpt.to
            && !address.is_ascii()
            && !transaction.mail.smtputf8
        {
            return self.say(Reply::UTF8_NOT_DECLARED);
        }
        let question = Question::Recipient(rcpt.to.clone());
        self.pending = Some(rcpt);
        Step::Ask(question)
    }

    /// The recipient asked about is granted, as this address, or refused.
    pub fn recipient_answered(&mut self, answer: Result<Address, Refusal>) -> Step {
        let (Some(rcpt), Some(transaction)) = (self.pending.take(), &mut self.transaction) else {
            return self.say(Reply::MAIL_FIRST);
        };
        match answer {
            Ok(address) => {
                transaction.recipients.push(Recipient {
                    address,
                    notify: rcpt.notify,
                    orcpt: rcpt.orcpt,
                });
                self.say(Reply::RECIPIENT_OK)
            }
            Err(refusal) => match refusal.into_reply() {
                // RFC 5321 §4.5.3.1.10: no error of the client's, who is to go on with DATA.
                reply if reply.code == 452 => Step::Reply(reply),
                reply => self.say(reply),
            },
        }
    }

    /// The transaction ends here; what it was about is in the envelope.
    fn ask_message(&mut self) -> Step {
        let Some(Transaction {
            mail, recipients, ..
        }) = self.transaction.take()
        else {
            return self.say(Reply::MAIL_FIRST);
        };
        Step::Ask(Question::Message(Envelope {
            from: mail.from,
            recipients,
            body: mail.body,
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid,
            client: None,
            hello: self.hello.as_ref().map(|(_, hello)| hello.text.clone()),
            login: self.login.clone(),
            forged: false,
            requiretls: mail.requiretls,
        }))
    }

    /// Why DATA or BDAT cannot begin now.
    fn not_ready_for_data(&self) -> Option<Reply> {
        let Some(transaction) = &self.transaction else {
            return Some(Reply::MAIL_FIRST);
        };
        if !transaction.rcpt_tried {
            return Some(Reply::RCPT_FIRST);
        }
        // RFC 5321 §3.3: 554 where every recipient was refused.
        transaction
            .recipients
            .is_empty()
            .then_some(Reply::NO_RECIPIENTS)
    }

    fn data(&mut self) -> Step {
        let chunked = self.transaction.as_ref().and_then(|t| t.chunked);
        let within_bdat = chunked.map(|_| Reply::DATA_WITHIN_BDAT); // RFC 3030 §2
        match self.not_ready_for_data().or(within_bdat) {
            None => Step::ReceiveData(Reply::SEND_DATA),
            Some(reply) => {
                self.errors += 1;
                Step::RefuseData(reply)
            }
        }
    }

    /// The message after DATA was read to its end, or to where its end was lost.
    pub fn data_received(&mut self, fault: Option<Fault>) -> Step {
        match fault {
            None => self.ask_message(),
            // What follows may be meant as commands by somebody who ends lines otherwise.
            Some(fault @ Fault::BareNewline) => Step::Close(self.reply_to(fault)),
            Some(fault) => self.drop_message(fault),
        }
    }

    fn bdat(&mut self, size: u64, chunk: Chunk) -> Step {
        if let Some(reply) = self.not_ready_for_data() {
            self.errors += 1;
            // The octets come whatever we say (RFC 3030 §2); more than a message's worth we do not read.
            return if size > self.rules.size {
                Step::Close(reply)
            } else {
                Step::SkipChunk { size, reply }
            };
        }
        let Some(transaction) = &mut self.transaction else {
            return self.say(Reply::MAIL_FIRST);
        };
        let received = transaction.chunked.unwrap_or(0).saturating_add(size);
        if received > self.rules.size {
            return Step::Close(Reply::too_large(self.rules.size));
        }
        transaction.chunked = Some(received);
        Step::ReceiveChunk { size, chunk }
    }

    /// A chunk was read whole.
    pub fn chunk_received(&mut self, size: u64, chunk: Chunk, fault: Option<Fault>) -> Step {
        match (fault, chunk) {
            (Some(fault), _) => self.drop_message(fault),
            (None, Chunk::Last) => self.ask_message(),
            (None, Chunk::More) => self.say(Reply::chunk_taken(size)),
        }
    }

    fn drop_message(&mut self, fault: Fault) -> Step {
        self.transaction = None;
        let reply = self.reply_to(fault);
        self.say(reply)
    }

    /// What is said of a message with this fault.
    pub fn reply_to(&self, fault: Fault) -> Reply {
        match fault {
            Fault::BareNewline => Reply::BARE_NEWLINE_IN_DATA,
            Fault::TooLarge => Reply::too_large(self.rules.size),
            Fault::LineTooLong => Reply::DATA_LINE_TOO_LONG,
        }
    }

    /// The message is in safe hands, as the reply says, or it is refused.
    pub fn message_answered(&mut self, answer: Result<Reply, Refusal>) -> Step {
        match answer {
            Ok(reply) => self.say(reply),
            Err(refusal) => match refusal.into_reply() {
                // Our trouble, or the DNS's, for which the client can do nothing.
                reply if reply.code < 500 => Step::Reply(reply),
                reply => self.say(reply),
            },
        }
    }

    /// The handshake is done: all that was said before is forgotten (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.tls = Tls::Active;
        self.hello = None;
        self.transaction = None;
        self.pending = None;
        self.login = None;
        self.is_challenged = false;
    }

    /// Says it, and counts it where it is a no.
    fn say(&mut self, reply: Reply) -> Step {
        if reply.is_refusal() {
            self.errors += 1;
        }
        Step::Reply(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        let rules = Rules {
            hostname: Domain::parse("mx.example").unwrap(),
            size: 1000,
            recipients: 2,
            errors: 3,
            transactions: 2,
        };
        Server::new(Arc::new(rules), Tls::Offered)
    }

    /// Feeds lines, grants each recipient, and gives the code of each step.
    fn codes(server: &mut Server, lines: &[&str]) -> Vec<u16> {
        let mut codes = Vec::new();
        for line in lines {
            let mut step = server.command(line.as_bytes());
            if let Step::Ask(Question::Recipient(ForwardPath::Address(address))) = step {
                step = server.recipient_answered(Ok(address));
            }
            codes.push(match step {
                Step::Reply(reply) | Step::Close(reply) | Step::SkipChunk { reply, .. } => {
                    reply.code
                }
                Step::StartTls(reply) | Step::ReceiveData(reply) | Step::RefuseData(reply) => {
                    reply.code
                }
                Step::ReceiveChunk { .. } => 0,
                Step::Ask(question) => panic!("{line:?} asks {question:?}"),
            });
        }
        codes
    }

    #[test]
    fn commands_out_of_order_are_503() {
        for (lines, want) in [
            (&["MAIL FROM:<a@b.example>"][..], 503),
            (&["EHLO c.example", "RCPT TO:<a@b.example>"], 503),
            (&["EHLO c.example", "DATA"], 503),
            (&["EHLO c.example", "MAIL FROM:<>", "DATA"], 503),
            (&["EHLO c.example", "MAIL FROM:<>", "MAIL FROM:<>"], 503),
            (
                &[
                    "EHLO c.example",
                    "MAIL FROM:<>",
                    "EHLO c.example",
                    "RCPT TO:<a@b.example>",
                ],
                503,
            ),
            (
                &[
                    "EHLO c.example",
                    "MAIL FROM:<>",
                    "RCPT TO:<a@b.example>",
                    "BDAT 1",
                    "DATA",
                ],
                503,
            ),
            (
                &[
                    "EHLO c.example",
                    "MAIL FROM:<>",
                    "RCPT TO:<a@b.example>",
                    "BDAT 1",
                    "RCPT TO:<c@b.example>",
                ],
                503,
            ),
        ] {
            let got = codes(&mut server(), lines);
            assert_eq!(got.last(), Some(&want), "{lines:?}");
        }
    }

    #[test]
    fn a_message_is_asked_for_and_stored() {
        let mut server = server();
        let lines = [
            "EHLO c.example",
            "MAIL FROM:<>",
            "RCPT TO:<a@b.example>",
            "DATA",
        ];
        assert_eq!(codes(&mut server, &lines), [250, 250, 250, 354]);
        let Step::Ask(Question::Message(envelope)) = server.data_received(None) else {
            panic!("the message is not asked for");
        };
        assert_eq!(envelope.recipients.len(), 1);
        let id = "00000000001.1".parse().unwrap();
        assert_eq!(
            server.message_answered(Ok(Reply::stored(id))),
            Step::Reply(Reply::stored(id))
        );
        assert_eq!(server.transaction(), None);
    }

    #[test]
    fn where_all_recipients_are_refused_data_is_554() {
        let mut server = server();
        codes(&mut server, &["EHLO c.example", "MAIL FROM:<>"]);
        let to = "a@b.example".parse().unwrap();
        server.command(b"RCPT TO:<a@b.example>");
        server.recipient_answered(Err(Refusal::relay_denied(&to)));
        assert_eq!(codes(&mut server, &["DATA"]), [554]);
    }

    #[test]
    fn recipients_errors_and_transactions_are_bounded() {
        let to = "RCPT TO:<a@b.example>";
        let got = codes(
            &mut server(),
            &["EHLO c.example", "MAIL FROM:<>", to, to, to],
        );
        assert_eq!(got, [250, 250, 250, 250, 452]);
        let many = [&["EHLO c.example", "MAIL FROM:<>"][..], &[to; 9], &["DATA"]].concat();
        assert_eq!(codes(&mut server(), &many).last(), Some(&354));
        let got = codes(&mut server(), &["X", "X", "X", "X"]);
        assert_eq!(got, [500, 500, 500, 421]);
        let mail = [
            "EHLO c.example",
            "MAIL FROM:<>",
            "RSET",
            "MAIL FROM:<>",
            "RSET",
            "MAIL FROM:<>",
        ];
        assert_eq!(codes(&mut server(), &mail), [250, 250, 250, 250, 250, 421]);
    }

    #[test]
    fn the_last_refusal_is_said_as_it_is() {
        let mut server = server();
        let lines = [
            "EHLO c.example",
            "X",
            "X",
            "MAIL FROM:<>",
            "RCPT TO:<a@b.example>",
        ];
        codes(&mut server, &lines);
        codes(&mut server, &["DATA"]);
        server.data_received(None);
        let refusal = Refusal::dmarc_reject("a.example");
        let step = server.message_answered(Err(refusal.clone()));
        assert_eq!(step, Step::Reply(refusal.into_reply()));
        assert_eq!(codes(&mut server, &["QUIT"]), [421]);
    }

    #[test]
    fn a_message_that_we_cannot_take_now_is_no_error_of_the_client() {
        let rules = Rules {
            errors: 1,
            ..Rules::clone(&server().rules)
        };
        let mut server = Server::new(Arc::new(rules), Tls::Offered);
        let lines = [
            "EHLO c.example",
            "MAIL FROM:<>",
            "RCPT TO:<a@b.example>",
            "DATA",
        ];
        codes(&mut server, &lines);
        server.data_received(None);
        server.message_answered(Err(Refusal::no_space()));
        assert_eq!(codes(&mut server, &["MAIL FROM:<>"]), [250]);
    }

    #[test]
    fn tls_makes_the_session_forget() {
        let mut server = server();
        assert_eq!(
            codes(&mut server, &["EHLO c.example", "STARTTLS"]),
            [250, 220]
        );
        server.tls_started();
        assert_eq!(
            codes(&mut server, &["MAIL FROM:<>", "STARTTLS"]),
            [503, 503]
        );
        let Step::Reply(reply) = server.command(b"EHLO c.example") else {
            panic!("no reply to EHLO");
        };
        assert!(!reply.text.contains("STARTTLS"));
    }

    #[test]
    fn chunks_without_a_transaction_are_skipped_and_too_large_ones_end_the_session() {
        let mut server = server();
        codes(&mut server, &["EHLO c.example"]);
        let step = server.command(b"BDAT 10");
        assert!(matches!(step, Step::SkipChunk { size: 10, .. }), "{step:?}");
        codes(
            &mut server,
            &["MAIL FROM:<>", "RCPT TO:<a@b.example>", "BDAT 600"],
        );
        assert!(matches!(server.command(b"BDAT 600 LAST"), Step::Close(_)));
    }
}
