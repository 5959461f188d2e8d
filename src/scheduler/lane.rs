//! One lane: what waits for one destination, and how that destination is.
//!
//! Most of what waits is on disk, and costs what `waiting` says. A few messages are read ahead of
//! their turn, so that attempts never wait for the disk; those that were stored just now stand beside
//! them with what memory the spool has given them, and the two kinds take turns.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::waiting::Line;
use super::waiting::Waiting;
use crate::delivery::target::Target;
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
    /// Messages that came to be over age while their destination was down: it is not asked.
    OverAge(Arc<Target>),
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
        reason: Arc<str>,
    },
}

/// What waits for one destination, and how that is.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) road: Road,
    /// Those whose message is on disk.
    pub(super) on_disk: Line,
    /// Those that are being read; empty where they were taken out meanwhile.
    pub(super) reading: Vec<Waiting>,
    pub(super) is_reading: bool,
    /// Those that were read.
    pub(super) read: VecDeque<Job>,
    /// Those that were stored just now.
    pub(super) fresh: VecDeque<Job>,
    pub(super) turn: Turn,
    pub(super) running: usize,
    pub(super) health: Health,
    /// Whether it stands in the line of lanes that may start something.
    pub(super) in_line: bool,
}

/// Whose turn it is, where there are both: neither may keep the other waiting.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turn {
    Fresh,
    Read,
}

impl Lane {
    /// A lane that is up, and empty.
    pub(super) fn new(road: Road) -> Lane {
        Lane {
            road,
            on_disk: Line::default(),
            reading: Vec::new(),
            is_reading: false,
            read: VecDeque::new(),
            fresh: VecDeque::new(),
            turn: Turn::Fresh,
            running: 0,
            health: Health::Up,
            in_line: false,
        }
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
    pub(super) fn width(&self, full: usize, now: Instant) -> usize {
        match self.health {
            Health::Up => full,
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
