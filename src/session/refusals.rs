//! Who is refused a lot waits for the next refusal, so that a flood takes nothing from the others.
//!
//! Every 5xx counts, for a recipient, a message or a command: these are the client's doing. A 4xx is
//! mostly ours, and never counts. What is refused beyond the client's allowance is refused as ever,
//! only later. All sessions of a client count together: one address of IPv4, one /64 of IPv6.
//!
//! A session that waits reads nothing and holds no message and no reply, so that it costs no more than
//! an idle one; it has its place in `[limits]` like any other, and no other bound is needed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use tokio::time::Instant;

use crate::pipeline::loopback;
use crate::smtp::reply::Reply;
use crate::telemetry::events;

use super::Ended;
use super::Session;
use super::allowance::Allowances;
use super::allowance::REMEMBERED;
use super::allowance::customer;

/// `[session.refusals]`: how often a client may be refused something before it has to wait.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Refusals in a minute for one address of IPv4 or one /64 of IPv6. Who was quiet for a minute may
    /// have as many at once.
    pub per_minute: u32,
    /// How long each further refusal waits before it goes out; 0s for not at all.
    #[serde(with = "humantime_serde")]
    pub delay: Duration,
    /// Networks whose clients never wait.
    pub exempt: Vec<IpNet>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            per_minute: 60,
            delay: Duration::from_secs(5),
            exempt: loopback(),
        }
    }
}

/// How long the replies to one group of commands may wait in all. A client may have sent DATA with
/// them, and need not wait longer than two minutes for an answer (RFC 5321 §4.5.3.2.4).
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How often a client is named in the log.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Who was refused something lately. One for all sessions.
pub(super) struct Refusals {
    config: Config,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    allowances: Allowances,
    slowed: HashMap<IpNet, Slowed>,
}

/// A client that has to wait.
struct Slowed {
    /// When the log named it.
    told: Instant,
    /// Its replies that have waited since.
    replies: u32,
}

impl Refusals {
    pub(super) fn new(config: Config) -> Refusals {
        Refusals {
            config,
            clients: Mutex::default(),
        }
    }

    /// How long one more refusal to this client has to wait, where the replies to its group of
    /// commands have waited for `held_back` so far.
    fn one_more(&self, ip: IpAddr, held_back: Duration, now: Instant) -> Duration {
        let config = &self.config;
        if config.delay.is_zero() || config.exempt.iter().any(|net| net.contains(&ip)) {
            return Duration::ZERO;
        }
        let client = customer(ip);
        // No code that could panic runs under the lock, so that poison means nothing here.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let Clients { allowances, slowed } = &mut *clients;
        if allowances.spend(client, config.per_minute, now.into_std()) {
            return Duration::ZERO;
        }
        let tell = count(slowed, client, now);
        drop(clients);
        events::slowed_down(ip, tell);
        config.delay.min(LONGEST_WAIT.saturating_sub(held_back))
    }
}

/// Counts a reply that waits. Gives the number for the log where the client is to be named there.
fn count(slowed: &mut HashMap<IpNet, Slowed>, client: IpNet, now: Instant) -> Option<u32> {
    let is_due = |slowed: &Slowed| now.duration_since(slowed.told) >= TELL_EVERY;
    if slowed.len() >= REMEMBERED {
        slowed.retain(|_, slowed| !is_due(slowed));
        if slowed.len() >= REMEMBERED {
            slowed.clear();
        }
    }
    let Some(known) = slowed.get_mut(&client) else {
        let told = now;
        slowed.insert(client, Slowed { told, replies: 0 });
        return Some(1);
    };
    known.replies += 1;
    is_due(known).then(|| {
        known.told = now;
        std::mem::take(&mut known.replies)
    })
}

impl Session<'_> {
    /// Says it; a refusal only after a while, where the client has had too many.
    pub(super) async fn answer(&mut self, reply: &Reply) -> Result<(), Ended> {
        if reply.code >= 500 {
            let client = self.connection.peer.ip();
            let refusals = &self.shared.refusals;
            let wait = refusals.one_more(client, self.held_back, Instant::now());
            if !wait.is_zero() {
                self.hold_back(wait).await?;
            }
        }
        self.say(reply);
        Ok(())
    }

    /// Waits, with empty hands, unless the gateway is told to stop.
    async fn hold_back(&mut self, wait: Duration) -> Result<(), Ended> {
        self.held_back += wait;
        if self.server.transaction().is_none() {
            self.incoming = None;
        }
        self.flush().await?;
        let mut until = Instant::now() + wait;
        if let Some(incoming) = &self.incoming {
            until = until.min(incoming.deadline);
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(config: Config) -> Refusals {
        Refusals::new(Config {
            per_minute: 3,
            ..config
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of ten refusals at once have to wait.
    fn waits(refusals: &Refusals, client: &str, now: Instant) -> usize {
        let refused = (0..10).map(|_| refusals.one_more(ip(client), Duration::ZERO, now));
        refused.filter(|wait| !wait.is_zero()).count()
    }

    #[test]
    fn who_has_had_too_many_waits_and_others_do_not() {
        let refusals = refusals(Config::default());
        let start = Instant::now();
        for (client, after, want) in [
            ("192.0.2.1", 0, 7),
            ("192.0.2.2", 0, 7),
            ("192.0.2.1", 20, 9),
            ("2001:db8::1", 20, 7),
            ("2001:db8::2", 20, 10),
            ("127.0.0.2", 20, 0),
        ] {
            let now = start + Duration::from_secs(after);
            assert_eq!(
                waits(&refusals, client, now),
                want,
                "{client} after {after} s"
            );
        }
    }

    #[test]
    fn a_group_of_commands_waits_no_longer_than_its_client_does() {
        let refusals = refusals(Config::default());
        let mut held_back = Duration::ZERO;
        for _ in 0..100 {
            held_back += refusals.one_more(ip("192.0.2.1"), held_back, Instant::now());
        }
        assert_eq!(held_back, LONGEST_WAIT);
    }

    #[test]
    fn a_delay_of_nothing_turns_it_off() {
        let off = Config {
            delay: Duration::ZERO,
            ..Config::default()
        };
        assert_eq!(waits(&refusals(off), "192.0.2.1", Instant::now()), 0);
    }

    #[test]
    fn a_client_is_named_at_once_and_then_with_each_minutes_count() {
        let mut slowed = HashMap::new();
        let (start, client) = (Instant::now(), customer(ip("192.0.2.1")));
        for (after, want) in [
            (0, Some(1)),
            (1, None),
            (59, None),
            (60, Some(3)),
            (119, None),
            (300, Some(2)),
        ] {
            let now = start + Duration::from_secs(after);
            assert_eq!(count(&mut slowed, client, now), want, "after {after} s");
        }
    }

    #[test]
    fn memory_is_bounded_whoever_is_slowed() {
        let mut slowed = HashMap::new();
        let now = Instant::now();
        for n in 0..2 * REMEMBERED as u32 {
            count(&mut slowed, customer(IpAddr::V4(n.into())), now);
            assert!(slowed.len() <= REMEMBERED);
        }
    }
}
