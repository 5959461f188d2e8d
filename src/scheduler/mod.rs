//! What is tried next and when.
//!
//! A message that was stored just now is handed over in memory and tried at once; its recipients are
//! spread over lanes, one a destination (`lanes`), and each lane goes its own way. What is put off
//! waits here as an id and a time (at most 100 octets), and is read from the spool when it is due.
//! A destination that cannot be reached pauses its lane as a whole.
//!
//! What became of each recipient is written to the spool: delivered ones are marked, a message that
//! waits is deferred. When the last recipient that could still be delivered is settled and others have
//! failed for good, the message is held with the reasons.
//!
//! # Limits
//! The spool keeps one due time a message. Where recipients wait in several lanes, the last that was
//! written counts after a restart. Which recipients have failed is forgotten in a restart, and found
//! out again.

mod attempt;
pub mod config;
mod lanes;
mod parts;

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::Id;
use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::delivery::Delivery;
use crate::delivery::target::Target;
use crate::mail::address::Domain;
use crate::mail::id::SpoolId;
use crate::spool::Arrival;
use crate::spool::Arrivals;
use crate::spool::Spool;
use crate::telemetry::events;
use attempt::Attempt;
use attempt::Contact;
use attempt::Ended;
use attempt::Left;
use attempt::Tried;
use lanes::Job;
use lanes::LaneId;
use lanes::Lanes;
use lanes::Limits;
use lanes::News;
use lanes::Road;
use lanes::Start;
use parts::Parts;

pub use config::Config;

/// How long the goodbyes to all servers may take. Nothing depends on them.
const GOODBYES: Duration = Duration::from_secs(2);

/// Where the mail of a domain goes; None where it goes nowhere. A reload sends a new one.
pub type Route = Arc<dyn Fn(&Domain) -> Option<Target> + Send + Sync>;

/// Decides what is tried when, and tries it.
pub struct Scheduler {
    config: Config,
    spool: Spool,
    delivery: Arc<Delivery>,
    routes: watch::Receiver<Route>,
    route: Route,
    lanes: Lanes,
    tasks: JoinSet<Ended>,
    running: HashMap<Id, Running>,
    parts: Parts,
}

/// A job under way.
struct Running {
    lane: LaneId,
    id: SpoolId,
    attempts: u32,
    began: Instant,
    route: Route,
}

impl Scheduler {
    /// `routes` says where mail goes; what it is told later counts for all attempts begun after that.
    pub fn new(
        config: Config,
        spool: Spool,
        delivery: Arc<Delivery>,
        mut routes: watch::Receiver<Route>,
    ) -> Scheduler {
        let route = Arc::clone(&routes.borrow_and_update());
        let lanes = Lanes::new(Limits {
            in_all: config.attempts,
            per_lane: config.attempts_per_destination,
        });
        Scheduler {
            config,
            spool,
            delivery,
            routes,
            route,
            lanes,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            parts: Parts::default(),
        }
    }

    /// Delivers what arrives until told to `stop`, or the spool is gone; then starts nothing more, and
    /// gives the attempts that are under way until `drain` to end. What is not done then stays in the
    /// spool.
    ///
    /// Not cancel safe: dropping it cuts off the attempts under way.
    pub async fn run(mut self, mut arrivals: Arrivals, stop: CancellationToken, drain: Duration) {
        let delivery = Arc::clone(&self.delivery);
        let mut tending = pin!(delivery.tend());
        while !stop.is_cancelled() {
            self.start();
            let wake = self.lanes.next_wake();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                arrival = arrivals.next() => match arrival {
                    Some(arrival) => self.arrived(arrival),
                    None => break, // Without a spool nothing that is done could be written down.
                },
                Ok(()) = self.routes.changed() => self.reroute(),
                () = wake_at(wake) => self.lanes.wake(Instant::now()),
                () = &mut tending => {}
            }
        }
        let drained = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(ended);
            }
        };
        // What is late is cut off: its recipients have no mark and are tried again after the start.
        let _ = timeout(drain, drained).await;
        self.tasks.shutdown().await;
        let _ = timeout(GOODBYES, self.delivery.close()).await;
    }

    fn arrived(&mut self, arrival: Arrival) {
        if !arrival.held {
            self.spread(Box::new(arrival));
        }
    }

    /// Puts a message into the lane of each of its destinations.
    fn spread(&mut self, message: Box<Arrival>) {
        let id = message.id;
        let failed = self.parts.failed(id);
        let mut roads = attempt::roads(&message, &failed, &self.route);
        self.parts.enter(id, roads.len());
        let now = Instant::now();
        let wait = message.due.duration_since(SystemTime::now()).ok();
        // The clock may have been set back since, by years where it starts without a battery.
        let wait = wait.map(|wait| wait.min(self.config.longest_wait()));
        let due = wait.filter(|wait| !wait.is_zero()).map(|wait| now + wait);
        let last = roads.pop();
        for road in roads {
            self.enter(road, message.clone(), due, now);
        }
        match last {
            Some(road) => self.enter(road, message, due, now),
            None => self.leave(id),
        }
    }

    fn enter(&mut self, road: Road, message: Box<Arrival>, due: Option<Instant>, now: Instant) {
        let lane = self.lanes.lane(road);
        let (id, attempts) = (message.id, message.attempts);
        if let Some(due) = due {
            self.lanes.later(lane, id, attempts, due);
            return;
        }
        let message = message.content.is_some().then_some(message);
        let job = Job {
            id,
            attempts,
            message,
        };
        self.lanes.ready(lane, job, now);
    }

    /// Starts as many attempts as there are places.
    fn start(&mut self) {
        let now = Instant::now();
        while let Some(start) = self.lanes.start(now) {
            let Start {
                lane,
                road,
                job,
                trial,
            } = start;
            let attempt = Attempt {
                spool: self.spool.clone(),
                delivery: Arc::clone(&self.delivery),
                route: Arc::clone(&self.route),
                road,
                id: job.id,
                attempts: job.attempts,
                message: job.message,
                failed: self.parts.failed(job.id),
                trial,
                give_up_after: self.config.give_up_after,
            };
            let task = self.tasks.spawn(attempt.make());
            let running = Running {
                lane,
                id: job.id,
                attempts: job.attempts,
                began: now,
                route: Arc::clone(&self.route),
            };
            self.running.insert(task.id(), running);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let (task, ended) = match ended {
            Ok((task, ended)) => (task, Some(ended)),
            Err(error) => (error.id(), None),
        };
        let Some(running) = self.running.remove(&task) else {
            return;
        };
        let now = Instant::now();
        self.lanes.ended(running.lane, running.id, now);
        let current = Arc::ptr_eq(&running.route, &self.route);
        match ended {
            Some(Ended::Spread(message)) if current => self.spread(message),
            Some(Ended::Spread(_)) => self.leave(running.id), // `reroute` has put it in line again.
            Some(Ended::Tried(tried)) => self.settle(&running, tried, current, now),
            Some(Ended::Gone) => self.leave(running.id),
            Some(Ended::Unreadable(error)) => self.unreadable(&running, &error, current, now),
            None => self.unreadable(&running, &"the attempt ended early", current, now),
        }
    }

    fn unreadable(
        &mut self,
        running: &Running,
        reason: &dyn std::fmt::Display,
        current: bool,
        now: Instant,
    ) {
        let attempts = running.attempts.saturating_add(1);
        let next = self.config.retry().wait(attempts, &mut rand::rng());
        events::not_loaded(running.id, reason, next);
        match current {
            true => self
                .lanes
                .later(running.lane, running.id, attempts, now + next),
            false => self.leave(running.id),
        }
    }

    /// Decides what an attempt means for those it did not deliver to.
    fn settle(&mut self, running: &Running, tried: Tried, current: bool, now: Instant) {
        let resume = self.judge_destination(running, &tried.contact, now);
        let attempt = running.attempts.saturating_add(1);
        let waited = tried.arrived.elapsed().unwrap_or_default();
        let next = match resume {
            Some(resume) => resume.saturating_duration_since(now),
            None => self.config.retry().wait(attempt, &mut rand::rng()),
        };
        let host = self.host(running.lane);
        let mut put_off = 0;
        for (index, left) in tried.left {
            let recipient = &tried.envelope.recipients[index].address;
            let failure = match left {
                Left::Deferred(reason) if waited < self.config.give_up_after => {
                    events::deferred(running.id, recipient, &host, &reason, attempt, next);
                    put_off += 1;
                    continue;
                }
                Left::Deferred(reason) => {
                    let days =
                        humantime_serde::re::humantime::format_duration(self.config.give_up_after);
                    format!("given up after {days}: {reason}")
                }
                Left::Failed(reason) => reason,
            };
            events::failed(running.id, recipient, &host, &failure, attempt);
            let failure = format!("{recipient}: {failure}");
            self.parts.fail(running.id, index, failure);
        }
        if put_off == 0 {
            self.leave(running.id);
            return;
        }
        let due = SystemTime::now() + next;
        self.spool.defer(running.id, due, attempt);
        if !current {
            self.leave(running.id); // `reroute` has put it in line again.
            return;
        }
        match resume {
            // It waits for the lane, not for a time of its own.
            Some(_) => {
                let job = Job {
                    id: running.id,
                    attempts: attempt,
                    message: None,
                };
                self.lanes.ready(running.lane, job, now);
            }
            None => self
                .lanes
                .later(running.lane, running.id, attempt, now + next),
        }
    }

    /// Tells the lane how its destination is. Gives when it goes on, where it rests.
    fn judge_destination(
        &mut self,
        running: &Running,
        contact: &Contact,
        now: Instant,
    ) -> Option<Instant> {
        let lane = running.lane;
        match contact {
            Contact::NotTried => None,
            Contact::Made => {
                if self.lanes.up(lane, now) {
                    events::destination_up(&self.host(lane), self.lanes.queued(lane));
                }
                None
            }
            Contact::NotMade(reason) => {
                let pause = self.config.pause();
                let pause = |failures| pause.wait(failures, &mut rand::rng());
                let (resume, news) = self.lanes.down(lane, running.began, now, reason, pause);
                if news == News::New {
                    let pause = resume.saturating_duration_since(now);
                    let queued = self.lanes.queued(lane) + 1;
                    events::destination_down(&self.host(lane), reason, queued, pause);
                }
                Some(resume)
            }
        }
    }

    /// A message has nothing more to do in one of its lanes. When nothing more can be delivered, who
    /// failed for good keeps it in the spool.
    fn leave(&mut self, id: SpoolId) {
        if let Some(reason) = self.parts.leave(id) {
            events::held(id, &reason);
            self.spool.hold(id, reason);
        }
    }

    /// The routes have changed: each message is looked at anew when it is due, once nothing of it is
    /// under way any more.
    fn reroute(&mut self) {
        self.route = Arc::clone(&self.routes.borrow_and_update());
        let now = Instant::now();
        let spread = self.lanes.lane(Road::Spread);
        for (id, (due, attempts)) in self.lanes.take_all(now) {
            let running = self.running.values().filter(|running| running.id == id);
            self.parts.enter(id, 1 + running.count());
            self.lanes.later(spread, id, attempts, due);
        }
        self.lanes.wake(now);
    }

    fn host(&self, lane: LaneId) -> String {
        match self.lanes.road(lane) {
            Road::Spread | Road::Nowhere => "none".to_owned(),
            Road::To(target) => target.to_string(),
        }
    }
}

async fn wake_at(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => poll_fn(|_| std::task::Poll::Pending).await,
    }
}
