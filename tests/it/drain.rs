//! SIGTERM: no new sessions, those that run finish, then it ends with status 0.

use nix::sys::signal::Signal;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mails::mail;
use crate::support::wait_until;

#[test]
fn a_message_under_way_is_finished_before_the_end() {
    let mut gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    client.expect("DATA", "354");
    let message = mail("a@client.example", "last one in");
    let (first, rest) = message.split_at(40);
    client.send(first.as_bytes());
    gateway.process.signal(Signal::SIGTERM);
    gateway.process.wait_for("draining");
    assert!(gateway.process.runs());
    client.send(rest.as_bytes());
    client.expect(".", "250");
    assert!(client.rest().starts_with("421 4.3.2"));
    assert!(gateway.process.ended().success());
    gateway.process.wait_for("stopped");
    // Delivered before the end, or after the next start.
    gateway.restart();
    assert_eq!(gateway.site.mailbox("user").wait_for(1).len(), 1);
}

#[test]
fn an_idle_session_is_told_and_closed() {
    let mut gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    gateway.process.signal(Signal::SIGTERM);
    assert!(client.rest().starts_with("421 4.3.2"));
    assert!(gateway.process.ended().success());
}

#[test]
fn nobody_is_let_in_any_more() {
    let mut gateway = Gateway::start();
    let mut open = Client::hello(gateway.smtp());
    open.expect("MAIL FROM:<a@client.example>", "250");
    open.expect("RCPT TO:<user@gate.example>", "250");
    open.expect("DATA", "354");
    gateway.process.signal(Signal::SIGTERM);
    gateway.process.wait_for("draining");
    wait_until(SOON, "a closed door", || {
        let Ok(mut client) = Client::try_connect(gateway.smtp()) else {
            return Some(());
        };
        let reply = client.try_reply().unwrap_or_default();
        (!reply.starts_with("220")).then_some(())
    });
    drop(open);
    assert!(gateway.process.ended().success());
}

#[test]
fn a_client_that_never_finishes_does_not_hold_the_end_forever() {
    let site = Site::new().with("[limits]\ndrain_timeout = \"2s\"");
    let mut gateway = site.start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    client.expect("DATA", "354");
    assert!(gateway.process.stop().success());
    assert_eq!(gateway.process.wait_for("sessions cut off")["sessions"], 1);
    assert!(gateway.process.events("accepted").is_empty());
}
