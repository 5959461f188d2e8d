//! The operator's doors, on this machine only: metrics and health over HTTP.
//!
//! `GET /metrics` gives the Prometheus text; `GET /health` gives 200 and `ok`, or 503 and the
//! reasons. Nobody is asked who they are, so only a loopback address may listen. Connections,
//! headers, bodies and time are bounded: a broken client of the door cannot hurt the mail.
//!
//! Beside it, for the operator alone, is the socket by which the queue is steered ([`control`]).

pub mod control;
pub mod health;
mod http;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

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
    /// The socket of `gatepost queue` and `gatepost status`. Default: `control` in the data directory.
    pub socket: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 9125))),
            socket: None,
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
    /// Where the control socket is.
    pub fn control_socket(&self, data_dir: &Path) -> PathBuf {
        let socket = self.socket.clone();
        socket.unwrap_or_else(|| data_dir.join("control"))
    }

    /// What is wrong with the values: (key, what is wrong and what would be right).
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        if let Listen::At(address) = self.listen
            && !address.ip().to_canonical().is_loopback()
        {
            let text = format!(
                "{address} can be reached from outside, and this door asks nobody who they are; \
                 give a loopback address, such as \"127.0.0.1:{}\"",
                address.port()
            );
            faults.push(("listen".to_owned(), text));
        }
        if let Some(socket) = self.socket.as_ref().filter(|socket| !socket.is_absolute()) {
            let text = format!(
                "{socket:?} depends on where the gateway is started; write it from the root, as in \
                 \"/run/gatepost/control\""
            );
            faults.push(("socket".to_owned(), text));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_to_the_outside_and_a_socket_anywhere_are_faults() {
        assert_eq!(Config::default().faults(), []);
        let config = Config {
            listen: Listen::At(SocketAddr::from(([0, 0, 0, 0], 9125))),
            socket: Some("control".into()),
        };
        let keys = config.faults().into_iter().map(|(key, _)| key);
        assert_eq!(keys.collect::<Vec<_>>(), ["listen", "socket"]);
    }
}
