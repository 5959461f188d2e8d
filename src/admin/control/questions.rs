//! What an operator asks: which messages there are, what of one, and how the gateway is.

use std::convert::Infallible;
use std::time::Duration;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::Path as UrlPath;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream;
use serde::Serialize;
use tokio::time::timeout;

use super::Filter;
use super::Lane;
use super::Message;
use super::Status;
use super::server::Desk;
use super::timestamp;
use crate::mail::headers;
use crate::mail::id::SpoolId;
use crate::spool;
use crate::spool::Look;

/// Messages that are looked at, and dealt with, in one go.
pub(super) const AT_ONCE: usize = 1024;
/// Destinations that are shown.
const MOST_DESTINATIONS: usize = 1000;
/// How long somebody who asks waits for what an earlier run left to be read.
const LOADED_WITHIN: Duration = Duration::from_secs(10);

/// What a request has wrong, or asks for that is not there.
pub(super) struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

pub(super) fn wrong(text: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, text.into())
}

fn gone(id: &str) -> Refused {
    let text = format!("there is no message {id} in the queue");
    Refused(StatusCode::NOT_FOUND, text)
}

fn trouble(text: impl Into<String>) -> Refused {
    Refused(StatusCode::SERVICE_UNAVAILABLE, text.into())
}

/// The message of this name, which is in the queue.
async fn there(desk: &Desk, name: &str) -> Result<SpoolId, Refused> {
    let id: SpoolId = name.parse().map_err(|_| gone(name))?;
    loaded(desk).await?;
    let standing = desk.orders.spool().standing(id);
    standing.map(|_| id).ok_or_else(|| gone(name))
}

/// What an earlier run left has to be read before it can be looked at.
pub(super) async fn loaded(desk: &Desk) -> Result<(), Refused> {
    match timeout(LOADED_WITHIN, desk.orders.spool().loaded()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(trouble(error.to_string())),
        Err(_) => Err(trouble(
            "what an earlier run left in the queue is still being read; try again in a while",
        )),
    }
}

/// The messages that a filter may mean, to be looked at piece by piece.
pub(super) fn candidates(desk: &Desk, filter: &Filter) -> std::vec::IntoIter<SpoolId> {
    let ids = match filter.ids.as_slice() {
        [] => desk.orders.spool().ids(),
        named => {
            let mut named = named.to_vec();
            named.sort_unstable();
            named.dedup();
            named
        }
    };
    ids.into_iter()
}

/// Those of the first few candidates that the filter means; None where there are no candidates left.
pub(super) async fn some(
    desk: &Desk,
    candidates: &mut std::vec::IntoIter<SpoolId>,
    filter: &Filter,
) -> Option<Vec<Look>> {
    let some: Vec<SpoolId> = candidates.by_ref().take(AT_ONCE).collect();
    if some.is_empty() {
        return None;
    }
    let mut found = desk.orders.spool().look(some).await;
    let now = SystemTime::now();
    found.retain(|look| filter.matches(look, now));
    Some(found)
}

pub(super) async fn list(
    Shared(desk): Shared<Desk>,
    Json(filter): Json<Filter>,
) -> Result<impl IntoResponse, Refused> {
    loaded(&desk).await?;
    let left = candidates(&desk, &filter);
    let lines = stream::unfold((desk, filter, left), |(desk, filter, mut left)| async {
        let found = some(&desk, &mut left, &filter).await?;
        let mut lines = Vec::new();
        let now = SystemTime::now();
        for look in found {
            let shown = Message::of(&look, desk.orders.replies(look.id), now);
            write_line(&mut lines, &shown);
        }
        Some((
            Ok::<_, Infallible>(Bytes::from(lines)),
            (desk, filter, left),
        ))
    });
    Ok(Body::from_stream(lines))
}

pub(super) async fn show(
    Shared(desk): Shared<Desk>,
    UrlPath(name): UrlPath<String>,
) -> Result<impl IntoResponse, Refused> {
    let id = there(&desk, &name).await?;
    let look = desk.orders.spool().look(vec![id]).await.pop();
    let look = look.ok_or_else(|| trouble(format!("{name} cannot be read; the log says why")))?;
    let mut shown = Message::of(&look, desk.orders.replies(id), SystemTime::now());
    let whole = content(&desk, id, &name).await?;
    let mut fields = headers::fields(&whole);
    while fields.next().is_some() {}
    let header = &whole[..fields.position()];
    shown.header = Some(String::from_utf8_lossy(header).into_owned());
    Ok(Json(shown))
}

pub(super) async fn message(
    Shared(desk): Shared<Desk>,
    UrlPath(name): UrlPath<String>,
) -> Result<impl IntoResponse, Refused> {
    let id = there(&desk, &name).await?;
    content(&desk, id, &name).await
}

async fn content(desk: &Desk, id: SpoolId, name: &str) -> Result<Bytes, Refused> {
    match desk.orders.spool().load(id).await {
        Ok(arrival) => Ok(arrival
            .content
            .map(|content| content.to_bytes())
            .unwrap_or_default()),
        Err(spool::Error::Unknown { .. }) => Err(gone(name)),
        Err(error) => Err(trouble(error.to_string())),
    }
}

pub(super) fn write_line(lines: &mut Vec<u8>, value: &impl Serialize) {
    // A value of strings and numbers can always be written.
    let _ = serde_json::to_writer(&mut *lines, value);
    lines.push(b'\n');
}

pub(super) async fn status(Shared(desk): Shared<Desk>) -> Json<Status> {
    let spool = desk.orders.spool();
    let depth = spool.depth();
    let oldest = match depth.oldest {
        Some(id) => spool.look(vec![id]).await.pop(),
        None => None,
    };
    let destinations = desk.orders.destinations();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: desk.since.elapsed().as_secs(),
        troubles: desk.health.reasons(),
        loading: spool.loaded().now_or_never().is_none(),
        messages: depth.messages,
        held: depth.held,
        oldest: oldest.map(|look| timestamp(look.arrived)),
        rates: desk.rates.now(),
        lanes: destinations.len(),
        destinations: destinations
            .into_iter()
            .take(MOST_DESTINATIONS)
            .map(Lane::from)
            .collect(),
    })
}
