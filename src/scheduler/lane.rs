//! One lane: what waits for one destination, and how that destination is.
//!
//! Most of what waits is on disk, and costs what `waiting` says. A few messages are read ahead of
//! their turn, so that attempts never wait for the disk; those that were stored just now stand beside
//! them with what memory the spool has given them, and the two kinds take turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::waiting::Line;
use super::waiting::Waiting;
use crate::delivery::outcome::Outcome;
use crate::delivery::target::Target;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::spool::Arrival;

/// A lane reads this many at once,
const READ_AT_ONCE: usize = 64;
/// when it has fewer than so many left.
const LOW: usize = 32;

/// A lane, by its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LaneId(pub(super) u32);

/// What a lane leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Road {
    /// Messages whose destinations have to be looked up first.
    Spread,
    /// Recipients without a route.
    Nowhere,
    To(Arc<Target>),
    /// Messages whose senders are to hear of them while their destination is down: it is not asked.
    Aside(Arc<Target>),
}

/// One message in one lane, in memory.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: SpoolId,
    /// Attempts made so far.
    pub(super) attempts: u32,
    pub(super) message: Box<Arrival>,
}

impl Job {
    /// Lets go of the message.
    pub(super) fn put_down(self) -> Waiting {
        Waiting::new(self.id, self.attempts)
    }
}

/// How a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    Up,
    Down {
        failures: u32,
        since: Instant,
        resume: Instant,
        why: Arc<Outcome>,
    },
}

/// What an attempt shows that did not reach its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// It takes nothing, and the lane rests until then.
    Down(Instant),
    /// The same, and it was known.
    Known(Instant),
    /// It took others meanwhile, so there were too many at once.
    Away,
}

/// What waits for one destination, and how that is.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) road: Road,
    /// Those whose message is on disk.
    pub(super) on_disk: Line,
    /// Those that are being read, as they were asked for; None for one that was taken out meanwhile,
    /// empty where all were.
    pub(super) reading: Vec<Option<Waiting>>,
    pub(super) is_reading: bool,
    /// Those that were read.
    pub(super) read: VecDeque<Job>,
    /// Those that were stored just now.
    pub(super) fresh: VecDeque<Job>,
    pub(super) turn: Turn,
    pub(super) running: usize,
    /// How many of its messages wait for a time.
    pub(super) put_off: usize,
    pub(super) health: Health,
    pub(super) width: Width,
    /// When an attempt last ended that had reached the destination.
    pub(super) reached: Option<Instant>,
    /// Which of the paces it goes at, and when it may start something next.
    pub(super) pace: Option<usize>,
    pub(super) slot: Option<Instant>,
    /// Up to which age its messages were looked through, as the id of a session.
    pub(super) looked_through: SessionId,
    /// Whether it stands in the line of lanes that may start something,
    pub(super) in_line: bool,
    /// or in that of those which may not try more before others have.
    pub(super) in_line_of_trials: bool,
}

/// How many attempts may run at once: grows with success, shrinks with failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Width {
    first: usize,
    now: usize,
    most: usize,
    /// Successes at this width.
    earned: usize,
    /// When it was last made smaller.
    narrowed: Option<Instant>,
}

impl Width {
    /// From 1 on.
    pub(super) fn new(first: usize, most: usize) -> Width {
        let most = most.max(1);
        let first = first.clamp(1, most);
        Width {
            first,
            now: first,
            most,
            earned: 0,
            narrowed: None,
        }
    }

    /// An attempt has reached the destination while so many ran. One more is tried when as many as
    /// there is room for have come off; what is not made use of shows nothing.
    fn grow(&mut self, running: usize) {
        if running < self.now || self.now == self.most {
            return;
        }
        self.earned += 1;
        if self.earned >= self.now {
            (self.now, self.earned) = (self.now + 1, 0);
        }
    }

    /// An attempt begun at `began` was turned away while others got through. Those that were under way
    /// together count as one.
    fn shrink(&mut self, began: Instant, now: Instant) {
        if self.narrowed.is_none_or(|narrowed| narrowed < began) {
            (self.now, self.earned) = ((self.now / 2).max(1), 0);
            self.narrowed = Some(now);
        }
    }

    /// The destination was down: what it can take has to show anew.
    fn restart(&mut self) {
        *self = Width::new(self.first, self.most);
    }
}

/// Whose turn it is, where there are both: neither may keep the other waiting.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Fresh,
    Read,
}

impl Lane {
    /// A lane that is up, and empty.
    pub(super) fn new(road: Road, width: Width, pace: Option<usize>) -> Lane {
        Lane {
            road,
            on_disk: Line::default(),
            reading: Vec::new(),
            is_reading: false,
            read: VecDeque::new(),
            fresh: VecDeque::new(),
            turn: Turn::Fresh,
            running: 0,
            put_off: 0,
            health: Health::Up,
            width,
            reached: None,
            pace,
            slot: None,
            looked_through: SessionId(0),
            in_line: false,
            in_line_of_trials: false,
        }
    }

    /// Whether nobody knows that its destination takes mail.
    pub(super) fn is_on_trial(&self) -> bool {
        let leads_out = matches!(self.road, Road::To(_));
        leads_out && (self.reached.is_none() || self.health != Health::Up)
    }

    /// Whether nothing of it is anywhere.
    pub(super) fn is_idle(&self) -> bool {
        let in_memory = self.has_message() || self.is_reading || self.running > 0;
        let in_line = self.in_line || self.in_line_of_trials;
        !in_memory && !in_line && self.put_off == 0 && self.on_disk.is_empty()
    }

    /// The destination was reached. True where it was down before.
    pub(super) fn up(&mut self, now: Instant) -> bool {
        let was_down = self.health != Health::Up;
        self.health = Health::Up;
        self.reached = Some(now);
        self.width.grow(self.running + 1);
        was_down
    }

    /// An attempt begun at `began` did not reach the destination.
    pub(super) fn down(
        &mut self,
        began: Instant,
        now: Instant,
        why: &Arc<Outcome>,
        pause: impl FnOnce(u32) -> Duration,
    ) -> Turned {
        let failures = match &self.health {
            Health::Down { since, resume, .. } if began <= *since => return Turned::Known(*resume),
            Health::Up if self.reached.is_some_and(|reached| reached > began) => {
                self.width.shrink(began, now);
                return Turned::Away;
            }
            Health::Down { failures, .. } => failures.saturating_add(1),
            Health::Up => 1,
        };
        let resume = now + pause(failures);
        self.health = Health::Down {
            failures,
            since: now,
            resume,
            why: Arc::clone(why),
        };
        self.width.restart();
        self.put_down_all();
        Turned::Down(resume)
    }

    pub(super) fn has_message(&self) -> bool {
        !self.read.is_empty() || !self.fresh.is_empty()
    }

    /// Takes the next message in memory.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let turn = self.turn;
        self.turn = match turn {
            Turn::Fresh => Turn::Read,
            Turn::Read => Turn::Fresh,
        };
        match turn {
            Turn::Fresh => self.fresh.pop_front().or_else(|| self.read.pop_front()),
            Turn::Read => self.read.pop_front().or_else(|| self.fresh.pop_front()),
        }
    }

    /// How many should be read now.
    pub(super) fn wanted(&self, now: Instant) -> usize {
        if self.is_reading || self.on_disk.is_empty() {
            return 0;
        }
        let idle = self.running == 0 && !self.has_message();
        match self.health {
            Health::Up if self.read.len() < LOW => READ_AT_ONCE,
            Health::Down { resume, .. } if resume <= now && idle => 1,
            Health::Up | Health::Down { .. } => 0,
        }
    }

    /// How many attempts may run now.
    pub(super) fn width(&self, now: Instant) -> usize {
        match self.health {
            Health::Up => self.width.now,
            Health::Down { resume, .. } if resume <= now => 1,
            Health::Down { .. } => 0,
        }
    }

    /// Lets go of all messages; they are on disk too.
    pub(super) fn put_down_all(&mut self) {
        let jobs = self.read.drain(..).chain(self.fresh.drain(..));
        let jobs: Vec<Waiting> = jobs.map(Job::put_down).collect();
        for waiting in jobs.into_iter().rev() {
            self.on_disk.push_front(waiting);
        }
    }
}
