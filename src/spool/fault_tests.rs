//! What the spool does when the disk fails, one case a test.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use nix::errno::Errno;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::Disk;
use super::Error;
use super::open_on;
use super::tests::content;
use super::tests::crash;
use super::tests::files;
use super::tests::finish;
use super::tests::id;
use super::tests::left;
use super::tests::next;
use super::tests::open_loaded;
use super::tests::small;
use super::tests::store;
use crate::spool::faults::Fault;
use crate::spool::faults::On;
use crate::spool::index::locked;

const PASSES: Fault = Fault::Late(Duration::ZERO);

/// A directory where a sync costs nothing: the tests here sync by the thousand.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .unwrap()
}

/// The generation of the newest segment.
fn newest(directory: &Path) -> u32 {
    let names = fs::read_dir(directory.join("segments")).unwrap();
    let names = names.map(|name| name.unwrap().file_name());
    let generations = names.filter_map(|name| name.to_str()?.parse().ok());
    generations.max().unwrap()
}

#[tokio::test]
async fn a_failed_sync_fails_its_whole_batch_and_the_segment_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _arrivals) = open_loaded(disk.clone(), directory.path(), &small()).await;
    disk.calls();
    // While the first is synced, the others come together.
    disk.plan(On::Sync, Fault::Late(Duration::from_millis(300)));
    disk.fail_next(On::Sync, Errno::EIO);
    let mut tasks = JoinSet::new();
    for serial in 1..=5 {
        let spool = spool.clone();
        tasks.spawn(async move { (serial, store(&spool, serial, 100).await) });
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (serial, stored) in tasks.join_all().await {
        assert_eq!(stored.is_ok(), serial == 1, "{serial}: {stored:?}");
    }
    // The failed sync is not made again: what follows is the digest of the old segment, and a new one.
    let calls = [
        On::Write,
        On::Sync,
        On::Write,
        On::Sync,
        On::Create,
        On::Write,
        On::Create,
        On::Allocate,
        On::Write,
        On::Sync,
        On::Rename,
        On::SyncDirectory,
    ];
    assert_eq!(disk.calls(), calls);
    let retired = directory.path().join("segments/0000000001");
    let before = fs::read(&retired).unwrap();
    store(&spool, 6, 100).await.unwrap();
    assert!(fs::read(&retired).unwrap() == before);
    assert_eq!(newest(directory.path()), 2);
    let left = left(crash(directory.path()).path()).await;
    assert!(left.keys().eq([&id(1), &id(6)]), "{:?}", left.keys());
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing_half_written() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _arrivals) = open_loaded(disk.clone(), directory.path(), &small()).await;
    for (size, on) in [
        (100, On::Write),
        (50_000, On::Create),
        (50_000, On::Write),
        (50_000, On::Sync),
    ] {
        disk.fail_next(on, Errno::ENOSPC);
        let full = store(&spool, 1, size).await;
        assert!(matches!(full, Err(Error::Full { .. })), "{on:?}: {full:?}");
        assert_eq!(files(&directory.path().join("large")), 0, "{on:?}");
    }
    // No segment can be begun: not an octet is written.
    let mut serial = 2;
    while newest(directory.path()) < 3 {
        store(&spool, serial, 4000).await.unwrap();
        serial += 1;
    }
    (0..9).for_each(|_| disk.fail_next(On::Allocate, Errno::ENOSPC));
    while store(&spool, serial, 4000).await.is_ok() {
        serial += 1;
    }
    disk.calls();
    let full = store(&spool, serial, 4000).await;
    assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
    assert!(!disk.calls().contains(&On::Write));
    disk.heal();
    spool.close().await;
    let left = left(directory.path()).await;
    assert!(left.keys().map(|id| id.serial).eq(2..serial));
}

#[tokio::test]
async fn a_spool_with_too_little_room_asks_the_disk_for_nothing() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let config = super::Config {
        keep_free: bytesize::ByteSize::pib(1),
        ..small()
    };
    let (spool, _arrivals) = open_loaded(disk.clone(), directory.path(), &config).await;
    disk.calls();
    for size in [10, 50_000] {
        let full = store(&spool, 1, size).await;
        assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
    }
    assert_eq!(disk.calls(), []);
}

#[tokio::test]
async fn an_older_or_a_newer_format_is_told_and_nothing_is_touched() {
    for version in [0, 2, 7] {
        let directory = TempDir::new().unwrap();
        let (spool, _) = open_loaded(Disk::default(), directory.path(), &small()).await;
        store(&spool, 1, 10).await.unwrap();
        spool.close().await;
        let file = directory.path().join("segments/0000000001");
        let mut segment = fs::read(&file).unwrap();
        for at in [0, 4096] {
            let head = &mut segment[at..at + 64];
            head[8] = version;
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..12]), &head[16..]);
            head[12..16].copy_from_slice(&checksum.to_le_bytes());
        }
        fs::write(&file, &segment).unwrap();
        match open_on(Disk::default(), directory.path(), &small()) {
            Err(Error::OtherVersion { found, .. }) => assert_eq!(found, u32::from(version)),
            other => panic!("{version}: {other:?}"),
        }
        assert_eq!(files(&directory.path().join("segments")), 1);
        assert!(fs::read(&file).unwrap() == segment, "{version}");
        // Both heads broken: a report and a start.
        (segment[0], segment[4096]) = (b'?', b'?');
        fs::write(&file, &segment).unwrap();
        open_loaded(Disk::default(), directory.path(), &small()).await;
    }
}

#[tokio::test]
async fn a_write_that_ends_early_is_continued() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _arrivals) = open_loaded(disk.clone(), directory.path(), &small()).await;
    for (serial, size) in [(1, 3000), (2, 50_000)] {
        for octets in [1, 47, 48, 700] {
            disk.plan(On::Write, Fault::Short(octets));
        }
        store(&spool, serial, size).await.unwrap();
    }
    // One that fails on its way leaves nothing.
    disk.plan(On::Write, Fault::Short(700));
    disk.fail_next(On::Write, Errno::EIO);
    assert!(store(&spool, 3, 3000).await.is_err());
    let left = left(crash(directory.path()).path()).await;
    assert!(left.keys().eq([&id(1), &id(2)]));
    for (serial, size) in [(1, 3000), (2, 50_000)] {
        let octets = left[&id(serial)].content.as_ref().unwrap().to_bytes();
        assert!(octets == content(serial, size).to_bytes());
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_read_now_is_copied_later_and_not_lost() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _arrivals) = open_loaded(disk.clone(), directory.path(), &small()).await;
    store(&spool, 0, 500).await.unwrap();
    disk.fail_next(On::Read, Errno::EIO);
    for serial in 1..300 {
        store(&spool, serial, 2000).await.unwrap();
        finish(&spool, serial);
    }
    let tried = disk.happened();
    assert_eq!(tried, [Errno::EIO], "it was to be copied");
    spool.load(id(0)).await.unwrap();
    spool.close().await;
    assert!(left(directory.path()).await.keys().eq([&id(0)]));
}

#[tokio::test]
async fn a_message_that_cannot_be_read_now_arrives_later() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _) = open_loaded(disk.clone(), directory.path(), &small()).await;
    for serial in 1..=3 {
        store(&spool, serial, 10).await.unwrap();
    }
    spool.close().await;
    let (_spool, mut arrivals) = open_loaded(disk.clone(), directory.path(), &small()).await;
    arrivals.again = Duration::from_millis(50);
    disk.fail_next(On::Read, Errno::EIO);
    let mut serials = Vec::new();
    for _ in 1..=3 {
        serials.push(next(&mut arrivals).await.id.serial);
    }
    assert_eq!(serials, [2, 3, 1]);
}

#[tokio::test]
async fn new_mail_does_not_wait_while_old_is_read_nor_old_while_new_comes() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _) = open_loaded(disk.clone(), directory.path(), &small()).await;
    store(&spool, 1, 10).await.unwrap();
    spool.close().await;
    let (spool, mut arrivals) = open_loaded(disk.clone(), directory.path(), &small()).await;
    disk.plan(On::Read, Fault::Late(Duration::from_millis(500)));
    for serial in 2.. {
        store(&spool, serial, 10).await.unwrap();
        match next(&mut arrivals).await.id.serial {
            1 => {
                assert!(serial > 2, "nothing came meanwhile");
                return;
            }
            new => assert_eq!(new, serial),
        }
    }
}

/// The first so many reads of a start are made as if there were no fault.
fn fail_reads_after(disk: &Disk, reads: usize, failing: usize) {
    (0..reads).for_each(|_| disk.plan(On::Read, PASSES));
    (0..failing).for_each(|_| disk.fail_next(On::Read, Errno::EIO));
}

#[tokio::test]
async fn a_read_that_fails_once_at_a_start_loses_nothing() {
    let directory = in_memory();
    let (crashing, _) = open_loaded(Disk::default(), directory.path(), &small()).await;
    for serial in 0..60 {
        store(&crashing, serial, 2000).await.unwrap();
    }
    for reads in 0.. {
        let (disk, start) = (Disk::default(), crash(directory.path()));
        fail_reads_after(&disk, reads, 1);
        let (spool, _) = open_loaded(disk.clone(), start.path(), &small()).await;
        let found = locked(&spool.0.library.index).len();
        assert_eq!(found, 60, "after {reads} reads");
        spool.close().await;
        if disk.happened().is_empty() {
            assert!(reads > 4, "{reads}");
            return;
        }
    }
}

#[tokio::test]
async fn one_copy_of_a_head_is_enough() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _) = open_loaded(disk.clone(), directory.path(), &small()).await;
    store(&spool, 1, 10).await.unwrap();
    spool.close().await;
    // All of the head's two pages, then the first alone.
    fail_reads_after(&disk, 0, 2);
    let (spool, _) = open_loaded(disk.clone(), directory.path(), &small()).await;
    assert_eq!(disk.happened(), [Errno::EIO, Errno::EIO]);
    spool.load(id(1)).await.unwrap();
}

#[tokio::test]
async fn a_refused_large_message_that_comes_back_by_a_crash_comes_back_whole() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _arrivals) = open_loaded(disk.clone(), directory.path(), &small()).await;
    store(&spool, 0, 10).await.unwrap();
    // The message's file is synced; its record is not, nor the segment that would end before it.
    disk.plan(On::Sync, PASSES);
    disk.fail_next(On::Sync, Errno::EIO);
    disk.fail_next(On::Sync, Errno::EIO);
    assert!(store(&spool, 1, 50_000).await.is_err());
    assert!(matches!(
        spool.load(id(1)).await,
        Err(Error::Unknown { .. })
    ));
    // The segment's digest, which was never synced, would say that it ended before.
    let crashed = crash(directory.path());
    fs::remove_file(crashed.path().join("segments/0000000001.digest")).unwrap();
    let left = left(crashed.path()).await;
    let octets = left[&id(1)].content.as_ref().unwrap().to_bytes();
    assert!(octets == content(1, 50_000).to_bytes());
    // Once it is sure that it does not come back, its file goes.
    store(&spool, 2, 10).await.unwrap();
    spool.close().await;
    assert_eq!(files(&directory.path().join("large")), 0);
}

#[tokio::test]
async fn notes_that_a_failing_disk_does_not_take_are_not_heaped_up() {
    let directory = in_memory();
    let disk = Disk::default();
    let (spool, _arrivals) = open_loaded(disk.clone(), directory.path(), &small()).await;
    store(&spool, 1, 10).await.unwrap();
    disk.die_after(0);
    let due = |n| SystemTime::UNIX_EPOCH + Duration::from_secs(n);
    for round in 0..4 {
        for n in 0..5000 {
            spool.defer(id(1), due(n), round * 5000 + n as u32);
        }
        assert!(store(&spool, 2, 10).await.is_err());
    }
    disk.heal();
    spool.close().await;
    // All of them would fill thirty segments.
    assert!(newest(directory.path()) < 6);
    assert_eq!(left(directory.path()).await[&id(1)].attempts, 19_999);
}

#[tokio::test]
async fn what_a_killed_process_did_not_sync_is_on_disk_before_anything_builds_on_it() {
    for seed in 0..40 {
        let directory = in_memory();
        let disk = Disk::with_power(seed);
        let (spool, _) = open_loaded(disk.clone(), directory.path(), &small()).await;
        store(&spool, 1, 50_000).await.unwrap();
        finish(&spool, 1);
        // The record that says DONE is written and not synced.
        disk.die_after(1);
        spool.close().await;
        disk.heal();
        // The next start takes it for done and removes the file; then the power goes.
        let (spool, _) = open_loaded(disk.clone(), directory.path(), &small()).await;
        disk.die_after(0);
        spool.close().await;
        disk.cut_power();
        disk.heal();
        let (spool, _) = open_loaded(disk.clone(), directory.path(), &small()).await;
        let loaded = spool.load(id(1)).await;
        let gone = matches!(loaded, Err(Error::Unknown { .. }));
        assert!(gone || loaded.is_ok(), "seed {seed}: {loaded:?}");
        spool.close().await;
    }
}

/// How many messages come and go, where `CHURN_STORES` does not say.
const STORES: u32 = 10_000;

#[tokio::test]
async fn an_hour_of_churn_keeps_the_disk_below_twice_the_living_and_four_segments() {
    let directory = in_memory();
    let segments = directory.path().join("segments");
    let (spool, _) = open_loaded(Disk::default(), directory.path(), &small()).await;
    let (mut most, mut stuck) = (0.0, 0);
    let stores = env::var("CHURN_STORES").ok();
    let stores = stores.map_or(STORES, |text| {
        text.parse().expect("CHURN_STORES is a number")
    });
    for serial in 0..stores {
        store(&spool, serial, 1500).await.unwrap();
        // Now and then, as the committer sees it; a segment takes a dozen.
        if serial % 5 == 0 {
            let living = locked(&spool.0.library.index).octets() as f64;
            // A file that is renamed meanwhile can stand in a list twice.
            let held = files(&segments).min(files(&segments));
            let held = 64.0 * 1024.0 * held as f64;
            most = f64::max(most, (held - 2.0 * living) / (64.0 * 1024.0));
        }
        if serial % 100 == 0 {
            stuck += 1;
        } else {
            finish(&spool, serial);
        }
    }
    let written = newest(directory.path());
    println!("{stores} stores, {stuck} stuck, {written} segments begun");
    println!("at most twice the living and {most:.2} segments");
    assert!(most <= 4.0, "twice the living and {most} segments");
    spool.close().await;
    assert_eq!(left(directory.path()).await.len(), stuck);
}
