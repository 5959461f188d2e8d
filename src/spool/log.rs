//! The seam: what keeps records. Today the segments of [`super::segment`]; a database can stand here
//! with the same promises, because all that is above (queue, index, handing over) knows only this.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::entry::Place;
use crate::spool::index::Index;
use crate::spool::record::Draft;
use crate::spool::segment::Sealed;

/// The writing half, owned by the committer.
pub(super) trait Log: Send {
    /// Puts all of the batch on disk: durable when this returns, and where each record stands. After
    /// an error none of it counts; see [`Failed`] for what a crash can make of it.
    fn append(&mut self, batch: &[Draft]) -> Result<Vec<Place>, Failed>;

    /// Whether there is room for new messages. Asked before each batch that has any.
    fn room(&self) -> Result<(), Error>;

    /// All that an earlier run left is in the index now, and stands in these files. Until this is
    /// said, no space is taken back.
    fn loaded(&mut self, earlier: VecDeque<Sealed>);

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
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) trace: Trace,
}

/// What such a batch leaves on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    /// Nothing that counts.
    None,
    /// Perhaps all of it: until another batch is appended, a crash may bring it back whole.
    Doubtful,
}

/// How much of a message is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Envelope,
    Whole,
}

/// A message as it was accepted. Its state is the index's to know.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) envelope: Envelope,
    pub(super) arrived: u64,
    pub(super) body_length: u32,
    pub(super) body_checksum: u32,
    /// None where only the envelope was wanted, or the message is in a file of its own.
    pub(super) content: Option<Content>,
}

/// The reading half, shared by all.
pub(super) trait Reader: std::fmt::Debug + Send + Sync {
    /// Reads the ACCEPT at `place`. Blocks on the disk. None where there is no sound record of `id`
    /// there, be it damaged or gone meanwhile.
    fn read(&self, id: SpoolId, place: Place, part: Part) -> std::io::Result<Option<Kept>>;
}
