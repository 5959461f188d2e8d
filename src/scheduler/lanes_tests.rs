//! The lanes, told the time.

use bytes::Bytes;

use super::*;
use crate::delivery::target::Target;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;
use crate::spool::Arrival;

const LIMITS: Limits = Limits {
    in_all: 3,
    per_lane: 2,
};

fn id(number: u64) -> SpoolId {
    SpoolId {
        session: SessionId(number),
        serial: 1,
    }
}

fn waiting(number: u64) -> Waiting {
    Waiting::new(id(number), 0)
}

fn message(number: u64) -> Box<Arrival> {
    let envelope = Envelope {
        from: ReversePath::Null,
        recipients: Vec::new(),
        body: Default::default(),
        smtputf8: false,
        ret: None,
        envid: None,
        client: None,
        login: None,
        forged: false,
    };
    Box::new(Arrival {
        id: id(number),
        envelope: Arc::new(envelope),
        content: Some(Content::from(Bytes::from_static(b"x"))),
        arrived: std::time::SystemTime::UNIX_EPOCH,
        due: std::time::SystemTime::UNIX_EPOCH,
        attempts: 0,
        open: vec![0],
        held: false,
        memory: None,
    })
}

fn fresh(number: u64) -> Job {
    Job {
        id: id(number),
        attempts: 0,
        message: message(number),
    }
}

fn road(port: u16) -> Road {
    let target = Target::parse(&format!("lmtp:127.0.0.1:{port}")).unwrap();
    Road::To(Arc::new(target))
}

/// An attempt that was started.
struct Tried {
    lane: LaneId,
    job: Job,
}

/// Has the lane what it asked for.
fn end_read(lanes: &mut Lanes, lane: LaneId, now: Instant) {
    for waiting in lanes.end_read(lane) {
        let job = Job {
            id: waiting.id(),
            attempts: waiting.attempts,
            message: message(waiting.id().session.0),
        };
        lanes.read(lane, job);
    }
    lanes.put_back(lane, std::iter::empty(), now);
}

/// The next attempt; what has to be read for it is read at once.
fn start(lanes: &mut Lanes, now: Instant) -> Option<Tried> {
    loop {
        match lanes.start(now)? {
            Start::Read { lane, .. } => end_read(lanes, lane, now),
            Start::Try { lane, job, .. } => return Some(Tried { lane, job }),
        }
    }
}

fn started(lanes: &mut Lanes, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| start(lanes, now))
        .map(|start| start.job.id.session.0)
        .collect()
}

#[test]
fn lanes_take_turns_and_keep_to_their_width() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let (a, b) = (lanes.lane(road(1)), lanes.lane(road(2)));
    assert_eq!(lanes.lane(road(1)), a);
    for number in 1..=4 {
        lanes.ready(a, waiting(number), now);
    }
    lanes.ready(b, waiting(5), now);
    lanes.ready(b, waiting(6), now);
    assert_eq!(started(&mut lanes, now), [1, 5, 2]);
    lanes.ended(a, id(1), now);
    assert_eq!(started(&mut lanes, now), [6]);
    lanes.ended(b, id(5), now);
    assert_eq!(started(&mut lanes, now), [3]);
    for (lane, number) in [(a, 2), (a, 3), (b, 6)] {
        lanes.ended(lane, id(number), now);
    }
    assert_eq!(started(&mut lanes, now), [4]);
}

#[test]
fn what_is_put_off_comes_back_when_due() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut lanes = Lanes::new(LIMITS, now);
    let lane = lanes.lane(road(1));
    lanes.later(lane, Waiting::new(id(2), 3), now + 2 * second);
    lanes.later(lane, Waiting::new(id(1), 1), now + second);
    assert_eq!(lanes.next_wake(), Some(now + second));
    lanes.wake(now);
    assert!(started(&mut lanes, now).is_empty());
    lanes.wake(now + second);
    assert_eq!(started(&mut lanes, now + second), [1]);
    lanes.wake(now + 3 * second);
    let start = start(&mut lanes, now + 3 * second).unwrap();
    assert_eq!((start.job.id, start.job.attempts), (id(2), 3));
    assert_eq!(lanes.next_wake(), None);
}

#[test]
fn a_destination_that_is_down_is_tried_with_one_message_after_its_pause() {
    let mut now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let lane = lanes.lane(road(1));
    for number in 1..=4 {
        lanes.ready(lane, waiting(number), now);
    }
    assert_eq!(started(&mut lanes, now), [1, 2]);
    let pause = |failures: u32| Duration::from_secs(10) * failures;
    // Both attempts fail: that is one piece of news.
    let (resume, news) = lanes.down(lane, now, now, "refused", pause);
    assert_eq!((resume - now, news), (pause(1), News::New));
    let began = now;
    now += Duration::from_secs(1);
    let (again, news) = lanes.down(lane, began, now, "refused", pause);
    assert_eq!((again, news), (resume, News::Old));
    lanes.ended(lane, id(1), now);
    lanes.ended(lane, id(2), now);
    assert!(started(&mut lanes, now).is_empty());
    assert_eq!(lanes.next_wake(), Some(resume));

    lanes.wake(resume);
    let trial = start(&mut lanes, resume).unwrap();
    assert_eq!(trial.job.id, id(3));
    assert!(start(&mut lanes, resume).is_none());
    lanes.ended(lane, id(3), resume);
    let (next, _) = lanes.down(lane, resume, resume, "refused", pause);
    assert_eq!(next - resume, pause(2));

    lanes.wake(next);
    assert_eq!(started(&mut lanes, next), [4]);
    lanes.ended(lane, id(4), next);
    assert!(lanes.up(lane, next));
    lanes.ready(lane, waiting(5), next);
    lanes.ready(lane, waiting(6), next);
    assert_eq!(started(&mut lanes, next), [5, 6]);
    assert!(!lanes.up(lane, next));
}

#[test]
fn other_lanes_go_on_while_one_is_down() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let (a, b) = (lanes.lane(road(1)), lanes.lane(road(2)));
    lanes.down(a, now, now, "refused", |_| Duration::from_secs(60));
    lanes.ready(a, waiting(1), now);
    lanes.ready(b, waiting(1), now);
    let first = start(&mut lanes, now).unwrap();
    assert_eq!(first.lane, b);
    assert!(start(&mut lanes, now).is_none());
}

#[test]
fn a_lane_that_rests_keeps_nothing_in_memory() {
    let now = Instant::now();
    let pause = Duration::from_secs(10);
    let mut lanes = Lanes::new(LIMITS, now);
    let lane = lanes.lane(road(1));
    for number in 1..=2 {
        lanes.fresh(lane, fresh(number), now);
        lanes.ready(lane, waiting(10 + number), now);
    }
    let began = start(&mut lanes, now).unwrap();
    lanes.ended(lane, began.job.id, now);
    lanes.down(lane, now, now, "refused", |_| pause);
    lanes.fresh(lane, fresh(3), now);
    assert_eq!(lanes.queued(lane), 4);
    assert!(!lanes.of(lane).has_message());
    assert!(lanes.start(now).is_none());
    // For the trial, one message is read.
    lanes.wake(now + pause);
    let read = lanes.start(now + pause).unwrap();
    assert!(matches!(read, Start::Read { ids, .. } if ids.len() == 1));
}

#[test]
fn those_that_are_over_age_leave_a_lane_that_is_down() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let (lane, over_age) = (lanes.lane(road(1)), lanes.lane(Road::Nowhere));
    for number in 1..=4 {
        lanes.ready(lane, waiting(number), now);
    }
    assert_eq!(lanes.why_down(&road(1)), None);
    lanes.down(lane, now, now, "refused", |_| Duration::from_secs(10));
    assert_eq!(lanes.why_down(&road(1)).as_deref(), Some("refused"));
    lanes.move_those(lane, over_age, |id| id.session.0 % 2 == 0, now);
    assert_eq!(started(&mut lanes, now), [2, 4]);
    assert_eq!(lanes.queued(lane), 2);
}

#[test]
fn what_was_stored_just_now_and_what_was_read_take_turns() {
    let now = Instant::now();
    let limits = Limits {
        in_all: 9,
        per_lane: 9,
    };
    let mut lanes = Lanes::new(limits, now);
    let lane = lanes.lane(road(1));
    for number in 1..=3 {
        lanes.fresh(lane, fresh(number), now);
        lanes.ready(lane, waiting(10 + number), now);
    }
    assert_eq!(started(&mut lanes, now), [1, 11, 2, 12, 3, 13]);
}

#[test]
fn a_lane_reads_ahead_while_its_attempts_go_on() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let lane = lanes.lane(road(1));
    for number in 0..200 {
        lanes.ready(lane, waiting(number), now);
    }
    let first = started(&mut lanes, now);
    assert_eq!(first.len(), LIMITS.per_lane);
    let mut reads = 0;
    for number in 0..100 {
        lanes.ended(lane, id(number), now);
        let mut next = lanes.start(now).unwrap();
        if let Start::Read { lane, ids } = next {
            assert!(ids.len() > 1 && lanes.of(lane).has_message());
            reads += 1;
            next = lanes.start(now).unwrap();
            end_read(&mut lanes, lane, now);
        }
        let Start::Try { job, .. } = next else {
            panic!("two reads at once")
        };
        assert_eq!(job.id, id(number + 2));
    }
    assert_eq!(reads, 2);
}

#[test]
fn a_message_is_not_under_way_twice_in_one_lane() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS, now);
    let lane = lanes.lane(road(1));
    let spread = lanes.lane(Road::Spread);
    lanes.ready(lane, waiting(1), now);
    lanes.ready(lane, waiting(1), now);
    lanes.ready(spread, waiting(1), now);
    assert_eq!(started(&mut lanes, now), [1]);
    lanes.ended(lane, id(1), now);
    lanes.wake(now + COLLISION);
    assert!(start(&mut lanes, now + COLLISION).is_some());
}

#[test]
fn all_is_taken_out_once_for_new_routes() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut lanes = Lanes::new(LIMITS, now);
    let (a, b) = (lanes.lane(road(1)), lanes.lane(road(2)));
    lanes.ready(a, waiting(1), now);
    assert_eq!(started(&mut lanes, now), [1]);
    lanes.ready(a, waiting(2), now);
    lanes.later(a, Waiting::new(id(3), 2), now + 2 * second);
    lanes.later(b, Waiting::new(id(3), 5), now + second);
    lanes.fresh(b, fresh(4), now);
    let spread = lanes.lane(Road::Spread);
    lanes.gather(spread, now);
    assert_eq!((lanes.queued(a), lanes.queued(b)), (0, 0));
    lanes.ended(a, id(1), now);
    lanes.wake(now);
    let mut due = started(&mut lanes, now);
    for number in due.clone() {
        lanes.ended(spread, id(number), now);
    }
    due.extend(started(&mut lanes, now));
    due.sort_unstable();
    assert_eq!(due, [1, 2, 4]);
    for number in due {
        lanes.ended(spread, id(number), now);
    }
    assert_eq!(lanes.next_wake(), Some(now + second));
    lanes.wake(now + second);
    let last = start(&mut lanes, now + second).unwrap();
    assert_eq!((last.job.id, last.job.attempts), (id(3), 5));
    assert_eq!(lanes.next_wake(), None);
}
