//! What is tried next and when.
//!
//! A message that was stored just now is handed over in memory and tried at once; its recipients are
//! spread over lanes, one a destination (`lanes`), and each lane goes its own way. What is put off
//! waits here as an id and a time (at most 40 octets, `waiting`), and is read from the spool when it
//! is due. A destination that cannot be reached pauses its lane as a whole.
//!
//! A lane starts with few attempts at once, and has more while they come off (`lane`). No lane lives at
//! the cost of the others (`start`), and a route may set the pace of its lanes (`pace`).
//!
//! The work is done in places, as many as attempts may run at once. A place takes what is next of any
//! lane, one thing after the other (`queue`), and closes when there is nothing.
//!
//! What became of each recipient is written to the spool: delivered ones are marked, those that failed
//! for good as soon as the report for their sender is stored (`verdict`); a message that waits is
//! deferred (`settle`), and its sender warned once where that takes long (`patience`).
//!
//! An operator may see all this and change its course (`orders`, `pick`); what was said last of those that
//! wait is remembered for that (`replies`).
//!
//! # Limits
//! The spool keeps one due time a message. Where recipients wait in several lanes, the last that was
//! written counts after a restart, and a warning may name those of one lane alone.

mod attempt;
pub mod config;
mod lane;
mod lanes;
pub mod orders;
mod pace;
mod patience;
mod pick;
mod queue;
mod replies;
mod settle;
mod start;
mod verdict;
mod waiting;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::delivery::Delivery;
use crate::delivery::target::Target;
use crate::mail::address::Domain;
use crate::mail::address::Host;
use crate::report::Reporter;
use crate::spool::Arrivals;
use crate::spool::Spool;
use attempt::Means;
use queue::Queue;
use queue::Running;
use queue::Task;

pub use config::Config;
pub use orders::Orders;

/// How long the goodbyes to all servers may take. Nothing depends on them.
const GOODBYES: Duration = Duration::from_secs(2);
/// Arrivals that are put in line before anything is started.
const ARRIVALS: usize = 64;

/// Where mail goes from a sender of this domain (None for the null sender and one at an address
/// literal) to a recipient at this host; None where it goes nowhere. A reload sends a new one.
pub type Route = Arc<dyn Fn(Option<&Domain>, &Host) -> Option<Target> + Send + Sync>;

/// Decides what is tried when, and tries it.
pub struct Scheduler {
    queue: Arc<Queue>,
    routes: watch::Receiver<Route>,
    places: JoinSet<()>,
}

impl Scheduler {
    /// `reporter` tells senders what became of their mail. `routes` says where mail goes; what it is
    /// told later counts for all attempts begun after that.
    pub fn new(
        config: Config,
        spool: Spool,
        delivery: Arc<Delivery>,
        reporter: Reporter,
        mut routes: watch::Receiver<Route>,
    ) -> Scheduler {
        let route = Arc::clone(&routes.borrow_and_update());
        Scheduler {
            queue: Queue::new(config, spool, delivery, reporter, route),
            routes,
            places: JoinSet::new(),
        }
    }

    /// What an operator asks of the queue, and tells it.
    pub fn orders(&self) -> Orders {
        Orders::new(Arc::clone(&self.queue))
    }

    /// Delivers what arrives until told to `stop`, or the spool is gone; then starts nothing more, and
    /// gives the attempts that are under way until `drain` to end. What is not done then stays in the
    /// spool.
    ///
    /// Not cancel safe: dropping it cuts off the attempts under way.
    pub async fn run(mut self, mut arrivals: Arrivals, stop: CancellationToken, drain: Duration) {
        let queue = Arc::clone(&self.queue);
        let mut tending = pin!(queue.delivery.tend());
        while !stop.is_cancelled() {
            self.open_places();
            let wake = queue.state().next_wake();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = self.places.join_next() => {}
                () = queue.news.notified() => {}
                arrival = arrivals.next() => match arrival {
                    Some(arrival) => {
                        let more = std::iter::from_fn(|| arrivals.at_hand()).take(ARRIVALS);
                        let mut state = queue.state();
                        std::iter::once(arrival).chain(more).for_each(|it| state.arrived(it));
                    }
                    None => break, // Without a spool nothing that is done could be written down.
                },
                Ok(()) = self.routes.changed() => {
                    let route = Arc::clone(&self.routes.borrow_and_update());
                    queue.state().reroute(route, Instant::now());
                }
                () = wake_at(wake) => queue.state().lanes.wake(Instant::now()),
                () = &mut tending => {}
            }
        }
        queue.stop();
        let drained = async { while self.places.join_next().await.is_some() {} };
        // What is late is cut off: its recipients have no mark and are tried again after the start.
        let _ = timeout(drain, drained).await;
        self.places.shutdown().await;
        let _ = timeout(GOODBYES, queue.delivery.close()).await;
    }

    /// Opens as many places as there is work for.
    fn open_places(&mut self) {
        // The lock is let go before the place is opened.
        let next = || self.queue.state().start(Instant::now());
        while let Some(task) = next() {
            self.places.spawn(work(Arc::clone(&self.queue), task));
        }
        while self.places.try_join_next().is_some() {}
    }
}

/// What happens in one place: one task after the other, until there is none.
async fn work(queue: Arc<Queue>, first: Task) {
    let mut next = Some(first);
    while let Some(task) = next {
        match task {
            Task::Read(lane, ids) => queue.read(lane, queue.spool.load_some(ids).await),
            Task::Try(running, attempt) => {
                let mut under_way = UnderWay(&queue, Some(running));
                let means = Means {
                    spool: &queue.spool,
                    delivery: &queue.delivery,
                    reporter: &queue.reporter,
                };
                let ended = attempt.make(&means).await;
                if let Some(running) = under_way.1.take() {
                    queue.ended(&running, ended);
                }
            }
        }
        next = queue.next();
    }
}

/// Tells the queue of an attempt that does not come to its end.
struct UnderWay<'a>(&'a Queue, Option<Running>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.1.take() {
            self.0.cut_off(&running);
        }
    }
}

async fn wake_at(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => poll_fn(|_| std::task::Poll::Pending).await,
    }
}
