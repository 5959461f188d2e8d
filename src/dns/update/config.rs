//! `[acme.dns]`: whom we tell of changes, and by which key.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::dns::Server;
use crate::mail::address::Domain;

/// Where records of our own are put.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The primary server of the zones. Default: port 53 of this machine.
    pub server: Server,
    /// The file with the key that the server knows us by, as `tsig-keygen` writes it. Default: none, and
    /// the server has to know us by our address.
    pub key_file: Option<PathBuf>,
    /// The zone that is changed. Default: the one of `server` that the name is in.
    pub zone: Option<Domain>,
    /// The servers that have to show a record before others are told to look. Default: all of the zone.
    pub check: Vec<Server>,
    /// How long they may take to hear of it.
    #[serde(with = "humantime_serde")]
    pub propagation: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            server: Server(SocketAddr::from((Ipv4Addr::LOCALHOST, 53))),
            key_file: None,
            zone: None,
            check: Vec::new(),
            propagation: Duration::from_secs(120),
        }
    }
}

impl Config {
    /// What is wrong: the key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let is_relative = |path: &PathBuf| !path.is_absolute();
        let checks = [
            (
                self.key_file.as_ref().is_some_and(is_relative),
                "key_file",
                "give the full path, from the first / on",
            ),
            (
                self.propagation > Duration::from_secs(600),
                "propagation",
                "no authority waits for so long; give \"10min\" at most",
            ),
        ];
        let wrong = checks.into_iter().filter(|(wrong, _, _)| *wrong);
        wrong
            .map(|(_, key, text)| (key.to_owned(), text.to_owned()))
            .collect()
    }
}
