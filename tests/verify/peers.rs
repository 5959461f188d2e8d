//! The resolver against the DNS servers that stand behind real mail hosts: unbound and BIND.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use gatepost::dns;
use gatepost::dns::Dns;
use gatepost::dns::Error;
use gatepost::dns::Existence;
use tempfile::TempDir;

use crate::domain;
use crate::peer::skip;

/// A server of its own on a free port, stopped when dropped.
struct Peer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server from a config file; none, loudly, where it is not installed.
fn start(program: &str, arguments: &[&str], config: impl Fn(&Path, u16) -> String) -> Option<Peer> {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .unwrap()
        .port();
    fs::write(folder.path().join("config"), config(folder.path(), port)).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .arg("-c")
        .arg(folder.path().join("config"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match child {
        Ok(child) => Some(Peer {
            child,
            port,
            _folder: folder,
        }),
        Err(error) => {
            skip(program, &error);
            None
        }
    }
}

fn unbound() -> Option<Peer> {
    start("unbound", &["-d"], |folder, port| {
        let long = "x".repeat(250);
        let strings = format!("\"{long}\" ").repeat(8);
        format!(
            "server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
             use-syslog: no\n directory: \"{dir}\"\n pidfile: \"{dir}/pid\"\n \
             local-zone: \"test.example.\" static\n \
             local-data: 'test.example. 60 IN SOA ns.test.example. root.test.example. 1 60 60 60 60'\n \
             local-data: 'host.test.example. 60 IN A 192.0.2.1'\n \
             local-data: 'host.test.example. 60 IN AAAA 2001:db8::1'\n \
             local-data: 'test.example. 60 IN MX 10 host.test.example.'\n \
             local-data: 'long.test.example. 60 IN TXT {strings}'\n\
             remote-control:\n control-enable: no\n",
            dir = folder.display(),
        )
    })
}

fn bind() -> Option<Peer> {
    start("named", &["-f"], |folder, port| {
        let strings = format!("\"{}\" ", "x".repeat(250)).repeat(8);
        let zone = format!(
            "$TTL 60\n@ IN SOA ns root 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n\
             @ MX 10 host\nhost A 192.0.2.1\nhost AAAA 2001:db8::1\nlong TXT {strings}\n"
        );
        fs::write(folder.join("zone"), zone).unwrap();
        format!(
            "options {{ directory \"{dir}\"; listen-on port {port} {{ 127.0.0.1; }}; \
             listen-on-v6 {{ none; }}; recursion no; pid-file \"{dir}/pid\"; \
             session-keyfile \"{dir}/key\"; lock-file none; }};\ncontrols {{ }};\n\
             zone \"test.example\" {{ type master; file \"{dir}/zone\"; }};\n",
            dir = folder.display(),
        )
    })
}

async fn answers_like_any_other(peer: Peer) {
    let dns = Dns::new(&dns::Config {
        servers: vec![format!("127.0.0.1:{}", peer.port).parse().unwrap()],
        ..dns::Config::default()
    })
    .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let host = domain("host.test.example");
    let found = loop {
        match dns.addresses(&host).await {
            Ok(found) => break found,
            Err(error) if Instant::now() > deadline => panic!("never came up: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(found.len(), 2);
    assert_eq!(
        dns.mx("test.example").await.unwrap(),
        [(10, "host.test.example".to_owned())]
    );
    // 2000 octets do not fit in a datagram of 1232.
    assert_eq!(dns.txt("long.test.example").await.unwrap()[0].len(), 2000);
    assert_eq!(dns.txt("host.test.example").await, Err(Error::NotFound));
    assert_eq!(dns.txt("none.test.example").await, Err(Error::NotFound));
    let none = domain("none.test.example");
    assert_eq!(dns.existence(&none).await, Ok(Existence::DoesNotExist));
    assert_eq!(dns.existence(&host).await, Ok(Existence::Exists));
}

#[tokio::test]
async fn unbound_is_understood() {
    if let Some(peer) = unbound() {
        answers_like_any_other(peer).await;
    }
}

#[tokio::test]
async fn bind_is_understood() {
    if let Some(peer) = bind() {
        answers_like_any_other(peer).await;
    }
}
