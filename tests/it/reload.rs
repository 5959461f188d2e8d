//! SIGHUP: a new file is taken, sessions go on, and a wrong file changes nothing.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::client::Client;
use crate::support::gateway::Gateway;

#[test]
fn a_reload_is_in_force_for_new_sessions_and_drops_none() {
    let mut gateway = Gateway::start();
    let mut open = Client::hello(gateway.smtp());
    open.expect("MAIL FROM:<a@client.example>", "250");
    open.expect("RCPT TO:<new@gate.example>", "550 5.1.1");
    let known = gateway.site.path("new-recipients");
    fs::write(&known, "new@gate.example\nuser@gate.example\n").expect("written");
    gateway.site.recipients = known.display().to_string();
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    open.expect("RCPT TO:<user@gate.example>", "250");
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<new@gate.example>", "250");
}

#[test]
fn a_wrong_file_is_not_taken_and_the_old_one_stays() {
    let gateway = Gateway::start();
    let file = gateway.site.path("gatepost.toml");
    fs::write(&file, "hostname = 7\n").expect("written");
    gateway.process.signal(Signal::SIGHUP);
    let event = gateway
        .process
        .wait_for("configuration not reloaded, the old one stays in force");
    assert!(event["reason"].to_string().contains("hostname"), "{event}");
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
}

#[test]
fn a_recipient_file_that_is_gone_leaves_the_old_list() {
    let gateway = Gateway::start();
    fs::remove_file(gateway.site.path("recipients")).expect("it is there");
    gateway.reload();
    gateway
        .process
        .wait_for("configuration not reloaded, the old one stays in force");
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
}
