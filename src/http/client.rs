//! One request over HTTPS: a connection of its own, one deadline for all of it, a bounded answer.
//!
//! No redirects are followed, no cookies kept, no proxies asked. The host's addresses are the caller's to
//! know, or found as the system finds them, `/etc/hosts` included.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::body::to_bytes;
use bytes::Bytes;
use hyper::Request;
use hyper::Response;
use hyper::Uri;
use hyper::body;
use hyper::client::conn::http1;
use hyper::header::CONNECTION;
use hyper::header::HOST;
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// The largest answer: certificates with their chain have some 8 KiB.
const MOST_OCTETS: usize = 1024 * 1024;
/// So many addresses of a host are tried.
const MOST_ADDRESSES: usize = 4;
/// What one address may take to be connected with.
const CONNECT: Duration = Duration::from_secs(10);

/// There is no answer to a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not `https://HOST[:PORT]/...`.
    #[error("{0} is no https address")]
    Address(String),
    /// No address of the host takes connections, or there is none.
    #[error("cannot connect to {host}")]
    Connect {
        /// With its port.
        host: String,
        /// What the system says of it.
        source: io::Error,
    },
    /// The handshake failed; most likely we do not trust the certificate.
    #[error("no TLS with {host}")]
    Tls {
        /// With its port.
        host: String,
        /// What the TLS library says of it.
        source: io::Error,
    },
    /// The peer speaks no HTTP/1.1, or hung up.
    #[error("{host} does not answer by the rules of HTTP")]
    Http {
        /// With its port.
        host: String,
        /// What the HTTP library says of it.
        source: hyper::Error,
    },
    /// The answer broke off, or is larger than we take.
    #[error("the answer of {host} broke off, or has more than {most} octets")]
    Answer {
        /// With its port.
        host: String,
        /// What we take.
        most: usize,
    },
    /// All in all it took too long.
    #[error("{host} did not answer within {within:?}")]
    Late {
        /// With its port.
        host: String,
        /// How long we waited.
        within: Duration,
    },
}

/// Sends requests.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
    within: Duration,
    most: usize,
}

impl Client {
    /// Whom `tls` trusts is trusted; one request may take so long in all.
    pub fn new(tls: TlsConnector, within: Duration) -> Client {
        Client {
            tls,
            within,
            most: MOST_OCTETS,
        }
    }

    /// Takes answers of up to so many octets; by default, of a megabyte.
    pub fn at_most(self, most: usize) -> Client {
        Client { most, ..self }
    }

    /// Sends a request to the host of its URI, and gives the whole answer, whatever its status.
    ///
    /// Cancel safe: the connection ends with it; whether the server has acted is not known then.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Bytes>, Error>
    where
        B: body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let server = Server::of(request.uri())?;
        let exchange = async {
            let found = lookup_host((server.host.as_str(), server.port)).await;
            let found = found.map_err(|source| server.cannot_connect(source))?;
            let addresses: Vec<_> = found.map(|address| address.ip()).collect();
            self.exchange(&server, &addresses, request).await
        };
        self.in_time(&server, exchange).await
    }

    /// As [`send`](Client::send), where the host has these addresses. The first of them that takes the
    /// connection gets the request; four are tried.
    pub async fn send_to<B>(
        &self,
        addresses: &[IpAddr],
        request: Request<B>,
    ) -> Result<Response<Bytes>, Error>
    where
        B: body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let server = Server::of(request.uri())?;
        let exchange = self.exchange(&server, addresses, request);
        self.in_time(&server, exchange).await
    }

    async fn in_time<T>(
        &self,
        server: &Server,
        exchange: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = Error::Late {
            host: server.to_string(),
            within: self.within,
        };
        let exchange = timeout(self.within, exchange);
        exchange.await.unwrap_or(Err(late))
    }

    async fn exchange<B>(
        &self,
        server: &Server,
        addresses: &[IpAddr],
        mut request: Request<B>,
    ) -> Result<Response<Bytes>, Error>
    where
        B: body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let host = server.to_string();
        let failed = |source| Error::Http {
            host: host.clone(),
            source,
        };
        let stream = self.connect(server, addresses).await?;
        server.address(&mut request)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(failed)?;
        let answer = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = to_bytes(Body::new(body), self.most).await;
            Ok((head, body))
        };
        // The connection does the reading and writing; it ends once the sender is gone.
        let (answer, _) = tokio::join!(answer, connection);
        let (head, body) = answer.map_err(failed)?;
        let most = self.most;
        let body = body.map_err(|_| Error::Answer { host, most })?;
        Ok(Response::from_parts(head, body))
    }

    async fn connect(
        &self,
        server: &Server,
        addresses: &[IpAddr],
    ) -> Result<TlsStream<TcpStream>, Error> {
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| Error::Address(server.host.clone()))?;
        let none = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        let mut trouble = server.cannot_connect(none);
        for address in addresses.iter().take(MOST_ADDRESSES) {
            let address = SocketAddr::new(*address, server.port);
            let connecting = timeout(CONNECT, self.secured(server, name.clone(), address));
            match connecting.await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => trouble = error,
                Err(late) => trouble = server.cannot_connect(late.into()),
            }
        }
        Err(trouble)
    }

    async fn secured(
        &self,
        server: &Server,
        name: ServerName<'static>,
        address: SocketAddr,
    ) -> Result<TlsStream<TcpStream>, Error> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|source| server.cannot_connect(source))?;
        let shaken = self.tls.connect(name, stream).await;
        let host = server.to_string();
        shaken.map_err(|source| Error::Tls { host, source })
    }
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    /// A name or an address, without brackets.
    host: String,
    port: u16,
    /// The path and what follows it.
    path: String,
}

impl Server {
    fn of(uri: &Uri) -> Result<Server, Error> {
        let wrong = || Error::Address(uri.to_string());
        let host = uri.host().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("https") || host.is_empty() {
            return Err(wrong());
        }
        let path = uri.path_and_query();
        Ok(Server {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(443),
            path: path.map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    fn cannot_connect(&self, source: io::Error) -> Error {
        let host = self.to_string();
        Error::Connect { host, source }
    }

    /// Puts a request into the form in which a server wants it (RFC 9112 §3.2.1).
    fn address<B>(&self, request: &mut Request<B>) -> Result<(), Error> {
        let wrong = || Error::Address(self.to_string());
        let authority = request.uri().authority().ok_or_else(wrong)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
        *request.uri_mut() = self.path.parse().map_err(|_| wrong())?;
        request.headers_mut().insert(HOST, host);
        let close = HeaderValue::from_static("close");
        request.headers_mut().insert(CONNECTION, close);
        Ok(())
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_asked() {
        for (uri, want) in [
            ("https://a.example/x?y", Some(("a.example", 443, "/x?y"))),
            ("https://a.example:14000", Some(("a.example", 14_000, "/"))),
            ("https://[2001:db8::1]:1/", Some(("2001:db8::1", 1, "/"))),
            ("http://a.example/", None),
            ("/x", None),
        ] {
            let got = Server::of(&uri.parse().unwrap()).ok();
            let want = want.map(|(host, port, path)| Server {
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            });
            assert_eq!(got, want, "{uri}");
        }
    }
}
