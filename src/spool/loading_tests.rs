//! The spool while what an earlier run left is still being read.

use std::fs;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use bytesize::ByteSize;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::mail::id::SessionId;
use crate::spool::Arrivals;
use crate::spool::Config;
use crate::spool::Error;
use crate::spool::Fate;
use crate::spool::Mark;
use crate::spool::Spool;
use crate::spool::digest;
use crate::spool::open;
use crate::spool::segment;

fn config() -> Config {
    Config {
        segment_size: ByteSize::kib(64),
        large_message: ByteSize::kib(8),
        waiting: ByteSize::kib(64),
        in_memory: ByteSize::mib(1),
        keep_free: ByteSize(0),
    }
}

fn id(session: u64, serial: u32) -> SpoolId {
    SpoolId {
        session: SessionId(session),
        serial,
    }
}

async fn store(spool: &Spool, id: SpoolId, size: usize) {
    let envelope = Envelope::new(
        ReversePath::Null,
        vec![Recipient::new(Address::parse("b@there.example").unwrap())],
    );
    let content = Content::from(Bytes::from(vec![b'x'; size]));
    let stored = spool.store(id, envelope, content, Fate::Deliver);
    stored.await.unwrap();
}

/// Which messages arrive next.
async fn next(arrivals: &mut Arrivals, count: usize) -> Vec<SpoolId> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let next = timeout(Duration::from_secs(20), arrivals.next());
        ids.push(next.await.expect("in time").expect("an arrival").id);
    }
    ids.sort_unstable();
    ids
}

/// Holds up who reads a segment, until it is dropped: a pipe in place of its digest.
struct Hurdle(PathBuf);

impl Hurdle {
    fn before(directory: &Path, generation: u32) -> Hurdle {
        let file = digest::path(&directory.join("segments"), generation);
        fs::remove_file(&file).unwrap();
        mkfifo(&file, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Hurdle(file)
    }
}

impl Drop for Hurdle {
    fn drop(&mut self) {
        File::options().write(true).open(&self.0).unwrap();
    }
}

/// A spool in which 100 messages of 2000 octets were left in the first segments, from an early
/// session and a late one, and a large one; and a large message's file that nothing names.
async fn left() -> TempDir {
    let directory = TempDir::new().unwrap();
    let (spool, _arrivals) = open(directory.path(), &config()).unwrap();
    store(&spool, id(9_000, 1), 2000).await;
    for serial in 1..100 {
        store(&spool, id(5, serial), 2000).await;
    }
    store(&spool, id(5, 100), 20_000).await;
    spool.close().await;
    fs::write(orphan(directory.path()), "left by a crash").unwrap();
    directory
}

fn orphan(directory: &Path) -> PathBuf {
    directory.join("large").join(id(6, 6).to_string())
}

#[tokio::test]
async fn mail_is_taken_and_handed_over_before_the_queue_is_loaded() {
    let directory = left().await;
    let hurdle = Hurdle::before(directory.path(), 1);
    let (spool, mut arrivals) = open(directory.path(), &config()).unwrap();
    // Above the highest id, which stands in a segment that nobody has read.
    let session = spool.clock().next(SystemTime::UNIX_EPOCH);
    assert_eq!(session, SessionId(9_001));
    store(&spool, id(9_001, 1), 2000).await;
    store(&spool, id(9_001, 2), 20_000).await;
    let new = [id(9_001, 1), id(9_001, 2)];
    assert_eq!(next(&mut arrivals, 2).await, new);
    assert!(matches!(
        spool.load(id(5, 1)).await,
        Err(Error::Unknown { .. })
    ));
    // What is said of a message that is not known yet says nothing.
    spool.mark(id(5, 1), vec![(0, Mark::Delivered)]);
    spool.defer(id(5, 1), SystemTime::now(), 7);
    spool.hold(id(5, 2), "odd".into());
    spool.mark(id(9_001, 1), vec![(0, Mark::Delivered)]);
    let early = timeout(Duration::from_millis(50), spool.loaded()).await;
    assert!(early.is_err() && orphan(directory.path()).exists());

    drop(hurdle);
    spool.loaded().await.unwrap();
    let mut old: Vec<_> = (1..=100).map(|serial| id(5, serial)).collect();
    old.push(id(9_000, 1));
    assert_eq!(next(&mut arrivals, 101).await, old);
    assert!(!orphan(directory.path()).exists());
    for id in old.into_iter().chain([id(9_001, 2)]) {
        let loaded = spool.load(id).await.unwrap();
        assert!(!loaded.held && loaded.attempts == 0, "{id}");
        spool.mark(id, vec![(0, Mark::Delivered)]);
    }
    spool.close().await;
    let (spool, _arrivals) = open(directory.path(), &config()).unwrap();
    spool.loaded().await.unwrap();
    assert_eq!(locked(&spool.0.library.index).len(), 0);
}

#[tokio::test]
async fn nothing_is_taken_back_before_the_queue_is_loaded() {
    let directory = left().await;
    let segments = directory.path().join("segments");
    let hurdle = Hurdle::before(directory.path(), 1);
    let (spool, mut arrivals) = open(directory.path(), &config()).unwrap();
    for serial in 0..200 {
        store(&spool, id(10_000, serial), 2000).await;
        let arrived = next(&mut arrivals, 1).await;
        spool.mark(arrived[0], vec![(0, Mark::Delivered)]);
    }
    assert!(segment::path(&segments, 5).exists());
    drop(hurdle);
    for id in next(&mut arrivals, 101).await {
        spool.mark(id, vec![(0, Mark::Delivered)]);
    }
    store(&spool, id(10_001, 0), 2000).await;
    let gone = async {
        while (1..=5).any(|generation| segment::path(&segments, generation).exists()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.unwrap();
    let digests = (1..=5).filter(|generation| digest::path(&segments, *generation).exists());
    assert_eq!(digests.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_while_the_queue_loads_lets_go_when_nobody_reads_any_longer() {
    let directory = left().await;
    let hurdle = Hurdle::before(directory.path(), 1);
    let (spool, mut arrivals) = open(directory.path(), &config()).unwrap();
    store(&spool, id(9_001, 1), 2000).await;
    let mut closing = Box::pin(spool.close());
    let early = timeout(Duration::from_millis(50), &mut closing).await;
    assert!(early.is_err());
    let refused = open(directory.path(), &config()).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }), "{refused}");
    drop(hurdle);
    closing.await;
    assert!(matches!(spool.loaded().await, Err(Error::Closed)));
    assert!(arrivals.next().await.is_none());
    // It did not come to that.
    assert!(orphan(directory.path()).exists());

    let (_spool, mut arrivals) = open(directory.path(), &config()).unwrap();
    assert_eq!(next(&mut arrivals, 102).await.len(), 102);
}
