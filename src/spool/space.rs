//! Takes back the space of what is finished.
//!
//! Segments go oldest first, and only when nothing in them lives. Where one old message keeps many,
//! it is copied forward with its state into the newest segment: after ten minutes with less than a
//! quarter alive, and at once where the disk would hold more than twice the living and four
//! segments. A segment is written over only after its new name is on disk.

use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytesize::ByteSize;

use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::digest;
use crate::spool::entry::Place;
use crate::spool::index::Index;
use crate::spool::index::locked;
use crate::spool::log::Failed;
use crate::spool::log::Log;
use crate::spool::record::Draft;
use crate::spool::segment::Afterlife;
use crate::spool::segment::Sealed;
use crate::spool::segment::SegmentLog;
use crate::spool::segment::Spare;
use crate::spool::segment::path;
use crate::telemetry::events;

/// More files than this are not kept to be written over.
const SPARES: usize = 2;
/// How long mail has to be delivered before it is copied.
const SETTLED: Duration = Duration::from_secs(600);
/// How much is copied beside one batch, so that new mail does not wait for old;
const COPIED_AT_ONCE: usize = 256 * 1024;
/// and at most this part of a segment: what does not fit into the rest of one leaves it unused.
const PART: u64 = 4;

impl Log for SegmentLog {
    fn append(&mut self, batch: &[Draft]) -> Result<Vec<Place>, Failed> {
        self.write(batch)
    }

    fn room(&self) -> Result<(), Error> {
        let free = self.disk.free_space(&self.directory);
        let free = free.map_err(|source| Error::append(self.directory.clone(), source))?;
        // One more segment must always be possible. What is finished frees its space only when its
        // marks are written, and these may need a new segment: without one, a disk that mail has
        // filled would stay full.
        let spare = self.spares.len() as u64 * self.capacity;
        if free < self.floor || free + spare < self.capacity {
            return Err(Error::Full {
                free: ByteSize(free),
                floor: ByteSize(self.floor.max(self.capacity)),
            });
        }
        Ok(())
    }

    fn loaded(&mut self) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.append(&mut self.sealed);
        self.sealed = mem::take(&mut *found);
        drop(found);
        self.loaded = true;
    }

    /// From the oldest on, up to the first in which something lives.
    fn free(&mut self, index: &Mutex<Index>) {
        if !self.loaded {
            return;
        }
        while let Some(oldest) = self.sealed.front().copied() {
            if locked(index).usage(oldest.generation).messages > 0 {
                return;
            }
            digest::remove(&self.disk, &self.directory, oldest.generation);
            // Not out of order: a mark must not go before the message that it is for.
            if let Err(error) = self.let_go(oldest) {
                let file = path(&self.directory, oldest.generation);
                events::spool_failed(&file, &error);
                return;
            }
            self.shelf.remove(oldest.generation);
            self.sealed.pop_front();
            self.moving.clear();
        }
    }

    fn reclaim(&mut self, index: &Mutex<Index>) -> Vec<SpoolId> {
        if !self.loaded {
            return Vec::new();
        }
        self.free(index);
        self.remove_spares(index);
        let Some(oldest) = self.sealed.front() else {
            return Vec::new();
        };
        if self.moving.is_empty() {
            let index = locked(index);
            let space = Space {
                living_in_oldest: index.usage(oldest.generation).octets,
                ..self.space(&index)
            };
            if space.wants_copying(oldest.since.elapsed()) {
                self.moving = index.living_in(oldest.generation).into();
            }
        }
        let generation = oldest.generation;
        let index = locked(index);
        let most = COPIED_AT_ONCE.min((self.capacity / PART) as usize);
        let mut size = 0;
        let mut copied = Vec::new();
        while let Some(id) = self.moving.front() {
            let place = index.find(*id).map(|entry| entry.place);
            if let Some(place) = place.filter(|place| place.generation == generation) {
                size += place.length as usize;
                if size > most && !copied.is_empty() {
                    break;
                }
                copied.push(*id);
            }
            self.moving.pop_front();
        }
        copied
    }

    fn place(&self) -> PathBuf {
        self.directory.clone()
    }

    fn largest_batch(&self) -> usize {
        self.usable()
    }

    fn set_aside(&mut self, place: Place) {
        for sealed in &mut self.sealed {
            if sealed.generation == place.generation {
                sealed.afterlife = Afterlife::SetAside;
                // So that the next start finds what is damaged, too.
                digest::remove(&self.disk, &self.directory, place.generation);
            }
        }
    }
}

impl SegmentLog {
    fn space(&self, index: &Index) -> Space {
        Space {
            segment: self.capacity,
            all: self.files() as u64 * self.capacity,
            living: index.octets(),
            living_in_oldest: 0,
        }
    }

    /// What is kept to be written over goes before anything is copied.
    fn remove_spares(&mut self, index: &Mutex<Index>) {
        while self.space(&locked(index)).is_tight()
            && let Some(spare) = self.spares.pop()
        {
            // Where a crash brings it back, the next start finds a spare.
            if let Err(error) = self.disk.remove(&spare.path) {
                events::spool_failed(&spare.path, &error);
            }
        }
    }

    fn let_go(&mut self, segment: Sealed) -> io::Result<()> {
        let file = path(&self.directory, segment.generation);
        match segment.afterlife {
            // Gone in an earlier try, after which the directory could not be synced.
            _ if !file.exists() => (),
            Afterlife::Recycle if self.spares.len() < SPARES => {
                let path = self.directory.join(format!("spare.{}", segment.generation));
                self.disk.rename(&file, &path)?;
                self.disk.sync_directory(&self.directory)?;
                let written = segment.written;
                self.spares.push(Spare { path, written });
                return Ok(());
            }
            Afterlife::Recycle | Afterlife::Remove => self.disk.remove(&file)?,
            Afterlife::SetAside => {
                let aside = file.with_extension("damaged");
                self.disk.rename(&file, &aside)?;
            }
        }
        self.disk.sync_directory(&self.directory)
    }
}

/// How full the log is, in octets.
#[derive(Debug, Clone, Copy)]
struct Space {
    segment: u64,
    all: u64,
    living: u64,
    living_in_oldest: u64,
}

impl Space {
    /// Whether the disk holds too much. The batch that comes before this is asked again may begin a
    /// segment, and so may the one with the copies, hence two where four are promised.
    fn is_tight(self) -> bool {
        self.all > 2 * self.living + 2 * self.segment
    }

    /// Whether what lives in the oldest segment, sealed this long ago, is to be copied forward.
    fn wants_copying(self, sealed: Duration) -> bool {
        let sparse = self.living_in_oldest < self.segment / 4;
        sparse && sealed >= SETTLED || self.is_tight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_copied_when_it_is_settled_and_sparse_or_the_disk_fills() {
        let young = Duration::from_secs(1);
        for (all, living, in_oldest, sealed, want) in [
            (200, 20, 20, young, false),
            (200, 20, 20, SETTLED, true),
            (200, 60, 60, SETTLED, false),
            (300, 20, 20, young, true),
            (300, 80, 80, young, false),
            (400, 90, 90, young, true),
        ] {
            let space = Space {
                segment: 100,
                all,
                living,
                living_in_oldest: in_oldest,
            };
            assert_eq!(space.wants_copying(sealed), want, "{space:?} {sealed:?}");
        }
    }
}
