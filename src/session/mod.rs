//! One connection from greeting to goodbye. It only carries: read a line, take a step, do it.
//!
//! What to do next is the protocol's to say ([`crate::smtp::server`]), what is allowed is the
//! pipeline's; who a client is that logs in, the directory knows. Here are the stream, its deadlines
//! (`stream`), the message while it comes in (`incoming`), the login (`login`), and what keeps one client
//! from taking the others' part (`refusals`, `budget`) or trying out passwords (`bans`).

pub mod allowance;
pub mod bans;

mod budget;
mod config;
pub mod handshakes;
mod incoming;
mod login;
mod refusals;
mod stream;
pub mod through;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::ForwardPath;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::pipeline::Case;
use crate::pipeline::Client;
use crate::pipeline::Pipeline;
use crate::pipeline::submission::Quotas;
use crate::smtp::command::Hello;
use crate::smtp::line;
use crate::smtp::line::Line;
use crate::smtp::reply::Refusal;
use crate::smtp::reply::Reply;
use crate::smtp::server::Question;
use crate::smtp::server::Rules;
use crate::smtp::server::Server;
use crate::smtp::server::Step;
use crate::smtp::server::Tls;
use crate::smtp::server::Verb;
use crate::spool;
use crate::spool::Fate;
use crate::spool::Spool;
use crate::telemetry::events;
use crate::tls;

pub use self::bans::Bans;
pub use self::budget::Budget;
pub use self::config::Config;
pub use self::login::Logins;
pub use self::stream::Socket;
pub use crate::pipeline::Service;
pub use crate::pipeline::loopback;
pub use crate::tls::Cipher;
pub use crate::tls::ClientCertificates;
pub use crate::tls::MinimumVersion;
pub use crate::tls::Terms;

use self::handshakes::Handshakes;
use self::handshakes::Pace;
use self::incoming::Incoming;
use self::login::Attempt;
use self::refusals::Refusals;
use self::stream::Stream;
use self::through::Through;

/// How a listener does TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// TLS is not offered.
    Off,
    /// Offered after EHLO, begun by STARTTLS (RFC 3207).
    Starttls,
    /// From the first octet, before the greeting.
    Implicit,
}

/// What is known of a connection before its first octet (behind a PROXY header).
#[derive(Debug, Clone)]
pub struct Connection {
    /// Stands in each log line, and in the ids of the session's messages.
    pub id: SessionId,
    /// The client. IPv4 addresses are never in their IPv6 form.
    pub peer: SocketAddr,
    /// Where the client reached us.
    pub local: SocketAddr,
    /// What the listener is for.
    pub service: Service,
    /// How the listener does TLS.
    pub tls: TlsMode,
    /// What it has of its own instead of what `[tls]` says.
    pub terms: Arc<Terms>,
    /// Whose it is, where the kernel says so: an account of this machine, which needs no login.
    pub account: Option<Account>,
}

/// An account of this machine, and how its mail came to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What it is called; its number, where it has no name.
    pub name: String,
    /// Stands in the log for the mechanism of a login: `socket` or `drop`.
    pub by: &'static str,
}

/// What outlives a reload of what sessions know of clients. One a process; a clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct Lasting {
    /// The memory that messages on their way in hold.
    pub budget: Budget,
    /// Who failed to log in too often.
    pub bans: Bans,
    /// What our users have sent lately.
    pub quotas: Quotas,
    /// The TLS handshakes that networks have begun lately.
    pub pace: Pace,
}

/// Where mail goes that passed.
pub struct Onward {
    /// Where it is stored.
    pub spool: Spool,
    /// What is handed on instead, while its client waits.
    pub through: Through,
}

/// What all sessions share; a reload makes a new one for the sessions after it.
pub struct Shared {
    config: Config,
    rules: Arc<Rules>,
    pipeline: Pipeline,
    spool: Spool,
    through: Through,
    handshakes: Handshakes,
    budget: Budget,
    refusals: Refusals,
    logins: Option<Logins>,
}

impl Shared {
    /// Joins what sessions need. `spool` and `budget` outlive a reload, most of the rest does not.
    /// Without `logins` nobody can log in.
    pub fn new(
        hostname: Domain,
        config: Config,
        pipeline: Pipeline,
        onward: Onward,
        handshakes: Handshakes,
        budget: Budget,
        logins: Option<Logins>,
    ) -> Shared {
        let rules = Rules {
            hostname,
            size: config.size.as_u64(),
            recipients: config.recipients,
            errors: config.errors,
            transactions: config.transactions,
        };
        Shared {
            rules: Arc::new(rules),
            budget,
            refusals: Refusals::new(config.refusals.clone()),
            config,
            pipeline,
            spool: onward.spool,
            through: onward.through,
            handshakes,
            logins,
        }
    }

    /// The largest message that is taken, in octets.
    pub fn largest(&self) -> u64 {
        self.rules.size
    }
}

/// Why a client gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// All listeners together have as many sessions as they may.
    TooManyInAll,
    /// The client's address has as many sessions as it may.
    TooManyFromAddress,
    /// The client's network has as many sessions as it may.
    TooManyFromNetwork,
    /// The account of this machine has as many sessions as it may.
    TooManyFromAccount,
    /// The client has opened as many sessions lately as it may.
    TooFast,
}

/// Says 421 to a client that gets no session, and hangs up. Never waits for the client.
pub fn turn_away(socket: &Socket, reason: TurnedAway) {
    let reply = match reason {
        TurnedAway::TooManyInAll => Reply::TOO_MANY_CONNECTIONS,
        TurnedAway::TooManyFromAddress
        | TurnedAway::TooManyFromNetwork
        | TurnedAway::TooManyFromAccount => Reply::TOO_MANY_FROM_YOU,
        TurnedAway::TooFast => Reply::TOO_FAST,
    };
    let mut text = Vec::new();
    reply.write(&mut text);
    // A fresh socket has room for a line; a client that could not take it would be closed on anyway.
    let _ = socket.try_write(&text);
}

/// Runs one session to its end. On `stop` it finishes the transaction under way, then says 421.
///
/// Not cancel safe: a message that is being stored when it is dropped is stored, and the client
/// does not learn of it.
pub async fn serve(
    socket: Socket,
    connection: Connection,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let began = Instant::now();
    events::connected(connection.id, connection.peer, connection.service.name());
    let tls = match connection.tls {
        TlsMode::Off => Tls::NotOffered,
        TlsMode::Starttls => Tls::Offered,
        TlsMode::Implicit => Tls::Active,
    };
    let mut session = Session {
        stream: Stream::new(socket),
        server: Server::new(shared.rules.clone(), tls),
        shared: &shared,
        connection: &connection,
        certificate: None,
        case: None,
        incoming: None,
        attempt: None,
        stored: 0,
        held_back: Duration::ZERO,
        stop: &stop,
    };
    if let Some(account) = &connection.account {
        session.server.known_as(account.name.clone());
        let peer = connection.peer.ip();
        events::logged_in(connection.id, peer, &account.name, &account.by);
    }
    let ended = session.run().await;
    let stored = session.stored;
    if ended == Ended::TimedOut {
        session.say(&Reply::TIMEOUT);
    }
    let deadline = Instant::now() + LAST_WORDS;
    match ended {
        Ended::ByClient => session.stream.close(deadline).await,
        Ended::ByUs | Ended::TimedOut => session.stream.close_on(deadline).await,
        Ended::Lost | Ended::NoTls => {}
    }
    events::disconnected(
        connection.id,
        connection.peer,
        ended.name(),
        stored,
        began.elapsed(),
    );
}

/// Octets of replies that may wait for the end of a group of commands (RFC 2920 §3.2).
const MOST_OUTPUT: usize = 16 * 1024;

/// How long a client may take to read the last reply.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Who ended a session, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// QUIT.
    ByClient,
    /// We said our last word and hung up.
    ByUs,
    /// The client was gone without QUIT.
    Lost,
    TimedOut,
    /// No TLS came about.
    NoTls,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Ended::ByClient => "quit",
            Ended::ByUs => "closed by us",
            Ended::Lost => "connection lost",
            Ended::TimedOut => "timed out",
            Ended::NoTls => "tls failed",
        }
    }
}

impl From<stream::Error> for Ended {
    fn from(error: stream::Error) -> Ended {
        match error {
            stream::Error::TimedOut => Ended::TimedOut,
            stream::Error::Closed | stream::Error::Lost(_) => Ended::Lost,
        }
    }
}

struct Session<'a> {
    stream: Stream,
    server: Server,
    shared: &'a Shared,
    connection: &'a Connection,
    /// What the client has shown within TLS, where it was asked.
    certificate: Option<Arc<tls::Identity>>,
    /// What is known of the transaction under way.
    case: Option<Case>,
    /// The message on its way in.
    incoming: Option<Incoming>,
    /// The login on its way.
    attempt: Option<Box<Attempt>>,
    /// Messages stored so far.
    stored: u32,
    /// How long replies have waited since we last read.
    held_back: Duration,
    stop: &'a CancellationToken,
}

impl<'a> Session<'a> {
    async fn run(&mut self) -> Ended {
        match self.greet().await {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(ended)) | Err(ended) => return ended,
        }
        loop {
            let step = match self.next_step().await {
                Ok(step) => step,
                Err(ended) => return ended,
            };
            match self.perform(step).await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(ended)) | Err(ended) => return ended,
            }
            if self.server.transaction().is_none() {
                self.incoming = None; // RSET or EHLO among chunks
            }
        }
    }

    async fn greet(&mut self) -> Result<ControlFlow<Ended>, Ended> {
        if self.connection.tls == TlsMode::Implicit {
            if !self.may_shake_hands() {
                return Err(Ended::NoTls);
            }
            Box::pin(self.shake_hands()).await?;
        } else if self
            .stream
            .talks_within(self.shared.config.greeting_delay)
            .await
        {
            events::refused(
                self.id(),
                self.connection.peer.ip(),
                "connect",
                &"",
                &"",
                &Reply::TALKS_FIRST,
            );
            self.say(&Reply::TALKS_FIRST);
            return Ok(ControlFlow::Break(Ended::ByUs));
        }
        self.offer_login();
        let greeting = self.server.greeting();
        self.say(&greeting);
        Ok(ControlFlow::Continue(()))
    }

    /// Reads a line and asks the protocol what to do. Replies go out before we wait.
    async fn next_step(&mut self) -> Result<Step, Ended> {
        let mut deadline = self.deadline(self.shared.config.command_timeout);
        // Commands between the chunks of a message give it no more time: it holds memory.
        if let Some(incoming) = &self.incoming {
            deadline = deadline.min(incoming.deadline);
        }
        if self.stream.output().len() > MOST_OUTPUT {
            self.flush().await?;
        }
        loop {
            match line::first(self.stream.input(), self.server.line_limit()) {
                Some(Line::Whole(octets)) => {
                    let step = self.server.command(&self.stream.input()[..octets]);
                    self.stream.take(octets + 2);
                    return Ok(step);
                }
                // Where the line ends, and what would be a command behind it, is not known.
                Some(Line::BareNewline) => return Ok(Step::Close(Reply::BARE_NEWLINE_IN_COMMAND)),
                Some(Line::TooLong) => {
                    let reply = self.server.line_too_long(self.stream.input());
                    return Ok(Step::Close(reply));
                }
                None => {}
            }
            self.flush().await?;
            let between_messages = self.server.transaction().is_none();
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if between_messages => {
                    return Ok(Step::Close(Reply::SHUTTING_DOWN));
                }
                read = self.stream.fill(deadline) => read?,
            }
            self.held_back = Duration::ZERO;
        }
    }

    /// Does what the protocol says, until it wants the next command.
    ///
    /// What needs much room and little time has its own, so that a session that waits is small.
    async fn perform(&mut self, mut step: Step) -> Result<ControlFlow<Ended>, Ended> {
        loop {
            step = match step {
                Step::Reply(reply) => {
                    self.answer(&reply).await?;
                    return Ok(ControlFlow::Continue(()));
                }
                Step::Close(reply) => {
                    let ended = if reply == Reply::BYE {
                        Ended::ByClient
                    } else {
                        Ended::ByUs
                    };
                    self.answer(&reply).await?;
                    return Ok(ControlFlow::Break(ended));
                }
                Step::Ask(Question::Recipient(to)) => {
                    let answer = Box::pin(self.ask_recipient(&to)).await;
                    self.server.recipient_answered(answer)
                }
                Step::Ask(Question::Message(envelope)) => {
                    let answer = Box::pin(self.ask_message(envelope)).await;
                    self.server.message_answered(answer)
                }
                Step::Ask(Question::Login { mechanism, initial }) => {
                    let answer = Box::pin(self.ask_login(mechanism, initial)).await;
                    self.server.login_answered(answer)
                }
                Step::Ask(Question::Response(response)) => {
                    let answer = Box::pin(self.ask_response(Some(response))).await;
                    self.server.login_answered(answer)
                }
                Step::StartTls(reply) => {
                    Box::pin(self.start_tls(&reply)).await?;
                    self.server.tls_started();
                    self.offer_login();
                    self.case = None;
                    return Ok(ControlFlow::Continue(()));
                }
                Step::ReceiveData(reply) => {
                    self.say(&reply);
                    self.flush().await?;
                    let fault = self.receive_data().await?;
                    self.log_fault(fault);
                    self.server.data_received(fault)
                }
                Step::RefuseData(reply) => {
                    self.answer(&reply).await?;
                    // RFC 2920 §3.1: DATA is the last of a group. A client that goes on before it
                    // has its 354 may be sending a message, and lines of that are no commands.
                    let is_alone = self.stream.input().is_empty();
                    return Ok(if is_alone {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(Ended::ByUs)
                    });
                }
                Step::ReceiveChunk { size, chunk } => {
                    self.receive_chunk(size).await?;
                    let fault = self
                        .incoming
                        .as_ref()
                        .and_then(|incoming| incoming.receiver.fault());
                    self.log_fault(fault);
                    self.server.chunk_received(size, chunk, fault)
                }
                Step::SkipChunk { size, reply } => {
                    self.skip(size).await?;
                    Step::Reply(reply)
                }
            }
        }
    }

    async fn ask_recipient(&mut self, to: &ForwardPath) -> Result<Address, Refusal> {
        let client = self.client();
        let id = self.id();
        if self.case.as_ref().is_some_and(|case| case.id != id) {
            self.case = None;
        }
        let from = self
            .server
            .transaction()
            .map(|transaction| &transaction.mail.from);
        let case = self
            .case
            .get_or_insert_with(|| Case::new(id, from.cloned().unwrap_or(ReversePath::Null)));
        let answer = self.shared.pipeline.recipient(&client, case, to).await;
        let from = case.from.clone();
        let answer = answer.and_then(|address| self.alone_if_through(&from, address));
        if let Err(refusal) = &answer {
            events::refused(id, client.address, "rcpt", &from, to, refusal.reply());
        }
        answer
    }

    /// Judges the message, and stores it or hands it on. The 250 that follows means: on disk, here or
    /// at the next hop.
    async fn ask_message(&mut self, mut envelope: Envelope) -> Result<Reply, Refusal> {
        envelope.client = Some(self.connection.peer.ip());
        let answer = match self.incoming.take() {
            Some(incoming) if incoming.share.is_exhausted() => Err(Refusal::no_memory()),
            // A chunk may end in the middle of a CRLF.
            Some(incoming) if incoming.receiver.ends_with_bare_cr() => Err(Refusal::bare_newline()),
            Some(incoming) => {
                self.judge_and_store(&mut envelope, incoming.octets.into())
                    .await
            }
            None => Err(Refusal::not_stored()),
        };
        if let Err(refusal) = &answer {
            let recipients = envelope.recipients.iter();
            let recipients: Vec<_> = recipients.map(|to| format!("<{}>", to.address)).collect();
            events::refused(
                self.id(),
                self.connection.peer.ip(),
                "data",
                &envelope.from,
                &recipients.join(" "),
                refusal.reply(),
            );
        }
        self.case = None;
        answer
    }

    async fn judge_and_store(
        &mut self,
        envelope: &mut Envelope,
        received: Bytes,
    ) -> Result<Reply, Refusal> {
        let shared = self.shared;
        let client = self.client();
        let id = self.id();
        let case = self
            .case
            .get_or_insert_with(|| Case::new(id, envelope.from.clone()));
        let now = SystemTime::now();
        let passed = shared
            .pipeline
            .message(&client, case, envelope, &received, now)
            .await?;
        envelope.forged = passed.forged;
        if let ([to], None) = (envelope.recipients.as_slice(), &passed.hold)
            && (shared.through.goes)(&envelope.from, &to.address)
        {
            let to = to.address.clone();
            let handed_on = self.hand_on(id, &to, envelope, passed.content).await;
            if handed_on.is_err() {
                shared.pipeline.not_taken(&client, envelope);
            }
            return handed_on;
        }
        let size = passed.content.len();
        let fate = match passed.hold {
            None => Fate::Deliver,
            Some(reason) => {
                events::held(id, &reason);
                Fate::Hold(reason)
            }
        };
        let stored = shared
            .spool
            .store(id, envelope.clone(), passed.content, fate)
            .await;
        if let Err(error) = stored {
            events::not_stored(id, &error);
            shared.pipeline.not_taken(&client, envelope);
            return Err(match error {
                spool::Error::Full { .. } => Refusal::no_space(),
                _ => Refusal::not_stored(),
            });
        }
        events::accepted(id, envelope, size);
        self.stored += 1;
        Ok(Reply::stored(id))
    }

    fn client(&self) -> Client {
        // The protocol asks nothing before the client has named itself.
        let unnamed = || {
            (
                Verb::Helo,
                Hello {
                    text: String::new(),
                    host: None,
                },
            )
        };
        let (verb, hello) = self.server.hello().cloned().unwrap_or_else(unnamed);
        let facts = self.stream.tls().map(|connection| tls::facts(connection));
        Client {
            address: self.connection.peer.ip(),
            service: self.connection.service,
            login: self.server.login().map(str::to_owned),
            verb,
            hello,
            tls: facts.map(|facts| (facts.version.to_owned(), facts.cipher.to_owned())),
            certificate: self.certificate.clone(),
        }
    }

    fn id(&self) -> SpoolId {
        SpoolId {
            session: self.connection.id,
            serial: self.server.serial(),
        }
    }

    fn say(&mut self, reply: &Reply) {
        reply.write(self.stream.output());
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        let deadline = self.deadline(self.shared.config.reply_timeout);
        Ok(self.stream.flush(deadline).await?)
    }

    fn deadline(&self, timeout: Duration) -> Instant {
        Instant::now() + timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that `serve` gives.
    fn future<F>(
        _serve: impl FnOnce(Socket, Connection, Arc<Shared>, CancellationToken) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn ten_thousand_sessions_that_wait_take_little_room() {
        let size = future(serve);
        assert!(size <= 2048, "a session takes {size} octets");
    }
}
