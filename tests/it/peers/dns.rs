//! Real DNS servers in front of us: unbound, and BIND with a zone of its own.

use std::fs;

use gatepost::delivery;
use gatepost::delivery::Delivery;
use gatepost::dns;
use gatepost::dns::Dns;
use gatepost::dns::Error;
use gatepost::dns::Existence;
use gatepost::mail::address::Domain;
use tempfile::TempDir;

use crate::routes::to_exchangers;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::mailbox::field;
use crate::support::mails::mail;
use crate::support::process;
use crate::support::process::Process;
use crate::support::process::name_server;
use crate::support::sink::Sink;

/// What both servers publish, as lines of a zone file.
const RECORDS: &[&str] = &[
    r#"good.example. TXT "v=spf1 ip4:192.0.2.1 -all""#,
    r#"reject.example. TXT "v=spf1 include:_spf.reject.example -all""#,
    r#"_spf.reject.example. TXT "v=spf1 ip4:192.0.2.1 -all""#,
    r#"_dmarc.reject.example. TXT "v=DMARC1; p=reject""#,
    "host.test.example. A 192.0.2.1",
    "host.test.example. AAAA 2001:db8::1",
    "test.example. MX 10 host.test.example.",
    "set.example. MX 20 worse.set.example.",
    "set.example. MX 10 dead.set.example.",
    "set.example. MX 10 best.set.example.",
    "dead.set.example. A 127.0.0.1",
    "best.set.example. A 127.0.0.3",
    "worse.set.example. A 127.0.0.2",
    "null.example. MX 0 .",
];

/// One more: 2000 octets, which do not fit in a datagram of 1232.
fn long_record() -> String {
    let strings = format!("\"{}\" ", "x".repeat(250)).repeat(8);
    format!("long.test.example. TXT {strings}")
}

fn records() -> impl Iterator<Item = String> {
    let records = RECORDS.iter().map(|record| (*record).to_owned());
    records.chain([long_record()])
}

/// A query for `good.example TXT`, to see whether a server answers.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04good\x07example\0\0\x10\0\x01";

/// A server with a folder of its own, stopped when dropped.
struct Peer {
    port: u16,
    _process: Process,
    _folder: TempDir,
}

/// None, loudly, where it is not there.
fn unbound() -> Option<Peer> {
    if !process::present(&["unbound"]) {
        return None;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().display();
    let port = free_port();
    let records: String = records()
        .map(|record| format!("  local-data: '{record}'\n"))
        .collect();
    let config = format!(
        "server:\n  interface: 127.0.0.1\n  port: {port}\n  directory: \"{path}\"\n  username: \"\"\n  \
         chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  do-not-query-localhost: yes\n  \
         local-zone: \"example.\" static\n  local-zone: \"in-addr.arpa.\" static\n{records}\
         remote-control:\n  control-enable: no\n"
    );
    let file = folder.path().join("unbound.conf");
    fs::write(&file, config).expect("written");
    let arguments = ["-d", "-c", &file.display().to_string()];
    let (process, _) = name_server("unbound", &arguments, port, QUERY);
    Some(Peer {
        port,
        _process: process,
        _folder: folder,
    })
}

/// None, loudly, where it is not there.
fn bind() -> Option<Peer> {
    if !process::present(&["named"]) {
        return None;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().display();
    let port = free_port();
    let records: String = records().map(|record| record + "\n").collect();
    let start =
        "$TTL 60\n@ SOA ns hostmaster 1 60 60 60 1\n@ NS ns.example.\nns.example. A 127.0.0.1\n";
    fs::write(
        folder.path().join("example.zone"),
        format!("{start}{records}"),
    )
    .expect("written");
    let arpa = "$TTL 60\n@ SOA ns.example. hostmaster.example. 1 60 60 60 1\n@ NS ns.example.\n";
    fs::write(folder.path().join("arpa.zone"), arpa).expect("written");
    let config = format!(
        "options {{ directory \"{path}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
         recursion no; pid-file none; session-keyfile none; dnssec-validation no; }};\n\
         controls {{ }};\n\
         zone \"example\" {{ type primary; file \"example.zone\"; }};\n\
         zone \"in-addr.arpa\" {{ type primary; file \"arpa.zone\"; }};\n"
    );
    let file = folder.path().join("named.conf");
    fs::write(&file, config).expect("written");
    let port_text = port.to_string();
    let file = file.display().to_string();
    let arguments = ["-f", "-c", &file, "-p", &port_text];
    let (process, _) = name_server("named", &arguments, port, QUERY);
    Some(Peer {
        port,
        _process: process,
        _folder: folder,
    })
}

/// SPF and DMARC come out right with this server.
fn assert_judged(port: u16) {
    let site = Site::new();
    let own = site.dns.address.to_string();
    let config = site.config().replace(&own, &format!("127.0.0.1:{port}"));
    let file = site.path("gatepost.toml");
    fs::write(&file, config).expect("written");
    let process = Running::start(&file);
    process.wait_for("started");
    let gateway = Gateway { site, process };
    for (address, from, author, want) in [
        ("192.0.2.1", "a@good.example", "a@good.example", "250 2.0.0"),
        (
            "192.0.2.9",
            "a@good.example",
            "a@good.example",
            "550 5.7.23",
        ),
        (
            "192.0.2.1",
            "a@reject.example",
            "a@reject.example",
            "250 2.0.0",
        ),
        (
            "192.0.2.1",
            "a@good.example",
            "boss@reject.example",
            "550 5.7.1 ",
        ),
        (
            "192.0.2.1",
            "a@nothing.example",
            "a@nothing.example",
            "250 2.0.0",
        ),
    ] {
        let mut client = Client::hello_from(gateway.site.proxied, address, "helo.example");
        let message = mail(author, "judged");
        let reply = client.deliver(from, "user@gate.example", &message);
        assert!(
            reply.starts_with(want),
            "{address} {from} {author}: {reply:?}"
        );
    }
    for got in gateway.site.mailbox("user").wait_for(3) {
        assert_eq!(field(&got, "Authentication-Results").len(), 1, "{got}");
    }
}

/// Answers, and that there is none, are told apart.
async fn assert_answers(port: u16) {
    let dns = Dns::new(&dns::Config {
        servers: vec![dns::Server(([127, 0, 0, 1], port).into())],
        ..dns::Config::default()
    })
    .expect("the configuration is right");
    let host = domain("host.test.example");
    assert_eq!(dns.addresses(&host).await.map(|found| found.len()), Ok(2));
    assert_eq!(
        dns.mx("test.example").await,
        Ok(vec![(10, "host.test.example".to_owned())])
    );
    let long = dns.txt("long.test.example").await;
    assert_eq!(long.map(|found| found[0].len()), Ok(2000));
    assert_eq!(dns.txt("host.test.example").await, Err(Error::NotFound));
    assert_eq!(dns.txt("none.test.example").await, Err(Error::NotFound));
    let none = domain("none.test.example");
    assert_eq!(dns.existence(&none).await, Ok(Existence::DoesNotExist));
    assert_eq!(dns.existence(&host).await, Ok(Existence::Exists));
}

/// Mail goes to the best exchanger that is there.
async fn assert_exchangers(port: u16) {
    let dns = Dns::new(&dns::Config {
        servers: vec![dns::Server(([127, 0, 0, 1], port).into())],
        ..dns::Config::default()
    })
    .expect("the configuration is right");
    let delivery = Delivery::new(&delivery::Config::default(), domain("mx.ours.example"), dns);
    let delivery = delivery.expect("TLS can be set up");
    let port = free_port();
    let _sinks = [
        Sink::at(([127, 0, 0, 2], port).into(), "worse"),
        Sink::at(([127, 0, 0, 3], port).into(), "best"),
    ];
    for _ in 0..5 {
        let outcome = to_exchangers(&delivery, port, "a@set.example").await;
        let peer = outcome.peer.expect("a server was spoken to");
        assert_eq!(&*peer.name, "best.set.example");
        // The next one is not sent over the same connection.
        delivery.close().await;
    }
    for (to, code) in [("a@null.example", 556), ("a@none.example", 550)] {
        let outcome = to_exchangers(&delivery, port, to).await;
        assert_eq!(outcome.reply.code, code, "{to}");
    }
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).expect("a name")
}

#[test]
fn unbound_gives_what_spf_and_dmarc_need() {
    if let Some(peer) = unbound() {
        assert_judged(peer.port);
    }
}

#[test]
fn bind_gives_what_spf_and_dmarc_need() {
    if let Some(peer) = bind() {
        assert_judged(peer.port);
    }
}

#[tokio::test]
async fn unbound_leads_to_the_best_exchanger() {
    if let Some(peer) = unbound() {
        assert_exchangers(peer.port).await;
    }
}

#[tokio::test]
async fn bind_leads_to_the_best_exchanger() {
    if let Some(peer) = bind() {
        assert_exchangers(peer.port).await;
    }
}

#[tokio::test]
async fn unbound_is_understood() {
    if let Some(peer) = unbound() {
        assert_answers(peer.port).await;
    }
}

#[tokio::test]
async fn bind_is_understood() {
    if let Some(peer) = bind() {
        assert_answers(peer.port).await;
    }
}
