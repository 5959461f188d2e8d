//! The queue as an operator sees it: what is there, and how far each message has come.

use std::sync::Arc;
use std::time::SystemTime;

use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::Spool;
use crate::spool::index::locked;
use crate::spool::library::Library;
use crate::spool::log::Part;
use crate::spool::record;
use crate::spool::record::Draft;
use crate::spool::record::Kind;
use crate::spool::record::micros;
use crate::telemetry::events;

/// One message in the spool, without its content.
#[derive(Debug, Clone)]
pub struct Look {
    /// Its name.
    pub id: SpoolId,
    /// As it was accepted.
    pub envelope: Arc<Envelope>,
    /// Of its content, in octets.
    pub size: u32,
    /// When it was accepted.
    pub arrived: SystemTime,
    /// When it is tried next; whole seconds.
    pub due: SystemTime,
    /// Attempts made so far.
    pub attempts: u32,
    /// Why it is held, where it is.
    pub held: Option<String>,
    /// Those of its recipients that are not done with, as indexes into the envelope's.
    pub open: Vec<usize>,
}

/// How far a message has come, as the memory alone knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Those of its recipients that are not done with, as indexes into the envelope's.
    pub open: Vec<usize>,
    /// Whether it is kept until it is released.
    pub held: bool,
    /// Attempts made so far.
    pub attempts: u32,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages, held ones too.
    pub messages: usize,
    /// Those that are held.
    pub held: usize,
    /// The one that came first.
    pub oldest: Option<SpoolId>,
}

/// While an earlier run's queue is still being read ([`Spool::loaded`]), what is not read yet is unknown
/// to all of these.
impl Spool {
    /// The messages that are here, in the order in which they came.
    pub fn ids(&self) -> Vec<SpoolId> {
        let mut ids = locked(&self.0.library.index).keys();
        ids.sort_unstable(); // While others go on.
        ids.into_iter().map(SpoolId::from).collect()
    }

    /// How many messages are here.
    pub fn depth(&self) -> Depth {
        let index = locked(&self.0.library.index);
        Depth {
            messages: index.len(),
            held: index.held(),
            oldest: index.oldest(),
        }
    }

    /// These messages, as far as they are here and can be read; one that cannot is reported. Cancel
    /// safe.
    pub async fn look(&self, ids: Vec<SpoolId>) -> Vec<Look> {
        let library = Arc::clone(&self.0.library);
        let look = move || ids.into_iter().filter_map(|id| library.look(id)).collect();
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    /// How far a message has come; None where it is not here (any more). Asks nobody but the memory.
    pub fn standing(&self, id: SpoolId) -> Option<Standing> {
        let entry = locked(&self.0.library.index).find(id)?;
        Some(Standing {
            open: entry.state.open(entry.recipients as usize),
            held: entry.is_held(),
            attempts: entry.state.attempts,
        })
    }

    /// The message is due `now`, if it was to wait longer. On disk like a mark.
    pub fn hasten(&self, id: SpoolId, now: SystemTime) {
        let mut index = locked(&self.0.library.index);
        if let Some(deferral) = index.hasten(id, micros(now)) {
            self.note(Draft::note(Kind::Defer, id, &deferral));
        }
    }
}

impl Library {
    /// Blocks on the disk.
    fn look(&self, id: SpoolId) -> Option<Look> {
        match self.find(id, Part::Envelope) {
            Ok((kept, state, _)) => Some(Look {
                id,
                open: state.open(kept.envelope.recipients.len()),
                envelope: Arc::new(kept.envelope),
                size: kept.body_length,
                arrived: record::time(kept.arrived),
                due: record::time(state.due),
                attempts: state.attempts,
                held: state.held,
            }),
            Err(Error::Unknown { .. }) => None,
            Err(error) => {
                events::spool_unreadable(id, &events::in_full(&error));
                None
            }
        }
    }
}
