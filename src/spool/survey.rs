//! Reads the whole log and touches nothing: what is in the queue, how far each message has come, and
//! each place that is not as it was written.
//!
//! It takes no lock, so a gateway may write meanwhile. What then looks wrong in one reading is gone
//! in the next; telling the two apart is for [`super::verify`]. Blocks on the disk, and holds one
//! segment in memory at a time.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::Mark;
use crate::spool::change::Change;
use crate::spool::disk::Disk;
use crate::spool::entry::Place;
use crate::spool::head::Head;
use crate::spool::head::START;
use crate::spool::index::Index;
use crate::spool::reading;
use crate::spool::record::ALIGN;
use crate::spool::record::Frame;
use crate::spool::record::Kind;
use crate::spool::record::Meta;
use crate::spool::record::Record;
use crate::spool::record::Seal;
use crate::spool::recovery;
use crate::spool::segment::path;
use crate::spool::walk::Walk;
use crate::spool::walk::walk;

/// What the log tells.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// What is in the queue.
    pub(super) index: Index,
    /// What became of recipients of messages in the queue, as far as the log still says: a message
    /// that was copied forward says only which of them are done with.
    pub(super) marks: HashMap<SpoolId, BTreeMap<usize, Mark>>,
    /// Length and checksum of each large message in the queue.
    pub(super) large: HashMap<SpoolId, (u32, u32)>,
    /// Messages of which the log says that they are done.
    pub(super) finished: HashSet<SpoolId>,
    /// The segments, oldest first.
    pub(super) seals: Vec<Seal>,
    /// Octets of the segments' files.
    pub(super) octets: u64,
    pub(super) records: Records,
    pub(super) gaps: Vec<Gap>,
    /// The end of the newest segment, and octets behind it that a write which was not finished left.
    pub(super) torn: Option<(PathBuf, u64, u64)>,
    next_sequence: u64,
}

/// How many records there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Records {
    /// Messages, also those that were copied forward.
    pub accept: u64,
    /// Marks for some recipients.
    pub result: u64,
    /// Attempts that were put off.
    pub defer: u64,
    /// Messages held.
    pub hold: u64,
    /// Messages released.
    pub release: u64,
    /// Messages finished.
    pub done: u64,
}

/// A place in the log that is not as it was written.
#[derive(Debug)]
pub(super) struct Gap {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    /// What is seen.
    pub(super) what: String,
    /// What seems to have stood there.
    pub(super) remains: Vec<(Kind, SpoolId)>,
}

impl Survey {
    /// Reads the spool in this directory.
    pub(super) fn read(directory: &Path) -> Result<Survey, Error> {
        let disk = Disk::default();
        let segments = directory.join("segments");
        let (generations, _) =
            recovery::list(&segments).map_err(|e| Error::directory(&segments, e))?;
        let mut heads = BTreeMap::new();
        for generation in &generations {
            let found = recovery::open(&disk, &segments, *generation)?;
            heads.insert(*generation, found.map(|(_, head)| head));
        }
        let mut survey = Survey::default();
        let mut buffer = Vec::new();
        for (at, generation) in generations.iter().enumerate() {
            if at > 0 && generations[at - 1] + 1 != *generation {
                let file = path(&segments, generations[at - 1] + 1);
                survey.gap(&file, 0, "the segment is missing", Vec::new());
            }
            let file = path(&segments, *generation);
            let Some(head) = heads.get(generation).copied().flatten() else {
                survey.gap(&file, 0, "the segment's head cannot be read", Vec::new());
                continue;
            };
            let next = heads.get(&(generation + 1)).copied().flatten();
            let end = next.map(|next| next.previous_end);
            if let Err(error) = survey.segment(&file, &head, end, &mut buffer) {
                survey.gap(&file, 0, &error.to_string(), Vec::new());
            }
        }
        Ok(survey)
    }

    /// Whether the log says anything of this message.
    pub(super) fn knows(&self, id: SpoolId) -> bool {
        self.index.contains(id) || self.finished.contains(&id)
    }

    fn gap(&mut self, file: &Path, offset: u64, what: &str, remains: Vec<(Kind, SpoolId)>) {
        self.gaps.push(Gap {
            file: file.to_owned(),
            offset,
            what: what.to_owned(),
            remains,
        });
    }

    fn segment(
        &mut self,
        file: &Path,
        head: &Head,
        end: Option<u64>,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let opened = File::open(file)?;
        let size = opened.metadata()?.len();
        if size < head.capacity {
            self.gap(file, size, "the file is shorter than it was", Vec::new());
        }
        buffer.clear();
        buffer.resize(size.min(head.capacity) as usize, 0);
        for (offset, error) in reading::read_all(&Disk::default(), &opened, buffer) {
            self.gap(file, offset, &error.to_string(), Vec::new());
        }
        if !self.seals.is_empty() && head.first_sequence != self.next_sequence {
            let what = "records before this segment are missing";
            self.gap(file, START, what, Vec::new());
        }
        let walk = walk(buffer, head, end);
        for fault in &walk.faults {
            let (what, remains) = look_into(buffer, head.seal, &walk, *fault);
            self.gap(file, *fault, &what, remains);
        }
        for (offset, record) in &walk.records {
            let place = Place {
                generation: head.seal.generation,
                offset: *offset as u32,
                length: record.frame.length() as u32,
            };
            if let Err(error) = self.take(place, record) {
                let what = format!("the text of a record cannot be read: {error}");
                let remains = vec![(record.frame.kind, record.frame.id)];
                self.gap(file, *offset, &what, remains);
            }
        }
        if walk.torn > 0 {
            self.torn = Some((file.to_owned(), walk.end, walk.torn));
        }
        self.seals.push(head.seal);
        self.octets += size;
        self.next_sequence = walk.next_sequence;
        Ok(())
    }

    /// Does again what the record tells of, and keeps what the index does not.
    fn take(&mut self, place: Place, record: &Record<'_>) -> Result<(), serde_json::Error> {
        let frame = record.frame;
        self.records.count(frame.kind);
        match frame.kind {
            Kind::Accept => {
                // A start looks at no envelope.
                record.parse::<Meta<'_>>()?;
                if frame.in_file {
                    let told = (frame.body_length, frame.body_checksum);
                    self.large.insert(frame.id, told);
                }
            }
            Kind::Result => {
                let results: Vec<(usize, Mark)> = record.parse()?;
                self.marks.entry(frame.id).or_default().extend(results);
            }
            Kind::Defer | Kind::Hold | Kind::Release | Kind::Done => (),
        }
        let change = Change::of(record)?;
        let was_there = self.index.contains(frame.id);
        change.apply(&mut self.index, frame.id, place);
        let is_gone = was_there && !self.index.contains(frame.id);
        if is_gone || frame.kind == Kind::Done {
            self.marks.remove(&frame.id);
            self.large.remove(&frame.id);
            self.finished.insert(frame.id);
        }
        Ok(())
    }
}

impl Records {
    fn count(&mut self, kind: Kind) {
        let counter = match kind {
            Kind::Accept => &mut self.accept,
            Kind::Result => &mut self.result,
            Kind::Defer => &mut self.defer,
            Kind::Hold => &mut self.hold,
            Kind::Release => &mut self.release,
            Kind::Done => &mut self.done,
        };
        *counter += 1;
    }
}

/// What is seen at a fault, and which records seem to have stood there.
fn look_into(
    segment: &[u8],
    seal: Seal,
    walk: &Walk<'_>,
    from: u64,
) -> (String, Vec<(Kind, SpoolId)>) {
    let next = walk.records.iter().find(|(offset, _)| *offset >= from);
    let until = next.map_or(walk.end, |(offset, _)| *offset);
    let before = walk.records.iter().rev().find(|(offset, _)| *offset < from);
    let mut remains = Vec::new();
    let mut at = from as usize;
    while at < (until as usize).min(segment.len()) {
        // A body that is damaged leaves its frame; what stands in the body is not looked at.
        match Frame::read(&segment[at..], seal) {
            Some(frame) if frame.is_sound(seal, &segment[at..]) => {
                remains.push((frame.kind, frame.id));
                at += frame.length().max(ALIGN);
            }
            Some(frame) => {
                remains.push((frame.kind, frame.id));
                at += ALIGN;
            }
            None => at += ALIGN,
        }
    }
    let missing = match (before, next) {
        (Some((_, before)), Some((_, next))) => {
            let (first, last) = (before.frame.sequence + 1, next.frame.sequence);
            last.saturating_sub(first)
        }
        _ => 0,
    };
    let octets = until.saturating_sub(from);
    let what = match missing {
        0 | 1 => format!("a record cannot be read ({octets} octets)"),
        many => format!("{many} records cannot be read ({octets} octets)"),
    };
    (what, remains)
}

/// The files of segments that an earlier start has set aside.
pub(super) fn set_aside(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.join("segments"))? {
        let file = entry?.path();
        if file.extension().is_some_and(|end| end == "damaged") {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::SystemTime;

    use bytes::Bytes;
    use bytesize::ByteSize;
    use tempfile::TempDir;

    use super::*;
    use crate::mail::address::Address;
    use crate::mail::address::ReversePath;
    use crate::mail::content::Content;
    use crate::mail::envelope::Body;
    use crate::mail::envelope::Envelope;
    use crate::mail::envelope::Recipient;
    use crate::mail::id::SessionId;
    use crate::spool;
    use crate::spool::Config;
    use crate::spool::Fate;
    use crate::spool::clock::SessionClock;
    use crate::spool::digest;
    use crate::spool::large::Large;

    fn id(serial: u32) -> SpoolId {
        let session = SessionId(5);
        SpoolId { session, serial }
    }

    /// A spool in which a bit of everything has happened, in two segments.
    async fn filled() -> TempDir {
        let directory = TempDir::new().unwrap();
        let config = Config {
            segment_size: ByteSize::kib(16),
            keep_free: ByteSize(0),
            ..Config::default()
        };
        let to = |n| Recipient::new(Address::parse(&format!("r{n}@there.example")).unwrap());
        for round in 0..2 {
            let (spool, _arrivals) = spool::open(directory.path(), &config).unwrap();
            for serial in round * 4..round * 4 + 4 {
                let envelope = Envelope {
                    from: ReversePath::Null,
                    recipients: (0..2).map(to).collect(),
                    body: Body::SevenBit,
                    smtputf8: false,
                    ret: None,
                    envid: None,
                    client: None,
                    hello: None,
                    login: None,
                    forged: false,
                    requiretls: false,
                };
                let content = Content::from(Bytes::from(vec![b'x'; 20]));
                let stored = spool.store(id(serial), envelope, content, Fate::Deliver);
                stored.await.unwrap();
            }
            spool.mark(id(round), vec![(0, Mark::Delivered), (1, Mark::Delivered)]);
            spool.mark(id(2), vec![(0, Mark::Failed("why".to_owned()))]);
            spool.defer(id(3), SystemTime::now(), 1);
            spool.hold(id(3), "why".to_owned());
            spool.close().await;
        }
        directory
    }

    #[tokio::test]
    async fn it_finds_what_a_start_finds_wherever_an_octet_is_changed() {
        let directory = filled().await;
        let segments = directory.path().join("segments");
        let large = Large::new(Disk::default(), directory.path().join("large"));
        let sound = Survey::read(directory.path()).unwrap();
        assert!(sound.gaps.is_empty() && sound.torn.is_none(), "{sound:?}");
        assert_eq!(sound.records.accept, 8);
        assert_eq!(sound.finished.len(), 2);
        let failed = BTreeMap::from([(0, Mark::Failed("why".to_owned()))]);
        assert_eq!(sound.marks, HashMap::from([(id(2), failed)]));
        for generation in [1, 2] {
            let file = path(&segments, generation);
            let bytes = fs::read(&file).unwrap();
            let end = bytes.iter().rposition(|octet| *octet != 0).unwrap() + 64;
            for at in (0..64)
                .chain(4096..4160)
                .chain((START as usize..end).step_by(3))
            {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                fs::write(&file, &changed).unwrap();
                let survey = Survey::read(directory.path());
                // Else the start would believe what the segments' digests say of them.
                (1..=2)
                    .for_each(|generation| digest::remove(&Disk::default(), &segments, generation));
                let looked = recovery::look(
                    &Disk::default(),
                    &segments,
                    &large,
                    &SessionClock::default(),
                );
                let (Ok(survey), Ok((_, rest))) = (survey, looked) else {
                    panic!("segment {generation} octet {at} keeps one of them from looking");
                };
                let started = rest.load(&Disk::default(), &AtomicBool::default()).unwrap();
                let what = format!("segment {generation} octet {at}: {survey:?}");
                assert_eq!(survey.index.ids(), started.index.ids(), "{what}");
                assert_eq!(survey.gaps.len(), started.faults, "{what}");
                let torn = survey.torn.as_ref().map_or(0, |(_, _, torn)| *torn);
                assert_eq!(torn, started.torn, "{what}");
            }
            fs::write(&file, &bytes).unwrap();
        }
    }
}
