//! Machines of ours that are known by a certificate: who is, who is not, and that resuming a session
//! changes nothing about it.

use std::fs;
use std::io;
use std::sync::Arc;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::version::TLS13;

use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::machine;
use crate::support::machine::BOTH;
use crate::support::machine::Machine;
use crate::support::mailbox;
use crate::support::mails::mail;
use crate::support::process;
use crate::support::tls_host::Authority;

/// Ports that ask for a certificate, one a service.
struct Ports {
    mx: u16,
    submission: u16,
    internal: u16,
    /// It does not ask.
    silent: u16,
}

/// A gateway that knows machines by `keys` of `[internal]`, and by no network.
fn start(site: Site, keys: &str) -> (Gateway, Ports) {
    let ports = Ports {
        mx: free_port(),
        submission: free_port(),
        internal: free_port(),
        silent: free_port(),
    };
    let listen = |service: &str, port: u16, asks: &str| {
        format!(
            "[[listen]]\nservice = {service:?}\naddress = \"127.0.0.1:{port}\"\n\
             client_certificates = {asks:?}\n"
        )
    };
    let users = site.path("users");
    fs::write(&users, "").expect("written");
    let site = site
        .with(&listen("mx", ports.mx, "ask"))
        .with(&listen("submission", ports.submission, "ask"))
        .with(&listen("internal", ports.internal, "ask"))
        .with(&listen("mx", ports.silent, "off"))
        .with(&format!(
            "[submission]\nusers = \"file:{}\"",
            users.display()
        ))
        .with(&internal(keys));
    (site.start(), ports)
}

fn internal(keys: &str) -> String {
    format!("[internal]\nnetworks = []\n{keys}")
}

/// The reply to a recipient elsewhere in the world, or to what came before it.
fn relay(port: u16, gateway: &Gateway, shown: Option<&Machine>) -> io::Result<String> {
    relay_with(port, &machine::config(gateway, shown, BOTH)).map(|(reply, _)| reply)
}

/// The same, and whether an older session was resumed.
fn relay_with(port: u16, config: &Arc<ClientConfig>) -> io::Result<(String, bool)> {
    let mut client = machine::connect(port, config)?;
    let resumed = client.has_resumed();
    let reply = client.say("MAIL FROM:<a@client.example>");
    if !reply.starts_with('2') {
        return Ok((reply, resumed));
    }
    let reply = client.say("RCPT TO:<b@elsewhere.example>");
    client.say("QUIT");
    Ok((reply, resumed))
}

#[test]
fn only_a_certificate_that_is_known_opens_the_way_to_the_world() {
    let authority = Authority::new();
    let site = Site::new();
    let file = site.path("machines.pem");
    fs::write(&file, authority.pem()).expect("written");
    let listed = Machine::new("listed.example");
    let by_key = Machine::new("by-key.example");
    let keys = format!(
        "certificates = [{:?}, \"sha256:{}\"]\nauthorities = [{file:?}]\n",
        listed.fingerprint(),
        by_key.key_fingerprint(),
    );
    let (gateway, ports) = start(site, &keys);
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let server = ExtendedKeyUsagePurpose::ServerAuth;
    for (what, shown, want) in [
        ("a listed one", Some(&listed), true),
        ("a listed key", Some(&by_key.renewed("anew.example")), true),
        (
            "one of ours",
            Some(&Machine::of(&authority, client.clone(), 4000)),
            true,
        ),
        (
            "an old one of ours",
            Some(&Machine::of(&authority, client.clone(), 2020)),
            false,
        ),
        (
            "a server of ours",
            Some(&Machine::of(&authority, server, 4000)),
            false,
        ),
        (
            "one of others",
            Some(&Machine::of(&Authority::new(), client, 4000)),
            false,
        ),
        (
            "the same name",
            Some(&Machine::new("listed.example")),
            false,
        ),
        (
            "another certificate for a listed one",
            Some(&listed.renewed("x.example")),
            false,
        ),
        ("none", None, false),
    ] {
        for (service, port, no) in [
            ("mx", ports.mx, "550 5.7.1"),
            ("submission", ports.submission, "530 5.7.0"),
            ("internal", ports.internal, "550 5.7.1"),
        ] {
            let reply = relay(port, &gateway, shown).expect("mail goes on");
            let want = if want { "250" } else { no };
            assert!(reply.starts_with(want), "{what}, {service}: {reply}");
        }
        let reply = relay(ports.silent, &gateway, shown).expect("mail goes on");
        assert!(
            reply.starts_with("550 5.7.1"),
            "{what}: not asked, but {reply}"
        );
    }
}

#[test]
fn a_certificate_without_its_key_opens_nothing() {
    let listed = Machine::new("listed.example");
    let (gateway, ports) = start(
        Site::new(),
        &format!("certificates = [{:?}]\n", listed.fingerprint()),
    );
    let thief = Machine {
        der: listed.der.clone(),
        key: Machine::new("thief.example").key,
    };
    for versions in [&[&TLS13], &[&TLS12]] {
        let config = machine::config(&gateway, Some(&thief), versions);
        let got = relay_with(ports.internal, &config);
        assert!(got.is_err(), "{versions:?}: {got:?}");
    }
    let events = gateway.process.events("client certificate");
    assert!(events.is_empty(), "{events:?}");
    assert!(gateway.process.wait_for("tls handshake failed")["reason"].is_string());
}

#[test]
fn what_a_machine_sends_names_its_certificate_in_field_and_log() {
    let listed = Machine::new("relay (1); \u{e9}\nBcc: x");
    let keys = format!("certificates = [{:?}]\n", listed.fingerprint());
    let (gateway, ports) = start(Site::new(), &keys);
    let config = machine::config(&gateway, Some(&listed), BOTH);
    let mut client = machine::connect(ports.mx, &config).expect("a handshake");
    // SPF would refuse this sender, were it asked.
    let message = mail("a@client.example", "from a machine");
    client.hand_over("a@client.example", "user@gate.example", &message);
    let got = gateway.site.mailbox("user").first();
    let received = mailbox::field(&got, "Received").join("\n");
    let sum = listed.fingerprint().replace(':', "").to_lowercase();
    for want in [
        "(client certificate of relay ?1?? ??Bcc: x by relay ?1?? ??Bcc: x",
        &format!("sha256 {sum})"),
        "with ESMTPS",
    ] {
        assert!(received.contains(want), "{want} in {received}");
    }
    let event = gateway.process.wait_for("client certificate");
    assert_eq!(event["sha256"], sum);
    assert_eq!(event["key_sha256"], listed.key_fingerprint().to_lowercase());
    assert_eq!(event["may_relay"], true);
    let begun = gateway.process.wait_for("tls begun");
    assert_eq!(begun["version"], "TLS1.3");
    assert_eq!(begun["key_exchange"], "X25519MLKEM768");
    assert_eq!(begun["session"], event["session"]);
}

#[test]
fn a_session_that_is_resumed_is_known_by_the_same_certificate() {
    let listed = Machine::new("listed.example");
    let keys = format!("certificates = [{:?}]\n", listed.fingerprint());
    let (mut gateway, ports) = start(Site::new(), &keys);
    for versions in [&[&TLS13], &[&TLS12]] {
        let known = machine::config(&gateway, Some(&listed), versions);
        let unknown = machine::config(&gateway, None, versions);
        for (config, want) in [(&known, "250"), (&unknown, "550 5.7.1")] {
            for want_resumed in [false, true, true] {
                let (reply, resumed) = relay_with(ports.mx, config).expect("mail goes on");
                assert_eq!(resumed, want_resumed, "{versions:?}");
                assert!(reply.starts_with(want), "{versions:?}: {reply}");
            }
        }
        // A session with a port that did not ask holds no certificate, so it is not resumed here.
        let config = machine::config(&gateway, Some(&listed), versions);
        for (port, want, want_resumed) in [
            (ports.silent, "550 5.7.1", false),
            (ports.internal, "250", false),
            (ports.internal, "250", true),
        ] {
            let (reply, resumed) = relay_with(port, &config).expect("mail goes on");
            assert_eq!(resumed, want_resumed, "{versions:?}");
            assert!(reply.starts_with(want), "{versions:?}: {reply}");
        }
    }
    let config = machine::config(&gateway, Some(&listed), BOTH);
    let (reply, _) = relay_with(ports.mx, &config).expect("mail goes on");
    assert!(reply.starts_with("250"), "{reply}");
    // Whoever is struck out has no way back by an older session.
    let other = format!("certificates = [\"{}\"]\n", "0".repeat(64));
    gateway.site.extra = gateway.site.extra.replace(&keys, &other);
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    let (reply, resumed) = relay_with(ports.mx, &config).expect("mail goes on");
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
    assert!(resumed);
}

#[test]
fn an_authority_of_the_whole_world_stops_the_start() {
    let site = Site::new();
    let public = Authority::new();
    let ours = Machine::new("no-authority.example");
    let store = site.path("public.pem");
    fs::write(&store, public.pem()).expect("written");
    let leaf = site.path("leaf.pem");
    fs::write(&leaf, machine::pem(&ours.der)).expect("written");
    let below = site.path("below.pem");
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "below");
    fs::write(&below, machine::pem(&public.sign(&params, &ours.key))).expect("written");
    for (file, want) in [
        (&store, "whom this system trusts"),
        (&below, "whom this system trusts"),
        (&leaf, "may sign no others"),
        (&site.path("none.pem"), "cannot read"),
    ] {
        let listen = format!(
            "[[listen]]\nservice = \"mx\"\naddress = \"127.0.0.1:{}\"\nclient_certificates = \"ask\"\n",
            free_port()
        );
        let keys = format!("authorities = [{file:?}]\n");
        let path = site.path("gatepost.toml");
        let text = format!("{}\n{listen}{}", site.config(), internal(&keys));
        fs::write(&path, text).expect("written");
        for command in ["check", "serve"] {
            let path = path.display().to_string();
            let mut gateway = gatepost(&[command, "--config", &path]);
            gateway.env("SSL_CERT_FILE", &store);
            let (succeeded, said) = process::attempt(&mut gateway);
            assert!(!succeeded, "{command} with {}", file.display());
            assert!(said.contains(want), "{command}: {said}");
        }
    }
}
