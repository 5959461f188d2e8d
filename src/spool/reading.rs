//! Reads one segment of an earlier run: its digest where that fits, else all of it.
//!
//! Where it ends is told by the head of the next one; in the newest, by its last whole batch. Damage
//! ([`super::walk`] says what is) is reported, and what is sound is kept.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::spool::change::Change;
use crate::spool::digest::Digest;
use crate::spool::disk::Disk;
use crate::spool::entry::Place;
use crate::spool::head::Head;
use crate::spool::segment::path;
use crate::spool::walk::walk;
use crate::telemetry::events;

/// What a segment said.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) digest: Digest,
    /// Places that cannot be read. Each was reported.
    pub(super) faults: usize,
    /// Octets of a batch that was not finished.
    pub(super) torn: u64,
    /// The digest was found on disk.
    pub(super) found: bool,
}

impl Reading {
    /// Reads the segment with this head; `next` is its successor's. Blocks on the disk.
    pub(super) fn of(
        disk: &Disk,
        directory: &Path,
        file: &File,
        head: &Head,
        next: Option<&Head>,
    ) -> Reading {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        if size >= head.capacity
            && let Some(digest) = Digest::find(disk, directory, head, next)
        {
            return Reading {
                digest,
                faults: 0,
                torn: 0,
                found: true,
            };
        }
        let path = path(directory, head.seal.generation);
        let mut reading = Reading {
            digest: Digest::of(head),
            faults: 0,
            torn: 0,
            found: false,
        };
        if size < head.capacity {
            reading.fault(&path, size, &"the file is shorter than it was");
        }
        let mut segment = vec![0; size.min(head.capacity) as usize];
        for (offset, error) in read_all(disk, file, &mut segment) {
            reading.fault(&path, offset, &error);
        }
        reading.take(&path, &segment, head, next);
        reading
    }

    fn fault(&mut self, file: &Path, offset: u64, reason: &dyn std::fmt::Display) {
        self.faults += 1;
        events::spool_corrupt(file, offset, reason);
    }

    /// Takes in what a segment's octets say.
    fn take(&mut self, path: &Path, segment: &[u8], head: &Head, next: Option<&Head>) {
        let walk = walk(segment, head, next.map(|next| next.previous_end));
        for offset in walk.faults {
            self.fault(path, offset, &"a record cannot be read");
        }
        for (offset, record) in walk.records {
            let place = Place {
                generation: head.seal.generation,
                offset: offset as u32,
                length: record.frame.length() as u32,
            };
            match Change::of(&record) {
                Ok(change) => self.digest.push(record.frame.id, place, &change),
                Err(error) => self.fault(path, offset, &error),
            }
        }
        self.digest.end = walk.end;
        self.digest.next_sequence = walk.next_sequence;
        if walk.torn > 0 {
            events::spool_torn(path, walk.end, walk.torn);
            self.torn = walk.torn;
        }
    }

    /// Writes the digest where there was none, and nothing is damaged.
    pub(super) fn keep(&self, disk: &Disk, directory: &Path, head: &Head) {
        if !self.found && self.faults == 0 && self.digest.is_worth_it(head.capacity) {
            self.digest.write(disk, directory);
        }
    }
}

/// Fills the buffer, with zeros for what cannot be read. Gives where and why.
pub(super) fn read_all(disk: &Disk, file: &File, buffer: &mut [u8]) -> Vec<(u64, io::Error)> {
    const PIECE: usize = 4096;
    if disk.read_at(file, buffer, 0).is_ok() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (number, piece) in buffer.chunks_mut(PIECE).enumerate() {
        let offset = (number * PIECE) as u64;
        if let Err(error) = disk.read_at(file, piece, offset) {
            piece.fill(0);
            faults.push((offset, error));
        }
    }
    faults
}
