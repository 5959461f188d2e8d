//! `[dns]`: whom to ask, how long to wait, how much to remember.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// `[dns]`: whom to ask, how long to wait, how long to remember.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The resolvers to ask, each `"192.0.2.1"`, `"192.0.2.1:5353"` or `"[2001:db8::1]:53"`. None
    /// given: those of `/etc/resolv.conf`. A validating resolver on this host serves best.
    pub servers: Vec<Server>,
    /// How long one resolver may take for one answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How often a question is asked before it is given up, 1 or more.
    pub attempts: usize,
    /// How long one question may take in all.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// How much memory may be spent on remembering answers.
    pub cache_size: ByteSize,
    /// An answer is remembered for at least this long, even if its TTL is shorter.
    #[serde(with = "humantime_serde")]
    pub min_ttl: Duration,
    /// An answer is remembered for at most this long, even if its TTL is longer.
    #[serde(with = "humantime_serde")]
    pub max_ttl: Duration,
    /// That there is no such name or record is remembered for at least this long.
    #[serde(with = "humantime_serde")]
    pub negative_min_ttl: Duration,
    /// That there is no such name or record is remembered for at most this long.
    #[serde(with = "humantime_serde")]
    pub negative_max_ttl: Duration,
    /// Whom to believe that DNSSEC proves an answer. DANE rests on it.
    pub dnssec: Dnssec,
    /// The DNSKEY records from which `dnssec = "validate"` starts, one a line. Default: those of the root.
    pub trust_anchors: Option<PathBuf>,
}

/// `dnssec`: who finds out whether DNSSEC proves an answer (RFC 4033 §7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dnssec {
    /// Nobody: no answer counts as proven.
    Off,
    /// Resolvers on this machine: their word (the AD bit) cannot be forged on the way to us. Where one is
    /// elsewhere, no answer counts as proven.
    #[default]
    Local,
    /// The resolvers, wherever they are: the network to them has to be safe.
    TrustAd,
    /// We do, from the trust anchors down. Resolvers have to hand out signatures.
    Validate,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            servers: Vec::new(),
            timeout: Duration::from_secs(3),
            attempts: 2,
            deadline: Duration::from_secs(10),
            cache_size: ByteSize::mib(16),
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(24 * 3600),
            negative_min_ttl: Duration::from_secs(5),
            negative_max_ttl: Duration::from_secs(15 * 60),
            dnssec: Dnssec::default(),
            trust_anchors: None,
        }
    }
}

impl Config {
    /// What is wrong: the key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let checks = [
            (
                self.attempts == 0,
                "attempts",
                "must be 1 or more, or nothing is ever asked",
            ),
            (
                self.timeout.is_zero(),
                "timeout",
                "must be longer than nothing, such as \"3s\"",
            ),
            (
                self.deadline < self.timeout,
                "deadline",
                "must not be shorter than timeout",
            ),
            (
                self.min_ttl > self.max_ttl,
                "min_ttl",
                "must not be longer than max_ttl",
            ),
            (
                self.negative_min_ttl > self.negative_max_ttl,
                "negative_min_ttl",
                "must not be longer than negative_max_ttl",
            ),
            (
                self.trust_anchors
                    .as_ref()
                    .is_some_and(|path| !path.is_absolute()),
                "trust_anchors",
                "give the full path, from the first / on",
            ),
        ];
        checks
            .into_iter()
            .filter(|(wrong, _, _)| *wrong)
            .map(|(_, key, text)| (key.to_owned(), text.to_owned()))
            .collect()
    }
}

/// A resolver: its address, port 53 where none is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Server(pub SocketAddr);

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Server, String> {
        text.parse::<SocketAddr>()
            .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
            .map(Server)
            .map_err(|_| {
                format!(
                    "{text:?} is no address; one looks like \"192.0.2.1\" or \"[2001:db8::1]:53\""
                )
            })
    }
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Server, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_no_port() {
        for (text, want) in [
            ("192.0.2.1", Some("192.0.2.1:53")),
            ("192.0.2.1:5353", Some("192.0.2.1:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:5353", Some("[2001:db8::1]:5353")),
            ("ns.example", None),
            ("", None),
        ] {
            let got = text
                .parse::<Server>()
                .ok()
                .map(|server| server.0.to_string());
            assert_eq!(got.as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn a_config_is_read_from_toml() {
        let text = "servers = [\"192.0.2.1\", \"[2001:db8::1]:5353\"]\nnegative_max_ttl = \"1min\"";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.servers.len(), 2);
        assert_eq!(config.negative_max_ttl, Duration::from_secs(60));
        assert_eq!(config.timeout, Config::default().timeout);
        assert!(toml::from_str::<Config>("server = []").is_err());
        assert!(toml::from_str::<Config>("servers = [\"ns.example\"]").is_err());
    }

    #[test]
    fn bounds_that_exclude_each_other_are_faults() {
        assert_eq!(Config::default().faults(), []);
        let config = Config {
            attempts: 0,
            min_ttl: Duration::from_secs(2),
            max_ttl: Duration::from_secs(1),
            ..Config::default()
        };
        let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["attempts", "min_ttl"]);
    }
}
