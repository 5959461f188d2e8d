//! The dialogue with one server over one connection (RFC 5321 §3, §4.5.3.2).
//!
//! It only carries: what to say and what a reply means is known by [`crate::smtp::client`]. Each
//! wait has its deadline. What the server says is bounded; what cannot be read as a reply ends the
//! connection. Nothing here is cancel safe: a dropped call leaves the connection in the middle of a
//! sentence, and it has to be dropped too.

use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::iter::once;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::time::timeout;

use super::broken::Broken;
use super::config::Deadlines;
use super::outcome::Handover;
use super::outcome::Peer;
use crate::mail::address::Domain;
use crate::mail::envelope::Envelope;
use crate::smtp::client::Protocol;
use crate::smtp::client::capabilities::Capabilities;
use crate::smtp::client::dots;
use crate::smtp::client::response::Class;
use crate::smtp::client::response::Response;
use crate::smtp::client::shape::Shape;
use crate::smtp::client::transaction::Connection;
use crate::smtp::client::transaction::Step;
use crate::smtp::client::transaction::Transaction;
use crate::smtp::client::transaction::Wait;

/// How many slices go into one write.
const SLICES: usize = 256;
/// How long a goodbye may take. Nothing depends on it.
const GOODBYE: Duration = Duration::from_secs(1);

/// What is written, piece by piece.
pub(super) type Pieces<'a> = Box<dyn Iterator<Item = &'a [u8]> + Send + 'a>;

/// A connection whose server has said what it offers.
#[derive(Debug)]
pub(super) struct Exchange<S> {
    stream: S,
    peer: Arc<Peer>,
    /// What the server calls itself, in lower case.
    name: Box<str>,
    protocol: Protocol,
    pub(super) offered: Capabilities,
    /// Whether it goes under TLS.
    pub(super) is_secure: bool,
    pub(super) deadlines: Deadlines,
    /// What came and was not read as a reply yet.
    buffer: BytesMut,
    /// How many transactions there were.
    pub(super) transactions: u32,
    /// The server takes us for the client of an earlier message, since an XCLIENT.
    pub(super) taken_for_another: bool,
}

/// What came of a transaction.
pub(super) struct Transacted {
    /// One for each of the recipients asked for, in their order; None where the connection broke first.
    pub(super) answers: Vec<Option<Response>>,
    pub(super) broken: Option<Broken>,
    /// What it means for a recipient to be delivered.
    pub(super) handover: Handover,
    pub(super) connection: Connection,
    pub(super) again: Again,
}

/// Whether the same may be said once more on another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// The server had taken nothing when the connection broke.
    Safe,
    /// The server does not know the BDAT that it offered.
    WithoutBdat,
    /// The server may have the message.
    No,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Waits for the greeting and says hello.
    pub(super) async fn open(
        stream: S,
        peer: &Arc<Peer>,
        protocol: Protocol,
        hostname: &Domain,
        deadlines: Deadlines,
    ) -> Result<Exchange<S>, Broken> {
        let mut exchange = Exchange::resume(stream, peer, protocol, deadlines);
        let greeting = exchange.read("the connection", deadlines.greeting).await?;
        if greeting.class() != Class::Done {
            return Err(Broken::refused("the connection", greeting));
        }
        exchange.hello(hostname.as_str()).await?;
        Ok(exchange)
    }

    /// Goes on with a stream that was greeted before, as after STARTTLS.
    pub(super) fn resume(
        stream: S,
        peer: &Arc<Peer>,
        protocol: Protocol,
        deadlines: Deadlines,
    ) -> Exchange<S> {
        Exchange {
            stream,
            peer: Arc::clone(peer),
            name: Box::default(),
            protocol,
            offered: Capabilities::default(),
            is_secure: false,
            deadlines,
            buffer: BytesMut::new(),
            transactions: 0,
            taken_for_another: false,
        }
    }

    /// The same exchange over the same stream in another type.
    pub(super) fn map<T>(self, change: impl FnOnce(S) -> T) -> Exchange<T> {
        Exchange {
            stream: change(self.stream),
            peer: self.peer,
            name: self.name,
            protocol: self.protocol,
            offered: self.offered,
            is_secure: self.is_secure,
            deadlines: self.deadlines,
            buffer: self.buffer,
            transactions: self.transactions,
            taken_for_another: self.taken_for_another,
        }
    }

    /// What came of TLS, for whoever looks at the peer.
    pub(super) fn noting(mut self, what: &str) -> Exchange<S> {
        let mut peer = Peer::clone(&self.peer);
        peer.tls = peer.tls.map(|tls| format!("{tls}; {what}").into());
        self.peer = Arc::new(peer);
        self
    }

    /// With whom we speak.
    pub(super) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// What the server called itself in its reply to EHLO, in lower case.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Says EHLO or LHLO, and HELO to an SMTP server that knows no better (RFC 5321 §3.2).
    pub(super) async fn hello(&mut self, hostname: &str) -> Result<(), Broken> {
        let word = self.protocol.hello();
        let response = self.ask(word, &format!("{word} {hostname}\r\n")).await?;
        match (response.class(), self.protocol) {
            (Class::Done, _) => {
                self.offered = Capabilities::read(&response);
                let first = response.lines().next().unwrap_or_default();
                let name = first.split_ascii_whitespace().next().unwrap_or_default();
                self.name = name.to_ascii_lowercase().into_boxed_str();
                Ok(())
            }
            (Class::Never, Protocol::Smtp) => {
                let response = self.ask("HELO", &format!("HELO {hostname}\r\n")).await?;
                match response.class() {
                    Class::Done => Ok(()),
                    Class::GoOn | Class::Later | Class::Never => {
                        Err(Broken::refused("HELO", response))
                    }
                }
            }
            (Class::GoOn | Class::Later | Class::Never, _) => Err(Broken::refused(word, response)),
        }
    }

    /// Says STARTTLS and gives the bare stream, ready for the handshake.
    pub(super) async fn start_tls(mut self) -> Result<S, Broken> {
        let response = self.ask("STARTTLS", "STARTTLS\r\n").await?;
        if response.class() != Class::Done {
            return Err(Broken::refused("STARTTLS", response));
        }
        // What stands in plain text behind the reply would pass for something said under TLS.
        if !self.buffer.is_empty() {
            return Err(Broken::Chatter); // RFC 3207 §6
        }
        Ok(self.stream)
    }

    /// Delivers `pieces` to the recipients `which` of `envelope`. Not cancel safe.
    pub(super) async fn transact(
        &mut self,
        envelope: &Envelope,
        which: &[usize],
        pieces: &[&[u8]],
    ) -> Transacted {
        self.transactions += 1;
        let shape = Shape::of(pieces);
        let mut transaction =
            Transaction::new(self.protocol, &self.offered, envelope, which, shape);
        let mut again = Again::Safe;
        let broken = self.carry(&mut transaction, pieces, &mut again).await.err();
        let (begun, knows_no_bdat) = (transaction.is_begun(), transaction.knows_no_bdat());
        let (answers, mut connection) = transaction.end();
        if broken.is_some() {
            connection = Connection::Spent;
        }
        if knows_no_bdat {
            again = Again::WithoutBdat;
        } else if begun || connection != Connection::Spent {
            again = Again::No;
        }
        Transacted {
            answers,
            broken,
            handover: self.handover(),
            connection,
            again,
        }
    }

    fn handover(&self) -> Handover {
        match (self.protocol, self.offered.dsn) {
            (Protocol::Lmtp, _) => Handover::Final,
            (Protocol::Smtp, true) => Handover::WishesPassedOn,
            (Protocol::Smtp, false) => Handover::WishesUnknown,
        }
    }

    async fn carry(
        &mut self,
        transaction: &mut Transaction,
        pieces: &[&[u8]],
        again: &mut Again,
    ) -> Result<(), Broken> {
        loop {
            let sent = match transaction.step() {
                Step::Done => return Ok(()),
                Step::Say(line) => self.write(Box::new(once(line.as_slice()))).await,
                Step::SayWithMessage(line) => {
                    let message = dots::plain(pieces.iter().copied());
                    let all = Box::new(once(line.as_slice()).chain(message));
                    let sent = self.write(all).await;
                    // Once the last octet is out, the server can have it all though it does not say so.
                    if sent.is_ok() {
                        *again = Again::No;
                    }
                    sent
                }
                Step::Message => {
                    let message = Box::new(dots::dotted(pieces.iter().copied()));
                    self.write(message).await
                }
            };
            if let Err(broken) = sent {
                self.last_words(transaction).await;
                return Err(broken);
            }
            self.hear(transaction, again).await?;
        }
    }

    async fn hear(
        &mut self,
        transaction: &mut Transaction,
        again: &mut Again,
    ) -> Result<(), Broken> {
        while let Some(wait) = transaction.waiting() {
            let (to, limit) = self.deadline(wait);
            let response = self.read(to, limit).await?;
            if wait == Wait::Mail && response.is_goodbye() {
                *again = Again::Safe; // It went away without looking at what we sent.
            }
            transaction.heard(response)?;
        }
        Ok(())
    }

    /// A server that hangs up in the middle has often said why.
    async fn last_words(&mut self, transaction: &mut Transaction) {
        while let Some(wait) = transaction.waiting() {
            let Ok(response) = self.read("the message", GOODBYE).await else {
                return;
            };
            let at_end = matches!(wait, Wait::Last | Wait::LastFor(_));
            // Nobody can have taken a message that was not sent to its end.
            let impossible = at_end && response.class() == Class::Done;
            if impossible || transaction.heard(response).is_err() {
                return;
            }
        }
    }

    /// RFC 5321 §4.5.3.2
    fn deadline(&self, wait: Wait) -> (&'static str, Duration) {
        match wait {
            Wait::Mail => ("MAIL", self.deadlines.mail),
            Wait::Rcpt(_) => ("RCPT", self.deadlines.recipient),
            Wait::Data => ("DATA", self.deadlines.data),
            Wait::Last | Wait::LastFor(_) => ("the message", self.deadlines.message),
        }
    }

    /// Makes the connection ready for the next transaction; false where it is of no more use.
    pub(super) async fn settle(&mut self, connection: Connection) -> bool {
        match connection {
            Connection::Ready => true,
            Connection::Spent => false,
            Connection::ResetFirst => match self.ask("RSET", "RSET\r\n").await {
                Ok(response) => response.class() == Class::Done,
                Err(_) => false,
            },
        }
    }

    /// Whether the server is still there and silent, as far as can be told without waiting.
    pub(super) async fn is_idle(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let pending = poll_fn(|context| {
            let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            Poll::Ready(read.is_pending())
        });
        self.buffer.is_empty() && pending.await
    }

    /// Says QUIT and goes, without caring for the answer. Takes at most a second.
    pub(super) async fn quit(mut self) {
        let goodbye = async {
            self.stream.write_all(b"QUIT\r\n").await?;
            self.stream.flush().await?;
            // RFC 5321 §4.1.1.10: the answer is waited for, so that the server sees an orderly end.
            self.stream.read_buf(&mut self.buffer).await
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }

    /// Says one line and reads the reply.
    pub(super) async fn ask(&mut self, to: &'static str, line: &str) -> Result<Response, Broken> {
        self.write(Box::new(once(line.as_bytes()))).await?;
        let limit = match to {
            "RCPT" => self.deadlines.recipient,
            "MAIL" | "RSET" => self.deadlines.mail,
            _ => self.deadlines.hello,
        };
        self.read(to, limit).await
    }

    /// Reads one reply.
    pub(super) async fn read(
        &mut self,
        to: &'static str,
        limit: Duration,
    ) -> Result<Response, Broken> {
        timeout(limit, self.read_unlimited(to))
            .await
            .unwrap_or(Err(Broken::Silence { to, limit }))
    }

    async fn read_unlimited(&mut self, to: &'static str) -> Result<Response, Broken> {
        loop {
            let read = Response::read(&self.buffer);
            match read.map_err(|source| Broken::Malformed { to, source })? {
                Some((response, used)) => {
                    self.buffer.advance(used);
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new(); // An idle connection holds no memory.
                    }
                    return Ok(response);
                }
                None => self.buffer.reserve(2048),
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(Broken::Closed { to }),
                Ok(_) => {}
                Err(source) => return Err(Broken::Io { at: to, source }),
            }
        }
    }

    /// Writes the pieces in order, many in one system call. Holds no more than those of one call:
    /// all pieces of a message of dots would take ten times its memory.
    pub(super) async fn write(&mut self, mut pieces: Pieces<'_>) -> Result<(), Broken> {
        loop {
            let some = pieces.by_ref().filter(|piece| !piece.is_empty());
            let mut batch: Vec<IoSlice<'_>> = some.take(SLICES).map(IoSlice::new).collect();
            if batch.is_empty() {
                break;
            }
            let mut rest = batch.as_mut_slice();
            while !rest.is_empty() {
                let written = self.block(self.deadlines.block, rest).await?;
                IoSlice::advance_slices(&mut rest, written);
            }
        }
        let limit = self.deadlines.block;
        match timeout(limit, self.stream.flush()).await {
            Ok(flushed) => flushed.map_err(Broken::writing),
            Err(_) => Err(Broken::Stuck { limit }),
        }
    }

    async fn block(&mut self, limit: Duration, slices: &[IoSlice<'_>]) -> Result<usize, Broken> {
        match timeout(limit, self.stream.write_vectored(slices)).await {
            Ok(Ok(0)) => Err(Broken::writing(io::ErrorKind::WriteZero.into())),
            Ok(Ok(written)) => Ok(written),
            Ok(Err(source)) => Err(Broken::writing(source)),
            Err(_) => Err(Broken::Stuck { limit }),
        }
    }
}
