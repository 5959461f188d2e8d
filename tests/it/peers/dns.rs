//! Real DNS servers in front of us: unbound, and BIND with a zone of its own.

use std::fs;
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::mailbox::field;
use crate::support::mails::mail;
use crate::support::process;
use crate::support::process::Process;
use crate::support::wait_until;

/// What both servers publish.
const RECORDS: &[(&str, &str)] = &[
    ("good.example", "v=spf1 ip4:192.0.2.1 -all"),
    ("reject.example", "v=spf1 include:_spf.reject.example -all"),
    ("_spf.reject.example", "v=spf1 ip4:192.0.2.1 -all"),
    ("_dmarc.reject.example", "v=DMARC1; p=reject"),
];

/// A query for `good.example TXT`, to see whether a server answers.
const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04good\x07example\0\0\x10\0\x01";

/// Starts a server and waits until it answers.
fn serve(program: &str, arguments: &[&str], port: u16) -> Process {
    let child = process::command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server can be started");
    let process = Process(child);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a time-out can be set");
    wait_until(SOON, program, || {
        socket.send_to(QUERY, ("127.0.0.1", port)).ok()?;
        let mut answer = [0; 512];
        // The count of answers is not zero.
        let length = socket.recv(&mut answer).ok()?;
        (length > 12 && answer[7] > 0).then_some(())
    });
    process
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

#[test]
fn unbound_gives_what_spf_and_dmarc_need() {
    if !process::present(&["unbound"]) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().display();
    let port = free_port();
    let records: String = RECORDS
        .iter()
        .map(|(name, text)| format!("  local-data: '{name}. 60 TXT \"{text}\"'\n"))
        .collect();
    let config = format!(
        "server:\n  interface: 127.0.0.1\n  port: {port}\n  directory: \"{path}\"\n  username: \"\"\n  \
         chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  do-not-query-localhost: yes\n  \
         local-zone: \"example.\" static\n  local-zone: \"in-addr.arpa.\" static\n{records}\
         remote-control:\n  control-enable: no\n"
    );
    let file = folder.path().join("unbound.conf");
    fs::write(&file, config).expect("written");
    let _unbound = serve("unbound", &["-d", "-c", &file.display().to_string()], port);
    assert_judged(port);
}

#[test]
fn bind_gives_what_spf_and_dmarc_need() {
    if !process::present(&["named"]) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().display();
    let port = free_port();
    let records: String = RECORDS
        .iter()
        .map(|(name, text)| format!("{name}. TXT \"{text}\"\n"))
        .collect();
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
    let _named = serve("named", &["-f", "-c", &file, "-p", &port_text], port);
    assert_judged(port);
}
