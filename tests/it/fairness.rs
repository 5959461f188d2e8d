//! One client takes nothing from the others: not by being refused a lot, not by holding memory.
//!
//! Clients come from documentation addresses, by a PROXY header; loopback itself is exempt.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::SOON;
use crate::support::client::CLIENT;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mails::mail;

const FLOOD: &str = "192.0.2.1";
const HONEST: &str = "192.0.2.2";
const SENDER: &str = "a@client.example";

/// A site whose clients are checked for nothing but their recipients.
fn site(section: &str) -> Site {
    let mut site = Site::new().with(section);
    site.exempt = "192.0.2.0/24";
    site
}

fn client(gateway: &Gateway, source: &str) -> Client {
    Client::hello_from(gateway.site.proxied, source, CLIENT)
}

/// A client with a recipient granted and one refused.
fn refused(gateway: &Gateway, source: &str) -> (Client, String) {
    let mut client = client(gateway, source);
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    let reply = client.expect("RCPT TO:<nobody@gate.example>", "550 5.1.1");
    (client, reply)
}

#[test]
fn who_is_refused_too_often_waits_for_the_same_reply() {
    let refusals = "[session.refusals]\nper_minute = 2\ndelay = \"1s\"";
    let gateway = site(refusals).start();
    // All its sessions count, and commands as well as recipients.
    let (_first, soon) = refused(&gateway, FLOOD);
    client(&gateway, FLOOD).expect("NONSENSE", "500");
    let start = Instant::now();
    let (mut flood, late) = refused(&gateway, FLOOD);
    assert!(start.elapsed().as_millis() >= 1000, "it waited too little");
    assert_eq!(late, soon);
    // Replies before the refusal do not wait with it, and mail goes on.
    flood.send(b"RCPT TO:<nobody@gate.example>\r\nRSET\r\n");
    assert_eq!(flood.reply(), soon);
    assert!(flood.reply().starts_with("250"));
    let message = mail(SENDER, "all the same");
    flood.hand_over(SENDER, "user@gate.example", &message);
    let event = gateway.process.wait_for("slowed down");
    assert_eq!(event["peer"], FLOOD);
    assert_eq!(event["replies"], 1);
}

#[test]
fn nobody_else_waits_and_the_stop_does_not() {
    let refusals = "[session.refusals]\nper_minute = 1\ndelay = \"1min\"";
    let mut gateway = site(refusals).start();
    let mut flood = client(&gateway, FLOOD);
    flood.expect("RCPT TO:<user@gate.example>", "503");
    flood.send(b"NOOP\r\nNONSENSE\r\n");
    assert!(flood.reply().starts_with("250"), "what was said before");
    gateway.process.wait_for("slowed down");
    let (mut honest, _) = refused(&gateway, HONEST);
    honest.expect("RSET", "250");
    let message = mail(SENDER, "beside a flood");
    honest.hand_over(SENDER, "user@gate.example", &message);
    let start = Instant::now();
    gateway.process.signal(Signal::SIGTERM);
    assert!(flood.reply().starts_with("500 5.5.2"));
    assert!(flood.rest().starts_with("421 4.3.2"));
    assert!(gateway.process.ended().success());
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_no_for_now_never_waits() {
    let section = "[session]\nrecipients = 100\n\
                   [session.refusals]\nper_minute = 0\ndelay = \"1min\"";
    let gateway = site(section).knowing("any").start();
    let mut client = client(&gateway, FLOOD);
    client.expect("MAIL FROM:<a@client.example>", "250");
    let line = |number| format!("RCPT TO:<user{number}@gate.example>\r\n");
    client.send((0..103).map(line).collect::<String>().as_bytes());
    let replies: Vec<_> = (0..103).map(|_| client.reply()).collect();
    assert!(replies[99].starts_with("250"), "{}", replies[99]);
    assert!(replies[102].starts_with("452"), "{}", replies[102]);
}

#[test]
fn loopback_is_exempt() {
    let refusals = "[session.refusals]\nper_minute = 0\ndelay = \"1min\"";
    let gateway = site(refusals).start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("NONSENSE", "500");
    client.expect("NONSENSE", "500");
}

/// Begins a message of 40 KiB and leaves its end open.
fn begun(gateway: &Gateway, source: &str) -> Client {
    let mut client = client(gateway, source);
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    let line = format!("{}\r\n", "x".repeat(62));
    let message = mail(SENDER, "large") + &line.repeat(640);
    // The reply to the chunk tells that all of it is held.
    client.send(format!("BDAT {}\r\n{message}", message.len()).as_bytes());
    client
}

#[test]
fn one_client_holds_its_part_of_the_memory_at_most_through_a_reload_too() {
    let section = "[session]\nsize = \"64KiB\"\nmemory_per_client = \"64KiB\"";
    let gateway = site(section).start();
    let mut first = begun(&gateway, FLOOD);
    assert!(first.reply().starts_with("250"));
    for round in 1..=2 {
        let mut second = begun(&gateway, FLOOD);
        second.reply();
        second.expect("BDAT 0 LAST", "452 4.3.1");
        let mut other = begun(&gateway, HONEST);
        assert!(other.reply().starts_with("250"));
        other.expect("BDAT 0 LAST", "250 2.0.0");
        gateway.reload();
        gateway
            .process
            .wait_for_nth("configuration reloaded", round);
    }
    first.expect("BDAT 0 LAST", "250 2.0.0");
    let mut again = begun(&gateway, FLOOD);
    assert!(again.reply().starts_with("250"));
    again.expect("BDAT 0 LAST", "250 2.0.0");
}
