//! Tells systemd how we are (sd_notify(3)). Does nothing without `NOTIFY_SOCKET`.
//!
//! What cannot be told is logged and otherwise of no consequence.

use sd_notify::NotifyState;

use crate::telemetry::events;

/// All sockets are bound and all parts run; also after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload has begun; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => events::not_notified(&error),
    }
}

/// The drain has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        events::not_notified(&error);
    }
}
