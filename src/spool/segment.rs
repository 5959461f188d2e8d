//! The log on disk: segments, files of one size that are written once from front to end.
//!
//! A segment's file is called by its generation and begins with a [`Head`]. Records follow, batch after batch, each synced before the
//! next is written; behind the newest batch stands a blank frame, so that a clean end is told from a
//! torn one. The head also says where its predecessor ends: what stands behind that place there is
//! the rest of a batch that failed or was torn, and was never acknowledged.
//!
//! A file and its directory are synced before the first record in it is acknowledged. A segment
//! whose write or sync failed is retired: nothing is written to it again.
//! When a segment is sealed, its [`Digest`] is written beside it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::io::IoSlice;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Instant;

use bytesize::ByteSize;
use rand::Rng;

use crate::mail::id::SpoolId;
use crate::spool::Config;
use crate::spool::Error;
use crate::spool::change::Change;
use crate::spool::clock::SessionClock;
use crate::spool::digest::Digest;
use crate::spool::disk::Disk;
use crate::spool::entry::Place;
use crate::spool::head::COPIES;
use crate::spool::head::Head;
use crate::spool::head::START;
use crate::spool::log::Failed;
use crate::spool::log::Trace;
use crate::spool::record::ALIGN;
use crate::spool::record::Draft;
use crate::spool::record::End;
use crate::spool::record::FRAME;
use crate::spool::record::Seal;
use crate::spool::shelf::Segment;
use crate::spool::shelf::Shelf;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// How far a file is written through with zeros before the records come. A sync of octets in space
/// that was never written costs the file system a transaction of its own, several times as much.
const AHEAD: u64 = 1024 * 1024;
const FULL: io::ErrorKind = io::ErrorKind::StorageFull;

/// What becomes of a segment's file once nothing in it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterlife {
    /// It is written over.
    Recycle,
    /// It is removed: a write or sync in it failed.
    Remove,
    /// It is kept for the operator: something in it could not be read.
    SetAside,
}

/// A segment that is not written to any longer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    pub(super) generation: u32,
    pub(super) since: Instant,
    pub(super) afterlife: Afterlife,
    /// Up to where the file was ever written, at least.
    pub(super) written: u64,
}

/// The segments that an earlier run left, oldest first, once they are read.
pub(super) type Found = Arc<Mutex<VecDeque<Sealed>>>;

/// A file that can be written over.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    /// Up to where it was ever written, at least.
    pub(super) written: u64,
}

/// The segment that is written to, and up to where.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    end: u64,
    /// Up to where the file was ever written.
    written: u64,
    /// None where it grew too long to be worth it.
    digest: Option<Digest>,
}

/// The segmented log. What it does with its space stands in [`super::space`].
#[derive(Debug)]
pub(super) struct SegmentLog {
    pub(super) disk: Disk,
    /// Where the segments are.
    pub(super) directory: PathBuf,
    pub(super) capacity: u64,
    pub(super) floor: u64,
    pub(super) shelf: Arc<Shelf>,
    /// Oldest first. They go in this order, so that what a record says of an earlier one is never
    /// forgotten before the earlier one.
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) spares: Vec<Spare>,
    pub(super) moving: VecDeque<SpoolId>,
    pub(super) found: Found,
    /// Those that were found are among the sealed, and their messages in the index.
    pub(super) loaded: bool,
    active: Option<Active>,
    /// The generation of the newest segment, and where it ends.
    newest: u32,
    newest_end: u64,
    next_sequence: u64,
    clock: Arc<SessionClock>,
    _lock: File,
}

/// The segments that an earlier run left.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) shelf: Arc<Shelf>,
    pub(super) spares: Vec<Spare>,
    pub(super) found: Found,
    /// The generation of the newest segment, or 0, and where it ends.
    pub(super) newest: u32,
    pub(super) newest_end: u64,
    pub(super) next_sequence: u64,
}

/// The file of a segment.
pub(super) fn path(directory: &Path, generation: u32) -> PathBuf {
    directory.join(format!("{generation:010}"))
}

impl SegmentLog {
    /// A log that goes on where an earlier run stopped. It holds `lock` for as long as it lives.
    pub(super) fn new(
        disk: Disk,
        directory: PathBuf,
        config: &Config,
        clock: Arc<SessionClock>,
        left: Left,
        lock: File,
    ) -> SegmentLog {
        // Places in a segment are u32.
        let size = config.segment_size.as_u64();
        let size = size.clamp(START + 512, u64::from(u32::MAX));
        SegmentLog {
            disk,
            directory,
            capacity: size - size % ALIGN as u64,
            floor: config.keep_free.as_u64(),
            shelf: left.shelf,
            sealed: VecDeque::new(),
            spares: left.spares,
            moving: VecDeque::new(),
            found: left.found,
            loaded: false,
            active: None,
            newest: left.newest,
            newest_end: left.newest_end,
            next_sequence: left.next_sequence,
            clock,
            _lock: lock,
        }
    }

    /// What reads from it.
    pub(super) fn reader(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelf)
    }

    /// The most octets of records that fit into one segment.
    pub(super) fn usable(&self) -> usize {
        (self.capacity - START) as usize - FRAME
    }

    /// Segments' files there are.
    pub(super) fn files(&self) -> usize {
        self.sealed.len() + self.spares.len() + usize::from(self.active.is_some())
    }

    /// Appends the batch and syncs it. After an error nothing of it counts: the next segment's head
    /// says that this one ended before it.
    pub(super) fn write(&mut self, batch: &[Draft]) -> Result<Vec<Place>, Failed> {
        let size = batch.iter().map(Draft::length).sum::<usize>() as u64;
        let fits = |active: &Active| active.end + size + FRAME as u64 <= self.capacity;
        if !self.active.as_ref().is_some_and(fits) {
            self.seal(Afterlife::Recycle);
            self.begin().map_err(|error| Failed {
                error,
                trace: Trace::None,
            })?;
        }
        let Some(active) = &mut self.active else {
            return Err(Failed {
                error: Error::Closed,
                trace: Trace::None,
            });
        };
        let end = active.end + size;
        let mut blank = end + FRAME as u64;
        if blank > active.written {
            blank = (end + AHEAD).min(self.capacity);
        }
        let (range, sequence) = (active.end..blank, self.next_sequence);
        match put(&self.disk, &active.segment, range, sequence, batch) {
            Ok(places) => {
                active.end = end;
                active.written = active.written.max(blank);
                active.digest(batch, &places, self.capacity);
                self.newest_end = end;
                self.next_sequence += batch.len() as u64;
                Ok(places)
            }
            Err(source) => {
                let path = path(&self.directory, self.newest);
                self.seal(Afterlife::Remove);
                // Its head says that the batch does not count, even if it came to the disk after
                // all. Where this fails, too, the next batch tries again.
                let trace = match self.begin() {
                    Ok(()) => Trace::None,
                    Err(_) => Trace::Doubtful,
                };
                let error = Error::append(path, source);
                Err(Failed { error, trace })
            }
        }
    }

    fn seal(&mut self, afterlife: Afterlife) {
        if let Some(active) = self.active.take() {
            if let Some(digest) = active.digest {
                digest.write(&self.disk, &self.directory);
            }
            self.sealed.push_back(Sealed {
                generation: active.segment.seal.generation,
                since: Instant::now(),
                afterlife,
                written: active.written,
            });
        }
    }

    /// Begins a new segment, in a spare file where there is one. It is on disk when this returns.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        let generation = self.newest + 1;
        let new = path(&self.directory, generation);
        let head = Head {
            seal: Seal {
                generation,
                salt: rand::rng().random(),
            },
            first_sequence: self.next_sequence,
            previous_end: self.newest_end,
            capacity: self.capacity,
            clock: self.clock.highest().0,
        };
        // A spare that fails here is left alone from now on.
        let spare = self.spares.pop();
        let written = spare.as_ref().map_or(START, |spare| spare.written);
        let file = match make(&self.disk, &self.directory, &new, spare, &head) {
            Ok(file) => file,
            Err(error) if error.kind() == FULL => {
                return Err(Error::Full {
                    free: ByteSize(self.disk.free_space(&self.directory).unwrap_or_default()),
                    floor: ByteSize(self.floor.max(self.capacity)),
                });
            }
            Err(error) => return Err(Error::append(new, error)),
        };
        let segment = Arc::new(Segment {
            file,
            seal: head.seal,
        });
        self.shelf.put(Arc::clone(&segment));
        self.active = Some(Active {
            segment,
            end: START,
            written,
            digest: Some(Digest::of(&head)),
        });
        self.newest = generation;
        self.newest_end = START;
        Ok(())
    }
}

/// Nothing more is written, so the next start need not read the newest segment.
impl Drop for SegmentLog {
    fn drop(&mut self) {
        self.seal(Afterlife::Recycle);
    }
}

impl Active {
    /// Adds a batch that is on disk to the digest.
    fn digest(&mut self, batch: &[Draft], places: &[Place], capacity: u64) {
        let Some(mut digest) = self.digest.take() else {
            return;
        };
        for (draft, place) in batch.iter().zip(places) {
            let Ok(change) = Change::of_draft(draft) else {
                return;
            };
            digest.push(draft.id, *place, &change);
        }
        self.digest = Some(digest).filter(|digest| digest.is_worth_it(capacity));
    }
}

/// Makes the file of a segment: first all of it, synced, under another name, then the name.
fn make(
    disk: &Disk,
    directory: &Path,
    new: &Path,
    spare: Option<Spare>,
    head: &Head,
) -> io::Result<File> {
    let (file, made) = match spare {
        Some(Spare { path, .. }) => (disk.open(&path)?, path),
        None => {
            let made = directory.join("new");
            (disk.create(&made)?, made)
        }
    };
    if file.metadata()?.len() != head.capacity
        && let Err(error) = disk.allocate(&file, head.capacity)
    {
        // Give back what it took of a disk that is full.
        disk.remove(&made)?;
        return Err(error);
    }
    let mut front = vec![0; START as usize + FRAME];
    for at in COPIES {
        front[at..at + 64].copy_from_slice(&head.bytes());
    }
    disk.write(&file, &mut [IoSlice::new(&front)], 0)?;
    disk.sync(&file)?;
    disk.rename(&made, new)?;
    disk.sync_directory(directory)?;
    Ok(file)
}

/// Writes a batch at the begin of the range and zeros up to its end, without copying, and syncs.
fn put(
    disk: &Disk,
    segment: &Segment,
    range: Range<u64>,
    sequence: u64,
    batch: &[Draft],
) -> io::Result<Vec<Place>> {
    let mut at = range.start;
    let mut frames = Vec::with_capacity(batch.len());
    let mut places = Vec::with_capacity(batch.len());
    for (number, draft) in batch.iter().enumerate() {
        let end = if number + 1 == batch.len() {
            End::OfBatch
        } else {
            End::More
        };
        let sequence = sequence + number as u64;
        frames.push(draft.frame(segment.seal, sequence, number as u16, end));
        places.push(Place {
            generation: segment.seal.generation,
            offset: at as u32,
            length: draft.length() as u32,
        });
        at += draft.length() as u64;
    }
    let mut slices = Vec::with_capacity(5 * batch.len() + 1);
    for (draft, frame) in batch.iter().zip(&frames) {
        slices.push(IoSlice::new(frame));
        slices.extend(draft.parts().map(IoSlice::new));
        let unpadded = FRAME + draft.parts().map(<[u8]>::len).sum::<usize>();
        slices.push(IoSlice::new(&ZEROS[..draft.length() - unpadded]));
    }
    while at < range.end {
        let zeros = (range.end - at).min(ZEROS.len() as u64);
        slices.push(IoSlice::new(&ZEROS[..zeros as usize]));
        at += zeros;
    }
    disk.write(&segment.file, &mut slices, range.start)?;
    disk.sync(&segment.file)?;
    Ok(places)
}
