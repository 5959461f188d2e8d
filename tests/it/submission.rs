//! Mail of ours for the world: who may send, as whom, and what is put right on the way.

use std::fs;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mailbox::body;
use crate::support::mailbox::field;
use crate::support::mails::DkimKey;
use crate::support::mails::mail;
use crate::support::submission;
use crate::support::submission::plain;

/// `tanstaaftanstaaf`, by SHA-256: quick to verify.
const HASH: &str = "{SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=";
const PASSWORD: &str = "tanstaaftanstaaf";

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
    key.give_to(&site, "gate.example");
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

/// A site with users, who log in on a port of their own.
fn site_with_users(keys: &str) -> Site {
    let site = Site::new();
    let users = site.path("users");
    let text =
        format!("anna@gate.example {HASH} also=team@gate.example,@teams.example\nuser {HASH}\n");
    fs::write(&users, text).expect("written");
    let keys = format!("users = \"file:{}\"\n{keys}", users.display());
    site.with(&submission::section(&keys))
}

/// A client that has logged in.
fn login(gateway: &Gateway, name: &str) -> Client {
    let mut client = submission::client(gateway);
    client.expect(&plain(name, PASSWORD), "235");
    client
}

#[test]
fn nothing_is_taken_without_a_login() {
    let gateway = site_with_users("").start();
    let mut client = submission::client(&gateway);
    client.expect("MAIL FROM:<anna@gate.example>", "530 5.7.0");
    client.expect("RCPT TO:<user@gate.example>", "503 5.5.1");
    client.expect("DATA", "503 5.5.1");
}

#[test]
fn a_user_sends_to_anywhere_as_itself_and_as_nobody_else() {
    let grants =
        "[submission.senders]\ngrants = { \"anna@gate.example\" = [\"info@gate.example\"] }";
    let gateway = site_with_users(grants).start();
    let mut anna = login(&gateway, "ANNA@gate.example");
    for (from, want) in [
        ("anna@gate.example", "250"),
        ("Anna+lists@GATE.example", "250"),
        ("team@gate.example", "250"),
        ("whoever@teams.example", "250"),
        ("info@gate.example", "250"),
        ("", "250"),
        ("user@gate.example", "553 5.7.1"),
        ("anna@elsewhere.example", "553 5.7.1"),
        ("info@teams.elsewhere.example", "553 5.7.1"),
    ] {
        anna.expect(&format!("MAIL FROM:<{from}>"), "250");
        anna.expect("RCPT TO:<someone@elsewhere.example>", want);
        anna.expect("RSET", "250");
    }
    let mut user = login(&gateway, "user");
    user.expect("MAIL FROM:<user@gate.example>", "250");
    user.expect("RCPT TO:<someone@elsewhere.example>", "250");
    user.expect("RSET", "250");
    user.expect("MAIL FROM:<user@elsewhere.example>", "250");
    user.expect("RCPT TO:<someone@elsewhere.example>", "553 5.7.1");

    for (header, want) in [
        ("From: <anna@gate.example>, <team@gate.example>", "250"),
        (
            "From: <anna@gate.example>\r\nSender: <team@gate.example>",
            "250",
        ),
        (
            "From: <user@gate.example>",
            "553 5.7.1 <user@gate.example> in From",
        ),
        ("From: anna@gate.example, user@gate.example", "553 5.7.1"),
        (
            "From: anna@gate.example\r\nSender: user@gate.example",
            "553 5.7.1 <user@gate.example> in Sender",
        ),
        (
            "From: \"anna@gate.example\" <user@gate.example>",
            "553 5.7.1",
        ),
        ("To: <user@gate.example>", "550 5.6.0"),
    ] {
        let message = format!("{header}\r\n\r\nHello.\r\n");
        let reply = anna.deliver("anna@gate.example", "user@gate.example", &message);
        assert!(reply.starts_with(want), "{header}: {reply}");
    }
}

#[test]
fn who_really_sent_stands_in_sender_and_who_logged_in_where_it_is_asked_for() {
    let keys = "[submission.repair]\nshow_login = true";
    let gateway = site_with_users(keys).start();
    let mut anna = login(&gateway, "anna@gate.example");
    let from_two = "From: <anna@gate.example>, <team@gate.example>\r\n\r\nHello.\r\n";
    anna.hand_over("anna@gate.example", "user@gate.example", from_two);
    let got = gateway.site.mailbox("user").first();
    assert_eq!(field(&got, "Sender"), ["anna@gate.example"]);
    let received = field(&got, "Received").remove(0);
    assert!(
        received.contains("(Authenticated sender: anna@gate.example) by mx.gate.example (Gatepost) with ESMTPSA id "),
        "{received}"
    );
    let own = "From: <team@gate.example>\r\n\r\nHello.\r\n";
    anna.hand_over("team@gate.example", "second@gate.example", own);
    let got = gateway.site.mailbox("second").first();
    assert_eq!(field(&got, "Sender"), Vec::<String>::new());
    let accepted = gateway.process.wait_for("accepted");
    assert_eq!(accepted["login"], "anna@gate.example");
}

#[test]
fn what_would_be_refused_is_sent_and_logged_while_observed() {
    let gateway = site_with_users("[submission.senders]\nmode = \"observe\"").start();
    let mut user = login(&gateway, "user");
    let message = mail("boss@elsewhere.example", "observed");
    user.hand_over("boss@elsewhere.example", "user@gate.example", &message);
    let got = gateway.site.mailbox("user").first();
    assert_eq!(field(&got, "Sender"), ["user@gate.example"]);
    let stages = gateway.process.events("would refuse");
    let stages: Vec<_> = stages.iter().map(|event| event["stage"].as_str()).collect();
    assert_eq!(stages, [Some("rcpt"), Some("data")]);
}

#[test]
fn who_has_sent_enough_is_warned_of_and_then_put_off() {
    let keys = "[submission.limits]\nmessages_per_hour = 5\nrecipients_per_hour = 7";
    let gateway = site_with_users(keys).start();
    let message = mail("user@gate.example", "many");
    let mut user = login(&gateway, "user");
    for _ in 0..3 {
        user.hand_over("user@gate.example", "user@gate.example", &message);
    }
    assert_eq!(gateway.process.events("limit near").len(), 0);
    user.hand_over("user@gate.example", "user@gate.example", &message);
    let near = gateway.process.wait_for("limit near");
    assert_eq!(
        (&near["login"], &near["limit"]),
        (&"user".into(), &"messages per hour".into())
    );

    user.expect("MAIL FROM:<user@gate.example>", "250");
    for to in ["user", "second", "postmaster"] {
        user.expect(&format!("RCPT TO:<{to}@gate.example>"), "250");
    }
    user.expect(
        "RCPT TO:<someone@elsewhere.example>",
        "450 4.7.1 You have reached the limit of 7 recipients per hour; try again in ",
    );
    user.expect("RSET", "250");
    user.hand_over("user@gate.example", "user@gate.example", &message);
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    let mut user = login(&gateway, "user");
    user.expect("MAIL FROM:<user@gate.example>", "250");
    user.expect(
        "RCPT TO:<user@gate.example>",
        "450 4.7.1 You have reached the limit of 5 messages per hour",
    );
    let mut anna = login(&gateway, "anna@gate.example");
    anna.expect("MAIL FROM:<anna@gate.example>", "250");
    anna.expect("RCPT TO:<user@gate.example>", "250");
}
