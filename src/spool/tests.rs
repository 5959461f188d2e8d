//! The spool as its users see it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use nix::errno::Errno;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Recipient;
use crate::mail::id::SessionId;
use crate::spool::faults::On;

pub(super) fn small() -> Config {
    Config {
        segment_size: ByteSize::kib(64),
        large_message: ByteSize::kib(8),
        waiting: ByteSize::kib(64),
        in_memory: ByteSize::kib(64),
        keep_free: ByteSize(0),
    }
}

pub(super) fn id(serial: u32) -> SpoolId {
    SpoolId {
        session: SessionId(5),
        serial,
    }
}

fn envelope(recipients: usize) -> Envelope {
    let to = |n| Recipient::new(Address::parse(&format!("r{n}@there.example")).unwrap());
    Envelope {
        body: crate::mail::envelope::Body::EightBitMime,
        ..Envelope::new(
            ReversePath::parse("<a@here.example>").unwrap(),
            (0..recipients).map(to).collect(),
        )
    }
}

pub(super) fn content(serial: u32, size: usize) -> Content {
    let body = Bytes::from(vec![b'a' + (serial % 26) as u8; size]);
    let head = Bytes::from(format!("Message-ID: <{serial}@here.example>\r\n\r\n"));
    Content::assemble(head, &body, &[])
}

/// What a kill -9 would leave now.
pub(super) fn crash(directory: &Path) -> TempDir {
    loop {
        let copy = TempDir::new().unwrap();
        let before = names(directory);
        let copied = before.iter().try_for_each(|name| {
            let to = copy.path().join(name);
            fs::create_dir_all(to.parent().unwrap())?;
            fs::copy(directory.join(name), to).map(|_| ())
        });
        // Not while the committer takes space back: no disk has two states at once.
        if copied.is_ok() && names(directory) == before {
            return copy;
        }
    }
}

/// The files of the log and of large messages.
fn names(directory: &Path) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    for below in ["segments", "large"] {
        for entry in fs::read_dir(directory.join(below)).unwrap() {
            names.insert(Path::new(below).join(entry.unwrap().file_name()));
        }
    }
    names
}

pub(super) async fn next(arrivals: &mut Arrivals) -> Arrival {
    let next = timeout(Duration::from_secs(20), arrivals.next());
    next.await.expect("in time").expect("an arrival")
}

/// The spool once all that was left is read.
pub(super) async fn open_loaded(
    disk: Disk,
    directory: &Path,
    config: &Config,
) -> (Spool, Arrivals) {
    let (spool, arrivals) = open_on(disk, directory, config).unwrap();
    spool.loaded().await.unwrap();
    (spool, arrivals)
}

pub(super) async fn left(directory: &Path) -> BTreeMap<SpoolId, Arrival> {
    let (spool, mut arrivals) = open(directory, &small()).unwrap();
    spool.loaded().await.unwrap();
    let count = locked(&spool.0.library.index).len();
    let mut left = BTreeMap::new();
    while left.len() < count {
        let arrival = next(&mut arrivals).await;
        let mut loaded = spool.load(arrival.id).await.unwrap();
        loaded.memory = None;
        left.insert(arrival.id, loaded);
    }
    spool.close().await;
    left
}

pub(super) async fn store(spool: &Spool, serial: u32, size: usize) -> Result<(), Error> {
    let message = content(serial, size);
    spool
        .store(id(serial), envelope(2), message, Fate::Deliver)
        .await
}

pub(super) fn finish(spool: &Spool, serial: u32) {
    spool.mark(id(serial), vec![(0, Mark::Delivered)]);
    spool.mark(id(serial), vec![(1, Mark::Failed("no such user".into()))]);
}

/// Segments or large messages.
pub(super) fn files(directory: &Path) -> usize {
    let files = fs::read_dir(directory).unwrap();
    files
        .filter(|file| file.as_ref().unwrap().path().extension() != Some("digest".as_ref()))
        .count()
}

#[tokio::test]
async fn a_committer_that_was_told_of_notes_which_are_gone_rests() {
    let directory = TempDir::new().unwrap();
    let before = threads("spool");
    let (spool, _arrivals) = open(directory.path(), &small()).unwrap();
    spool.loaded().await.unwrap();
    // As where a batch takes the note before the word of it has come.
    spool.0.jobs.send(Job::Notes).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let ours = threads("spool").into_iter();
    let mut ours = ours.filter(|(thread, _)| !before.contains_key(thread));
    // Three seconds are three hundred ticks.
    assert!(ours.any(|(_, ticks)| ticks < 50));
}

/// The threads of this name, with the ticks of processor time that each has used.
fn threads(name: &str) -> BTreeMap<PathBuf, u64> {
    let all = fs::read_dir("/proc/self/task").unwrap();
    let stats = all.filter_map(|thread| {
        let path = thread.unwrap().path();
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let (front, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<_> = fields.split(' ').collect();
        let used = [11, 12].map(|at| fields[at].parse::<u64>().unwrap());
        let named = front.ends_with(&format!("({name}"));
        named.then_some((path, used[0] + used[1]))
    });
    stats.collect()
}

#[tokio::test]
async fn a_stored_message_arrives_from_memory_and_survives_a_crash() {
    let directory = TempDir::new().unwrap();
    let (spool, mut arrivals) = open(directory.path(), &small()).unwrap();
    store(&spool, 1, 100).await.unwrap();
    let crashed = crash(directory.path());
    let arrival = next(&mut arrivals).await;
    assert_eq!(arrival.content, Some(content(1, 100)));
    assert_eq!(*arrival.envelope, envelope(2));
    assert_eq!(
        (arrival.open, arrival.attempts, arrival.held),
        (vec![0, 1], 0, false)
    );
    let left = left(crashed.path()).await;
    let message = &left[&id(1)];
    assert_eq!(left.len(), 1);
    assert_eq!(
        message.content.as_ref().unwrap().to_bytes(),
        content(1, 100).to_bytes()
    );
    assert_eq!(message.arrived, arrival.arrived);
}

#[tokio::test]
async fn marks_deferrals_and_holds_survive() {
    let directory = TempDir::new().unwrap();
    let (spool, _arrivals) = open(directory.path(), &small()).unwrap();
    for serial in 1..=5 {
        store(&spool, serial, 10).await.unwrap();
    }
    let due = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    spool.mark(id(1), vec![(1, Mark::Delivered)]);
    spool.defer(id(2), due, 3);
    spool.hold(id(3), "why".into());
    spool.hold(id(4), "why".into());
    spool.release(id(4), due);
    finish(&spool, 5);
    let held = spool.store(id(6), envelope(1), content(6, 1), Fate::Hold("odd".into()));
    held.await.unwrap();
    spool.close().await;
    assert!(matches!(store(&spool, 7, 1).await, Err(Error::Closed)));
    let left = left(directory.path()).await;
    let told: Vec<_> = left
        .values()
        .map(|m| {
            (
                m.id.serial,
                m.open.clone(),
                m.attempts,
                m.due == due,
                m.held,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, vec![0], 0, false, false),
            (2, vec![0, 1], 3, true, false),
            (3, vec![0, 1], 0, false, true),
            (4, vec![0, 1], 0, true, false),
            (6, vec![0], 0, false, true),
        ]
    );
}

#[tokio::test]
async fn a_mark_is_on_disk_within_seconds_without_other_mail() {
    let directory = TempDir::new().unwrap();
    let (spool, _arrivals) = open(directory.path(), &small()).unwrap();
    store(&spool, 1, 10).await.unwrap();
    finish(&spool, 1);
    let gone = async {
        while !left(crash(directory.path()).path()).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test]
async fn a_released_message_arrives_again() {
    let directory = TempDir::new().unwrap();
    let (spool, mut arrivals) = open(directory.path(), &small()).unwrap();
    let held = spool.store(id(1), envelope(1), content(1, 1), Fate::Hold("odd".into()));
    held.await.unwrap();
    assert!(next(&mut arrivals).await.held);
    spool.release(id(1), SystemTime::now());
    assert!(!next(&mut arrivals).await.held);
}

#[tokio::test]
async fn a_second_instance_is_refused_until_the_first_has_closed() {
    let directory = TempDir::new().unwrap();
    let (spool, mut arrivals) = open(directory.path(), &small()).unwrap();
    let refused = open(directory.path(), &small()).unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }));
    let pid = format!("process {}", std::process::id());
    assert!(refused.to_string().contains(&pid), "{refused}");
    spool.close().await;
    assert!(arrivals.next().await.is_none());
    open(directory.path(), &small()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_store_at_once_and_nothing_is_lost() {
    let directory = TempDir::new().unwrap();
    let (spool, _arrivals) = open(directory.path(), &small()).unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let spool = spool.clone();
        tasks.spawn(async move {
            for n in 0..25 {
                let serial = task * 25 + n;
                store(&spool, serial, 500 + serial as usize).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
    let crashed = crash(directory.path());
    let left = left(crashed.path()).await;
    assert_eq!(left.len(), 400);
    for (id, message) in left {
        let want = content(id.serial, 500 + id.serial as usize);
        assert_eq!(message.content.unwrap().to_bytes(), want.to_bytes());
    }
}

#[tokio::test]
async fn finished_segments_are_written_over_and_never_resurrect_anything() {
    let directory = TempDir::new().unwrap();
    let (spool, mut arrivals) = open(directory.path(), &small()).unwrap();
    store(&spool, 0, 100).await.unwrap();
    spool.mark(id(0), vec![(1, Mark::Delivered)]);
    for serial in 1..600 {
        store(&spool, serial, 2000).await.unwrap();
        next(&mut arrivals).await;
        finish(&spool, serial);
        let files = files(&directory.path().join("segments"));
        assert!(files <= 5, "{files} segments at message {serial}");
        if serial % 100 == 0 {
            let left = left(crash(directory.path()).path()).await;
            let serials: Vec<_> = left.keys().map(|id| id.serial).collect();
            // The marks of the last one or two may not be on disk yet.
            assert_eq!(serials[0], 0);
            assert!(serials[1..].iter().all(|s| *s + 2 > serial), "{serials:?}");
            assert_eq!(left[&id(0)].open, [0]);
        }
    }
    spool.close().await;
    let left = left(directory.path()).await;
    assert!(left.keys().eq([&id(0)]));
    assert_eq!(left[&id(0)].open, [0]);
}

#[tokio::test]
async fn a_segment_with_something_unreadable_is_kept_when_the_rest_was_copied() {
    let directory = TempDir::new().unwrap();
    let segments = directory.path().join("segments");
    let (spool, _arrivals) = open(directory.path(), &small()).unwrap();
    store(&spool, 0, 500).await.unwrap();
    store(&spool, 1, 500).await.unwrap();
    let first = File::options()
        .write(true)
        .open(segments.join("0000000001"));
    // In the middle of the first message.
    first.unwrap().write_all_at(b"?", 8192 + 500).unwrap();
    assert!(matches!(
        spool.load(id(0)).await,
        Err(Error::Damaged { .. })
    ));
    for serial in 2..400 {
        store(&spool, serial, 2000).await.unwrap();
        finish(&spool, serial);
    }
    spool.close().await;
    assert!(segments.join("0000000001.damaged").exists());
    assert!(left(directory.path()).await.keys().eq([&id(1)]));
}

#[tokio::test]
async fn a_large_message_has_a_file_of_its_own_until_it_is_finished() {
    let directory = TempDir::new().unwrap();
    let large = directory.path().join("large");
    let (spool, _arrivals) = open(directory.path(), &small()).unwrap();
    store(&spool, 1, 100_000).await.unwrap();
    store(&spool, 2, 100_000).await.unwrap();
    assert_eq!(files(&large), 2);
    finish(&spool, 1);
    spool.close().await;
    assert_eq!(files(&large), 1);
    fs::write(large.join(id(9).to_string()), "left by a crash").unwrap();
    let left = left(directory.path()).await;
    assert!(left.keys().eq([&id(2)]));
    let message = left[&id(2)].content.as_ref().unwrap();
    assert_eq!(message.to_bytes(), content(2, 100_000).to_bytes());
    assert_eq!(files(&large), 1);
}

#[tokio::test]
async fn a_failed_write_or_sync_fails_its_batch_and_no_later_one() {
    for call in [On::Write, On::Sync] {
        let directory = TempDir::new().unwrap();
        let disk = Disk::default();
        let (spool, _arrivals) = open_on(disk.clone(), directory.path(), &small()).unwrap();
        store(&spool, 1, 10).await.unwrap();
        finish(&spool, 1);
        disk.fail_next(call, Errno::EIO);
        let failed = store(&spool, 2, 10).await;
        assert!(matches!(failed, Err(Error::Append { .. })), "{failed:?}");
        store(&spool, 3, 10).await.unwrap();
        // Also not after a crash, and what the failed batch was to say of others is not forgotten.
        let left = left(crash(directory.path()).path()).await;
        assert!(left.keys().eq([&id(3)]), "{call:?}: {:?}", left.keys());
    }
}

#[tokio::test]
async fn a_full_disk_is_told_before_anything_is_written() {
    let directory = TempDir::new().unwrap();
    let config = Config {
        keep_free: ByteSize::pib(1),
        ..small()
    };
    let (spool, _arrivals) = open(directory.path(), &config).unwrap();
    for size in [10, 100_000] {
        let full = store(&spool, 1, size).await;
        assert!(matches!(full, Err(Error::Full { .. })), "{full:?}");
    }
    spool.close().await;
    assert_eq!(files(&directory.path().join("large")), 0);
    assert!(left(directory.path()).await.is_empty());
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_takes_mail_when_it_no_longer_is() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    disk.fail_next(On::Allocate, Errno::ENOSPC);
    disk.fail_next(On::Allocate, Errno::ENOSPC);
    let (spool, _arrivals) = open_on(disk, directory.path(), &small()).unwrap();
    assert!(matches!(
        store(&spool, 1, 10).await,
        Err(Error::Full { .. })
    ));
    store(&spool, 1, 10).await.unwrap();
}

#[tokio::test]
async fn a_signal_while_space_is_taken_refuses_no_mail() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    disk.fail_next(On::Allocate, Errno::EINTR);
    disk.fail_next(On::Allocate, Errno::EINTR);
    let (spool, _arrivals) = open_on(disk, directory.path(), &small()).unwrap();
    store(&spool, 1, 10).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_gets_room_from_mail_that_was_delivered_meanwhile() {
    let directory = TempDir::new().unwrap();
    let disk = Disk::default();
    let (spool, _arrivals) = open_on(disk.clone(), directory.path(), &small()).unwrap();
    for _ in 0..1000 {
        disk.fail_next(On::Allocate, Errno::ENOSPC);
    }
    let mut serial = 0;
    while store(&spool, serial, 2000).await.is_ok() {
        serial += 1;
    }
    (0..serial).for_each(|serial| finish(&spool, serial));
    let again = async {
        while store(&spool, serial, 2000).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let again = timeout(Duration::from_secs(10), again).await;
    again.expect("the segment of what was delivered is written over");
}

#[tokio::test]
async fn what_memory_does_not_hold_is_loaded_from_disk() {
    let directory = TempDir::new().unwrap();
    let config = Config {
        in_memory: ByteSize::kib(4),
        ..small()
    };
    let (spool, mut arrivals) = open(directory.path(), &config).unwrap();
    for serial in 1..=8 {
        store(&spool, serial, 1000).await.unwrap();
    }
    let mut in_memory = 0;
    for _ in 1..=8 {
        let arrival = next(&mut arrivals).await;
        in_memory += usize::from(arrival.content.is_some());
        let loaded = spool.load(arrival.id).await.unwrap();
        let want = content(arrival.id.serial, 1000).to_bytes();
        assert_eq!(loaded.content.unwrap().to_bytes(), want);
    }
    assert_eq!(in_memory, 1);
    assert!(matches!(
        spool.load(id(99)).await,
        Err(Error::Unknown { .. })
    ));
}

#[tokio::test]
async fn memory_for_mail_is_bounded_and_given_back_by_whoever_drops_it() {
    let directory = TempDir::new().unwrap();
    let (spool, mut arrivals) = open(directory.path(), &small()).unwrap();
    // Two thirds of all that may be in memory, each in a file of its own.
    store(&spool, 1, 40_000).await.unwrap();
    store(&spool, 2, 40_000).await.unwrap();
    let (first, second) = (next(&mut arrivals).await, next(&mut arrivals).await);
    assert!(first.content.is_some() && second.content.is_none());
    // A lane that rests lets go of what it had; others need not go by way of the disk then.
    drop(first);
    store(&spool, 3, 40_000).await.unwrap();
    assert!(next(&mut arrivals).await.content.is_some());

    let loaded = spool.load(id(1)).await.unwrap();
    let late = timeout(Duration::from_millis(50), spool.load(id(2))).await;
    assert!(late.is_err(), "there is memory for one");
    drop(loaded);
    spool.load(id(2)).await.unwrap();
}

#[tokio::test]
async fn dropping_the_caller_cancels_the_waiting_and_not_the_work() {
    let directory = TempDir::new().unwrap();
    let config = Config {
        waiting: ByteSize::mib(1),
        ..small()
    };
    let (spool, mut arrivals) = open(directory.path(), &config).unwrap();
    for (serial, size) in [(1, 10), (2, 100_000)] {
        let mut storing = Box::pin(store(&spool, serial, size));
        let waker = std::task::Waker::noop();
        let polled = storing
            .as_mut()
            .poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending());
        drop(storing);
        assert_eq!(next(&mut arrivals).await.id, id(serial));
    }
}

#[tokio::test]
async fn an_id_or_an_envelope_that_cannot_be_stored_is_refused() {
    let directory = TempDir::new().unwrap();
    let (spool, _arrivals) = open(directory.path(), &small()).unwrap();
    store(&spool, 1, 10).await.unwrap();
    assert!(matches!(
        store(&spool, 1, 10).await,
        Err(Error::Taken { .. })
    ));
    let huge = spool.store(id(2), envelope(5000), content(2, 10), Fate::Deliver);
    assert!(matches!(huge.await, Err(Error::TooLarge)));
}

#[tokio::test]
async fn recipients_count_for_the_memory_that_an_arrival_takes() {
    let directory = TempDir::new().unwrap();
    let (spool, mut arrivals) = open(directory.path(), &small()).unwrap();
    for (serial, recipients) in [(1, 1), (2, 500)] {
        let message = content(serial, 10);
        let stored = spool.store(id(serial), envelope(recipients), message, Fate::Deliver);
        stored.await.unwrap();
        let arrival = next(&mut arrivals).await;
        assert_eq!(arrival.content.is_some(), recipients == 1, "{recipients}");
    }
    spool.close().await;
}

#[tokio::test]
async fn files_are_ours_alone_and_a_directory_that_cannot_be_used_is_named() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("data/spool");
    let (spool, _arrivals) = open(&directory, &small()).unwrap();
    store(&spool, 1, 100_000).await.unwrap();
    for (path, mode) in [
        (directory.clone(), 0o700),
        (directory.join("segments"), 0o700),
        (directory.join("lock"), 0o600),
        (directory.join("segments/0000000001"), 0o600),
        (directory.join("large").join(id(1).to_string()), 0o600),
    ] {
        let got = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(got, mode, "{}", path.display());
    }
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file, &small()).unwrap_err();
    assert!(matches!(error, Error::Directory { .. }));
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn values_that_do_not_go_together_are_named() {
    assert_eq!(Config::default().faults(), []);
    let config = Config {
        segment_size: ByteSize::mib(1),
        large_message: ByteSize::mib(2),
        waiting: ByteSize::mib(1),
        ..Config::default()
    };
    let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["segment_size", "large_message", "waiting"]);
}
