//! A policy is fetched over HTTPS (RFC 8461 §3.3): from the host of that name alone, whose certificate
//! this system trusts, without redirects, in bounded time and size.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;

use super::policy::Policy;
use crate::delivery::security::result::Failure;
use crate::dns::Dns;
use crate::mail::address::Domain;

/// RFC 8461 §3.3 suggests a minute; mail waits for it.
const DEADLINE: Duration = Duration::from_secs(60);
/// What one address may take of it.
const CONNECT: Duration = Duration::from_secs(10);
/// So many addresses are tried.
const MOST_ADDRESSES: usize = 4;
/// RFC 8461 §3.2: the octets that a policy may have.
const MOST_OCTETS: usize = 64 << 10;
const PORT: u16 = 443;

/// Why there is no policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoPolicy {
    pub(super) failure: Failure,
    pub(super) reason: String,
}

/// The policy of a domain. Ends by its deadline. Cancel safe.
pub(super) async fn fetch(
    dns: &Dns,
    tls: &TlsConnector,
    domain: &Domain,
) -> Result<Policy, NoPolicy> {
    let text = timeout(DEADLINE, get(dns, tls, domain)).await;
    let text = text.unwrap_or_else(|_| Err(no_answer(format!("no answer within {DEADLINE:?}"))))?;
    Policy::parse(&text).map_err(|reason| NoPolicy {
        failure: Failure::StsPolicyInvalid,
        reason,
    })
}

async fn get(dns: &Dns, tls: &TlsConnector, domain: &Domain) -> Result<String, NoPolicy> {
    let host = Domain::parse(&format!("mta-sts.{domain}"))
        .map_err(|_| no_answer("there can be no host of this name".to_owned()))?;
    let addresses = dns.addresses(&host).await.map_err(no_answer)?;
    let mut trouble = no_answer("it has no address".to_owned());
    for address in addresses.into_iter().take(MOST_ADDRESSES) {
        let address = SocketAddr::new(address, PORT);
        let connecting = connect(tls, &host, address);
        let connected = timeout(CONNECT, connecting).await;
        match connected.unwrap_or_else(|_| Err(no_answer(format!("{address} is silent")))) {
            Ok(stream) => return ask(stream, &host).await,
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}

async fn connect(
    tls: &TlsConnector,
    host: &Domain,
    address: SocketAddr,
) -> Result<TlsStream<TcpStream>, NoPolicy> {
    let name = ServerName::try_from(host.to_string()).map_err(no_answer)?;
    let stream = TcpStream::connect(address).await.map_err(no_answer)?;
    tls.connect(name, stream).await.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let failure = match inner {
            Some(rustls::Error::InvalidCertificate(_)) => Failure::StsWebpkiInvalid,
            _ => Failure::StsPolicyFetch,
        };
        let reason = error.to_string();
        NoPolicy { failure, reason }
    })
}

async fn ask(stream: TlsStream<TcpStream>, host: &Domain) -> Result<String, NoPolicy> {
    let mut client = http1::Builder::new();
    client.max_buf_size(MOST_OCTETS);
    let (mut client, connection) = client
        .handshake(TokioIo::new(stream))
        .await
        .map_err(no_answer)?;
    // Ended with this function.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::get("/.well-known/mta-sts.txt")
        .header(header::HOST, host.as_str())
        .header(header::USER_AGENT, "gatepost")
        .body(String::new())
        .map_err(no_answer)?;
    let response = client.send_request(request).await.map_err(no_answer)?;
    // RFC 8461 §3.3: a redirect is not followed.
    if response.status() != StatusCode::OK {
        return Err(no_answer(format!("the answer is {}", response.status())));
    }
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("text/plain") {
        return Err(no_answer(format!("its type is {kind:?}, not text/plain")));
    }
    let body = read(response).await?;
    String::from_utf8(body).map_err(no_answer)
}

async fn read(response: Response<Incoming>) -> Result<Vec<u8>, NoPolicy> {
    let (mut incoming, mut body) = (response.into_body(), Vec::new());
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(no_answer)?;
        let data = frame.data_ref().map(AsRef::as_ref).unwrap_or_default();
        if body.len() + data.len() > MOST_OCTETS {
            return Err(no_answer(format!("it has more than {MOST_OCTETS} octets")));
        }
        body.extend_from_slice(data);
    }
    Ok(body)
}

fn no_answer(reason: impl ToString) -> NoPolicy {
    NoPolicy {
        failure: Failure::StsPolicyFetch,
        reason: reason.to_string(),
    }
}
