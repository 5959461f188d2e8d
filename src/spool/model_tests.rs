//! The spool against a queue in memory, on a disk that fails.
//!
//! A [`Schedule`] says what is asked of the spool, which calls to the disk fail, when the process is
//! killed and when the power goes. What is checked after each start: a message that was stored and
//! not finished is there, octet for octet, in a state that its notes gave it, and not older than what
//! is known to be on disk; nothing is there that was never stored. A message whose store ended in an
//! error is not there; it may come back whole, and only by a start after something failed twice in a
//! row, was killed, or lost power. No error comes without a cause, and nothing waits for ever.
//!
//! `PROPTEST_CASES=20000 cargo nextest run any_schedule` runs it for long.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use bytesize::ByteSize;
use nix::errno::Errno;
use proptest::test_runner::TestError;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Arrival;
use super::Arrivals;
use super::Config;
use super::Error;
use super::Fate;
use super::Mark;
use super::Spool;
use super::open_on;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Body;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::spool::disk::Disk;
use crate::spool::faults::On;
use crate::spool::index::locked;
use crate::spool::schedule::Held;
use crate::spool::schedule::Schedule;
use crate::spool::schedule::Step;
use crate::spool::schedule::schedules;

pub(super) const RECIPIENTS: usize = 3;
/// No step takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn any_schedule_of_faults_and_crashes_leaves_what_was_promised() {
    let mut config = proptest::test_runner::Config {
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..Default::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 60;
    }
    let run = TestRunner::new(config).run(&schedules(), |schedule| {
        play(&schedule);
        Ok(())
    });
    match run {
        Ok(()) => (),
        Err(TestError::Fail(why, schedule)) => panic!("{why}\n{schedule:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

fn play(Schedule(seed, steps): &Schedule) {
    let runtime = Runtime::new().unwrap();
    let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new());
    let directory = directory.unwrap();
    runtime.block_on(async {
        let mut run = Run::begin(directory.path(), *seed).await;
        for step in steps {
            timeout(PATIENCE, run.step(step))
                .await
                .expect("no step hangs");
        }
        run.disk.heal();
        run.reopen().await;
        run.reopen().await;
        // Nothing is to be written to the directory while it is removed.
        within(run.spool.close()).await;
    });
}

fn config() -> Config {
    Config {
        segment_size: ByteSize::kib(24),
        large_message: ByteSize::kib(4),
        waiting: ByteSize::kib(64),
        in_memory: ByteSize::kib(16),
        keep_free: ByteSize(0),
    }
}

fn id(serial: u32) -> SpoolId {
    SpoolId {
        session: SessionId(5),
        serial,
    }
}

fn envelope(serial: u32) -> Envelope {
    let to = |n| Address::parse(&format!("r{n}@there{serial}.example")).unwrap();
    Envelope {
        body: Body::EightBitMime,
        ..Envelope::new(
            ReversePath::parse("<a@here.example>").unwrap(),
            (0..RECIPIENTS).map(|n| Recipient::new(to(n))).collect(),
        )
    }
}

fn content(serial: u32, size: usize) -> Content {
    let body = Bytes::from(vec![b'a' + (serial % 26) as u8; size]);
    let head = Bytes::from(format!("Message-ID: <{serial}@here.example>\r\n\r\n"));
    Content::assemble(head, &body, &[])
}

/// How far a message has come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    open: Vec<usize>,
    attempts: u32,
    /// None where it is due at once.
    due: Option<SystemTime>,
    held: bool,
}

/// A message that was to be stored.
#[derive(Debug)]
struct Message {
    size: usize,
    /// The state that is known to be on disk, then what each later note made of it; None where it was
    /// finished. Empty where it was refused.
    states: Vec<Option<State>>,
}

impl Message {
    fn now(&self) -> Option<&State> {
        self.states.last()?.as_ref()
    }
}

/// What can be lost at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    AfterClose,
    AfterCrash,
}

struct Run<'a> {
    directory: &'a Path,
    disk: Disk,
    spool: Spool,
    arrivals: Arrivals,
    messages: BTreeMap<u32, Message>,
    next: u32,
    cut: bool,
}

impl Run<'_> {
    async fn begin(directory: &Path, seed: u64) -> Run<'_> {
        let disk = Disk::with_power(seed);
        let (spool, arrivals) = open_on(disk.clone(), directory, &config()).unwrap();
        Run {
            directory,
            disk,
            spool,
            arrivals,
            messages: BTreeMap::new(),
            next: 0,
            cut: false,
        }
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Store(messages) => self.store(messages).await,
            Step::Mark(which, at) => {
                let results = at.iter().map(|at| (*at, Mark::Delivered)).collect();
                self.note(
                    *which,
                    |spool, id| spool.mark(id, results),
                    |state| {
                        state.open.retain(|open| !at.contains(open));
                    },
                );
            }
            Step::Defer(which) => {
                let due = SystemTime::UNIX_EPOCH + Duration::from_secs(self.next.into());
                let attempts = self.next;
                self.note(
                    *which,
                    |spool, id| spool.defer(id, due, attempts),
                    |state| {
                        (state.due, state.attempts) = (Some(due), attempts);
                    },
                );
            }
            Step::Hold(which) => {
                let hold = |spool: &Spool, id| spool.hold(id, "why".to_owned());
                self.note(*which, hold, |state| state.held = true);
            }
            Step::Release(which) => {
                let due = SystemTime::UNIX_EPOCH + Duration::from_secs(self.next.into());
                self.note(
                    *which,
                    |spool, id| spool.release(id, due),
                    |state| {
                        (state.due, state.held) = (Some(due), false);
                    },
                );
            }
            Step::Load(which) => self.load(*which).await,
            Step::Wait => tokio::time::sleep(Duration::from_millis(1100)).await,
            Step::Fail(on, fault) => self.disk.plan(*on, *fault),
            Step::Heal => self.disk.heal(),
            Step::Reopen => self.reopen().await,
            Step::Kill(calls) | Step::Cut(calls) => {
                self.cut = matches!(step, Step::Cut(_));
                self.disk.die_after(*calls);
            }
        }
        if self.disk.is_dead() {
            self.reopen().await;
        }
    }

    async fn store(&mut self, messages: &[(usize, Held)]) {
        self.disk.happened();
        let mut tasks = JoinSet::new();
        for (size, held) in messages {
            let serial = self.next;
            self.next += 1;
            let fate = match held {
                Held::No => Fate::Deliver,
                Held::Yes => Fate::Hold("odd".to_owned()),
            };
            let message = Message {
                size: *size,
                states: vec![],
            };
            self.messages.insert(serial, message);
            let (spool, content, held) = (self.spool.clone(), content(serial, *size), *held);
            tasks.spawn(async move {
                let stored = spool.store(id(serial), envelope(serial), content, fate);
                (serial, held, stored.await)
            });
        }
        let stored = tasks.join_all().await;
        let happened = self.disk.happened();
        if stored.iter().any(|(_, _, stored)| stored.is_ok()) {
            // What was noted before is written before.
            let messages = self.messages.values_mut();
            messages
                .for_each(|message| drop(message.states.drain(..message.states.len().max(1) - 1)));
        }
        for (serial, held, stored) in stored {
            match stored {
                Ok(()) => self
                    .messages
                    .get_mut(&serial)
                    .unwrap()
                    .states
                    .push(Some(State {
                        open: (0..RECIPIENTS).collect(),
                        attempts: 0,
                        due: None,
                        held: held == Held::Yes,
                    })),
                Err(error) => assert!(is_caused(&error, &happened), "{error:?} of {happened:?}"),
            }
        }
    }

    /// Picks one of the messages that are there.
    fn pick(&self, which: usize) -> Option<u32> {
        let there = self
            .messages
            .iter()
            .filter(|(_, message)| message.now().is_some());
        let there: Vec<_> = there.map(|(serial, _)| *serial).collect();
        (!there.is_empty()).then(|| there[which % there.len()])
    }

    fn note(
        &mut self,
        which: usize,
        tell: impl FnOnce(&Spool, SpoolId),
        change: impl FnOnce(&mut State),
    ) {
        let Some(serial) = self.pick(which) else {
            return;
        };
        tell(&self.spool, id(serial));
        let message = self.messages.get_mut(&serial).unwrap();
        let mut state = message.now().cloned().unwrap();
        change(&mut state);
        message
            .states
            .push((!state.open.is_empty()).then_some(state));
    }

    async fn load(&mut self, which: usize) {
        // Now and then one that is not there.
        let serial = match self.pick(which) {
            Some(serial) if !which.is_multiple_of(8) => serial,
            _ if self.next > 0 => which as u32 % self.next,
            _ => return,
        };
        self.disk.happened();
        let loaded = self.spool.load(id(serial)).await;
        let happened = self.disk.happened();
        let message = self.messages.get(&serial);
        match (loaded, message.and_then(Message::now)) {
            (Ok(arrival), Some(state)) => {
                assert_eq!(state_of(&arrival, Some(state)), *state);
                check(&arrival, message.unwrap().size);
            }
            (Err(Error::Unknown { .. }), None) => (),
            (Err(error), Some(_)) => {
                assert!(is_caused(&error, &happened), "{error:?} of {happened:?}");
            }
            (loaded, state) => panic!("{serial}: {loaded:?} of {state:?}"),
        }
    }

    /// Closes the spool if it lives, or lets it die; opens it and looks at all that is there.
    async fn reopen(&mut self) {
        self.disk.happened();
        within(self.spool.close()).await;
        assert!(within(self.arrivals.next()).await.is_none());
        let mut start = Start::AfterClose;
        loop {
            if !self.disk.happened().is_empty() {
                start = Start::AfterCrash;
            }
            if self.disk.is_dead() {
                start = Start::AfterCrash;
                if self.cut {
                    self.disk.cut_power();
                }
                self.disk.heal();
            }
            // What cannot be read at a start is reported, and missing: `fault_tests` looks into that.
            self.disk.unplan(On::Read);
            let opened = open_on(self.disk.clone(), self.directory, &config());
            if !self.disk.live_on() {
                if let Ok((spool, _)) = opened {
                    within(spool.close()).await;
                }
                continue;
            }
            let happened = self.disk.happened();
            match opened {
                Ok((spool, arrivals)) => {
                    within(spool.loaded()).await.unwrap();
                    (self.spool, self.arrivals) = (spool, arrivals);
                    break;
                }
                Err(error) => assert!(is_caused(&error, &happened), "{error:?} of {happened:?}"),
            }
        }
        self.compare(start).await;
    }

    /// Compares what is there with what has to be.
    async fn compare(&mut self, start: Start) {
        let count = locked(&self.spool.0.library.index).len();
        let mut found = BTreeMap::new();
        while found.len() < count {
            let arrival = within(self.arrivals.next()).await.unwrap();
            let serial = arrival.id.serial;
            assert!(arrival.id == id(serial), "never stored: {arrival:?}");
            let loaded = within(self.spool.load(arrival.id)).await;
            assert!(loaded.is_ok(), "{serial}: {loaded:?}");
            let loaded = Arrival {
                memory: None,
                ..loaded.unwrap()
            };
            let before = found.insert(serial, loaded);
            assert!(before.is_none(), "{serial} arrives twice");
        }
        let mut left = BTreeMap::new();
        for (serial, mut message) in std::mem::take(&mut self.messages) {
            let arrival = found.remove(&serial);
            if let Some(arrival) = &arrival {
                check(arrival, message.size);
            }
            match (start, &arrival, message.states.as_slice()) {
                // A refused one has come back whole, and stays.
                (_, Some(arrival), []) => {
                    assert_eq!(arrival.open.len(), RECIPIENTS, "{serial}");
                    message.states.push(Some(state_of(arrival, None)));
                }
                (_, None, []) => continue,
                (Start::AfterClose, _, [.., last]) => {
                    let state = arrival
                        .as_ref()
                        .map(|arrival| state_of(arrival, last.as_ref()));
                    assert_eq!(state, *last, "{serial} after a clean close");
                    message.states = vec![state];
                }
                (Start::AfterCrash, _, states) => {
                    let state = |wanted: &Option<State>| {
                        arrival
                            .as_ref()
                            .map(|arrival| state_of(arrival, wanted.as_ref()))
                    };
                    let known = states.iter().any(|wanted| state(wanted) == *wanted);
                    assert!(known, "{serial} after a crash: {arrival:?} of {states:?}");
                    let found = states.iter().find(|wanted| state(wanted) == **wanted);
                    message.states = vec![found.cloned().flatten()];
                }
            }
            if message.now().is_some() {
                left.insert(serial, message);
            }
        }
        assert!(
            found.is_empty(),
            "never stored, or finished: {:?}",
            found.keys()
        );
        self.messages = left;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// Its state, with no due time where the model has none.
fn state_of(arrival: &Arrival, wanted: Option<&State>) -> State {
    State {
        open: arrival.open.clone(),
        attempts: arrival.attempts,
        due: wanted.and_then(|wanted| wanted.due).map(|_| arrival.due),
        held: arrival.held,
    }
}

/// Checks that this is the message, octet for octet.
fn check(arrival: &Arrival, size: usize) {
    let serial = arrival.id.serial;
    assert_eq!(*arrival.envelope, envelope(serial));
    let octets = arrival.content.as_ref().unwrap().to_bytes();
    assert!(
        octets == content(serial, size).to_bytes(),
        "{serial} has other octets"
    );
}

/// Whether it is the right error for one of what happened.
fn is_caused(error: &Error, happened: &[Errno]) -> bool {
    match error {
        Error::Full { .. } => happened.contains(&Errno::ENOSPC),
        Error::Append { source, .. }
        | Error::Read { source, .. }
        | Error::Directory { source, .. } => {
            let number = source.raw_os_error().map(Errno::from_raw);
            number.is_some_and(|number| happened.contains(&number))
        }
        Error::Locked { .. }
        | Error::OtherVersion { .. }
        | Error::Outside { .. }
        | Error::Unknown { .. }
        | Error::Taken { .. }
        | Error::Damaged { .. }
        | Error::TooLarge
        | Error::Closed => false,
    }
}
