//! One message as the index knows it: whole ([`Entry`]), and in the few octets that it takes there.

use crate::mail::id::PackedId;
use crate::spool::record::State;

/// Microseconds, which is what a [`State`] is in.
pub(super) const SECOND: u64 = 1_000_000;

/// Where a record stands. A backend without segments counts the rows in `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of the segment; 0 where there are none.
    pub generation: u32,
    /// In the segment, in octets; or which row.
    pub offset: u32,
    /// What [`super::log::Draft::length`] gave, in octets.
    pub length: u32,
}

/// Where the message itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    InLog,
    InFile,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) recipients: u32,
    /// Of its content, in octets, where that has a file of its own; else 0.
    pub(super) large: u32,
    /// Due in whole seconds, not before what was asked for.
    pub(super) state: State,
}

impl Entry {
    /// A message of so many recipients and octets that stands at `place`.
    pub(super) fn new(
        place: Place,
        recipients: usize,
        size: u32,
        stored: Stored,
        mut state: State,
    ) -> Entry {
        if state.attempts == 0 {
            // Due since it came: that second has begun already.
            state.due -= state.due % SECOND;
        }
        Entry {
            place,
            recipients: u32::try_from(recipients).unwrap_or(u32::MAX),
            large: match stored {
                Stored::InLog => 0,
                Stored::InFile => size.max(1),
            },
            state,
        }
    }

    pub(super) fn stored(&self) -> Stored {
        if self.large == 0 {
            Stored::InLog
        } else {
            Stored::InFile
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.state.held.is_some()
    }

    pub(super) fn pack(self, key: PackedId) -> (Row, Option<Rare>) {
        let row = Row {
            key,
            place: self.place,
            due: u32::try_from(self.state.due.div_ceil(SECOND)).unwrap_or(u32::MAX),
            attempts: u16::try_from(self.state.attempts).unwrap_or(u16::MAX),
            recipients: u16::try_from(self.recipients).unwrap_or(u16::MAX),
        };
        let rare = Rare {
            attempts: self.state.attempts,
            recipients: self.recipients,
            large: self.large,
            held: self.state.held,
            marked: self.state.marked,
        };
        let plain = rare.large == 0 && rare.held.is_none() && rare.marked.is_empty();
        let plain = plain && row.attempts < u16::MAX && row.recipients < u16::MAX;
        (row, (!plain).then_some(rare))
    }

    pub(super) fn unpack(row: Row, rare: Option<Rare>) -> Entry {
        let rare = rare.unwrap_or_else(|| Rare {
            attempts: row.attempts.into(),
            recipients: row.recipients.into(),
            ..Rare::default()
        });
        Entry {
            place: row.place,
            recipients: rare.recipients,
            large: rare.large,
            state: State {
                due: u64::from(row.due) * SECOND,
                attempts: rare.attempts,
                held: rare.held,
                marked: rare.marked,
            },
        }
    }
}

/// What each message has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) key: PackedId,
    pub(super) place: Place,
    /// Seconds since 1970.
    due: u32,
    attempts: u16,
    recipients: u16,
}

/// What few messages have; and the numbers that a row may be too small for.
#[derive(Debug, Clone, Default)]
pub(super) struct Rare {
    attempts: u32,
    recipients: u32,
    pub(super) large: u32,
    pub(super) held: Option<String>,
    marked: Vec<u32>,
}
