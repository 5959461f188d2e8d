//! What is left of a log that was cut off, changed or lost in parts.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use bytesize::ByteSize;
use tempfile::TempDir;

use super::*;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope::Body as Octets;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::spool::Config;
use crate::spool::Mark;
use crate::spool::faults::On;
use crate::spool::library::Library;
use crate::spool::record::Body;
use crate::spool::record::Deferral;
use crate::spool::record::Draft;
use crate::spool::record::Kind;
use crate::spool::record::Meta;
use crate::spool::record::State;
use crate::spool::record::checksum;
use crate::spool::segment::SegmentLog;

fn id(serial: u32) -> SpoolId {
    SpoolId {
        session: SessionId(77),
        serial,
    }
}

fn meta(state: State) -> Meta<'static> {
    let to = Address::parse("b@there.example").unwrap();
    let envelope = Envelope {
        body: Octets::SevenBit,
        ..Envelope::new(ReversePath::Null, vec![Recipient::new(to)])
    };
    Meta {
        envelope: Cow::Owned(envelope),
        arrived: 1,
        state,
    }
}

fn accept(serial: u32, size: usize) -> Draft {
    let content = Content::from(Bytes::from(vec![b'x'; size]));
    let checksum = checksum(&content);
    let meta = meta(State::default());
    Draft::accept(id(serial), &meta, Body::Here(content), checksum)
}

fn done(serial: u32) -> Draft {
    Draft::note(Kind::Done, id(serial), &())
}

/// A directory with what these batches leave there after a crash, in segments of so many octets.
fn run(size: u64, batches: &[Vec<Draft>]) -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("large")).unwrap();
    let mut log = begin(directory.path(), size);
    for batch in batches {
        log.write(batch).unwrap();
    }
    drop(log);
    remove_digests(directory.path());
    directory
}

fn begin(directory: &Path, size: u64) -> SegmentLog {
    begin_on(Disk::default(), directory, size)
}

fn begin_on(disk: Disk, directory: &Path, size: u64) -> SegmentLog {
    let config = Config {
        segment_size: ByteSize(size),
        keep_free: ByteSize(0),
        ..Config::default()
    };
    let (left, clock) = (again(directory).left, Arc::default());
    let lock = File::create(directory.join("lock")).unwrap();
    SegmentLog::new(disk, directory.into(), &config, clock, left, lock)
}

fn large(directory: &Path) -> Large {
    Large::new(Disk::default(), directory.join("large"))
}

/// The digests that there are, and what is in them.
fn digests(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|ending| ending == "digest"))
        .map(|file| (file.clone(), fs::read(file).unwrap()))
        .collect()
}

fn remove_digests(directory: &Path) {
    let digests = digests(directory).into_keys();
    digests.for_each(|digest| fs::remove_file(digest).unwrap());
}

/// What a start finds.
struct Again {
    left: Left,
    index: Index,
    faults: usize,
    torn: u64,
}

/// Reads the segments; then, where all was sound, their digests, which have to say the same.
fn again(directory: &Path) -> Again {
    remove_digests(directory);
    let whole = with_digests(directory);
    if whole.faults == 0 {
        let short = with_digests(directory);
        let all = |again: &Again| {
            let ids = again.index.ids().into_iter().map(SpoolId::from);
            let entries: Vec<_> = ids.map(|id| (id, again.index.find(id))).collect();
            let left = &again.left;
            (entries, left.newest_end, left.next_sequence, again.faults)
        };
        assert_eq!(all(&short), all(&whole));
    }
    whole
}

/// Reads the digests that there are, and the other segments.
fn with_digests(directory: &Path) -> Again {
    let clock = SessionClock::default();
    let (left, rest) = look(&Disk::default(), directory, &large(directory), &clock).unwrap();
    let recovered = rest.load(&Disk::default(), &AtomicBool::new(false));
    let recovered = recovered.unwrap();
    Again {
        left,
        index: recovered.index,
        faults: recovered.faults,
        torn: recovered.torn,
    }
}

fn serials(again: &Again) -> BTreeSet<u32> {
    let ids = again.index.ids().into_iter();
    ids.map(|key| SpoolId::from(key).serial).collect()
}

/// Writes a file over, not emptied first: some file systems sync a file that was.
fn put(file: &Path, bytes: &[u8]) {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(file);
    let file = file.unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

/// The sizes of the messages in a small run, from the first.
const RUN: [usize; 6] = [20, 33, 0, 70, 7, 7];
/// Those that are not done with.
const LEFT: [u32; 4] = [1, 4, 5, 6];

fn small_run(size: u64) -> TempDir {
    let sent = |serial: u32| accept(serial, RUN[serial as usize - 1]);
    let batches = [
        vec![sent(1), sent(2)],
        vec![sent(3)],
        vec![done(2), sent(4)],
        vec![done(3)],
        vec![sent(5), sent(6)],
    ];
    run(size, &batches)
}

/// Loads what of the run there is; gives which messages are there with exactly their octets, and
/// whether anything was reported.
fn load(directory: &Path, again: Again) -> (BTreeSet<u32>, bool) {
    let mut found = serials(&again);
    let mut loud = again.faults > 0 || again.torn > 0;
    let library = Library::new(again.index, large(directory), again.left.shelf);
    found.retain(|serial| match library.load(id(*serial)) {
        Ok(loaded) => {
            let want = vec![b'x'; RUN[*serial as usize - 1]];
            assert_eq!(loaded.content.unwrap().to_bytes(), want, "{serial}");
            true
        }
        Err(_) => {
            loud = true;
            false
        }
    });
    (found, loud)
}

/// Every octet of the log of a small run changed, and the log cut off there: gives each such log to
/// `check`, with what it is.
fn each_damage(directory: &Path, newest: u32, mut check: impl FnMut(&str)) {
    for generation in 1..=newest {
        let file = path(directory, generation);
        let bytes = fs::read(&file).unwrap();
        let end = bytes.iter().rposition(|octet| *octet != 0).unwrap() + 64;
        for at in (0..64).chain(4096..4160).chain(START as usize..end) {
            let at = at.min(bytes.len() - 1);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            put(&file, &changed);
            check(&format!("segment {generation} octet {at} changed"));
            put(&file, &bytes[..at]);
            check(&format!("segment {generation} cut at {at}"));
        }
        put(&file, &bytes);
    }
}

/// One record is lost at most, or the newest batch, where nothing was cut off.
fn assert_little_lost(all: &BTreeSet<u32>, found: &BTreeSet<u32>, what: &str) {
    let lost: Vec<_> = all.difference(found).copied().collect();
    let few = lost.len() < 2 || lost == [5, 6] || what.contains("cut");
    assert!(few, "{what}: {lost:?}");
}

/// One segment in which all is written; and two, the first of which is sealed.
const SIZES: [u64; 2] = [10_400, START + 900];

#[test]
fn a_log_cut_or_changed_at_any_octet_gives_what_was_acknowledged_or_a_report() {
    for size in SIZES {
        let directory = small_run(size);
        let directory = directory.path();
        let sound = again(directory);
        let newest = sound.left.newest;
        let all = BTreeSet::from(LEFT);
        assert_eq!(load(directory, sound), (all.clone(), false));
        each_damage(directory, newest, |what| {
            let again = again(directory);
            let indexed = serials(&again);
            let (found, loud) = load(directory, again);
            assert_eq!(found, indexed, "{what}");
            assert!(found == all || loud, "{what}: {found:?} and no report");
            assert_little_lost(&all, &found, what);
        });
    }
}

#[test]
fn damage_behind_a_digest_is_reported_by_who_loads_what_it_took() {
    for size in SIZES {
        let directory = small_run(size);
        let directory = directory.path();
        let newest = again(directory).left.newest;
        let sound = digests(directory);
        assert_eq!(sound.len() as u32, newest);
        let all = BTreeSet::from(LEFT);
        each_damage(directory, newest, |what| {
            sound.iter().for_each(|(file, octets)| put(file, octets));
            let (found, loud) = load(directory, with_digests(directory));
            assert!(found == all || loud, "{what}: {found:?} and no report");
            assert_little_lost(&all, &found, what);
        });
    }
}

#[test]
fn a_digest_cut_or_changed_at_any_octet_only_costs_the_reading_of_its_segment() {
    let directory = small_run(START + 900);
    let directory = directory.path();
    again(directory);
    let all = BTreeSet::from(LEFT);
    for (file, sound) in digests(directory) {
        for at in 0..sound.len() {
            let mut changed = sound.clone();
            changed[at] ^= 1 << (at % 8);
            for octets in [&changed, &sound[..at]] {
                put(&file, octets);
                let found = load(directory, with_digests(directory));
                assert_eq!(found, (all.clone(), false), "octet {at}");
                assert_eq!(fs::read(&file).unwrap(), sound, "octet {at}");
            }
        }
    }
}

#[test]
fn a_digest_of_another_segment_or_of_an_earlier_life_of_this_one_is_not_used() {
    let directories = [small_run(START + 900), small_run(START + 900)];
    let [ours, other] = directories.each_ref().map(TempDir::path);
    again(ours);
    again(other);
    let sound = digests(ours);
    let foreign = digests(other).into_values();
    for octets in foreign.chain(sound.clone().into_values()) {
        for file in sound.keys().filter(|file| sound[*file] != octets) {
            put(file, &octets);
            assert_eq!(serials(&with_digests(ours)), BTreeSet::from(LEFT));
        }
        assert_eq!(digests(ours), sound);
    }
}

#[test]
fn what_is_written_and_what_is_read_give_the_same_digest() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    fs::create_dir(directory.join("large")).unwrap();
    let disk = Disk::default();
    let mut log = begin_on(disk.clone(), directory, 64 * 1024);
    let marked = vec![(0usize, Mark::Failed("no such user".to_owned()))];
    let deferral = Deferral {
        due: u64::MAX,
        attempts: 70_000,
    };
    let moved = meta(State {
        due: 7,
        attempts: 3,
        held: Some("odd".to_owned()),
        marked: vec![0, 300],
    });
    let moved = Draft::accept(id(4), &moved, Body::InFile { length: 700 }, 1);
    let high = SpoolId {
        session: SessionId(u64::MAX),
        serial: u32::MAX,
    };
    let batches = [
        vec![accept(1, 20), accept(2, 3000), moved],
        vec![
            Draft::note(Kind::Result, id(1), &marked),
            Draft::note(Kind::Defer, high, &deferral),
        ],
        vec![
            Draft::note(Kind::Hold, id(2), &"why"),
            Draft::note(Kind::Release, id(2), &9u64),
            done(2),
        ],
    ];
    for batch in batches.iter().cycle().take(60) {
        log.write(batch).unwrap();
    }
    // What was not acknowledged is in neither.
    disk.fail_next(On::Sync, Errno::EIO);
    log.write(&[accept(9, 9)]).unwrap_err();
    log.write(&[accept(10, 10)]).unwrap();
    drop(log);
    let written = digests(directory);
    assert!(written.len() > 2, "{written:?}");
    let found = again(directory);
    assert_eq!((found.faults, found.torn), (0, 0));
    assert_eq!(serials(&found), BTreeSet::from([4, 10]));
    assert_eq!(digests(directory), written);
}

#[test]
fn damage_takes_only_the_record_it_is_in() {
    let directory = run(
        10_400,
        &[
            vec![accept(1, 9), accept(2, 9), accept(3, 9)],
            vec![accept(4, 9)],
        ],
    );
    let file = path(directory.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    bytes[START as usize + accept(1, 9).length() + 60] ^= 4;
    fs::write(&file, &bytes).unwrap();
    let recovered = again(directory.path());
    assert!(serials(&recovered).into_iter().eq([1, 3, 4]));
    assert_eq!((recovered.faults, recovered.torn), (1, 0));
    assert_eq!(
        recovered.left.found.lock().unwrap()[0].afterlife,
        Afterlife::SetAside
    );
}

#[test]
fn half_a_batch_is_never_delivered() {
    let last = vec![accept(2, 50), accept(3, 50), accept(4, 50)];
    let directory = run(10_400, &[vec![accept(1, 9)], last.clone()]);
    let file = path(directory.path(), 1);
    let bytes = fs::read(&file).unwrap();
    let begin = START as usize + accept(1, 9).length();
    let length = last[0].length();
    // Any one record of it missing, as after a power cut: pages are written in any order.
    for missing in 0..3 {
        let mut torn = bytes.clone();
        let at = begin + missing * length;
        torn[at..at + length].fill(0);
        fs::write(&file, &torn).unwrap();
        let recovered = again(directory.path());
        assert!(serials(&recovered).into_iter().eq([1]), "{missing}");
        assert_eq!(recovered.faults, 0, "{missing}");
        assert!(recovered.torn > 0, "{missing}");
        assert_eq!(recovered.left.newest_end as usize, begin, "{missing}");
    }
}

#[test]
fn a_power_cut_leaves_a_batch_whole_or_not_at_all_whichever_sectors_were_written() {
    const SECTOR: usize = 512;
    let directory = run(12_288, &[]);
    let mut log = begin(directory.path(), 12_288);
    log.write(&[accept(1, 9)]).unwrap();
    let file = path(directory.path(), 1);
    let before = fs::read(&file).unwrap();
    let batch = [accept(2, 700), accept(3, 700), done(1)];
    log.write(&batch).unwrap();
    let after = fs::read(&file).unwrap();
    let changed: Vec<_> = (0..after.len() / SECTOR)
        .map(|sector| sector * SECTOR..(sector + 1) * SECTOR)
        .filter(|sector| before[sector.clone()] != after[sector.clone()])
        .collect();
    for written in 0..1 << changed.len() {
        let mut state = before.clone();
        for (bit, sector) in changed.iter().enumerate() {
            if written & 1 << bit != 0 {
                state[sector.clone()].copy_from_slice(&after[sector.clone()]);
            }
        }
        fs::write(&file, &state).unwrap();
        let recovered = again(directory.path());
        let found = serials(&recovered);
        let whole = state == after;
        assert!(
            found
                .into_iter()
                .eq(if whole { vec![2, 3] } else { vec![1] })
        );
        assert_eq!(recovered.faults, 0, "{written:b}");
    }
}

#[test]
fn what_was_torn_stays_cut_off_when_more_was_written() {
    let directory = run(
        10_400,
        &[vec![accept(1, 9)], vec![accept(2, 9), accept(3, 9)]],
    );
    let file = path(directory.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    let third = START as usize + 2 * accept(1, 9).length();
    bytes[third] ^= 1;
    fs::write(&file, &bytes).unwrap();
    begin(directory.path(), 10_400)
        .write(&[accept(4, 9)])
        .unwrap();
    // Even if the torn record comes right again, nobody was told that it is stored.
    bytes[third] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let recovered = again(directory.path());
    assert!(serials(&recovered).into_iter().eq([1, 4]));
    assert_eq!((recovered.faults, recovered.torn), (0, 0));
}

#[test]
fn a_missing_segment_or_a_broken_head_is_reported_and_the_rest_is_kept() {
    let batches: Vec<_> = (1..=3).map(|serial| vec![accept(serial, 600)]).collect();
    for broken in 1..=3 {
        let directory = run(START + 1000, &batches);
        let file = path(directory.path(), broken);
        let mut bytes = fs::read(&file).unwrap();
        bytes[0] ^= 1;
        bytes[4096] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let recovered = again(directory.path());
        let kept: Vec<_> = (1..=3).filter(|serial| *serial != broken).collect();
        assert!(serials(&recovered).into_iter().eq(kept), "{broken}");
        assert!(recovered.faults > 0, "{broken}");
    }
    let directory = run(START + 1000, &batches);
    fs::remove_file(path(directory.path(), 2)).unwrap();
    let recovered = again(directory.path());
    assert!(serials(&recovered).into_iter().eq([1, 3]));
    assert!(recovered.faults > 0);
}

#[test]
fn another_version_is_told_from_a_broken_one_and_not_touched() {
    let directory = run(10_400, &[vec![accept(1, 9)]]);
    let file = path(directory.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    for at in [0, 4096] {
        let head = &mut bytes[at..at + 64];
        head[8] = 2;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..12]), &head[16..]);
        head[12..16].copy_from_slice(&checksum.to_le_bytes());
    }
    fs::write(&file, &bytes).unwrap();
    let clock = SessionClock::default();
    let refused = look(
        &Disk::default(),
        directory.path(),
        &large(directory.path()),
        &clock,
    );
    assert!(matches!(
        refused,
        Err(Error::OtherVersion {
            found: 2,
            ours: 1,
            ..
        })
    ));
}

#[test]
fn a_segment_that_cannot_be_had_now_stops_the_start_and_is_not_taken_for_damaged() {
    let directory = run(10_400, &[vec![accept(1, 9)]]);
    let file = path(directory.path(), 1);
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    // Stands for any error of open that is no error of the disk.
    symlink(&file, &file).unwrap();
    let clock = SessionClock::default();
    let refused = look(
        &Disk::default(),
        directory.path(),
        &large(directory.path()),
        &clock,
    );
    assert!(
        matches!(&refused, Err(Error::Directory { path, .. }) if *path == file),
        "{refused:?}"
    );
    fs::rename(elsewhere, &file).unwrap();
    assert!(serials(&again(directory.path())).into_iter().eq([1]));
}

#[test]
fn session_ids_go_on_above_all_that_were_seen() {
    let directory = run(10_400, &[vec![accept(1, 9)], vec![done(1)]]);
    let clock = SessionClock::default();
    look(
        &Disk::default(),
        directory.path(),
        &large(directory.path()),
        &clock,
    )
    .unwrap();
    assert_eq!(clock.next(UNIX_EPOCH), SessionId(78));
}
