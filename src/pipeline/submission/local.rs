//! Users of this machine, whom the kernel names: what is their own, and whom nobody asks.
//!
//! A login of this kind is the name of a Unix account. It needs no password, for only the account itself,
//! and root, can come as it; what it may send as is held against the same rules as any other login.

use crate::mail::address::Address;
use crate::mail::address::Domain;

/// What is known of the accounts of this machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// Accounts that may send as anybody.
    pub trusted: Vec<String>,
    /// Where the name of an account is its address; the first stands for the account in Sender.
    pub domains: Vec<Domain>,
}

impl Config {
    /// Whether an account may send as anybody. Names of accounts differ in case.
    pub(super) fn trusts(&self, login: &str) -> bool {
        self.trusted.iter().any(|name| name == login)
    }

    /// Whether it is the account's name at this machine, with or without an extension.
    pub(super) fn owns(&self, login: &str, address: &Address, delimiter: Option<char>) -> bool {
        let mut own = self.domains.iter().filter_map(|domain| own(login, domain));
        own.any(|own| address.belongs_to(&own, delimiter))
    }

    /// The address that stands for an account.
    pub(super) fn address_of(&self, login: &str) -> Option<Address> {
        self.domains.first().and_then(|domain| own(login, domain))
    }
}

fn own(login: &str, domain: &Domain) -> Option<Address> {
    Address::new(login, domain.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_owns_its_name_here_and_nothing_else() {
        let domain = |name| Domain::parse(name).unwrap();
        let config = Config {
            trusted: vec!["root".to_owned()],
            domains: vec![domain("a.example"), domain("mx.example")],
        };
        for (address, want) in [
            ("anna@mx.example", true),
            ("anna+cron@a.example", true),
            ("bob@mx.example", false),
            ("anna@elsewhere.example", false),
        ] {
            let address = Address::parse(address).unwrap();
            assert_eq!(config.owns("anna", &address, Some('+')), want, "{address}");
        }
        assert!(config.trusts("root") && !config.trusts("Root") && !config.trusts("anna"));
        let own = config.address_of("anna").map(|own| own.to_string());
        assert_eq!(own.as_deref(), Some("anna@a.example"));
    }
}
