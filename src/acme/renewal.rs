//! When the authority is asked next: for the renewal of what it gave, or again after a failure. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::Serialize;

/// When the authority would like a certificate to be renewed (RFC 9773 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Window {
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
}

impl Window {
    /// A moment in it; `chance` is from 0 to 1. RFC 9773 §4.2: any of them, all with the same chance.
    pub(super) fn moment(self, chance: f64) -> Timestamp {
        let length = self.start.duration_until(self.end);
        self.start + length.mul_f64(chance.clamp(0.0, 1.0))
    }
}

/// When two thirds of its life are over.
pub(super) fn two_thirds(begins: Timestamp, expires: Timestamp) -> Timestamp {
    let life = begins.duration_until(expires);
    begins + life * 2 / 3
}

/// RFC 9773 §4.3.2: the authority says when to ask for the window again; we keep to what is sane.
pub(super) fn ask_again(said: Duration) -> Duration {
    said.clamp(Duration::from_secs(60), Duration::from_secs(24 * 3600))
}

/// How long to wait after so many failures in a row, one at least: twice as long each time, and as
/// `chance` from 0 to 1 says up to a fifth less or more, so that those that failed together do not come
/// again together.
pub(super) fn after_failures(
    failures: u32,
    first: Duration,
    longest: Duration,
    chance: f64,
) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    let wait = first.saturating_mul(doubled).min(longest);
    wait.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() {
        assert_eq!(two_thirds(at(0), at(90 * 86_400)), at(60 * 86_400));
        assert_eq!(two_thirds(at(0), at(6 * 86_400)), at(4 * 86_400));
    }

    #[test]
    fn any_moment_of_the_window_may_be_taken() {
        let window = Window {
            start: at(100),
            end: at(200),
        };
        for (chance, want) in [(0.0, 100), (0.5, 150), (1.0, 200), (7.0, 200)] {
            assert_eq!(window.moment(chance), at(want), "{chance}");
        }
        // RFC 9773 §4.2 wants the end to be later; who breaks it gets no panic.
        let broken = Window {
            start: at(200),
            end: at(100),
        };
        assert!(broken.moment(0.5) <= at(200));
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_the_longest() {
        for (failures, want) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 24), (4_000_000, 24)] {
            let wait = after_failures(failures, HOUR, 24 * HOUR, 0.5);
            assert_eq!(wait, want * HOUR, "{failures}");
        }
        assert_eq!(after_failures(1, HOUR, HOUR, 0.0), HOUR.mul_f64(0.8));
        assert_eq!(after_failures(1, HOUR, HOUR, 1.0), HOUR.mul_f64(1.2));
    }
}
