//! Who is let in: limits on connections, listeners that come and go, the end of patience.
//!
//! Clients come from documentation addresses, by a PROXY header; loopback itself is exempt.

use std::time::Instant;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mails::mail;
use crate::support::wait_until;

/// A connection as if from `source`, and the first words that it hears.
fn knock(gateway: &Gateway, source: &str) -> (Client, String) {
    let mut client = Client::connect_from(gateway.site.proxied, source);
    let said = client.reply();
    (client, said)
}

#[track_caller]
fn let_in(gateway: &Gateway, source: &str) -> Client {
    let (client, said) = knock(gateway, source);
    assert!(said.starts_with("220 "), "{source} heard {said:?}");
    client
}

#[track_caller]
fn turned_away(gateway: &Gateway, source: &str) {
    let (mut client, said) = knock(gateway, source);
    assert!(said.starts_with("421 4.7.0 "), "{source} heard {said:?}");
    assert_eq!(client.rest(), "", "{source}");
}

#[test]
fn one_address_has_so_many_connections_and_others_their_own() {
    let gateway = Site::new().with("[limits]\nper_address = 3").start();
    let held: Vec<_> = (0..3).map(|_| let_in(&gateway, "192.0.2.1")).collect();
    turned_away(&gateway, "192.0.2.1");
    let event = gateway.process.wait_for("turned away");
    assert_eq!(event["peer"], "192.0.2.1");
    assert_eq!(event["reason"], "too many from address");
    let_in(&gateway, "192.0.2.2");
    drop(held);
    wait_until(SOON, "a place", || {
        let (_, said) = knock(&gateway, "192.0.2.1");
        said.starts_with("220").then_some(())
    });
}

#[test]
fn a_network_is_a_24_of_ipv4_and_a_64_of_ipv6() {
    let gateway = Site::new().with("[limits]\nper_network = 3").start();
    for (network, one_more, elsewhere) in [
        (
            ["192.0.2.1", "192.0.2.77", "192.0.2.254"],
            "192.0.2.2",
            "192.0.3.1",
        ),
        (
            ["2001:db8::1", "2001:db8::2:1", "2001:db8:0:0:ffff::"],
            "2001:db8::9",
            "2001:db8:0:1::1",
        ),
    ] {
        let _held = network.map(|source| let_in(&gateway, source));
        turned_away(&gateway, one_more);
        let_in(&gateway, elsewhere);
    }
    let event = gateway.process.wait_for("turned away");
    assert_eq!(event["reason"], "too many from network");
}

#[test]
fn there_are_so_many_connections_in_all_even_for_those_who_are_exempt() {
    let gateway = Site::new().with("[limits]\nconnections = 3").start();
    let held: Vec<_> = (0..3).map(|_| Client::hello(gateway.smtp())).collect();
    let said = Client::connect(gateway.smtp()).rest();
    assert!(said.starts_with("421 4.7.0 "), "{said:?}");
    let event = gateway.process.wait_for("turned away");
    assert_eq!(event["reason"], "too many connections");
    drop(held);
    wait_until(SOON, "a place", || {
        let reply = Client::connect(gateway.smtp()).reply();
        reply.starts_with("220").then_some(())
    });
}

#[test]
fn who_connects_too_often_has_to_wait_and_others_have_not() {
    let site = Site::new().with("[limits]\nconnections_per_minute = 5");
    let gateway = site.start();
    for _ in 0..5 {
        let_in(&gateway, "192.0.2.1");
    }
    turned_away(&gateway, "192.0.2.1");
    let event = gateway.process.wait_for("turned away");
    assert_eq!(event["reason"], "too fast");
    let_in(&gateway, "192.0.2.2");
}

#[test]
fn a_proxy_that_sends_no_header_is_not_waited_for() {
    let site = Site::new().with("[limits]\nproxy_header_timeout = \"1s\"");
    let gateway = site.start();
    let start = Instant::now();
    assert_eq!(Client::connect(gateway.site.proxied).rest(), "");
    assert!(start.elapsed() < SOON);
    gateway.process.wait_for("proxy refused");
}

fn listener(port: u16) -> String {
    format!("[[listen]]\nservice = \"mx\"\naddress = \"127.0.0.1:{port}\"\n")
}

#[test]
fn a_reload_opens_and_closes_listeners_and_sessions_go_on() {
    let (old, new) = (free_port(), free_port());
    let mut gateway = Site::new().with(&listener(old)).start();
    let mut open = Client::hello(([127, 0, 0, 1], old).into());
    open.expect("MAIL FROM:<a@client.example>", "250");
    gateway.site.extra = listener(new);
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    Client::hello(([127, 0, 0, 1], new).into()).expect("NOOP", "250");
    wait_until(SOON, "a closed door", || {
        let tried = Client::try_connect(([127, 0, 0, 1], old).into());
        tried.is_err().then_some(())
    });
    // Its listener is gone, and it is not.
    open.expect("RSET", "250");
    let message = mail("a@client.example", "went on");
    open.hand_over("a@client.example", "user@gate.example", &message);
    // Those that are in both files never close.
    Client::hello(gateway.smtp()).expect("NOOP", "250");
}

#[test]
fn a_reload_onto_a_port_in_use_changes_nothing() {
    let mut gateway = Gateway::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it is bound");
    gateway.site.extra = listener(address.port());
    gateway.reload();
    let event = gateway
        .process
        .wait_for("configuration not reloaded, the old one stays in force");
    let reason = event["reason"].to_string();
    assert!(reason.contains(&address.to_string()), "{event}");
    Client::hello(gateway.smtp()).expect("NOOP", "250");
}

#[test]
fn new_limits_count_for_those_who_come_after_the_reload() {
    let mut gateway = Gateway::start();
    let mut inside = let_in(&gateway, "192.0.2.1");
    gateway.site.extra = "[limits]\nper_address = 1".to_owned();
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    turned_away(&gateway, "192.0.2.1");
    inside.expect("NOOP", "250");
}
