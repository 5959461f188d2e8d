//! Who waits for what: a lane for each destination, and one clock for all that is put off.
//!
//! Pure: it is told the time and never asks for it. A lane runs a bounded number of attempts. A lane
//! whose destination is down rests for a pause that grows; then one attempt is made, and only when
//! it reached the destination does the lane run at full width again.
//!
//! A message that waits costs 32 or 40 octets here, with what the queues keep in reserve at most 80.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::target::Target;
use crate::mail::id::SpoolId;
use crate::spool::Arrival;

/// A lane, by its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(u32);

/// What a lane leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Road {
    /// Messages whose destinations have to be looked up first.
    Spread,
    /// Recipients without a route.
    Nowhere,
    To(Arc<Target>),
}

/// One message in one lane.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: SpoolId,
    /// Attempts made so far.
    pub(super) attempts: u32,
    /// None where it has to be loaded.
    pub(super) message: Option<Box<Arrival>>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Later {
    due: Instant,
    id: SpoolId,
    lane: LaneId,
    attempts: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Up,
    Down {
        failures: u32,
        since: Instant,
        resume: Instant,
        reason: Arc<str>,
    },
}

#[derive(Debug)]
struct Lane {
    road: Road,
    ready: VecDeque<Job>,
    running: usize,
    health: Health,
    /// Whether it stands in the line of lanes that may start something.
    in_line: bool,
}

/// All lanes. Lanes are never removed: there are as many as there ever were targets.
#[derive(Debug)]
pub(super) struct Lanes {
    in_all: usize,
    per_lane: usize,
    lanes: Vec<Lane>,
    by_road: HashMap<Road, LaneId>,
    later: BinaryHeap<Reverse<Later>>,
    pauses: BinaryHeap<Reverse<(Instant, LaneId)>>,
    line: VecDeque<LaneId>,
    running: HashSet<(SpoolId, LaneId)>,
}

/// Which attempts may run at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) in_all: usize,
    pub(super) per_lane: usize,
}

/// An attempt that is to start now.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) lane: LaneId,
    pub(super) road: Road,
    pub(super) job: Job,
    /// Set for the one attempt that finds out whether a destination is back: why it was left alone.
    pub(super) trial: Option<Arc<str>>,
}

/// The same message is under way; look again then.
const COLLISION: Duration = Duration::from_secs(5);

impl Lanes {
    pub(super) fn new(limits: Limits) -> Lanes {
        Lanes {
            in_all: limits.in_all.max(1),
            per_lane: limits.per_lane.max(1),
            lanes: Vec::new(),
            by_road: HashMap::new(),
            later: BinaryHeap::new(),
            pauses: BinaryHeap::new(),
            line: VecDeque::new(),
            running: HashSet::new(),
        }
    }

    /// The lane of a road; made where there is none yet.
    pub(super) fn lane(&mut self, road: Road) -> LaneId {
        if let Some(lane) = self.by_road.get(&road) {
            return *lane;
        }
        let lane = LaneId(self.lanes.len() as u32);
        self.lanes.push(Lane {
            road: road.clone(),
            ready: VecDeque::new(),
            running: 0,
            health: Health::Up,
            in_line: false,
        });
        self.by_road.insert(road, lane);
        lane
    }

    pub(super) fn road(&self, lane: LaneId) -> &Road {
        &self.lanes[lane.0 as usize].road
    }

    /// How many wait in this lane for their turn.
    pub(super) fn queued(&self, lane: LaneId) -> usize {
        self.lanes[lane.0 as usize].ready.len()
    }

    /// Puts a job at the end of its lane.
    pub(super) fn ready(&mut self, lane: LaneId, mut job: Job, now: Instant) {
        let resting = matches!(self.lanes[lane.0 as usize].health, Health::Down { .. });
        if resting {
            job.message = None;
        }
        self.lanes[lane.0 as usize].ready.push_back(job);
        self.line_up(lane, now);
    }

    /// Puts a job off until `due`.
    pub(super) fn later(&mut self, lane: LaneId, id: SpoolId, attempts: u32, due: Instant) {
        let later = Later {
            due,
            id,
            lane,
            attempts,
        };
        self.later.push(Reverse(later));
    }

    /// When to call [`Lanes::wake`] next.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let later = self.later.peek().map(|Reverse(later)| later.due);
        let pause = self.pauses.peek().map(|Reverse((resume, _))| *resume);
        later.into_iter().chain(pause).min()
    }

    /// Brings back what is due.
    pub(super) fn wake(&mut self, now: Instant) {
        while self.later.peek().is_some_and(|later| later.0.due <= now)
            && let Some(Reverse(later)) = self.later.pop()
        {
            let job = Job {
                id: later.id,
                attempts: later.attempts,
                message: None,
            };
            self.ready(later.lane, job, now);
        }
        while self.pauses.peek().is_some_and(|pause| pause.0.0 <= now)
            && let Some(Reverse((_, lane))) = self.pauses.pop()
        {
            self.line_up(lane, now);
        }
    }

    /// The next attempt to start; None when there is nothing to do or all places are taken. Lanes take
    /// turns.
    pub(super) fn start(&mut self, now: Instant) -> Option<Start> {
        while self.running.len() < self.in_all {
            let lane = self.line.pop_front()?;
            self.lanes[lane.0 as usize].in_line = false;
            if !self.may_start(lane, now) {
                continue;
            }
            let Some(job) = self.lanes[lane.0 as usize].ready.pop_front() else {
                continue;
            };
            if self.collides(&job, lane) {
                self.later(lane, job.id, job.attempts, now + COLLISION);
                self.line_up(lane, now);
                continue;
            }
            self.running.insert((job.id, lane));
            let this = &mut self.lanes[lane.0 as usize];
            this.running += 1;
            let trial = match &this.health {
                Health::Up => None,
                Health::Down { reason, .. } => Some(Arc::clone(reason)),
            };
            let road = this.road.clone();
            self.line_up(lane, now);
            return Some(Start {
                lane,
                road,
                job,
                trial,
            });
        }
        None
    }

    /// No message is under way twice in one lane, nor looked up anew while any lane still has it.
    fn collides(&self, job: &Job, lane: LaneId) -> bool {
        if self.running.contains(&(job.id, lane)) {
            return true;
        }
        *self.road(lane) == Road::Spread && self.running.iter().any(|(id, _)| *id == job.id)
    }

    /// An attempt has ended. To be followed by [`Lanes::up`] or [`Lanes::down`] where it showed how the
    /// destination is.
    pub(super) fn ended(&mut self, lane: LaneId, id: SpoolId, now: Instant) {
        if self.running.remove(&(id, lane)) {
            self.lanes[lane.0 as usize].running -= 1;
        }
        // A lane that found all places taken waits in line; this one may have left it.
        self.line_up(lane, now);
    }

    /// The destination was reached. True where it was down before.
    pub(super) fn up(&mut self, lane: LaneId, now: Instant) -> bool {
        let health = &mut self.lanes[lane.0 as usize].health;
        let was_down = *health != Health::Up;
        *health = Health::Up;
        self.line_up(lane, now);
        was_down
    }

    /// An attempt begun at `began` did not reach the destination: the lane rests. `pause` is told how
    /// many attempts in a row have failed. Gives when the lane goes on, and whether this was news:
    /// attempts that were under way together count as one.
    pub(super) fn down(
        &mut self,
        lane: LaneId,
        began: Instant,
        now: Instant,
        reason: &str,
        pause: impl FnOnce(u32) -> Duration,
    ) -> (Instant, News) {
        let this = &mut self.lanes[lane.0 as usize];
        let failures = match &this.health {
            Health::Down { since, resume, .. } if began <= *since => return (*resume, News::Old),
            Health::Down { failures, .. } => failures.saturating_add(1),
            Health::Up => 1,
        };
        let resume = now + pause(failures);
        this.health = Health::Down {
            failures,
            since: now,
            resume,
            reason: reason.into(),
        };
        // It may take long: what waits is on disk too.
        this.ready.iter_mut().for_each(|job| job.message = None);
        self.pauses.push(Reverse((resume, lane)));
        (resume, News::New)
    }

    /// Empties all lanes. Gives each message that waited or is under way once, with when it is due and
    /// its attempts.
    pub(super) fn take_all(&mut self, now: Instant) -> HashMap<SpoolId, (Instant, u32)> {
        let mut all: HashMap<SpoolId, (Instant, u32)> = HashMap::new();
        let mut add = |id, due: Instant, attempts: u32| {
            let entry = all.entry(id).or_insert((due, attempts));
            *entry = (entry.0.min(due), entry.1.max(attempts));
        };
        for lane in &mut self.lanes {
            for job in lane.ready.drain(..) {
                add(job.id, now, job.attempts);
            }
        }
        for Reverse(later) in self.later.drain() {
            add(later.id, later.due, later.attempts);
        }
        for (id, _) in &self.running {
            add(*id, now, 1);
        }
        all
    }

    fn may_start(&self, lane: LaneId, now: Instant) -> bool {
        let lane = &self.lanes[lane.0 as usize];
        let width = match lane.health {
            Health::Up => self.per_lane,
            Health::Down { resume, .. } if resume <= now => 1,
            Health::Down { .. } => 0,
        };
        lane.running < width && !lane.ready.is_empty()
    }

    fn line_up(&mut self, lane: LaneId, now: Instant) {
        if !self.lanes[lane.0 as usize].in_line && self.may_start(lane, now) {
            self.lanes[lane.0 as usize].in_line = true;
            self.line.push_back(lane);
        }
    }
}

/// Whether a failure says something that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    New,
    Old,
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
