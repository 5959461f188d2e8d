//! Messages that an order names: taken out of the lanes, or put to the front of them.
//!
//! Each goes through all that waits; orders are rare. An attempt under way is never stopped: its
//! recipient may have said yes already.

use tokio::time::Instant;

use super::lane::Health;
use super::lane::LaneId;
use super::lane::Road;
use super::lanes::Lanes;
use super::waiting::Waiting;
use crate::mail::id::SpoolId;

impl Lanes {
    /// Those of which this is true are next in their lanes, whatever they waited for. A lane that rests
    /// tries one of them.
    pub(super) fn hasten(&mut self, those: impl Fn(SpoolId) -> bool, now: Instant) {
        let mut hastened = self.clock.take_those(&those);
        for (lane, _) in &hastened {
            self.of_mut(*lane).put_off -= 1;
        }
        for lane in self.all() {
            let waited = self.of_mut(lane).on_disk.take_those(&those);
            hastened.extend(waited.into_iter().map(|waiting| (lane, waiting)));
        }
        for (lane, waiting) in hastened.into_iter().rev() {
            let onward = self.onward(lane);
            let this = self.of_mut(onward);
            if let Health::Down { resume, .. } = &mut this.health {
                *resume = (*resume).min(now);
            }
            this.on_disk.push_front(waiting);
            self.line_up(onward, now);
            self.let_go(lane);
        }
    }

    /// Takes out those of which this is true, wherever they wait. What is left of them by attempts that
    /// are under way is not put back.
    pub(super) fn withdraw(&mut self, those: impl Fn(SpoolId) -> bool) {
        for (lane, _) in self.clock.take_those(&those) {
            self.of_mut(lane).put_off -= 1;
        }
        for lane in &mut self.lanes {
            lane.on_disk.take_those(&those);
            lane.read.retain(|job| !those(job.id));
            lane.fresh.retain(|job| !those(job.id));
            for reading in &mut lane.reading {
                reading.take_if(|waiting| those(waiting.id()));
            }
        }
        for ((id, _), begun) in &mut self.running {
            begun.withdrawn |= those(*id);
        }
        self.leave_line();
        for lane in self.all() {
            self.let_go(lane);
        }
    }

    /// Puts back a message that was withdrawn: it is looked up anew, after what of it is still under way.
    pub(super) fn bring_back(&mut self, waiting: Waiting, now: Instant) {
        let spread = self.lane(Road::Spread);
        self.ready(spread, waiting, now);
    }

    /// Whether any attempt at this message is under way.
    pub(super) fn is_under_way(&self, id: SpoolId) -> bool {
        self.under_way().any(|running| running == id)
    }

    /// The messages of all attempts under way.
    pub(super) fn under_way(&self) -> impl Iterator<Item = SpoolId> {
        self.running.keys().map(|(id, _)| *id)
    }

    /// Each lane that has not been given up.
    pub(super) fn all(&self) -> Vec<LaneId> {
        self.by_road.values().copied().collect()
    }

    /// Where those of a lane are tried: what was set aside, in the lane of its destination.
    fn onward(&mut self, lane: LaneId) -> LaneId {
        match self.road(lane).clone() {
            Road::Aside(target) => self.lane(Road::To(target)),
            Road::Spread | Road::Nowhere | Road::To(_) => lane,
        }
    }

    /// Lanes in which nothing is left stand in no line.
    fn leave_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        let mut trials = std::mem::take(&mut self.trials);
        line.retain(|lane| {
            let lane = self.of_mut(*lane);
            lane.in_line = lane.has_message() || !lane.on_disk.is_empty();
            lane.in_line
        });
        trials.retain(|lane| {
            let lane = self.of_mut(*lane);
            lane.in_line_of_trials = lane.has_message() || !lane.on_disk.is_empty();
            lane.in_line_of_trials
        });
        (self.line, self.trials) = (line, trials);
    }
}

#[cfg(test)]
#[path = "pick_tests.rs"]
mod tests;
