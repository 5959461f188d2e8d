//! The segments as readers find them: by generation, while the committer writes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

use bytes::Bytes;

use crate::mail::content::Content;
use crate::mail::id::SpoolId;
use crate::spool::disk::Disk;
use crate::spool::entry::Place;
use crate::spool::log::Kept;
use crate::spool::log::Part;
use crate::spool::log::Reader;
use crate::spool::record::FRAME;
use crate::spool::record::Frame;
use crate::spool::record::Kind;
use crate::spool::record::Seal;

/// A segment's file, for reading.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: File,
    pub(super) seal: Seal,
}

/// All segments by generation, where readers find them.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    disk: Disk,
}

impl Shelf {
    /// Read by way of `disk`.
    pub(super) fn on(self, disk: Disk) -> Shelf {
        Shelf { disk, ..self }
    }

    pub(super) fn put(&self, segment: Arc<Segment>) {
        let mut shelf = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        shelf.insert(segment.seal.generation, segment);
    }

    pub(super) fn remove(&self, generation: u32) {
        let mut shelf = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        shelf.remove(&generation);
    }

    fn find(&self, generation: u32) -> Option<Arc<Segment>> {
        let shelf = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        shelf.get(&generation).cloned()
    }
}

impl Reader for Shelf {
    fn read(&self, id: SpoolId, place: Place, part: Part) -> io::Result<Option<Kept>> {
        let Some(segment) = self.find(place.generation) else {
            return Ok(None);
        };
        let most = place.length as usize;
        let mut bytes = vec![
            0;
            if part == Part::Whole {
                most
            } else {
                most.min(4096)
            }
        ];
        let offset = u64::from(place.offset);
        self.disk.read_at(&segment.file, &mut bytes, offset)?;
        let Some(frame) = Frame::read(&bytes, segment.seal) else {
            return Ok(None);
        };
        if frame.length() != most || frame.id != id || frame.kind != Kind::Accept {
            return Ok(None);
        }
        let meta_end = FRAME + frame.meta_length;
        if meta_end > bytes.len() {
            let read = bytes.len();
            bytes.resize(meta_end, 0);
            let rest = &mut bytes[read..];
            let offset = offset + read as u64;
            self.disk.read_at(&segment.file, rest, offset)?;
        }
        if !frame.is_sound(segment.seal, &bytes) {
            return Ok(None);
        }
        let (length, checksum) = (frame.body_length, frame.body_checksum);
        let kept = Kept::read(&bytes[FRAME..meta_end], length, checksum, None);
        let Some(mut kept) = kept else {
            return Ok(None);
        };
        if part == Part::Whole && !frame.in_file {
            let bytes = Bytes::from(bytes);
            let body = bytes.slice(meta_end..meta_end + frame.inline_length());
            if crc32c::crc32c(&body) != frame.body_checksum {
                return Ok(None);
            }
            kept.content = Some(Content::from(body));
        }
        Ok(Some(kept))
    }
}
