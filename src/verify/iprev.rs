//! Whether the client's address has a name that leads back to it (RFC 8601 §3).

use std::net::IpAddr;

use futures_util::future::join_all;

use crate::dns::Dns;
use crate::dns::Error;
use crate::mail::address::Domain;
use crate::verify::Iprev;
use crate::verify::IprevResult;

/// Names of one address that are tried. Whoever has more has them by mistake.
const MAX_NAMES: usize = 5;

/// Looks the address up, then its names.
pub(super) async fn check(dns: &Dns, ip: IpAddr) -> Iprev {
    let ip = ip.to_canonical();
    match dns.reverse(ip).await {
        Ok(names) => check_names(dns, ip, &names).await,
        // RFC 8601 §2.7.3: no PTR records are a permanent error.
        Err(Error::NotFound) => without_name(IprevResult::PermError),
        Err(Error::Temporary(_)) => without_name(IprevResult::TempError),
    }
}

/// The first name that leads back; all are asked about at once.
async fn check_names(dns: &Dns, ip: IpAddr, names: &[Domain]) -> Iprev {
    let names = &names[..names.len().min(MAX_NAMES)];
    let addresses = names
        .iter()
        .map(|name| dns.addresses_like(ip, name.as_str()));
    let mut result = IprevResult::Fail;
    for (name, addresses) in names.iter().zip(join_all(addresses).await) {
        match addresses {
            Ok(addresses) if addresses.contains(&ip) => {
                return Iprev {
                    result: IprevResult::Pass,
                    name: Some(name.clone()),
                };
            }
            Ok(_) | Err(Error::NotFound) => {}
            Err(Error::Temporary(_)) => result = IprevResult::TempError,
        }
    }
    without_name(result)
}

fn without_name(result: IprevResult) -> Iprev {
    Iprev { result, name: None }
}
