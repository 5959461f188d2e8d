//! Who waits for what: a lane for each destination, and one clock for all that is put off.
//!
//! Pure: it is told the time and never asks for it. A lane runs a bounded number of attempts, which
//! grows while they come off. A lane whose destination is down rests for a pause that grows; then one
//! attempt is made, and only when it reached the destination does the lane go on.
//!
//! No lane lives at the cost of the others. Lanes take turns; one that has many places takes a further one
//! only while as many are free; and at most half of all places go to destinations of which nobody
//! knows whether they take mail. A lane that is idle is given up where there are many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::Health;
use super::lane::Job;
use super::lane::Lane;
use super::lane::LaneId;
use super::lane::Road;
use super::lane::Turned;
use super::lane::Width;
use super::pace::Paces;
use super::waiting::Clock;
use super::waiting::Waiting;
use crate::delivery::outcome::Outcome;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;

/// All lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) limits: Limits,
    pub(super) lanes: Vec<Lane>,
    pub(super) by_road: HashMap<Road, LaneId>,
    /// Places in the list that were given up.
    vacant: Vec<LaneId>,
    pub(super) clock: Clock,
    pub(super) pauses: BinaryHeap<Reverse<(Instant, LaneId)>>,
    pub(super) paces: Paces,
    pub(super) line: VecDeque<LaneId>,
    /// Those that wait until fewer are tried of which nobody knows whether they take mail.
    pub(super) trials: VecDeque<LaneId>,
    pub(super) running: HashMap<(SpoolId, LaneId), Begun>,
    /// Lanes that are being read for.
    pub(super) readings: usize,
    pub(super) on_trial: usize,
}

/// An attempt under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) on_trial: bool,
    /// What it leaves is not to be put back: an order has taken its message out of the lanes.
    pub(super) withdrawn: bool,
}

/// Which attempts may run at once, and how many lanes are kept though they are idle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) in_all: usize,
    /// In one lane, where its route does not say.
    pub(super) per_lane: usize,
    /// In a lane that is new.
    pub(super) at_first: usize,
    pub(super) kept: usize,
}

impl Lanes {
    /// Nothing is ever due before the `beginning`.
    pub(super) fn new(limits: Limits, beginning: Instant) -> Lanes {
        Lanes {
            limits,
            lanes: Vec::new(),
            by_road: HashMap::new(),
            vacant: Vec::new(),
            clock: Clock::new(beginning),
            pauses: BinaryHeap::new(),
            paces: Paces::default(),
            line: VecDeque::new(),
            trials: VecDeque::new(),
            running: HashMap::new(),
            readings: 0,
            on_trial: 0,
        }
    }

    /// The lane of a road; made where there is none yet.
    pub(super) fn lane(&mut self, road: Road) -> LaneId {
        if let Some(lane) = self.by_road.get(&road) {
            return *lane;
        }
        let (most, pace) = match &road {
            Road::To(target) => {
                let route = target.route();
                let most = route.concurrency.unwrap_or(self.limits.per_lane);
                (most, self.paces.of(route))
            }
            Road::Spread | Road::Nowhere | Road::Aside(_) => (self.limits.per_lane, None),
        };
        let width = Width::new(self.limits.at_first, most);
        let lane = Lane::new(road.clone(), width, pace);
        let id = match self.vacant.pop() {
            Some(id) => {
                *self.of_mut(id) = lane;
                id
            }
            None => {
                self.lanes.push(lane);
                LaneId(self.lanes.len() as u32 - 1)
            }
        };
        self.by_road.insert(road, id);
        id
    }

    /// Whether there are more lanes than are kept for nothing.
    fn is_crowded(&self) -> bool {
        self.by_road.len() > self.limits.kept
    }

    /// Gives up a lane that is idle, where there are too many. What it knew of its destination is lost.
    pub(super) fn let_go(&mut self, lane: LaneId) {
        if self.is_crowded() && self.of(lane).is_idle() {
            let empty = Lane::new(Road::Nowhere, Width::new(1, 1), None);
            let Lane { road, .. } = std::mem::replace(self.of_mut(lane), empty);
            if self.by_road.get(&road) == Some(&lane) {
                self.by_road.remove(&road);
                self.vacant.push(lane);
            }
        }
    }

    /// Whether a message that is put off would be all that keeps this lane, where there are too many.
    pub(super) fn keeps_nothing_else(&self, lane: LaneId) -> bool {
        self.is_crowded() && self.of(lane).is_idle()
    }

    pub(super) fn road(&self, lane: LaneId) -> &Road {
        &self.of(lane).road
    }

    /// How many wait in this lane for their turn.
    pub(super) fn queued(&self, lane: LaneId) -> usize {
        let lane = self.of(lane);
        let reading = lane.reading.iter().flatten().count();
        lane.on_disk.len() + reading + lane.read.len() + lane.fresh.len()
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
        self.of_mut(lane).put_off += 1;
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
            self.of_mut(lane).put_off -= 1;
            self.ready(lane, waiting, now);
        }
        while self.pauses.peek().is_some_and(|pause| pause.0.0 <= now)
            && let Some(Reverse((_, lane))) = self.pauses.pop()
        {
            self.line_up(lane, now);
        }
    }

    /// A read has ended. Gives whom it was for: each is to be put somewhere. None in the place of one
    /// that was withdrawn meanwhile; nobody, where they were gathered.
    pub(super) fn end_read(&mut self, lane: LaneId) -> Vec<Option<Waiting>> {
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
        if this.width(now) == 0 {
            this.put_down_all();
        }
        self.line_up(lane, now);
    }

    /// An attempt has ended. To be followed by [`Lanes::up`] or [`Lanes::down`] where it showed how the
    /// destination is, and by [`Lanes::let_go`] when nothing more is to be put into the lane. False where
    /// nothing of its message is to be put back: it was withdrawn.
    pub(super) fn ended(&mut self, lane: LaneId, id: SpoolId, now: Instant) -> bool {
        let begun = self.running.remove(&(id, lane));
        if let Some(begun) = begun {
            self.of_mut(lane).running -= 1;
            self.on_trial -= usize::from(begun.on_trial);
        }
        // A lane that found all places taken waits in line; this one may have left it.
        self.line_up(lane, now);
        begun.is_none_or(|begun| !begun.withdrawn)
    }

    /// The destination was reached. True where it was down before.
    pub(super) fn up(&mut self, lane: LaneId, now: Instant) -> bool {
        let was_down = self.of_mut(lane).up(now);
        self.line_up(lane, now);
        was_down
    }

    /// An attempt begun at `began` did not reach the destination: the lane rests, or is made narrower.
    /// `pause` is told how many attempts in a row have failed.
    pub(super) fn down(
        &mut self,
        lane: LaneId,
        began: Instant,
        now: Instant,
        why: &Arc<Outcome>,
        pause: impl FnOnce(u32) -> Duration,
    ) -> Turned {
        let turned = self.of_mut(lane).down(began, now, why, pause);
        if let Turned::Down(resume) = turned {
            self.pauses.push(Reverse((resume, lane)));
        }
        turned
    }

    /// What was said when the destination of this road was left alone. None where it is not.
    pub(super) fn why_down(&self, road: &Road) -> Option<Arc<Outcome>> {
        match &self.of(*self.by_road.get(road)?).health {
            Health::Down { why, .. } => Some(Arc::clone(why)),
            Health::Up => None,
        }
    }

    /// Up to where a lane was looked through, as the id of a session; from now on it is up to `new`.
    pub(super) fn look_through(&mut self, lane: LaneId, new: SessionId) -> SessionId {
        std::mem::replace(&mut self.of_mut(lane).looked_through, new)
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
    /// when it is due; not those that were withdrawn.
    pub(super) fn gather(&mut self, into: LaneId, now: Instant) {
        let under_way = self.running.iter().filter(|(_, begun)| !begun.withdrawn);
        let under_way = under_way.map(|((id, _), _)| Waiting::new(*id, 1));
        let mut all: Vec<Waiting> = under_way.collect();
        for lane in &mut self.lanes {
            lane.put_down_all();
            lane.put_off = 0;
            all.extend(lane.reading.drain(..).flatten());
            all.append(&mut lane.on_disk.take(usize::MAX));
        }
        self.of_mut(into).put_off = self.clock.gather(into, all, now);
        let roads: Vec<LaneId> = self.by_road.values().copied().collect();
        roads.into_iter().for_each(|lane| self.let_go(lane));
    }

    pub(super) fn of(&self, lane: LaneId) -> &Lane {
        &self.lanes[lane.0 as usize]
    }

    pub(super) fn of_mut(&mut self, lane: LaneId) -> &mut Lane {
        &mut self.lanes[lane.0 as usize]
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
