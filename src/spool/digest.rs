//! What a segment says without its messages, so that a start need not read the whole log.
//!
//! A sealed segment has its digest in a file beside it (`0000000012.digest`). That is written once
//! and never synced: where it is missing, torn, of another life of the segment's file, or does not
//! fit what the next segment's head says, the segment itself is read. A segment in which damage was
//! found gets none.
//!
//! A front of [`FRONT`] octets, little endian, then a line a record ([`super::lines`]).
//!
//! ```text
//!  0 magic            8 version (u32)      12 checksum (CRC32C) of all the rest
//! 16 generation      20 number of lines    24 salt
//! 32 first sequence  40 next sequence      48 where the segment ends
//! ```

use std::fs::File;
use std::io::IoSlice;
use std::path::Path;
use std::path::PathBuf;

use crate::mail::id::SpoolId;
use crate::spool::change::Change;
use crate::spool::disk::Disk;
use crate::spool::entry::Place;
use crate::spool::head::Head;
use crate::spool::head::START;
use crate::spool::lines::Lines;
use crate::spool::lines::Reader;
use crate::spool::record::Seal;
use crate::spool::segment;

const MAGIC: &[u8; 8] = b"GPdigest";
/// One of another version is not read; the segment is.
const VERSION: u32 = 1;
const FRONT: usize = 56;

/// What a segment says.
#[derive(Debug)]
pub(super) struct Digest {
    pub(super) seal: Seal,
    first_sequence: u64,
    pub(super) next_sequence: u64,
    /// Where the segment ends.
    pub(super) end: u64,
    records: u32,
    lines: Lines,
}

/// The file of a segment's digest.
pub(super) fn path(directory: &Path, generation: u32) -> PathBuf {
    segment::path(directory, generation).with_extension("digest")
}

/// Removes a segment's digest, if it has one, so that the segment itself is read.
pub(super) fn remove(disk: &Disk, directory: &Path, generation: u32) {
    let path = path(directory, generation);
    if path.exists() {
        let _ = disk.remove(&path);
    }
}

impl Digest {
    /// Of the segment with this head, as long as no record is in it.
    pub(super) fn of(head: &Head) -> Digest {
        Digest {
            seal: head.seal,
            first_sequence: head.first_sequence,
            next_sequence: head.first_sequence,
            end: START,
            records: 0,
            lines: Lines::default(),
        }
    }

    /// Adds the next record.
    pub(super) fn push(&mut self, id: SpoolId, place: Place, change: &Change) {
        self.lines.push(id, place, change);
        self.records += 1;
        self.next_sequence += 1;
        self.end = u64::from(place.offset) + u64::from(place.length);
    }

    fn size(&self) -> usize {
        FRONT + self.lines.octets().len()
    }

    /// Whether it is so much shorter than its segment, of this size, that it saves something. This
    /// also bounds what it may take in memory.
    pub(super) fn is_worth_it(&self, segment: u64) -> bool {
        self.size() as u64 <= segment / 8
    }

    /// Each record, in order.
    pub(super) fn records(&self) -> Reader<'_> {
        self.lines.read(self.seal.generation)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.seal.generation.to_le_bytes());
        bytes.extend_from_slice(&self.records.to_le_bytes());
        for long in [
            self.seal.salt,
            self.first_sequence,
            self.next_sequence,
            self.end,
        ] {
            bytes.extend_from_slice(&long.to_le_bytes());
        }
        bytes.extend_from_slice(self.lines.octets());
        let checksum = checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a digest. None where it is not as it was written. Its lines are read when they are needed,
    /// and only once ([`Digest::is_all`]).
    fn read(bytes: &[u8]) -> Option<Digest> {
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let lines = bytes.get(FRONT..)?;
        if !bytes.starts_with(MAGIC) || word(8)? != VERSION || word(12)? != checksum(bytes) {
            return None;
        }
        Some(Digest {
            seal: Seal {
                generation: word(16)?,
                salt: long(24)?,
            },
            first_sequence: long(32)?,
            next_sequence: long(40)?,
            end: long(48)?,
            records: word(20)?,
            lines: Lines::of(lines),
        })
    }

    /// Whether so many records, after which the reader stands like this, are all that it has.
    pub(super) fn is_all(&self, records: u32, reader: &Reader<'_>) -> bool {
        records == self.records && reader.end() == Some(self.end)
    }

    /// Writes it beside its segment. A failure only makes a later start read the segment.
    pub(super) fn write(&self, disk: &Disk, directory: &Path) {
        let path = path(directory, self.seal.generation);
        let written = disk.create(&path).and_then(|file| {
            let bytes = self.bytes();
            disk.write(&file, &mut [IoSlice::new(&bytes)], 0)
        });
        if written.is_err() {
            let _ = disk.remove(&path);
        }
    }

    /// The digest of the segment with this head, if there is one that fits it and its successor's.
    pub(super) fn find(
        disk: &Disk,
        directory: &Path,
        head: &Head,
        next: Option<&Head>,
    ) -> Option<Digest> {
        let file = File::open(path(directory, head.seal.generation)).ok()?;
        let size = file.metadata().ok()?.len();
        let mut bytes = vec![0; usize::try_from(size.min(head.capacity)).ok()?];
        disk.read_at(&file, &mut bytes, 0).ok()?;
        let digest = Digest::read(&bytes)?;
        let ours = digest.seal == head.seal && digest.first_sequence == head.first_sequence;
        let fits = next.is_none_or(|next| {
            digest.end == next.previous_end && digest.next_sequence == next.first_sequence
        });
        (ours && fits).then_some(digest)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}
