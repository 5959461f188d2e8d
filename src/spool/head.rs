//! What a segment's file begins with: who it is, and where the one before it ends.
//!
//! It stands there twice, so that one bad sector cannot take the key to all the rest.

use crate::spool::record::Seal;

/// The version of everything in the segments' files. One that we do not know is not touched.
pub(super) const VERSION: u32 = 1;
/// Where the records begin. Before it stand two copies of the head, each in a page of its own.
pub(super) const START: u64 = 8192;

const MAGIC: &[u8; 8] = b"GATEPOST";
pub(super) const COPIES: [usize; 2] = [0, 4096];

/// What a segment's file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seal: Seal,
    /// The sequence of the first record here.
    pub(super) first_sequence: u64,
    /// Where the segment before this ends.
    pub(super) previous_end: u64,
    /// The size of the file.
    pub(super) capacity: u64,
    /// The highest session id that was given out when the segment was begun.
    pub(super) clock: u64,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHead {
    /// A sound head of a version that we do not know.
    Version(u32),
    Broken,
}

impl Head {
    /// Magic, version and checksum stand at these places in every version to come, so that another
    /// version is told from a broken head.
    pub(super) fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.seal.generation.to_le_bytes());
        for (at, value) in [
            (24, self.seal.salt),
            (32, self.first_sequence),
            (40, self.previous_end),
            (48, self.capacity),
            (56, self.clock),
        ] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let checksum = Head::checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn checksum(bytes: &[u8; 64]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
    }

    /// Reads the head of a segment from the first sound copy.
    pub(super) fn read(segment: &[u8]) -> Result<Head, NoHead> {
        let copies = COPIES.map(|at| segment.get(at..).and_then(<[u8]>::first_chunk));
        copies
            .into_iter()
            .flatten()
            .map(Head::read_copy)
            .reduce(|first, second| if first.is_ok() { first } else { second })
            .unwrap_or(Err(NoHead::Broken))
    }

    fn read_copy(bytes: &[u8; 64]) -> Result<Head, NoHead> {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(word)
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if &bytes[..8] != MAGIC || word(12) != Head::checksum(bytes) {
            return Err(NoHead::Broken);
        }
        if word(8) != VERSION {
            return Err(NoHead::Version(word(8)));
        }
        Ok(Head {
            seal: Seal {
                generation: word(16),
                salt: long(24),
            },
            first_sequence: long(32),
            previous_end: long(40),
            capacity: long(48),
            clock: long(56),
        })
    }
}
