//! Who may send without a login: machines of ours, known by the network that they connect from, or by a
//! certificate of which they hold the key.
//!
//! Such a machine may relay to the whole world, so no network may be listed that strangers could be in,
//! and no authority that signs for strangers ([`crate::tls::Authorities`] sees to that).

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use super::loopback;
use crate::tls::Fingerprint;
use crate::tls::Identity;

/// `[internal]`: whose mail is taken by listeners with the service `internal`, and wherever clients are
/// asked for a certificate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Networks whose machines may send to anywhere, as anybody, without a login.
    pub networks: Vec<IpNet>,
    /// Certificates by which machines are known wherever they come from: the SHA-256 of each, or of its
    /// public key.
    pub certificates: Vec<Fingerprint>,
    /// Files with authorities whose certificates make a machine known in the same way.
    pub authorities: Vec<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            networks: loopback(),
            certificates: Vec::new(),
            authorities: Vec::new(),
        }
    }
}

impl Config {
    /// Whether a certificate makes a machine one of ours.
    pub(super) fn knows(&self, certificate: &Identity) -> bool {
        let (whole, key) = (certificate.shown.fingerprint, certificate.shown.key);
        let is_listed = |one: &Fingerprint| *one == whole || *one == key;
        certificate.is_of_authority || self.certificates.iter().any(is_listed)
    }

    /// Whether a certificate can make a machine one of ours at all.
    pub fn has_certificates(&self) -> bool {
        !self.certificates.is_empty() || !self.authorities.is_empty()
    }

    /// What is wrong with the values: key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let networks = self.networks.iter().enumerate();
        networks
            .filter(|(_, network)| is_open(network))
            .map(|(at, network)| {
                let right = format!(
                    "{network} would make an open relay of us: who is in it may send to anywhere; \
                     list the networks of your own machines, public ones no wider than /16 of \
                     IPv4 and /32 of IPv6"
                );
                (format!("networks.{at}"), right)
            })
            .collect()
    }
}

/// Networks that are nobody's in the world: each site has its own (RFC 1918, RFC 4193 and their like).
const PRIVATE: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// Whether strangers are in it: it is public, and wider than any one site is.
fn is_open(network: &IpNet) -> bool {
    let private = PRIVATE.iter().filter_map(|text| text.parse::<IpNet>().ok());
    let widest = match network {
        IpNet::V4(_) => 16,
        IpNet::V6(_) => 32,
    };
    network.prefix_len() < widest && !private.into_iter().any(|private| private.contains(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_network_may_be_listed_that_strangers_are_in() {
        for (network, is_fault) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("0.0.0.0/1", true),
            ("128.0.0.0/1", true),
            ("8.0.0.0/8", true),
            ("10.0.0.0/7", true),
            ("172.0.0.0/8", true),
            ("203.0.0.0/15", true),
            ("2000::/3", true),
            ("::/1", true),
            ("2001::/16", true),
            ("10.0.0.0/8", false),
            ("127.0.0.0/8", false),
            ("172.16.0.0/12", false),
            ("fd00::/8", false),
            ("203.0.0.0/16", false),
            ("203.0.113.7/32", false),
            ("2001:db8::/32", false),
        ] {
            let config = Config {
                networks: vec!["::1/128".parse().unwrap(), network.parse().unwrap()],
                ..Config::default()
            };
            let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
            let want = if is_fault { vec!["networks.1"] } else { vec![] };
            assert_eq!(keys, want, "{network}");
        }
        assert_eq!(Config::default().faults(), []);
    }
}
