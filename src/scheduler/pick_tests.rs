//! Orders in the lanes, told the time.

use std::sync::Arc;
use std::time::Duration;

use super::super::lanes::Limits;
use super::super::start::COLLISION;
use super::super::start::Start;
use super::*;
use crate::delivery::outcome::Outcome;
use crate::delivery::target::Target;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;
use crate::scheduler::lane::Job;
use crate::spool::Arrival;

const LIMITS: Limits = Limits {
    in_all: 10,
    per_lane: 1,
    at_first: 1,
    kept: 100,
};
const HOUR: Duration = Duration::from_secs(3600);

fn id(number: u64) -> SpoolId {
    SpoolId {
        session: SessionId(number),
        serial: 1,
    }
}

fn waiting(number: u64) -> Waiting {
    Waiting::new(id(number), 0)
}

fn target(port: u16) -> Arc<Target> {
    Arc::new(Target::parse(&format!("lmtp:127.0.0.1:{port}")).unwrap())
}

fn job(waiting: Waiting) -> Job {
    let envelope = Envelope::new(ReversePath::Null, Vec::new());
    Job {
        id: waiting.id(),
        attempts: waiting.attempts,
        message: Box::new(Arrival {
            id: waiting.id(),
            envelope: Arc::new(envelope),
            content: None,
            arrived: std::time::SystemTime::UNIX_EPOCH,
            due: std::time::SystemTime::UNIX_EPOCH,
            attempts: 0,
            open: vec![0],
            held: false,
            memory: None,
        }),
    }
}

fn end_read(lanes: &mut Lanes, lane: LaneId, now: Instant) {
    for waiting in lanes.end_read(lane).into_iter().flatten() {
        lanes.read(lane, job(waiting));
    }
    lanes.put_back(lane, std::iter::empty(), now);
}

/// The attempts that start now, by lane and message; all that is asked for is read at once.
fn started(lanes: &mut Lanes, now: Instant) -> Vec<(LaneId, u64)> {
    let mut started = Vec::new();
    while let Some(start) = lanes.start(now) {
        match start {
            Start::Read { lane, .. } => end_read(lanes, lane, now),
            Start::Try { lane, job, .. } => started.push((lane, job.id.session.0)),
        }
    }
    started
}

fn down(lanes: &mut Lanes, lane: LaneId, now: Instant) {
    let why = Arc::new(Outcome::no_route("refused"));
    lanes.down(lane, now, now, &why, |_| HOUR);
}

#[test]
fn what_is_hastened_comes_first_and_wakes_a_lane_that_rests() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let (up, rests) = (
        lanes.lane(Road::To(target(1))),
        lanes.lane(Road::To(target(2))),
    );
    let aside = lanes.lane(Road::Aside(target(2)));
    down(&mut lanes, rests, now);
    for number in 1..=200 {
        lanes.ready(up, waiting(number), now);
        lanes.ready(rests, waiting(1000 + number), now);
    }
    lanes.later(up, waiting(300), now + HOUR);
    lanes.later(up, waiting(301), now + HOUR);
    lanes.later(aside, waiting(1300), now + HOUR);
    let later = now + Duration::from_secs(1);
    lanes.hasten(|id| [150, 300, 1300].contains(&id.session.0), later);
    assert_eq!((lanes.of(up).put_off, lanes.of(aside).put_off), (1, 0));
    let mut tried = Vec::new();
    for _ in 0..2 {
        for (lane, number) in started(&mut lanes, later) {
            tried.push((lane, number));
            lanes.ended(lane, id(number), later);
        }
    }
    tried.retain(|(lane, _)| *lane == rests);
    assert_eq!(tried[0], (rests, 1300));
    let first: Vec<u64> = std::iter::from_fn(|| lanes.of_mut(up).pop())
        .map(|job| job.id.session.0)
        .collect();
    assert!(!first.contains(&150) && !first.contains(&300), "{first:?}");
}

#[test]
fn what_is_withdrawn_is_in_no_lane_and_no_attempt_puts_it_back() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let lane = lanes.lane(Road::To(target(1)));
    lanes.ready(lane, waiting(1), now);
    assert_eq!(started(&mut lanes, now), [(lane, 1)]);
    // One in each place: read, being read, in line, put off.
    lanes.ready(lane, waiting(2), now);
    assert!(started(&mut lanes, now).is_empty());
    lanes.ready(lane, waiting(3), now);
    lanes.ready(lane, waiting(4), now);
    let read = lanes.start(now);
    assert!(matches!(read, Some(Start::Read { .. })), "{read:?}");
    lanes.ready(lane, waiting(5), now);
    lanes.later(lane, waiting(6), now + HOUR);
    lanes.fresh(lane, job(waiting(7)), now);

    lanes.withdraw(|id| id.session.0 != 4);
    assert_eq!((lanes.queued(lane), lanes.of(lane).put_off), (1, 0));
    assert_eq!(lanes.next_wake(), None);
    let read: Vec<Option<Waiting>> = lanes.end_read(lane);
    assert_eq!(read, [None, Some(waiting(4))], "each in its place");
    lanes.put_back(lane, read.into_iter().flatten(), now);

    // The one under way is its own matter until it ends; then it is not put back.
    assert!(lanes.is_under_way(id(1)));
    let spread = lanes.lane(Road::Spread);
    lanes.gather(spread, now);
    assert!(!lanes.ended(lane, id(1), now));
    lanes.wake(now);
    assert_eq!(started(&mut lanes, now), [(spread, 4)]);
}

#[test]
fn what_is_brought_back_waits_for_the_attempt_that_was_under_way() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let lane = lanes.lane(Road::To(target(1)));
    let spread = lanes.lane(Road::Spread);
    lanes.ready(lane, waiting(1), now);
    assert_eq!(started(&mut lanes, now), [(lane, 1)]);
    lanes.withdraw(|_| true);
    lanes.bring_back(waiting(1), now);
    assert!(started(&mut lanes, now).is_empty());
    assert!(!lanes.ended(lane, id(1), now));
    lanes.wake(now + COLLISION);
    assert_eq!(started(&mut lanes, now + COLLISION), [(spread, 1)]);
}

#[test]
fn a_lane_that_is_emptied_is_given_up_where_there_are_many() {
    let now = Instant::now();
    let mut lanes = Lanes::new(Limits { kept: 1, ..LIMITS }, now);
    for port in 1..=3 {
        let lane = lanes.lane(Road::To(target(port)));
        lanes.ready(lane, waiting(port.into()), now);
    }
    lanes.withdraw(|_| true);
    assert_eq!(lanes.all().len(), 1);
    assert!(lanes.start(now).is_none());
}
