//! Why a dialogue with a server ended before its time.

use std::io;
use std::time::Duration;

use crate::smtp::client::response::Malformed;
use crate::smtp::client::response::Response;
use crate::smtp::client::transaction::Unexpected;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("no reply to {to} within {}s", .limit.as_secs())]
    Silence { to: &'static str, limit: Duration },
    #[error("the server takes no data, waited {}s", .limit.as_secs())]
    Stuck { limit: Duration },
    #[error("the server closed the connection instead of replying to {to}")]
    Closed { to: &'static str },
    #[error("the connection broke at {at}: {source}")]
    Io { at: &'static str, source: io::Error },
    #[error("the reply to {to} is no reply: {source}")]
    Malformed { to: &'static str, source: Malformed },
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
    #[error("{to} was answered with {response}")]
    Refused {
        to: &'static str,
        response: Response,
    },
    #[error("the server talks before its turn")]
    Chatter,
    #[error("the server takes us for the client of an earlier message")]
    TakenForAnother,
}

impl Broken {
    /// The same as a response of our own (RFC 3463 §3.5).
    pub(super) fn response(self) -> Response {
        let detail = match self {
            Broken::Refused { response, .. } => return response,
            Broken::Unexpected(_)
            | Broken::Malformed { .. }
            | Broken::Chatter
            | Broken::TakenForAnother => (4, 5, 0),
            Broken::Silence { .. }
            | Broken::Stuck { .. }
            | Broken::Closed { .. }
            | Broken::Io { .. } => (4, 4, 2),
        };
        Response::ours(451, detail, &self.to_string())
    }

    pub(super) fn writing(source: io::Error) -> Broken {
        Broken::Io {
            at: "writing",
            source,
        }
    }

    pub(super) fn refused(to: &'static str, response: Response) -> Broken {
        Broken::Refused { to, response }
    }
}
