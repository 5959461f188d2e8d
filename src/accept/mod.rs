//! Sockets in: the gate through which each connection comes, and the life of the sessions behind it.
//!
//! [`Sockets::bind`] takes the addresses while the process may still do so, [`privileges`] gives root
//! up, [`run`] accepts until it is told to stop. One task accepts on all sockets and owns all
//! sessions: it alone starts, reaps and ends them, so that a reload and a stop see one state.
//!
//! A connection that finds a limit reached is told so and closed without costing a task. One that
//! comes from a network with `proxy_protocol_from` has to begin with a PROXY header; from any other
//! network such a header is what it looks like, a broken command. Users of this machine have a socket of
//! their own ([`local`]).
//!
//! # Limits
//!
//! An address can't be taken while one of our own sockets holds the wildcard of its port: changing
//! `0.0.0.0:25` to `192.0.2.1:25` needs a restart. Sockets are not taken over from systemd.

use std::future::pending;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::task::spawn_blocking;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::mail::id::SessionId;
use crate::session;
use crate::session::Connection;
use crate::session::Shared;
use crate::session::Socket;
use crate::session::TlsMode;
use crate::session::TurnedAway;
use crate::telemetry::events;
use crate::telemetry::metrics;

mod limits;
mod listeners;
pub mod local;
pub mod privileges;
mod proxy;
pub mod readiness;
mod sockets;

pub use self::limits::Limits;
pub use self::sockets::Defaults;
pub use self::sockets::Error;
pub use self::sockets::Listen;
pub use self::sockets::Sockets;
pub use self::sockets::bind_others;

use self::limits::Gate;
use self::limits::Ticket;
use self::listeners::Accepted;
use self::listeners::Listeners;
use self::sockets::Endpoint;

/// Gives each session its name.
pub type Ids = Arc<dyn Fn() -> SessionId + Send + Sync>;

/// New listeners and limits, to be taken while sessions go on.
#[derive(Debug)]
pub struct Reload {
    /// All listeners from now on; what is not among them is closed.
    pub listen: Vec<Listen>,
    /// What is listened on where there is none.
    pub defaults: Defaults,
    /// For all listeners together.
    pub limits: Limits,
    /// Told what came of it. After an error the old listeners and limits are in force.
    pub done: oneshot::Sender<Result<(), Error>>,
}

/// How the sessions ended after the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Sessions that came to their end within `drain_timeout`.
    pub finished: usize,
    /// Sessions that had to be cut off.
    pub aborted: usize,
}

/// Accepts connections and serves each, until `stop` is cancelled; then closes the listeners, waits
/// for the sessions up to `drain_timeout` and aborts what is left.
///
/// Each session gets what stands in `shared` when it begins. Not cancel safe: dropping the future
/// cuts all sessions off.
pub async fn run(
    sockets: Sockets,
    door: Option<local::Door>,
    limits: Limits,
    shared: Arc<ArcSwap<Shared>>,
    ids: Ids,
    mut reloads: mpsc::Receiver<Reload>,
    stop: CancellationToken,
) -> Result<Drained, Error> {
    let mut acceptor = Acceptor {
        listeners: Listeners::new(sockets)?,
        drain_timeout: limits.drain_timeout,
        proxy_timeout: limits.proxy_header_timeout,
        gate: Arc::new(Gate::new(limits)),
        shared,
        ids,
        stop,
        sessions: JoinSet::new(),
    };
    let door = door.map(Entrance::new).transpose()?;
    let mut pause = pin!(time::sleep(Duration::ZERO));
    let mut paused = false;
    loop {
        metrics::sessions(acceptor.sessions.len());
        tokio::select! {
            biased;
            () = acceptor.stop.cancelled() => {
                drop(door);
                return Ok(acceptor.drain().await);
            }
            Some(reload) = reloads.recv() => acceptor.reload(reload),
            Some(ended) = acceptor.sessions.join_next() => reap(ended),
            () = &mut pause, if paused => paused = false,
            next = acceptor.listeners.next(), if !paused => match next {
                Ok(accepted) => acceptor.arrived(accepted),
                Err((address, error)) => {
                    events::accept_failed(&address, &error);
                    pause.as_mut().reset(time::Instant::now() + PAUSE);
                    paused = true;
                }
            },
            next = next_of(door.as_ref()), if !paused => match next {
                Ok(stream) => acceptor.arrived_locally(stream),
                Err((path, error)) => {
                    events::accept_failed(&path.display(), &error);
                    pause.as_mut().reset(time::Instant::now() + PAUSE);
                    paused = true;
                }
            },
        }
    }
}

/// How long no connection is accepted after accepting one failed, most likely for want of
/// descriptors or memory: the error would come again at once, and the kernel's queue keeps the clients.
const PAUSE: Duration = Duration::from_millis(500);

struct Acceptor {
    listeners: Listeners,
    gate: Arc<Gate>,
    shared: Arc<ArcSwap<Shared>>,
    ids: Ids,
    drain_timeout: Duration,
    proxy_timeout: Duration,
    stop: CancellationToken,
    sessions: JoinSet<()>,
}

impl Acceptor {
    /// Starts the session of a new connection, or turns it away.
    fn arrived(&mut self, accepted: Accepted) {
        let Accepted {
            stream,
            peer,
            endpoint,
        } = accepted;
        let peer = canonical(peer);
        // Both fail only where the client is gone already.
        let (Ok(()), Ok(local)) = (stream.set_nodelay(true), stream.local_addr()) else {
            return;
        };
        let arrival = Arrival {
            peer,
            local: canonical(local),
            id: (self.ids)(),
            shared: Arc::clone(&self.shared),
            stop: self.stop.clone(),
            endpoint,
        };
        let admitted = if arrival.endpoint.is_proxy(peer.ip()) {
            self.gate.enter()
        } else {
            self.gate.admit(peer.ip(), Instant::now())
        };
        match admitted {
            Ok(ticket) if arrival.endpoint.is_proxy(peer.ip()) => {
                let attended = arrival.attend_proxied(stream, ticket, self.proxy_timeout);
                self.sessions.spawn(attended);
            }
            Ok(ticket) => {
                self.sessions.spawn(arrival.attend(stream, ticket));
            }
            Err(reason) => arrival.turn_away(stream, reason),
        }
    }

    /// Starts the session of an account of this machine, or turns it away.
    fn arrived_locally(&mut self, stream: UnixStream) {
        // It fails only where the client is gone already.
        let Ok(peer) = stream.peer_cred() else {
            return;
        };
        let (id, uid) = ((self.ids)(), peer.uid());
        let ticket = match self.gate.admit_account(uid) {
            Ok(ticket) => ticket,
            Err(reason) => {
                events::turned_away(Ipv4Addr::LOCALHOST.into(), limits::name(reason));
                return session::turn_away(&Socket::Unix(stream), reason);
            }
        };
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        self.sessions.spawn(async move {
            let _ticket = ticket;
            let Ok(account) = spawn_blocking(move || local::name(uid)).await else {
                return;
            };
            let connection = local::connection(id, account, "socket");
            session::serve(Socket::Unix(stream), connection, shared.load_full(), stop).await;
        });
    }

    /// Takes other listeners and limits, all of them or none.
    fn reload(&mut self, reload: Reload) {
        let result = match self.listeners.rebind(&reload.listen, reload.defaults) {
            Ok(queued) => {
                self.drain_timeout = reload.limits.drain_timeout;
                self.proxy_timeout = reload.limits.proxy_header_timeout;
                self.gate.set_limits(reload.limits);
                queued.into_iter().for_each(|queued| self.arrived(queued));
                Ok(())
            }
            Err(error) => Err(error),
        };
        // Who asked may have gone; what was done holds all the same.
        let _ = reload.done.send(result);
    }

    /// Ends everything. The sessions have been told by the token that they share.
    async fn drain(mut self) -> Drained {
        self.listeners.close();
        let open = self.sessions.len();
        events::draining(open);
        let all_ended = async {
            while let Some(ended) = self.sessions.join_next().await {
                reap(ended);
                metrics::sessions(self.sessions.len());
            }
        };
        let _ = time::timeout(self.drain_timeout, all_ended).await;
        let aborted = self.sessions.len();
        self.sessions.shutdown().await;
        Drained {
            finished: open - aborted,
            aborted,
        }
    }
}

/// A connection that has no session yet.
struct Arrival {
    id: SessionId,
    peer: SocketAddr,
    local: SocketAddr,
    endpoint: Arc<Endpoint>,
    shared: Arc<ArcSwap<Shared>>,
    stop: CancellationToken,
}

impl Arrival {
    /// Serves the connection. The ticket is given back when the session has ended, however it ends.
    async fn attend(self, stream: TcpStream, _ticket: Ticket) {
        let connection = Connection {
            id: self.id,
            peer: self.peer,
            local: self.local,
            service: self.endpoint.service,
            tls: self.endpoint.tls,
            terms: Arc::clone(&self.endpoint.terms),
            account: None,
        };
        let socket = Socket::Tcp(stream);
        session::serve(socket, connection, self.shared.load_full(), self.stop).await;
    }

    /// Finds out from the PROXY header who the client is, then goes on as for any other.
    async fn attend_proxied(
        mut self,
        mut stream: TcpStream,
        mut ticket: Ticket,
        deadline: Duration,
    ) {
        let read = tokio::select! {
            read = time::timeout(deadline, proxy::read(&mut stream)) => {
                read.unwrap_or(Err(proxy::Error::Late))
            }
            () = self.stop.cancelled() => return,
        };
        match read {
            Ok(proxy::Header::Local) => {}
            Ok(proxy::Header::Proxied { client, server }) => {
                self.peer = canonical(client);
                self.local = canonical(server);
            }
            Err(error) => return events::proxy_refused(self.peer.ip(), &error),
        }
        match ticket.claim(self.peer.ip(), Instant::now()) {
            Ok(()) => self.attend(stream, ticket).await,
            Err(reason) => self.turn_away(stream, reason),
        }
    }

    fn turn_away(&self, stream: TcpStream, reason: TurnedAway) {
        events::turned_away(self.peer.ip(), limits::name(reason));
        match self.endpoint.tls {
            TlsMode::Off | TlsMode::Starttls => {
                session::turn_away(&Socket::Tcp(stream), reason);
            }
            // Our words would be taken for a broken handshake, and a handshake is work.
            TlsMode::Implicit => drop(stream),
        }
    }
}

/// Where accounts of this machine come in, while the runtime watches it.
struct Entrance {
    listener: UnixListener,
    path: PathBuf,
}

impl Entrance {
    fn new(door: local::Door) -> Result<Entrance, Error> {
        let path = door.path;
        match UnixListener::from_std(door.listener) {
            Ok(listener) => Ok(Entrance { listener, path }),
            Err(source) => Err(Error::WatchLocal { path, source }),
        }
    }
}

/// The next connection, where there is a door. Cancel safe.
async fn next_of(door: Option<&Entrance>) -> Result<UnixStream, (PathBuf, io::Error)> {
    let Some(door) = door else {
        return pending().await;
    };
    let accepted = door.listener.accept().await;
    accepted
        .map(|(stream, _)| stream)
        .map_err(|error| (door.path.clone(), error))
}

fn reap(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        events::session_panicked(&error);
    }
}

/// An IPv4 address is written as one, whatever socket it came through.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}
