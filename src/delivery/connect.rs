//! Makes connections: names to addresses, sockets, the hello, and TLS where the next hop offers it.
//!
//! TLS to a next hop is opportunistic (RFC 3207, RFC 7435): any certificate is taken, and where the
//! handshake does not come off, the message goes in plain text, as it would have without the offer.
//! LMTP is spoken as it is; it stays on the machine or on its network.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mail_send::SmtpClient;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::broken::Broken;
use super::config::Deadlines;
use super::exchange::Exchange;
use super::next_hop::Endpoint;
use super::next_hop::EndpointHost;
use super::next_hop::NextHop;
use super::outcome::Outcome;
use super::outcome::Peer;
use super::target::Target;
use crate::dns;
use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::smtp::client::Protocol;
use crate::smtp::client::response::Response;

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
    hostname: Domain,
    deadlines: Deadlines,
    dns: Dns,
    tls: TlsConnector,
}

/// Whether to take an offer of TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    IfOffered,
    Never,
}

impl Connector {
    pub(super) fn new(
        hostname: Domain,
        deadlines: Deadlines,
        dns: Dns,
    ) -> Result<Connector, String> {
        Ok(Connector {
            hostname,
            deadlines,
            dns,
            tls: mail_send::smtp::tls::build_tls_connector(true)?,
        })
    }

    /// Connects to the next hop of a target, and says LHLO or EHLO.
    pub(super) async fn connect(&self, target: &Target) -> Result<Connected, Outcome> {
        let connected = match &target.route().to {
            NextHop::LmtpUnix(path) => self.unix(path).await,
            NextHop::Lmtp(endpoint) => self.tcp(endpoint, Protocol::Lmtp).await,
            NextHop::Smtp(endpoint) => self.tcp(endpoint, Protocol::Smtp).await,
            NextHop::Mx(_) => {
                let text = "mail exchangers are not looked up yet";
                Err(Response::ours(451, (4, 4, 0), text))
            }
            NextHop::Maildir(_) => Err(Response::ours(451, (4, 3, 5), "a maildir has no server")),
        };
        connected.map_err(Outcome::unreachable)
    }

    /// Connects to a unix socket and says LHLO. The error is fit for the log.
    async fn unix(&self, path: &Path) -> Result<Connected, Response> {
        let limit = self.deadlines.connect;
        let connecting = timeout(limit, UnixStream::connect(path)).await;
        let stream = connecting
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| cannot_connect(&path.display(), &error))?;
        let peer = Peer {
            name: path.display().to_string().into_boxed_str(),
            address: None,
        };
        self.greet(Box::new(stream), Arc::new(peer), Protocol::Lmtp)
            .await
    }

    /// Connects to the first address that answers, and says LHLO or EHLO.
    async fn tcp(&self, endpoint: &Endpoint, protocol: Protocol) -> Result<Connected, Response> {
        let (stream, peer) = self.socket(endpoint).await?;
        if protocol == Protocol::Lmtp {
            return self.greet(Box::new(stream), peer, protocol).await;
        }
        match self.smtp(stream, peer, endpoint, Tls::IfOffered).await? {
            Some(connected) => Ok(connected),
            None => {
                let (stream, peer) = self.socket(endpoint).await?;
                let connected = self.smtp(stream, peer, endpoint, Tls::Never).await?;
                connected.ok_or_else(|| cannot_connect(endpoint, &"it asks for TLS only"))
            }
        }
    }

    async fn greet(
        &self,
        stream: Box<dyn Stream>,
        peer: Arc<Peer>,
        protocol: Protocol,
    ) -> Result<Connected, Response> {
        Exchange::open(stream, peer, protocol, &self.hostname, self.deadlines)
            .await
            .map_err(Broken::response)
    }

    /// None where TLS was begun and did not come off: the connection is spent, another may do.
    async fn smtp(
        &self,
        stream: TcpStream,
        peer: Arc<Peer>,
        endpoint: &Endpoint,
        tls: Tls,
    ) -> Result<Option<Connected>, Response> {
        let plain = Exchange::open(
            stream,
            Arc::clone(&peer),
            Protocol::Smtp,
            &self.hostname,
            self.deadlines,
        )
        .await
        .map_err(Broken::response)?;
        if tls == Tls::Never || !plain.offered.starttls {
            return Ok(Some(plain.boxed()));
        }
        let stream = match plain.start_tls().await {
            Ok(Some(stream)) => stream,
            Ok(None) => return Ok(None),
            Err(broken) => return without_tls(broken),
        };
        let client = SmtpClient {
            stream,
            timeout: self.deadlines.hello,
        };
        let name = match &endpoint.host {
            EndpointHost::Address(address) => address.to_string(),
            EndpointHost::Name(name) => name.to_string(),
        };
        let Ok(client) = client.into_tls(&self.tls, &name).await else {
            return Ok(None);
        };
        let stream: Box<dyn Stream> = Box::new(client.stream);
        let mut secure = Exchange::resume(stream, peer, Protocol::Smtp, self.deadlines);
        // RFC 3207 §4.2: what was offered in plain text counts no more.
        match secure.hello(&self.hostname).await {
            Ok(()) => Ok(Some(secure)),
            Err(broken) => without_tls(broken),
        }
    }

    async fn socket(&self, endpoint: &Endpoint) -> Result<(TcpStream, Arc<Peer>), Response> {
        let name = match &endpoint.host {
            EndpointHost::Address(address) => address.to_string(),
            EndpointHost::Name(name) => name.to_string(),
        };
        let mut failure = cannot_connect(endpoint, &"the name has no address");
        for address in self.addresses(&endpoint.host).await? {
            let address = SocketAddr::new(address, endpoint.port);
            match SmtpClient::connect(address, self.deadlines.connect).await {
                Ok(client) => {
                    // Commands are small and each waits for its reply; failing costs only time.
                    let _ = client.stream.set_nodelay(true);
                    let peer = Peer {
                        name: name.into_boxed_str(),
                        address: Some(address),
                    };
                    return Ok((client.stream, Arc::new(peer)));
                }
                Err(error) => failure = cannot_connect(&address, &error),
            }
        }
        Err(failure)
    }

    async fn addresses(&self, host: &EndpointHost) -> Result<Vec<IpAddr>, Response> {
        let name = match host {
            EndpointHost::Address(address) => return Ok(vec![*address]),
            EndpointHost::Name(name) => name,
        };
        if name.as_str() == "localhost" {
            // RFC 6761 §6.3
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        self.dns.addresses(name).await.map_err(|error| match error {
            dns::Error::NotFound => {
                // Permanent for DNS, but the operator wrote the name and may still mend it.
                Response::ours(451, (4, 4, 4), &format!("the DNS does not know {name}"))
            }
            error => Response::ours(451, (4, 4, 3), &format!("cannot resolve {name}: {error}")),
        })
    }
}

/// A server that hangs up over TLS may do without; what one says counts.
fn without_tls(broken: Broken) -> Result<Option<Connected>, Response> {
    match broken {
        Broken::Closed { .. } | Broken::Io { .. } => Ok(None),
        Broken::Silence { .. }
        | Broken::Stuck { .. }
        | Broken::Malformed { .. }
        | Broken::Unexpected(_)
        | Broken::Refused { .. }
        | Broken::Chatter => Err(broken.response()),
    }
}

fn cannot_connect(to: &dyn fmt::Display, error: &dyn fmt::Display) -> Response {
    let text = format!("cannot connect to {to}: {error}");
    Response::ours(451, (4, 4, 1), &text)
}

impl Exchange<TcpStream> {
    fn boxed(self) -> Connected {
        self.map(|stream| Box::new(stream) as Box<dyn Stream>)
    }
}
