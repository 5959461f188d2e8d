//! The seam: what keeps records. Today the segments of `segment`; a database can stand here with the
//! same promises, because all that is above (queue, index, handing over) knows only this.
//! `benches/sqlite` puts one here, to measure the segments beside it.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::record::Meta;

pub use crate::spool::entry::Place;
pub use crate::spool::index::Index;
pub use crate::spool::record::Body;
pub use crate::spool::record::Draft;
pub use crate::spool::record::Kind;

/// The writing half, owned by the committer.
pub trait Log: Send {
    /// Puts all of the batch on disk: durable when this returns, and where each record stands. After
    /// an error none of it counts; see [`Failed`] for what a crash can make of it.
    fn append(&mut self, batch: &[Draft]) -> Result<Vec<Place>, Failed>;

    /// Whether there is room for new messages. Asked before each batch that has any.
    fn room(&self) -> Result<(), Error>;

    /// All that an earlier run left is in the index now. Until this is said, no space is taken back.
    fn loaded(&mut self);

    /// Takes back the space of what is finished.
    fn free(&mut self, index: &Mutex<Index>);

    /// Does so, too. Gives the messages that the caller is to append anew, so that more space can be
    /// had; they may be finished by then.
    fn reclaim(&mut self, index: &Mutex<Index>) -> Vec<SpoolId>;

    /// Something at this place cannot be read: its file is to be kept for the operator.
    fn set_aside(&mut self, place: Place);

    /// Where it is, for people.
    fn place(&self) -> PathBuf;

    /// The most octets that a batch can have ([`Draft::length`] summed).
    fn largest_batch(&self) -> usize;
}

/// A batch was not appended.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// What is left of it.
    pub trace: Trace,
}

/// What such a batch leaves on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Nothing that counts.
    None,
    /// Perhaps all of it: until another batch is appended, a crash may bring it back whole.
    Doubtful,
}

/// How much of a message is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but its content.
    Envelope,
    /// All of it.
    Whole,
}

/// A message as it was accepted. Its state is the index's to know.
#[derive(Debug)]
pub struct Kept {
    pub(super) envelope: Envelope,
    pub(super) arrived: u64,
    pub(super) body_length: u32,
    pub(super) body_checksum: u32,
    /// None where only the envelope was wanted, or the message is in a file of its own.
    pub(super) content: Option<Content>,
}

impl Kept {
    /// Reads the meta of an ACCEPT ([`Draft::meta`]). `length` and `checksum` are those of the
    /// message; `content` is None where only the envelope was wanted, or the message is in a file of
    /// its own. None where the meta is not as it was written.
    pub fn read(meta: &[u8], length: u32, checksum: u32, content: Option<Content>) -> Option<Kept> {
        let meta: Meta<'_> = serde_json::from_slice(meta).ok()?;
        Some(Kept {
            envelope: meta.envelope.into_owned(),
            arrived: meta.arrived,
            body_length: length,
            body_checksum: checksum,
            content,
        })
    }
}

/// The reading half, shared by all.
pub trait Reader: std::fmt::Debug + Send + Sync {
    /// Reads the ACCEPT at `place`. Blocks on the disk. None where there is no sound record of `id`
    /// there, be it damaged or gone meanwhile.
    fn read(&self, id: SpoolId, place: Place, part: Part) -> io::Result<Option<Kept>>;
}
