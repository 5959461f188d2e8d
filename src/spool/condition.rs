//! Whether the last write came off, for whoever asks how the spool is.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::spool::Error;
use crate::telemetry::events;

/// What became of the last write.
#[derive(Debug, Default)]
pub(super) struct Condition(Mutex<Option<String>>);

impl Condition {
    /// Something was written and synced.
    pub(super) fn works(&self) {
        self.last().take();
    }

    /// Something could not be written.
    pub(super) fn failed(&self, error: &Error) {
        self.last().replace(events::in_full(error));
    }

    /// Why the last write failed, where it did.
    pub(super) fn trouble(&self) -> Option<String> {
        self.last().clone()
    }

    /// The text is whole, whoever panicked meanwhile.
    fn last(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
