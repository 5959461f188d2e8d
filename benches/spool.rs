//! How many messages a second become durable: tasks that store 4 KiB each, one after the other,
//! while another takes what arrives and marks it as delivered.
//!
//! `cargo bench --bench spool`; the disk that is measured is the one with the target directory.
//!
//! `cargo bench --bench spool -- restart` queues a million small messages there (a GiB), and measures
//! how long a start takes beside a plain read of the same messages' envelopes, one `pread` each in
//! the order of the log, and what a queued message takes in memory. All of it from the page cache.

#![expect(clippy::expect_used, reason = "a bench that cannot run stops")]

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
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
use gatepost::spool::Fate;
use gatepost::spool::Mark;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let after = |word| arguments.iter().skip_while(move |a| *a != word);
    if let Some(directory) = after("fill").nth(1) {
        fill(Path::new(directory));
    } else if after("restart").next().is_some() {
        restart();
    } else {
        divan::main();
    }
}

const MESSAGES: usize = 20_000;

fn envelope() -> Envelope {
    let address = |text| Address::parse(text).expect("an address");
    Envelope {
        body: Body::EightBitMime,
        ..Envelope::new(
            ReversePath::Address(address("sender@here.example")),
            vec![Recipient::new(address("recipient@there.example"))],
        )
    }
}

#[divan::bench(args = [(1, 4096), (16, 4096), (128, 4096), (16, 65_536)], sample_count = 7, sample_size = 1)]
fn durable(bencher: Bencher<'_, '_>, (tasks, size): (usize, usize)) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let runtime = Runtime::new().expect("a runtime");
    let config = spool::Config::default();
    let opened = runtime.block_on(async { spool::open(directory.path(), &config) });
    let (spool, mut arrivals) = opened.expect("a spool");
    let session = spool.clock().next(SystemTime::now());
    let serial = Arc::new(AtomicU32::new(0));
    let content = Content::from(Bytes::from(vec![b'x'; size]));
    let mut outlet = JoinSet::new();
    let marking = spool.clone();
    outlet.spawn_on(
        async move {
            while let Some(arrival) = arrivals.next().await {
                marking.mark(arrival.id, vec![(0, Mark::Delivered)]);
            }
        },
        runtime.handle(),
    );
    let each = (if tasks == 1 { MESSAGES / 10 } else { MESSAGES }) / tasks * 4096 / size;
    bencher
        .counter(ItemsCount::new(each * tasks))
        .bench_local(|| {
            let mut storing = JoinSet::new();
            for _ in 0..tasks {
                let (spool, serial, content) = (spool.clone(), serial.clone(), content.clone());
                storing.spawn_on(
                    async move {
                        for _ in 0..each {
                            let serial = serial.fetch_add(1, Ordering::Relaxed);
                            let id = SpoolId { session, serial };
                            let stored =
                                spool.store(id, envelope(), content.clone(), Fate::Deliver);
                            stored.await.expect("stored");
                        }
                    },
                    runtime.handle(),
                );
            }
            runtime.block_on(storing.join_all());
        });
    runtime.block_on(spool.close());
}

/// Messages that are queued when the spool is opened.
const QUEUED: u32 = 1_000_000;
/// The size of each.
const SMALL: usize = 300;
const TASKS: u32 = 256;
const ROUNDS: usize = 5;

/// Queues messages, and ends as a crash would.
fn fill(directory: &Path) {
    let runtime = Runtime::new().expect("a runtime");
    let config = spool::Config::default();
    let (spool, arrivals) = runtime
        .block_on(async { spool::open(directory, &config) })
        .expect("a spool");
    let content = Content::from(Bytes::from(vec![b'x'; SMALL]));
    let mut storing = JoinSet::new();
    for task in 0..TASKS {
        let (spool, content) = (spool.clone(), content.clone());
        storing.spawn_on(
            async move {
                for _ in (task..QUEUED).step_by(TASKS as usize) {
                    // One message a session, which is what costs most.
                    let session = spool.clock().next(SystemTime::now());
                    let id = SpoolId { session, serial: 1 };
                    let stored = spool.store(id, envelope(), content.clone(), Fate::Deliver);
                    stored.await.expect("stored");
                }
            },
            runtime.handle(),
        );
    }
    runtime.block_on(storing.join_all());
    drop(arrivals);
    std::process::exit(0);
}

fn restart() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let program = std::env::current_exe().expect("this program");
    let filled = Command::new(program)
        .arg("fill")
        .arg(directory.path())
        .status();
    assert!(filled.expect("a second process").success(), "not filled");

    println!("{QUEUED} messages of {SMALL} octets, times in milliseconds");
    println!("| after | open | loaded | plain read | loaded / plain read |");
    println!("| --- | --- | --- | --- | --- |");
    let mut memory = Vec::new();
    for round in 0..ROUNDS {
        let plain = plain_read(&directory.path().join("segments"));
        let before = resident();
        let runtime = Runtime::new().expect("a runtime");
        let began = Instant::now();
        let (spool, mut arrivals) = runtime
            .block_on(async { spool::open(directory.path(), &spool::Config::default()) })
            .expect("a spool");
        let opened = began.elapsed();
        runtime.block_on(spool.loaded()).expect("loaded");
        let loaded = began.elapsed();
        memory.push(per_message(before));
        if round == 0 {
            runtime.block_on(async {
                for _ in 0..QUEUED {
                    arrivals.next().await.expect("an arrival");
                }
            });
            memory.push(per_message(before));
        }
        runtime.block_on(spool.close());
        println!(
            "| {} | {} | {} | {} | {:.2} |",
            if round == 0 { "a crash" } else { "a stop" },
            opened.as_millis(),
            loaded.as_millis(),
            plain.as_millis(),
            loaded.as_secs_f64() / plain.as_secs_f64(),
        );
    }
    println!("memory a queued message: {} octets loaded,", memory[0]);
    println!("{} when each was handed over and let go", memory[1]);
}

/// Reads the front of each message, and finds the next by what it says of its length.
fn plain_read(segments: &Path) -> Duration {
    let began = Instant::now();
    let mut read = 0;
    for entry in fs::read_dir(segments).expect("segments") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some() {
            continue;
        }
        let file = File::open(path).expect("a segment");
        let mut front = [0; 512];
        let mut at = 8192;
        while file.read_at(&mut front, at).expect("a record") > 48 && front.starts_with(b"GPrc") {
            let length = |at: usize| {
                let octets = front[at..].first_chunk().expect("a length");
                u64::from(u32::from_le_bytes(*octets))
            };
            at += (48 + length(36) + length(40)).next_multiple_of(8);
            read += 1;
        }
    }
    assert_eq!(read, QUEUED, "all of the log is read");
    began.elapsed()
}

/// Octets of our own in memory.
fn resident() -> i64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: Vec<i64> = pages.split(' ').map_while(|n| n.parse().ok()).collect();
    (pages[1] - pages[2]) * 4096
}

fn per_message(before: i64) -> i64 {
    (resident() - before) / i64::from(QUEUED)
}
