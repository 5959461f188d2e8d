//! kill -9 under load: whatever was answered 250 is there after the next start.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::dovecot;
use crate::support::dovecot::Dovecot;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mailbox::Mailbox;
use crate::support::mailbox::field;
use crate::support::mails::mail;
use crate::support::wait_until;

/// How often the gateway is killed in one test.
const KILLS: usize = 4;
/// How many clients send at once.
const CLIENTS: usize = 8;

/// Sends until the server is gone; gives the subjects that were answered 250.
fn send(address: SocketAddr, name: &str, acknowledged: &Mutex<Vec<String>>) {
    let Ok(mut client) = Client::try_connect(address) else {
        return;
    };
    let hello = client
        .try_reply()
        .and_then(|_| client.try_send(b"EHLO client.example\r\n"))
        .and_then(|()| client.try_reply());
    if hello.is_err() {
        return;
    }
    for number in 0.. {
        let subject = format!("{name}-{number}");
        let message = mail("a@client.example", &subject);
        match client.try_deliver("a@client.example", "user@gate.example", &message) {
            Ok(reply) if reply.starts_with("250") => {
                let mut acknowledged = acknowledged.lock().expect("no client panics with it");
                acknowledged.push(subject);
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Kills the gateway again and again under load, and gives what it had acknowledged.
fn load_and_kill(gateway: &mut Gateway) -> Vec<String> {
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    for round in 0..KILLS {
        let before = acknowledged.lock().expect("no client panics with it").len();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (address, acknowledged) = (gateway.smtp(), Arc::clone(&acknowledged));
                let name = format!("{round}-{client}");
                thread::spawn(move || send(address, &name, &acknowledged))
            })
            .collect();
        wait_until(SOON, "some messages", || {
            let count = acknowledged.lock().expect("no client panics with it").len();
            (count >= before + 20 * (round + 1)).then_some(())
        });
        gateway.process.kill9();
        for client in clients {
            client.join().expect("a client ends");
        }
        gateway.restart();
    }
    let acknowledged = acknowledged.lock().expect("no client panics with it");
    acknowledged.clone()
}

/// Waits until all of `subjects` are in the mailbox.
fn assert_all_there(mailbox: &Mailbox, subjects: &[String]) {
    let missing = || {
        let there: BTreeSet<String> = mailbox
            .messages()
            .iter()
            .flat_map(|message| field(message, "Subject"))
            .collect();
        let missing = subjects.iter().filter(|subject| !there.contains(*subject));
        missing.cloned().collect::<Vec<_>>()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !missing().is_empty() {
        assert!(
            Instant::now() < deadline,
            "of {} acknowledged messages these are missing: {:?}",
            subjects.len(),
            missing()
        );
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn nothing_acknowledged_is_missing_from_the_maildir() {
    let mut gateway = Gateway::start();
    let acknowledged = load_and_kill(&mut gateway);
    assert_all_there(&gateway.site.mailbox("user"), &acknowledged);
}

#[test]
fn nothing_acknowledged_is_missing_from_dovecot() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let mut gateway = Site::new()
        .delivering_to(dovecot.unix())
        .knowing("callout")
        .start();
    let acknowledged = load_and_kill(&mut gateway);
    assert_all_there(&dovecot.mailbox("user"), &acknowledged);
}
