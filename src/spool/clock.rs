//! Gives each session its id.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::mail::id::SessionId;
use crate::spool::record::micros;

/// Eleven digits of base 32 hold no more.
const LARGEST: u64 = (1 << 55) - 1;

/// Gives ids that increase and never repeat in one spool directory, also when the system's clock is
/// set back: opening the spool sets it above every id that the directory tells of. Only the ids of
/// sessions that stored nothing can be forgotten by a restart while the clock is behind.
#[derive(Debug, Default)]
pub struct SessionClock(AtomicU64);

impl SessionClock {
    /// The id of a session that begins `now`: its microsecond, or the next one that is free.
    pub fn next(&self, now: SystemTime) -> SessionId {
        let now = micros(now);
        let mut last = self.0.load(Ordering::Relaxed);
        loop {
            let next = now.max(last.saturating_add(1)).min(LARGEST);
            match self
                .0
                .compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return SessionId(next),
                Err(newer) => last = newer,
            }
        }
    }

    /// This id was in use.
    pub(super) fn seen(&self, id: SessionId) {
        self.0.fetch_max(id.0.min(LARGEST), Ordering::Relaxed);
    }

    /// The highest id so far.
    pub(super) fn highest(&self) -> SessionId {
        SessionId(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ids_increase_when_the_clock_stands_still_or_steps_back() {
        let clock = SessionClock::default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(clock.next(now), SessionId(1_000_000_000));
        assert_eq!(clock.next(now), SessionId(1_000_000_001));
        let earlier = now - Duration::from_secs(500);
        assert_eq!(clock.next(earlier), SessionId(1_000_000_002));
        clock.seen(SessionId(2_000_000_000));
        assert_eq!(clock.next(now), SessionId(2_000_000_001));
    }
}
