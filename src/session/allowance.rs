//! How much of something each client may do in a minute, in bounded memory: token buckets.
//!
//! Who was quiet for a minute may do a minute's worth at once. Knows no clock, and not what it is that
//! is counted. At most [`REMEMBERED`] clients are known.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use ipnet::Ipv4Net;
use ipnet::Ipv6Net;

/// How many clients are remembered. Who is forgotten too early gets a fresh allowance, nothing worse.
pub const REMEMBERED: usize = 65_536;

/// Below this many clients none is worth forgetting.
const SWEEP_FROM: usize = 1024;

/// Who shares what is given to each client: an IPv4 address, or a /64, in which a client has as many
/// addresses as it likes.
pub fn customer(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(_) => ip.into(),
        IpAddr::V6(ip) => IpNet::V6(Ipv6Net::new_assert(ip, 64).trunc()),
    }
}

/// What counts as one network: what one customer usually has.
pub fn network(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(ip) => IpNet::V4(Ipv4Net::new_assert(ip, 24).trunc()),
        IpAddr::V6(_) => customer(ip),
    }
}

/// What is left to each client that did something lately.
#[derive(Debug)]
pub struct Allowances {
    kept: HashMap<IpNet, Allowance>,
    /// At how many those are forgotten that need no remembering.
    sweep_at: usize,
}

/// A token bucket.
#[derive(Debug)]
struct Allowance {
    left: f64,
    as_of: Instant,
}

impl Default for Allowances {
    fn default() -> Allowances {
        Allowances {
            kept: HashMap::new(),
            sweep_at: SWEEP_FROM,
        }
    }
}

impl Allowances {
    /// Takes one off what is left to the client; false where less than one is left.
    pub fn spend(&mut self, client: IpNet, per_minute: u32, now: Instant) -> bool {
        let full = f64::from(per_minute);
        self.sweep_if_due(full, now);
        let allowance = self.kept.entry(client).or_insert(Allowance {
            left: full,
            as_of: now,
        });
        let left = allowance.at(now, full);
        if left < 1.0 {
            return false;
        }
        *allowance = Allowance {
            left: left - 1.0,
            as_of: now,
        };
        true
    }

    /// Forgets clients whose allowance is full again. Where that is not enough, because too many come
    /// from too many addresses, forgets all. Costs a walk through the table, but only after the table
    /// has grown by half or more.
    fn sweep_if_due(&mut self, full: f64, now: Instant) {
        if self.kept.len() < self.sweep_at {
            return;
        }
        self.kept.retain(|_, kept| kept.at(now, full) < full);
        if self.kept.len() > REMEMBERED / 2 {
            self.kept.clear();
        }
        self.sweep_at = (self.kept.len() * 2).clamp(SWEEP_FROM, REMEMBERED);
    }
}

impl Allowance {
    /// `full` is both what fills up in a minute and what there can be at most.
    fn at(&self, now: Instant, full: f64) -> f64 {
        let minutes = now.saturating_duration_since(self.as_of).as_secs_f64() / 60.0;
        (self.left + minutes * full).min(full)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::Duration;

    use super::*;

    fn client(text: &str) -> IpNet {
        customer(text.parse().unwrap())
    }

    #[test]
    fn a_minutes_worth_may_be_spent_at_once_and_comes_back_bit_by_bit() {
        let mut allowances = Allowances::default();
        let start = Instant::now();
        let mut spend = |client, seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..9)
                .take_while(|_| allowances.spend(client, 6, now))
                .count()
        };
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        for (who, at, want) in [(one, 0, 6), (one, 5, 0), (one, 20, 2), (other, 20, 6)] {
            assert_eq!(spend(who, at), want, "{who} after {at} s");
        }
        assert_eq!(
            spend(one, 3600),
            6,
            "no more than a minute's worth is saved"
        );
    }

    #[test]
    fn a_64_of_ipv6_is_one_client() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let mut allowances = Allowances::default();
        let start = Instant::now();
        for n in 0..4 * REMEMBERED as u32 {
            let stranger = Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(n) << 64);
            allowances.spend(customer(stranger.into()), 10, start);
            assert!(allowances.kept.len() <= REMEMBERED);
        }
        let later = start + Duration::from_secs(61);
        allowances.sweep_at = 0;
        allowances.spend(client("192.0.2.2"), 10, later);
        let left = allowances.kept.len();
        assert_eq!(left, 1, "rested clients are forgotten");
    }
}
