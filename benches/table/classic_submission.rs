//! The classic stack of Debian for mail of a site's users: Postfix asks Dovecot who they are, and OpenDKIM
//! signs what they send.

use std::fs;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use anyhow::Result;
use nix::unistd::User;

use crate::client::Certificate;
use crate::postfix::Additions;
use crate::postfix::Postfix;
use crate::process;
use crate::process::Process;
use crate::setting::Setting;
use crate::sink::Sink;
use crate::wait;
use crate::wait::SOON;

/// What the stack needs beside Postfix.
const PROGRAMS: &[&str] = &["dovecot", "opendkim"];

/// What its users have in common with those of the gateway beside it.
pub(crate) struct Accounts<'a> {
    /// `NAME:{SCHEME}HASH`, one a line.
    pub(crate) passwords: String,
    /// The domain in which they write, whose key `s1` signs.
    pub(crate) domain: &'a str,
    /// The signing key, PEM.
    pub(crate) dkim: &'a str,
    /// Of the server.
    pub(crate) certificate: &'a Certificate,
}

pub(crate) struct ClassicSubmission {
    pub(crate) postfix: Postfix,
    dovecot: Process,
    milter: Process,
}

impl ClassicSubmission {
    /// Starts one that relays all to the sink, and waits until it takes connections.
    pub(crate) fn start(
        setting: &Setting,
        sink: &Sink,
        accounts: &Accounts<'_>,
    ) -> Result<ClassicSubmission> {
        process::need_root()?;
        process::need(PROGRAMS)?;
        let folder = setting.folder("classic")?;
        let (dovecot, auth) = dovecot(&folder, accounts)?;
        let address = wait::free_address()?;
        let milter = opendkim(&folder, accounts, address)?;
        let main = format!(
            "mynetworks =\n\
             smtpd_tls_security_level = encrypt\n\
             smtpd_tls_cert_file = {chain}\n\
             smtpd_tls_key_file = {key}\n\
             smtpd_sasl_auth_enable = yes\n\
             smtpd_sasl_type = dovecot\n\
             smtpd_sasl_path = {auth}\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
             smtpd_milters = inet:{milter_ip}:{milter_port}\n\
             milter_default_action = tempfail\n\
             relayhost = [{ip}]:{port}\n",
            chain = accounts.certificate.chain.display(),
            key = accounts.certificate.key.display(),
            auth = auth.display(),
            milter_ip = address.ip(),
            milter_port = address.port(),
            ip = sink.address.ip(),
            port = sink.address.port(),
        );
        let additions = Additions {
            main: Some(main),
            master: "smtp unix - - n - - smtp\n",
            resolver: None,
        };
        let postfix = Postfix::start(setting, sink, &additions)?;
        Ok(ClassicSubmission {
            postfix,
            dovecot,
            milter,
        })
    }

    /// CPU of all of its processes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process::cpu(&[self.postfix.pid(), self.dovecot.pid(), self.milter.pid()])
    }
}

/// Dovecot's authentication alone, which remembers what it has looked up, and its socket.
fn dovecot(folder: &Path, accounts: &Accounts<'_>) -> Result<(Process, PathBuf)> {
    let (config, passwords) = (folder.join("dovecot.conf"), folder.join("passwd"));
    let auth = folder.join("auth");
    fs::write(&passwords, &accounts.passwords)?;
    let text = format!(
        "base_dir = {folder}/run\n\
         state_dir = {folder}/run\n\
         log_path = {folder}/dovecot.log\n\
         protocols =\n\
         ssl = no\n\
         auth_mechanisms = plain\n\
         auth_cache_size = 10M\n\
         passdb {{\n  driver = passwd-file\n  args = username_format=%u {passwords}\n}}\n\
         userdb {{\n  driver = static\n  args = uid=mail gid=mail home=/nonexistent\n}}\n\
         service auth {{\n  unix_listener {auth} {{\n    mode = 0666\n  }}\n}}\n",
        folder = folder.display(),
        passwords = passwords.display(),
        auth = auth.display(),
    );
    fs::write(&config, text)?;
    let process = Process::start(process::command("dovecot").arg("-F").arg("-c").arg(config))?;
    wait::until(SOON, "dovecot", || Ok(auth.exists().then_some(())))?;
    Ok((process, auth))
}

fn opendkim(folder: &Path, accounts: &Accounts<'_>, address: SocketAddr) -> Result<Process> {
    let (config, key) = (folder.join("opendkim.conf"), folder.join("s1.private"));
    fs::write(&key, accounts.dkim)?;
    fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    let owner = User::from_name("nobody")?.context("there is no user nobody")?;
    chown(&key, Some(owner.uid.as_raw()), None)?;
    let text = format!(
        "Mode s\nSocket inet:{port}@{ip}\nSyslog no\nUserID nobody\nDomain {domain}\n\
         Selector s1\nKeyFile {key}\nCanonicalization relaxed/relaxed\nOversignHeaders From\n",
        ip = address.ip(),
        port = address.port(),
        domain = accounts.domain,
        key = key.display(),
    );
    fs::write(&config, text)?;
    let mut command = process::command("opendkim");
    let process = Process::start(command.arg("-f").arg("-x").arg(config))?;
    wait::until_open(address, "opendkim")?;
    Ok(process)
}
