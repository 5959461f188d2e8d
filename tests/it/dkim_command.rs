//! `gatepost dkim` and `gatepost dns`: keys that are made, and what the DNS has of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::support::dns::Behaviour;
use crate::support::dns::Nameserver;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;

/// What a command ends with and writes to both outputs.
fn run(site: &Site, arguments: &[&str]) -> (i32, String, String) {
    let mut command = gatepost(arguments);
    let output = command.arg("--config").arg(site.write_config());
    let output = output.stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let status = output.status.code().expect("a status");
    (status, text(output.stdout), text(output.stderr))
}

/// Makes a key; its file and its record.
fn genkey(site: &Site, arguments: &[&str]) -> (PathBuf, String) {
    let arguments = [&["dkim", "genkey", "--json"], arguments].concat();
    let (status, told, complaint) = run(site, &arguments);
    assert_eq!(status, 0, "{told}{complaint}");
    let made: Value = serde_json::from_str(&told).expect("a JSON object");
    let text = |key: &str| made[key].as_str().expect("text").to_owned();
    (text("file").into(), text("record"))
}

#[test]
fn a_made_key_is_private_printed_as_a_zone_has_it_and_never_written_over() {
    let site = Site::new();
    let arguments = ["dkim", "genkey", "gate.example", "--selector", "s1"];
    let (status, told, hint) = run(&site, &arguments);
    assert_eq!(status, 0, "{hint}");
    let file = site.path("data/dkim/gate.example/s1.pem");
    let mode = fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(told.contains(&format!("; the private key is in {}", file.display())));
    assert!(
        told.contains("s1._domainkey.gate.example.\tIN\tTXT\t( \"v=DKIM1; k=rsa; \"\n\t  \"p=")
    );
    assert!(
        told.ends_with("\" )  ; ----- DKIM key s1 for gate.example\n"),
        "{told}"
    );
    assert!(
        hint.contains("gatepost dkim testkey gate.example"),
        "{hint}"
    );

    let before = fs::read(&file).expect("it is there");
    let (status, _, complaint) = run(&site, &arguments);
    assert_eq!(status, 73, "{complaint}");
    assert!(complaint.contains("never written over"), "{complaint}");
    assert_eq!(fs::read(&file).expect("it is there"), before);
    for (arguments, want) in [
        (&["--bits", "1024"][..], 64),
        (&["--algorithm", "ed25519", "--bits", "2048"], 64),
        (&["--selector", "a b"], 64),
    ] {
        let arguments = [&["dkim", "genkey", "gate.example"], arguments].concat();
        assert_eq!(run(&site, &arguments).0, want, "{arguments:?}");
    }
}

#[test]
fn made_keys_sign_without_a_line_of_configuration_and_are_listed() {
    let site = Site::new();
    genkey(&site, &["gate.example", "--selector", "s1"]);
    genkey(
        &site,
        &["gate.example", "--selector", "s2", "--algorithm", "ed25519"],
    );
    let (_, _, hint) = run(&site, &["dkim", "genkey", "far.example"]);
    assert!(hint.contains("[[signing.rule]]"), "{hint}");
    let (status, told, _) = run(&site, &["dkim", "list"]);
    assert_eq!(status, 0);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].starts_with("gate.example by s1 (rsa-sha256, 2048 bits) from "));
    assert!(lines[1].starts_with("gate.example by s2 (ed25519-sha256, 256 bits) from "));
    let (_, told, _) = run(&site, &["check"]);
    for line in lines {
        assert!(told.contains(&format!("signing   {line}")), "{told}");
    }
    let (_, told, _) = run(&site, &["dkim", "list", "--json"]);
    let list: Value = serde_json::from_str(&told).expect("a JSON object");
    assert_eq!(list["domains"]["gate.example"][1], "gate.example/s2");
}

#[test]
fn testkey_says_what_the_dns_has_of_a_key() {
    let site = Site::new();
    let (file, record) = genkey(&site, &["gate.example", "--selector", "s1"]);
    let (_, other) = genkey(&site, &["gate.example", "--selector", "s2"]);
    let name = "s1._domainkey.gate.example";
    let test = |selector: &str| {
        let arguments = ["dkim", "testkey", "gate.example", "--selector", selector];
        run(&site, &arguments)
    };
    let (status, told, _) = test("s1");
    assert_eq!(
        (status, told.trim()),
        (69, &*format!("{name}: key missing: there is no TXT record"))
    );
    site.dns.txt(name, &record);
    site.dns.txt("s2._domainkey.gate.example", &record);
    let (status, told, _) = test("s1");
    assert_eq!((status, told.trim()), (0, &*format!("{name}: key OK")));
    let (status, told, _) = test("s2");
    assert_eq!(status, 65);
    assert!(
        told.contains("key mismatch: the record has another public key"),
        "{told}"
    );
    let (status, told, _) = run(&site, &["dkim", "testkey", "--json"]);
    assert_eq!(status, 65);
    let all: Value = serde_json::from_str(&told).expect("a JSON object");
    let results = [&all["keys"][0]["result"], &all["keys"][1]["result"]];
    assert_eq!(results, ["OK", "mismatch"]);
    assert_eq!(test("none").0, 66);

    site.dns.txt(name, &other);
    assert!(test("s1").1.contains("2 records"));
    site.dns.behave(name, Behaviour::Fails);
    let (status, told, _) = test("s1");
    assert_eq!(status, 69);
    assert!(told.contains("key unknown"), "{told}");

    // A key that is not in use yet.
    site.dns.txt("s9._domainkey.gate.example", &record);
    let file = file.display().to_string();
    let arguments = [
        "dkim",
        "testkey",
        "gate.example",
        "--selector",
        "s9",
        "--key",
        &file,
    ];
    assert_eq!(run(&site, &arguments).0, 0);
}

/// Publishes all that mail for gate.example needs beside what a site has at first.
fn publish(dns: &Nameserver, key: &str) {
    dns.txt("s1._domainkey.gate.example", key)
        .txt(HOSTNAME, "v=spf1 a -all")
        .txt("_dmarc.gate.example", "v=DMARC1; p=reject");
}

#[test]
fn what_is_to_be_published_is_printed_and_compared_with_the_dns() {
    let mut site = Site::new();
    let (_, record) = genkey(&site, &["gate.example", "--selector", "s1"]);
    let (status, told, _) = run(&site, &["dns", "gate.example"]);
    assert_eq!(status, 0);
    for line in [
        &format!("gate.example.\tIN\tMX\t10 {HOSTNAME}.\n"),
        "gate.example.\tIN\tTXT\t\"v=spf1 mx ~all\"",
        "s1._domainkey.gate.example.\tIN\tTXT\t( \"v=DKIM1; k=rsa; \"",
        "_dmarc.gate.example.\tIN\tTXT\t\"v=DMARC1; p=none;",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }

    let verify = ["dns", "gate.example", "--verify"];
    let (status, told, _) = run(&site, &verify);
    assert_eq!(status, 1);
    for line in [
        format!("differs  {HOSTNAME}. A: 127.0.0.1 has the name localhost; publish"),
        format!("missing  {HOSTNAME}. TXT: publish v=spf1 a -all (not needed, but of use)"),
        format!("ok       gate.example. MX: 10 {HOSTNAME}.\n"),
        "missing  gate.example. TXT: publish v=spf1 mx ~all\n".to_owned(),
        "missing  s1._domainkey.gate.example. TXT: publish v=DKIM1;".to_owned(),
        "missing  _dmarc.gate.example. TXT: publish v=DMARC1;".to_owned(),
    ] {
        assert!(told.contains(&line), "{line}\n{told}");
    }

    site.dns = Nameserver::start();
    site.dns
        .host(HOSTNAME, "192.0.2.1")
        .pointer("192.0.2.1", HOSTNAME)
        .record("gate.example", "MX", &format!("10 {HOSTNAME}"))
        .txt(
            "gate.example",
            "v=spf1 ip4:192.0.2.0/24 include:far.example -all",
        );
    publish(&site.dns, &record);
    let (status, told, _) = run(&site, &verify);
    assert_eq!(status, 0, "{told}");
    assert!(told.lines().all(|line| line.starts_with("ok ")), "{told}");
    let (status, told, _) = run(&site, &["dns", "--verify", "--json"]);
    let all: Value = serde_json::from_str(&told).expect("a JSON object");
    assert_eq!((status, &all["ok"]), (0, &Value::Bool(true)), "{told}");
    assert_eq!(
        all["domains"][0]["records"][5]["found"],
        "v=DMARC1; p=reject"
    );

    site.dns.behave("gate.example", Behaviour::Fails);
    assert_eq!(run(&site, &verify).0, 69);
}

#[test]
fn a_key_of_our_own_name_signs_bounces_and_is_published_once() {
    let site = Site::new().with("[domains.\"other.example\"]");
    let (status, _, hint) = run(&site, &["dkim", "genkey", HOSTNAME, "--selector", "s1"]);
    assert_eq!(status, 0);
    assert!(!hint.contains("[[signing.rule]]"), "{hint}");
    let (_, told, _) = run(&site, &["dkim", "list"]);
    assert!(told.starts_with(&format!("{HOSTNAME} by s1 ")), "{told}");
    let (_, told, _) = run(&site, &["dns"]);
    let times = |text: &str| told.matches(text).count();
    assert_eq!(times(&format!("s1._domainkey.{HOSTNAME}.")), 1, "{told}");
    assert_eq!(times("; no DKIM key signs as"), 2, "{told}");
}

#[test]
fn what_stands_in_the_dns_and_does_not_let_us_send_differs() {
    let mut site = Site::new();
    let (_, record) = genkey(&site, &["gate.example", "--selector", "s1"]);
    site.dns = Nameserver::start();
    site.dns
        .host(HOSTNAME, "192.0.2.1")
        .record("gate.example", "MX", "10 mx.far.example")
        .txt("gate.example", "v=spf1 ip4:198.51.100.0/24 -all");
    publish(&site.dns, &record.replace("p=MII", "p=MIJ"));
    site.dns.txt("_dmarc.gate.example", "v=DMARC1; p=none");
    let (status, told, _) = run(&site, &["dns", "gate.example", "--verify"]);
    assert_eq!(status, 1, "{told}");
    for line in [
        format!("differs  {HOSTNAME}. A: 192.0.2.1 has no name (PTR); publish"),
        "differs  gate.example. MX: 10 mx.far.example.; publish".to_owned(),
        "differs  gate.example. TXT: \"v=spf1 ip4:198.51.100.0/24 -all\" says that no mail comes from \
         192.0.2.1; publish"
            .to_owned(),
        "differs  s1._domainkey.gate.example. TXT: the record has another public key".to_owned(),
        "differs  _dmarc.gate.example. TXT: there are 2 records v=DMARC1; leave one".to_owned(),
    ] {
        assert!(told.contains(&line), "{line}\n{told}");
    }
    assert_eq!(run(&site, &["dns", "far.example"]).0, 64);
}

#[test]
fn a_key_that_cannot_be_used_stops_the_start_and_makes_a_reload_keep_the_old_ones() {
    let site = Site::new();
    let (file, _) = genkey(&site, &["gate.example", "--selector", "s1"]);
    let gateway = site.start();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
    gateway.reload();
    let event = gateway
        .process
        .wait_for("configuration not reloaded, the old one stays in force");
    assert!(event["reason"].to_string().contains("chmod 600"), "{event}");
    let site = &gateway.site;
    let (status, _, complaint) = run(site, &["check"]);
    assert_eq!(status, 78);
    assert!(
        complaint.contains("signing: the private key"),
        "{complaint}"
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");

    let site = Site::new();
    let (file, _) = genkey(&site, &["gate.example", "--selector", "s1"]);
    fs::write(&file, "nonsense").expect("it is ours");
    let (status, _, complaint) = run(&site, &["serve"]);
    assert_eq!(status, 69);
    assert!(complaint.contains("no private key in PEM"), "{complaint}");
}
