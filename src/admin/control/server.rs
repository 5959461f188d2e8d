//! The server's half of the control socket: who may come in, and how much of them.

use std::fs;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Extension;
use axum::routing::get;
use axum::routing::post;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::command;
use super::command::Task;
use super::questions;
use super::rates::Rates;
use crate::admin::health::Health;
use crate::http;
use crate::scheduler::orders::Orders;
use crate::telemetry::metrics::Metrics;

/// Connections at once. Further ones wait in the kernel.
const MOST_CONNECTIONS: usize = 8;
/// For a connection in all: a list of a million messages takes a while.
const CONNECTION_WITHIN: Duration = Duration::from_secs(600);
/// For the names of many messages in one request.
const MOST_BODY: usize = 1 << 20;

/// The socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is not there or not ours, or somebody listens there.
    #[error("cannot open the control socket {}", path.display())]
    Bind {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
}

/// Opens the socket for ourselves and root alone (0600). One that an earlier run left is replaced; one
/// on which somebody listens is not.
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    let open = || {
        make_room(path)?;
        // It gets its name when nobody else may open it any more.
        let unnamed = path.with_extension("new");
        make_room(&unnamed)?;
        let listener = UnixListener::bind(&unnamed)?;
        fs::set_permissions(&unnamed, Permissions::from_mode(0o600))?;
        fs::rename(&unnamed, path)?;
        Ok(listener)
    };
    open().map_err(|source| Error::Bind {
        path: path.to_owned(),
        source,
    })
}

/// Removes a socket on which nobody listens; nothing else.
fn make_room(path: &Path) -> io::Result<()> {
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        let text = "there is a file that is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "somebody listens there",
        )),
        Err(_) => fs::remove_file(path),
    }
}

/// What all requests share.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) orders: Orders,
    pub(super) health: Health,
    pub(super) rates: Arc<Rates>,
    pub(super) since: Instant,
    pub(super) tasks: mpsc::Sender<Task>,
}

/// Who asks, for the log.
#[derive(Debug, Clone)]
pub(super) struct Asker(pub(super) String);

/// Serves until `stop`. Answers are cut off then; the messages that an order is dealing with are brought
/// to an end.
///
/// Not cancel safe, because of these; see [`Orders::carry_out`].
pub async fn serve(
    listener: UnixListener,
    orders: Orders,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let rates = Arc::new(Rates::new(metrics));
    // Each connection has one order at most; who finds the line full waits.
    let (tasks, waiting) = mpsc::channel(1);
    let mut work = pin!(command::work(waiting, orders.clone()));
    let desk = Desk {
        tasks,
        orders,
        health,
        rates: Arc::clone(&rates),
        since: Instant::now(),
    };
    let router = Router::new()
        .route("/queue/list", post(questions::list))
        .route("/queue/{name}", get(questions::show).post(command::order))
        .route("/queue/{name}/message", get(questions::message))
        .route("/status", get(questions::status))
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .with_state(desk);
    let answer = move |stream| converse(stream, router.clone());
    let served = http::admit(listener, MOST_CONNECTIONS, CONNECTION_WITHIN, answer);
    tokio::select! {
        () = stop.cancelled() => {}
        () = served => {}
        () = rates.gather() => {}
        () = &mut work => {}
    }
    work.await; // All connections are gone, so nothing more comes.
}

async fn converse(stream: UnixStream, router: Router) {
    let asker = match stream.peer_cred() {
        Ok(who) => format!("uid {}", who.uid()),
        Err(_) => "unknown".to_owned(),
    };
    http::answer(stream, router.layer(Extension(Asker(asker)))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_left_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let first = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(bind(&path).is_err(), "somebody listens");
        drop(first);
        drop(bind(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file of theirs").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file of theirs");
    }
}
