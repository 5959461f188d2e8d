//! `gatepost demo`: the whole job on loopback, without network and without set-up.
//!
//! Starts the gateway as anybody would, with a configuration file, in a process of its own; gives it
//! a small piece of DNS; then lets clients play and shows every line. With `--once` the exit code says
//! whether each dialogue went as told.

mod dialogue;
mod narrator;
mod scenes;
mod zone;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use clap::Args;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::Status;
use crate::cli::chain;
use crate::cli::complain;
use crate::mail::address::Domain;
use crate::sign::Signer;

/// How long the gateway may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The port to try by hand, where it is free.
const PORT: u16 = 2525;

/// Shows the whole job on loopback: what is delivered, what is refused, and why.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost demo --once")]
pub(super) struct Arguments {
    /// End after the tour; the exit code is 0 only if each dialogue went as told.
    #[arg(long)]
    once: bool,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    match play(arguments) {
        Ok(()) => Status::Ok,
        Err(error) => {
            complain(&chain(error.as_ref()));
            Status::Unavailable
        }
    }
}

fn play(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let friend = Domain::parse("friend.example")?;
    let signer = Signer::generate(&friend, "demo").context("cannot make a DKIM key")?;
    let mut zone = zone::Zone::new();
    scenes::publish(&mut zone, &signer)?;
    let (dns, _server) = runtime.block_on(zone.serve())?;

    let directory = Directory::make()?;
    // Between finding a port free and listening on it somebody else may take it: another demo, say.
    let (mut posed, mut by_hand) = (free_port(0)?, free_port(PORT).or_else(|_| free_port(0))?);
    let gateway = Gateway::start(&directory.path, dns, posed, by_hand).or_else(|_| {
        (posed, by_hand) = (free_port(0)?, free_port(0)?);
        Gateway::start(&directory.path, dns, posed, by_hand)
    })?;
    narrator::says(&format!(
        "A gateway for gate.example listens on {posed}; its mail log is in {}.",
        gateway.log.display()
    ));
    let mailbox = directory.path.join("mail/gate.example/bob");
    let stage = scenes::Stage {
        gateway: posed,
        mailbox: &mailbox,
        signer: &signer,
    };
    stage.play()?;
    narrator::title("All four went as told.");
    if arguments.once {
        return Ok(());
    }
    narrator::says(&by_hand_text(by_hand, &directory.path));
    runtime
        .block_on(told_to_end())
        .context("cannot wait for Ctrl-C")
}

/// SIGTERM ends the demo like Ctrl-C, so that the gateway does not outlive it.
async fn told_to_end() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended,
        _ = terminate.recv() => Ok(()),
    }
}

fn by_hand_text(gateway: SocketAddr, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "
The gateway goes on listening; Ctrl-C ends it. Try by hand, from this machine:

    swaks --server {gateway} --from alice@friend.example --to bob@gate.example
        passes: the SPF record of friend.example has 127.0.0.1
    swaks --server {gateway} --from office@strict.example --to bob@gate.example
        refused at RCPT TO by SPF
    swaks --server {gateway} --from alice@friend.example --h-From service@bank.example --to bob@gate.example
        refused at DATA by DMARC
    swaks --server {gateway} --from alice@friend.example --to bob@elsewhere.example
        refused: no open relay
    swaks --server {gateway} --tls --from alice@friend.example --to bob@gate.example
        the same over TLS

    tail -f {directory}/mail.log
    ls {directory}/mail/gate.example/bob/new
"
    )
}

/// A directory of the demo's own, removed when it ends.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn make() -> anyhow::Result<Directory> {
        let path = std::env::temp_dir().join(format!("gatepost-demo-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Directory { path })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The gateway in its own process; ended when dropped.
struct Gateway {
    process: Child,
    log: PathBuf,
}

impl Gateway {
    fn start(
        directory: &Path,
        dns: SocketAddr,
        posed: SocketAddr,
        by_hand: SocketAddr,
    ) -> anyhow::Result<Gateway> {
        let file = directory.join("gatepost.toml");
        std::fs::write(&file, config(directory, dns, posed, by_hand))?;
        let log = directory.join("mail.log");
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let process = Command::new(program)
            .args(["serve".as_ref(), "--config".as_ref(), file.as_os_str()])
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start the gateway")?;
        let mut gateway = Gateway { process, log };
        gateway.wait_for(posed)?;
        Ok(gateway)
    }

    fn wait_for(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            let ended = self.process.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("the gateway did not come up:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config(directory: &Path, dns: SocketAddr, posed: SocketAddr, by_hand: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        r#"# What `gatepost demo` runs with.
hostname = "mx.gate.example"
data_dir = "{directory}"

[domains."gate.example"]
deliver = "maildir:{directory}/mail/{{domain}}/{{local}}"

# Here the clients of the tour pose as hosts elsewhere, by PROXY headers ...
[[listen]]
service = "mx"
address = "{posed}"
proxy_protocol_from = ["127.0.0.0/8"]

# ... and here is where to try by hand.
[[listen]]
service = "mx"
address = "{by_hand}"

[dns]
servers = ["{dns}"]

# This machine would not be checked otherwise.
[spf]
exempt = []
unless_dmarc = true

[dmarc]
exempt = []

[admin]
listen = "off"
"#
    )
}

fn free_port(port: u16) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("no port is free")?;
    Ok(listener.local_addr()?)
}
