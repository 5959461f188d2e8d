//! Mail of ours for the world: who may send, as whom, and what is put right on the way.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mailbox::body;
use crate::support::mailbox::field;
use crate::support::mails::DkimKey;
use crate::support::mails::mail;

/// In a network of ours, and outside of it.
const MACHINE: &str = "192.0.2.7";
const STRANGER: &str = "198.51.100.9";

/// A site with a listener for machines of ours, which believes PROXY headers.
fn site(sections: &str) -> (Site, SocketAddr) {
    let internal = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let site = Site::new().with(&format!(
        r#"[[listen]]
service = "internal"
address = "{internal}"
tls = "off"
proxy_protocol_from = ["127.0.0.1/32"]

[internal]
networks = ["192.0.2.0/24"]
{sections}"#
    ));
    (site, internal)
}

fn start(sections: &str) -> (Gateway, SocketAddr) {
    let (site, internal) = site(sections);
    (site.start(), internal)
}

#[test]
fn a_machine_of_ours_may_send_to_anywhere_and_no_other() {
    let (gateway, internal) = start("");
    let mut client = Client::hello_from(internal, MACHINE, "printer");
    client.expect("MAIL FROM:<printer@gate.example>", "250");
    client.expect("RCPT TO:<someone@elsewhere.example>", "250");
    client.expect("RCPT TO:<nobody@gate.example>", "550 5.1.1");
    for address in [STRANGER, "127.0.0.1", "::1"] {
        let mut client = Client::hello_from(internal, address, "printer");
        client.expect("MAIL FROM:<printer@gate.example>", "250");
        client.expect("RCPT TO:<someone@elsewhere.example>", "550 5.7.1");
        client.expect("RCPT TO:<user@gate.example>", "550 5.7.1");
    }
    let mut client = Client::hello_from(gateway.site.proxied, MACHINE, "printer");
    client.expect("MAIL FROM:<printer@client.example>", "250");
    client.expect("RCPT TO:<someone@elsewhere.example>", "550 5.7.1");
}

#[test]
fn what_a_machine_leaves_out_is_added_and_what_it_should_is_taken_out() {
    let (gateway, internal) = start("");
    let mut client = Client::hello_from(internal, MACHINE, "printer");
    let message = "Subject:  two  spaces \r\n\tfolded\r\nBcc: <hidden@gate.example>\r\n\
                   Return-Path: <x@y.example>\r\nAuthentication-Results: mx.gate.example; dmarc=pass\r\n\
                   From: <printer@gate.example>\r\n\r\nBcc: body\r\n.. dots\r\n";
    client.hand_over("printer@gate.example", "user@gate.example", message);
    let got = gateway.site.mailbox("user").first();
    let id = gateway.process.wait_for("accepted")["id"].clone();
    let id = id.as_str().expect("a text");
    assert_eq!(
        field(&got, "Message-ID"),
        [format!("<{id}@mx.gate.example>")]
    );
    assert_eq!(field(&got, "To"), ["undisclosed-recipients:;"]);
    assert_eq!(field(&got, "Date").len(), 1);
    for name in ["Bcc", "Authentication-Results", "Received-SPF", "Sender"] {
        assert_eq!(field(&got, name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(field(&got, "Return-Path"), ["<printer@gate.example>"]);
    let received = field(&got, "Received").remove(0);
    let want =
        format!("from printer ([192.0.2.7]) by mx.gate.example (Gatepost) with ESMTP id {id}");
    assert!(received.starts_with(&want), "{received}");
    assert!(
        got.replace("\r\n", "\n").ends_with(
            "Subject:  two  spaces \n\tfolded\nFrom: <printer@gate.example>\n\nBcc: body\n.. dots\n"
        ),
        "{got}"
    );
    let repaired = gateway.process.wait_for("repaired");
    assert_eq!(
        repaired["fields"],
        "-Bcc -Return-Path -Authentication-Results +Date +To +Message-ID"
    );
}

#[test]
fn a_message_without_one_readable_author_is_refused() {
    let (_gateway, internal) = start("");
    let mut client = Client::hello_from(internal, MACHINE, "printer");
    for header in [
        "Subject: no author\r\n",
        "From: root (Cron Daemon)\r\n",
        "From: a@gate.example\r\nFrom: b@gate.example\r\n",
        "From: a@gate.example\r\nno field\r\n",
    ] {
        let message = format!("{header}\r\nbody\r\n");
        let reply = client.deliver("printer@gate.example", "user@gate.example", &message);
        assert!(reply.starts_with("550 5.6.0 "), "{header:?}: {reply}");
    }
}

#[test]
fn nobody_learns_of_a_client_that_is_to_be_hidden() {
    let (gateway, internal) = start("[submission.repair]\nhide_client = true\n");
    let mut client = Client::hello_from(internal, MACHINE, "secret-host");
    let message = "From: <printer@gate.example>\r\n\r\nHello.\r\n";
    client.hand_over("printer@gate.example", "user@gate.example", message);
    let got = gateway.site.mailbox("user").first();
    assert_eq!(body(&got), "Hello.\n");
    assert!(
        !got.contains(MACHINE) && !got.contains("secret-host"),
        "{got}"
    );
}

#[test]
fn what_goes_out_is_signed_as_it_goes_out() {
    let (site, internal) = site("");
    let key = DkimKey::new();
    let folder = site.path("data/dkim/gate.example");
    fs::create_dir_all(&folder).expect("made");
    let file = folder.join("s1.pem");
    fs::write(&file, key.pem()).expect("written");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("closed");
    site.dns
        .txt("s1._domainkey.gate.example", &key.record())
        .txt("_dmarc.gate.example", "v=DMARC1; p=reject")
        .txt("gate.example", "v=spf1 -all");
    let gateway = site.start();
    let mut client = Client::hello_from(internal, MACHINE, "printer");
    let message = "From: <printer@gate.example>\r\nBcc: <hidden@gate.example>\r\n\r\nHello.\r\n";
    client.hand_over("printer@gate.example", "user@gate.example", message);
    let got = gateway.site.mailbox("user").first();
    let signature = field(&got, "DKIM-Signature").remove(0);
    assert!(signature.contains("d=gate.example"), "{signature}");
    assert_eq!(gateway.process.wait_for("signed")["domain"], "gate.example");

    // Back from the world, the signature is all that speaks for it.
    let (_, sent) = got.split_once("Received: ").expect("our field");
    let returned = format!("Received: {sent}").replace('\n', "\r\n");
    let mut client = Client::hello_from(gateway.site.proxied, "127.0.0.1", "client.example");
    client.hand_over("a@client.example", "second@gate.example", &returned);
    let got = gateway.site.mailbox("second").first();
    let results = field(&got, "Authentication-Results").remove(0);
    assert!(
        results.contains("dkim=pass") && results.contains("dmarc=pass"),
        "{results}"
    );

    let other = mail("printer@elsewhere.example", "not ours");
    let mut client = Client::hello_from(internal, MACHINE, "printer");
    client.hand_over("printer@gate.example", "postmaster@gate.example", &other);
    let got = gateway.site.mailbox("postmaster").first();
    assert_eq!(field(&got, "DKIM-Signature"), Vec::<String>::new());
}
