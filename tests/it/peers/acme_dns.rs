//! Certificates from Pebble for records that are put into a zone of BIND.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::acme::is_content;
use super::acme::site;
use crate::support::SOON;
use crate::support::free_port;
use crate::support::gateway::HOSTNAME;
use crate::support::pebble::Pebble;
use crate::support::process;
use crate::support::process::Process;
use crate::support::process::name_server;
use crate::support::wait_until;

/// A BIND that lets the key in this file change two names of its zone `gate.example`; its port.
fn bind(folder: &Path, key: &Path) -> (Process, u16) {
    let port = free_port();
    let made = process::run(process::command("tsig-keygen").arg("gatepost"));
    fs::write(key, made).expect("written");
    let zone = "$TTL 60\n@ SOA ns hostmaster 1 60 60 60 1\n@ NS ns\nns A 127.0.0.1\n";
    let more = "@ A 127.0.0.1\nmx A 127.0.0.1\n_acme-challenge.mx CNAME mx.acme\n";
    fs::write(folder.join("gate.zone"), format!("{zone}{more}")).expect("written");
    let config = format!(
        "options {{ directory {folder:?}; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
         recursion no; pid-file none; session-keyfile none; dnssec-validation no; }};\n\
         controls {{ }};\ninclude {key:?};\n\
         zone \"gate.example\" {{ type primary; file \"gate.zone\"; update-policy \
         {{ grant gatepost name _acme-challenge.gate.example. TXT; grant gatepost subdomain \
         acme.gate.example. TXT; }}; }};\n"
    );
    let file = folder.join("named.conf");
    fs::write(&file, config).expect("written");
    let (file, port_text) = (file.display().to_string(), port.to_string());
    let arguments = ["-f", "-c", &file, "-p", &port_text];
    // For the SOA record of gate.example.
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04gate\x07example\0\0\x06\0\x01";
    let (process, _) = name_server("named", &arguments, port, query);
    (process, port)
}

#[test]
fn a_wildcard_is_got_by_records_in_a_zone_of_bind_or_where_an_alias_leads() {
    if !process::present(&["pebble", "named", "tsig-keygen", "dig"]) {
        return;
    }
    let site = site();
    site.dns.record(
        "_acme-challenge.mx.gate.example",
        "CNAME",
        "mx.acme.gate.example",
    );
    let folder = TempDir::new().expect("a temporary folder");
    let key = folder.path().join("gatepost.key");
    let (_bind, port) = bind(folder.path(), &key);
    let server = format!("127.0.0.1:{port}");
    let pebble = Pebble::start(server.parse().expect("an address"));
    let more = format!(
        "challenge = \"dns-01\"\n\
         [[acme.certificates]]\nnames = [\"gate.example\", \"*.gate.example\"]\n\
         [[acme.certificates]]\nnames = [\"{HOSTNAME}\"]\n\
         [acme.dns]\nserver = {server:?}\nkey_file = {key:?}\ncheck = [{server:?}]\n"
    );
    let gateway = site.with(&pebble.sections(&more)).start();
    gateway.process.wait_for_nth("certificate obtained", 2);
    let root = pebble.root();
    wait_until(SOON, "the wildcard", || {
        is_content(&gateway, &root, "any.gate.example")
    });
    for name in ["_acme-challenge.gate.example", "mx.acme.gate.example"] {
        let port = port.to_string();
        let said = process::run(process::command("dig").args([
            "@127.0.0.1",
            "-p",
            &port,
            "+short",
            "TXT",
            name,
        ]));
        assert_eq!(said, "", "the records are taken away");
    }
}

#[test]
fn a_name_server_that_does_not_let_us_says_why_there_is_no_certificate() {
    if !process::present(&["pebble", "named", "tsig-keygen"]) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let key = folder.path().join("gatepost.key");
    let (_bind, port) = bind(folder.path(), &key);
    let server = format!("127.0.0.1:{port}");
    let pebble = Pebble::start(server.parse().expect("an address"));
    for (names, use_key, want) in [
        (
            "other.gate.example",
            true,
            "does its update-policy or allow-update name our key?",
        ),
        ("gate.example", false, "Refused"),
        (
            "other.example",
            true,
            "has no zone for _acme-challenge.other.example",
        ),
    ] {
        let mut site = site();
        site.extra = pebble.sections(&format!(
            "challenge = \"dns-01\"\n[[acme.certificates]]\nnames = [{names:?}]\n\
             [acme.dns]\nserver = {server:?}\n"
        ));
        if use_key {
            site.extra.push_str(&format!("key_file = {key:?}\n"));
        }
        let gateway = site.start();
        let event = gateway.process.wait_for("certificate not obtained");
        let reason = event["reason"].to_string();
        assert!(reason.contains(want), "{names}: {reason}");
    }
}
