//! The other end of the control socket, for the command line.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::Request;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Command;
use super::Done;
use super::Filter;
use super::Message;
use super::Status;

/// How long the gateway may be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Octets of a line or a refusal.
const LONGEST: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there, or we may not open it.
    #[error("cannot reach the gateway by its control socket {}", path.display())]
    Away {
        /// Of the socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What was asked for is not there, or wrong.
    #[error("{0}")]
    Refused(String),
    /// The answer broke off or is none.
    #[error("the gateway did not answer to the end: {0}")]
    Broken(String),
}

impl Error {
    fn broken(error: impl std::fmt::Display) -> Error {
        Error::Broken(error.to_string())
    }
}

/// Where the gateway is asked.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// Asks by this socket. Each question makes a connection of its own.
    pub fn new(path: &Path) -> Client {
        Client {
            path: path.to_owned(),
        }
    }

    /// Gives each message that the filter means to `see`, in the order in which they came. Cancel safe.
    pub async fn list(&self, filter: &Filter, mut see: impl FnMut(Message)) -> Result<(), Error> {
        let answer = self.ask("POST", "/queue/list", Some(filter)).await?;
        answer.lines(&mut see).await
    }

    /// One message with its header. Cancel safe.
    pub async fn show(&self, id: &str) -> Result<Message, Error> {
        self.answer("GET", &format!("/queue/{id}"), None::<&()>)
            .await
    }

    /// The message itself. Cancel safe.
    pub async fn message(&self, id: &str) -> Result<Bytes, Error> {
        let path = format!("/queue/{id}/message");
        self.ask("GET", &path, None::<&()>).await?.whole().await
    }

    /// Does one of `retry`, `hold`, `release`, `bounce`, `delete`. Who stops waiting does not know how
    /// far it came.
    pub async fn order(&self, order: &str, command: &Command) -> Result<Done, Error> {
        let path = format!("/queue/{order}");
        let answer = self.ask("POST", &path, Some(command)).await?;
        let mut last = None;
        answer.lines(&mut |done| last = Some(done)).await?;
        last.ok_or_else(|| Error::broken("it says nothing"))
    }

    /// How the gateway is. Cancel safe.
    pub async fn status(&self) -> Result<Status, Error> {
        self.answer("GET", "/status", None::<&()>).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let answer = self.ask(method, path, body).await?;
        serde_json::from_slice(&answer.whole().await?).map_err(Error::broken)
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer, Error> {
        let stream = UnixStream::connect(&self.path).await;
        let stream = stream.map_err(|source| Error::Away {
            path: self.path.clone(),
            source,
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::broken)?;
        let mut carrying = JoinSet::new();
        carrying.spawn(connection);
        let text = body.map(serde_json::to_vec).transpose();
        let text = text.map_err(Error::broken)?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "gatepost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(text)))
            .map_err(Error::broken)?;
        let response = within(sender.send_request(request)).await?;
        let response = response.map_err(Error::broken)?;
        let status = response.status();
        let answer = Answer {
            body: response.into_body(),
            _carrying: carrying,
        };
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let text = answer.whole().await?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        Err(Error::Refused(text))
    }
}

/// An answer on its way.
struct Answer {
    body: Incoming,
    /// The connection, which ends with the answer or with us.
    _carrying: JoinSet<Result<(), hyper::Error>>,
}

impl Answer {
    /// Gives each line to `see`. The last one ends, too, so that one which broke off is noticed.
    async fn lines<T: DeserializeOwned>(mut self, see: &mut impl FnMut(T)) -> Result<(), Error> {
        let mut rest: Vec<u8> = Vec::new();
        while let Some(frame) = within(self.body.frame()).await? {
            let frame = frame.map_err(Error::broken)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            rest.extend_from_slice(data);
            if rest.len() > LONGEST {
                return Err(Error::broken("a line is too long"));
            }
            let whole = memchr::memrchr(b'\n', &rest).map_or(0, |end| end + 1);
            for line in rest[..whole].split(|octet| *octet == b'\n') {
                if !line.is_empty() {
                    see(serde_json::from_slice(line).map_err(Error::broken)?);
                }
            }
            rest.drain(..whole);
        }
        Ok(())
    }

    async fn whole(self) -> Result<Bytes, Error> {
        let body = within(self.body.collect()).await?;
        Ok(body.map_err(Error::broken)?.to_bytes())
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    timeout(PATIENCE, work)
        .await
        .map_err(|_| Error::broken("it takes too long"))
}
