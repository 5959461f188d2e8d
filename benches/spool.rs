//! How many messages a second become durable: tasks that store 4 KiB each, one after the other,
//! while another takes what arrives and marks it as delivered.
//!
//! `cargo bench --bench spool`; the disk that is measured is the one with the target directory.

#![expect(clippy::expect_used, reason = "a bench that cannot run stops")]

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
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
    divan::main();
}

const MESSAGES: usize = 20_000;

fn envelope() -> Envelope {
    let address = |text| Address::parse(text).expect("an address");
    Envelope {
        from: ReversePath::Address(address("sender@here.example")),
        recipients: vec![Recipient::new(address("recipient@there.example"))],
        body: Body::EightBitMime,
        smtputf8: false,
        ret: None,
        envid: None,
        client: None,
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
