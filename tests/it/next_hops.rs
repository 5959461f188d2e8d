//! A next hop that misbehaves once, at any step: what becomes of each recipient, that nothing is lost, and
//! that nothing is sent twice but where the next hop hung up on a message that it had taken.
//!
//! `peers/next_hops.rs` has the same from smtp-sink.

use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::mails::mail;
use crate::support::next_hop::Conduct;
use crate::support::next_hop::Conduct::HangsUp;
use crate::support::next_hop::Conduct::KeepsAndHangsUp;
use crate::support::next_hop::Conduct::Says;
use crate::support::next_hop::NextHop;
use crate::support::next_hop::Step;
use crate::support::wait_until;

/// To whom each message goes, in one transaction as long as nothing is wrong.
const LOCALS: [&str; 2] = ["one", "two"];

/// How long until what was put off has been tried again.
const TRIED_AGAIN: Duration = Duration::from_secs(40);

/// One wrong answer to a line that contains this; what the log says of each recipient then, by the words
/// that it begins with; and how often each has the message in the end.
struct Case(Step, &'static str, Conduct, [&'static str; 2], [usize; 2]);

const BOTH: [usize; 2] = [1, 1];
const NEITHER: [usize; 2] = [0, 0];
const DELIVERED: &str = "delivered";
const CLOSED: &str = "deferred: the server closed the connection instead of replying to ";

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case(Step::Connect, "", HangsUp, [CLOSED; 2], BOTH),
    Case(Step::Connect, "", Says("421 4.3.2 busy"), ["deferred: 421 4.3.2 busy"; 2], BOTH),
    // One that is shut for today; RFC 5321 §3.1 does not say that it takes no mail ever.
    Case(Step::Connect, "", Says("554 5.3.2 no mail"), ["deferred: 554 5.3.2 no mail"; 2], BOTH),
    Case(Step::Hello, "", HangsUp, [CLOSED; 2], BOTH),
    Case(Step::Hello, "", Says("421 4.3.2 busy"), ["deferred: 421 4.3.2 busy"; 2], BOTH),
    Case(Step::Hello, "", Says("450 4.7.1 who?"), ["deferred: 450 4.7.1 who?"; 2], BOTH),
    Case(Step::Hello, "EHLO", Says("502 5.5.1 what?"), [DELIVERED; 2], BOTH),
    Case(Step::StartTls, "", Says("454 4.7.0 not now"), [DELIVERED; 2], BOTH),
    Case(Step::StartTls, "", Says("502 5.5.1 what?"), [DELIVERED; 2], BOTH),
    Case(Step::StartTls, "", Says("220 2.0.0 go on, said what knows no TLS"), [DELIVERED; 2], BOTH),
    Case(Step::StartTls, "", HangsUp, [DELIVERED; 2], BOTH),
    Case(Step::Mail, "", HangsUp, [CLOSED; 2], BOTH),
    Case(Step::Mail, "", Says("421 4.3.2 busy"), ["deferred: 421 4.3.2 busy"; 2], BOTH),
    Case(Step::Mail, "", Says("451 4.3.0 later"), ["deferred: 451 4.3.0 later"; 2], BOTH),
    Case(Step::Mail, "", Says("550 5.7.1 not you"), ["failed: 550 5.7.1 not you"; 2], NEITHER),
    Case(Step::Rcpt, "one", HangsUp, [CLOSED; 2], BOTH),
    Case(Step::Rcpt, "two", HangsUp, [CLOSED; 2], BOTH),
    Case(Step::Rcpt, "one", Says("450 4.7.1 greylisted"), ["deferred: 450 4.7.1 greylisted", DELIVERED], BOTH),
    Case(Step::Rcpt, "two", Says("450 4.7.1 greylisted"), [DELIVERED, "deferred: 450 4.7.1 greylisted"], BOTH),
    Case(Step::Rcpt, "two", Says("452 4.5.3 too many"), [DELIVERED; 2], BOTH),
    Case(Step::Rcpt, "one", Says("550 5.1.1 unknown"), ["failed: 550 5.1.1 unknown", DELIVERED], [0, 1]),
    Case(Step::Rcpt, "two", Says("550 5.1.1 unknown"), [DELIVERED, "failed: 550 5.1.1 unknown"], [1, 0]),
    Case(Step::Data, "", HangsUp, [CLOSED; 2], BOTH),
    Case(Step::Data, "", Says("451 4.3.0 later"), ["deferred: 451 4.3.0 later"; 2], BOTH),
    Case(Step::Data, "", Says("554 5.5.1 no"), ["failed: 554 5.5.1 no"; 2], NEITHER),
    Case(Step::Message, "", HangsUp, ["deferred: "; 2], BOTH),
    Case(Step::Dot, "", HangsUp, [CLOSED; 2], BOTH),
    Case(Step::Dot, "", Says("452 4.3.1 full"), ["deferred: 452 4.3.1 full"; 2], BOTH),
    Case(Step::Dot, "", Says("554 5.6.0 spam"), ["failed: 554 5.6.0 spam"; 2], NEITHER),
    // RFC 5321 §4.5.4.1: who does not know whether it was taken sends again.
    Case(Step::Dot, "", KeepsAndHangsUp, [CLOSED; 2], [2, 2]),
    Case(Step::Quit, "", HangsUp, [DELIVERED; 2], BOTH),
    Case(Step::Quit, "", Says("421 4.3.2 busy"), [DELIVERED; 2], BOTH),
    Case(Step::Quit, "", Says("500 5.5.1 what?"), [DELIVERED; 2], BOTH),
];

/// Misbehaves once.
fn next_hop(Case(step, line, conduct, ..): &'static Case) -> NextHop {
    let is_over = AtomicBool::new(false);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let offers: &[&str] = match step {
        Step::StartTls => &["STARTTLS"],
        _ => &[],
    };
    NextHop::serve(listener, offers, move |at, said| {
        let is_now = at == *step && said.contains(line);
        match is_now && !is_over.swap(true, Ordering::Relaxed) {
            true => conduct.clone(),
            false => Conduct::Usual,
        }
    })
}

/// What the log says of a recipient: one entry an attempt.
pub fn history(process: &Running, recipient: &str) -> Vec<String> {
    let log = process.log();
    let events = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
    let entry = |event: Value| match event["message"].as_str()? {
        _ if event["rcpt"] != recipient => None,
        "delivered" => Some(DELIVERED.to_owned()),
        name @ ("deferred" | "failed") => Some(format!("{name}: {}", event["reason"].as_str()?)),
        _ => None,
    };
    events.filter_map(entry).collect()
}

#[test]
fn whatever_a_next_hop_does_at_a_step_nothing_is_lost_and_nothing_sent_twice_without_need() {
    let home = NextHop::start(&[], |_| None);
    let hops: Vec<_> = CASES.iter().map(next_hop).collect();
    let mut site = Site::new().with(&format!(
        "[delivery.reuse]\nconnections = 0\n\
         [domains.\"client.example\"]\ndeliver = \"{}\"\nrecipients = \"any\"\n",
        home.target("lmtp")
    ));
    site.queue = "pause_first = \"1s\"\njitter = 0.0".to_owned();
    for (number, hop) in hops.iter().enumerate() {
        site = site.with(&format!(
            "[domains.\"d{number}.example\"]\ndeliver = \"{}\"\nrecipients = \"any\"\n",
            hop.target("smtp")
        ));
    }
    let gateway = site.start();
    let mut client = Client::hello(gateway.smtp());
    let addresses = |number| LOCALS.map(|local| format!("{local}@d{number}.example"));
    for number in 0..CASES.len() {
        let to = addresses(number);
        let message = mail("a@client.example", &format!("case {number}"));
        let reply =
            client.try_deliver_to_all("a@client.example", &to.each_ref().map(|to| &**to), &message);
        let reply = reply.expect("a reply");
        assert!(reply.starts_with("250"), "{reply}");
    }
    for (number, (case, hop)) in CASES.iter().zip(&hops).enumerate() {
        let Case(step, line, conduct, first, arrivals) = case;
        let name = format!("{step:?} {line} {conduct:?}");
        for ((address, first), arrivals) in addresses(number).iter().zip(first).zip(arrivals) {
            let last = if *arrivals == 0 { "failed" } else { DELIVERED };
            let history = wait_until(TRIED_AGAIN, &format!("{name}: {last} {address}"), || {
                let history = history(&gateway.process, address);
                history
                    .last()
                    .is_some_and(|entry| entry.starts_with(last))
                    .then_some(history)
            });
            assert!(
                history[0].starts_with(first),
                "{name}: {address}: {history:?}"
            );
            let attempts = if first.starts_with("deferred") { 2 } else { 1 };
            assert_eq!(history.len(), attempts, "{name}: {address}: {history:?}");
        }
        for (local, arrivals) in LOCALS.iter().zip(arrivals) {
            let taken = hop.taken();
            let mut all = taken.iter().flat_map(|taken| &taken.rcpt);
            let copies = all.by_ref().filter(|rcpt| rcpt.contains(local)).count();
            assert_eq!(copies, *arrivals, "{name}: {local}: {taken:?}");
        }
    }
    assert_reported(&home, &addresses);
}

/// Each recipient that failed was reported to the sender once, and no other.
fn assert_reported(home: &NextHop, addresses: &dyn Fn(usize) -> [String; 2]) {
    let reports = || {
        home.taken()
            .into_iter()
            .map(|taken| taken.message)
            .collect::<String>()
    };
    for (number, Case(.., arrivals)) in CASES.iter().enumerate() {
        for (address, arrivals) in addresses(number).iter().zip(arrivals) {
            let field = format!("Final-Recipient: rfc822;{address}\r\n");
            let count = || {
                reports()
                    .replace("rfc822; ", "rfc822;")
                    .matches(&field)
                    .count()
            };
            match arrivals {
                0 => wait_until(TRIED_AGAIN, &field, || (count() == 1).then_some(())),
                _ => assert_eq!(count(), 0, "{field}"),
            }
        }
    }
}
