//! A record as bytes: what one line of the log looks like, and how it is told from anything else.
//!
//! A frame of [`FRAME`] octets, a JSON text (`meta`), then for an ACCEPT the message; all padded to
//! [`ALIGN`]. Little endian. The checksum (CRC32C) covers the segment's salt, the frame, the meta
//! and the checksum of the message, so a record of another segment, of an earlier life of the same
//! file, or one that a stranger wrote into a message is no record here.
//!
//! ```text
//!  0 magic    4 checksum    8 generation   12 kind   13 flags   14 number in the batch (u16)
//! 16 sequence (u64)        24 session (u64)         32 serial   36 length of the meta
//! 40 length of the message 44 checksum of the message
//! ```

use std::borrow::Cow;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;

/// The size of what stands before the meta.
pub(super) const FRAME: usize = 48;
/// Records begin at multiples of this, so that a search for the next one is short.
pub(super) const ALIGN: usize = 8;

const MAGIC: u32 = u32::from_le_bytes(*b"GPrc");
/// The end mark of a batch: without it, what came before was never acknowledged.
const LAST: u8 = 1;
/// The message stands in a file of its own.
const LARGE: u8 = 2;

/// What a record says about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Here it is, with all that is known about it (`Meta`). A later one replaces an earlier one.
    Accept = 1,
    /// What became of some recipients for good: `Vec<(usize, Mark)>`.
    Result = 2,
    /// Not now: `Deferral`.
    Defer = 3,
    /// Kept until released: the reason.
    Hold = 4,
    /// Not held any longer.
    Release = 5,
    /// Finished.
    Done = 6,
}

impl Kind {
    pub(super) fn read(byte: u8) -> Option<Kind> {
        [
            Kind::Accept,
            Kind::Result,
            Kind::Defer,
            Kind::Hold,
            Kind::Release,
            Kind::Done,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// The meta of an ACCEPT.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta<'a> {
    pub(super) envelope: Cow<'a, Envelope>,
    /// Microseconds since 1970.
    pub(super) arrived: u64,
    #[serde(default)]
    pub(super) state: State,
}

/// How far a message has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// Microseconds since 1970.
    pub(super) due: u64,
    pub(super) attempts: u32,
    /// Why it is held, where it is.
    pub(super) held: Option<String>,
    /// Indexes of the recipients that are done with.
    pub(super) marked: Vec<u32>,
}

impl State {
    /// Indexes of those of so many recipients that are not done with.
    pub(super) fn open(&self, recipients: usize) -> Vec<usize> {
        let is_open = |at: &usize| !self.marked.iter().any(|marked| *marked as usize == *at);
        (0..recipients).filter(is_open).collect()
    }
}

/// The meta of a DEFER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deferral {
    /// Microseconds since 1970.
    pub(super) due: u64,
    pub(super) attempts: u32,
}

/// Microseconds since 1970.
pub(super) fn micros(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
        })
}

/// The time that [`micros`] was made of.
pub(super) fn time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_micros(micros))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Where the message of an ACCEPT is.
#[derive(Debug, Clone)]
pub enum Body {
    /// It is no ACCEPT.
    Nothing,
    /// Here.
    Here(Content),
    /// In a file of its own, synced already.
    InFile {
        /// Its octets.
        length: u32,
    },
}

/// A record that has no place in the log yet.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(super) kind: Kind,
    pub(super) id: SpoolId,
    pub(super) body: Body,
    pub(super) meta: Vec<u8>,
    body_checksum: u32,
    /// Of an ACCEPT: how many they are, and how far the message has come.
    pub(super) recipients: usize,
    pub(super) state: State,
}

impl Draft {
    /// A record without a message. Its meta is `what` as JSON.
    pub(super) fn note(kind: Kind, id: SpoolId, what: &impl Serialize) -> Draft {
        Draft {
            kind,
            id,
            body: Body::Nothing,
            meta: json(what),
            body_checksum: 0,
            recipients: 0,
            state: State::default(),
        }
    }

    /// An ACCEPT; `checksum` is that of the message.
    pub(super) fn accept(id: SpoolId, meta: &Meta<'_>, body: Body, checksum: u32) -> Draft {
        Draft {
            kind: Kind::Accept,
            id,
            body,
            meta: json(meta),
            body_checksum: checksum,
            recipients: meta.envelope.recipients.len(),
            state: meta.state.clone(),
        }
    }

    /// What it says of its message.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message.
    pub fn id(&self) -> SpoolId {
        self.id
    }

    /// All but the message itself, as JSON.
    pub fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// The message itself.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The message's checksum.
    pub fn body_checksum(&self) -> u32 {
        self.body_checksum
    }

    /// How many octets it takes in the log.
    pub fn length(&self) -> usize {
        let body = match &self.body {
            Body::Here(content) => content.len(),
            Body::Nothing | Body::InFile { .. } => 0,
        };
        (FRAME + self.meta.len() + body).next_multiple_of(ALIGN)
    }

    /// What follows the frame, in order, without the padding.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let content = match &self.body {
            Body::Here(content) => Some(content),
            Body::Nothing | Body::InFile { .. } => None,
        };
        let chunks = content.into_iter().flat_map(Content::chunks);
        std::iter::once(self.meta.as_slice()).chain(chunks)
    }

    /// The frame, for this place in the log.
    pub(super) fn frame(&self, seal: Seal, sequence: u64, number: u16, end: End) -> [u8; FRAME] {
        let (flags, length) = match &self.body {
            Body::Nothing => (0, 0),
            Body::Here(content) => (0, content.len() as u32),
            Body::InFile { length } => (LARGE, *length),
        };
        let end = match end {
            End::More => 0,
            End::OfBatch => LAST,
        };
        let mut frame = [0; FRAME];
        frame[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        frame[8..12].copy_from_slice(&seal.generation.to_le_bytes());
        frame[12] = self.kind as u8;
        frame[13] = flags | end;
        frame[14..16].copy_from_slice(&number.to_le_bytes());
        frame[16..24].copy_from_slice(&sequence.to_le_bytes());
        frame[24..32].copy_from_slice(&self.id.session.0.to_le_bytes());
        frame[32..36].copy_from_slice(&self.id.serial.to_le_bytes());
        frame[36..40].copy_from_slice(&(self.meta.len() as u32).to_le_bytes());
        frame[40..44].copy_from_slice(&length.to_le_bytes());
        frame[44..48].copy_from_slice(&self.body_checksum.to_le_bytes());
        let checksum = crc32c::crc32c_append(seal.checksum(&frame), &self.meta);
        frame[4..8].copy_from_slice(&checksum.to_le_bytes());
        frame
    }
}

/// Our own types of plain fields always have a JSON form; the empty text would be found at recovery.
fn json(what: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(what).unwrap_or_default()
}

/// Whether a record is the last of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    More,
    OfBatch,
}

/// What the records of one segment have in common, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) generation: u32,
    pub(super) salt: u64,
}

impl Seal {
    /// Over what follows the checksum itself.
    fn checksum(self, front: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.salt.to_le_bytes()), &front[8..])
    }
}

/// A frame that was read. Trust nothing in it before [`Frame::is_sound`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    checksum: u32,
    pub(super) kind: Kind,
    pub(super) id: SpoolId,
    /// Counts the records of the whole log.
    pub(super) sequence: u64,
    /// Counts the records of the batch.
    pub(super) number: u16,
    pub(super) end: End,
    pub(super) meta_length: usize,
    pub(super) body_length: u32,
    pub(super) body_checksum: u32,
    pub(super) in_file: bool,
}

impl Frame {
    /// Reads a frame. None where there is none, or one of another segment.
    pub(super) fn read(bytes: &[u8], seal: Seal) -> Option<Frame> {
        let raw: [u8; FRAME] = *bytes.first_chunk()?;
        if word(&raw, 0) != MAGIC || word(&raw, 8) != seal.generation {
            return None;
        }
        Some(Frame {
            checksum: word(&raw, 4),
            kind: Kind::read(raw[12])?,
            id: SpoolId {
                session: SessionId(long(&raw, 24)),
                serial: word(&raw, 32),
            },
            sequence: long(&raw, 16),
            number: u16::from_le_bytes([raw[14], raw[15]]),
            end: if raw[13] & LAST == 0 {
                End::More
            } else {
                End::OfBatch
            },
            meta_length: word(&raw, 36) as usize,
            body_length: word(&raw, 40),
            body_checksum: word(&raw, 44),
            in_file: raw[13] & LARGE != 0,
        })
    }

    /// Whether the frame and the meta, with which `record` begins, are as they were written.
    pub(super) fn is_sound(&self, seal: Seal, record: &[u8]) -> bool {
        let front = FRAME.checked_add(self.meta_length);
        let front = front.and_then(|front| record.get(..front));
        front.is_some_and(|front| seal.checksum(front) == self.checksum)
    }

    /// How much of the message stands in the log.
    pub(super) fn inline_length(&self) -> usize {
        if self.in_file {
            0
        } else {
            self.body_length as usize
        }
    }

    /// How many octets the record takes in the log.
    pub(super) fn length(&self) -> usize {
        (FRAME + self.meta_length + self.inline_length()).next_multiple_of(ALIGN)
    }

    /// The sequence of the first record of its batch.
    pub(super) fn batch(&self) -> u64 {
        self.sequence.saturating_sub(u64::from(self.number))
    }
}

/// A record that was read and is sound, but for a message in a file of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) frame: Frame,
    pub(super) meta: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record that `bytes` begin with; all of its checksums hold.
    pub(super) fn read(bytes: &'a [u8], seal: Seal) -> Option<Record<'a>> {
        let frame = Frame::read(bytes, seal)?;
        let meta = bytes.get(FRAME..FRAME.checked_add(frame.meta_length)?)?;
        let body = bytes
            .get(FRAME + meta.len()..)?
            .get(..frame.inline_length())?;
        let sound = bytes.len() >= frame.length()
            && frame.is_sound(seal, bytes)
            && (frame.in_file || crc32c::crc32c(body) == frame.body_checksum);
        sound.then_some(Record { frame, meta })
    }

    /// The meta as what it is for this kind.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.meta)
    }
}

/// The checksum of a message, over its pieces.
pub(super) fn checksum(content: &Content) -> u32 {
    content.chunks().fold(0, crc32c::crc32c_append)
}

/// Reads a u32. The callers' arrays are longer than any offset they pass.
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn long<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
