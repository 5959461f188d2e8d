//! A real Dovecot behind the gateway: LMTP and authentication by unix socket and by TCP, Maildirs in its own
//! folder.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::SOON;
use crate::support::free_port;
use crate::support::mailbox::Mailbox;
use crate::support::process;
use crate::support::process::MAIL;
use crate::support::process::Process;
use crate::support::wait_until;

/// Whether one can be started here; if not, the test is skipped loudly, or fails.
pub fn present() -> bool {
    process::present(&["dovecot", "lmtp"]) && process::root()
}

/// Those whom it knows, each with the password `secret`. `tiny` may have 2 KiB, `full` next to nothing, and
/// `full` may not log in; the others have no limit.
const USERS: &[&str] = &["user", "second", "tiny", "full", "postmaster"];

/// With what tokens are signed that let its users in.
const TOKEN_KEY: &[u8] = b"a key of the site that gives out tokens";

/// A running Dovecot that serves gate.example.
pub struct Dovecot {
    folder: TempDir,
    tcp: SocketAddr,
    auth: SocketAddr,
    master: Option<Process>,
}

impl Dovecot {
    /// Starts one and waits until it takes connections.
    pub fn start() -> Dovecot {
        let folder = TempDir::new().expect("a temporary folder");
        let loopback = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (tcp, auth) = (loopback(), loopback());
        let mut dovecot = Dovecot {
            folder,
            tcp,
            auth,
            master: None,
        };
        process::give_to_mail(&dovecot.path("mail"));
        fs::write(dovecot.path("users"), dovecot.users()).expect("written");
        fs::write(dovecot.path("disabled"), "full@gate.example\n").expect("written");
        dovecot.write_token_key();
        fs::write(dovecot.path("dovecot.conf"), dovecot.config()).expect("written");
        dovecot.restart();
        dovecot
    }

    /// Starts again what was stopped.
    pub fn restart(&mut self) {
        let child = process::command("dovecot")
            .arg("-F")
            .arg("-c")
            .arg(self.path("dovecot.conf"))
            .stdin(Stdio::null())
            .spawn()
            .expect("dovecot can be started");
        self.master = Some(Process(child));
        wait_until(SOON, "dovecot", || {
            let sockets = ["lmtp", "auth"].map(|name| self.path(name).exists());
            let there = sockets == [true; 2] && TcpStream::connect(self.tcp).is_ok();
            there.then_some(())
        });
    }

    /// Stops it, and those of its processes that would go on for whoever is connected; its mail stays.
    pub fn stop(&mut self) {
        if let Some(mut master) = self.master.take() {
            let pid = master.0.id();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            master.terminate();
            for child in children.unwrap_or_default().split_whitespace() {
                let pid = Pid::from_raw(child.parse().expect("a process id"));
                // It has mostly ended already.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }

    /// The gateway's `deliver` for the unix socket.
    pub fn unix(&self) -> String {
        format!("lmtp:unix:{}", self.path("lmtp").display())
    }

    /// The gateway's `deliver` for TCP.
    pub fn tcp(&self) -> String {
        format!("lmtp:{}", self.tcp)
    }

    /// The unix socket at which other programs have logins checked.
    pub fn auth(&self) -> PathBuf {
        self.path("auth")
    }

    /// The gateway's `users` for the unix socket.
    pub fn auth_unix(&self) -> String {
        format!("dovecot:{}", self.path("auth").display())
    }

    /// The gateway's `users` for TCP.
    pub fn auth_tcp(&self) -> String {
        format!("dovecot:{}", self.auth)
    }

    /// The mailbox of one of its users.
    pub fn mailbox(&self, user: &str) -> Mailbox {
        Mailbox::at(self.path("mail").join(user))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("dovecot.log")).unwrap_or_default()
    }

    /// A token that lets `user` in until `expires`, in seconds since 1970 (RFC 7519, by HMAC-SHA-256).
    pub fn token(user: &str, expires: u64) -> String {
        let parts = [
            r#"{"alg":"HS256","typ":"JWT"}"#.to_owned(),
            format!(r#"{{"sub":"{user}","iat":1700000000,"exp":{expires}}}"#),
        ];
        let signed = parts
            .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
            .join(".");
        let key = hmac::Key::new(hmac::HMAC_SHA256, TOKEN_KEY);
        let signature = hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Writes what it needs to judge tokens by itself.
    fn write_token_key(&self) {
        let folder = self.path("tokens/default/HS256");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("default"), BASE64_STANDARD.encode(TOKEN_KEY)).expect("written");
        let config = format!(
            "introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={}/\n\
             username_attribute = sub\n",
            self.path("tokens").display()
        );
        fs::write(self.path("oauth2.conf"), config).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn users(&self) -> String {
        let line = |user: &&str| {
            let home = self.path("mail").join(user);
            let quota = match *user {
                "tiny" => "userdb_quota_rule=*:bytes=2048",
                "full" => "userdb_quota_rule=*:bytes=1",
                _ => "",
            };
            format!(
                "{user}@gate.example:{{PLAIN}}secret:{MAIL}:{MAIL}::{}::{quota}\n",
                home.display()
            )
        };
        USERS.iter().map(line).collect()
    }

    fn config(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            r"base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/dovecot.log
protocols = lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = {MAIL}
first_valid_gid = {MAIL}
mail_location = maildir:%h
mail_plugins = quota
lmtp_save_to_detail_mailbox = no
postmaster_address = postmaster@gate.example
auth_mechanisms = plain login scram-sha-256 xoauth2 oauthbearer
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  deny = yes
  args = {folder}/disabled
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf
}}
passdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
plugin {{
  quota = maildir:User quota
  quota_grace = 0%%
}}
# No client waits for what another one did before it.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener {folder}/auth {{
    mode = 0666
  }}
  inet_listener {{
    address = 127.0.0.1
    port = {auth}
  }}
}}
service lmtp {{
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
",
            port = self.tcp.port(),
            auth = self.auth.port()
        )
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- dovecot's log ---\n{}", self.log());
        }
    }
}
