//! A large queue for a next hop that is away: what a message in it costs in memory, over all of the
//! gateway, how long a start with it takes to the first greeting, and what mail for another next hop loses
//! beside it.
//!
//! Each message is of a session of its own, which is what costs most. Those that are due wait for
//! their destination, those that were deferred for a time. The gateway was stopped before, and its
//! files are in the page cache.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use anyhow::Result;
use bytes::Bytes;
use gatepost::mail::address::Address;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Body;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::id::SpoolId;
use gatepost::spool;
use gatepost::spool::Fate;
use gatepost::spool::Spool;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::client::HONEST;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::gateway::UNCHECKED;
use crate::nameserver::Nameserver;
use crate::sending::CLIENT;
use crate::sending::Connection;
use crate::sending::SENDER;
use crate::sending::Sending;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Unit;
use crate::wait;
use crate::wait::LONG;

/// Octets of a message.
const SMALL: usize = 300;

/// Who is not reached.
const AWAY: &str = "user@away.example";

/// How many are stored at once.
const TASKS: usize = 256;

/// When those that were deferred are due.
const LATER: Duration = Duration::from_secs(24 * 3600);

/// The most octets that a message may cost.
const MOST: f64 = 100.0;

/// The most milliseconds until the first greeting.
const SOON: f64 = 1000.0;

/// Memory that does not change for so long has settled: what was freed is given back within ten
/// seconds.
const SETTLED: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy)]
enum State {
    Due,
    Deferred,
}

/// What came through, a second.
struct Rates {
    accepted: f64,
    delivered: f64,
}

/// What a start showed.
struct Start {
    /// Milliseconds.
    greeting: f64,
    /// Octets.
    memory: f64,
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let mut lines = Vec::new();
    for (state, name, sizes) in [
        (State::Due, "due", &[200_000, 1_000_000][..]),
        (State::Deferred, "deferred", &[1_000_000]),
    ] {
        let sink = Sink::start(setting, Kind::CountingLmtp)?;
        let mut gateway = start_away(setting, &dns, &sink)?;
        drop(Client::hello(gateway.smtp, HONEST, CLIENT)?);
        let empty = settled(&gateway)?;
        let mut queued = 0;
        for size in sizes {
            let size = setting.options.number(*size);
            gateway.stop();
            fill(&gateway.spool(), size - queued, state)?;
            queued = size;
            let starts = rounds(setting.options.few_rounds(), || start(&mut gateway))?;
            lines.extend(show(&format!("{size} {name}"), size, empty, &starts));
        }
        match state {
            State::Due => {}
            State::Deferred => {
                let beside = beside(setting, &dns, (&gateway, &sink))?;
                lines.extend(show_beside(&format!("beside {queued} {name}"), &beside));
            }
        }
    }
    Ok(lines)
}

/// A gateway that delivers its own mail to the sink, and whose other next hop is away.
fn start_away(setting: &Setting, dns: &Nameserver, sink: &Sink) -> Result<Gateway> {
    let sections = format!(
        "{UNCHECKED}[domains.\"away.example\"]\ndeliver = \"lmtp:{}\"\nrecipients = \"any\"\n",
        wait::free_address()?
    );
    let config = Config::new(sink.target(), dns.address, &sections);
    Gateway::start(setting, &config)
}

/// What comes through beside the queue, and through a gateway with an empty one.
fn beside(
    setting: &Setting,
    dns: &Nameserver,
    full: (&Gateway, &Sink),
) -> Result<Vec<(Rates, Rates)>> {
    let sink = Sink::start(setting, Kind::CountingLmtp)?;
    let empty = start_away(setting, dns, &sink)?;
    let sending = Sending {
        connections: 16,
        connection: Connection::Reused,
        messages: setting.options.number(20_000),
        file: None,
    };
    let send = |(gateway, sink): (&Gateway, &Sink)| -> Result<Rates> {
        let before = sink.count()?;
        let began = Instant::now();
        let accepted = sending.run(gateway.smtp, Kind::Smtp)?;
        let delivered = sink.wait_for(before + sending.messages as u64, LONG)? - began;
        Ok(Rates {
            accepted: sending.rate(accepted),
            delivered: sending.rate(delivered),
        })
    };
    rounds(setting.options.few_rounds(), || {
        Ok((send(full)?, send((&empty, &sink))?))
    })
}

fn show_beside(what: &str, rates: &[(Rates, Rates)]) -> [Line; 2] {
    let line = |verb: &str, rate: fn(&Rates) -> f64| {
        Line::new(
            format!("{what}, {verb}"),
            Unit::PerSecond,
            ("an empty queue", Bound::AtLeast(0.9)),
            rates.iter().map(|(full, empty)| (rate(full), rate(empty))),
        )
    };
    [
        line("accepted", |rates| rates.accepted),
        line("delivered", |rates| rates.delivered),
    ]
}

fn show(what: &str, size: usize, empty: f64, starts: &[Start]) -> [Line; 2] {
    let each = |start: &Start| ((start.memory - empty) / size as f64, MOST);
    let greeting = |start: &Start| (start.greeting, SOON);
    [
        Line::new(
            format!("{what}, memory of each"),
            Unit::Octets,
            (format!("{MOST} octets"), Bound::AtMost(1.0)),
            starts.iter().map(each),
        ),
        Line::new(
            format!("{what}, from the start to the greeting"),
            Unit::Milliseconds,
            ("one second", Bound::AtMost(1.0)),
            starts.iter().map(greeting),
        ),
    ]
}

fn start(gateway: &mut Gateway) -> Result<Start> {
    gateway.stop();
    let began = Instant::now();
    gateway.restart()?;
    let client = Client::hello(gateway.smtp, HONEST, CLIENT)?;
    let greeting = began.elapsed().as_secs_f64() * 1000.0;
    drop(client);
    let memory = settled(gateway)?;
    Ok(Start { greeting, memory })
}

/// Octets, once they do not change any more.
fn settled(gateway: &Gateway) -> Result<f64> {
    let (mut memory, mut since) = (0.0, Instant::now());
    wait::until(LONG, "memory that does not change", || {
        wait::pause(Duration::from_millis(500))?;
        let now = gateway.anonymous_memory()?;
        if (now - memory).abs() > 0.01 * memory {
            (memory, since) = (now, Instant::now());
        }
        Ok((since.elapsed() >= SETTLED).then_some(now))
    })
}

/// Queues so many more messages, in a process without a gateway.
fn fill(directory: &Path, count: usize, state: State) -> Result<()> {
    let runtime = Runtime::new()?;
    let config = spool::Config::default();
    let (spool, arrivals) = runtime.block_on(async { spool::open(directory, &config) })?;
    drop(arrivals);
    let content = Content::from(Bytes::from(vec![b'x'; SMALL]));
    let mut storing = JoinSet::new();
    for task in 0..TASKS {
        let many = (task..count).step_by(TASKS).len();
        let store = store(spool.clone(), content.clone(), many, state);
        storing.spawn_on(store, runtime.handle());
    }
    let stored = runtime.block_on(storing.join_all());
    runtime.block_on(spool.close());
    stored.into_iter().collect()
}

async fn store(spool: Spool, content: Content, count: usize, state: State) -> Result<()> {
    let envelope = Envelope {
        body: Body::EightBitMime,
        ..Envelope::new(
            ReversePath::Address(Address::parse(SENDER)?),
            vec![Recipient::new(Address::parse(AWAY)?)],
        )
    };
    for _ in 0..count {
        let session = spool.clock().next(SystemTime::now());
        let id = SpoolId { session, serial: 1 };
        let stored = spool.store(id, envelope.clone(), content.clone(), Fate::Deliver);
        stored.await?;
        match state {
            State::Due => {}
            State::Deferred => spool.defer(id, SystemTime::now() + LATER, 1),
        }
    }
    Ok(())
}
