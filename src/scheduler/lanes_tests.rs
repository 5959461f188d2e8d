//! The lanes, told the time.

use bytes::Bytes;

use super::*;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;

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

fn job(number: u64) -> Job {
    Job {
        id: id(number),
        attempts: 0,
        message: None,
    }
}

fn job_in_memory(number: u64, size: usize) -> Job {
    let envelope = Envelope {
        from: ReversePath::Null,
        recipients: Vec::new(),
        body: Default::default(),
        smtputf8: false,
        ret: None,
        envid: None,
        client: None,
    };
    let arrival = Arrival {
        id: id(number),
        envelope: Arc::new(envelope),
        content: Some(Content::from(Bytes::from(vec![b'x'; size]))),
        arrived: std::time::SystemTime::UNIX_EPOCH,
        due: std::time::SystemTime::UNIX_EPOCH,
        attempts: 0,
        open: vec![0],
        held: false,
        memory: None,
    };
    Job {
        message: Some(Box::new(arrival)),
        ..job(number)
    }
}

fn road(port: u16) -> Road {
    let target = Target::parse(&format!("lmtp:127.0.0.1:{port}")).unwrap();
    Road::To(Arc::new(target))
}

fn started(lanes: &mut Lanes, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| lanes.start(now))
        .map(|start| start.job.id.session.0)
        .collect()
}

#[test]
fn a_waiting_message_costs_at_most_100_octets() {
    // Vectors that grow hold up to twice what is in them.
    assert!(2 * size_of::<Job>() <= 100);
    assert!(2 * size_of::<Later>() <= 100);
}

#[test]
fn lanes_take_turns_and_keep_to_their_width() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS);
    let (a, b) = (lanes.lane(road(1)), lanes.lane(road(2)));
    assert_eq!(lanes.lane(road(1)), a);
    for number in 1..=4 {
        lanes.ready(a, job(number), now);
    }
    lanes.ready(b, job(5), now);
    lanes.ready(b, job(6), now);
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
    let mut lanes = Lanes::new(LIMITS);
    let lane = lanes.lane(road(1));
    lanes.later(lane, id(2), 3, now + 2 * second);
    lanes.later(lane, id(1), 1, now + second);
    assert_eq!(lanes.next_wake(), Some(now + second));
    lanes.wake(now);
    assert!(started(&mut lanes, now).is_empty());
    lanes.wake(now + second);
    assert_eq!(started(&mut lanes, now + second), [1]);
    lanes.wake(now + 3 * second);
    let start = lanes.start(now + 3 * second).unwrap();
    assert_eq!((start.job.id, start.job.attempts), (id(2), 3));
    assert_eq!(lanes.next_wake(), None);
}

#[test]
fn a_destination_that_is_down_is_tried_with_one_message_after_its_pause() {
    let mut now = Instant::now();
    let mut lanes = Lanes::new(LIMITS);
    let lane = lanes.lane(road(1));
    for number in 1..=4 {
        lanes.ready(lane, job(number), now);
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
    let trial = lanes.start(resume).unwrap();
    assert_eq!(
        (trial.job.id, trial.trial.as_deref()),
        (id(3), Some("refused"))
    );
    assert!(lanes.start(resume).is_none());
    lanes.ended(lane, id(3), resume);
    let (next, _) = lanes.down(lane, resume, resume, "refused", pause);
    assert_eq!(next - resume, pause(2));

    lanes.wake(next);
    assert_eq!(started(&mut lanes, next), [4]);
    lanes.ended(lane, id(4), next);
    assert!(lanes.up(lane, next));
    lanes.ready(lane, job(5), next);
    lanes.ready(lane, job(6), next);
    assert_eq!(started(&mut lanes, next), [5, 6]);
    assert!(!lanes.up(lane, next));
}

#[test]
fn other_lanes_go_on_while_one_is_down() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS);
    let (a, b) = (lanes.lane(road(1)), lanes.lane(road(2)));
    lanes.down(a, now, now, "refused", |_| Duration::from_secs(60));
    lanes.ready(a, job(1), now);
    lanes.ready(b, job(1), now);
    let start = lanes.start(now).unwrap();
    assert_eq!((start.lane, start.trial), (b, None));
    assert!(lanes.start(now).is_none());
}

#[test]
fn a_lane_that_rests_keeps_nothing_in_memory() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS);
    let lane = lanes.lane(road(1));
    for number in 1..=2 {
        lanes.ready(lane, job_in_memory(number, 40), now);
    }
    let start = lanes.start(now).unwrap();
    assert!(start.job.message.is_some());
    lanes.ended(lane, start.job.id, now);
    lanes.down(lane, now, now, "refused", |_| Duration::ZERO);
    lanes.ready(lane, job_in_memory(3, 40), now);
    while let Some(start) = lanes.start(now) {
        assert!(start.job.message.is_none());
        lanes.ended(lane, start.job.id, now);
    }
}

#[test]
fn a_message_is_not_under_way_twice_in_one_lane() {
    let now = Instant::now();
    let mut lanes = Lanes::new(LIMITS);
    let lane = lanes.lane(road(1));
    let spread = lanes.lane(Road::Spread);
    lanes.ready(lane, job(1), now);
    lanes.ready(lane, job(1), now);
    lanes.ready(spread, job(1), now);
    assert_eq!(started(&mut lanes, now), [1]);
    lanes.ended(lane, id(1), now);
    lanes.wake(now + COLLISION);
    assert!(lanes.start(now + COLLISION).is_some());
}

#[test]
fn all_is_taken_out_once_for_new_routes() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut lanes = Lanes::new(LIMITS);
    let (a, b) = (lanes.lane(road(1)), lanes.lane(road(2)));
    lanes.ready(a, job(1), now);
    assert_eq!(started(&mut lanes, now), [1]);
    lanes.ready(a, job(2), now);
    lanes.later(a, id(3), 2, now + 2 * second);
    lanes.later(b, id(3), 5, now + second);
    let all = lanes.take_all(now);
    assert_eq!(all.len(), 3);
    assert_eq!(all[&id(3)], (now + second, 5));
    assert_eq!((lanes.queued(a), lanes.next_wake()), (0, None));
}
