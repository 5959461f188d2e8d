//! A real Postfix of our own, beside whatever the machine has: before the gateway, or behind it.
//!
//! It takes mail from loopback, over TLS where the client wants. Mail for its domains goes into its own Maildirs, or by SMTP to a
//! next hop; all other mail is refused.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::SOON;
use crate::support::certs::Certificate;
use crate::support::free_port;
use crate::support::mailbox::Mailbox;
use crate::support::process;
use crate::support::wait_until;

/// Whether one can be started here; if not, the test is skipped loudly, or fails.
pub fn present() -> bool {
    process::present(&["postfix", "postconf"]) && process::root()
}

/// Where Postfix leaves mail for gate.example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// In Maildirs of user@gate.example and second@gate.example, third@other.example and
    /// fourth@other.example; others are unknown.
    Mailboxes,
    /// By SMTP to this address.
    NextHop(SocketAddr),
}

/// A running Postfix.
pub struct Postfix {
    folder: TempDir,
    pub smtp: SocketAddr,
}

impl Postfix {
    /// Starts one and waits until it takes connections.
    pub fn start(onward: Onward) -> Postfix {
        Postfix::start_with(onward, "")
    }

    /// As [`Postfix::start`], with more lines for its main.cf, which count before those above.
    pub fn start_with(onward: Onward, more: &str) -> Postfix {
        let postfix = Postfix {
            folder: TempDir::new().expect("a temporary folder"),
            smtp: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
        };
        process::give_to_mail(&postfix.path("mail"));
        for folder in ["config", "queue", "data"] {
            fs::create_dir(postfix.path(folder)).expect("a new folder");
        }
        let owner = nix::unistd::User::from_name("postfix")
            .expect("the user list can be read")
            .expect("the package made the user");
        nix::unistd::chown(&postfix.path("data"), Some(owner.uid), None).expect("we are root");
        Certificate::make(&postfix.path("certs"), "postfix.gate.example");
        let main = format!("{}{more}", postfix.main(onward));
        fs::write(postfix.path("config/main.cf"), main).expect("written");
        fs::write(postfix.path("config/master.cf"), postfix.master()).expect("written");
        postfix.control("start");
        wait_until(SOON, "postfix", || TcpStream::connect(postfix.smtp).ok());
        postfix
    }

    /// Stops it; its queue and its mail stay.
    pub fn stop(&self) {
        let _ = process::attempt(
            process::command("postfix")
                .arg("-c")
                .arg(self.path("config"))
                .arg("stop"),
        );
    }

    /// Starts again what was stopped.
    pub fn restart(&self) {
        self.control("start");
        wait_until(SOON, "postfix", || TcpStream::connect(self.smtp).ok());
    }

    /// The gateway's `deliver` for it.
    pub fn target(&self) -> String {
        format!("smtp:{}", self.smtp)
    }

    /// The mailbox of one of its users.
    pub fn mailbox(&self, user: &str) -> Mailbox {
        Mailbox::at(self.path("mail").join(user))
    }

    /// Whether nothing waits in its queue.
    pub fn is_idle(&self) -> bool {
        let folders = ["maildrop", "incoming", "active", "deferred"];
        let mut folders = folders.map(|name| self.path("queue").join(name)).to_vec();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    _ => return false,
                }
            }
        }
        true
    }

    /// The certificate that it shows, in PEM.
    pub fn certificate(&self) -> PathBuf {
        self.path("certs/fullchain.pem")
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("maillog")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn control(&self, verb: &str) {
        process::run(
            process::command("postfix")
                .arg("-c")
                .arg(self.path("config"))
                .arg(verb),
        );
    }

    fn main(&self, onward: Onward) -> String {
        let folder = self.folder.path().display();
        let onward = match onward {
            Onward::Mailboxes => format!(
                "virtual_mailbox_domains = gate.example, other.example\n\
                 virtual_mailbox_base = {folder}/mail\n\
                 virtual_mailbox_maps = inline:{{user@gate.example=user/, second@gate.example=second/, \
                 third@other.example=third/, fourth@other.example=fourth/}}\n\
                 virtual_uid_maps = static:{MAIL}\nvirtual_gid_maps = static:{MAIL}\n\
                 virtual_minimum_uid = 1\n",
                MAIL = process::MAIL
            ),
            Onward::NextHop(address) => format!(
                "relay_domains = gate.example\nrelay_transport = smtp:[{}]:{}\n",
                address.ip(),
                address.port()
            ),
        };
        format!(
            "compatibility_level = 3.6\n\
             queue_directory = {folder}/queue\n\
             data_directory = {folder}/data\n\
             meta_directory = /etc/postfix\n\
             maillog_file = {folder}/maillog\n\
             maillog_file_prefixes = {folder}\n\
             myhostname = postfix.gate.example\n\
             mydestination =\n\
             alias_maps =\nalias_database =\n\
             mynetworks = 127.0.0.0/8\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\n\
             smtpd_tls_security_level = may\nsmtpd_tls_received_header = yes\n\
             smtpd_tls_cert_file = {folder}/certs/fullchain.pem\n\
             smtpd_tls_key_file = {folder}/certs/privkey.pem\n\
             smtp_host_lookup = native\nsmtp_tls_security_level = may\n\
             minimal_backoff_time = 1s\nqueue_run_delay = 1s\n\
             default_process_limit = 20\n\
             {onward}"
        )
    }

    fn master(&self) -> String {
        let port = self.smtp.port();
        format!(
            "127.0.0.1:{port} inet n - n - - smtpd\n\
             pickup unix n - n 60 1 pickup\n\
             cleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\n\
             rewrite unix - - n - - trivial-rewrite\n\
             bounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\n\
             trace unix - - n - 0 bounce\n\
             verify unix - - n - 1 verify\n\
             flush unix n - n 1000? 0 flush\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\n\
             proxymap unix - - n - - proxymap\n\
             proxywrite unix - - n - 1 proxymap\n\
             smtp unix - - n - - smtp\n\
             relay unix - - n - - smtp\n\
             error unix - - n - - error\n\
             retry unix - - n - - error\n\
             discard unix - - n - - discard\n\
             virtual unix - n n - - virtual\n\
             lmtp unix - - n - - lmtp\n\
             anvil unix - - n - 1 anvil\n\
             scache unix - - n - 1 scache\n\
             postlog unix-dgram n - n - 1 postlogd\n"
        )
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- postfix's log ---\n{}", self.log());
        }
    }
}
