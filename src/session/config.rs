//! The `[session]` section: what one connection may do, and how long it may take.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::handshakes;
use super::refusals;

/// `[session]`: what one connection may do, and how long it may take.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The largest message.
    pub size: ByteSize,
    /// The longest line in a message. RFC 5321 §4.5.3.1.6 allows 1000 octets; many senders do not.
    pub line: ByteSize,
    /// Recipients of a message.
    pub recipients: usize,
    /// Messages in a session.
    pub transactions: u32,
    /// How often a client may be told no before it is hung up on.
    pub errors: u32,
    /// What all messages on their way in may hold in memory; who comes on top is told to try again.
    pub memory: ByteSize,
    /// What the messages of one client may hold of it: one address of IPv4, one /64 of IPv6.
    pub memory_per_client: ByteSize,
    /// How long a client must be silent before it is greeted; one that talks first gets 554. Within
    /// 0s only what has come already is seen.
    #[serde(with = "humantime_serde")]
    pub greeting_delay: Duration,
    /// How long we wait for a command (RFC 5321 §4.5.3.2.7).
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// How long we wait for the next piece of a message (RFC 5321 §4.5.3.2.5).
    #[serde(with = "humantime_serde")]
    pub data_timeout: Duration,
    /// How long a whole message may take.
    #[serde(with = "humantime_serde")]
    pub message_timeout: Duration,
    /// How long a client may take to read a reply.
    #[serde(with = "humantime_serde")]
    pub reply_timeout: Duration,
    /// How long a TLS handshake may take.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How often a client may be refused something before it has to wait.
    pub refusals: refusals::Config,
    /// How many TLS handshakes a network may begin.
    pub handshakes: handshakes::Config,
}

/// What the spool takes, less what we write in front of a message.
const LARGEST: ByteSize = ByteSize(u32::MAX as u64 - 1024 * 1024);

impl Default for Config {
    fn default() -> Config {
        Config {
            size: ByteSize::mib(50),
            line: ByteSize::kib(64),
            recipients: 1000,
            transactions: 1000,
            errors: 20,
            memory: ByteSize::gib(1),
            memory_per_client: ByteSize::mib(256),
            greeting_delay: Duration::ZERO,
            command_timeout: Duration::from_secs(5 * 60),
            data_timeout: Duration::from_secs(3 * 60),
            message_timeout: Duration::from_secs(3600),
            reply_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(30),
            refusals: refusals::Config::default(),
            handshakes: handshakes::Config::default(),
        }
    }
}

impl Config {
    /// What is wrong with the values: key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, right: &str| faults.push((key.to_owned(), right.to_owned()));
        if self.recipients < 100 {
            fault(
                "recipients",
                "must be 100 at least (RFC 5321 section 4.5.3.1.8)",
            );
        }
        if self.size < ByteSize::kib(64) {
            fault(
                "size",
                "must be 64KiB at least (RFC 5321 section 4.5.3.1.7)",
            );
        }
        if self.line < ByteSize::b(1000) {
            fault(
                "line",
                "must be 1000B at least (RFC 5321 section 4.5.3.1.6)",
            );
        }
        for (key, memory) in [
            ("memory", self.memory),
            ("memory_per_client", self.memory_per_client),
        ] {
            if memory < self.size {
                fault(
                    key,
                    "must be as large as size, or no message of that size could come in",
                );
            }
        }
        if self.size > LARGEST {
            fault(
                "size",
                "must be below 4GiB, which is as much as the spool takes",
            );
        }
        for (key, timeout) in [
            ("command_timeout", self.command_timeout),
            ("data_timeout", self.data_timeout),
            ("message_timeout", self.message_timeout),
            ("reply_timeout", self.reply_timeout),
            ("handshake_timeout", self.handshake_timeout),
        ] {
            if timeout.is_zero() {
                fault(
                    key,
                    "no client answers in no time; write a duration, as in \"1min\"",
                );
            }
        }
        if self.refusals.delay > refusals::LONGEST_WAIT {
            fault(
                "refusals.delay",
                "must be 1min at most, or clients would give up (RFC 5321 section 4.5.3.2)",
            );
        }
        if self.handshakes.per_minute == 0 {
            fault(
                "handshakes.per_minute",
                "0 would keep everybody from TLS; give a number from 1",
            );
        }
        if self.errors == 0 {
            fault("errors", "must be 1 at least, or no mail could come in");
        }
        if self.transactions == 0 {
            fault(
                "transactions",
                "must be 1 at least, or no mail could come in",
            );
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_which_no_mail_could_come_in_are_faults() {
        assert_eq!(Config::default().faults(), []);
        let config = Config {
            size: ByteSize::gib(4),
            memory: ByteSize::gib(4),
            refusals: refusals::Config {
                delay: Duration::from_secs(61),
                ..refusals::Config::default()
            },
            handshakes: handshakes::Config {
                per_minute: 0,
                ..handshakes::Config::default()
            },
            data_timeout: Duration::ZERO,
            errors: 0,
            transactions: 0,
            ..Config::default()
        };
        let keys: Vec<_> = config.faults().into_iter().map(|(key, _)| key).collect();
        let want = [
            "memory_per_client",
            "size",
            "data_timeout",
            "refusals.delay",
            "handshakes.per_minute",
            "errors",
            "transactions",
        ];
        assert_eq!(keys, want);
    }
}
