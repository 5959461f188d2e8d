//! The log's own rate: the spool of the gateway alone, in this process, without any SMTP.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
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
use gatepost::spool::Mark;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::sending::RECIPIENT;
use crate::sending::SENDER;
use crate::sending::SIZE;
use crate::setting::Setting;

/// Messages a second: so many tasks store one after the other, while another takes what arrives and
/// marks it as delivered.
pub(crate) fn rate(setting: &Setting, tasks: usize, messages: usize) -> Result<f64> {
    let folder = setting.folder("log")?;
    let runtime = Runtime::new()?;
    let config = spool::Config::default();
    let (spool, mut arrivals) = runtime.block_on(async { spool::open(&folder, &config) })?;
    let session = spool.clock().next(SystemTime::now());
    let serial = Arc::new(AtomicU32::new(0));
    let envelope = Envelope {
        body: Body::EightBitMime,
        ..Envelope::new(
            ReversePath::Address(Address::parse(SENDER)?),
            vec![Recipient::new(Address::parse(RECIPIENT)?)],
        )
    };
    let content = Content::from(Bytes::from(vec![b'x'; SIZE]));
    let mut outlet = JoinSet::new();
    let marking = spool.clone();
    let marks = async move {
        while let Some(arrival) = arrivals.next().await {
            marking.mark(arrival.id, vec![(0, Mark::Delivered)]);
        }
    };
    outlet.spawn_on(marks, runtime.handle());
    let each = messages.div_ceil(tasks);
    let began = Instant::now();
    let mut storing = JoinSet::new();
    for _ in 0..tasks {
        let (spool, serial) = (spool.clone(), Arc::clone(&serial));
        let (envelope, content) = (envelope.clone(), content.clone());
        let store = async move {
            for _ in 0..each {
                let serial = serial.fetch_add(1, Ordering::Relaxed);
                let id = SpoolId { session, serial };
                let stored = spool.store(id, envelope.clone(), content.clone(), Fate::Deliver);
                stored.await?;
            }
            Ok::<(), spool::Error>(())
        };
        storing.spawn_on(store, runtime.handle());
    }
    let results = runtime.block_on(storing.join_all());
    let took = began.elapsed();
    runtime.block_on(spool.close());
    results.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok((each * tasks) as f64 / took.as_secs_f64())
}
