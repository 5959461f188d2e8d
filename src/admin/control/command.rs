//! What an operator orders: carried out piece by piece, each to its end, also where nobody listens any more.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::Extension;
use axum::extract::Path as UrlPath;
use axum::extract::State as Shared;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::Command;
use super::Done;
use super::Filter;
use super::questions::AT_ONCE;
use super::questions::Refused;
use super::questions::candidates;
use super::questions::loaded;
use super::questions::some;
use super::questions::write_line;
use super::questions::wrong;
use super::server::Asker;
use super::server::Desk;
use crate::mail::id::SpoolId;
use crate::scheduler::orders::CarriedOut;
use crate::scheduler::orders::Order;
use crate::scheduler::orders::Orders;

/// Messages that most orders deal with in one go.
const MOST_AT_ONCE: usize = 16 * AT_ONCE;
/// Why a message is held where the operator does not say.
const HELD_BY_ORDER: &str = "held by an operator";

pub(super) async fn order(
    Shared(desk): Shared<Desk>,
    Extension(Asker(by)): Extension<Asker>,
    UrlPath(name): UrlPath<String>,
    Json(Command { filter, reason }): Json<Command>,
) -> Result<impl IntoResponse, Refused> {
    let order = match name.as_str() {
        "retry" => Order::Retry,
        "hold" => Order::Hold(reason.unwrap_or_else(|| HELD_BY_ORDER.to_owned())),
        "release" => Order::Release,
        "bounce" => Order::Bounce,
        "delete" => Order::Delete,
        _ => return Err(wrong(format!("there is no order {name:?}"))),
    };
    if !filter.is_given() {
        return Err(wrong("say which messages are meant, or that all are"));
    }
    loaded(&desk).await?;
    let left = candidates(&desk, &filter);
    let spool = desk.orders.spool();
    let named = filter.ids.iter().copied();
    let done = Done {
        missing: named.filter(|id| spool.standing(*id).is_none()).collect(),
        ..Done::default()
    };
    let job = Job {
        desk,
        order,
        by,
        filter,
        left,
        done,
        is_over: false,
    };
    let lines = stream::unfold(job, |mut job| async { Some((job.go_on().await?, job)) });
    Ok(Body::from_stream(lines))
}

/// An order for some messages. It is carried out to its end, also where nobody waits for that.
pub(super) struct Task {
    order: Order,
    ids: Vec<SpoolId>,
    by: String,
    answer: oneshot::Sender<CarriedOut>,
}

/// Carries out what is ordered, one thing after the other.
pub(super) async fn work(mut waiting: mpsc::Receiver<Task>, orders: Orders) {
    while let Some(task) = waiting.recv().await {
        let carried_out = orders.carry_out(&task.order, task.ids, &task.by).await;
        // Whoever ordered it may have gone.
        let _ = task.answer.send(carried_out);
    }
}

/// An order with a filter, and how far it is.
struct Job {
    desk: Desk,
    order: Order,
    by: String,
    filter: Filter,
    left: std::vec::IntoIter<SpoolId>,
    done: Done,
    is_over: bool,
}

impl Job {
    /// Deals with the next few messages; gives how far it is then. None after the last.
    async fn go_on(&mut self) -> Option<io::Result<Bytes>> {
        if self.is_over {
            return None;
        }
        let ids = self.next_ids().await;
        self.is_over = ids.is_empty();
        self.done.matched += ids.len();
        let Some(carried_out) = self.carry_out(ids).await else {
            // The answer breaks off here, so that nobody takes it for all.
            self.is_over = true;
            return Some(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        self.done.done += carried_out.done;
        self.done.under_way += carried_out.under_way;
        self.done.failed += carried_out.failed;
        let mut line = Vec::new();
        write_line(&mut line, &self.done);
        Some(Ok(line.into()))
    }

    /// The next few that the filter means; none where no candidates are left.
    async fn next_ids(&mut self) -> Vec<SpoolId> {
        let most = match self.order {
            // Each goes through all that waits, so not too often,
            Order::Retry | Order::Hold(_) | Order::Release | Order::Delete => MOST_AT_ONCE,
            // but a report takes its time, and who waits wants to see that it goes on.
            Order::Bounce => AT_ONCE,
        };
        let mut ids = Vec::new();
        while ids.len() < most
            && let Some(some) = some_ids(&self.desk, &mut self.left, &self.filter).await
        {
            ids.extend(some);
        }
        ids
    }

    /// None where the gateway is going down.
    async fn carry_out(&self, ids: Vec<SpoolId>) -> Option<CarriedOut> {
        let (answer, carried_out) = oneshot::channel();
        let task = Task {
            order: self.order.clone(),
            ids,
            by: self.by.clone(),
            answer,
        };
        self.desk.tasks.send(task).await.ok()?;
        carried_out.await.ok()
    }
}

/// Those of the first few candidates that the filter means; None where there are no candidates left. One
/// that cannot be read can still be named.
async fn some_ids(
    desk: &Desk,
    candidates: &mut std::vec::IntoIter<SpoolId>,
    filter: &Filter,
) -> Option<Vec<SpoolId>> {
    if !filter.names_alone() {
        let found = some(desk, candidates, filter).await?;
        return Some(found.into_iter().map(|look| look.id).collect());
    }
    let mut ids: Vec<SpoolId> = candidates.by_ref().take(AT_ONCE).collect();
    if ids.is_empty() {
        return None;
    }
    ids.retain(|id| desk.orders.spool().standing(*id).is_some());
    Some(ids)
}
