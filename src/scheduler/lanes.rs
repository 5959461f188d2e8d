//! Who waits for what: a lane for each destination, and one clock for all that is put off.
//!
//! Pure: it is told the time and never asks for it. A lane runs a bounded number of attempts. A lane
//! whose destination is down rests for a pause that grows; then one attempt is made, and only when
//! it reached the destination does the lane run at full width again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::Health;
use super::lane::Job;
use super::lane::Lane;
use super::lane::LaneId;
use super::lane::Road;
use super::waiting::Clock;
use super::waiting::Waiting;
use crate::mail::id::SpoolId;

/// All lanes. Lanes are never removed: there are as many as there ever were targets.
#[derive(Debug)]
pub(super) struct Lanes {
    in_all: usize,
    per_lane: usize,
    lanes: Vec<Lane>,
    by_road: HashMap<Road, LaneId>,
    clock: Clock,
    pauses: BinaryHeap<Reverse<(Instant, LaneId)>>,
    line: VecDeque<LaneId>,
    running: HashSet<(SpoolId, LaneId)>,
    /// Lanes that are being read for.
    readings: usize,
}

/// Which attempts may run at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) in_all: usize,
    pub(super) per_lane: usize,
}

/// Something to do now.
#[derive(Debug)]
pub(super) enum Start {
    /// Messages to be read from disk, to be followed by [`Lanes::end_read`].
    Read { lane: LaneId, ids: Vec<SpoolId> },
    /// An attempt, to be followed by [`Lanes::ended`].
    Try { lane: LaneId, road: Road, job: Job },
}

/// The same message is under way; look again then.
const COLLISION: Duration = Duration::from_secs(5);

impl Lanes {
    /// Nothing is ever due before the `beginning`.
    pub(super) fn new(limits: Limits, beginning: Instant) -> Lanes {
        Lanes {
            in_all: limits.in_all.max(1),
            per_lane: limits.per_lane.max(1),
            lanes: Vec::new(),
            by_road: HashMap::new(),
            clock: Clock::new(beginning),
            pauses: BinaryHeap::new(),
            line: VecDeque::new(),
            running: HashSet::new(),
            readings: 0,
        }
    }

    /// The lane of a road; made where there is none yet.
    pub(super) fn lane(&mut self, road: Road) -> LaneId {
        if let Some(lane) = self.by_road.get(&road) {
            return *lane;
        }
        let lane = LaneId(self.lanes.len() as u32);
        self.lanes.push(Lane::new(road.clone()));
        self.by_road.insert(road, lane);
        lane
    }

    pub(super) fn road(&self, lane: LaneId) -> &Road {
        &self.of(lane).road
    }

    /// How many wait in this lane for their turn.
    pub(super) fn queued(&self, lane: LaneId) -> usize {
        let lane = self.of(lane);
        lane.on_disk.len() + lane.reading.len() + lane.read.len() + lane.fresh.len()
    }

    /// Puts a message that was stored just now at the end of its lane.
    pub(super) fn fresh(&mut self, lane: LaneId, job: Job, now: Instant) {
        let this = self.of_mut(lane);
        match this.health {
            Health::Up => this.fresh.push_back(job),
            Health::Down { .. } => this.on_disk.push_back(job.put_down()),
        }
        self.line_up(lane, now);
    }

    /// Puts a message that is on disk at the end of its lane.
    pub(super) fn ready(&mut self, lane: LaneId, waiting: Waiting, now: Instant) {
        self.of_mut(lane).on_disk.push_back(waiting);
        self.line_up(lane, now);
    }

    /// Puts a message off until `due`.
    pub(super) fn later(&mut self, lane: LaneId, waiting: Waiting, due: Instant) {
        self.clock.put_off(lane, waiting, due);
    }

    /// When to call [`Lanes::wake`] next.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let pause = self.pauses.peek().map(|Reverse((resume, _))| *resume);
        self.clock.next().into_iter().chain(pause).min()
    }

    /// Brings back what is due.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((lane, waiting)) = self.clock.take_due(now) {
            self.ready(lane, waiting, now);
        }
        while self.pauses.peek().is_some_and(|pause| pause.0.0 <= now)
            && let Some(Reverse((_, lane))) = self.pauses.pop()
        {
            self.line_up(lane, now);
        }
    }

    /// What to do next; None when there is nothing to do or all places are taken. Lanes take turns.
    pub(super) fn start(&mut self, now: Instant) -> Option<Start> {
        while self.can_start() {
            let lane = self.line.pop_front()?;
            self.of_mut(lane).in_line = false;
            if let Some(read) = self.start_read(lane, now) {
                self.line_up(lane, now);
                return Some(read);
            }
            if !self.may_try(lane, now) {
                continue;
            }
            let Some(job) = self.of_mut(lane).pop() else {
                continue;
            };
            if self.collides(&job, lane) {
                self.later(lane, job.put_down(), now + COLLISION);
                self.line_up(lane, now);
                continue;
            }
            self.running.insert((job.id, lane));
            let this = self.of_mut(lane);
            this.running += 1;
            let road = this.road.clone();
            self.line_up(lane, now);
            return Some(Start::Try { lane, road, job });
        }
        None
    }

    /// Whether [`Lanes::start`] would look for something.
    pub(super) fn can_start(&self) -> bool {
        !self.line.is_empty() && self.running.len() + self.readings < self.in_all
    }

    fn start_read(&mut self, lane: LaneId, now: Instant) -> Option<Start> {
        let this = self.of_mut(lane);
        let wanted = this.wanted(now);
        if wanted == 0 {
            return None;
        }
        this.reading = this.on_disk.take(wanted);
        this.is_reading = true;
        let ids = this.reading.iter().map(Waiting::id).collect();
        self.readings += 1;
        Some(Start::Read { lane, ids })
    }

    /// A read has ended. Gives whom it was for: each is to be put somewhere. None of them, where they
    /// were gathered meanwhile.
    pub(super) fn end_read(&mut self, lane: LaneId) -> Vec<Waiting> {
        self.readings -= 1;
        let this = self.of_mut(lane);
        this.is_reading = false;
        std::mem::take(&mut this.reading)
    }

    /// The message of one that [`Lanes::end_read`] gave was read.
    pub(super) fn read(&mut self, lane: LaneId, job: Job) {
        self.of_mut(lane).read.push_back(job);
    }

    /// Puts back those that [`Lanes::end_read`] gave and that were not read, and lets the lane go on.
    pub(super) fn put_back(
        &mut self,
        lane: LaneId,
        unread: impl DoubleEndedIterator<Item = Waiting>,
        now: Instant,
    ) {
        let this = self.of_mut(lane);
        for waiting in unread.rev() {
            this.on_disk.push_front(waiting);
        }
        if this.width(1, now) == 0 {
            this.put_down_all();
        }
        self.line_up(lane, now);
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
            self.of_mut(lane).running -= 1;
        }
        // A lane that found all places taken waits in line; this one may have left it.
        self.line_up(lane, now);
    }

    /// The messages that are under way, each once a lane.
    pub(super) fn under_way(&self) -> impl Iterator<Item = SpoolId> {
        self.running.iter().map(|(id, _)| *id)
    }

    /// The destination was reached. True where it was down before.
    pub(super) fn up(&mut self, lane: LaneId, now: Instant) -> bool {
        let health = &mut self.of_mut(lane).health;
        let was_down = *health != Health::Up;
        if was_down {
            *health = Health::Up;
            self.line_up(lane, now);
        }
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
        let this = self.of_mut(lane);
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
        this.put_down_all();
        self.pauses.push(Reverse((resume, lane)));
        (resume, News::New)
    }

    /// Why the destination of this road is left alone. None where it is not.
    pub(super) fn why_down(&self, road: &Road) -> Option<Arc<str>> {
        match &self.of(*self.by_road.get(road)?).health {
            Health::Down { reason, .. } => Some(Arc::clone(reason)),
            Health::Up => None,
        }
    }

    /// Moves those of which this is true from one lane to another. Those in memory stay.
    pub(super) fn move_those(
        &mut self,
        from: LaneId,
        to: LaneId,
        those: impl Fn(SpoolId) -> bool,
        now: Instant,
    ) {
        for waiting in self.of_mut(from).on_disk.take_those(those) {
            self.ready(to, waiting, now);
        }
    }

    /// Empties all lanes, and puts each message that waited or is under way once into this one, for
    /// when it is due.
    pub(super) fn gather(&mut self, into: LaneId, now: Instant) {
        let under_way = self.running.iter().map(|(id, _)| Waiting::new(*id, 1));
        let mut all: Vec<Waiting> = under_way.collect();
        for lane in &mut self.lanes {
            lane.put_down_all();
            all.append(&mut lane.reading);
            all.append(&mut lane.on_disk.take(usize::MAX));
        }
        self.clock.gather(into, all, now);
    }

    fn may_try(&self, lane: LaneId, now: Instant) -> bool {
        let lane = self.of(lane);
        lane.running < lane.width(self.per_lane, now) && lane.has_message()
    }

    fn line_up(&mut self, lane: LaneId, now: Instant) {
        let this = self.of(lane);
        if !this.in_line && (this.wanted(now) > 0 || self.may_try(lane, now)) {
            self.of_mut(lane).in_line = true;
            self.line.push_back(lane);
        }
    }

    fn of(&self, lane: LaneId) -> &Lane {
        &self.lanes[lane.0 as usize]
    }

    fn of_mut(&mut self, lane: LaneId) -> &mut Lane {
        &mut self.lanes[lane.0 as usize]
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
