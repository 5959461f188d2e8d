//! What the DNS proves of a server's certificate (RFC 7672 §2.2).
//!
//! TLSA records are asked for where all that leads to the server is proven: the MX records and the
//! addresses, or at least that its name is an alias. An answer that is bogus, or none, is an error: the
//! host is not tried, for nobody may make us less careful by breaking the DNS.

use std::sync::Arc;

use super::Pins;
use crate::dns;
use crate::dns::Dns;
use crate::dns::Proof;
use crate::mail::address::Domain;
use crate::tls::dane::Association;
use crate::tls::dane::strongest;

/// What is known of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delivery) enum Dane {
    /// The way to it is not proven, so nothing was asked.
    Unproven,
    /// It is proven, and there are no TLSA records that are.
    Absent,
    /// There are, and none can be used.
    Unusable { at: Box<str> },
    /// There are.
    Pinned { pins: Arc<Pins>, at: Box<str> },
}

/// How a host was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::delivery) struct Way {
    /// As it was named.
    pub(in crate::delivery) host: Domain,
    /// Whose mail it takes: the domain asked for, and where that is an alias, what it stands for. Empty
    /// where an operator named the host.
    pub(in crate::delivery) domains: Vec<Domain>,
    /// Whether it is proven that it takes that mail.
    pub(in crate::delivery) exchange: Proof,
    /// Whether its addresses are proven.
    pub(in crate::delivery) addresses: Proof,
    /// What its name stands for, if it is an alias.
    pub(in crate::delivery) alias: Option<Domain>,
}

/// Asks for the TLSA records of a host.
///
/// # Errors
/// Where the DNS gives no answer that can be trusted. Cancel safe.
pub(in crate::delivery) async fn look_up(
    dns: &Dns,
    way: &Way,
    port: u16,
) -> Result<Dane, dns::Error> {
    if way.exchange == Proof::Insecure {
        return Ok(Dane::Unproven);
    }
    for base in bases(dns, way).await? {
        let at = format!("_{port}._tcp.{base}");
        match dns.tlsa(&at).await {
            Ok(records) if records.proof == Proof::Secure => {
                return Ok(read(way, base, &at, &records.found));
            }
            Ok(_) | Err(dns::Error::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(match way.addresses {
        Proof::Secure => Dane::Absent,
        Proof::Insecure => Dane::Unproven,
    })
}

/// The names below which records may stand, in the order in which they count (RFC 7672 §2.2.2).
async fn bases(dns: &Dns, way: &Way) -> Result<Vec<Domain>, dns::Error> {
    let host = way.host.clone();
    match (way.addresses, &way.alias) {
        (Proof::Secure, Some(alias)) => Ok(vec![alias.clone(), host]),
        (Proof::Secure, None) => Ok(vec![host]),
        (Proof::Insecure, None) => Ok(Vec::new()),
        (Proof::Insecure, Some(_)) => match dns.alias(&way.host).await {
            Ok(Proof::Secure) => Ok(vec![host]),
            Ok(Proof::Insecure) | Err(dns::Error::NotFound) => Ok(Vec::new()),
            Err(error) => Err(error),
        },
    }
}

fn read(way: &Way, base: Domain, at: &str, records: &[dns::Tlsa]) -> Dane {
    let at: Box<str> = at.into();
    let usable = records.iter().filter_map(|record| {
        Association::new(record.usage, record.selector, record.matching, &record.data)
    });
    let associations = strongest(usable.collect());
    if associations.is_empty() {
        return Dane::Unusable { at };
    }
    // RFC 7672 §3.2.2
    let mut names = vec![base.clone(), way.host.clone()];
    names.extend(way.domains.iter().cloned());
    names.dedup();
    let pins = Arc::new(Pins {
        associations,
        base,
        names,
    });
    Dane::Pinned { pins, at }
}
