//! TLS on the wire: the upgrade, what may not come before it, certificates that change.

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::version::TLS13;

use crate::support::SOON;
use crate::support::certs::Certificate;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::machine;
use crate::support::machine::BOTH;
use crate::support::mailbox;
use crate::support::mails::mail;
use crate::support::wait_until;

/// The certificate that the gateway shows now, if the client may trust `root`.
fn shown(gateway: &Gateway, root: &CertificateDer<'static>) -> Option<CertificateDer<'static>> {
    let mut client = Client::hello(gateway.smtp());
    client.expect("STARTTLS", "220");
    client.secure(root, HOSTNAME).ok()?;
    client.server_certificate()
}

#[test]
fn mail_over_starttls_says_so_in_its_received_field() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("STARTTLS", "220 2.0.0");
    let root = &gateway.site.certificate.der;
    client.secure(root, HOSTNAME).expect("a handshake");
    client.expect("EHLO client.example", "250");
    let message = mail("a@client.example", "over tls");
    client.hand_over("a@client.example", "user@gate.example", &message);
    let got = gateway.site.mailbox("user").first();
    let received = mailbox::field(&got, "Received").join("\n");
    assert!(
        received.contains("with ESMTPS") && received.contains("TLS"),
        "{received}"
    );
}

#[test]
fn starttls_is_not_offered_inside_tls() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("STARTTLS", "220");
    let root = &gateway.site.certificate.der;
    client.secure(root, HOSTNAME).expect("a handshake");
    let hello = client.say("EHLO client.example");
    assert!(!hello.contains("STARTTLS"), "{hello}");
}

#[test]
fn commands_sent_with_starttls_in_one_packet_end_the_session() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.send(
        b"STARTTLS\r\nMAIL FROM:<injected@client.example>\r\nRCPT TO:<user@gate.example>\r\n",
    );
    let said = client.rest();
    assert!(
        !said.contains("250"),
        "an injected command was answered: {said:?}"
    );
    assert!(said.starts_with('5') || said.starts_with('4'), "{said:?}");
}

#[test]
fn what_came_before_the_handshake_is_forgotten() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("STARTTLS", "220");
    let root = &gateway.site.certificate.der;
    client.secure(root, HOSTNAME).expect("a handshake");
    client.expect("EHLO client.example", "250");
    client.expect("RCPT TO:<user@gate.example>", "503 5.5.1");
}

#[test]
fn a_failed_handshake_ends_only_its_own_session() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("STARTTLS", "220");
    client.send(b"this is no client hello\r\n\r\n");
    client.rest();
    gateway.process.wait_for("tls handshake failed");
    Client::hello(gateway.smtp()).expect("NOOP", "250");
}

#[test]
fn a_listener_with_implicit_tls_shakes_hands_first() {
    let port = free_port();
    let listen = format!(
        "[[listen]]\nservice = \"mx\"\naddress = \"127.0.0.1:{port}\"\ntls = \"implicit\"\n"
    );
    let gateway = Site::new().with(&listen).start();
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    let root = &gateway.site.certificate.der;
    client.secure(root, HOSTNAME).expect("a handshake");
    assert!(client.reply().starts_with("220 "));
    let hello = client.say("EHLO client.example");
    assert!(!hello.contains("STARTTLS"), "{hello}");
}

#[test]
fn a_new_certificate_is_taken_while_sessions_go_on() {
    let gateway = Gateway::start();
    let old = gateway.site.certificate.der.clone();
    let mut open = Client::hello(gateway.smtp());
    open.expect("STARTTLS", "220");
    open.secure(&old, HOSTNAME).expect("a handshake");
    let new = Certificate::make(&gateway.site.path("certs"), HOSTNAME).der;
    wait_until(SOON, "the new certificate", || {
        let shown = shown(&gateway, &new)?;
        (shown == new).then_some(())
    });
    open.expect("EHLO client.example", "250");
}

#[test]
fn a_broken_certificate_file_keeps_the_old_one_in_use() {
    let gateway = Gateway::start();
    let old = gateway.site.certificate.clone();
    std::fs::write(&old.chain, "-----BEGIN CERTIFICATE-----\nbroken\n").expect("written");
    let event = gateway
        .process
        .wait_for("certificate not loaded, the old one stays in use");
    assert!(
        event["file"].to_string().contains("fullchain.pem"),
        "{event}"
    );
    assert_eq!(shown(&gateway, &old.der), Some(old.der));
}

#[test]
fn without_a_certificate_one_is_made_and_a_warning_logged() {
    let site = Site::new();
    let section = site.certificate.section();
    let config = site.config().replace(&section, "");
    let file = site.path("gatepost.toml");
    std::fs::write(&file, config).expect("written");
    let process = Running::start(&file);
    process.wait_for("started");
    let event = process.wait_for("no certificate configured, self-signed one in use");
    assert_eq!(event["hostname"], HOSTNAME);
    let hello = Client::hello(site.smtp).say("EHLO client.example");
    assert!(hello.contains("STARTTLS"), "{hello}");
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_that_it_asks_for() {
    let site = Site::new();
    let other = Certificate::make(&site.path("other"), "mail.other.example");
    let both = format!("{}, {}", site.certificate.entry(), other.entry());
    let config = site.config().replace(&site.certificate.entry(), &both);
    let file = site.path("gatepost.toml");
    std::fs::write(&file, config).expect("written");
    let process = Running::start(&file);
    process.wait_for("started");
    for (name, certificate) in [
        ("mail.other.example", &other),
        (HOSTNAME, &site.certificate),
    ] {
        let mut client = Client::hello(site.smtp);
        client.expect("STARTTLS", "220");
        client.secure(&certificate.der, name).expect(name);
        assert_eq!(client.server_certificate().as_ref(), Some(&certificate.der));
    }
}

#[test]
fn an_expired_certificate_is_used_and_a_warning_logged() {
    let site = Site::new();
    Certificate::make_expired(&site.path("certs"), HOSTNAME);
    let gateway = site.start();
    let warned = |event: &serde_json::Value| event["reason"].to_string().contains("expired 2020");
    let event = wait_until(SOON, "a warning", || {
        let events = gateway.process.events("certificate doubtful");
        events.into_iter().find(|event| warned(event))
    });
    assert_eq!(event["level"], "warn");
    assert!(
        event["file"].to_string().contains("fullchain.pem"),
        "{event}"
    );
    let hello = Client::hello(gateway.smtp()).say("EHLO client.example");
    assert!(hello.contains("STARTTLS"), "{hello}");
}

#[test]
fn a_listener_without_tls_offers_none() {
    let port = free_port();
    let listen =
        format!("[[listen]]\nservice = \"mx\"\naddress = \"127.0.0.1:{port}\"\ntls = \"off\"\n");
    let _gateway = Site::new().with(&listen).start();
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    assert!(client.reply().starts_with("220 "));
    let hello = client.say("EHLO client.example");
    assert!(!hello.contains("STARTTLS"), "{hello}");
    client.expect("STARTTLS", "5");
}

#[test]
fn a_client_that_does_not_shake_hands_is_not_waited_for() {
    let site = Site::new().with("[session]\nhandshake_timeout = \"1s\"");
    let gateway = site.start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("STARTTLS", "220");
    client.rest();
    gateway.process.wait_for("tls handshake failed");
}

#[test]
fn a_network_that_wants_tls_too_often_is_told_to_come_back() {
    let site = Site::new().with("[session.handshakes]\nper_minute = 2");
    let gateway = site.start();
    let root = &gateway.site.certificate.der;
    for (source, want) in [
        ("192.0.2.1", "220"),
        ("192.0.2.2", "220"),
        ("192.0.2.3", "421 4.7.0"),
        ("198.51.100.1", "220"),
    ] {
        let mut client = Client::hello_from(gateway.site.proxied, source, "client.example");
        client.expect("STARTTLS", want);
        match want {
            "220" => client.secure(root, HOSTNAME).expect("a handshake"),
            _ => assert_eq!(client.rest(), ""),
        }
    }
    let event = gateway.process.wait_for("turned away");
    assert_eq!(event["reason"], "too many handshakes");
    assert_eq!(event["peer"], "192.0.2.3");
}

#[test]
fn a_listener_has_its_own_terms() {
    let (newest, listed) = (free_port(), free_port());
    let listen = |port: u16, terms: &str| {
        format!("[[listen]]\nservice = \"mx\"\naddress = \"127.0.0.1:{port}\"\n{terms}\n")
    };
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let gateway = Site::new()
        .with(&listen(newest, "tls_minimum_version = \"1.3\""))
        .with(&listen(listed, &format!("tls_ciphers = [{suite:?}]")))
        .start();
    let usual = gateway.smtp().port();
    for (port, versions, want) in [
        (
            usual,
            &[&TLS12][..],
            Some("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        ),
        (usual, &[&TLS13], Some("TLS_AES_256_GCM_SHA384")),
        (newest, &[&TLS12], None),
        (newest, &[&TLS13], Some("TLS_AES_256_GCM_SHA384")),
        (listed, &[&TLS12], Some(suite)),
        (listed, &[&TLS13], None),
        (listed, BOTH, Some(suite)),
    ] {
        let before = gateway.process.events("tls begun").len();
        let connected = machine::connect(port, &machine::config(&gateway, None, versions));
        assert_eq!(connected.is_ok(), want.is_some(), "{port} {versions:?}");
        if let Some(want) = want {
            let event = gateway.process.wait_for_nth("tls begun", before + 1);
            assert_eq!(event["cipher"], want, "{port} {versions:?}");
        }
    }
}
