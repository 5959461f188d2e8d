//! Questions to the DNS in our words: addresses, names, mail exchangers and texts.
//!
//! Every question has a deadline, and every answer, good or empty, is remembered for as long as its
//! TTL and our bounds say. There is one cache for all of the gateway: it is the resolver's own, and
//! the mail authentication library asks through the same resolver. What that library has read out
//! of a record is kept in a second, bounded cache ([`keys`]).
//!
//! Only the DNS is asked: `/etc/hosts` and search domains play no part, because what is found here
//! is evidence about strangers.
//!
//! # Limits
//!
//! The cache is bounded in the number of answers, not in their size. An answer that is an error is
//! not remembered. Names below `localhost` and `invalid` are never asked for (RFC 6761).

use std::net::IpAddr;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::RecordType;
use mail_auth::MessageAuthenticator;
use serde::Deserialize;

use crate::dns::ask::Failure;
use crate::dns::ask::absolute;
use crate::dns::ask::name_server;
use crate::dns::ask::options;
use crate::dns::ask::system_servers;
use crate::dns::ask::text;
use crate::dns::ask::trust_nobody;
use crate::dns::ask::within;
use crate::dns::keys::KeyCache;
use crate::mail::address::Domain;

mod ask;
pub mod keys;

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
    /// How many answers are remembered.
    pub cache_size: u64,
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
}

impl Default for Config {
    fn default() -> Config {
        Config {
            servers: Vec::new(),
            timeout: Duration::from_secs(3),
            attempts: 2,
            deadline: Duration::from_secs(10),
            cache_size: 8_192,
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(24 * 3600),
            negative_min_ttl: Duration::from_secs(5),
            negative_max_ttl: Duration::from_secs(15 * 60),
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

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The DNS says so. It will say so again.
    #[error("there is no such name or record")]
    NotFound,
    /// Nobody answered, or with an error. A later question may fare better.
    #[error("the DNS did not answer: {0}")]
    Temporary(String),
}

impl From<NetError> for Error {
    fn from(error: NetError) -> Error {
        if error.is_no_records_found() {
            Error::NotFound
        } else {
            Error::Temporary(error.to_string())
        }
    }
}

/// Whether a name stands in the DNS at all, with whatever records (RFC 8020).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// It has records, of whatever type, or names below it have.
    Exists,
    /// Neither it nor any name below it has a record (NXDOMAIN).
    DoesNotExist,
}

/// The door to the DNS. Cheap to clone; all clones share the caches.
#[derive(Clone)]
pub struct Dns {
    authenticator: MessageAuthenticator,
    keys: KeyCache,
    deadline: Duration,
}

impl Dns {
    /// Reads `/etc/resolv.conf` where no servers are given. Asks nothing yet.
    pub fn new(config: &Config) -> Result<Dns, Error> {
        let servers = if config.servers.is_empty() {
            system_servers()
        } else {
            config.servers.iter().map(name_server).collect()
        };
        let resolver = TokioResolver::builder_with_config(
            ResolverConfig::from_name_servers(servers),
            TokioRuntimeProvider::default(),
        )
        .with_options(options(config))
        .with_tls_config(trust_nobody()?)
        .build()?;
        Ok(Dns {
            authenticator: MessageAuthenticator(resolver),
            keys: KeyCache::new(config.cache_size),
            deadline: config.deadline,
        })
    }

    /// All addresses of a host, IPv6 first. An answer for one family is enough.
    ///
    /// Cancel safe.
    pub async fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, Error> {
        let (v6, v4) = tokio::join!(self.ipv6(host.as_str()), self.ipv4(host.as_str()));
        match (v6, v4) {
            (Ok(v6), Ok(v4)) => Ok([v6, v4].concat()),
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            (Err(error @ Error::Temporary(_)), Err(_)) | (Err(_), Err(error)) => Err(error),
        }
    }

    /// The A records of a name. Cancel safe.
    pub async fn ipv4(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        self.records(name, RecordType::A, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        })
        .await
    }

    /// The AAAA records of a name. Cancel safe.
    pub async fn ipv6(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        self.records(name, RecordType::AAAA, |data| match data {
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .await
    }

    /// The TXT records of a name, the strings of each put together. Cancel safe.
    pub async fn txt(&self, name: &str) -> Result<Vec<Vec<u8>>, Error> {
        self.records(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => Some(txt.txt_data.concat()),
            _ => None,
        })
        .await
    }

    /// The mail exchangers of a name as they were published, best first. Cancel safe.
    pub async fn mx(&self, name: &str) -> Result<Vec<(u16, String)>, Error> {
        let mut exchangers = self
            .records(name, RecordType::MX, |data| match data {
                RData::MX(mx) => Some((mx.preference, text(&mx.exchange))),
                _ => None,
            })
            .await?;
        exchangers.sort_by_key(|(preference, _)| *preference);
        Ok(exchangers)
    }

    /// The names that an address claims to have (PTR). Names that cannot be one are left out.
    ///
    /// Cancel safe.
    pub async fn reverse(&self, ip: IpAddr) -> Result<Vec<Domain>, Error> {
        let names = self
            .records_of(Name::from(ip), RecordType::PTR, |data| match data {
                RData::PTR(ptr) => Some(text(&ptr.0)),
                _ => None,
            })
            .await?;
        let names: Vec<_> = names
            .iter()
            .filter_map(|name| Domain::parse(name).ok())
            .collect();
        if names.is_empty() {
            return Err(Error::NotFound);
        }
        Ok(names)
    }

    /// Whether there is such a name, with whatever records. Cancel safe.
    pub async fn existence(&self, name: &Domain) -> Result<Existence, Error> {
        let Some(name) = absolute(name.as_str()) else {
            return Ok(Existence::DoesNotExist);
        };
        match self.ask(name, RecordType::A).await {
            Ok(_) => Ok(Existence::Exists),
            // RFC 8020 §2: only NXDOMAIN says that there is nothing, not an empty answer.
            Err(Failure::Net(error)) if error.is_nx_domain() => Ok(Existence::DoesNotExist),
            Err(Failure::Net(error)) if error.is_no_records_found() => Ok(Existence::Exists),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The mail authentication library on top of the same resolver and its cache.
    pub fn authenticator(&self) -> &MessageAuthenticator {
        &self.authenticator
    }

    /// What that library has read out of TXT records.
    pub fn keys(&self) -> &KeyCache {
        &self.keys
    }

    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let name = absolute(name).ok_or(Error::NotFound)?;
        self.records_of(name, kind, read).await
    }

    async fn records_of<T>(
        &self,
        name: Name,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let lookup = self.ask(name, kind).await?;
        let records: Vec<T> = lookup
            .answers()
            .iter()
            .filter_map(|record| read(&record.data))
            .collect();
        if records.is_empty() {
            return Err(Error::NotFound);
        }
        Ok(records)
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Lookup, Failure> {
        let lookup = self.authenticator.resolver().lookup(name, kind);
        within(self.deadline, lookup).await
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
