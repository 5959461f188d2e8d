//! How long a message is tried, and when its sender is warned that it takes long.
//!
//! The spool keeps when a message is due, and no more. So a warning is due in the first attempt after its
//! time, if that attempt was due before: it is put off past no warning's time, and after the warning past
//! it. A restart changes nothing in that; a crash right after a warning can bring a second one.

use std::time::Duration;
use std::time::SystemTime;

use crate::mail::address::ReversePath;
use crate::mail::envelope::Envelope;
use crate::spool::Arrival;

/// The spool keeps whole seconds, rounded up.
const SECOND: Duration = Duration::from_secs(1);

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long mail is tried,
    pub(super) mail: Duration,
    /// and how long what has no return path.
    pub(super) bounces: Duration,
    /// After how long a sender is warned. None: never.
    pub(super) warning: Option<Duration>,
}

impl Patience {
    /// How long a message is tried.
    pub(super) fn of(self, envelope: &Envelope) -> Duration {
        match envelope.from {
            ReversePath::Null => self.bounces,
            ReversePath::Address(_) => self.mail,
        }
    }

    /// How long any message is tried.
    pub(super) fn shortest(self) -> Duration {
        self.mail.min(self.bounces)
    }

    /// Whether the sender of a message is to be warned in an attempt that ends `now`.
    pub(super) fn is_warned(self, message: &Arrival, now: SystemTime) -> bool {
        let time = self.warning.map(|after| message.arrived + after);
        time.is_some_and(|time| time <= now && message.due < time + SECOND)
    }

    /// When a message that is put off until `due` is to be looked at.
    pub(super) fn due(self, arrived: SystemTime, now: SystemTime, due: SystemTime) -> SystemTime {
        match self.warning.map(|after| arrived + after) {
            Some(time) if now < time => due.min(time),
            Some(time) => due.max(time + SECOND),
            None => due,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mail::address::Address;
    use crate::mail::envelope::Recipient;
    use crate::mail::id::SessionId;
    use crate::mail::id::SpoolId;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn arrival(arrived: SystemTime) -> Arrival {
        let envelope = Envelope::new(
            ReversePath::parse("<a@b.example>").unwrap(),
            vec![Recipient::new(Address::parse("c@d.example").unwrap())],
        );
        Arrival {
            id: SpoolId {
                session: SessionId(1),
                serial: 1,
            },
            envelope: Arc::new(envelope),
            content: None,
            arrived,
            due: arrived,
            attempts: 0,
            open: vec![0],
            held: false,
            memory: None,
        }
    }

    #[test]
    fn a_sender_is_warned_once_whatever_the_waits_and_through_restarts() {
        let patience = Patience {
            mail: seconds(1e6),
            bounces: seconds(1e6),
            warning: Some(seconds(100.5)),
        };
        for wait in [0.01, 0.4, 1.0, 7.3, 60.0, 100.0, 101.0, 1000.0] {
            for late in [0.0, 0.3, 50.0] {
                let start = SystemTime::UNIX_EPOCH + seconds(1000.25);
                let mut message = arrival(start);
                let mut warnings = Vec::new();
                let mut now = start + seconds(0.1);
                while now < start + seconds(400.0) {
                    if patience.is_warned(&message, now) {
                        warnings.push(now.duration_since(start).unwrap().as_secs_f64());
                    }
                    let due = patience.due(start, now, now + seconds(wait));
                    let whole = due.duration_since(SystemTime::UNIX_EPOCH).unwrap();
                    let whole = whole.as_nanos().div_ceil(1_000_000_000) as u64;
                    // As the spool keeps it.
                    message.due = SystemTime::UNIX_EPOCH + Duration::from_secs(whole);
                    now = message.due + seconds(late + 0.001);
                }
                assert_eq!(warnings.len(), 1, "{wait} {late}: {warnings:?}");
                assert!((100.5..=152.0).contains(&warnings[0]), "{warnings:?}");
            }
        }
    }

    #[test]
    fn without_a_warning_nothing_is_changed() {
        let patience = Patience {
            mail: seconds(10.0),
            bounces: seconds(5.0),
            warning: None,
        };
        let now = SystemTime::UNIX_EPOCH + seconds(1e9);
        let mut message = arrival(now);
        assert!(!patience.is_warned(&message, now + seconds(1e6)));
        assert_eq!(
            patience.due(now, now, now + seconds(3.0)),
            now + seconds(3.0)
        );
        assert_eq!(patience.of(&message.envelope), seconds(10.0));
        let mut envelope = (*message.envelope).clone();
        envelope.from = ReversePath::Null;
        message.envelope = Arc::new(envelope);
        assert_eq!(patience.of(&message.envelope), seconds(5.0));
    }
}
