//! Makes connections: sockets, the hello, and as much TLS as the route asks for (RFC 3207, RFC 8314).
//!
//! The addresses of a target are tried in their order until one of them says hello. Opportunistic TLS
//! (RFC 7435) takes any certificate; where it does not come off, the message goes in plain text, as
//! it would have without the offer, and that is remembered for a while. LMTP is spoken as it is; it
//! stays on the machine or on its network.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use mail_send::SmtpClient;
use mail_send::smtp::tls::build_tls_connector;
use moka::sync::Cache;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::broken::Broken;
use super::config::Deadlines;
use super::exchange::Exchange;
use super::hosts;
use super::hosts::Hosts;
use super::next_hop::NextHop;
use super::outcome::Outcome;
use super::outcome::Peer;
use super::route::Route;
use super::route::Tls;
use super::target::Target;
use crate::mail::address::Domain;
use crate::smtp::client::Protocol;
use crate::smtp::client::response::Response;
use crate::telemetry::events;

/// For so long TLS is not tried again with a server with which it did not come off.
const TLS_REST: Duration = Duration::from_secs(3600);
/// So many such servers are remembered.
const MOST_RESTING: u64 = 10_000;

/// A socket, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl fmt::Debug for dyn Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

pub(super) type Connected = Exchange<Box<dyn Stream>>;

/// Makes connections.
pub(super) struct Connector {
    pub(super) hosts: Hosts,
    deadlines: Deadlines,
    any_certificate: TlsConnector,
    /// Made when it is first asked for: a machine without roots can do without.
    trusted_certificate: OnceLock<Result<TlsConnector, String>>,
    without_tls: Cache<SocketAddr, ()>,
}

/// Why there is no TLS on a connection, which is spent.
enum NoTls {
    /// It did not come off: another connection may do without.
    NotMade(Response),
    /// The server breaks the protocol.
    Broken(Response),
}

impl Connector {
    pub(super) fn new(hosts: Hosts, deadlines: Deadlines) -> Result<Connector, String> {
        Ok(Connector {
            hosts,
            deadlines,
            any_certificate: build_tls_connector(true)?,
            trusted_certificate: OnceLock::new(),
            without_tls: Cache::builder()
                .max_capacity(MOST_RESTING)
                .time_to_live(TLS_REST)
                .build(),
        })
    }

    /// Connects to the first address of a target that answers, says LHLO or EHLO, and logs in where
    /// the route says so.
    pub(super) async fn connect(&self, target: &Target) -> Result<Connected, Outcome> {
        let route = target.route();
        let mut connected = self.greeted(target).await?;
        if let (Some(login), Some(file)) = (&route.login, &route.password_file) {
            let limit = self.deadlines.hello;
            let logged_in = connected.log_in(login, file);
            let refusal = match timeout(limit, logged_in).await {
                Ok(Ok(())) => None,
                Ok(Err(refusal)) => Some(refusal),
                Err(_) => Some(Broken::Silence { to: "AUTH", limit }.response()),
            };
            if let Some(refusal) = refusal {
                events::login_failed_at_host(connected.peer(), login, &refusal);
                return Err(Outcome::unreachable(refusal).from(connected.peer()));
            }
        }
        Ok(connected)
    }

    async fn greeted(&self, target: &Target) -> Result<Connected, Outcome> {
        let route = target.route();
        if let NextHop::LmtpUnix(path) = &route.to {
            let peer = Arc::new(Peer {
                name: path.display().to_string().into_boxed_str(),
                address: None,
            });
            let connected = self.unix(path, &peer, route).await;
            return connected.map_err(|reason| Outcome::unreachable(reason).from(&peer));
        }
        let nowhere = Response::ours(451, (4, 3, 5), "the target has no server");
        let mut failure = Outcome::unreachable(nowhere);
        for peer in self.hosts.of(target).await? {
            match self.tcp(&peer, route).await {
                Ok(connected) if self.is_us(&connected, target) => {
                    connected.quit().await;
                    return Err(hosts::looping(target).from(&peer));
                }
                Ok(connected) => return Ok(connected),
                Err(reason) => failure = Outcome::unreachable(reason).from(&peer),
            }
        }
        Err(failure)
    }

    /// Whether a mail exchanger calls itself as we do. An operator's next hop may.
    fn is_us(&self, connected: &Connected, target: &Target) -> bool {
        target.host().is_some() && connected.name() == self.hosts.hostname.as_str()
    }

    async fn unix(
        &self,
        path: &Path,
        peer: &Arc<Peer>,
        route: &Route,
    ) -> Result<Connected, Response> {
        let limit = self.deadlines.connect;
        let connecting = timeout(limit, UnixStream::connect(path)).await;
        let stream = connecting
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| cannot_connect(peer, &error))?;
        let connected = self.greet(stream, peer, Protocol::Lmtp, route).await?;
        Ok(connected.boxed())
    }

    async fn tcp(&self, peer: &Arc<Peer>, route: &Route) -> Result<Connected, Response> {
        let stream = self.socket(peer, route).await?;
        if let NextHop::Lmtp(_) = route.to {
            let connected = self.greet(stream, peer, Protocol::Lmtp, route).await?;
            return Ok(connected.boxed());
        }
        if route.implicit_tls {
            let stream = self.shake_hands(stream, peer, route).await;
            let stream = stream.map_err(NoTls::into_reason)?;
            return self.greet(stream, peer, Protocol::Smtp, route).await;
        }
        let plain = self.greet(stream, peer, Protocol::Smtp, route).await?;
        let tls = route.tls();
        match (tls, plain.offered.starttls) {
            (Tls::None, _) | (Tls::May, false) => return Ok(plain.boxed()),
            (Tls::May, true) if self.rests(peer) => return Ok(plain.boxed()),
            (Tls::Encrypt | Tls::Verify, false) => {
                let text = "the server offers no TLS, and the route does without none";
                return Err(Response::ours(451, (4, 7, 4), text));
            }
            (Tls::May | Tls::Encrypt | Tls::Verify, true) => {}
        }
        let reason = match (self.secure(plain, peer, route).await, tls) {
            (Ok(connected), _) => return Ok(connected),
            (Err(NoTls::NotMade(reason)), Tls::May) => reason,
            (Err(reason), _) => return Err(reason.into_reason()),
        };
        events::no_tls_with_host(peer, &reason);
        if let Some(address) = peer.address {
            self.without_tls.insert(address, ());
        }
        let stream = self.socket(peer, route).await?;
        let plain = self.greet(stream, peer, Protocol::Smtp, route).await?;
        Ok(plain.boxed())
    }

    fn rests(&self, peer: &Peer) -> bool {
        peer.address
            .is_some_and(|address| self.without_tls.contains_key(&address))
    }

    async fn greet<S>(
        &self,
        stream: S,
        peer: &Arc<Peer>,
        protocol: Protocol,
        route: &Route,
    ) -> Result<Exchange<S>, Response>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let hello = self.hello(route);
        Exchange::open(stream, peer, protocol, hello, self.deadlines)
            .await
            .map_err(Broken::response)
    }

    /// The name that we give.
    fn hello<'a>(&'a self, route: &'a Route) -> &'a Domain {
        route.hello.as_ref().unwrap_or(&self.hosts.hostname)
    }

    /// The same connection under TLS.
    async fn secure(
        &self,
        plain: Exchange<TcpStream>,
        peer: &Arc<Peer>,
        route: &Route,
    ) -> Result<Connected, NoTls> {
        let stream = plain.start_tls().await.map_err(NoTls::from)?;
        let stream = self.shake_hands(stream, peer, route).await?;
        let mut secure = Exchange::resume(stream, peer, Protocol::Smtp, self.deadlines);
        // RFC 3207 §4.2: what was offered in plain text counts no more.
        let hello = secure.hello(self.hello(route).as_str()).await;
        hello.map_err(NoTls::from)?;
        Ok(secure)
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        peer: &Peer,
        route: &Route,
    ) -> Result<Box<dyn Stream>, NoTls> {
        let connector = match route.tls() {
            Tls::Verify => self.trusted()?,
            Tls::None | Tls::May | Tls::Encrypt => &self.any_certificate,
        };
        let client = SmtpClient {
            stream,
            timeout: self.deadlines.hello,
        };
        let client = client
            .into_tls(connector, &peer.name)
            .await
            .map_err(|error| {
                let text = format!("TLS with {peer} failed: {error}");
                NoTls::NotMade(Response::ours(451, (4, 7, 5), &text))
            })?;
        Ok(Box::new(client.stream))
    }

    fn trusted(&self) -> Result<&TlsConnector, NoTls> {
        let made = self
            .trusted_certificate
            .get_or_init(|| build_tls_connector(false));
        made.as_ref().map_err(|error| {
            let text = format!("no certificate can be verified: {error}");
            NoTls::Broken(Response::ours(451, (4, 3, 5), &text))
        })
    }

    async fn socket(&self, peer: &Peer, route: &Route) -> Result<TcpStream, Response> {
        let Some(address) = peer.address else {
            return Err(cannot_connect(peer, &"it has no address"));
        };
        let mut sources = route.source.iter();
        let source = sources.find(|source| source.is_ipv4() == address.is_ipv4());
        let connecting = async {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            if let Some(source) = source {
                socket.bind(SocketAddr::new(*source, 0))?;
            }
            socket.connect(address).await
        };
        let stream = timeout(self.deadlines.connect, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| cannot_connect(peer, &error))?;
        // Commands are small and each waits for its reply; failing costs only time.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl NoTls {
    fn into_reason(self) -> Response {
        match self {
            NoTls::NotMade(reason) | NoTls::Broken(reason) => reason,
        }
    }
}

/// A server that hangs up over TLS, or says no to STARTTLS, may do without; what it says otherwise
/// counts.
impl From<Broken> for NoTls {
    fn from(broken: Broken) -> NoTls {
        match broken {
            Broken::Refused { to: "STARTTLS", .. } | Broken::Closed { .. } | Broken::Io { .. } => {
                NoTls::NotMade(broken.response())
            }
            Broken::Silence { .. }
            | Broken::Stuck { .. }
            | Broken::Malformed { .. }
            | Broken::Unexpected(_)
            | Broken::Refused { .. }
            | Broken::Chatter
            | Broken::TakenForAnother => NoTls::Broken(broken.response()),
        }
    }
}

fn cannot_connect(to: &Peer, error: &dyn fmt::Display) -> Response {
    let text = format!("cannot connect to {to}: {error}");
    Response::ours(451, (4, 4, 1), &text)
}

impl<S: Stream + 'static> Exchange<S> {
    fn boxed(self) -> Connected {
        self.map(|stream| Box::new(stream) as Box<dyn Stream>)
    }
}
