//! The classic stack of Debian: Postfix with policyd-spf, OpenDKIM and OpenDMARC.
//!
//! All three ask the resolver of resolv.conf, which has no ports: unbound listens on port 53 of a
//! loopback address of its own, and they run in a mount namespace with a resolv.conf that names it.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::postfix::Additions;
use crate::postfix::Postfix;
use crate::process;
use crate::process::Process;
use crate::sending::CLIENT;
use crate::setting::Setting;
use crate::sink::Sink;
use crate::wait;

/// What the stack needs beside Postfix.
const PROGRAMS: &[&str] = &["unbound", "opendkim", "opendmarc", "policyd-spf", "unshare"];

/// The resolver of this stack and of the gateway beside it.
pub(crate) struct Unbound {
    pub(crate) address: SocketAddr,
    resolver: PathBuf,
    _process: Process,
}

impl Unbound {
    /// Starts one in which `client.example` has this key, and `strict.example` none.
    pub(crate) fn start(setting: &Setting, key: &str) -> Result<Unbound> {
        process::need_root()?;
        process::need(PROGRAMS)?;
        let folder = setting.folder("unbound")?;
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 25, 53), 53));
        let strings: Vec<_> = key.as_bytes().chunks(255).collect();
        let strings = strings.iter().map(|part| String::from_utf8_lossy(part));
        let key = strings
            .map(|part| format!("\"{part}\""))
            .collect::<Vec<_>>();
        let records = [
            format!("{CLIENT}. 3600 A 127.0.0.1"),
            format!("{CLIENT}. 3600 TXT \"v=spf1 ip4:127.0.0.1 -all\""),
            format!("_dmarc.{CLIENT}. 3600 TXT \"v=DMARC1; p=reject\""),
            format!("s1._domainkey.{CLIENT}. 3600 TXT {}", key.join(" ")),
            "strict.example. 3600 TXT \"v=spf1 -all\"".to_owned(),
            "_dmarc.strict.example. 3600 TXT \"v=DMARC1; p=reject\"".to_owned(),
            format!("1.0.0.127.in-addr.arpa. 3600 PTR {CLIENT}."),
        ];
        let records = records
            .map(|record| format!("  local-data: '{record}'\n"))
            .concat();
        let config = folder.join("unbound.conf");
        let text = format!(
            "server:\n  interface: {ip}\n  port: {port}\n  directory: \"{folder}\"\n  \
             username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  \
             local-zone: \".\" static\n  local-zone: \"127.in-addr.arpa.\" transparent\n{records}\
             remote-control:\n  control-enable: no\n",
            ip = address.ip(),
            port = address.port(),
            folder = folder.display(),
        );
        fs::write(&config, text)?;
        let resolver = folder.join("resolv.conf");
        fs::write(&resolver, format!("nameserver {}\n", address.ip()))?;
        let process = Process::start(process::command("unbound").arg("-d").arg("-c").arg(config))?;
        // It takes questions over TCP, too.
        wait::until_open(address, "unbound")?;
        Ok(Unbound {
            address,
            resolver,
            _process: process,
        })
    }

    /// This program with this argument, seeing this resolver.
    fn command(&self, program: &str) -> Command {
        let mut command = process::command("unshare");
        command.args(["-m", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"");
        command.arg(&self.resolver).arg(program);
        command
    }
}

pub(crate) struct Classic {
    pub(crate) postfix: Postfix,
    milters: [Process; 2],
}

impl Classic {
    pub(crate) fn start(setting: &Setting, sink: &Sink, dns: &Unbound) -> Result<Classic> {
        let folder = setting.folder("classic")?;
        let (dkim, dmarc) = (wait::free_address()?, wait::free_address()?);
        let milters = [
            opendkim(&folder, dns, dkim)?,
            opendmarc(&folder, dns, dmarc)?,
        ];
        let policy = folder.join("policyd-spf.conf");
        // Clients on loopback are judged like all others.
        let text = "debugLevel = 1\nTestOnly = 1\nHELO_reject = Fail\nMail_From_reject = Fail\n\
             Header_Type = AR\nAuthserv_Id = mx.gate.example\nskip_addresses = 192.0.2.0/24\n";
        fs::write(&policy, text)?;
        let main = format!(
            "mynetworks = 192.0.2.0/24\n\
             smtpd_relay_restrictions = reject_unauth_destination\n\
             smtpd_recipient_restrictions = check_policy_service unix:private/policyd-spf\n\
             policyd-spf_time_limit = 3600\n\
             smtpd_milters = inet:{dkim}, inet:{dmarc}\n\
             milter_default_action = tempfail\n",
            dkim = milter(dkim),
            dmarc = milter(dmarc),
        );
        let master = format!(
            "policyd-spf unix - n n - 0 spawn\n  user=policyd-spf argv=/usr/bin/policyd-spf {}\n",
            policy.display()
        );
        let additions = Additions {
            main: Some(main),
            master: &master,
            resolver: Some(&dns.resolver),
        };
        let postfix = Postfix::start(setting, sink, &additions)?;
        Ok(Classic { postfix, milters })
    }

    /// CPU of all of its processes.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let [dkim, dmarc] = &self.milters;
        process::cpu(&[self.postfix.pid(), dkim.pid(), dmarc.pid()])
    }
}

fn milter(address: SocketAddr) -> String {
    format!("{}:{}", address.ip(), address.port())
}

fn opendkim(folder: &Path, dns: &Unbound, address: SocketAddr) -> Result<Process> {
    let config = folder.join("opendkim.conf");
    let nobody = folder.join("internal");
    fs::write(&nobody, "192.0.2.1\n")?;
    let text = format!(
        "Mode v\nSocket inet:{port}@{ip}\nSyslog no\nUserID nobody\nInternalHosts {nobody}\n\
         Nameservers {dns}\nAuthservID mx.gate.example\nAlwaysAddARHeader yes\n",
        ip = address.ip(),
        port = address.port(),
        nobody = nobody.display(),
        dns = dns.address.ip(),
    );
    fs::write(&config, text)?;
    let mut command = dns.command("opendkim");
    let process = Process::start(command.arg("-f").arg("-x").arg(config))?;
    wait::until_open(address, "opendkim")?;
    Ok(process)
}

fn opendmarc(folder: &Path, dns: &Unbound, address: SocketAddr) -> Result<Process> {
    let config = folder.join("opendmarc.conf");
    let nobody = folder.join("ignored");
    fs::write(&nobody, "192.0.2.1\n")?;
    let text = format!(
        "Socket inet:{port}@{ip}\nSyslog no\nUserID nobody\nIgnoreHosts {nobody}\n\
         AuthservID mx.gate.example\nTrustedAuthservIDs mx.gate.example\n\
         RejectFailures true\nSPFSelfValidate false\n",
        ip = address.ip(),
        port = address.port(),
        nobody = nobody.display(),
    );
    fs::write(&config, text)?;
    let mut command = dns.command("opendmarc");
    let process = Process::start(command.arg("-f").arg("-c").arg(config))?;
    wait::until_open(address, "opendmarc")?;
    Ok(process)
}
