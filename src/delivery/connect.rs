//! Makes connections: sockets, the hello, and as much TLS as is asked for ([`super::security`]).
//!
//! The addresses of a target are tried in their order until one of them says hello and is as safe as
//! it has to be. LMTP is spoken as it is; it stays on the machine or on its network.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::broken::Broken;
use super::config::Config;
use super::config::Deadlines;
use super::exchange::Exchange;
use super::hosts;
use super::hosts::Candidate;
use super::hosts::Hosts;
use super::next_hop::NextHop;
use super::outcome::Outcome;
use super::outcome::Peer;
use super::route::Route;
use super::route::Tls;
use super::security;
use super::security::Level;
use super::security::Means;
use super::security::Security;
use super::security::Wish;
use super::security::sts::Policies;
use super::starttls::Handshakes;
use super::starttls::NoTls;
use super::target::Target;
use super::trouble::Trouble;
use super::trouble::tell;
use crate::mail::address::Domain;
use crate::mail::address::Host;
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
    pub(super) deadlines: Deadlines,
    pub(super) handshakes: Handshakes,
    /// What an operator wants of single domains.
    tls: BTreeMap<Domain, Tls>,
    /// None where MTA-STS is not looked at.
    pub(super) policies: Option<Policies>,
    without_tls: Cache<SocketAddr, ()>,
}

impl Connector {
    pub(super) fn new(hosts: Hosts, config: &Config) -> Result<Connector, String> {
        Ok(Connector {
            hosts,
            deadlines: config.deadlines,
            handshakes: Handshakes::new()?,
            tls: config.tls.clone(),
            policies: config.mta_sts.then(Policies::new),
            without_tls: Cache::builder()
                .max_capacity(MOST_RESTING)
                .time_to_live(TLS_REST)
                .build(),
        })
    }

    /// Connects to the first address of a target that answers and is as safe as it has to be, says LHLO
    /// or EHLO, and logs in where the route says so.
    pub(super) async fn connect(&self, target: &Target, wish: Wish) -> Result<Connected, Outcome> {
        let route = target.route();
        let mut connected = self.greeted(target, wish).await?;
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

    async fn greeted(&self, target: &Target, wish: Wish) -> Result<Connected, Outcome> {
        let route = target.route();
        if let NextHop::LmtpUnix(path) = &route.to {
            let peer = Arc::new(Peer {
                name: path.display().to_string().into_boxed_str(),
                address: None,
                source: None,
                tls: None,
            });
            let connected = self.unix(path, &peer, route).await;
            return connected.map_err(|reason| Outcome::unreachable(reason).from(&peer));
        }
        let nowhere = Response::ours(451, (4, 3, 5), "the target has no server");
        let mut failure = Outcome::unreachable(nowhere);
        for candidate in self.hosts.of(target).await? {
            let tried = self.try_one(target, wish, &candidate).await;
            match tried {
                Ok(connected) if self.is_us(&connected, target) => {
                    let peer = Arc::clone(connected.peer());
                    connected.quit().await;
                    return Err(hosts::looping(target).from(&peer));
                }
                Ok(connected) => return Ok(connected),
                // What may come off later counts more than what never will.
                Err(outcome) if failure.peer.is_none() || outcome.may_come_off() => {
                    failure = outcome;
                }
                Err(_) => {}
            }
        }
        Err(failure)
    }

    pub(super) async fn try_one(
        &self,
        target: &Target,
        wish: Wish,
        candidate: &Candidate,
    ) -> Result<Connected, Outcome> {
        let mut peer = Peer {
            name: candidate.name.clone(),
            address: Some(candidate.address),
            source: None,
            tls: None,
        };
        let security = match self.security(target, wish, candidate).await {
            Ok(security) => security,
            Err(trouble) => {
                tell(target, &peer, None, trouble.told());
                return Err(trouble.outcome(wish).from(&Arc::new(peer)));
            }
        };
        peer.tls = security.as_ref().map(|decided| decided.to_string().into());
        let mut peer = Arc::new(peer);
        let mut tried = self
            .tcp(&mut peer, target.route(), security.as_ref(), wish)
            .await;
        if let Some(security) = &security {
            tried = tried.map_err(|trouble| trouble.under(security));
            let told = match (&tried, &security.against) {
                (Ok(_), Some(refusal)) => Trouble::from(refusal.clone()).told(),
                (Ok(connected), None) => connected.told(&security.level),
                (Err(trouble), _) => trouble.told(),
            };
            tell(target, &peer, Some(security), told);
            // RFC 8461 §5: what fails while a domain tests its policy is told, and the mail goes.
            let has_failed = matches!(&tried, Err(trouble) if trouble.failure.is_some());
            if security.level == Level::Trial && has_failed {
                let may = security.without_trial();
                peer = Arc::new(Peer {
                    tls: Some(may.to_string().into()),
                    ..Peer::clone(&peer)
                });
                tried = self.tcp(&mut peer, target.route(), Some(&may), wish).await;
            }
        }
        tried.map_err(|trouble| trouble.outcome(wish).from(&peer))
    }

    /// What is asked of TLS with one server. None where there is no TLS, as with LMTP.
    pub(super) async fn security(
        &self,
        target: &Target,
        wish: Wish,
        candidate: &Candidate,
    ) -> Result<Option<Security>, Trouble> {
        let route = target.route();
        let (NextHop::Mx(_) | NextHop::Smtp(_)) = route.to else {
            return Ok(None);
        };
        let domain = target.host().and_then(Host::domain);
        let written = domain.and_then(|domain| self.tls.get(domain).copied());
        let asked = written.unwrap_or_else(|| route.tls());
        let means = Means {
            dns: &self.hosts.dns,
            policies: self.policies.as_ref(),
            tls: self.handshakes.trusted().ok(),
        };
        let decided = security::of(&means, asked, wish, domain, candidate).await;
        decided.map(Some)
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

    /// Our own address goes into `peer`.
    async fn tcp(
        &self,
        peer: &mut Arc<Peer>,
        route: &Route,
        security: Option<&Security>,
        wish: Wish,
    ) -> Result<Connected, Trouble> {
        let stream = self.socket(peer, route).await?;
        let source = stream.local_addr().ok().map(|address| address.ip());
        *peer = Arc::new(Peer {
            source,
            ..Peer::clone(peer)
        });
        let Some(security) = security else {
            let connected = self.greet(stream, peer, Protocol::Lmtp, route).await?;
            return Ok(connected.boxed());
        };
        if route.implicit_tls {
            let secure = self
                .secure_from_the_start(stream, peer, route, security)
                .await?;
            return kept_promise(secure, wish).await;
        }
        let plain = self.greet(stream, peer, Protocol::Smtp, route).await?;
        match (&security.level, plain.offered.starttls) {
            (Level::None, _) => return Ok(plain.boxed()),
            (Level::May, false) => return Ok(plain.noting("not offered").boxed()),
            (Level::May, true) if self.rests(peer) => {
                return Ok(plain.noting("did not come off lately").boxed());
            }
            (Level::Encrypt | Level::Verify | Level::Trial | Level::Dane(_), false) => {
                plain.quit().await;
                return Err(Trouble::not_offered());
            }
            (Level::May | Level::Encrypt | Level::Verify | Level::Trial | Level::Dane(_), true) => {
            }
        }
        let trouble = match (
            self.secure(plain, peer, route, security).await,
            &security.level,
        ) {
            (Ok(secure), _) => return kept_promise(secure, wish).await,
            (Err(NoTls::NotMade(trouble)), Level::May) => trouble,
            (Err(NoTls::NotMade(trouble) | NoTls::Broken(trouble)), _) => return Err(trouble),
        };
        events::no_tls_with_host(peer, &trouble.reason);
        if let Some(address) = peer.address {
            self.without_tls.insert(address, ());
        }
        let stream = self.socket(peer, route).await?;
        let plain = self.greet(stream, peer, Protocol::Smtp, route).await?;
        Ok(plain.noting("did not come off").boxed())
    }

    fn rests(&self, peer: &Peer) -> bool {
        peer.address
            .is_some_and(|address| self.without_tls.contains_key(&address))
    }

    pub(super) async fn greet<S>(
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
    pub(super) fn hello<'a>(&'a self, route: &'a Route) -> &'a Domain {
        route.hello.as_ref().unwrap_or(&self.hosts.hostname)
    }

    pub(super) async fn socket(&self, peer: &Peer, route: &Route) -> Result<TcpStream, Response> {
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

/// Only a server that offers REQUIRETLS gets what asks for it (RFC 8689 §4.2.1).
async fn kept_promise(secure: Connected, wish: Wish) -> Result<Connected, Trouble> {
    if wish == Wish::Required && !secure.offered.requiretls {
        secure.quit().await;
        return Err(Trouble::no_requiretls());
    }
    Ok(secure)
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
