//! Reads the log at the start: what is in the spool is what the records say, oldest segment first.
//!
//! Where a segment ends is told by the next one's head; in the newest, by its last whole batch, and
//! what is torn behind it is cut off for good by the head of the segment that this start begins.
//! Damage ([`super::walk`] says what is) is reported, its segment is later set aside, and everything
//! that is sound is kept. It never stops the start; a segment of another version does, untouched.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::Mark;
use crate::spool::clock::SessionClock;
use crate::spool::entry::Entry;
use crate::spool::entry::Place;
use crate::spool::entry::Stored;
use crate::spool::head::Head;
use crate::spool::head::NoHead;
use crate::spool::head::START;
use crate::spool::head::VERSION;
use crate::spool::index::Index;
use crate::spool::large::Large;
use crate::spool::record::Deferral;
use crate::spool::record::Kind;
use crate::spool::record::Meta;
use crate::spool::record::Record;
use crate::spool::segment::Afterlife;
use crate::spool::segment::Left;
use crate::spool::segment::Sealed;
use crate::spool::segment::Spare;
use crate::spool::segment::path;
use crate::spool::shelf::Segment;
use crate::spool::shelf::Shelf;
use crate::spool::walk::walk;
use crate::telemetry::events;

/// What an earlier run left.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) left: Left,
    /// Places that cannot be read. Each was reported.
    pub(super) faults: usize,
    /// Octets of a batch that was not finished.
    pub(super) torn: u64,
}

/// Reads the segments in `directory`. Blocks on the disk.
pub(super) fn recover(
    directory: &Path,
    large: &Large,
    clock: &SessionClock,
) -> Result<Recovered, Error> {
    let (generations, spares) = list(directory).map_err(|e| Error::directory(directory, e))?;
    let mut recovered = Recovered {
        index: Index::default(),
        left: Left {
            shelf: Shelf::default(),
            sealed: VecDeque::new(),
            spares: spares
                .into_iter()
                .map(|path| Spare { path, written: 0 })
                .collect(),
            newest: 0,
            newest_end: START,
            next_sequence: 0,
        },
        faults: 0,
        torn: 0,
    };
    let mut heads = BTreeMap::new();
    for generation in &generations {
        heads.insert(*generation, read_head(directory, *generation)?);
    }
    let mut buffer = Vec::new();
    for generation in generations {
        let newest = recovered.left.newest;
        if newest != 0 && generation != newest + 1 {
            recovered.fault(&path(directory, newest + 1), 0, &"the segment is missing");
        }
        let faults = recovered.faults;
        match heads.get(&generation).copied().flatten() {
            Some(head) => {
                let next = heads.get(&(generation + 1)).copied().flatten();
                let end = next.map(|next| next.previous_end);
                recovered.segment(directory, &head, end, &mut buffer, clock)?;
            }
            None => {
                let file = path(directory, generation);
                recovered.fault(&file, 0, &"the segment's head cannot be read");
                recovered.left.newest_end = START;
            }
        }
        let afterlife = if recovered.faults == faults {
            Afterlife::Recycle
        } else {
            Afterlife::SetAside
        };
        recovered.left.sealed.push_back(Sealed {
            generation,
            since: Instant::now(),
            afterlife,
            written: recovered.left.newest_end,
        });
        recovered.left.newest = generation;
    }
    recovered.match_large(large)?;
    Ok(recovered)
}

/// The generations and the spare files that there are. Other names are left alone.
fn list(directory: &Path) -> io::Result<(Vec<u32>, Vec<PathBuf>)> {
    let mut generations = Vec::new();
    let mut spares = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        let name = file.file_name().and_then(|name| name.to_str());
        match name {
            Some(name) if name.starts_with("spare.") => spares.push(file),
            Some(name) if name.len() == 10 => generations.extend(name.parse::<u32>()),
            Some(_) | None => (),
        }
    }
    generations.sort_unstable();
    Ok((generations, spares))
}

/// The head of a segment. None where it is broken; an error where it is of another version, or cannot
/// be had now.
fn read_head(directory: &Path, generation: u32) -> Result<Option<Head>, Error> {
    let path = path(directory, generation);
    let mut front = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(START).read_to_end(&mut front));
    if let Err(error) = read {
        return damage(&path, error).map(|_| None);
    }
    match Head::read(&front) {
        Ok(head) if head.seal.generation == generation => Ok(Some(head)),
        Ok(_) | Err(NoHead::Broken) => Ok(None),
        Err(NoHead::Version(found)) => Err(Error::OtherVersion {
            path,
            found,
            ours: VERSION,
        }),
    }
}

/// The error, where it tells of damage. Where it tells that we may not have the file now (no right to
/// it, too many open files), the start has to fail: the segment is sound, and would be set aside.
fn damage(path: &Path, error: io::Error) -> Result<io::Error, Error> {
    match error.raw_os_error().map(Errno::from_raw) {
        None | Some(Errno::EIO | Errno::ENOENT | Errno::EUCLEAN | Errno::EBADMSG) => Ok(error),
        Some(_) => Err(Error::directory(path, error)),
    }
}

impl Recovered {
    fn fault(&mut self, file: &Path, offset: u64, reason: &dyn std::fmt::Display) {
        self.faults += 1;
        events::spool_corrupt(file, offset, reason);
    }

    /// Takes in one segment, which ends at `end` where its successor says so.
    fn segment(
        &mut self,
        directory: &Path,
        head: &Head,
        end: Option<u64>,
        buffer: &mut Vec<u8>,
        clock: &SessionClock,
    ) -> Result<(), Error> {
        let path = path(directory, head.seal.generation);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.fault(&path, 0, &damage(&path, error)?);
                return Ok(());
            }
        };
        if size < head.capacity {
            self.fault(&path, size, &"the file is shorter than it was");
        }
        buffer.clear();
        buffer.resize(size.min(head.capacity) as usize, 0);
        for (offset, error) in read_all(&file, buffer) {
            self.fault(&path, offset, &error);
        }
        if self.left.newest != 0 && head.first_sequence != self.left.next_sequence {
            self.fault(&path, START, &"records before this segment are missing");
        }
        clock.seen(SessionId(head.clock));
        let walk = walk(buffer, head, end);
        for offset in walk.faults {
            self.fault(&path, offset, &"a record cannot be read");
        }
        for (offset, record) in walk.records {
            clock.seen(record.frame.id.session);
            let place = Place {
                generation: head.seal.generation,
                offset: offset as u32,
                length: record.frame.length() as u32,
            };
            if let Err(error) = apply(&mut self.index, place, &record) {
                self.fault(&path, offset, &error);
            }
        }
        if walk.torn > 0 {
            events::spool_torn(&path, walk.end, walk.torn);
            self.torn += walk.torn;
        }
        self.left.newest_end = walk.end;
        self.left.next_sequence = walk.next_sequence;
        self.left.shelf.put(Arc::new(Segment {
            file,
            seal: head.seal,
        }));
        Ok(())
    }

    /// Removes large messages' files that no record names. Not after damage: they may be all that
    /// is left of a message.
    fn match_large(&mut self, large: &Large) -> Result<(), Error> {
        let files = large
            .names()
            .map_err(|e| Error::directory(large.directory(), e))?;
        let named = |id: &SpoolId| {
            let entry = self.index.find(*id);
            entry.is_some_and(|entry| entry.stored() == Stored::InFile)
        };
        if self.faults == 0 {
            let orphans = files.iter().filter(|id| !named(id));
            orphans.for_each(|id| large.remove(*id));
        }
        for id in self.index.ids().into_iter().map(SpoolId::from) {
            let entry = self.index.find(id);
            let in_file = entry.is_some_and(|entry| entry.stored() == Stored::InFile);
            if in_file && !files.contains(&id) {
                self.fault(&large.path(id), 0, &"the message's file is missing");
            }
        }
        Ok(())
    }
}

/// Fills the buffer, with zeros for what cannot be read. Gives where and why.
fn read_all(file: &File, buffer: &mut [u8]) -> Vec<(u64, io::Error)> {
    const PIECE: usize = 4096;
    if file.read_exact_at(buffer, 0).is_ok() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (number, piece) in buffer.chunks_mut(PIECE).enumerate() {
        let offset = (number * PIECE) as u64;
        if let Err(error) = file.read_exact_at(piece, offset) {
            piece.fill(0);
            faults.push((offset, error));
        }
    }
    faults
}

/// Does again what the record tells of.
fn apply(index: &mut Index, place: Place, record: &Record<'_>) -> Result<(), serde_json::Error> {
    let id = record.frame.id;
    match record.frame.kind {
        Kind::Accept => {
            let meta: Meta<'_> = record.parse()?;
            let stored = if record.frame.in_file {
                Stored::InFile
            } else {
                Stored::InLog
            };
            let recipients = meta.envelope.recipients.len();
            let size = record.frame.body_length;
            index.insert(id, Entry::new(place, recipients, size, stored, meta.state));
        }
        Kind::Result => {
            let results: Vec<(usize, Mark)> = record.parse()?;
            let recipients = results.iter().filter_map(|(at, _)| u32::try_from(*at).ok());
            index.mark(id, &recipients.collect::<Vec<_>>());
        }
        Kind::Defer => {
            let Deferral { due, attempts } = record.parse()?;
            index.defer(id, due, attempts);
        }
        Kind::Hold => {
            index.hold(id, record.parse()?);
        }
        Kind::Release => {
            index.release(id, record.parse()?);
        }
        Kind::Done => {
            index.remove(id);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeSet;

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
    use crate::spool::disk::Disk;
    use crate::spool::library::Library;
    use crate::spool::record::Body;
    use crate::spool::record::Draft;
    use crate::spool::record::State;
    use crate::spool::record::checksum;
    use crate::spool::segment::SegmentLog;

    fn id(serial: u32) -> SpoolId {
        SpoolId {
            session: SessionId(77),
            serial,
        }
    }

    fn accept(serial: u32, size: usize) -> Draft {
        let to = Address::parse("b@there.example").unwrap();
        let envelope = Envelope {
            from: ReversePath::Null,
            recipients: vec![Recipient::new(to)],
            body: Octets::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            client: None,
        };
        let meta = Meta {
            envelope: Cow::Owned(envelope),
            arrived: 1,
            state: State::default(),
        };
        let content = Content::from(Bytes::from(vec![b'x'; size]));
        let checksum = checksum(&content);
        Draft::accept(id(serial), &meta, Body::Here(content), checksum)
    }

    fn done(serial: u32) -> Draft {
        Draft::note(Kind::Done, id(serial), &())
    }

    /// A directory with what these batches leave there, in segments of so many octets.
    fn run(size: u64, batches: &[Vec<Draft>]) -> TempDir {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("large")).unwrap();
        let mut log = begin(directory.path(), size);
        for batch in batches {
            log.write(batch).unwrap();
        }
        directory
    }

    fn begin(directory: &Path, size: u64) -> SegmentLog {
        let config = Config {
            segment_size: ByteSize(size),
            keep_free: ByteSize(0),
            ..Config::default()
        };
        let (left, clock) = (again(directory).left, Arc::default());
        let lock = File::create(directory.join("lock")).unwrap();
        SegmentLog::new(
            Disk::default(),
            directory.into(),
            &config,
            clock,
            left,
            lock,
        )
    }

    fn large(directory: &Path) -> Large {
        Large::new(Disk::default(), directory.join("large"))
    }

    fn again(directory: &Path) -> Recovered {
        let clock = SessionClock::default();
        recover(directory, &large(directory), &clock).unwrap()
    }

    fn serials(recovered: &Recovered) -> BTreeSet<u32> {
        recovered
            .index
            .ids()
            .into_iter()
            .map(|key| SpoolId::from(key).serial)
            .collect()
    }

    /// Checks what is left when the segment `bytes` stand in place of the sound one.
    fn check(
        directory: &Path,
        generation: u32,
        bytes: &[u8],
        acknowledged: &[u32],
        what: &str,
    ) -> BTreeSet<u32> {
        // Not emptied first: some file systems sync a file that was.
        let file = File::options()
            .write(true)
            .open(path(directory, generation));
        let file = file.unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        let recovered = again(directory);
        let found = serials(&recovered);
        let loud = recovered.faults > 0 || recovered.torn > 0;
        let exact = found.iter().copied().eq(acknowledged.iter().copied());
        assert!(exact || loud, "{what}: {found:?} and no report");
        let shelf = Arc::new(recovered.left.shelf);
        let library = Library::new(recovered.index, large(directory), shelf);
        for serial in &found {
            assert!(library.load(id(*serial)).is_ok(), "{what}: {serial}");
        }
        found
    }

    #[test]
    fn a_log_cut_or_changed_at_any_octet_gives_what_was_acknowledged_or_a_report() {
        let batches = [
            vec![accept(1, 20), accept(2, 33)],
            vec![accept(3, 0)],
            vec![done(2), accept(4, 70)],
            vec![done(3)],
            vec![accept(5, 7), accept(6, 7)],
        ];
        let acknowledged = [1, 4, 5, 6];
        // One segment in which all is written; and two, the first of which is sealed.
        for size in [10_400, START + 900] {
            let directory = run(size, &batches);
            let directory = directory.path();
            let sound = again(directory);
            assert!(serials(&sound).into_iter().eq(acknowledged));
            assert_eq!((sound.faults, sound.torn), (0, 0));
            for generation in 1..=sound.left.newest {
                let bytes = fs::read(path(directory, generation)).unwrap();
                let end = bytes.iter().rposition(|octet| *octet != 0).unwrap() + 64;
                for at in (0..64).chain(4096..4160).chain(START as usize..end) {
                    let at = at.min(bytes.len() - 1);
                    let mut changed = bytes.clone();
                    changed[at] ^= 1 << (at % 8);
                    let what = format!("size {size} segment {generation} octet {at}");
                    let found = check(directory, generation, &changed, &acknowledged, &what);
                    // One record at most, or the newest batch.
                    let lost = acknowledged.iter().filter(|serial| !found.contains(serial));
                    let lost: Vec<_> = lost.copied().collect();
                    assert!(lost.len() < 2 || lost == [5, 6], "{what}: {lost:?}");
                    check(directory, generation, &bytes[..at], &acknowledged, &what);
                }
                fs::write(path(directory, generation), &bytes).unwrap();
            }
        }
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
        assert_eq!(recovered.left.sealed[0].afterlife, Afterlife::SetAside);
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
        let refused = recover(
            directory.path(),
            &large(directory.path()),
            &SessionClock::default(),
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
        std::os::unix::fs::symlink(&file, &file).unwrap();
        let clock = SessionClock::default();
        let refused = recover(directory.path(), &large(directory.path()), &clock);
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
        recover(directory.path(), &large(directory.path()), &clock).unwrap();
        assert_eq!(clock.next(std::time::UNIX_EPOCH), SessionId(78));
    }
}
