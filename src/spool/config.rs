//! What an operator can say about the spool.

use bytesize::ByteSize;
use serde::Deserialize;

/// `[spool]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The size of each file of the log: 8 MiB to 1 GiB. The disk holds at most four of them and
    /// twice the queued mail. Default: 64 MiB.
    pub segment_size: ByteSize,
    /// A message above this size goes to a file of its own; at most a quarter of `segment_size`.
    /// Default: 1 MiB.
    pub large_message: ByteSize,
    /// How much mail may wait for the disk; above it, clients wait longer. Default: 64 MiB.
    pub waiting: ByteSize,
    /// How much mail is kept in memory for its first delivery; the rest is read back, large messages
    /// as much of them at once. Default: 64 MiB.
    pub in_memory: ByteSize,
    /// New mail is refused for the time being (452) while the disk has less free than this.
    /// Default: 256 MiB.
    pub keep_free: ByteSize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            segment_size: ByteSize::mib(64),
            large_message: ByteSize::mib(1),
            waiting: ByteSize::mib(64),
            in_memory: ByteSize::mib(64),
            keep_free: ByteSize::mib(256),
        }
    }
}

impl Config {
    /// What is wrong with these values: the key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, text: String| faults.push((key.to_owned(), text));
        if !(ByteSize::mib(8)..=ByteSize::gib(1)).contains(&self.segment_size) {
            let text = format!("{} is not from 8 MiB to 1 GiB", self.segment_size);
            fault("segment_size", text);
        }
        if self.large_message.as_u64() > self.segment_size.as_u64() / 4 {
            let text = format!(
                "{} is more than a quarter of segment_size",
                self.large_message
            );
            fault("large_message", text);
        }
        if !(self.large_message..=ByteSize::gib(4)).contains(&self.waiting) {
            let text = format!("{} is not from large_message to 4 GiB", self.waiting);
            fault("waiting", text);
        }
        faults
    }
}
