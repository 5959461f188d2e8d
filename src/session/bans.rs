//! Who failed to log in too often is not let try for a while, and each further time for longer.
//!
//! Failures are counted for each client (one address of IPv4, one /64 of IPv6) and for each user's name, and
//! are forgotten bit by bit; so is how often somebody was banned. A ban of a user does not hold for a client
//! that was in as that user before: nobody can lock others out. Knows no clock; its memory is bounded. One for
//! the process: a reload forgets nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use ipnet::IpNet;
use serde::Deserialize;

use super::allowance::customer;
use crate::pipeline::loopback;

/// `[submission.logins]`: what becomes of clients that fail to log in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long the reply to a failed login waits.
    #[serde(with = "humantime_serde")]
    pub delay: Duration,
    /// Failed logins of one client within `window` that lead to a ban; 0 for no bans of clients.
    pub per_address: u32,
    /// Failed logins as one user within `window` that lead to a ban; 0 for no bans of users.
    pub per_user: u32,
    /// How long it takes until all failures are forgotten.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long the first ban lasts; each further one twice as long.
    #[serde(with = "humantime_serde")]
    pub ban: Duration,
    /// How long a ban lasts at most, and after how long without one the next is a first one again.
    #[serde(with = "humantime_serde")]
    pub longest_ban: Duration,
    /// Networks whose clients are never banned.
    pub exempt: Vec<IpNet>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            delay: Duration::from_secs(2),
            per_address: 10,
            per_user: 30,
            window: Duration::from_secs(10 * 60),
            ban: Duration::from_secs(10 * 60),
            longest_ban: Duration::from_secs(24 * 3600),
            exempt: loopback(),
        }
    }
}

/// How long a reply may wait; a client waits five minutes for one at most.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

impl Config {
    /// What is wrong with the values: key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, right: &str| faults.push((key.to_owned(), right.to_owned()));
        if self.delay > LONGEST_DELAY {
            fault("delay", "must be 1min at most, or clients would give up");
        }
        if self.window.is_zero() {
            fault(
                "window",
                "within no time nothing fails; write a duration, as in \"10min\"",
            );
        }
        if self.longest_ban < self.ban {
            fault("longest_ban", "must not be shorter than ban");
        }
        faults
    }
}

/// What is banned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ban {
    /// The client, for so long from now.
    Address(Duration),
    /// The user, for so long from now.
    User(Duration),
}

/// A ban that a failure led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Banned {
    /// `address` or `user`.
    pub(super) of: &'static str,
    pub(super) whom: String,
    pub(super) failures: u32,
    pub(super) lasts: Duration,
}

/// How many clients, users, and clients of users are remembered.
const REMEMBERED: usize = 65_536;

/// For how long a client is known as one that was in as a user.
const KNOWN: Duration = Duration::from_secs(30 * 24 * 3600);

/// The failed logins of late. A clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct Bans {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashMap<IpNet, Standing>,
    /// By the name in lower case.
    users: HashMap<String, Standing>,
    /// Where each user was in, and when last.
    known: HashMap<(String, IpNet), Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    /// Less what was forgotten since.
    failures: f64,
    as_of: Instant,
    /// Bans before this one that are not forgotten.
    bans: u32,
    banned_until: Option<Instant>,
}

impl Bans {
    /// Whether this client may not try to log in now, as this user where it has named one.
    pub(super) fn find(
        &self,
        config: &Config,
        ip: IpAddr,
        user: Option<&str>,
        now: Instant,
    ) -> Option<Ban> {
        if is_exempt(config, ip) {
            return None;
        }
        let client = customer(ip);
        let state = self.state();
        let left = |standing: &Standing| {
            let until = standing.banned_until?;
            until
                .checked_duration_since(now)
                .filter(|left| !left.is_zero())
        };
        if let Some(left) = state.addresses.get(&client).and_then(left) {
            return Some(Ban::Address(left));
        }
        let user = user?.to_lowercase();
        let left = state.users.get(&user).and_then(left)?;
        let was_in = state.known.get(&(user, client));
        let is_known = was_in.is_some_and(|was_in| now.saturating_duration_since(*was_in) < KNOWN);
        (!is_known).then_some(Ban::User(left))
    }

    /// Counts a failure; gives the bans that it leads to.
    pub(super) fn failed(
        &self,
        config: &Config,
        ip: IpAddr,
        user: Option<&str>,
        now: Instant,
    ) -> Vec<Banned> {
        if is_exempt(config, ip) {
            return Vec::new();
        }
        let mut state = self.state();
        let State {
            addresses, users, ..
        } = &mut *state;
        let client = customer(ip);
        let mut banned = Vec::new();
        banned.extend(
            count(addresses, client, config.per_address, config, now).map(|lasts| Banned {
                of: "address",
                whom: client.to_string(),
                failures: config.per_address,
                lasts,
            }),
        );
        if let Some(user) = user.map(str::to_lowercase) {
            let lasts = count(users, user.clone(), config.per_user, config, now);
            banned.extend(lasts.map(|lasts| Banned {
                of: "user",
                whom: user,
                failures: config.per_user,
                lasts,
            }));
        }
        banned
    }

    /// The client is in, and known from now on. Its failures are not forgotten: who has one password could
    /// try out all others, with a login of its own in between. Nor are those of the user.
    pub(super) fn succeeded(&self, ip: IpAddr, user: &str, now: Instant) {
        let client = customer(ip);
        let mut state = self.state();
        make_room(&mut state.known, |was_in| {
            now.saturating_duration_since(*was_in) < KNOWN
        });
        state.known.insert((user.to_lowercase(), client), now);
    }

    /// No code that could panic runs under the lock, so that poison means nothing here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_exempt(config: &Config, ip: IpAddr) -> bool {
    config.exempt.iter().any(|network| network.contains(&ip))
}

/// Counts a failure; gives how long the ban lasts that it leads to.
fn count<K: Eq + Hash>(
    standings: &mut HashMap<K, Standing>,
    key: K,
    limit: u32,
    config: &Config,
    now: Instant,
) -> Option<Duration> {
    if limit == 0 {
        return None;
    }
    make_room(standings, |standing| {
        now.saturating_duration_since(standing.as_of) < config.longest_ban
    });
    let standing = standings.entry(key).or_insert(Standing {
        failures: 0.0,
        as_of: now,
        bans: 0,
        banned_until: None,
    });
    let quiet = now.saturating_duration_since(standing.as_of);
    let forgotten = quiet.as_secs_f64() / config.window.as_secs_f64().max(1.0) * f64::from(limit);
    standing.failures = (standing.failures - forgotten).max(0.0) + 1.0;
    standing.as_of = now;
    let free_since = standing
        .banned_until
        .map(|until| now.saturating_duration_since(until));
    if free_since.is_some_and(|free| free > config.longest_ban) {
        standing.bans = 0;
    }
    if standing.failures < f64::from(limit) - 0.001 {
        return None;
    }
    let factor = 1_u32.checked_shl(standing.bans).unwrap_or(u32::MAX);
    let lasts = config.ban.saturating_mul(factor).min(config.longest_ban);
    standing.failures = 0.0;
    standing.bans += 1;
    standing.banned_until = now.checked_add(lasts);
    Some(lasts)
}

/// Forgets what need not be remembered once there is much, and all where that is not enough.
fn make_room<K: Eq + Hash, V>(kept: &mut HashMap<K, V>, is_needed: impl Fn(&V) -> bool) {
    if kept.len() < REMEMBERED {
        return;
    }
    kept.retain(|_, value| is_needed(value));
    if kept.len() > REMEMBERED / 2 {
        kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn config() -> Config {
        Config {
            per_address: 3,
            per_user: 5,
            ..Config::default()
        }
    }

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn too_many_failures_lead_to_a_ban_and_the_next_one_is_longer() {
        let (bans, config, client) = (Bans::default(), config(), ip("192.0.2.1"));
        let mut now = Instant::now();
        for lasts in [10, 20, 40] {
            for _ in 0..2 {
                assert_eq!(bans.failed(&config, client, None, now), []);
                assert_eq!(bans.find(&config, client, None, now), None);
            }
            let banned = bans.failed(&config, client, None, now);
            assert_eq!(banned[0].lasts, minutes(lasts));
            assert_eq!(
                bans.find(&config, client, None, now + minutes(1)),
                Some(Ban::Address(minutes(lasts - 1)))
            );
            now += minutes(lasts);
            assert_eq!(bans.find(&config, client, None, now), None);
        }
        now += minutes(24 * 60 + 1);
        let many: Vec<_> = (0..3)
            .flat_map(|_| bans.failed(&config, client, None, now))
            .collect();
        assert_eq!(many[0].lasts, minutes(10), "the bans are forgotten");
    }

    #[test]
    fn failures_are_forgotten_bit_by_bit_and_not_by_a_success() {
        let (bans, config, client) = (Bans::default(), config(), ip("192.0.2.1"));
        let start = Instant::now();
        for minute in (0..60).step_by(4) {
            let banned = bans.failed(&config, client, None, start + minutes(minute));
            assert_eq!(banned, [], "after {minute} minutes");
        }
        let now = start + minutes(100);
        for _ in 0..3 {
            assert_eq!(bans.find(&config, client, None, now), None);
            bans.failed(&config, client, None, now);
            bans.succeeded(client, "eve", now);
        }
        assert!(bans.find(&config, client, None, now).is_some());
    }

    #[test]
    fn a_ban_of_a_user_holds_for_strangers_only() {
        let (bans, config, now) = (Bans::default(), config(), Instant::now());
        let home = ip("198.51.100.7");
        bans.succeeded(home, "Ann", now);
        let mut banned = Vec::new();
        for last in 1..=5 {
            let stranger = ip(&format!("192.0.2.{last}"));
            banned.extend(bans.failed(&config, stranger, Some("ANN"), now));
        }
        assert_eq!((banned[0].of, banned[0].whom.as_str()), ("user", "ann"));
        let find = |client, user| bans.find(&config, client, user, now);
        let stranger = ip("192.0.2.9");
        assert_eq!(find(stranger, Some("ann")), Some(Ban::User(minutes(10))));
        assert_eq!(find(stranger, Some("bob")), None);
        assert_eq!(find(stranger, None), None);
        assert_eq!(find(home, Some("ann")), None);
    }

    #[test]
    fn a_64_of_ipv6_is_one_client_and_loopback_is_exempt() {
        let (bans, config, now) = (Bans::default(), config(), Instant::now());
        for client in [
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "127.0.0.1",
            "127.0.0.1",
        ] {
            bans.failed(&config, ip(client), None, now);
            bans.failed(&config, ip("::1"), None, now);
        }
        for (client, want) in [
            ("2001:db8::9", true),
            ("2001:db8:0:1::1", false),
            ("::1", false),
        ] {
            assert_eq!(
                bans.find(&config, ip(client), None, now).is_some(),
                want,
                "{client}"
            );
        }
    }

    #[test]
    fn memory_is_bounded_whoever_fails() {
        let (bans, config, now) = (Bans::default(), config(), Instant::now());
        for n in 0..2 * REMEMBERED as u32 {
            bans.failed(&config, IpAddr::V4(n.into()), Some(&n.to_string()), now);
            bans.succeeded(IpAddr::V4(n.into()), "ann", now);
        }
        let state = bans.state();
        let sizes = [state.addresses.len(), state.users.len(), state.known.len()];
        assert!(sizes.iter().all(|size| *size <= REMEMBERED), "{sizes:?}");
    }
}
