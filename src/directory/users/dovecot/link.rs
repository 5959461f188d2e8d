//! The one connection to Dovecot: made, kept, and made anew when it is lost.
//!
//! One task owns it. Requests come to it over a bounded channel; answers go back to whoever asked, in
//! whatever order Dovecot gives them. What was asked over a connection that is lost is answered so.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use memchr::memchr;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time;
use tokio::time::Instant;

use super::line;
use super::line::Line;
use crate::directory::users::Client;
use crate::telemetry::events;

/// How long connecting, with all that Dovecot has to say then, may take, and sending a line.
const PROMPT: Duration = Duration::from_secs(5);
/// How long a Dovecot that could not be reached is left alone at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Requests that may wait for their answers.
const MOST_PENDING: usize = 512;
/// How often it is looked whether an answer is overdue.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a connection is used. A Dovecot that was reloaded goes on with its old self for whoever is
/// connected, and with what that knew.
const LONGEST_USE: Duration = Duration::from_secs(60);
/// How long a client may take to answer a challenge, as far as a connection is kept for it.
const CHALLENGE: Duration = Duration::from_secs(30);

/// Where Dovecot listens.
#[derive(Debug)]
pub(super) enum Address {
    Unix(PathBuf),
    /// `HOST:PORT`
    Tcp(String),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => path.display().fmt(f),
            Address::Tcp(address) => f.write_str(address),
        }
    }
}

/// Where a dialogue goes on: the connection and its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    connection: u32,
    id: u32,
}

pub(super) struct Request {
    pub(super) said: Said,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What is to be said; messages are in base64.
pub(super) enum Said {
    Begin {
        mechanism: &'static str,
        client: Client,
        message: Option<String>,
    },
    Go {
        ticket: Ticket,
        message: String,
    },
}

pub(super) enum Answer {
    Challenge {
        ticket: Ticket,
        octets: Vec<u8>,
    },
    Granted(String),
    Refused {
        user: Option<String>,
        reason: String,
    },
    Unsure(String),
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not answer")]
    Late,
    #[error("it has closed the connection")]
    Closed,
    #[error(transparent)]
    Broken(#[from] line::Broken),
    #[error("its protocol has version {0}, not 1")]
    Version(String),
}

/// Keeps the connection until nobody can ask any more.
pub(super) async fn run(
    address: Address,
    mut requests: mpsc::Receiver<Request>,
    offered: Arc<ArcSwapOption<Vec<String>>>,
    timeout: Duration,
) {
    let mut pause = FIRST_PAUSE;
    let mut is_known_away = false;
    for connection in 0.. {
        let reached = match time::timeout(PROMPT, connect(&address)).await {
            Ok(reached) => reached,
            Err(_) => Err(Error::Late),
        };
        let error = match reached {
            Ok((mut link, mechanisms)) => {
                offered.store(Some(Arc::new(mechanisms)));
                link.connection = connection;
                (pause, is_known_away) = (FIRST_PAUSE, false);
                match link.serve(&mut requests, timeout).await {
                    Ok(Ended::Unwanted) => return,
                    Ok(Ended::Old) => continue,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if !is_known_away {
            events::users_unreachable(&address, &error);
            is_known_away = true;
        }
        if refuse(&mut requests, pause, &error).await.is_break() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Says for a while that Dovecot is away.
async fn refuse(
    requests: &mut mpsc::Receiver<Request>,
    pause: Duration,
    error: &Error,
) -> std::ops::ControlFlow<()> {
    let until = Instant::now() + pause;
    loop {
        match time::timeout_at(until, requests.recv()).await {
            Err(_) => return std::ops::ControlFlow::Continue(()),
            Ok(None) => return std::ops::ControlFlow::Break(()),
            Ok(Some(request)) => {
                let reason = format!("Dovecot cannot be reached: {error}");
                let _ = request.answer.send(Answer::Unsure(reason));
            }
        }
    }
}

/// Why a connection ended without a fault.
enum Ended {
    /// Nobody can ask any more.
    Unwanted,
    /// It has been used long enough, and nobody waits for an answer.
    Old,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

struct Link {
    connection: u32,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    input: Vec<u8>,
    pending: HashMap<u32, Pending>,
    /// Challenges that clients have still to answer, and since when.
    challenged: HashMap<u32, Instant>,
    last_id: u32,
    since: Instant,
}

struct Pending {
    answer: oneshot::Sender<Answer>,
    since: Instant,
}

/// Connects, and hears what Dovecot has to offer.
async fn connect(address: &Address) -> Result<(Link, Vec<String>), Error> {
    let stream: Box<dyn Stream> = match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    };
    let (reader, writer) = tokio::io::split(stream);
    let mut link = Link {
        connection: 0,
        reader,
        writer,
        input: Vec::new(),
        pending: HashMap::new(),
        challenged: HashMap::new(),
        last_id: 0,
        since: Instant::now(),
    };
    // Dovecot wants a number that no other client has, such as a process id; ours may be there twice for
    // a while after a reload. No process id of Linux is as large as this.
    let client = rand::random_range(1_u32 << 23..1 << 31);
    link.send(&format!("VERSION\t{}\t1\nCPID\t{client}\n", line::MAJOR))
        .await?;
    let mut mechanisms = Vec::new();
    loop {
        match link.next().await? {
            Line::Version(version) if version != line::MAJOR => {
                return Err(Error::Version(version));
            }
            Line::Mechanism(name) if mechanisms.len() < 100 => mechanisms.push(name),
            Line::Done => return Ok((link, mechanisms)),
            _ => {}
        }
    }
}

impl Link {
    /// Carries requests and answers.
    async fn serve(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        timeout: Duration,
    ) -> Result<Ended, Error> {
        let mut look = time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                line = self.next() => self.heard(line?),
                request = requests.recv() => match request {
                    Some(request) => self.ask(request).await?,
                    None => return Ok(Ended::Unwanted),
                },
                _ = look.tick() => {
                    self.look(timeout).await?;
                    let is_idle = self.pending.is_empty() && self.challenged.is_empty();
                    if is_idle && self.since.elapsed() > LONGEST_USE {
                        return Ok(Ended::Old);
                    }
                }
            }
        }
    }

    /// Reads the next line. Cancel safe.
    async fn next(&mut self) -> Result<Line, Error> {
        loop {
            if let Some(end) = memchr(b'\n', &self.input) {
                let line = line::parse(&self.input[..end]);
                self.input.drain(..=end);
                return Ok(line?);
            }
            if self.input.len() >= line::LIMIT {
                return Err(line::Broken.into());
            }
            if self.reader.read_buf(&mut self.input).await? == 0 {
                return Err(Error::Closed);
            }
        }
    }

    async fn send(&mut self, text: &str) -> Result<(), Error> {
        let send = async {
            self.writer.write_all(text.as_bytes()).await?;
            self.writer.flush().await
        };
        match time::timeout(PROMPT, send).await {
            Err(_) => Err(Error::Late),
            Ok(sent) => Ok(sent?),
        }
    }

    async fn ask(&mut self, request: Request) -> Result<(), Error> {
        let Request { said, answer } = request;
        let refuse = |answer: oneshot::Sender<Answer>, reason: &str| {
            let _ = answer.send(Answer::Unsure(reason.to_owned()));
            Ok(())
        };
        if self.pending.len() >= MOST_PENDING {
            return refuse(answer, "too many logins wait for Dovecot");
        }
        let (id, text) = match said {
            Said::Begin {
                mechanism,
                client,
                message,
            } => {
                self.last_id = self.last_id.wrapping_add(1);
                let id = self.last_id;
                (id, begin(id, mechanism, &client, message.as_deref()))
            }
            Said::Go { ticket, message } if ticket.connection == self.connection => {
                self.challenged.remove(&ticket.id);
                (ticket.id, format!("CONT\t{}\t{message}\n", ticket.id))
            }
            Said::Go { .. } => return refuse(answer, "the connection to Dovecot was lost"),
        };
        if text.len() > line::LIMIT {
            let reason = "longer than Dovecot takes".to_owned();
            let _ = answer.send(Answer::Refused { user: None, reason });
            return Ok(());
        }
        let since = Instant::now();
        self.pending.insert(id, Pending { answer, since });
        self.send(&text).await
    }

    fn heard(&mut self, line: Line) {
        let connection = self.connection;
        let (id, answer) = match line {
            Line::Continue { id, octets } => {
                let ticket = Ticket { connection, id };
                if self.challenged.len() < MOST_PENDING {
                    self.challenged.insert(id, Instant::now());
                }
                (id, Answer::Challenge { ticket, octets })
            }
            Line::Granted {
                id,
                user: Some(user),
            } => (id, Answer::Granted(user)),
            Line::Granted { id, user: None } => {
                let reason = "Dovecot does not say as whom the client is in".to_owned();
                (id, Answer::Unsure(reason))
            }
            Line::Failed { id, failure } if failure.is_temporary => {
                (id, Answer::Unsure(failure.reason))
            }
            Line::Failed { id, failure } => {
                let (user, reason) = (failure.user, failure.reason);
                (id, Answer::Refused { user, reason })
            }
            Line::Version(_) | Line::Mechanism(_) | Line::Done | Line::Other => return,
        };
        if let Some(pending) = self.pending.remove(&id) {
            let _ = pending.answer.send(answer);
        }
    }

    /// Gives up a connection over which no answer comes, and tells Dovecot whose client has gone.
    async fn look(&mut self, timeout: Duration) -> Result<(), Error> {
        self.challenged
            .retain(|_, since| since.elapsed() < CHALLENGE);
        let is_late = |pending: &Pending| pending.since.elapsed() > timeout + LOOK_EVERY;
        if self.pending.values().any(is_late) {
            return Err(Error::Late);
        }
        let gone = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.answer.is_closed() && pending.since.elapsed() < timeout);
        let gone: Vec<u32> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.pending.remove(&id);
            self.send(&format!("CANCEL\t{id}\n")).await?;
        }
        Ok(())
    }
}

/// The line that begins a login; what the client said has to be its last word.
fn begin(id: u32, mechanism: &str, client: &Client, message: Option<&str>) -> String {
    let Client { peer, local } = client;
    let mut text = format!(
        "AUTH\t{id}\t{mechanism}\tservice=smtp\tnologin\tlip={}\trip={}\tlport={}\trport={}\tsecured",
        line::escape(&local.ip().to_string()),
        line::escape(&peer.ip().to_string()),
        local.port(),
        peer.port(),
    );
    if let Some(message) = message {
        text.push_str("\tresp=");
        text.push_str(message);
    }
    text.push('\n');
    text
}
