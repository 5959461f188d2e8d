//! What messages on their way in may hold in memory: all together, and those of one client.
//!
//! Never waits: who comes when it is used up is told to try again, which is better than a gateway
//! in which everybody holds half a message and nobody can finish. No client can use it up alone.
//! It counts what is held and nothing else, so that one lasts through all reloads; how much may be
//! held is for each session's configuration to say.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytesize::ByteSize;
use ipnet::IpNet;

use super::allowance::customer;

/// The memory that messages on their way in hold now. One a process; a clone is the same one.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    in_all: u64,
    /// Only clients that hold something.
    by_client: HashMap<IpNet, u64>,
}

/// How much may be held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) in_all: ByteSize,
    pub(super) per_client: ByteSize,
}

/// One message's part of the budget, given back when it is dropped.
pub(super) struct Share {
    budget: Budget,
    limits: Limits,
    client: IpNet,
    held: u64,
    exhausted: bool,
}

impl Budget {
    /// An empty part of it.
    pub(super) fn share(&self, client: IpAddr, limits: Limits) -> Share {
        Share {
            budget: self.clone(),
            limits,
            client: customer(client),
            held: 0,
            exhausted: false,
        }
    }

    /// No code that could panic runs under the lock, so that poison means nothing here.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Counts `octets` more, if both limits allow them.
    fn take(&mut self, octets: u64, client: IpNet, limits: Limits) -> bool {
        let fits = |held: u64, limit: ByteSize| held.saturating_add(octets) <= limit.as_u64();
        let of_client = self.by_client.get(&client).copied().unwrap_or(0);
        if !fits(self.in_all, limits.in_all) || !fits(of_client, limits.per_client) {
            return false;
        }
        self.in_all += octets;
        self.by_client.insert(client, of_client + octets);
        true
    }

    fn give_back(&mut self, octets: u64, client: IpNet) {
        self.in_all = self.in_all.saturating_sub(octets);
        match self.by_client.get_mut(&client) {
            Some(held) if *held > octets => *held -= octets,
            _ => {
                self.by_client.remove(&client);
            }
        }
    }
}

impl Share {
    /// Grows to `octets`; false where there is no more to be had, now and ever after.
    pub(super) fn covers(&mut self, octets: usize) -> bool {
        let wanted = (octets as u64).saturating_sub(self.held);
        if self.exhausted || wanted == 0 {
            return !self.exhausted;
        }
        if self.budget.held().take(wanted, self.client, self.limits) {
            self.held += wanted;
        } else {
            self.exhausted = true;
            self.give_back();
        }
        !self.exhausted
    }

    /// Whether the message was dropped for want of memory.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    fn give_back(&mut self) {
        if self.held > 0 {
            self.budget.held().give_back(self.held, self.client);
            self.held = 0;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(in_all: u64, per_client: u64) -> Limits {
        Limits {
            in_all: ByteSize::b(in_all),
            per_client: ByteSize::b(per_client),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_comes_on_top_gets_nothing_and_what_was_held_comes_back() {
        let budget = Budget::default();
        let share = || budget.share(ip("192.0.2.1"), limits(100, 100));
        let mut first = share();
        let mut second = share();
        assert!(first.covers(60));
        assert!(first.covers(50), "it has more than that already");
        assert!(second.covers(40));
        assert!(!second.covers(41));
        assert!(second.is_exhausted());
        assert!(first.covers(100), "the second gave its part back");
        drop(first);
        assert!(share().covers(100));
        assert!(budget.held().by_client.is_empty(), "nobody holds anything");
    }

    #[test]
    fn a_client_holds_its_part_at_most_and_others_find_theirs() {
        let budget = Budget::default();
        let share = |client| budget.share(ip(client), limits(100, 40));
        let mut first = share("2001:db8::1");
        assert!(first.covers(30));
        assert!(!share("2001:db8::2").covers(11), "of the same /64");
        let mut held = Vec::new();
        for (client, octets, want) in [
            ("192.0.2.1", 41, false),
            ("192.0.2.1", 40, true),
            ("192.0.2.1", 1, false),
            ("192.0.2.2", 31, false),
            ("192.0.2.2", 30, true),
        ] {
            let mut share = share(client);
            assert_eq!(share.covers(octets), want, "{octets} for {client}");
            held.push(share);
        }
        drop(held);
        assert!(first.covers(40));
    }

    #[test]
    fn what_old_sessions_hold_counts_under_new_limits() {
        let budget = Budget::default();
        let mut before = budget.share(ip("192.0.2.1"), limits(100, 100));
        assert!(before.covers(80));
        let mut after = budget.share(ip("192.0.2.2"), limits(50, 50));
        assert!(!after.covers(1));
        drop(before);
        assert!(budget.share(ip("192.0.2.2"), limits(50, 50)).covers(50));
    }
}
