//! A Postfix of our own, beside whatever the machine has, that relays to an LMTP sink.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;
use anyhow::Result;
use nix::unistd::User;

use crate::process;
use crate::setting::Setting;
use crate::sink::Sink;
use crate::wait;
use crate::wait::SOON;

pub(crate) struct Postfix {
    pub(crate) address: SocketAddr,
    master: u32,
    config: PathBuf,
}

/// What is not as in a bare one.
#[derive(Default)]
pub(crate) struct Additions<'a> {
    /// Lines of main.cf. Default: clients on loopback may relay, and nothing is checked.
    pub(crate) main: Option<String>,
    /// Lines of master.cf.
    pub(crate) master: &'a str,
    /// The resolv.conf that it and all its programs see, in a mount namespace of their own.
    pub(crate) resolver: Option<&'a Path>,
}

impl Postfix {
    /// Starts one that delivers to the sink, and waits until it takes connections.
    pub(crate) fn start(setting: &Setting, sink: &Sink, additions: &Additions<'_>) -> Result<Self> {
        process::need_root()?;
        process::need(&["postfix", "unshare"])?;
        let folder = setting.folder("postfix")?;
        let (config, data) = (folder.join("config"), folder.join("data"));
        for folder in [&config, &data, &folder.join("queue")] {
            fs::create_dir(folder)?;
        }
        let owner = User::from_name("postfix")?.context("there is no user postfix")?;
        chown(&data, Some(owner.uid.as_raw()), None)?;
        let address = wait::free_address()?;
        let open = "mynetworks = 127.0.0.0/8\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\n";
        let more = additions.main.as_deref().unwrap_or(open);
        let lines = main(&folder, sink.address) + more;
        fs::write(config.join("main.cf"), lines)?;
        fs::write(config.join("master.cf"), master(address) + additions.master)?;
        let mut start = command(&config, "start", additions.resolver);
        process::run(&mut start, SOON)?;
        // Stops it also where what follows fails.
        let mut postfix = Postfix {
            address,
            master: 0,
            config,
        };
        wait::until_open(address, "postfix")?;
        let pid = fs::read_to_string(folder.join("queue/pid/master.pid"))?;
        postfix.master = pid.trim().parse()?;
        Ok(postfix)
    }

    /// The process above all of its processes.
    pub(crate) fn pid(&self) -> u32 {
        self.master
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let mut stop = command(&self.config, "stop", None);
        // Not `process::run`: this has to be waited for when the run is stopped, too.
        let _ = stop.status();
    }
}

fn command(config: &Path, verb: &str, resolver: Option<&Path>) -> std::process::Command {
    let mut command = match resolver {
        None => process::command("postfix"),
        Some(resolver) => {
            let mut command = process::command("unshare");
            command.args(["-m", "sh", "-c"]);
            command.arg("mount --bind \"$0\" /etc/resolv.conf && exec postfix \"$@\"");
            command.arg(resolver);
            command
        }
    };
    command.arg("-c").arg(config).arg(verb);
    command
}

fn main(folder: &Path, sink: SocketAddr) -> String {
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         meta_directory = /etc/postfix\n\
         maillog_file = {folder}/maillog\n\
         maillog_file_prefixes = {folder}\n\
         myhostname = mx.gate.example\n\
         mydestination =\n\
         alias_maps =\n\
         alias_database =\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         relay_domains = gate.example\n\
         relay_transport = lmtp:[{ip}]:{port}\n\
         smtp_host_lookup = native\n",
        folder = folder.display(),
        ip = sink.ip(),
        port = sink.port(),
    )
}

fn master(address: SocketAddr) -> String {
    format!(
        "{address} inet n - n - - smtpd\n\
         pickup unix n - n 60 1 pickup\n\
         cleanup unix n - n - 0 cleanup\n\
         qmgr unix n - n 300 1 qmgr\n\
         rewrite unix - - n - - trivial-rewrite\n\
         bounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\n\
         trace unix - - n - 0 bounce\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\n\
         flush unix n - n 1000? 0 flush\n\
         proxymap unix - - n - - proxymap\n\
         error unix - - n - - error\n\
         retry unix - - n - - error\n\
         lmtp unix - - n - - lmtp\n\
         anvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\n\
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}
