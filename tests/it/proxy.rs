//! The PROXY protocol: believed from configured networks, and from nobody else.

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::mailbox::field;
use crate::support::mails::mail;

/// PROXY v2 for TCP over IPv4, from 192.0.2.77 port 40000 to 192.0.2.25 port 25.
const VERSION_2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x4d\xc0\0\x02\x19\x9c\x40\0\x19";

/// The first Received field of a message from this client.
fn received(gateway: &Gateway, header: &[u8]) -> String {
    let mut client = Client::connect(gateway.site.proxied);
    client.send(header);
    assert!(client.reply().starts_with("220"));
    client.expect("EHLO elsewhere.example", "250");
    let message = mail("a@elsewhere.example", "proxied");
    client.hand_over("a@elsewhere.example", "user@gate.example", &message);
    field(&gateway.site.mailbox("user").first(), "Received").remove(0)
}

#[test]
fn version_1_gives_the_address_of_the_client() {
    let gateway = Gateway::start();
    let received = received(&gateway, b"PROXY TCP4 192.0.2.77 192.0.2.25 40000 25\r\n");
    assert!(received.contains("[192.0.2.77]"), "{received}");
}

#[test]
fn version_1_carries_ipv6() {
    let gateway = Gateway::start();
    let received = received(
        &gateway,
        b"PROXY TCP6 2001:db8::77 2001:db8::25 40000 25\r\n",
    );
    assert!(received.contains("[IPv6:2001:db8::77]"), "{received}");
}

#[test]
fn version_2_gives_the_address_of_the_client() {
    let gateway = Gateway::start();
    let received = received(&gateway, VERSION_2);
    assert!(received.contains("[192.0.2.77]"), "{received}");
}

#[test]
fn the_header_may_come_in_pieces() {
    let gateway = Gateway::start();
    let mut client = Client::connect(gateway.site.proxied);
    for byte in VERSION_2 {
        client.send(&[*byte]);
    }
    assert!(client.reply().starts_with("220"));
}

#[test]
fn a_header_from_elsewhere_is_a_client_that_talks_first() {
    let gateway = Gateway::start();
    for header in [
        &b"PROXY TCP4 192.0.2.77 192.0.2.25 40000 25\r\n"[..],
        VERSION_2,
    ] {
        let mut client = Client::connect(gateway.smtp());
        client.send(header);
        client.finish();
        let said = client.rest();
        assert!(!said.contains("\r\n250"), "{said:?}");
    }
    assert!(
        !gateway.process.log().contains("192.0.2.77"),
        "it was believed"
    );
}

#[test]
fn without_its_header_a_proxy_gets_no_session() {
    let gateway = Gateway::start();
    for words in [
        &b"EHLO client.example\r\n"[..],
        b"PROXY TCP4 nonsense\r\n",
        b"\r\n\r\n\0\r\nQUIT\nxxxx",
    ] {
        let mut client = Client::connect(gateway.site.proxied);
        let _ = client.try_send(words);
        client.finish();
        let said = client.rest();
        assert!(!said.contains("220 "), "{words:?} was answered {said:?}");
    }
}
