//! `smtp-source`: sends mail as fast as it is taken.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::process;
use crate::sink::Kind;
use crate::wait::LONG;

/// The name by which clients greet, and the domain they send for.
pub(crate) const CLIENT: &str = "client.example";

/// The sender of honest mail.
pub(crate) const SENDER: &str = "sender@client.example";

/// Whom mail is for.
pub(crate) const RECIPIENT: &str = "user@gate.example";

/// Octets of a message of smtp-source.
pub(crate) const SIZE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Stays open.
    Reused,
    /// Is made anew for each message.
    PerMessage,
}

/// One run of it.
#[derive(Debug, Clone)]
pub(crate) struct Sending {
    pub(crate) connections: usize,
    pub(crate) connection: Connection,
    pub(crate) messages: usize,
    /// A message with LF at its line ends; none: one of [`SIZE`] that smtp-source makes.
    pub(crate) file: Option<PathBuf>,
}

impl Sending {
    /// Sends all, and says how long that took. Fails where one message is not taken.
    pub(crate) fn run(&self, address: SocketAddr, kind: Kind) -> Result<Duration> {
        process::need(&["smtp-source"])?;
        let mut command = process::command("smtp-source");
        command.args(["-M", CLIENT, "-f", SENDER, "-t", RECIPIENT]);
        command.args(["-s", &self.connections.to_string()]);
        command.args(["-m", &self.messages.to_string()]);
        match kind {
            Kind::Smtp | Kind::CountingSmtp | Kind::KeepingSmtp => {}
            Kind::CountingLmtp => {
                command.arg("-L");
            }
        }
        match self.connection {
            Connection::Reused => {
                command.arg("-d");
            }
            Connection::PerMessage => {}
        }
        match &self.file {
            Some(file) => command.arg("-F").arg(file),
            None => command.args(["-l", &SIZE.to_string()]),
        };
        process::run(command.arg(address.to_string()), LONG)
    }

    /// Messages a second where all took so long.
    pub(crate) fn rate(&self, took: Duration) -> f64 {
        self.messages as f64 / took.as_secs_f64()
    }
}
