//! What an operator may ask of the queue and tell it, while it runs.
//!
//! An order changes the spool, so that a restart does not undo it, and the lanes. One is carried out at a
//! time. An attempt that is under way is not stopped: what it comes to counts, and who is to be given up
//! or dropped is taken only after it has ended; so no recipient comes to two ends.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::time::Instant;
use tokio::time::timeout;

use super::lane::Health;
use super::lane::Road;
use super::queue::Queue;
use super::verdict::Verdict;
use super::waiting::Waiting;
use crate::delivery::outcome::Outcome;
use crate::mail::id::SpoolId;
use crate::spool;
use crate::spool::Mark;
use crate::spool::Spool;
use crate::telemetry::events;

pub use super::replies::Reply;

/// How long an order waits for attempts under way.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(20);
/// Reports that are made at once.
const REPORTS: usize = 16;

/// A handle on the queue. Cheap to clone.
#[derive(Clone)]
pub struct Orders(Arc<Queue>);

/// What is to become of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Tried now, whatever was planned.
    Retry,
    /// Kept and not delivered, for this reason.
    Hold(String),
    /// Delivered after all.
    Release,
    /// Given up: who sent them is told.
    Bounce,
    /// Dropped: nobody is told.
    Delete,
}

/// What an order came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CarriedOut {
    /// Messages to which it was done.
    pub done: usize,
    /// Messages that were left as they are, because an attempt at them did not end in time.
    pub under_way: usize,
    /// Messages that were left as they are, because of trouble that is in the log.
    pub failed: usize,
}

/// One destination, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The target, or why there is none.
    pub name: String,
    /// Messages that could be tried now.
    pub ready: usize,
    /// Messages that wait for a later time.
    pub put_off: usize,
    /// Attempts under way.
    pub running: usize,
    /// Why it is left alone, and for how long still, where it is.
    pub down: Option<(String, Duration)>,
}

impl Order {
    /// Its name in the log and on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Order::Retry => "retry",
            Order::Hold(_) => "hold",
            Order::Release => "release",
            Order::Bounce => "bounce",
            Order::Delete => "delete",
        }
    }
}

impl Orders {
    pub(super) fn new(queue: Arc<Queue>) -> Orders {
        Orders(queue)
    }

    /// The spool whose messages are delivered.
    pub fn spool(&self) -> &Spool {
        &self.0.spool
    }

    /// What was said last of those recipients of a message that were put off, in their order; as far as it
    /// is remembered.
    pub fn replies(&self, id: SpoolId) -> Vec<Reply> {
        self.0.state().replies.of(id)
    }

    /// The destinations that have mail, or are down; those with most mail first.
    pub fn destinations(&self) -> Vec<Destination> {
        let now = Instant::now();
        let state = self.0.state();
        let lanes = state.lanes.all().into_iter();
        let shown = lanes.map(|id| {
            let lane = state.lanes.of(id);
            Destination {
                name: match &lane.road {
                    Road::Spread => "to be looked up".to_owned(),
                    Road::Nowhere => "no route".to_owned(),
                    Road::To(target) => target.to_string(),
                    Road::Aside(target) => format!("{target}, set aside"),
                },
                ready: state.lanes.queued(id),
                put_off: lane.put_off,
                running: lane.running,
                down: match &lane.health {
                    Health::Up => None,
                    Health::Down { resume, why, .. } => {
                        let rest = resume.saturating_duration_since(now);
                        Some((why.reply.to_string(), rest))
                    }
                },
            }
        });
        let has_any = |it: &Destination| it.ready + it.put_off + it.running > 0;
        let mut shown: Vec<_> = shown
            .filter(|it| has_any(it) || it.down.is_some())
            .collect();
        drop(state);
        shown.sort_by(|one, other| {
            let waiting = |it: &Destination| it.ready + it.put_off + it.running;
            let more = waiting(other).cmp(&waiting(one));
            more.then_with(|| one.name.cmp(&other.name))
        });
        shown
    }

    /// Does this to these messages. One that is gone, or to which it does not apply, such as one to be
    /// released that is not held, is left out. `by` is who ordered it, for the log.
    ///
    /// Not cancel safe: where it is dropped, a message may be reported on and yet be tried again.
    pub async fn carry_out(&self, order: &Order, ids: Vec<SpoolId>, by: &str) -> CarriedOut {
        // It is never closed, so there is no error.
        let _turn = self.0.orders.acquire().await;
        let done = |done: usize| CarriedOut {
            done,
            ..CarriedOut::default()
        };
        match order {
            Order::Retry => done(self.retry(ids, by)),
            Order::Hold(reason) => done(self.hold(ids, reason, by)),
            Order::Release => done(self.release(&ids, by)),
            Order::Bounce => self.end(order, Last::Bounce, ids, by).await,
            Order::Delete => self.end(order, Last::Delete, ids, by).await,
        }
    }

    fn retry(&self, mut ids: Vec<SpoolId>, by: &str) -> usize {
        let (clock, spool) = (SystemTime::now(), &self.0.spool);
        ids.retain(|id| spool.standing(*id).is_some_and(|it| !it.held));
        for id in &ids {
            events::ordered(*id, Order::Retry.name(), by);
            spool.hasten(*id, clock);
        }
        let ids: HashSet<SpoolId> = ids.into_iter().collect();
        let now = Instant::now();
        self.0.state().lanes.hasten(|id| ids.contains(&id), now);
        self.0.news.notify_one();
        ids.len()
    }

    fn hold(&self, mut ids: Vec<SpoolId>, reason: &str, by: &str) -> usize {
        let spool = &self.0.spool;
        ids.retain(|id| spool.standing(*id).is_some_and(|it| !it.held));
        // First in the spool: what comes into a lane after that is not tried, what was there is taken out.
        for id in &ids {
            events::ordered(*id, "hold", by);
            spool.hold(*id, reason.to_owned());
        }
        let ids: HashSet<SpoolId> = ids.into_iter().collect();
        self.0.state().lanes.withdraw(|id| ids.contains(&id));
        ids.len()
    }

    fn release(&self, ids: &[SpoolId], by: &str) -> usize {
        let (clock, spool) = (SystemTime::now(), &self.0.spool);
        let held = ids.iter();
        let held = held.filter(|id| spool.standing(**id).is_some_and(|it| it.held));
        let release = |id: &SpoolId| {
            events::ordered(*id, Order::Release.name(), by);
            spool.release(*id, clock);
        };
        held.map(release).count()
    }

    /// Brings messages to their end, whom no attempt is at.
    async fn end(&self, order: &Order, last: Last, ids: Vec<SpoolId>, by: &str) -> CarriedOut {
        let claim = Claim::new(&self.0, ids);
        let under_way = claim.under_way_after(ATTEMPTS_WITHIN).await;
        let mut free: Vec<SpoolId> = claim.ids.difference(&under_way).copied().collect();
        free.retain(|id| self.0.spool.standing(*id).is_some());
        let (mut done, mut failed) = (0, 0);
        let mut ends = pin!(
            stream::iter(free)
                .map(|id| async move {
                    events::ordered(id, order.name(), by);
                    match last {
                        Last::Bounce => self.bounce(id).await,
                        Last::Delete => self.delete(id, by),
                    }
                })
                .buffer_unordered(REPORTS)
        );
        while let Some(end) = ends.next().await {
            match end {
                End::Done => done += 1,
                End::Failed => failed += 1,
            }
        }
        CarriedOut {
            done,
            under_way: under_way.len(),
            failed,
        }
    }

    fn delete(&self, id: SpoolId, by: &str) -> End {
        let standing = self.0.spool.standing(id);
        let open = standing.map(|it| it.open).unwrap_or_default();
        let deleted = |index: usize| (index, Mark::Failed(format!("deleted by {by}")));
        let marks = open.into_iter().map(deleted).collect();
        self.0.spool.mark(id, marks);
        End::Done
    }

    /// As where an attempt has failed for good: reported first, marked then.
    async fn bounce(&self, id: SpoolId) -> End {
        let queue = &self.0;
        let message = match queue.spool.load(id).await {
            Ok(message) => message,
            Err(spool::Error::Unknown { .. }) => return End::Done,
            Err(error) => {
                events::report_failed(id, "failed", &error);
                return End::Failed;
            }
        };
        let patience = queue.state().patience;
        let verdict = Verdict {
            id,
            attempt: message.attempts,
            message: &message,
            host: &"none",
            patience,
            spool: &queue.spool,
            reporter: &queue.reporter,
        };
        let open = message.open.iter();
        let outcomes = open.map(|index| (*index, Outcome::given_up())).collect();
        match verdict.settle(outcomes).await.is_empty() {
            true => End::Done,
            false => End::Failed,
        }
    }
}

/// How messages come to their end.
#[derive(Debug, Clone, Copy)]
enum Last {
    Bounce,
    Delete,
}

/// What became of one message that was to come to its end.
enum End {
    Done,
    Failed,
}

/// Messages that are in no lane while an order is carried out on them. Those that are still to be
/// delivered come back when it is dropped.
struct Claim<'a> {
    queue: &'a Queue,
    ids: HashSet<SpoolId>,
}

impl<'a> Claim<'a> {
    fn new(queue: &'a Queue, ids: Vec<SpoolId>) -> Claim<'a> {
        let ids: HashSet<SpoolId> = ids.into_iter().collect();
        let mut state = queue.state();
        state.lanes.withdraw(|id| ids.contains(&id));
        state.claimed.extend(&ids);
        Claim { queue, ids }
    }

    /// Those at which an attempt is still under way after so long, or at the end of the scheduler. None
    /// will be begun.
    async fn under_way_after(&self, wait: Duration) -> HashSet<SpoolId> {
        let ended = async {
            loop {
                let mut ended = pin!(self.queue.attempt_ended.notified());
                ended.as_mut().enable();
                if self.queue.state().stopped || self.under_way().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        // In time or not: whoever is under way then is left alone.
        let _ = timeout(wait, ended).await;
        self.under_way()
    }

    fn under_way(&self) -> HashSet<SpoolId> {
        let state = self.queue.state();
        let under_way = state.lanes.under_way();
        under_way.filter(|id| self.ids.contains(id)).collect()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        let now = Instant::now();
        for id in &self.ids {
            state.claimed.remove(id);
            let standing = self.queue.spool.standing(*id);
            if let Some(standing) = standing.filter(|it| !it.held) {
                let waiting = Waiting::new(*id, standing.attempts);
                state.lanes.bring_back(waiting, now);
            }
        }
        drop(state);
        self.queue.news.notify_one();
    }
}
