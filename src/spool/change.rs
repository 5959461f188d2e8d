//! What a record does to the index, be it read from a segment or from a segment's digest.

use crate::mail::id::SpoolId;
use crate::spool::Mark;
use crate::spool::brief::Brief;
use crate::spool::brief::Count;
use crate::spool::entry::Entry;
use crate::spool::entry::Place;
use crate::spool::entry::Stored;
use crate::spool::index::Index;
use crate::spool::record::Body;
use crate::spool::record::Deferral;
use crate::spool::record::Draft;
use crate::spool::record::Kind;
use crate::spool::record::Record;
use crate::spool::record::State;

/// A record without its message and envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Accept {
        recipients: u32,
        /// Of the message, in octets.
        size: u32,
        stored: Stored,
        state: State,
    },
    /// These recipients are done with.
    Result(Vec<u32>),
    Defer(Deferral),
    Hold(String),
    /// When, in microseconds since 1970.
    Release(u64),
    Done,
}

impl Change {
    /// What a record on disk says. An error where its meta is not what we write; of an ACCEPT, only
    /// what counts here is looked at.
    pub(super) fn of(record: &Record<'_>) -> Result<Change, serde_json::Error> {
        match record.frame.kind {
            Kind::Accept => {
                let meta: Brief = record.parse()?;
                let Count(recipients) = meta.envelope.recipients;
                Ok(Change::Accept {
                    recipients,
                    size: record.frame.body_length,
                    stored: if record.frame.in_file {
                        Stored::InFile
                    } else {
                        Stored::InLog
                    },
                    state: meta.state,
                })
            }
            kind => Change::note(kind, record.meta),
        }
    }

    /// What a record that was just written says.
    pub(super) fn of_draft(draft: &Draft) -> Result<Change, serde_json::Error> {
        let (size, stored) = match &draft.body {
            _ if draft.kind != Kind::Accept => return Change::note(draft.kind, &draft.meta),
            Body::Nothing => (0, Stored::InLog),
            Body::Here(content) => (count(content.len()), Stored::InLog),
            Body::InFile { length } => (*length, Stored::InFile),
        };
        Ok(Change::Accept {
            recipients: count(draft.recipients),
            size,
            stored,
            state: draft.state.clone(),
        })
    }

    fn note(kind: Kind, meta: &[u8]) -> Result<Change, serde_json::Error> {
        Ok(match kind {
            Kind::Accept | Kind::Done => Change::Done,
            Kind::Result => {
                let results: Vec<(usize, Mark)> = serde_json::from_slice(meta)?;
                let marked = results.iter().filter_map(|(at, _)| u32::try_from(*at).ok());
                Change::Result(marked.collect())
            }
            Kind::Defer => Change::Defer(serde_json::from_slice(meta)?),
            Kind::Hold => Change::Hold(serde_json::from_slice(meta)?),
            Kind::Release => Change::Release(serde_json::from_slice(meta)?),
        })
    }

    /// Does it again.
    pub(super) fn apply(self, index: &mut Index, id: SpoolId, place: Place) {
        match self {
            Change::Accept {
                recipients,
                size,
                stored,
                state,
            } => {
                let entry = Entry::new(place, recipients as usize, size, stored, state);
                index.insert(id, entry);
            }
            Change::Result(marked) => {
                index.mark(id, &marked);
            }
            Change::Defer(Deferral { due, attempts }) => {
                index.defer(id, due, attempts);
            }
            Change::Hold(reason) => {
                index.hold(id, reason);
            }
            Change::Release(now) => {
                index.release(id, now);
            }
            Change::Done => {
                index.remove(id);
            }
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
