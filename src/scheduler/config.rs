//! `[queue]`: how much is tried at once, and how often what did not come off is tried again.

use std::time::Duration;

use rand::Rng;
use serde::Deserialize;

/// `[queue]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Attempts at once, to all destinations together.
    pub attempts: usize,
    /// Attempts at once to one destination, where its route does not say; each has a connection of its
    /// own.
    pub attempts_per_destination: usize,
    /// Attempts at once to a destination that is new, or was down. One more each time that as many have
    /// come off; half as many when one is turned away.
    pub attempts_at_first: usize,
    /// How long a message is tried before it has failed.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
    /// The same for one without a return path, such as a bounce.
    #[serde(with = "humantime_serde")]
    pub give_up_bounces_after: Duration,
    /// How long a message that was put off waits for its second attempt.
    #[serde(with = "humantime_serde")]
    pub retry_first: Duration,
    /// How many times longer it waits before each further attempt. From 1.
    pub retry_factor: f64,
    /// How long it waits at most.
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
    /// Part of each wait by which it may be longer or shorter, so that what failed together does not
    /// come back together. 0 to 1.
    pub jitter: f64,
    /// How long a destination that cannot be reached is left alone before one message is tried; twice
    /// as long after each further failure.
    #[serde(with = "humantime_serde")]
    pub pause_first: Duration,
    /// How long it is left alone at most.
    #[serde(with = "humantime_serde")]
    pub pause_max: Duration,
}

/// Waits that grow: `first`, then `factor` times the one before, up to `max`; each longer or shorter
/// by a part of up to `jitter`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// From 1.
    pub factor: f64,
    /// The longest wait, before `jitter`.
    pub max: Duration,
    /// 0 to 1.
    pub jitter: f64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            attempts: 200,
            attempts_per_destination: 20,
            attempts_at_first: 5,
            give_up_after: Duration::from_secs(5 * 24 * 3600), // RFC 5321 §4.5.4.1
            give_up_bounces_after: Duration::from_secs(5 * 24 * 3600),
            retry_first: Duration::from_secs(5 * 60),
            retry_factor: 2.0,
            retry_max: Duration::from_secs(70 * 60),
            jitter: 0.2,
            pause_first: Duration::from_secs(5),
            pause_max: Duration::from_secs(5 * 60),
        }
    }
}

impl Config {
    /// What is wrong, by key below `[queue]`, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: String, text: &str| faults.push((key, text.to_owned()));
        for (name, attempts) in [
            ("attempts", self.attempts),
            ("attempts_per_destination", self.attempts_per_destination),
            ("attempts_at_first", self.attempts_at_first),
        ] {
            if attempts == 0 {
                let text = "nothing would be delivered; write 1 or more";
                fault(name.into(), text);
            }
        }
        for (name, first, max) in [
            ("retry", self.retry_first, self.retry_max),
            ("pause", self.pause_first, self.pause_max),
        ] {
            if first.is_zero() {
                let text = "it would be tried without a break; write a duration, as in \"2min\"";
                fault(format!("{name}_first"), text);
            }
            if max < first {
                let text = format!("it is below {name}_first; write that or more");
                fault(format!("{name}_max"), &text);
            }
        }
        // Ranges, so that NaN is a fault too.
        if !(1.0..=1000.0).contains(&self.retry_factor) {
            let text = "waits would shrink or explode; write a number from 1 to 1000";
            fault("retry_factor".into(), text);
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            fault("jitter".into(), "write a number from 0 to 1, as in 0.2");
        }
        faults
    }

    /// No message is put off for longer.
    pub fn longest_wait(&self) -> Duration {
        let longest = self.retry_max.max(self.pause_max);
        longest.saturating_add(longest.mul_f64(self.jitter.clamp(0.0, 1.0)))
    }

    /// The waits of a message that was put off.
    pub fn retry(&self) -> Backoff {
        Backoff {
            first: self.retry_first,
            factor: self.retry_factor,
            max: self.retry_max,
            jitter: self.jitter,
        }
    }

    /// The waits of a destination that cannot be reached.
    pub fn pause(&self) -> Backoff {
        Backoff {
            first: self.pause_first,
            factor: 2.0,
            max: self.pause_max,
            jitter: self.jitter,
        }
    }
}

impl Backoff {
    /// How long to wait after so many attempts in a row have failed (1 or more).
    pub fn wait(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let growth = self.factor.powf(f64::from(failures.saturating_sub(1)));
        let wait = (self.first.as_secs_f64() * growth).min(self.max.as_secs_f64());
        let luck = rng.random_range(-1.0..=1.0) * self.jitter;
        Duration::try_from_secs_f64(wait * (1.0 + luck)).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let mut rng = SmallRng::seed_from_u64(1);
        let backoff = Backoff {
            jitter: 0.0,
            ..Config::default().retry()
        };
        for (failures, minutes) in [(0, 5), (1, 5), (2, 10), (4, 40), (5, 70), (u32::MAX, 70)] {
            let want = Duration::from_secs(60 * minutes);
            assert_eq!(backoff.wait(failures, &mut rng), want, "{failures}");
        }
    }

    #[test]
    fn jitter_stays_within_its_part_and_is_not_always_the_same() {
        let mut rng = SmallRng::seed_from_u64(1);
        let backoff = Config::default().retry();
        let waits: Vec<f64> = (0..1000)
            .map(|_| backoff.wait(1, &mut rng).as_secs_f64())
            .collect();
        assert!(waits.iter().all(|wait| (240.0..=360.0).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 250.0));
        assert!(waits.iter().any(|wait| *wait > 350.0));
    }

    #[test]
    fn the_defaults_have_no_fault_and_wrong_values_have() {
        assert_eq!(Config::default().faults(), []);
        let config = Config {
            retry_factor: f64::NAN,
            pause_max: Duration::ZERO,
            ..Config::default()
        };
        let keys: Vec<String> = config.faults().into_iter().map(|fault| fault.0).collect();
        assert_eq!(keys, ["pause_max", "retry_factor"]);
    }
}
