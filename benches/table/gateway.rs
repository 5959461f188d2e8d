//! The release binary of the gateway, with a configuration file of a row.

use std::fs;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::process;
use crate::process::Memory;
use crate::process::Process;
use crate::setting::Setting;
use crate::wait;

/// What differs between rows.
pub(crate) struct Config {
    pub(crate) deliver: String,
    /// `any`, or a file of known ones.
    pub(crate) recipients: String,
    pub(crate) dns: SocketAddr,
    /// `off` or `starttls`.
    pub(crate) tls: &'static str,
    /// The rest of the file.
    pub(crate) sections: String,
}

impl Config {
    /// Any recipient is known, and there is no TLS.
    pub(crate) fn new(deliver: String, dns: SocketAddr, sections: &str) -> Config {
        Config {
            deliver,
            recipients: "any".to_owned(),
            dns,
            tls: "off",
            sections: sections.to_owned(),
        }
    }
}

/// Connections that stay open for more messages than a session has by default, and no checks.
pub(crate) const UNCHECKED: &str = "
[limits]
connections = 20000
[session]
transactions = 4000000000
[spf]
mode = \"off\"
[dmarc]
mode = \"off\"
";

/// The same with all checks, for clients on loopback, too.
pub(crate) const CHECKED: &str = "
[session]
transactions = 4000000000
[spf]
exempt = []
[dmarc]
exempt = []
";

pub(crate) struct Gateway {
    pub(crate) smtp: SocketAddr,
    file: PathBuf,
    log: PathBuf,
    process: Process,
}

impl Gateway {
    /// Starts one with an empty spool and waits until it takes connections.
    pub(crate) fn start(setting: &Setting, config: &Config) -> Result<Gateway> {
        let folder = setting.folder("gateway")?;
        let (smtp, admin) = (wait::free_address()?, wait::free_address()?);
        let file = folder.join("gatepost.toml");
        let text = format!(
            r#"hostname = "mx.gate.example"
data_dir = {data:?}
[[listen]]
service = "mx"
address = "{smtp}"
tls = "{tls}"
[dns]
servers = ["{dns}"]
[admin]
listen = "{admin}"
[domains."gate.example"]
deliver = {deliver:?}
recipients = {recipients:?}
{sections}"#,
            data = folder.join("data"),
            tls = config.tls,
            dns = config.dns,
            deliver = config.deliver,
            recipients = config.recipients,
            sections = config.sections,
        );
        fs::write(&file, text)?;
        let log = folder.join("log");
        let process = start(&file, &log, smtp)?;
        Ok(Gateway {
            smtp,
            file,
            log,
            process,
        })
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts again what was stopped, with what is in its spool.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process = start(&self.file, &self.log, self.smtp)?;
        Ok(())
    }

    pub(crate) fn cpu(&self) -> Result<Duration> {
        process::cpu_of(self.process.pid())
    }

    /// Where it keeps what it has accepted.
    pub(crate) fn spool(&self) -> PathBuf {
        self.file.with_file_name("data").join("spool")
    }

    /// Octets.
    pub(crate) fn anonymous_memory(&self) -> Result<f64> {
        process::memory(self.process.pid(), Memory::Anonymous)
    }

    /// Octets.
    pub(crate) fn whole_memory(&self) -> Result<f64> {
        process::memory(self.process.pid(), Memory::Whole)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.process.stop();
        // Its spool may be large, and other rows follow.
        if let Some(folder) = self.file.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn start(file: &PathBuf, log: &PathBuf, smtp: SocketAddr) -> Result<Process> {
    let mut command = process::command(env!("CARGO_BIN_EXE_gatepost"));
    command.arg("serve").arg("--config").arg(file);
    command.stderr(File::options().create(true).append(true).open(log)?);
    let process = Process::start(command.env_remove("RUST_LOG"))?;
    wait::until_open(smtp, "gatepost")?;
    Ok(process)
}
