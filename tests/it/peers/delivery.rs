//! One attempt at a time, without the gateway around it: to Dovecot, Postfix and Postfix's smtp-sink.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::net::TcpStream;
use std::process::Stdio;

use bytes::Bytes;
use gatepost::delivery::Answer;
use gatepost::delivery::Config;
use gatepost::delivery::Delivery;
use gatepost::delivery::Fate;
use gatepost::delivery::Outcome;
use gatepost::delivery::Target;
use gatepost::dns;
use gatepost::dns::Dns;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Body;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;

use crate::support::SOON;
use crate::support::dovecot;
use crate::support::dovecot::Dovecot;
use crate::support::free_port;
use crate::support::postfix;
use crate::support::postfix::Onward;
use crate::support::postfix::Postfix;
use crate::support::process;
use crate::support::process::Process;
use crate::support::wait_until;

pub const ID: SpoolId = SpoolId {
    session: SessionId(1),
    serial: 1,
};

const MESSAGE: &[u8] = b"Return-Path: <forged@x.example>\r\nReceived: from here\r\n\
Subject: dots\r\n\r\n.first line\r\n..two\r\n.\r\nlast: \xc3\xb6\r\n";

fn delivery() -> Delivery {
    let hostname = Domain::parse("mx.example").unwrap();
    let dns = Dns::new(&dns::Config::default()).unwrap();
    Delivery::new(&Config::default(), hostname, dns).unwrap()
}

pub fn envelope(to: &[&str]) -> Envelope {
    Envelope {
        body: Body::EightBitMime,
        ..Envelope::new(
            ReversePath::parse("<sender@x.example>").unwrap(),
            to.iter().map(|text| recipient(text)).collect(),
        )
    }
}

pub fn content() -> Content {
    // In two chunks, as the pipeline makes it.
    let prefix = Bytes::from_static(b"X-First: ours\r\n");
    Content::assemble(prefix, &Bytes::from_static(MESSAGE), &[])
}

async fn attempt(delivery: &Delivery, target: &Target, to: &[&str]) -> Vec<Outcome> {
    let envelope = envelope(to);
    let which: Vec<usize> = (0..to.len()).collect();
    delivery
        .attempt(target, ID, &envelope, &which, &content())
        .await
}

/// The text as a recipient of a delivery.
fn recipient(text: &str) -> Recipient {
    Recipient::new(Address::parse(text).unwrap())
}

fn target(text: &str) -> Target {
    Target::parse(text).unwrap()
}

/// By its name, so that a target's host is looked up, too.
fn by_name(dovecot: &Dovecot) -> Target {
    target(&dovecot.tcp().replace("127.0.0.1", "localhost"))
}

/// A Postfix smtp-sink on a free port.
pub fn sink(arguments: &[&str]) -> Option<(Process, u16)> {
    if !process::present(&["smtp-sink"]) {
        return None;
    }
    let port = free_port();
    Some(sink_at(port, arguments))
}

/// The same on this port.
pub fn sink_at(port: u16, arguments: &[&str]) -> (Process, u16) {
    // As root it insists on becoming someone else.
    let user: &[&str] = match nix::unistd::geteuid().is_root() {
        true => &["-u", "nobody"],
        false => &[],
    };
    let child = process::command("smtp-sink")
        .args(user)
        .args(arguments)
        .arg(format!("127.0.0.1:{port}"))
        .arg("100")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(SOON, "smtp-sink", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    (Process(child), port)
}

fn is_delivered(outcome: &Outcome) -> bool {
    matches!(outcome.fate, Fate::Delivered(_))
}

#[tokio::test]
async fn dovecot_gets_the_message_byte_for_byte_by_unix_socket_and_tcp() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let delivery = delivery();
    for (target, user) in [
        (target(&dovecot.unix()), "user"),
        (by_name(&dovecot), "second"),
    ] {
        let to = format!("{user}@gate.example");
        let outcomes = attempt(&delivery, &target, &[&to]).await;
        assert!(is_delivered(&outcomes[0]), "{target}: {outcomes:?}");
        let messages = dovecot.mailbox(user).messages();
        assert_eq!(messages.len(), 1);
        let text = &messages[0];
        let (trace, ours) = text.split_once("X-First: ours\n").expect("our first line");
        let sent = String::from_utf8(MESSAGE.to_vec()).unwrap();
        let sent = sent.replace("\r\n", "\n");
        let want = sent
            .strip_prefix("Return-Path: <forged@x.example>\n")
            .unwrap();
        assert_eq!(ours, want);
        let return_paths = text.matches("Return-Path:").count();
        assert_eq!(return_paths, 1, "{text}");
        assert!(
            trace.contains("Return-Path: <sender@x.example>\n"),
            "{trace}"
        );
    }
}

#[tokio::test]
async fn each_recipient_of_dovecot_has_its_own_outcome() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let delivery = delivery();
    let to = [
        "user@gate.example",
        "nobody@gate.example",
        "full@gate.example",
        "second@gate.example",
    ];
    for target in [target(&dovecot.unix()), by_name(&dovecot)] {
        let outcomes = attempt(&delivery, &target, &to).await;
        assert!(is_delivered(&outcomes[0]), "{outcomes:?}");
        assert!(
            outcomes[1].fate == Fate::Failed && outcomes[1].reply.enhanced == Some((5, 1, 1)),
            "{outcomes:?}"
        );
        assert!(!is_delivered(&outcomes[2]), "{outcomes:?}");
        let full = outcomes[2].reply.enhanced;
        assert_eq!(
            full.map(|code| (code.1, code.2)),
            Some((2, 2)),
            "{outcomes:?}"
        );
        assert!(is_delivered(&outcomes[3]), "{outcomes:?}");
    }
    // All refused, then again over the same connection.
    let outcomes = attempt(
        &delivery,
        &target(&dovecot.unix()),
        &["nobody@gate.example"],
    )
    .await;
    assert_eq!(outcomes[0].fate, Fate::Failed, "{outcomes:?}");
    let outcomes = attempt(&delivery, &target(&dovecot.unix()), &["user@gate.example"]).await;
    assert!(is_delivered(&outcomes[0]), "{outcomes:?}");
}

#[tokio::test]
async fn dovecot_is_asked_who_exists() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let delivery = delivery();
    let target = by_name(&dovecot);
    for _ in 0..2 {
        let user = delivery
            .probe(&target, &recipient("user@gate.example"))
            .await;
        assert_eq!(user, Answer::Exists);
        let nobody = delivery
            .probe(&target, &recipient("nobody@gate.example"))
            .await;
        assert!(matches!(nobody, Answer::Unknown(_)), "{nobody:?}");
    }
    assert_eq!(dovecot.mailbox("user").messages().len(), 0);
}

#[tokio::test]
async fn dovecot_killed_and_back_gets_each_message_once() {
    if !dovecot::present() {
        return;
    }
    let mut dovecot = Dovecot::start();
    let delivery = delivery();
    let target = by_name(&dovecot);
    let to = ["user@gate.example"];
    assert!(is_delivered(&attempt(&delivery, &target, &to).await[0]));
    dovecot.stop();
    let outcomes = attempt(&delivery, &target, &to).await;
    assert!(
        matches!(outcomes[0].fate, Fate::Deferred(_)),
        "{outcomes:?}"
    );
    dovecot.restart();
    let outcomes = attempt(&delivery, &target, &to).await;
    assert!(is_delivered(&outcomes[0]), "{outcomes:?}");
    assert_eq!(dovecot.mailbox("user").messages().len(), 2);
}

#[tokio::test]
async fn smtp_sink_takes_many_messages_over_one_connection() {
    for (arguments, scheme) in [
        (&["-8"] as &[&str], "smtp"),
        (&[], "smtp"),
        (&["-p"], "smtp"),
        (&["-L"], "lmtp"),
        (&["-L", "-p"], "lmtp"),
    ] {
        let Some((_running, port)) = sink(arguments) else {
            return;
        };
        let target = target(&format!("{scheme}:127.0.0.1:{port}"));
        let delivery = delivery();
        for _ in 0..50 {
            let to = ["a@y.example", "b@y.example"];
            let outcomes = attempt(&delivery, &target, &to).await;
            let no_eight_bit = arguments.contains(&"-8");
            for outcome in &outcomes {
                match outcome.fate {
                    Fate::Failed if no_eight_bit => {
                        assert_eq!(outcome.reply.enhanced, Some((5, 6, 3)));
                    }
                    _ => assert!(is_delivered(outcome), "{arguments:?}: {outcome:?}"),
                }
            }
            assert_eq!(outcomes.len(), 2);
        }
        delivery.close().await;
    }
}

#[tokio::test]
async fn refusals_of_smtp_sink_defer_or_fail() {
    for (arguments, permanent) in [(["-r", "rcpt"], false), (["-f", "rcpt"], true)] {
        let Some((_running, port)) = sink(&arguments) else {
            return;
        };
        let target = target(&format!("smtp:127.0.0.1:{port}"));
        let delivery = delivery();
        for _ in 0..3 {
            let outcomes = attempt(&delivery, &target, &["a@y.example"]).await;
            let failed = outcomes[0].fate == Fate::Failed;
            assert!(!is_delivered(&outcomes[0]));
            assert_eq!(failed, permanent, "{arguments:?}: {outcomes:?}");
        }
    }
}

#[tokio::test]
async fn postfix_takes_all_over_one_tls_connection() {
    if !postfix::present() {
        return;
    }
    let postfix = Postfix::start(Onward::Mailboxes);
    let delivery = delivery();
    let target = target(&postfix.target());
    let (user, no) = ("user@gate.example", "no@gate.example");
    for to in [&[user] as &[&str], &[no], &[no, user], &[no, no], &[user]] {
        let outcomes = attempt(&delivery, &target, to).await;
        for (recipient, outcome) in to.iter().zip(&outcomes) {
            assert_eq!(
                is_delivered(outcome),
                *recipient == user,
                "{to:?}: {outcomes:?}"
            );
            let failed = outcome.fate == Fate::Failed;
            assert_eq!(failed, *recipient == no, "{to:?}: {outcomes:?}");
        }
    }
    let exists = delivery.probe(&target, &recipient(user)).await;
    assert_eq!(exists, Answer::Exists);
    let unknown = delivery.probe(&target, &recipient(no)).await;
    assert!(matches!(unknown, Answer::Unknown(_)), "{unknown:?}");
    delivery.close().await;
    wait_until(SOON, "the log", || {
        postfix.log().contains("quit=1").then_some(())
    });
    let log = postfix.log();
    assert!(log.contains("ehlo=2 starttls=1 mail=7 rcpt=4/9"), "{log}");
}
