//! Pebble, a certificate authority that speaks ACME, on ports of its own; and a door before it, behind
//! which it seems to fail, to be too busy or to say more than it does.

use std::fs;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;

use tempfile::TempDir;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::rustls::StreamOwned;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::support::SOON;
use crate::support::certs::Certificate;
use crate::support::free_port;
use crate::support::process;
use crate::support::process::Process;
use crate::support::wait_until;

/// Whether Pebble is there.
pub fn present() -> bool {
    process::present(&["pebble"])
}

/// A running Pebble.
pub struct Pebble {
    port: u16,
    management: u16,
    /// Where it looks for the pages of HTTP-01.
    pub http: SocketAddr,
    /// Where it looks for the certificates of TLS-ALPN-01.
    pub tls: SocketAddr,
    /// Its own certificate, which it shows to clients.
    certificate: Certificate,
    dns: SocketAddr,
    settings: &'static str,
    process: Option<Process>,
    folder: TempDir,
}

impl Pebble {
    /// Starts it; it asks this DNS server where a name is.
    pub fn start(dns: SocketAddr) -> Pebble {
        Pebble::start_with(dns, "")
    }

    /// Starts it with more lines of its configuration.
    pub fn start_with(dns: SocketAddr, settings: &'static str) -> Pebble {
        let folder = TempDir::new().expect("a temporary folder");
        let mut pebble = Pebble {
            port: free_port(),
            management: free_port(),
            http: SocketAddr::from(([127, 0, 0, 1], free_port())),
            tls: SocketAddr::from(([127, 0, 0, 1], free_port())),
            certificate: Certificate::make(folder.path(), "localhost"),
            dns,
            settings,
            process: None,
            folder,
        };
        pebble.restart();
        pebble
    }

    /// Starts it anew: it forgets all accounts and has other keys.
    pub fn restart(&mut self) {
        self.process = None;
        let config = self.folder.path().join("pebble.json");
        let text = format!(
            r#"{{"pebble": {{
  "listenAddress": "127.0.0.1:{port}", "managementListenAddress": "127.0.0.1:{management}",
  "certificate": {chain:?}, "privateKey": {key:?}, {settings}
  "httpPort": {http}, "tlsPort": {tls}, "ocspResponderURL": ""
}}}}"#,
            port = self.port,
            management = self.management,
            chain = self.certificate.chain,
            key = self.certificate.key,
            settings = self.settings,
            http = self.http.port(),
            tls = self.tls.port(),
        );
        fs::write(&config, text).expect("written");
        let log = fs::File::create(self.folder.path().join("log")).expect("a file");
        let child = process::command("pebble")
            .arg("-config")
            .arg(&config)
            .args(["-dnsserver", &self.dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble can be started");
        self.process = Some(Process(child));
        wait_until(SOON, "pebble", || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// The file with the authority that vouches for its own certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.certificate.chain.clone()
    }

    /// `[acme]` and `[http]` for a gateway that gets its certificates here; more keys of the former.
    pub fn sections(&self, more: &str) -> String {
        let directory = format!("https://localhost:{}/dir", self.port);
        self.sections_at(&directory, more)
    }

    /// The same for one that comes by another way.
    pub fn sections_at(&self, directory: &str, more: &str) -> String {
        format!(
            "[http]\nlisten = [\"{http}\"]\ntls_listen = [\"{tls}\"]\n\
             [acme]\nterms_agreed = true\ncontact = \"me@gate.example\"\nretry_first = \"1s\"\n\
             directory = {directory:?}\nca_file = {ca:?}\n{more}\n",
            http = self.http,
            tls = self.tls,
            ca = self.ca_file(),
        )
    }

    /// The root below which it issues certificates.
    pub fn root(&self) -> CertificateDer<'static> {
        let text = self.get("/roots/0");
        let mut pem = text.as_bytes();
        let found = rustls_pemfile::certs(&mut pem).next();
        found.expect("a certificate").expect("in PEM")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A page of its own interface for tests.
    fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        ask(&self.certificate, self.management, &request)
    }
}

/// What the door does with a request.
pub enum Act {
    /// Pebble answers it.
    Pass,
    /// This is the whole answer.
    Answer(String),
    /// Pebble answers it, and this is put first into the object that it answers with.
    Add(String),
}

/// A door before Pebble, with its certificate. It ends with the test.
pub struct Door {
    port: u16,
}

impl Door {
    /// Opens it. What becomes of a request is said for its first line.
    pub fn before(pebble: &Pebble, rule: impl Fn(&str) -> Act + Send + 'static) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let certificate = pebble.certificate.clone();
        let behind = pebble.port;
        let key = fs::read(&certificate.key).expect("a key");
        let key = rustls_pemfile::private_key(&mut &key[..]).expect("in PEM");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der.clone()], key.expect("a key"))
            .expect("they belong together");
        let config = Arc::new(config);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let tls = ServerConnection::new(Arc::clone(&config)).expect("a configuration");
                let mut client = StreamOwned::new(tls, client);
                let Ok(request) = message(&mut client) else {
                    continue;
                };
                let first = request.split("\r\n").next().unwrap_or_default();
                let behind = || ask(&certificate, behind, &request);
                let answer = match rule(first) {
                    Act::Pass => behind(),
                    Act::Answer(answer) => answer,
                    Act::Add(more) => with(&behind(), &more),
                };
                let _ = client.write_all(answer.as_bytes());
                client.conn.send_close_notify();
                let _ = client.flush();
            }
        });
        Door { port }
    }

    /// The address of the directory, for clients that come by the door.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// An address behind it.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }
}

/// An answer as HTTP has it.
pub fn answer(status: &str, header: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn with(found: &str, more: &str) -> String {
    let (_, body) = found.split_once("\r\n\r\n").expect("an answer");
    answer("200 OK", "", &body.replacen('{', &format!("{{{more},"), 1))
}

/// One request with its body.
fn message(stream: &mut impl Read) -> io::Result<String> {
    let mut read = Vec::new();
    let mut octet = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        read.push(octet[0]);
    }
    let head = String::from_utf8_lossy(&read).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    read.extend(body);
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// What the server at a port of this machine answers, to the end of the connection.
fn ask(trusted: &Certificate, port: u16, request: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).expect("a certificate");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let tcp = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    tcp.set_read_timeout(Some(SOON))
        .expect("a time-out can be set");
    let mut stream = StreamOwned::new(tls, tcp);
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    // It may hang up without saying so.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- pebble's log ---\n{}", self.log());
        }
    }
}
