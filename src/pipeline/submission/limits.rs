//! How much each user may send in an hour and in a day, in bounded memory.
//!
//! What is counted is what was taken: messages that are stored, and their recipients. An hour or a day
//! begins with the first message in it. A user who nears a limit is named in the log before one is
//! refused, for a password that got lost shows here first.
//!
//! # Limits
//!
//! The counts are kept in memory: a restart forgets them, a reload does not.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;

use crate::smtp::reply::Refusal;
use crate::telemetry::events;

/// `[submission.limits]`: how much one user may send. 0 is no limit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Messages in an hour.
    pub messages_per_hour: u32,
    /// Recipients in an hour, of all messages together.
    pub recipients_per_hour: u32,
    /// Messages in a day.
    pub messages_per_day: u32,
    /// Recipients in a day, of all messages together.
    pub recipients_per_day: u32,
    /// Logins without limits.
    pub exempt: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            messages_per_hour: 300,
            recipients_per_hour: 1000,
            messages_per_day: 3000,
            recipients_per_day: 10_000,
            exempt: Vec::new(),
        }
    }
}

/// How many users are remembered. Where more send at once, all are forgotten and begin anew.
const REMEMBERED: usize = 65_536;

/// The part of a limit, in percent, from which the log says that it is near.
const NEAR: u64 = 80;

/// What each user has sent lately. Clones share it; it outlives a reload.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    sent: Arc<Mutex<HashMap<Box<str>, [Window; 2]>>>,
}

/// An hour or a day of one user, and what was sent in it.
#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    messages: u32,
    recipients: u32,
}

/// The two windows of a user.
const LENGTHS: [(&str, Duration); 2] = [
    ("hour", Duration::from_secs(3600)),
    ("day", Duration::from_secs(24 * 3600)),
];

/// What becomes of a limit when one message more is sent.
struct Limit {
    /// `recipients per hour`
    name: String,
    used: u64,
    most: u64,
    wanted: u64,
    /// Until the window ends.
    rest: Duration,
}

impl Quotas {
    /// Whether the login may send one message more, to that many recipients. Counts nothing.
    pub(super) fn check(
        &self,
        config: &Config,
        login: &str,
        recipients: usize,
        now: Instant,
    ) -> Result<(), Refusal> {
        if config.is_exempt(login) {
            return Ok(());
        }
        let mut sent = self.lock();
        check(config, windows(&mut sent, login, now), recipients, now)
    }

    /// Counts a message to that many recipients, or refuses it.
    pub(super) fn take(
        &self,
        config: &Config,
        login: &str,
        recipients: usize,
        now: Instant,
    ) -> Result<(), Refusal> {
        if config.is_exempt(login) {
            return Ok(());
        }
        let mut sent = self.lock();
        let windows = windows(&mut sent, login, now);
        check(config, windows, recipients, now)?;
        for limit in limits(config, windows, recipients, now) {
            if limit.comes_near() {
                events::limit_near(login, &limit.name, limit.used + limit.wanted, limit.most);
            }
        }
        for window in windows {
            window.messages = window.messages.saturating_add(1);
            window.recipients = window.recipients.saturating_add(count(recipients));
        }
        Ok(())
    }

    /// The message that was counted last could not be stored.
    pub(super) fn give_back(&self, config: &Config, login: &str, recipients: usize) {
        if config.is_exempt(login) {
            return;
        }
        let mut sent = self.lock();
        for window in sent.get_mut(key(login).as_str()).into_iter().flatten() {
            window.messages = window.messages.saturating_sub(1);
            window.recipients = window.recipients.saturating_sub(count(recipients));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, [Window; 2]>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Config {
    fn is_exempt(&self, login: &str) -> bool {
        let mut exempt = self.exempt.iter();
        exempt.any(|name| name.eq_ignore_ascii_case(login))
    }
}

impl Limit {
    fn is_passed(&self) -> bool {
        self.used + self.wanted > self.most
    }

    /// Whether this message is the one that brings it near.
    fn comes_near(&self) -> bool {
        let is_near = |used: u64| used * 100 >= self.most * NEAR;
        !is_near(self.used) && is_near(self.used + self.wanted)
    }
}

fn check(
    config: &Config,
    windows: &[Window; 2],
    recipients: usize,
    now: Instant,
) -> Result<(), Refusal> {
    let passed = limits(config, windows, recipients, now).find(Limit::is_passed);
    match passed {
        // A message that is too much for a whole hour or day is never taken.
        Some(limit) if limit.wanted > limit.most => {
            Err(Refusal::above_limit(&limit.name, limit.most))
        }
        Some(limit) => Err(Refusal::limit_reached(&limit.name, limit.most, limit.rest)),
        None => Ok(()),
    }
}

/// Each limit that is in force.
fn limits(
    config: &Config,
    windows: &[Window; 2],
    recipients: usize,
    now: Instant,
) -> impl Iterator<Item = Limit> {
    let most = [
        (config.messages_per_hour, config.recipients_per_hour),
        (config.messages_per_day, config.recipients_per_day),
    ];
    let both = most.into_iter().zip(*windows).zip(LENGTHS);
    both.flat_map(move |(((messages, addressed), window), (name, length))| {
        let limit = |what, used: u32, most: u32, wanted: u32| Limit {
            name: format!("{what} per {name}"),
            used: used.into(),
            most: most.into(),
            wanted: wanted.into(),
            rest: length.saturating_sub(now.saturating_duration_since(window.began)),
        };
        [
            limit("messages", window.messages, messages, 1),
            limit(
                "recipients",
                window.recipients,
                addressed,
                count(recipients),
            ),
        ]
    })
    .filter(|limit| limit.most > 0)
}

/// The windows of a login as they are now: those that are over begin anew.
fn windows<'a>(
    sent: &'a mut HashMap<Box<str>, [Window; 2]>,
    login: &str,
    now: Instant,
) -> &'a mut [Window; 2] {
    if sent.len() >= REMEMBERED {
        let [_, (_, day)] = LENGTHS;
        sent.retain(|_, [_, window]| now.saturating_duration_since(window.began) < day);
        // Not one by one: a walk through the table for each message would cost more than it saves.
        if sent.len() > REMEMBERED / 2 {
            sent.clear();
        }
    }
    let fresh = Window {
        began: now,
        messages: 0,
        recipients: 0,
    };
    let windows = sent.entry(key(login).into()).or_insert([fresh; 2]);
    for (window, (_, length)) in windows.iter_mut().zip(LENGTHS) {
        if now.saturating_duration_since(window.began) >= length || window.messages == 0 {
            *window = fresh;
        }
    }
    windows
}

fn key(login: &str) -> String {
    login.to_lowercase()
}

fn count(recipients: usize) -> u32 {
    u32::try_from(recipients).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn config() -> Config {
        Config {
            messages_per_hour: 2,
            recipients_per_hour: 10,
            messages_per_day: 3,
            recipients_per_day: 0,
            exempt: vec!["Robot".to_owned()],
        }
    }

    fn text(result: Result<(), Refusal>) -> String {
        result.map_or_else(
            |refusal| refusal.reply().to_string(),
            |()| "taken".to_owned(),
        )
    }

    #[test]
    fn who_has_sent_enough_is_told_when_to_come_back() {
        let (quotas, start) = (Quotas::default(), Instant::now());
        for (login, minutes, recipients, want) in [
            ("anna", 0, 4, "taken"),
            ("anna", 5, 11, "450 4.7.1 More than 10 recipients per hour"),
            (
                "anna",
                10,
                7,
                "450 4.7.1 You have reached the limit of 10 recipients per hour; try again in 50 minutes",
            ),
            ("Anna", 20, 6, "taken"),
            (
                "ANNA",
                30,
                0,
                "450 4.7.1 You have reached the limit of 2 messages per hour; try again in 30 minutes",
            ),
            ("bob", 30, 10, "taken"),
            ("robot", 30, 5000, "taken"),
            ("anna", 61, 9, "taken"),
            (
                "anna",
                90,
                1,
                "450 4.7.1 You have reached the limit of 3 messages per day; try again in 23 hours",
            ),
            ("anna", 24 * 60, 1, "taken"),
        ] {
            let now = start + Duration::from_secs(minutes * 60);
            let checked = quotas.check(&config(), login, recipients, now);
            let taken = quotas.take(&config(), login, recipients, now);
            assert_eq!(checked, taken);
            let got = text(taken);
            assert!(got.starts_with(want), "{login} after {minutes} min: {got}");
        }
    }

    #[test]
    fn what_was_not_stored_does_not_count() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(quotas.take(&config(), "anna", 9, now), Ok(()));
            quotas.give_back(&config(), "ANNA", 9);
        }
    }

    #[test]
    fn a_limit_is_near_once() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let config = Config {
            messages_per_hour: 10,
            ..Config::default()
        };
        let near: Vec<bool> = (0..10)
            .map(|_| {
                let near = {
                    let mut sent = quotas.lock();
                    let windows = windows(&mut sent, "anna", now);
                    limits(&config, windows, 1, now).any(|limit| limit.comes_near())
                };
                quotas.take(&config, "anna", 1, now).unwrap();
                near
            })
            .collect();
        assert_eq!(near.iter().position(|near| *near), Some(7));
        assert_eq!(near.iter().filter(|near| **near).count(), 1);
    }

    #[test]
    fn memory_is_bounded_whoever_sends() {
        let (quotas, start) = (Quotas::default(), Instant::now());
        for n in 0..2 * REMEMBERED {
            quotas
                .take(&config(), &format!("user{n}"), 1, start)
                .unwrap();
            assert!(quotas.lock().len() <= REMEMBERED);
        }
        let later = start + 25 * HOUR;
        while quotas.lock().len() < REMEMBERED {
            let n = quotas.lock().len();
            quotas
                .check(&config(), &format!("more{n}"), 1, start)
                .unwrap();
        }
        quotas.take(&config(), "anna", 1, later).unwrap();
        assert_eq!(quotas.lock().len(), 1, "days that are over are forgotten");
    }
}
