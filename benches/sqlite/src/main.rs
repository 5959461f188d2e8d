//! The spool's log beside SQLite, under the same queue and the same group commit: how many messages a
//! second become durable, while another task takes what arrives and marks it as delivered.
//!
//! `cargo run --release -p beside-sqlite`; the disk that is measured is the one with the target
//! directory, or the one with the directory that is given. Both take turns, and what counts is the
//! median of the rounds and of their ratios, so that whatever else the machine does falls on both.

mod log;

use std::error::Error;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use gatepost::mail::address::Address;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Body;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::id::SpoolId;
use gatepost::spool;
use gatepost::spool::Arrivals;
use gatepost::spool::Fate;
use gatepost::spool::Mark;
use gatepost::spool::Spool;

use log::SqliteLog;

/// How many times as fast our log is to be at each point.
const AT_LEAST: f64 = 1.3;
const ROUNDS: usize = 11;
/// How long a round takes at least, and how many messages are stored to find out.
const ROUND: Duration = Duration::from_millis(400);

fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args_os().nth(1).map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")),
        PathBuf::from,
    );
    println!("durable messages a second, median of {ROUNDS} rounds (lowest to highest)\n");
    println!("writers    size                    segments             SQLite WAL/FULL   ratio");
    let mut short = 0;
    for size in [4096, 65_536] {
        for writers in [1, 16, 128] {
            let ratio = measure(&place, writers, size)?;
            short += usize::from(ratio < AT_LEAST);
        }
    }
    println!("\n{short} of 6 points are below {AT_LEAST}");
    Ok(())
}

/// Measures both at one point, prints the line, gives the ratio.
fn measure(place: &Path, writers: usize, size: usize) -> Result<f64, Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let config = spool::Config::default();
    let (ours_at, theirs_at) = (TempDir::new_in(place)?, TempDir::new_in(place)?);
    let opened = runtime.block_on(async { spool::open(ours_at.path(), &config) });
    let mut ours = Side::new(&runtime, opened?)?;
    let (log, reader) = SqliteLog::create(theirs_at.path())?;
    let opened = runtime
        .block_on(async { spool::open_over(Box::new(log), reader, theirs_at.path(), &config) });
    let mut theirs = Side::new(&runtime, opened?)?;

    let content = Content::from(Bytes::from(vec![b'x'; size]));
    for side in [&mut ours, &mut theirs] {
        side.warm_up(&runtime, writers, &content)?;
    }
    for round in 0..ROUNDS {
        let mut sides = [&mut ours, &mut theirs];
        if round % 2 == 1 {
            sides.reverse();
        }
        for side in sides {
            side.round(&runtime, writers, &content)?;
        }
    }
    let rounds = ours.rates.iter().zip(&theirs.rates);
    let ratio = Rates::of(rounds.map(|(ours, theirs)| ours / theirs)).median;
    let (ours, theirs) = (ours.end(&runtime), theirs.end(&runtime));
    println!(
        "{writers:>7} {:>3} KiB {ours} {theirs} {ratio:>7.2}",
        size / 1024
    );
    Ok(ratio)
}

/// One of the two.
struct Side {
    spool: Spool,
    _outlet: JoinSet<()>,
    serial: Arc<AtomicU32>,
    /// Messages a writer and round.
    each: usize,
    rates: Vec<f64>,
}

impl Side {
    fn new(runtime: &Runtime, opened: (Spool, Arrivals)) -> Result<Side, Box<dyn Error>> {
        let (spool, mut arrivals) = opened;
        let mut outlet = JoinSet::new();
        let marking = spool.clone();
        let marks = async move {
            while let Some(arrival) = arrivals.next().await {
                marking.mark(arrival.id, vec![(0, Mark::Delivered)]);
            }
        };
        outlet.spawn_on(marks, runtime.handle());
        Ok(Side {
            spool,
            _outlet: outlet,
            serial: Arc::default(),
            each: 1,
            rates: Vec::new(),
        })
    }

    /// Finds out how many messages a round needs, which also makes files and caches warm.
    fn warm_up(
        &mut self,
        runtime: &Runtime,
        writers: usize,
        content: &Content,
    ) -> Result<(), Box<dyn Error>> {
        while self.run(runtime, writers, content)? < ROUND {
            self.each *= 2;
        }
        Ok(())
    }

    fn round(
        &mut self,
        runtime: &Runtime,
        writers: usize,
        content: &Content,
    ) -> Result<(), Box<dyn Error>> {
        let took = self.run(runtime, writers, content)?;
        self.rates
            .push((self.each * writers) as f64 / took.as_secs_f64());
        Ok(())
    }

    fn run(
        &self,
        runtime: &Runtime,
        writers: usize,
        content: &Content,
    ) -> Result<Duration, Box<dyn Error>> {
        let session = self.spool.clock().next(SystemTime::now());
        let envelope = envelope()?;
        let began = Instant::now();
        let mut storing = JoinSet::new();
        for _ in 0..writers {
            let (spool, serial) = (self.spool.clone(), Arc::clone(&self.serial));
            let (envelope, content, each) = (envelope.clone(), content.clone(), self.each);
            let store = async move {
                for _ in 0..each {
                    let serial = serial.fetch_add(1, Ordering::Relaxed);
                    let id = SpoolId { session, serial };
                    spool
                        .store(id, envelope.clone(), content.clone(), Fate::Deliver)
                        .await?;
                }
                Ok::<(), spool::Error>(())
            };
            storing.spawn_on(store, runtime.handle());
        }
        for stored in runtime.block_on(storing.join_all()) {
            stored?;
        }
        Ok(began.elapsed())
    }

    fn end(self, runtime: &Runtime) -> Rates {
        runtime.block_on(self.spool.close());
        Rates::of(self.rates)
    }
}

/// Messages a second.
struct Rates {
    lowest: f64,
    median: f64,
    highest: f64,
}

impl Rates {
    /// Of all rounds.
    fn of(rates: impl IntoIterator<Item = f64>) -> Rates {
        let mut rates: Vec<f64> = rates.into_iter().collect();
        rates.sort_by(f64::total_cmp);
        Rates {
            lowest: rates[0],
            median: rates[ROUNDS / 2],
            highest: rates[ROUNDS - 1],
        }
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = format!("({:.0} to {:.0})", self.lowest, self.highest);
        write!(f, "{:>10.0} {range:<18}", self.median)
    }
}

fn envelope() -> Result<Envelope, Box<dyn Error>> {
    let sender = Address::parse("sender@here.example")?;
    Ok(Envelope {
        body: Body::EightBitMime,
        ..Envelope::new(
            ReversePath::Address(sender),
            vec![Recipient::new(Address::parse("recipient@there.example")?)],
        )
    })
}
