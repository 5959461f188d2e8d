//! A policy is fetched over HTTPS (RFC 8461 §3.3): from the host of that name alone, whose certificate
//! this system trusts, without redirects, in bounded time and size.

use std::time::Duration;

use hyper::Request;
use hyper::StatusCode;
use hyper::header;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls;

use super::policy::Policy;
use crate::delivery::security::result::Failure;
use crate::dns::Dns;
use crate::http;
use crate::mail::address::Domain;
use crate::telemetry::events;

/// RFC 8461 §3.3 suggests a minute; mail waits for it.
const DEADLINE: Duration = Duration::from_secs(60);
/// RFC 8461 §3.2: the octets that a policy may have.
const MOST_OCTETS: usize = 64 << 10;

/// Why there is no policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoPolicy {
    pub(super) failure: Failure,
    pub(super) reason: String,
}

/// The policy of a domain. Ends by the deadlines of the DNS and of the request. Cancel safe.
pub(super) async fn fetch(
    dns: &Dns,
    tls: &TlsConnector,
    domain: &Domain,
) -> Result<Policy, NoPolicy> {
    let text = get(dns, tls, domain).await?;
    Policy::parse(&text).map_err(|reason| NoPolicy {
        failure: Failure::StsPolicyInvalid,
        reason,
    })
}

async fn get(dns: &Dns, tls: &TlsConnector, domain: &Domain) -> Result<String, NoPolicy> {
    let host = Domain::parse(&format!("mta-sts.{domain}"))
        .map_err(|_| no_answer("there can be no host of this name".to_owned()))?;
    let addresses = dns.addresses(&host).await.map_err(no_answer)?;
    let request = Request::get(format!("https://{host}/.well-known/mta-sts.txt"))
        .header(header::USER_AGENT, "gatepost")
        .body(String::new())
        .map_err(no_answer)?;
    let client = http::Client::new(tls.clone(), DEADLINE).at_most(MOST_OCTETS);
    let response = client.send_to(&addresses, request).await.map_err(refused)?;
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
    String::from_utf8(response.into_body().into()).map_err(no_answer)
}

fn refused(error: http::Error) -> NoPolicy {
    let certificate = match &error {
        http::Error::Tls { source, .. } => source.get_ref().and_then(|it| it.downcast_ref()),
        _ => None,
    };
    NoPolicy {
        failure: match certificate {
            Some(rustls::Error::InvalidCertificate(_)) => Failure::StsWebpkiInvalid,
            _ => Failure::StsPolicyFetch,
        },
        reason: events::in_full(&error),
    }
}

fn no_answer(reason: impl ToString) -> NoPolicy {
    NoPolicy {
        failure: Failure::StsPolicyFetch,
        reason: reason.to_string(),
    }
}
