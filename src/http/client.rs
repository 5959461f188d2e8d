//! One request over HTTPS: a connection of its own, one deadline for all of it, a bounded answer.
//!
//! No redirects are followed, no cookies kept, no proxies asked. The host's addresses are found as
//! the system finds them, `/etc/hosts` included.

use std::io;
use std::sync::Arc;
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
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// The largest answer: certificates with their chain have some 8 KiB.
const MOST_ANSWER: usize = 1024 * 1024;

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
    #[error("the answer of {host} broke off, or has more than a megabyte")]
    Answer {
        /// With its port.
        host: String,
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
}

impl Client {
    /// Whom `tls` trusts is trusted; one request may take so long in all.
    pub fn new(tls: Arc<ClientConfig>, within: Duration) -> Client {
        Client {
            tls: TlsConnector::from(tls),
            within,
        }
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
        let host = server.to_string();
        let exchange = timeout(self.within, self.exchange(&server, request));
        exchange.await.unwrap_or(Err(Error::Late {
            host,
            within: self.within,
        }))
    }

    async fn exchange<B>(
        &self,
        server: &Server,
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
        let stream = self.connect(server).await?;
        server.address(&mut request)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(failed)?;
        let answer = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = to_bytes(Body::new(body), MOST_ANSWER).await;
            Ok((head, body))
        };
        // The connection does the reading and writing; it ends once the sender is gone.
        let (answer, _) = tokio::join!(answer, connection);
        let (head, body) = answer.map_err(failed)?;
        let body = body.map_err(|_| Error::Answer { host: host.clone() })?;
        Ok(Response::from_parts(head, body))
    }

    async fn connect(&self, server: &Server) -> Result<TlsStream<TcpStream>, Error> {
        let host = server.to_string();
        let stream = TcpStream::connect((server.host.as_str(), server.port)).await;
        let stream = stream.map_err(|source| Error::Connect {
            host: host.clone(),
            source,
        })?;
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| Error::Address(server.host.clone()))?;
        let shaken = self.tls.connect(name, stream).await;
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
