//! What the end of an attempt means: for its recipients, its message, its lane.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::attempt::Contact;
use super::attempt::Ended;
use super::attempt::Left;
use super::attempt::Tried;
use super::lane::LaneId;
use super::lane::Road;
use super::lanes::News;
use super::queue::Running;
use super::queue::State;
use super::waiting::Waiting;
use crate::mail::id::SpoolId;
use crate::telemetry::events;

impl State {
    /// An attempt has ended; None where it did so early.
    pub(super) fn ended(&mut self, running: &Running, ended: Option<Ended>, now: Instant) {
        self.lanes.ended(running.lane, running.id, now);
        let current = running.generation == self.generation;
        match ended {
            Some(Ended::Spread(message)) if current => self.spread(message),
            Some(Ended::Spread(_)) => self.leave(running.id), // `reroute` has put it in line again.
            Some(Ended::Tried(tried)) => self.settle(running, tried, current, now),
            Some(Ended::NotOverAge(target)) if current => {
                let lane = self.lanes.lane(Road::To(target));
                let waiting = Waiting::new(running.id, running.attempts);
                self.lanes.ready(lane, waiting, now);
            }
            Some(Ended::Gone) => self.leave(running.id),
            Some(Ended::Unreadable(error)) if current => {
                let waiting = Waiting::new(running.id, running.attempts);
                self.unreadable(running.lane, waiting, &error, now);
            }
            None if current => {
                let waiting = Waiting::new(running.id, running.attempts);
                let reason = "the attempt ended early";
                self.unreadable(running.lane, waiting, &reason, now);
            }
            Some(Ended::NotOverAge(_) | Ended::Unreadable(_)) | None => self.leave(running.id),
        }
    }

    /// Decides what an attempt means for those it did not deliver to.
    fn settle(&mut self, running: &Running, tried: Tried, current: bool, now: Instant) {
        let resume = self.judge_destination(running, &tried.contact, now);
        if tried.left.is_empty() {
            self.leave(running.id);
            return;
        }
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
        let waiting = Waiting::new(running.id, attempt);
        match resume {
            // It waits for the lane, not for a time of its own.
            Some(_) => self.lanes.ready(running.lane, waiting, now),
            None => self.lanes.later(running.lane, waiting, now + next),
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
                    self.part_with_old(lane, now);
                }
                Some(resume)
            }
        }
    }

    /// A destination that stays down is tried with one message at a time. Those that are over age do
    /// not wait for their turn.
    fn part_with_old(&mut self, lane: LaneId, now: Instant) {
        let Road::To(target) = self.lanes.road(lane) else {
            return;
        };
        let over_age = Road::OverAge(Arc::clone(target));
        let over_age = self.lanes.lane(over_age);
        let began = SystemTime::now().checked_sub(self.config.give_up_after);
        let began = began.and_then(|began| began.duration_since(SystemTime::UNIX_EPOCH).ok());
        let began = began.unwrap_or_default().as_micros();
        // A session is older than its messages, so none is passed over; some may come too early.
        let is_old = |id: SpoolId| u128::from(id.session.0) <= began;
        self.lanes.move_those(lane, over_age, is_old, now);
    }

    fn host(&self, lane: LaneId) -> String {
        match self.lanes.road(lane) {
            Road::Spread | Road::Nowhere => "none".to_owned(),
            Road::To(target) | Road::OverAge(target) => target.to_string(),
        }
    }
}
