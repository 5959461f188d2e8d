//! What a user may send as beside itself: in the file of users and in the configuration the same.

use std::fmt;

use serde::Deserialize;

use crate::mail::address;
use crate::mail::address::Address;
use crate::mail::address::Domain;

/// `info@example.com`, `*@example.com` (or `@example.com`), or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Grant {
    /// This address, with or without an extension.
    Address(Address),
    /// Each address of this domain; not of those below it.
    Domain(Domain),
    /// Whatever it says.
    All,
}

/// This says nobody that one may send as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: {1}; write an address, \"*@\" and a domain, or \"*\" for all")]
pub struct NoGrant(String, address::Error);

impl Grant {
    /// Whether it is for this address. `delimiter` parts a user from an extension.
    pub fn is_for(&self, address: &Address, delimiter: Option<char>) -> bool {
        match self {
            Grant::Address(owner) => address.belongs_to(owner, delimiter),
            Grant::Domain(domain) => address.domain() == Some(domain),
            Grant::All => true,
        }
    }
}

impl TryFrom<String> for Grant {
    type Error = NoGrant;

    fn try_from(text: String) -> Result<Grant, NoGrant> {
        let domain = text.strip_prefix('*').unwrap_or(&text).strip_prefix('@');
        let grant = match (text.as_str(), domain) {
            ("*", _) => return Ok(Grant::All),
            (_, Some(domain)) => Domain::parse(domain).map(Grant::Domain),
            (_, None) if text.starts_with('*') => Err(address::Error::LocalPart),
            (_, None) => Address::parse(&text).map(Grant::Address),
        };
        grant.map_err(|reason| NoGrant(text, reason))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grant::Address(address) => address.fmt(f),
            Grant::Domain(domain) => write!(f, "*@{domain}"),
            Grant::All => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_an_address_a_domain_or_everything() {
        for (text, want) in [
            ("info@Example.com", Ok("info@example.com")),
            ("*@example.com", Ok("*@example.com")),
            ("@example.com", Ok("*@example.com")),
            ("*", Ok("*")),
            ("", Err(())),
            ("@", Err(())),
            ("*.example.com", Err(())),
            ("**@example.com", Err(())),
            ("example.com", Err(())),
            ("*@*", Err(())),
        ] {
            let got = Grant::try_from(text.to_owned()).map(|grant| grant.to_string());
            assert_eq!(got.map_err(|_| ()), want.map(str::to_owned), "{text:?}");
        }
    }
}
