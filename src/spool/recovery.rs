//! Finds out what an earlier run left: what is in the spool is what the records say, oldest segment
//! first.
//!
//! [`look`] does what is needed before mail can be taken: it opens all segments and reads the newest,
//! which tells where the log goes on; what is torn behind that is cut off for good by the head of the
//! segment that this start begins. [`Rest::load`] reads the others while mail is taken.
//! Damage is reported, its segment is later set aside, and everything that is sound is kept. It never
//! stops the start; a segment of another version does, untouched.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Instant;

use nix::errno::Errno;

use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::clock::SessionClock;
use crate::spool::disk::Disk;
use crate::spool::head::Head;
use crate::spool::head::NoHead;
use crate::spool::head::START;
use crate::spool::head::VERSION;
use crate::spool::index::Index;
use crate::spool::large::Large;
use crate::spool::reading::Reading;
use crate::spool::reading::read_all;
use crate::spool::segment::Afterlife;
use crate::spool::segment::Found;
use crate::spool::segment::Left;
use crate::spool::segment::Sealed;
use crate::spool::segment::Spare;
use crate::spool::segment::path;
use crate::spool::shelf::Segment;
use crate::spool::shelf::Shelf;
use crate::telemetry::events;

/// A segment that an earlier run left.
#[derive(Debug)]
struct Earlier {
    generation: u32,
    /// None where it is damaged.
    found: Option<(Arc<Segment>, Head)>,
}

/// What is still to be read.
#[derive(Debug, Default)]
pub(super) struct Rest {
    directory: PathBuf,
    segments: Vec<Earlier>,
    /// Of the newest segment that can be read.
    newest: Option<Reading>,
    /// Which messages had a file of their own.
    files: HashSet<SpoolId>,
    /// Where the log finds its segments again.
    found: Found,
}

/// What an earlier run left, when all of it is read.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// How many there were.
    pub(super) segments: usize,
    /// Which messages had a file of their own when the spool was opened.
    pub(super) files: HashSet<SpoolId>,
    /// Places that cannot be read. Each was reported.
    pub(super) faults: usize,
    /// Octets of a batch that was not finished.
    pub(super) torn: u64,
}

/// Looks through `directory`, as far as it must be known before mail is taken. Sets the clock above
/// every id there: a segment's head tells the highest that was in use before it was begun, so only
/// the newest one's records can have higher ones. Blocks on the disk.
pub(super) fn look(
    disk: &Disk,
    directory: &Path,
    large: &Large,
    clock: &SessionClock,
) -> Result<(Left, Rest), Error> {
    let (generations, spares) = list(directory).map_err(|e| Error::directory(directory, e))?;
    let files = large.names();
    let files = files.map_err(|e| Error::directory(large.directory(), e))?;
    files.iter().for_each(|id| clock.seen(id.session));
    let mut left = Left {
        shelf: Arc::new(Shelf::default().on(disk.clone())),
        spares: spares
            .into_iter()
            .map(|path| Spare { path, written: 0 })
            .collect(),
        found: Found::default(),
        newest: generations.last().copied().unwrap_or_default(),
        newest_end: START,
        next_sequence: 0,
    };
    let mut segments = Vec::with_capacity(generations.len());
    for generation in generations {
        let found = open(disk, directory, generation)?;
        if let Some((segment, head)) = &found {
            clock.seen(SessionId(head.clock));
            left.shelf.put(Arc::clone(segment));
        }
        segments.push(Earlier { generation, found });
    }
    let mut rest = Rest {
        directory: directory.to_owned(),
        segments,
        newest: None,
        files,
        found: Arc::clone(&left.found),
    };
    let readable = rest.segments.iter().rposition(|s| s.found.is_some());
    let newest = readable.and_then(|at| rest.read(disk, at));
    if let Some((reading, _)) = newest {
        let records = reading.digest.records();
        records.for_each(|(id, _, _)| clock.seen(id.session));
        left.next_sequence = reading.digest.next_sequence;
        if reading.digest.seal.generation == left.newest {
            left.newest_end = reading.digest.end;
        }
        rest.newest = Some(reading);
    }
    Ok((left, rest))
}

/// The generations and the spare files that there are. Other names are left alone.
pub(super) fn list(directory: &Path) -> io::Result<(Vec<u32>, Vec<PathBuf>)> {
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

/// Opens a segment. None where it is damaged; an error where it is of another version, or cannot be
/// had now.
pub(super) fn open(
    disk: &Disk,
    directory: &Path,
    generation: u32,
) -> Result<Option<(Arc<Segment>, Head)>, Error> {
    let path = path(directory, generation);
    let opened = File::open(&path).and_then(|file| {
        let size = file.metadata()?.len();
        Ok((file, size))
    });
    let (file, size) = match opened {
        Ok(opened) => opened,
        Err(error) => return damage(&path, error).map(|_| None),
    };
    let mut front = vec![0; START.min(size) as usize];
    let faults = read_all(disk, &file, &mut front);
    match Head::read(&front) {
        Ok(head) if head.seal.generation == generation => {
            let seal = head.seal;
            Ok(Some((Arc::new(Segment { file, seal }), head)))
        }
        Ok(_) | Err(NoHead::Broken) => match faults.into_iter().next() {
            Some((_, error)) => damage(&path, error).map(|_| None),
            None => Ok(None),
        },
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

impl Rest {
    /// Reads the segment at this place in the list, if it was not read yet. None where it is damaged.
    fn read(&mut self, disk: &Disk, at: usize) -> Option<(Reading, Head)> {
        let earlier = self.segments.get(at)?;
        let (segment, head) = earlier.found.as_ref()?;
        let read = |reading: &mut Reading| reading.digest.seal == head.seal;
        let next = self.segments.get(at + 1);
        let next = next.filter(|next| next.generation == earlier.generation + 1);
        let next = next.and_then(|next| Some(&next.found.as_ref()?.1));
        let reading = self.newest.take_if(read);
        let reading = reading
            .unwrap_or_else(|| Reading::of(disk, &self.directory, &segment.file, head, next));
        Some((reading, *head))
    }

    /// Reads all segments. None where it was told to stop. Blocks on the disk.
    pub(super) fn load(mut self, disk: &Disk, stop: &AtomicBool) -> Option<Recovered> {
        let mut recovered = Recovered::default();
        let mut sealed = VecDeque::with_capacity(self.segments.len());
        let mut expected = None;
        for at in 0..self.segments.len() {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let generation = self.segments[at].generation;
            let file = path(&self.directory, generation);
            if at > 0 && self.segments[at - 1].generation + 1 != generation {
                let missing = path(&self.directory, self.segments[at - 1].generation + 1);
                recovered.fault(&missing, 0, &"the segment is missing");
            }
            let faults = recovered.faults;
            let mut written = START;
            match self.read(disk, at) {
                Some((reading, head)) => {
                    if expected.is_some_and(|expected| expected != head.first_sequence) {
                        let reason = "records before this segment are missing";
                        recovered.fault(&file, START, &reason);
                    }
                    expected = Some(reading.digest.next_sequence);
                    written = reading.digest.end;
                    recovered.take(&reading, &file);
                    reading.keep(disk, &self.directory, &head);
                }
                None => recovered.fault(&file, 0, &"the segment's head cannot be read"),
            }
            sealed.push_back(Sealed {
                generation,
                since: Instant::now(),
                afterlife: if recovered.faults == faults {
                    Afterlife::Recycle
                } else {
                    Afterlife::SetAside
                },
                written,
            });
        }
        recovered.segments = sealed.len();
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = sealed;
        recovered.files = self.files;
        Some(recovered)
    }
}

impl Recovered {
    fn fault(&mut self, file: &Path, offset: u64, reason: &dyn std::fmt::Display) {
        self.faults += 1;
        events::spool_corrupt(file, offset, reason);
    }

    fn take(&mut self, reading: &Reading, file: &Path) {
        let (mut records, mut lines) = (0, reading.digest.records());
        for (id, place, change) in lines.by_ref() {
            change.apply(&mut self.index, id, place);
            records += 1;
        }
        if reading.found && !reading.digest.is_all(records, &lines) {
            self.fault(file, START, &"its digest does not say what it has");
        }
        self.faults += reading.faults;
        self.torn += reading.torn;
    }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
