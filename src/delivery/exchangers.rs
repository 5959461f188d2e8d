//! Which mail exchangers of a domain are tried, and in what order (RFC 5321 §5.1, RFC 7505).
//!
//! Pure: records and addresses come in, chance is an argument.

use std::net::IpAddr;

use rand::Rng;
use rand::seq::SliceRandom;

use crate::mail::address::Domain;

/// So many exchangers of one domain are looked at; those preferred most.
const MOST_EXCHANGERS: usize = 20;

/// Why nobody is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoExchanger {
    /// The domain says that it takes no mail (RFC 7505).
    NullMx,
    /// No record names a host.
    NoHost,
    /// We are the most preferred.
    Loop,
}

/// An exchanger and how much it is preferred; less is more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exchanger {
    pub(super) preference: u16,
    pub(super) host: Domain,
}

/// The exchangers that the records name, best first, those of equal preference in any order. Where
/// `ours` is among them, only those that are preferred to it.
pub(super) fn order(
    records: &[(u16, String)],
    ours: &Domain,
    rng: &mut impl Rng,
) -> Result<Vec<Exchanger>, NoExchanger> {
    // RFC 7505 §3
    if !records.is_empty() && records.iter().all(|(_, host)| host.is_empty()) {
        return Err(NoExchanger::NullMx);
    }
    let named = records.iter().filter_map(|(preference, host)| {
        let host = Domain::parse(host).ok()?;
        Some(Exchanger {
            preference: *preference,
            host,
        })
    });
    let mut exchangers: Vec<Exchanger> = named.collect();
    if exchangers.is_empty() {
        return Err(NoExchanger::NoHost);
    }
    exchangers.shuffle(rng); // RFC 5321 §5.1: the load is spread.
    exchangers.sort_by_key(|exchanger| exchanger.preference);
    let us = exchangers.iter().find(|exchanger| exchanger.host == *ours);
    if let Some(preference) = us.map(|us| us.preference) {
        // Mail that went to the others would come back.
        exchangers.retain(|exchanger| exchanger.preference < preference);
    }
    if exchangers.is_empty() {
        return Err(NoExchanger::Loop);
    }
    exchangers.truncate(MOST_EXCHANGERS);
    Ok(exchangers)
}

/// The addresses of one host as they are tried: the families in turn, IPv6 first (RFC 8305 §4). A host may
/// have thousands; the first `most` are kept.
pub(super) fn interleave(addresses: Vec<IpAddr>, most: usize) -> Vec<IpAddr> {
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let mut mixed = Vec::with_capacity(v6.len() + v4.len());
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    loop {
        match (v6.next(), v4.next()) {
            (None, None) => break,
            (one, other) => mixed.extend(one.into_iter().chain(other)),
        }
    }
    mixed.truncate(most);
    mixed
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn ordered(records: &[(u16, &str)], seed: u64) -> Result<Vec<String>, NoExchanger> {
        let records: Vec<_> = records
            .iter()
            .map(|(p, host)| (*p, (*host).to_owned()))
            .collect();
        let ours = Domain::parse("mx.ours.example").unwrap();
        let order = order(&records, &ours, &mut SmallRng::seed_from_u64(seed))?;
        Ok(order
            .into_iter()
            .map(|exchanger| exchanger.host.to_string())
            .collect())
    }

    #[test]
    fn the_preferred_come_first_and_the_loop_is_cut() {
        use NoExchanger::Loop;
        use NoExchanger::NoHost;
        use NoExchanger::NullMx;
        type Row<'a> = (&'a [(u16, &'a str)], Result<&'a [&'a str], NoExchanger>);
        let rows: &[Row] = &[
            (
                &[(20, "b.example"), (10, "A.example")],
                Ok(&["a.example", "b.example"]),
            ),
            (&[(0, "")], Err(NullMx)),
            (&[(10, "a.example"), (0, "")], Ok(&["a.example"])),
            (&[(10, "no host"), (10, "..")], Err(NoHost)),
            (&[], Err(NoHost)),
            (&[(10, "mx.ours.example"), (20, "b.example")], Err(Loop)),
            (&[(10, "MX.ours.example"), (10, "b.example")], Err(Loop)),
            (
                &[
                    (10, "a.example"),
                    (20, "mx.ours.example"),
                    (20, "b.example"),
                    (30, "c.example"),
                ],
                Ok(&["a.example"]),
            ),
        ];
        for (records, want) in rows {
            let want = want.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect());
            assert_eq!(ordered(records, 1), want, "{records:?}");
        }
    }

    #[test]
    fn those_of_equal_preference_take_turns() {
        let records = [
            (10, "a.example"),
            (10, "b.example"),
            (10, "c.example"),
            (5, "first.example"),
        ];
        let orders: HashSet<_> = (0..100)
            .map(|seed| ordered(&records, seed).unwrap())
            .collect();
        assert_eq!(orders.len(), 6);
        assert!(orders.iter().all(|order| order[0] == "first.example"));
    }

    #[test]
    fn a_domain_with_very_many_exchangers_has_its_best_tried() {
        let names: Vec<String> = (0..1000)
            .map(|number| format!("h{number}.example"))
            .collect();
        let records = names.iter().zip((0..1000).rev());
        let records: Vec<(u16, &str)> = records.map(|(name, p)| (p, name.as_str())).collect();
        let order = ordered(&records, 1).unwrap();
        assert_eq!(order.len(), MOST_EXCHANGERS);
        assert_eq!(order[0], "h999.example");
    }

    #[test]
    fn families_take_turns() {
        let addresses = |list: &[&str]| -> Vec<IpAddr> {
            list.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = addresses(&["192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.3"]);
        let want = addresses(&["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(interleave(given.clone(), 9), want);
        assert_eq!(interleave(given, 2), want[..2]);
    }
}
