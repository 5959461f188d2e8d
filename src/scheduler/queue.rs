//! What the places of the scheduler share: the lanes, and where mail goes.
//!
//! One lock, held for a moment and never while waiting. A place asks for what there is to do, does
//! it, and says how it ended; so a place that has mail before it goes on without waiting for anyone.
//! Whoever leaves more to do than he does himself tells the one who opens places.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Config;
use super::Route;
use super::attempt;
use super::attempt::Attempt;
use super::attempt::Ended;
use super::lane::Job;
use super::lane::LaneId;
use super::lane::Road;
use super::lanes::Lanes;
use super::lanes::Limits;
use super::patience::Patience;
use super::replies::Replies;
use super::start::Start;
use super::waiting::Waiting;
use crate::delivery::Delivery;
use crate::mail::id::SpoolId;
use crate::report::Reporter;
use crate::spool;
use crate::spool::Arrival;
use crate::spool::Spool;
use crate::telemetry::events;

/// Lanes that are kept though nothing is in them, with what they know of their destinations.
const LANES_KEPT: usize = 1024;

/// What all places share.
pub(super) struct Queue {
    pub(super) spool: Spool,
    pub(super) delivery: Arc<Delivery>,
    pub(super) reporter: Reporter,
    state: Mutex<State>,
    /// There is more to start, or something is due earlier than the one who waits for it thinks.
    pub(super) news: Notify,
    /// An attempt has ended, or none will be begun any more.
    pub(super) attempt_ended: Notify,
    /// One order is carried out at a time.
    pub(super) orders: Semaphore,
}

/// What changes.
pub(super) struct State {
    pub(super) config: Config,
    pub(super) patience: Patience,
    pub(super) spool: Spool,
    pub(super) route: Route,
    /// How many routes there were before this one.
    pub(super) generation: u64,
    pub(super) lanes: Lanes,
    pub(super) replies: Replies,
    /// Messages on which an order is being carried out. They are in no lane, and come into none.
    pub(super) claimed: HashSet<SpoolId>,
    /// When somebody will look at what is due.
    wake: Option<Instant>,
    pub(super) stopped: bool,
}

/// A job under way.
pub(super) struct Running {
    pub(super) lane: LaneId,
    pub(super) id: SpoolId,
    pub(super) attempts: u32,
    pub(super) began: Instant,
    pub(super) generation: u64,
}

/// What a place is to do next.
pub(super) enum Task {
    Read(LaneId, Vec<SpoolId>),
    Try(Running, Box<Attempt>),
}

impl Queue {
    pub(super) fn new(
        config: Config,
        spool: Spool,
        delivery: Arc<Delivery>,
        reporter: Reporter,
        route: Route,
    ) -> Arc<Queue> {
        let limits = Limits {
            in_all: config.attempts,
            per_lane: config.attempts_per_destination,
            at_first: config.attempts_at_first,
            kept: LANES_KEPT,
        };
        let patience = Patience {
            mail: config.give_up_after,
            bounces: config.give_up_bounces_after,
            warning: reporter.delay_warning(),
        };
        let state = State {
            config,
            patience,
            spool: spool.clone(),
            route,
            generation: 0,
            lanes: Lanes::new(limits, Instant::now()),
            replies: Replies::default(),
            claimed: HashSet::new(),
            wake: None,
            stopped: false,
        };
        Arc::new(Queue {
            spool,
            delivery,
            reporter,
            state: Mutex::new(state),
            news: Notify::new(),
            attempt_ended: Notify::new(),
            orders: Semaphore::new(1),
        })
    }

    /// Also after a panic under the lock: one message may be left in no lane until the next start.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is started.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.attempt_ended.notify_waiters();
    }

    /// What there is to do for one place.
    pub(super) fn next(&self) -> Option<Task> {
        let mut state = self.state();
        let task = state.start(Instant::now());
        if state.has_news() {
            self.news.notify_one();
        }
        task
    }

    /// Messages were read, or could not be.
    pub(super) fn read(&self, lane: LaneId, read: Vec<Result<Arrival, spool::Error>>) {
        self.state().read(lane, read, Instant::now());
    }

    /// An attempt has ended.
    pub(super) fn ended(&self, running: &Running, ended: Ended) {
        self.state().ended(running, Some(ended), Instant::now());
        self.attempt_ended.notify_waiters();
    }

    /// An attempt was cut off: by a fault in it, or because time is up.
    pub(super) fn cut_off(&self, running: &Running) {
        let mut state = self.state();
        if !state.stopped {
            state.ended(running, None, Instant::now());
            drop(state);
            self.attempt_ended.notify_waiters();
            self.news.notify_one();
        }
    }
}

impl State {
    /// When to look at what is due; whatever is due earlier from now on is news.
    pub(super) fn next_wake(&mut self) -> Option<Instant> {
        self.wake = self.lanes.next_wake();
        self.wake
    }

    fn has_news(&self) -> bool {
        let earlier = |due: Instant| self.wake.is_none_or(|wake| due < wake);
        !self.stopped && (self.lanes.can_start() || self.lanes.next_wake().is_some_and(earlier))
    }

    pub(super) fn start(&mut self, now: Instant) -> Option<Task> {
        if self.stopped {
            return None;
        }
        match self.lanes.start(now)? {
            Start::Read { lane, ids } => Some(Task::Read(lane, ids)),
            Start::Try { lane, road, job } => {
                let why_down = match &road {
                    Road::Aside(target) => self.lanes.why_down(&Road::To(Arc::clone(target))),
                    Road::Spread | Road::Nowhere | Road::To(_) => None,
                };
                let running = Running {
                    lane,
                    id: job.id,
                    attempts: job.attempts,
                    began: now,
                    generation: self.generation,
                };
                let attempt = Attempt {
                    route: Arc::clone(&self.route),
                    road,
                    id: job.id,
                    attempts: job.attempts,
                    message: job.message,
                    why_down,
                    patience: self.patience,
                };
                Some(Task::Try(running, Box::new(attempt)))
            }
        }
    }

    pub(super) fn arrived(&mut self, arrival: Arrival) {
        let id = arrival.id;
        if arrival.held || self.claimed.contains(&id) {
            return;
        }
        if arrival.content.is_none() {
            // It may have been held or finished since it was read,
            if self.spool.standing(id).is_none_or(|it| it.held) {
                return;
            }
            // and one that was released may still be under way: it is looked at again after that.
            if self.lanes.is_under_way(id) {
                let waiting = Waiting::new(id, arrival.attempts);
                self.lanes.bring_back(waiting, Instant::now());
                return;
            }
        }
        self.spread(Box::new(arrival));
    }

    /// Puts a message into the lane of each of its destinations.
    pub(super) fn spread(&mut self, message: Box<Arrival>) {
        let mut roads = attempt::roads(&message, &self.route);
        let now = Instant::now();
        let wait = message.due.duration_since(SystemTime::now()).ok();
        // The clock may have been set back since, by years where it starts without a battery.
        let wait = wait.map(|wait| wait.min(self.config.longest_wait()));
        let due = wait.filter(|wait| !wait.is_zero()).map(|wait| now + wait);
        let last = roads.pop();
        for road in roads {
            self.enter(road, message.clone(), due, now);
        }
        if let Some(road) = last {
            self.enter(road, message, due, now);
        }
    }

    fn enter(&mut self, road: Road, message: Box<Arrival>, due: Option<Instant>, now: Instant) {
        let lane = self.lanes.lane(road);
        let (id, attempts) = (message.id, message.attempts);
        match due {
            Some(due) => self.lanes.later(lane, Waiting::new(id, attempts), due),
            None if message.content.is_none() => {
                let waiting = Waiting::new(id, attempts);
                self.lanes.ready(lane, waiting, now);
            }
            None => {
                let job = Job {
                    id,
                    attempts,
                    message,
                };
                self.lanes.fresh(lane, job, now);
            }
        }
    }

    /// `read` answers the first of those that were asked for, each in its turn.
    fn read(&mut self, lane: LaneId, read: Vec<Result<Arrival, spool::Error>>, now: Instant) {
        let mut asked = self.lanes.end_read(lane).into_iter();
        for (read, waiting) in read.into_iter().zip(asked.by_ref()) {
            let Some(waiting) = waiting else {
                continue;
            };
            match read {
                Ok(message) => {
                    let job = Job {
                        id: waiting.id(),
                        attempts: waiting.attempts,
                        message: Box::new(message),
                    };
                    self.lanes.read(lane, job);
                }
                Err(spool::Error::Unknown { .. }) => {}
                Err(error) => self.unreadable(lane, waiting, &error, now),
            }
        }
        self.lanes.put_back(lane, asked.flatten(), now);
        self.lanes.let_go(lane);
    }

    pub(super) fn unreadable(
        &mut self,
        lane: LaneId,
        waiting: Waiting,
        reason: &dyn fmt::Display,
        now: Instant,
    ) {
        let attempts = waiting.attempts.saturating_add(1);
        let next = self.config.retry().wait(attempts, &mut rand::rng());
        events::not_loaded(waiting.id(), reason, next);
        let waiting = Waiting::new(waiting.id(), attempts);
        self.lanes.later(lane, waiting, now + next);
    }

    /// The routes have changed: each message is looked at anew when it is due, once nothing of it is
    /// under way any more.
    pub(super) fn reroute(&mut self, route: Route, now: Instant) {
        self.route = route;
        self.generation += 1;
        let spread = self.lanes.lane(Road::Spread);
        self.lanes.gather(spread, now);
        self.lanes.wake(now);
    }
}
