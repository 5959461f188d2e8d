//! Which way mail goes: by mail exchangers, by routes, and through to a next hop while its client waits.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use gatepost::delivery::Config;
use gatepost::delivery::Delivery;
use gatepost::delivery::Outcome;
use gatepost::delivery::Target;
use gatepost::delivery::next_hop::NextHop;
use gatepost::delivery::route::Route;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;

use crate::support::client::Client;
use crate::support::dns::Nameserver;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mailbox::field;
use crate::support::mails::mail;
use crate::support::sink::Sink;

const OURS: &str = "mx.ours.example";

/// What becomes of a message to `to`, by the mail exchangers of its domain.
pub async fn to_exchangers(delivery: &Delivery, port: u16, to: &str) -> Outcome {
    let to = Address::parse(to).unwrap();
    let route = Arc::new(Route::to(NextHop::Mx(port)));
    let target = Target::new(&route, to.host());
    let envelope = Envelope::new(
        ReversePath::parse("<sender@x.example>").unwrap(),
        vec![Recipient::new(to)],
    );
    let id = SpoolId {
        session: SessionId(1),
        serial: 1,
    };
    let content = Content::from(Bytes::from_static(b"A: b\r\n\r\n"));
    let mut outcomes = delivery
        .attempt(&target, id, &envelope, &[0], &content)
        .await;
    outcomes.remove(0)
}

/// Each connection is used once, for a sink has one client at a time.
fn once() -> Config {
    let mut config = Config::default();
    config.reuse.connections = 0;
    config
}

/// In few words.
fn shown(outcome: &Outcome) -> String {
    let (class, subject, detail) = outcome.reply.enhanced.unwrap_or_default();
    let by = outcome.peer.as_ref().map_or("nobody", |peer| &*peer.name);
    format!("{} {class}.{subject}.{detail} {by}", outcome.reply.code)
}

const ZONE: &str = "\
alive.example A 127.0.0.3
dead.example A 127.0.0.1
six.example AAAA ::1
six.example A 127.0.0.3
twin.example A 127.0.0.2
me.example A 127.0.0.4
best.example MX 20 twin.example
best.example MX 10 alive.example
second.example MX 10 dead.example
second.example MX 20 alive.example
families.example MX 10 six.example
alias.example CNAME best.example
named.example MX 10 also.example
also.example CNAME alive.example
xn--bcher-kva.example MX 10 alive.example
null.example MX 0 .
empty.example MX 10 none.example
text.example TXT nothing
broken.example SERVFAIL x
half.example MX 10 silent.example
half.example MX 20 alive.example
silent.example SERVFAIL x
lost.example MX 10 silent.example
loop.example MX 10 mx.ours.example
loop.example MX 20 alive.example
backup.example MX 10 alive.example
backup.example MX 20 mx.ours.example
hello.example MX 10 me.example
";

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_to_the_exchanger_that_rfc_5321_names() {
    let dns = Nameserver::with(ZONE);
    let port = free_port();
    let sink =
        |address: &str, name| Sink::at(SocketAddr::new(address.parse().unwrap(), port), name);
    let _sinks = [
        sink("127.0.0.2", "twin"),
        sink("127.0.0.3", "alive"),
        sink("127.0.0.4", OURS),
    ];
    let hostname = Domain::parse(OURS).unwrap();
    let delivery = Delivery::new(&once(), hostname, dns.dns()).unwrap();
    for (to, want) in [
        ("a@best.example", "250 2.0.0 alive.example"),
        ("a@second.example", "250 2.0.0 alive.example"),
        ("a@alive.example", "250 2.0.0 alive.example"),
        ("a@families.example", "250 2.0.0 six.example"),
        ("a@alias.example", "250 2.0.0 alive.example"),
        ("a@named.example", "250 2.0.0 also.example"),
        ("a@Bücher.example", "250 2.0.0 alive.example"),
        ("a@half.example", "250 2.0.0 alive.example"),
        ("a@backup.example", "250 2.0.0 alive.example"),
        ("a@[127.0.0.3]", "250 2.0.0 127.0.0.3"),
        ("a@[127.0.0.1]", "451 4.4.1 127.0.0.1"),
        ("a@null.example", "556 5.1.10 nobody"),
        ("a@nowhere.example", "550 5.1.2 nobody"),
        ("a@text.example", "550 5.4.4 nobody"),
        ("a@empty.example", "550 5.4.4 nobody"),
        ("a@broken.example", "451 4.4.3 nobody"),
        ("a@lost.example", "451 4.4.3 nobody"),
        ("a@loop.example", "554 5.4.6 nobody"),
        ("a@hello.example", "554 5.4.6 me.example"),
    ] {
        let outcome = to_exchangers(&delivery, port, to).await;
        assert_eq!(shown(&outcome), want, "{to}: {outcome:?}");
    }
    delivery.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanger_at_an_address_of_ours_is_us() {
    let dns = Nameserver::with(ZONE);
    let port = free_port();
    let hostname = Domain::parse(OURS).unwrap();
    let delivery = Delivery::new(&Config::default(), hostname, dns.dns()).unwrap();
    let delivery = delivery.listening_on(BTreeSet::from([port]));
    for to in ["a@best.example", "a@alive.example", "a@[127.0.0.9]"] {
        let outcome = to_exchangers(&delivery, port, to).await;
        assert_eq!(shown(&outcome), "554 5.4.6 nobody", "{to}: {outcome:?}");
    }
}

#[test]
fn a_route_gives_nobody_the_right_to_relay() {
    let gateway = Site::new()
        .with(
            "[routes.partner]\nto = \"smtp:127.0.0.1:1\"\nrecipient_domains = [\"partner.example\"]\n\
             sender_domains = [\"client.example\"]\nthrough = true\n",
        )
        .start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    for to in ["a@partner.example", "a@anywhere.example", "a@[127.0.0.1]"] {
        client.expect(&format!("RCPT TO:<{to}>"), "550 5.7.1");
    }
    client.expect("RCPT TO:<user@gate.example>", "250");
}

/// A gateway, and one in front of it that hands all its mail through.
fn pair() -> (Gateway, Gateway) {
    let behind = Gateway::start();
    let route = format!(
        "[routes.behind]\nto = \"smtp:{}\"\nthrough = true\n",
        behind.smtp()
    );
    let front = Site::new()
        .delivering_to("behind")
        .knowing("any")
        .with(&route);
    (behind, front.start())
}

#[test]
fn what_goes_through_gets_the_next_hops_own_answer_and_is_not_queued() {
    let (mut behind, front) = pair();
    let mut client = Client::hello(front.smtp());
    let message = mail("a@client.example", "through");
    let reply = client.deliver("a@client.example", "user@gate.example", &message);
    let accepted = behind.process.wait_for("accepted");
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(reply, format!("250 2.0.0 OK, stored as {id}"));
    behind.site.mailbox("user").first();
    let delivered = front.process.wait_for("delivered");
    assert_eq!(
        delivered["host"],
        format!("127.0.0.1[127.0.0.1]:{}", behind.smtp().port())
    );

    let reply = client.deliver("a@client.example", "nobody@gate.example", &message);
    assert!(
        reply.starts_with("550 5.1.1 <nobody@gate.example>"),
        "{reply}"
    );

    behind.process.kill9();
    let reply = client.deliver("a@client.example", "user@gate.example", &message);
    assert!(
        reply.starts_with("451 4.4.1 The server behind us"),
        "{reply}"
    );
    front.process.wait_for_nth("passed back", 2);
    assert!(front.process.events("deferred").is_empty());
}

#[test]
fn each_recipient_of_what_goes_through_has_its_own_transaction() {
    let (behind, front) = pair();
    let mut client = Client::hello(front.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    for _ in 0..30 {
        client.expect("RCPT TO:<second@gate.example>", "452 4.5.3");
    }
    client.expect("DATA", "354");
    client.send(mail("a@client.example", "one").as_bytes());
    client.expect(".", "250 2.0.0");
    behind.site.mailbox("user").first();
    let message = mail("a@client.example", "two");
    client.hand_over("a@client.example", "second@gate.example", &message);
    behind.site.mailbox("second").first();
}

#[test]
fn a_next_hop_is_told_a_name_of_the_route_and_verified_where_it_says_so() {
    let behind = Gateway::start();
    let port = behind.smtp().port();
    let site = Site::new().delivering_to("behind").with(&format!(
        "[routes.behind]\nto = \"smtp:{HOSTNAME}:{port}\"\ntls = \"verify\"\nhello = \"client.example\"\n"
    ));
    let config = site.write_config().display().to_string();
    let start = |trusted: &std::path::Path| {
        let mut command = gatepost(&["serve", "--config", &config]);
        command
            .env("SSL_CERT_FILE", trusted)
            .env_remove("SSL_CERT_DIR");
        let process = Running::run(command);
        process.wait_for("started");
        process
    };
    // Another one's certificate is trusted.
    let mut process = start(&site.certificate.chain);
    let mut client = Client::hello(site.smtp);
    let message = mail("a@client.example", "verified");
    client.hand_over("a@client.example", "user@gate.example", &message);
    let deferred = process.wait_for("deferred");
    assert!(
        deferred["reason"].to_string().contains("(4.7.5)"),
        "{deferred}"
    );
    assert!(process.stop().success());

    let process = start(&behind.site.certificate.chain);
    process.wait_for("delivered");
    let got = behind.site.mailbox("user").first();
    let received = field(&got, "Received");
    assert!(received[0].contains("from client.example"), "{received:?}");
    assert!(received[0].contains("with ESMTPS"), "{received:?}");
}
