//! The real gateway: its own binary, a real configuration file, real sockets.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::SOON;
use crate::support::certs::Certificate;
use crate::support::dns::Nameserver;
use crate::support::free_port;
use crate::support::mailbox::Mailbox;
use crate::support::process::signal;
use crate::support::wait_until;

/// The gateway's own name.
pub const HOSTNAME: &str = "mx.gate.example";

/// A place for one gateway: folder, ports, DNS, certificate, and what its file is to say.
pub struct Site {
    pub folder: TempDir,
    pub dns: Nameserver,
    pub certificate: Certificate,
    /// Whether the file names it.
    pub has_certificate: bool,
    /// The listener for all.
    pub smtp: SocketAddr,
    /// A listener that believes PROXY headers from loopback: a test can come from any address.
    pub proxied: SocketAddr,
    pub admin: SocketAddr,
    /// `deliver` of gate.example. At first a Maildir for each address, see [`Site::mailbox`].
    pub deliver: String,
    /// `recipients` of gate.example. At first a file with those of [`RECIPIENTS`].
    pub recipients: String,
    /// More keys of `[queue]`.
    pub queue: String,
    /// More keys of `[spf]`.
    pub spf: &'static str,
    /// More keys of `[dmarc]`.
    pub dmarc: &'static str,
    /// A network whose clients are checked by neither; at first one that nobody is in.
    pub exempt: &'static str,
    /// More of the file: sections of their own.
    pub extra: String,
}

/// Those who can get mail at first.
pub const RECIPIENTS: &[&str] = &[
    "user@gate.example",
    "second@gate.example",
    "postmaster@gate.example",
    "\"john doe\"@gate.example",
];

impl Site {
    pub fn new() -> Site {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path();
        let recipients = path.join("recipients");
        fs::write(&recipients, format!("{}\n", RECIPIENTS.join("\n"))).expect("written");
        let dns = Nameserver::start();
        dns.txt("client.example", "v=spf1 ip4:127.0.0.1 ip6:::1 -all")
            .host("client.example", "127.0.0.1")
            .pointer("127.0.0.1", "client.example")
            .record("gate.example", "MX", &format!("10 {HOSTNAME}"))
            .host(HOSTNAME, "127.0.0.1");
        let loopback = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        Site {
            dns,
            certificate: Certificate::make(&path.join("certs"), HOSTNAME),
            has_certificate: true,
            smtp: loopback(),
            proxied: loopback(),
            admin: loopback(),
            deliver: format!("maildir:{}/mail/{{domain}}/{{local}}", path.display()),
            recipients: recipients.display().to_string(),
            queue: String::new(),
            spf: "",
            dmarc: "",
            exempt: "203.0.113.255/32",
            extra: String::new(),
            folder,
        }
    }

    /// Adds sections to the file.
    pub fn with(mut self, sections: &str) -> Site {
        self.extra.push_str(sections);
        self.extra.push('\n');
        self
    }

    /// Where mail goes instead of into the Maildirs.
    pub fn delivering_to(mut self, target: impl Into<String>) -> Site {
        self.deliver = target.into();
        self
    }

    /// Who can get mail, instead of those of [`RECIPIENTS`].
    pub fn knowing(mut self, recipients: impl Into<String>) -> Site {
        self.recipients = recipients.into();
        self
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where mail for `LOCAL@gate.example` lands.
    pub fn mailbox(&self, local: &str) -> Mailbox {
        Mailbox::at(self.path("mail/gate.example").join(local))
    }

    /// The whole file.
    pub fn config(&self) -> String {
        format!(
            r#"hostname = "{HOSTNAME}"
data_dir = {data:?}

[[listen]]
service = "mx"
address = "{smtp}"
tls = "starttls"

[[listen]]
service = "mx"
address = "{proxied}"
tls = "starttls"
proxy_protocol_from = ["127.0.0.1/32"]

[dns]
servers = ["{dns}"]

[admin]
listen = "{admin}"

[log]
format = "json"

[domains."gate.example"]
deliver = {deliver:?}
recipients = {recipients:?}

[queue]
retry_first = "1s"
{queue}

# Clients on loopback are judged like all others.
[spf]
exempt = ["{exempt}"]
{spf}

[dmarc]
exempt = ["{exempt}"]
{dmarc}

{tls}
{extra}"#,
            data = self.path("data"),
            smtp = self.smtp,
            proxied = self.proxied,
            dns = self.dns.address,
            admin = self.admin,
            deliver = self.deliver,
            recipients = self.recipients,
            tls = match self.has_certificate {
                true => self.certificate.section(),
                false => String::new(),
            },
            exempt = self.exempt,
            queue = self.queue,
            spf = self.spf,
            dmarc = self.dmarc,
            extra = self.extra,
        )
    }

    /// The file, written as it is now.
    pub fn write_config(&self) -> PathBuf {
        let file = self.path("gatepost.toml");
        fs::write(&file, self.config()).expect("written");
        file
    }

    /// The whole answer of the admin's door to a GET over HTTP.
    pub fn get(&self, path: &str) -> String {
        let address = self.admin;
        let mut stream = TcpStream::connect(address).expect("the door is open");
        stream
            .set_read_timeout(Some(SOON))
            .expect("a time-out can be set");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Writes the file, starts the gateway and waits until it is ready.
    pub fn start(self) -> Gateway {
        let file = self.write_config();
        let process = Running::start(&file);
        let gateway = Gateway {
            site: self,
            process,
        };
        gateway.process.wait_for("started");
        gateway
    }
}

/// A gateway that runs. Killed when dropped.
pub struct Gateway {
    pub site: Site,
    pub process: Running,
}

impl Gateway {
    /// The usual site, started.
    pub fn start() -> Gateway {
        Site::new().start()
    }

    pub fn smtp(&self) -> SocketAddr {
        self.site.smtp
    }

    /// Writes the file anew and asks the gateway to read it.
    pub fn reload(&self) {
        self.site.write_config();
        self.process.signal(Signal::SIGHUP);
    }

    /// Starts again, in the same folder on the same ports, what was killed or has stopped.
    pub fn restart(&mut self) {
        self.process = Running::start(&self.site.write_config());
        self.process.wait_for("started");
    }
}

/// The process and its log.
pub struct Running {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// `gatepost` with these arguments, not yet started.
pub fn gatepost(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

impl Running {
    /// Starts `gatepost serve`, and does not wait until it is ready.
    pub fn start(config: &Path) -> Running {
        let config = config.display().to_string();
        Running::run(gatepost(&["serve", "--config", &config]))
    }

    /// Starts a command that becomes the gateway.
    pub fn run(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is there");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.map_while(Result::ok) {
                    log.lock().expect("no thread panics with it").push(line);
                }
            }
        });
        Running {
            child,
            log,
            reader: Some(reader),
        }
    }

    /// All that was logged so far, as text.
    pub fn log(&self) -> String {
        self.log
            .lock()
            .expect("no thread panics with it")
            .join("\n")
    }

    /// The events of this name so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let log = self.log.lock().expect("no thread panics with it");
        log.iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| event["message"] == name)
            .collect()
    }

    /// Waits for the first event of this name.
    pub fn wait_for(&self, name: &str) -> Value {
        self.wait_for_nth(name, 1)
    }

    /// Waits until there are `count` events of this name, and gives the last of these.
    pub fn wait_for_nth(&self, name: &str, count: usize) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(event) = self.events(name).into_iter().nth(count - 1) {
                return event;
            }
            assert!(
                Instant::now() < deadline,
                "no event {name:?} number {count} in:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, which: Signal) {
        signal(self.child.id(), which);
    }

    /// SIGTERM; gives the status with which it ends.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Waits until it has ended by itself; then the log is whole.
    pub fn ended(&mut self) -> ExitStatus {
        let status = wait_until(SOON, "the gateway's end", || {
            self.child.try_wait().expect("it is our child")
        });
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no thread panics with the log");
        }
        status
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ---\n{}", self.log());
        }
    }
}
