//! How many at once, from whom, and how fast: the `[limits]` section and the gate that holds it.
//!
//! [`Gate::admit`] is asked once a connection and answers at once; the [`Ticket`] it gives counts
//! until it is dropped. Knows no clock and no socket. Its memory is bounded: it remembers whoever is
//! connected, and a bounded number of those who were here within the last minute.

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

use crate::session::TurnedAway;
use crate::session::allowance::Allowances;
use crate::session::allowance::customer;
use crate::session::allowance::network;
use crate::session::loopback;

/// `[limits]`: what one gateway takes on at a time. Whoever comes in addition is told 421 and to
/// come back later (RFC 5321 §3.8).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once in all.
    pub connections: u32,
    /// Connections at once from one address, and through the local socket from one account.
    pub per_address: u32,
    /// Connections at once from one network: /24 of IPv4, /64 of IPv6.
    pub per_network: u32,
    /// New connections in a minute from one address of IPv4 or one /64 of IPv6. Who was quiet for a
    /// minute may open as many at once.
    pub connections_per_minute: u32,
    /// Networks for which only the limit in all holds.
    pub exempt: Vec<IpNet>,
    /// How long a connection from `proxy_protocol_from` may take to send its PROXY header.
    #[serde(with = "humantime_serde")]
    pub proxy_header_timeout: Duration,
    /// How long sessions may go on when the gateway is stopped, before they are cut off.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 10_000,
            per_address: 50,
            per_network: 200,
            connections_per_minute: 120,
            exempt: loopback(),
            proxy_header_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// What is wrong: key path in the section, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        [
            ("connections", self.connections),
            ("per_address", self.per_address),
            ("per_network", self.per_network),
            ("connections_per_minute", self.connections_per_minute),
        ]
        .into_iter()
        .filter(|(_, limit)| *limit == 0)
        .map(|(key, _)| {
            let right = "0 would turn everybody away; give a number from 1".to_owned();
            (key.to_owned(), right)
        })
        .collect()
    }
}

/// The reason in the mail log, and the label of its counter.
pub(super) fn name(reason: TurnedAway) -> &'static str {
    match reason {
        TurnedAway::TooManyInAll => "too many connections",
        TurnedAway::TooManyFromAddress => "too many from address",
        TurnedAway::TooManyFromNetwork => "too many from network",
        TurnedAway::TooManyFromAccount => "too many from account",
        TurnedAway::TooFast => "too fast",
    }
}

/// Who may come in. One for all listeners.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    open: u32,
    /// Only addresses with open connections.
    addresses: HashMap<IpAddr, u32>,
    /// Only networks with open connections.
    networks: HashMap<IpNet, u32>,
    /// Only accounts of this machine with open connections.
    accounts: HashMap<u32, u32>,
    /// Connections that each client may still open.
    allowances: Allowances,
}

impl Gate {
    pub(super) fn new(limits: Limits) -> Gate {
        let state = State {
            limits,
            open: 0,
            addresses: HashMap::new(),
            networks: HashMap::new(),
            accounts: HashMap::new(),
            allowances: Allowances::default(),
        };
        Gate {
            state: Mutex::new(state),
        }
    }

    /// Other limits from now on. Who is inside stays, even where there are too many now.
    pub(super) fn set_limits(&self, limits: Limits) {
        self.state().limits = limits;
    }

    /// Lets a client in if each limit allows one more.
    pub(super) fn admit(self: &Arc<Gate>, ip: IpAddr, now: Instant) -> Result<Ticket, TurnedAway> {
        let mut ticket = self.enter()?;
        ticket.claim(ip, now)?;
        Ok(ticket)
    }

    /// Lets in who is not known yet, because a PROXY header is still to come: counts in all only,
    /// until [`Ticket::claim`].
    pub(super) fn enter(self: &Arc<Gate>) -> Result<Ticket, TurnedAway> {
        let mut state = self.state();
        if state.open >= state.limits.connections {
            return Err(TurnedAway::TooManyInAll);
        }
        state.open += 1;
        Ok(Ticket {
            gate: Arc::clone(self),
            client: None,
            account: None,
        })
    }

    /// Lets in an account of this machine, which may have as many connections as an address.
    pub(super) fn admit_account(self: &Arc<Gate>, uid: u32) -> Result<Ticket, TurnedAway> {
        let mut ticket = self.enter()?;
        let mut state = self.state();
        if state.accounts.get(&uid).copied().unwrap_or(0) >= state.limits.per_address {
            return Err(TurnedAway::TooManyFromAccount);
        }
        *state.accounts.entry(uid).or_default() += 1;
        ticket.account = Some(uid);
        Ok(ticket)
    }

    /// No code that could panic runs under the lock, so that poison means nothing here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection. Dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Ticket {
    gate: Arc<Gate>,
    /// None while unknown, and for exempt clients.
    client: Option<IpAddr>,
    /// The account of this machine, for those that have come as one.
    account: Option<u32>,
}

impl Ticket {
    /// Says who the client is, once. After an error the ticket is good for nothing but to be dropped.
    pub(super) fn claim(&mut self, ip: IpAddr, now: Instant) -> Result<(), TurnedAway> {
        let mut state = self.gate.state();
        if state.limits.exempt.iter().any(|net| net.contains(&ip)) {
            return Ok(());
        }
        state.claim(ip, now)?;
        self.client = Some(ip);
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.open = state.open.saturating_sub(1);
        if let Some(ip) = self.client {
            state.release(ip);
        }
        if let Some(uid) = self.account {
            leave(&mut state.accounts, &uid);
        }
    }
}

impl State {
    fn claim(&mut self, ip: IpAddr, now: Instant) -> Result<(), TurnedAway> {
        let network = network(ip);
        if self.addresses.get(&ip).copied().unwrap_or(0) >= self.limits.per_address {
            return Err(TurnedAway::TooManyFromAddress);
        }
        if self.networks.get(&network).copied().unwrap_or(0) >= self.limits.per_network {
            return Err(TurnedAway::TooManyFromNetwork);
        }
        let per_minute = self.limits.connections_per_minute;
        if !self.allowances.spend(customer(ip), per_minute, now) {
            return Err(TurnedAway::TooFast);
        }
        *self.addresses.entry(ip).or_default() += 1;
        *self.networks.entry(network).or_default() += 1;
        Ok(())
    }

    fn release(&mut self, ip: IpAddr) {
        leave(&mut self.addresses, &ip);
        leave(&mut self.networks, &network(ip));
    }
}

/// One fewer for the key, which is forgotten with the last.
fn leave<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(limits: Limits) -> Arc<Gate> {
        Arc::new(Gate::new(limits))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_limit_turns_away_with_its_own_reason() {
        let limits = Limits {
            connections: 6,
            per_address: 2,
            per_network: 3,
            connections_per_minute: 3,
            ..Limits::default()
        };
        let gate = gate(limits);
        let now = Instant::now();
        let mut inside = Vec::new();
        for (client, want) in [
            ("192.0.2.1", None),
            ("192.0.2.1", None),
            ("192.0.2.1", Some(TurnedAway::TooManyFromAddress)),
            ("192.0.2.2", None),
            ("192.0.2.3", Some(TurnedAway::TooManyFromNetwork)),
            ("192.0.3.3", None),
            ("2001:db8::1", None),
            ("127.0.0.1", None),
            ("2001:db8:0:1::1", Some(TurnedAway::TooManyInAll)),
            ("127.0.0.1", Some(TurnedAway::TooManyInAll)),
        ] {
            let got = gate.admit(ip(client), now);
            assert_eq!(got.as_ref().err().copied(), want, "{client}");
            inside.extend(got);
        }
        inside.clear();
        assert_eq!(gate.state().open, 0);
        assert!(gate.state().networks.is_empty());
        inside.extend(gate.admit(ip("192.0.2.1"), now));
        assert_eq!(inside.len(), 1, "room again after all have left");
        drop(inside);
        let got = gate.admit(ip("192.0.2.1"), now).err();
        assert_eq!(got, Some(TurnedAway::TooFast));
    }

    #[test]
    fn an_ipv6_network_is_a_64() {
        let limits = Limits {
            per_network: 1,
            ..Limits::default()
        };
        let gate = gate(limits);
        let now = Instant::now();
        let _inside = gate.admit(ip("2001:db8::1"), now).unwrap();
        let same = gate.admit(ip("2001:db8::ffff:0:0:2"), now).err();
        assert_eq!(same, Some(TurnedAway::TooManyFromNetwork));
        assert!(gate.admit(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn another_address_of_the_same_64_has_no_allowance_of_its_own() {
        let limits = Limits {
            connections_per_minute: 2,
            ..Limits::default()
        };
        let gate = gate(limits);
        let now = Instant::now();
        for (client, want) in [
            ("2001:db8::1", None),
            ("2001:db8::2", None),
            ("2001:db8::3", Some(TurnedAway::TooFast)),
            ("2001:db8:0:1::1", None),
            ("192.0.2.1", None),
            ("192.0.2.1", None),
            ("192.0.2.2", None),
        ] {
            assert_eq!(gate.admit(ip(client), now).err(), want, "{client}");
        }
    }

    #[test]
    fn the_allowance_fills_up_in_a_minute() {
        let limits = Limits {
            connections_per_minute: 6,
            ..Limits::default()
        };
        let gate = gate(limits);
        let start = Instant::now();
        for (second, tries, want) in [(0, 9, 6), (10, 3, 1), (30, 9, 2), (3600, 9, 6)] {
            let now = start + Duration::from_secs(second);
            let admit = |_: &usize| gate.admit(ip("192.0.2.1"), now).is_ok();
            let got = (0..tries).filter(admit).count();
            assert_eq!(got, want, "at second {second}");
        }
    }

    #[test]
    fn exempt_clients_know_only_the_limit_in_all() {
        let limits = Limits {
            connections: 5,
            per_address: 1,
            per_network: 1,
            connections_per_minute: 1,
            ..Limits::default()
        };
        let gate = gate(limits);
        let now = Instant::now();
        let admit = |_| gate.admit(ip("::1"), now);
        let inside: Vec<_> = (0..9).filter_map(|n| admit(n).ok()).collect();
        assert_eq!(inside.len(), 5);
    }

    #[test]
    fn who_hides_behind_a_proxy_counts_when_known() {
        let limits = Limits {
            connections: 2,
            per_address: 1,
            ..Limits::default()
        };
        let gate = gate(limits);
        let now = Instant::now();
        let mut first = gate.enter().unwrap();
        let mut second = gate.enter().unwrap();
        assert_eq!(gate.enter().err(), Some(TurnedAway::TooManyInAll));
        assert_eq!(first.claim(ip("192.0.2.1"), now), Ok(()));
        let got = second.claim(ip("192.0.2.1"), now);
        assert_eq!(got, Err(TurnedAway::TooManyFromAddress));
        drop(second);
        drop(first);
        assert_eq!(gate.state().open, 0);
        assert!(gate.state().networks.is_empty());
    }

    #[test]
    fn an_account_has_as_many_connections_as_an_address() {
        let limits = Limits {
            connections: 4,
            per_address: 2,
            ..Limits::default()
        };
        let gate = gate(limits);
        let mut inside = Vec::new();
        for (uid, want) in [
            (0, None),
            (1000, None),
            (1000, None),
            (1000, Some(TurnedAway::TooManyFromAccount)),
            (0, None),
            (33, Some(TurnedAway::TooManyInAll)),
        ] {
            let got = gate.admit_account(uid);
            assert_eq!(got.as_ref().err().copied(), want, "{uid}");
            inside.extend(got);
        }
        inside.clear();
        assert_eq!(gate.state().open, 0);
        assert!(gate.state().accounts.is_empty());
    }

    #[test]
    fn a_limit_of_nothing_is_a_fault() {
        assert_eq!(Limits::default().faults(), []);
        let limits = Limits {
            per_network: 0,
            ..Limits::default()
        };
        assert_eq!(limits.faults()[0].0, "per_network");
    }
}
