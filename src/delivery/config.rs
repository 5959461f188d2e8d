//! `[delivery]`: how long a next hop may take, and how connections to it are used again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::route::Tls;
use crate::mail::address::Domain;

/// `[delivery]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Recipients in one transaction, at most. RFC 5321 §4.5.3.1.8 has every server take 100.
    pub recipients: usize,
    /// Addresses of a destination that are tried in one attempt, at most. RFC 5321 §5.1 wants two or more.
    pub addresses: usize,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// How connections are used again.
    pub reuse: Reuse,
    /// Whether the MTA-STS policies of destinations are fetched and followed (RFC 8461).
    pub mta_sts: bool,
    /// What is asked of TLS with the mail exchangers of these domains, whatever their route says and
    /// they have published.
    pub tls: BTreeMap<Domain, Tls>,
}

/// `[delivery.deadlines]`: what each wait may take (RFC 5321 §4.5.3.2). LMTP has the same.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// Making a connection to one address.
    #[serde(with = "humantime_serde")]
    pub connect: Duration,
    /// The greeting.
    #[serde(with = "humantime_serde")]
    pub greeting: Duration,
    /// The reply to EHLO, LHLO and STARTTLS; the TLS handshake.
    #[serde(with = "humantime_serde")]
    pub hello: Duration,
    /// The reply to MAIL and RSET.
    #[serde(with = "humantime_serde")]
    pub mail: Duration,
    /// The reply to each RCPT.
    #[serde(with = "humantime_serde")]
    pub recipient: Duration,
    /// The reply to DATA.
    #[serde(with = "humantime_serde")]
    pub data: Duration,
    /// Sending one block of a message.
    #[serde(with = "humantime_serde")]
    pub block: Duration,
    /// The reply after the message.
    #[serde(with = "humantime_serde")]
    pub message: Duration,
    /// All of an attempt. Ends one that gets on, but so slowly that others wait for its place; its
    /// recipients are tried again, and may have the message already.
    #[serde(with = "humantime_serde")]
    pub attempt: Duration,
}

/// `[delivery.reuse]`: connections are kept for the next message.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reuse {
    /// Idle connections kept to one destination, at most. 0 closes each after its message.
    pub connections: usize,
    /// Idle connections kept to all destinations together, at most.
    pub connections_in_all: usize,
    /// How long one may be idle before it is closed.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// Messages over one connection, at most.
    pub messages: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            recipients: 100,
            addresses: 5,
            deadlines: Deadlines::default(),
            reuse: Reuse::default(),
            mta_sts: true,
            tls: BTreeMap::new(),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Deadlines {
            connect: Duration::from_secs(30),
            greeting: minutes(5),  // RFC 5321 §4.5.3.2.1
            hello: minutes(5),     // RFC 5321 §4.5.3.2.1
            mail: minutes(5),      // RFC 5321 §4.5.3.2.2
            recipient: minutes(5), // RFC 5321 §4.5.3.2.3
            data: minutes(2),      // RFC 5321 §4.5.3.2.4
            block: minutes(3),     // RFC 5321 §4.5.3.2.5
            message: minutes(10),  // RFC 5321 §4.5.3.2.6
            attempt: minutes(60),
        }
    }
}

impl Default for Reuse {
    fn default() -> Reuse {
        Reuse {
            connections: 20,
            connections_in_all: 500,
            idle: Duration::from_secs(10),
            messages: 1000,
        }
    }
}

impl Config {
    /// What is wrong, by key below `[delivery]`, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        if self.recipients == 0 {
            let text = "no message could have a recipient; write 1 or more, 100 is usual";
            faults.push(("recipients".to_owned(), text.to_owned()));
        }
        if self.addresses == 0 {
            let text = "nobody would be connected to; write 1 or more, 5 is usual";
            faults.push(("addresses".to_owned(), text.to_owned()));
        }
        if self.reuse.messages == 0 {
            let text = "no message could be sent; write 1 to use each connection once";
            faults.push(("reuse.messages".to_owned(), text.to_owned()));
        }
        let limits = &self.deadlines;
        for (key, limit) in [
            ("connect", limits.connect),
            ("greeting", limits.greeting),
            ("hello", limits.hello),
            ("mail", limits.mail),
            ("recipient", limits.recipient),
            ("data", limits.data),
            ("block", limits.block),
            ("message", limits.message),
            ("attempt", limits.attempt),
        ] {
            if limit.is_zero() {
                let text = "no server answers in no time; write a duration, as in \"5min\"";
                faults.push((format!("deadlines.{key}"), text.to_owned()));
            }
        }
        faults
    }
}
