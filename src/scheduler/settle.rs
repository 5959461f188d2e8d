//! What the end of an attempt means: for its message and its lane.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use tokio::time::Instant;

use super::attempt::Contact;
use super::attempt::Ended;
use super::attempt::Tried;
use super::lane::LaneId;
use super::lane::Road;
use super::lane::Turned;
use super::queue::Running;
use super::queue::State;
use super::waiting::Waiting;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::telemetry::events;

/// By how much a session may be older than its messages. One that is older still has its sender warned
/// when it is tried.
const SESSION: Duration = Duration::from_secs(10 * 60);

/// What a message that is put off waits for.
enum Wait {
    /// A time of its own.
    For(Duration),
    /// That its lane goes on.
    ForLane(Instant),
}

impl State {
    /// An attempt has ended; None where it did so early.
    pub(super) fn ended(&mut self, running: &Running, ended: Option<Ended>, now: Instant) {
        let goes_on = self.lanes.ended(running.lane, running.id, now);
        let waiting = Waiting::new(running.id, running.attempts);
        // Where the routes are new, `reroute` has put the message in line again; where an order took it
        // out, that decides.
        let current = goes_on && running.generation == self.generation;
        match ended {
            Some(Ended::Tried(tried)) => self.settle(running, tried, current, now),
            Some(Ended::Spread(message)) if current => self.spread(message),
            Some(Ended::Back(target)) if current => {
                let lane = self.lanes.lane(Road::To(target));
                self.lanes.ready(lane, waiting, now);
            }
            Some(Ended::Unreadable(error)) if current => {
                self.unreadable(running.lane, waiting, &error, now);
            }
            None if current => {
                let reason = "the attempt ended early";
                self.unreadable(running.lane, waiting, &reason, now);
            }
            Some(Ended::Spread(_) | Ended::Back(_) | Ended::Unreadable(_) | Ended::Gone) | None => {
            }
        }
        self.lanes.let_go(running.lane);
    }

    /// Decides when those are tried again that an attempt has left.
    fn settle(&mut self, running: &Running, tried: Tried, current: bool, now: Instant) {
        let attempt = running.attempts.saturating_add(1);
        let wait = self.judge_destination(running, &tried.contact, attempt, now);
        if tried.left.is_empty() {
            return;
        }
        let next = match wait {
            Wait::For(next) => next,
            Wait::ForLane(resume) => resume.saturating_duration_since(now),
        };
        let host = self.host(running.lane);
        let clock = SystemTime::now();
        for (index, reason) in &tried.left {
            let recipient = &tried.envelope.recipients[*index].address;
            events::deferred(running.id, recipient, &host, reason, attempt, next);
            self.replies
                .note(running.id, *index, reason, attempt, clock);
        }
        let due = self.patience.due(tried.arrived, clock, clock + next);
        self.spool.defer(running.id, due, attempt);
        if !current {
            return;
        }
        let waiting = Waiting::new(running.id, attempt);
        let next = due.duration_since(clock).unwrap_or_default();
        if tried.alone && self.lanes.keeps_nothing_else(running.lane) {
            // It is looked up anew then, and nothing of its lane has to be remembered; least of all how
            // long that has rested.
            let spread = self.lanes.lane(Road::Spread);
            let own = self.config.retry().wait(attempt, &mut rand::rng());
            self.lanes.later(spread, waiting, now + next.max(own));
            return;
        }
        match wait {
            Wait::ForLane(_) => self.lanes.ready(running.lane, waiting, now),
            Wait::For(_) => self.lanes.later(running.lane, waiting, now + next),
        }
    }

    /// Tells the lane how its destination is. Gives what a message that is left has to wait for.
    fn judge_destination(
        &mut self,
        running: &Running,
        contact: &Contact,
        attempt: u32,
        now: Instant,
    ) -> Wait {
        let lane = running.lane;
        let own = Wait::For(self.config.retry().wait(attempt, &mut rand::rng()));
        let why = match contact {
            Contact::NotTried => return own,
            Contact::Made => {
                if self.lanes.up(lane, now) {
                    events::destination_up(&self.host(lane), self.lanes.queued(lane));
                }
                return own;
            }
            Contact::NotMade(why) => why,
        };
        let pause = self.config.pause();
        let pause = |failures| pause.wait(failures, &mut rand::rng());
        match self.lanes.down(lane, running.began, now, why, pause) {
            Turned::Down(resume) => {
                let pause = resume.saturating_duration_since(now);
                let queued = self.lanes.queued(lane) + 1;
                events::destination_down(&self.host(lane), &why.reply, queued, pause);
                self.set_aside(lane, now);
                Wait::ForLane(resume)
            }
            Turned::Known(resume) => Wait::ForLane(resume),
            Turned::Away => Wait::For(self.config.pause().wait(1, &mut rand::rng())),
        }
    }

    /// A destination that stays down is tried with one message at a time. Those whose senders are to hear
    /// of them, because they are over age or late, do not wait for their turn.
    fn set_aside(&mut self, lane: LaneId, now: Instant) {
        let Road::To(target) = self.lanes.road(lane) else {
            return;
        };
        let aside = Road::Aside(Arc::clone(target));
        let aside = self.lanes.lane(aside);
        // A session is older than its messages, so none is passed over; some may come too early.
        let over_age = began_before(self.patience.shortest());
        let late = self.patience.warning.map(began_before);
        let late = late.map(|late| {
            let again = SessionId(late.0.saturating_sub(SESSION.as_micros() as u64));
            (self.lanes.look_through(lane, again), late)
        });
        let is_one = |id: SpoolId| {
            let is_late = |(known, late)| known < id.session && id.session <= late;
            id.session <= over_age || late.is_some_and(is_late)
        };
        self.lanes.move_those(lane, aside, is_one, now);
        self.lanes.let_go(aside);
    }

    fn host(&self, lane: LaneId) -> String {
        match self.lanes.road(lane) {
            Road::Spread | Road::Nowhere => "none".to_owned(),
            Road::To(target) | Road::Aside(target) => target.to_string(),
        }
    }
}

/// The last session that began so long ago.
fn began_before(age: Duration) -> SessionId {
    let began = SystemTime::now().checked_sub(age);
    let began = began.and_then(|began| began.duration_since(SystemTime::UNIX_EPOCH).ok());
    SessionId(u64::try_from(began.unwrap_or_default().as_micros()).unwrap_or(u64::MAX))
}
