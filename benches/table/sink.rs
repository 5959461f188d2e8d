//! `smtp-sink`: takes all mail and drops it.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;

use crate::process;
use crate::process::Process;
use crate::setting::Setting;
use crate::wait;

/// What it speaks, and whether it counts or keeps: counting costs it a write a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Smtp,
    CountingSmtp,
    CountingLmtp,
    KeepingSmtp,
}

pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    counters: File,
    kept: PathBuf,
    _process: Process,
}

impl Sink {
    /// Starts one and waits until it takes connections.
    pub(crate) fn start(setting: &Setting, kind: Kind) -> Result<Sink> {
        Sink::start_at(setting, kind, wait::free_address()?)
    }

    /// The same on this address.
    pub(crate) fn start_at(setting: &Setting, kind: Kind, address: SocketAddr) -> Result<Sink> {
        process::need(&["smtp-sink"])?;
        let folder = setting.folder("sink")?;
        // It writes there as somebody else.
        fs::set_permissions(&folder, Permissions::from_mode(0o777))?;
        let (counters, kept) = (folder.join("counters"), folder.join("kept"));
        let mut command = process::command("smtp-sink");
        // Without it, it takes 256 connections at once.
        command.args(["-m", "5000"]);
        if process::is_root() {
            command.args(["-u", "nobody"]);
        }
        match kind {
            Kind::Smtp => {}
            Kind::CountingSmtp => {
                command.arg("-c");
            }
            Kind::CountingLmtp => {
                command.args(["-L", "-c"]);
            }
            Kind::KeepingSmtp => {
                command.arg("-D").arg(&kept);
            }
        }
        command.arg(address.to_string()).arg("1000");
        command.stdout(File::create(&counters)?);
        let process = Process::start(&mut command)?;
        wait::until_open(address, "smtp-sink")?;
        Ok(Sink {
            address,
            counters: File::open(&counters)?,
            kept,
            _process: process,
        })
    }

    /// Where a gateway delivers to it.
    pub(crate) fn target(&self) -> String {
        format!("lmtp:{}", self.address)
    }

    /// The messages that were kept, one behind the other.
    pub(crate) fn kept(&self) -> Result<String> {
        match fs::read(&self.kept) {
            Ok(octets) => Ok(String::from_utf8_lossy(&octets).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Messages so far.
    pub(crate) fn count(&self) -> Result<u64> {
        // It writes its counters anew for each message: "sess=1 quit=1 mesg=1" and a carriage return.
        let mut end = [0; 256];
        let length = self.counters.metadata()?.len();
        let at = length.saturating_sub(end.len() as u64);
        let read = self.counters.read_at(&mut end, at)?;
        let text = String::from_utf8_lossy(&end[..read]);
        // The last one may be half written.
        let Some((whole, _)) = text.rsplit_once('\r') else {
            return Ok(0);
        };
        let Some((_, number)) = whole.rsplit_once("mesg=") else {
            return Ok(0);
        };
        number.trim().parse().context("counters of smtp-sink")
    }

    /// Waits until it has that many, and says when.
    pub(crate) fn wait_for(&self, count: u64, deadline: Duration) -> Result<Instant> {
        wait::until(deadline, &format!("{count} messages at the sink"), || {
            Ok((self.count()? >= count).then(Instant::now))
        })
        .with_context(|| format!("{} arrived", self.count().unwrap_or_default()))
    }
}
