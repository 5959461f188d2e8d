//! A DNS tree of its own, signed from the root down: BIND has the zones, and unbound asks it for us.
//!
//! `.` is signed and delegates `secure.example`, which is signed, and `plain.example`, which is not.
//! Records whose data hold a mark of [`TORN`] are changed after they were signed, so that they are
//! bogus.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use gatepost::dns;
use gatepost::dns::Dnssec;
use tempfile::TempDir;

use crate::support::free_port;
use crate::support::process;
use crate::support::process::Process;
use crate::support::process::name_server;

/// What is changed after signing, and into what: addresses, preferences, data of TLSA records.
const TORN: [(&str, &str); 3] = [
    ("127.0.0.99", "127.0.0.98"),
    ("MX\t66 ", "MX\t67 "),
    ("DEADBEEF", "DEADBEE0"),
];

/// A query for the SOA record of plain.example, to see whether a server answers.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x05plain\x07example\0\0\x06\0\x01";

/// Whether unbound says what DNSSEC proves, or only passes on what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolver {
    Validates,
    PassesOn,
}

/// The two servers. They end when dropped.
pub struct Tree {
    resolver: SocketAddr,
    anchors: PathBuf,
    _processes: [Process; 2],
    _folder: TempDir,
}

/// Whether one can be grown here; if not, the test is skipped loudly, or fails.
pub fn present() -> bool {
    process::present(&["named", "dnssec-keygen", "dnssec-signzone", "unbound"])
}

impl Tree {
    /// `secure` and `plain` are records of the two zones below the root, one a line, by their full names.
    pub fn start(secure: &str, plain: &str, resolver: Resolver) -> Tree {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path();
        sign(path, "secure.example.", secure);
        let top = "$TTL 60\n@ SOA ns.plain.example. root.plain.example. 1 60 60 60 1\n@ NS ns.plain.example.\n";
        fs::write(
            path.join("plain.example."),
            format!("{top}ns A 127.0.0.1\n{plain}"),
        )
        .expect("written");
        let delegation = fs::read_to_string(path.join("dsset-secure.example.")).expect("signed");
        let root = format!(
            "secure.example. NS ns.plain.example.\nplain.example. NS ns.plain.example.\n\
             ns.plain.example. A 127.0.0.1\n{delegation}"
        );
        let key = sign(path, ".", &root);
        let anchors = path.join("anchors");
        fs::write(&anchors, fs::read_to_string(key).expect("a key")).expect("written");
        let (named, authority) = start_named(path);
        let (unbound, resolver) = start_unbound(path, authority, resolver);
        Tree {
            resolver,
            anchors,
            _processes: [unbound, named],
            _folder: folder,
        }
    }

    /// How to ask it.
    pub fn config(&self, dnssec: Dnssec) -> dns::Config {
        let anchors = (dnssec == Dnssec::Validate).then(|| self.anchors.clone());
        dns::Config {
            servers: vec![dns::Server(self.resolver)],
            timeout: Duration::from_secs(5),
            attempts: 1,
            deadline: Duration::from_secs(10),
            dnssec,
            trust_anchors: anchors,
            ..dns::Config::default()
        }
    }
}

/// Makes a key for a zone and signs it into `ZONE.signed`; gives the file of the public key.
fn sign(folder: &Path, zone: &str, records: &str) -> PathBuf {
    let top = format!(
        "$TTL 60\n{zone} SOA ns.plain.example. root.plain.example. 1 60 60 60 1\n\
         {zone} NS ns.plain.example.\n"
    );
    let file = folder.join(format!("zone-{zone}"));
    fs::write(&file, top + records).expect("written");
    let key = process::run(
        process::command("dnssec-keygen")
            .args([
                "-q",
                "-a",
                "ECDSAP256SHA256",
                "-f",
                "KSK",
                "-n",
                "ZONE",
                "-K",
            ])
            .arg(folder)
            .arg(zone),
    );
    let signed = folder.join(format!("signed-{zone}"));
    process::run(
        process::command("dnssec-signzone")
            .args(["-q", "-S", "-z", "-o", zone, "-K"])
            .arg(folder)
            .arg("-d")
            .arg(folder)
            .arg("-f")
            .arg(&signed)
            .arg(&file),
    );
    let mut text = fs::read_to_string(&signed).expect("signed");
    for (whole, torn) in TORN {
        text = text.replace(whole, torn);
    }
    fs::write(&signed, text).expect("written");
    folder.join(format!(
        "{}.key",
        key.trim().lines().last().expect("its name")
    ))
}

fn start_named(folder: &Path) -> (Process, SocketAddr) {
    let (path, port) = (folder.display(), free_port());
    let config = format!(
        "options {{ directory \"{path}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
         recursion no; pid-file none; session-keyfile none; dnssec-validation no; }};\n\
         controls {{ }};\n\
         zone \".\" {{ type primary; file \"signed-.\"; }};\n\
         zone \"secure.example\" {{ type primary; file \"signed-secure.example.\"; }};\n\
         zone \"plain.example\" {{ type primary; file \"plain.example.\"; }};\n"
    );
    let file = folder.join("named.conf");
    fs::write(&file, config).expect("written");
    let arguments = [
        "-f",
        "-c",
        &file.display().to_string(),
        "-p",
        &port.to_string(),
    ];
    name_server("named", &arguments, port, QUERY)
}

fn start_unbound(
    folder: &Path,
    authority: SocketAddr,
    resolver: Resolver,
) -> (Process, SocketAddr) {
    let (path, port) = (folder.display(), free_port());
    let modules = match resolver {
        Resolver::Validates => "validator iterator",
        Resolver::PassesOn => "iterator",
    };
    let authority = format!("127.0.0.1@{}", authority.port());
    let config = format!(
        "server:\n  interface: 127.0.0.1\n  port: {port}\n  directory: \"{path}\"\n  username: \"\"\n  \
         chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  do-not-query-localhost: no\n  \
         do-ip6: no\n  module-config: \"{modules}\"\n  trust-anchor-file: \"{path}/anchors\"\n  \
         harden-below-nxdomain: no\n\
         remote-control:\n  control-enable: no\n\
         stub-zone:\n  name: \".\"\n  stub-addr: {authority}\n\
         stub-zone:\n  name: \"secure.example\"\n  stub-addr: {authority}\n\
         stub-zone:\n  name: \"plain.example\"\n  stub-addr: {authority}\n"
    );
    let file = folder.join("unbound.conf");
    fs::write(&file, config).expect("written");
    let arguments = ["-d", "-c", &file.display().to_string()];
    name_server("unbound", &arguments, port, QUERY)
}
