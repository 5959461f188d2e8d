//! What is started next: which lane takes the next free place.
//!
//! Lanes that have something to do stand in line. Whoever is not let in leaves the line, and whatever
//! kept him out lines him up again.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::Job;
use super::lane::LaneId;
use super::lane::Road;
use super::lanes::Begun;
use super::lanes::Lanes;
use crate::mail::id::SpoolId;

/// The same message is under way; look again then.
pub(super) const COLLISION: Duration = Duration::from_secs(5);

/// Something to do now.
#[derive(Debug)]
pub(super) enum Start {
    /// Messages to be read from disk, to be followed by [`Lanes::end_read`].
    Read { lane: LaneId, ids: Vec<SpoolId> },
    /// An attempt, to be followed by [`Lanes::ended`].
    Try { lane: LaneId, road: Road, job: Job },
}

impl Lanes {
    /// What to do next; None when there is nothing to do or all places are taken. Lanes take turns.
    pub(super) fn start(&mut self, now: Instant) -> Option<Start> {
        while self.can_start() {
            self.admit_trial(now);
            let Some(lane) = self.line.pop_front() else {
                continue;
            };
            self.of_mut(lane).in_line = false;
            if let Some(read) = self.start_read(lane, now) {
                self.line_up(lane, now);
                return Some(read);
            }
            if !self.may_try(lane, now) || !self.is_its_turn(lane, now) {
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
            return Some(self.start_try(lane, job, now));
        }
        None
    }

    /// Whether [`Lanes::start`] would look for something.
    pub(super) fn can_start(&self) -> bool {
        let any = !self.line.is_empty() || !self.trials.is_empty() && self.may_be_on_trial();
        any && self.places_free() > 0
    }

    fn may_be_on_trial(&self) -> bool {
        self.on_trial < self.limits.in_all.div_ceil(2).max(1)
    }

    /// Lines up one of those that had to wait for others on trial.
    fn admit_trial(&mut self, now: Instant) {
        if self.may_be_on_trial()
            && let Some(lane) = self.trials.pop_front()
        {
            self.of_mut(lane).in_line_of_trials = false;
            self.line_up(lane, now);
        }
    }

    fn places_free(&self) -> usize {
        let taken = self.running.len() + self.readings;
        self.limits.in_all.max(1).saturating_sub(taken)
    }

    /// Whether a lane that has something to try may take one of the places that are free. What keeps it
    /// out lines it up again later.
    fn is_its_turn(&mut self, lane: LaneId, now: Instant) -> bool {
        let this = self.of(lane);
        if this.running > self.places_free() {
            // Whoever has many leaves as many to others. It is lined up again when one of its own ends.
            return false;
        }
        if this.is_on_trial() && !self.may_be_on_trial() {
            if !this.in_line_of_trials {
                self.of_mut(lane).in_line_of_trials = true;
                self.trials.push_back(lane);
            }
            return false;
        }
        let Some(pace) = this.pace else {
            return true;
        };
        let slot = this.slot;
        let slot = slot.unwrap_or_else(|| {
            let slot = self.paces.take(pace, now);
            if slot > now {
                self.pauses.push(Reverse((slot, lane)));
            }
            slot
        });
        let is_now = slot <= now;
        self.of_mut(lane).slot = (!is_now).then_some(slot);
        is_now
    }

    fn start_try(&mut self, lane: LaneId, job: Job, now: Instant) -> Start {
        let this = self.of_mut(lane);
        this.running += 1;
        let (road, on_trial) = (this.road.clone(), this.is_on_trial());
        self.on_trial += usize::from(on_trial);
        let begun = Begun {
            on_trial,
            withdrawn: false,
        };
        self.running.insert((job.id, lane), begun);
        self.line_up(lane, now);
        Start::Try { lane, road, job }
    }

    fn start_read(&mut self, lane: LaneId, now: Instant) -> Option<Start> {
        let this = self.of_mut(lane);
        let wanted = this.wanted(now);
        if wanted == 0 {
            return None;
        }
        let taken = this.on_disk.take(wanted);
        let ids = taken.iter().map(|waiting| waiting.id()).collect();
        this.reading = taken.into_iter().map(Some).collect();
        this.is_reading = true;
        self.readings += 1;
        Some(Start::Read { lane, ids })
    }

    /// No message is under way twice in one lane, nor looked up anew while any lane still has it.
    fn collides(&self, job: &Job, lane: LaneId) -> bool {
        if self.running.contains_key(&(job.id, lane)) {
            return true;
        }
        *self.road(lane) == Road::Spread && self.is_under_way(job.id)
    }

    fn may_try(&self, lane: LaneId, now: Instant) -> bool {
        let lane = self.of(lane);
        lane.running < lane.width(now) && lane.has_message()
    }

    pub(super) fn line_up(&mut self, lane: LaneId, now: Instant) {
        let this = self.of(lane);
        if !this.in_line && (this.wanted(now) > 0 || self.may_try(lane, now)) {
            self.of_mut(lane).in_line = true;
            self.line.push_back(lane);
        }
    }
}
