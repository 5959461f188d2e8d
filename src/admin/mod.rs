//! The operator's door: metrics and health over HTTP, on this machine only.
//!
//! `GET /metrics` gives the Prometheus text; `GET /health` gives 200 and `ok`, or 503 and the
//! reasons. Nobody is asked who they are, so only a loopback address may listen. Connections,
//! headers, bodies and time are bounded: a broken client of the door cannot hurt the mail.

pub mod health;
mod http;

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;
use serde::Deserializer;
use serde::de;

pub use http::Error;
pub use http::bind;
pub use http::serve;

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A loopback address with its port, or "off".
    pub listen: Listen,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 9125))),
        }
    }
}

/// Whether there is a door, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// There is none.
    Off,
    /// One at this address, for HTTP without TLS.
    At(SocketAddr),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => f.write_str("off"),
            Listen::At(address) => address.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listen, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Listen::Off);
        }
        text.parse().map(Listen::At).map_err(|_| {
            de::Error::custom(
                "not an address with its port, such as \"127.0.0.1:9125\", nor \"off\"",
            )
        })
    }
}

impl Config {
    /// What is wrong with the values: (key, what is wrong and what would be right).
    pub fn faults(&self) -> Vec<(String, String)> {
        match self.listen {
            Listen::At(address) if !address.ip().to_canonical().is_loopback() => vec![(
                "listen".to_owned(),
                format!(
                    "{address} can be reached from outside, and this door asks nobody who they are; \
                     give a loopback address, such as \"127.0.0.1:{}\"",
                    address.port()
                ),
            )],
            Listen::At(_) | Listen::Off => Vec::new(),
        }
    }
}
