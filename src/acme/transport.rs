//! The requests of the ACME library, sent by our own client: who is believed, deadlines and bounds are
//! ours, and what the library does not pass on is kept.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::header::RETRY_AFTER;
use hyper::header::USER_AGENT;
use instant_acme::BodyWrapper;
use instant_acme::BytesResponse;
use instant_acme::Error;
use instant_acme::HttpClient;
use instant_acme::Problem;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::http::Client;

/// How long the authority may take for one answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// RFC 8555 §6.1: who we are.
const US: &str = concat!("gatepost/", env!("CARGO_PKG_VERSION"));

/// Until when the authority wants to be left alone; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<Mutex<Option<Timestamp>>>);

impl Busy {
    /// What it said last.
    pub(super) fn until(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, until: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

/// The library's way to the authority.
pub(super) struct Transport {
    client: Client,
    busy: Busy,
}

impl Transport {
    pub(super) fn new(client: Client, busy: Busy) -> Transport {
        Transport { client, busy }
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, busy) = (self.client.clone(), self.busy.clone());
        Box::pin(async move {
            let method = request.method().clone();
            let us = HeaderValue::from_static(US);
            request.headers_mut().insert(USER_AGENT, us);
            let answer = client.send(request).await;
            let answer = answer.map_err(|error| Error::Other(Box::new(error)))?;
            if let Some(until) = left_alone(&answer, Timestamp::now()) {
                busy.note(until);
            }
            judge(&method, &answer)?;
            let (parts, body) = answer.into_parts();
            let body = Box::new(body);
            Ok(BytesResponse { parts, body })
        })
    }
}

/// An answer that the library would not understand, or would take for a success.
fn judge(method: &Method, answer: &Response<Bytes>) -> Result<(), Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    match serde_json::from_slice::<Problem>(answer.body()) {
        // A refused POST is the library's: it begins again where only the nonce was stale.
        Ok(_) if method == Method::POST => Ok(()),
        Ok(problem) => Err(Error::Api(problem)),
        Err(_) => Err(Error::Other(Box::new(Broken { status }))),
    }
}

/// The answer is an error, and no problem document (RFC 7807) says which.
#[derive(Debug, thiserror::Error)]
#[error("the authority answered with the HTTP status {status}")]
struct Broken {
    status: StatusCode,
}

/// RFC 8555 §6.6: an authority says how long its limit lasts.
fn left_alone(answer: &Response<Bytes>, now: Timestamp) -> Option<Timestamp> {
    let is_refusal = !answer.status().is_success();
    let value = answer.headers().get(RETRY_AFTER).filter(|_| is_refusal)?;
    let text = value.to_str().ok()?.trim();
    // RFC 9110 §10.2.3: seconds, or a date.
    match text.parse::<u32>() {
        Ok(seconds) => now.checked_add(Duration::from_secs(seconds.into())).ok(),
        Err(_) => Some(rfc2822::parse(text).ok()?.timestamp()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: &str, body: &'static str) -> Response<Bytes> {
        let answer = Response::builder()
            .status(status)
            .header(RETRY_AFTER, retry_after);
        answer.body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[test]
    fn an_authority_says_for_how_long_it_wants_to_be_left_alone() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        for (status, retry_after, want) in [
            (429, "60", Some(1_800_000_060)),
            (503, "Fri, 15 Jan 2027 09:00:00 GMT", Some(1_800_003_600)),
            (503, "soon", None),
            (200, "60", None),
        ] {
            let got = left_alone(&answer(status, retry_after, ""), now);
            assert_eq!(
                got.map(Timestamp::as_second),
                want,
                "{status} {retry_after}"
            );
        }
    }

    #[test]
    fn an_error_is_never_taken_for_a_success() {
        let problem = r#"{"type":"urn:ietf:params:acme:error:badNonce"}"#;
        for (method, status, body, want) in [
            (Method::GET, 200, "", true),
            (Method::POST, 400, problem, true),
            (Method::GET, 500, problem, false),
            (Method::POST, 502, "<html>", false),
        ] {
            let judged = judge(&method, &answer(status, "", body));
            assert_eq!(judged.is_ok(), want, "{method} {status} {body}");
        }
    }
}
