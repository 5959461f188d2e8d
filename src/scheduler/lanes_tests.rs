//! The lanes, told the time.

use bytes::Bytes;

use super::super::start::COLLISION;
use super::super::start::Start;
use super::*;
use crate::delivery::route::Route;
use crate::delivery::target::Target;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;
use crate::spool::Arrival;

const LIMITS: Limits = Limits {
    in_all: 3,
    per_lane: 2,
    at_first: 2,
    kept: 100,
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
        body: Default::default(),
        ..Envelope::new(ReversePath::Null, Vec::new())
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

fn refused() -> Arc<Outcome> {
    Arc::new(Outcome::no_route("refused"))
}

/// A lane whose destination is known to take mail.
fn proven(lanes: &mut Lanes, port: u16, now: Instant) -> LaneId {
    let lane = lanes.lane(road(port));
    lanes.up(lane, now - Duration::from_secs(60));
    lane
}

/// An attempt that was started.
struct Tried {
    lane: LaneId,
    job: Job,
}

/// Has the lane what it asked for.
fn end_read(lanes: &mut Lanes, lane: LaneId, now: Instant) {
    for waiting in lanes.end_read(lane).into_iter().flatten() {
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
    let (a, b) = (proven(&mut lanes, 1, now), proven(&mut lanes, 2, now));
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
    let resume = now + pause(1);
    let turned = lanes.down(lane, now, now, &refused(), pause);
    assert_eq!(turned, Turned::Down(resume));
    let began = now;
    now += Duration::from_secs(1);
    let again = lanes.down(lane, began, now, &refused(), pause);
    assert_eq!(again, Turned::Known(resume));
    lanes.ended(lane, id(1), now);
    lanes.ended(lane, id(2), now);
    assert!(started(&mut lanes, now).is_empty());
    assert_eq!(lanes.next_wake(), Some(resume));

    lanes.wake(resume);
    let trial = start(&mut lanes, resume).unwrap();
    assert_eq!(trial.job.id, id(3));
    assert!(start(&mut lanes, resume).is_none());
    lanes.ended(lane, id(3), resume);
    let next = resume + pause(2);
    let turned = lanes.down(lane, resume, resume, &refused(), pause);
    assert_eq!(turned, Turned::Down(next));

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
    lanes.down(a, now, now, &refused(), |_| Duration::from_secs(60));
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
    lanes.down(lane, now, now, &refused(), |_| pause);
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
    lanes.down(lane, now, now, &refused(), |_| Duration::from_secs(10));
    assert_eq!(lanes.why_down(&road(1)), Some(refused()));
    lanes.move_those(lane, over_age, |id| id.session.0 % 2 == 0, now);
    assert_eq!(started(&mut lanes, now), [2, 4]);
    assert_eq!(lanes.queued(lane), 2);
}

#[test]
fn what_was_stored_just_now_and_what_was_read_take_turns() {
    let now = Instant::now();
    let limits = Limits {
        in_all: 20,
        per_lane: 9,
        at_first: 9,
        ..LIMITS
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

/// Room for all, and lanes that begin with one attempt.
const WIDE: Limits = Limits {
    in_all: 1000,
    per_lane: 6,
    at_first: 2,
    kept: 1000,
};

/// How many run when as many as may were started.
fn fill(lanes: &mut Lanes, lane: LaneId, now: Instant) -> usize {
    started(lanes, now);
    lanes.of(lane).running
}

/// So many attempts reach the destination, one after the other, while the lane goes on.
fn succeed(lanes: &mut Lanes, lane: LaneId, times: usize, now: Instant) {
    for _ in 0..times {
        let (id, _) = *lanes.running.keys().next().unwrap();
        lanes.ended(lane, id, now);
        lanes.up(lane, now);
        started(lanes, now);
    }
}

#[test]
fn a_lane_grows_with_success_up_to_its_limit_and_shrinks_when_one_is_turned_away() {
    let mut now = Instant::now();
    let mut lanes = Lanes::new(WIDE, now);
    let lane = lanes.lane(road(1));
    for number in 1..=200 {
        lanes.ready(lane, waiting(number), now);
    }
    for width in [2, 3, 4, 5, 6, 6] {
        assert_eq!(fill(&mut lanes, lane, now), width);
        succeed(&mut lanes, lane, width, now);
    }
    // Two are turned away while another gets through: together they count as one.
    let began = now;
    now += Duration::from_secs(1);
    let pause = |_| Duration::from_secs(10);
    lanes.up(lane, now);
    for _ in 0..2 {
        let (id, _) = *lanes.running.keys().next().unwrap();
        lanes.ended(lane, id, now);
        let turned = lanes.down(lane, began, now, &refused(), pause);
        assert_eq!(turned, Turned::Away);
    }
    assert_eq!(lanes.of(lane).width(now), 3);
    // Nobody gets through any more: it is down, and begins anew when it is up again.
    let began = now;
    now += Duration::from_secs(1);
    let resume = now + pause(1);
    let ids: Vec<SpoolId> = lanes.running.keys().map(|(id, _)| *id).collect();
    for id in ids {
        lanes.ended(lane, id, now);
        lanes.down(lane, began, now, &refused(), pause);
    }
    assert_eq!(lanes.next_wake(), Some(resume));
    lanes.wake(resume);
    assert_eq!(fill(&mut lanes, lane, resume), 1);
    succeed(&mut lanes, lane, 1, resume);
    assert_eq!(lanes.of(lane).running, 2);
}

#[test]
fn a_lane_that_is_not_made_use_of_does_not_grow() {
    let now = Instant::now();
    let mut lanes = Lanes::new(WIDE, now);
    let lane = lanes.lane(road(1));
    for number in 1..=50 {
        lanes.ready(lane, waiting(number), now);
        assert_eq!(fill(&mut lanes, lane, now), 1);
        succeed(&mut lanes, lane, 1, now);
    }
    (51..=60).for_each(|number| lanes.ready(lane, waiting(number), now));
    assert_eq!(fill(&mut lanes, lane, now), 2);
}

#[test]
fn slow_lanes_leave_places_to_others() {
    let now = Instant::now();
    let limits = Limits {
        in_all: 40,
        per_lane: 20,
        at_first: 20,
        ..WIDE
    };
    let mut lanes = Lanes::new(limits, now);
    let slow = [1, 2, 3, 4, 5].map(|port| proven(&mut lanes, port, now));
    for number in 0..500 {
        lanes.ready(slow[number as usize % 5], waiting(number), now);
    }
    started(&mut lanes, now);
    let running = slow.map(|lane| lanes.of(lane).running);
    assert!(
        running.iter().all(|running| (5..=8).contains(running)),
        "{running:?}"
    );
    // Whoever comes now finds places, and has them again each time.
    let quick = proven(&mut lanes, 9, now);
    for number in 1000..1010 {
        lanes.ready(quick, waiting(number), now);
        let next = start(&mut lanes, now).unwrap();
        assert_eq!(next.lane, quick);
        lanes.ended(quick, next.job.id, now);
    }
}

#[test]
fn destinations_that_may_be_dead_leave_half_of_all_places_to_others() {
    let now = Instant::now();
    let limits = Limits {
        in_all: 10,
        at_first: 1,
        ..WIDE
    };
    let mut lanes = Lanes::new(limits, now);
    for port in 1..=50 {
        let lane = lanes.lane(road(port));
        lanes.ready(lane, waiting(u64::from(port)), now);
    }
    assert_eq!(started(&mut lanes, now), [1, 2, 3, 4, 5]);
    let good = proven(&mut lanes, 99, now);
    lanes.ready(good, waiting(99), now);
    assert_eq!(started(&mut lanes, now), [99]);
    lanes.ended(good, id(99), now);
    // Each that ends lets the next one in, until all were there.
    let mut tried = 5;
    let mut under_way: VecDeque<u64> = (1..=5).collect();
    while let Some(number) = under_way.pop_front() {
        let lane = lanes.lane(road(number as u16));
        lanes.ended(lane, id(number), now);
        lanes.down(lane, now, now, &refused(), |_| Duration::from_secs(60));
        let next = started(&mut lanes, now);
        tried += next.len();
        under_way.extend(next);
    }
    assert_eq!(tried, 50);
}

#[test]
fn the_lanes_of_a_route_keep_its_pace_and_take_turns() {
    let mut now = Instant::now();
    let mut lanes = Lanes::new(WIDE, now);
    let route = Arc::new(Route {
        name: "paced".to_owned(),
        rate: Some("10/s".parse().unwrap()),
        ..Route::default()
    });
    let lane_of = |lanes: &mut Lanes, host: &str| {
        let host = crate::mail::address::Host::parse(host).unwrap();
        lanes.lane(Road::To(Arc::new(Target::new(&route, &host))))
    };
    let (a, b) = (
        lane_of(&mut lanes, "a.example"),
        lane_of(&mut lanes, "b.example"),
    );
    for number in 0..100 {
        lanes.ready(a, waiting(number), now);
        lanes.ready(b, waiting(1000 + number), now);
    }
    let (mut tried, end) = (Vec::new(), now + Duration::from_secs(2));
    while now < end {
        lanes.wake(now);
        while let Some(next) = start(&mut lanes, now) {
            tried.push(next.lane);
            lanes.ended(next.lane, next.job.id, now);
            lanes.up(next.lane, now);
        }
        now = lanes.next_wake().unwrap();
    }
    assert_eq!(tried.len(), 20);
    assert_eq!(tried.iter().filter(|lane| **lane == a).count(), 10);
}

#[test]
fn lanes_that_are_idle_are_given_up_where_there_are_many() {
    let now = Instant::now();
    let limits = Limits { kept: 10, ..WIDE };
    let mut lanes = Lanes::new(limits, now);
    for port in 1..=1000 {
        let lane = lanes.lane(road(port));
        lanes.ready(lane, waiting(u64::from(port)), now);
        let next = start(&mut lanes, now).unwrap();
        lanes.ended(lane, next.job.id, now);
        lanes.let_go(lane);
    }
    assert!(lanes.by_road.len() <= 11, "{}", lanes.by_road.len());
    assert!(lanes.lanes.len() <= 12, "{}", lanes.lanes.len());
    // One that has something stays.
    let lane = lanes.lane(road(2000));
    assert!(lanes.keeps_nothing_else(lane));
    lanes.later(lane, waiting(1), now + Duration::from_secs(1));
    lanes.let_go(lane);
    assert_eq!(*lanes.road(lane), road(2000));
    lanes.wake(now + Duration::from_secs(1));
    assert_eq!(started(&mut lanes, now + Duration::from_secs(1)), [1]);
}
