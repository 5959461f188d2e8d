//! What becomes of mail is told to its sender: by the real gateway, from a next hop that refuses to the
//! mailbox of who sent it.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use rand::Rng;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::mailbox::field;
use crate::support::mails::DkimKey;
use crate::support::mails::mail;
use crate::support::next_hop::NextHop;
use crate::support::next_hop::Taken;
use crate::support::wait_until;

/// Refuses `unknown@`, puts off `later@`.
fn answer(rcpt: &str) -> Option<String> {
    let local = rcpt.split(['<', '@']).nth(1).unwrap_or_default();
    match local {
        "unknown" => Some("550 5.1.1 no such user, says the next hop".to_owned()),
        "later" => Some("450 4.2.0 come back later".to_owned()),
        _ => None,
    }
}

/// gate.example is behind `hop`, client.example behind `home`; both take everyone.
fn site(hop: &str, home: &NextHop) -> Site {
    let site = Site::new().delivering_to(hop).knowing("any");
    site.with(&format!(
        "[domains.\"client.example\"]\ndeliver = \"{}\"\nrecipients = \"any\"\n",
        home.target("lmtp")
    ))
}

/// Hands a message over; `parameters` stand behind MAIL, each recipient has its own.
fn send(gateway: &Gateway, from: &str, recipients: &[&str], message: &str) {
    let mut client = Client::hello(gateway.smtp());
    client.expect(&format!("MAIL FROM:{from}"), "250");
    for recipient in recipients {
        client.expect(&format!("RCPT TO:{recipient}"), "250");
    }
    client.expect("DATA", "354");
    client.send(message.as_bytes());
    client.expect(".", "250");
}

fn reports(home: &NextHop) -> Vec<Taken> {
    let is_report = |taken: &Taken| taken.message.contains("report-type=delivery-status");
    home.taken().into_iter().filter(is_report).collect()
}

#[test]
fn the_sender_learns_which_of_three_was_refused_and_why() {
    let (hop, home) = (NextHop::start(&[], answer), NextHop::start(&[], |_| None));
    let gateway = site(&hop.target("smtp"), &home).start();
    send(
        &gateway,
        "<a@client.example>",
        &[
            "<one@gate.example>",
            "<unknown@gate.example>",
            "<two@gate.example>",
        ],
        &mail("a@client.example", "for three"),
    );
    let report = home.wait_for(1).remove(0);
    assert!(report.mail.starts_with("MAIL FROM:<>"), "{}", report.mail);
    assert_eq!(report.rcpt, ["RCPT TO:<a@client.example>"]);
    for words in [
        "Subject: Not delivered: for three",
        "[127.0.0.1] refused it:",
        "550 5.1.1 no such user, says the next hop",
        "Remote-MTA: dns; [127.0.0.1]",
        "In-Reply-To: <for.three@client.example>",
        "Hello.",
    ] {
        assert!(
            report.message.contains(words),
            "{words}: {}",
            report.message
        );
    }
    assert!(
        !report.message.contains("one@gate.example>\r\n"),
        "{}",
        report.message
    );
    let failed = gateway.process.wait_for("failed");
    let reported = gateway.process.wait_for("reported");
    assert_eq!(
        (&failed["id"], &reported["action"]),
        (&reported["id"], &"failed".into())
    );
    assert_eq!(reported["to"], "a@client.example");
    gateway.process.wait_for_nth("delivered", 3);
    let id = reported["report"].as_str().expect("an id");
    assert_eq!(
        field(&report.message, "Message-ID"),
        [format!("<{id}@mx.gate.example>")]
    );
    assert_eq!(hop.taken()[0].rcpt.len(), 2);
}

#[test]
fn senders_are_told_what_they_asked_for() {
    let (hop, home) = (NextHop::start(&[], answer), NextHop::start(&[], |_| None));
    let gateway = site(&hop.target("smtp"), &home).start();
    let unheard = ["NEVER", "DELAY", "SUCCESS", "SUCCESS,DELAY"];
    for notify in unheard {
        let to = format!("<unknown@gate.example> NOTIFY={notify}");
        send(
            &gateway,
            "<a@client.example>",
            &[&to],
            &mail("a@client.example", notify),
        );
    }
    gateway
        .process
        .wait_for_nth("failure not reported", unheard.len());
    // Nothing is left in the queue, and nothing was said.
    assert_eq!(home.taken().len(), 0);

    for (notify, path, want) in [
        ("FAILURE", "unknown@gate.example", Some("Action: failed")),
        ("SUCCESS", "one@gate.example", Some("Action: relayed")),
        ("SUCCESS", "b@client.example", Some("Action: delivered")),
        ("FAILURE,DELAY", "one@gate.example", None),
        ("NEVER", "one@gate.example", None),
    ] {
        let before = reports(&home).len();
        let from = "<a@client.example> RET=HDRS ENVID=our+20name";
        let to = format!("<{path}> NOTIFY={notify} ORCPT=rfc822;first@name.example");
        let delivered = gateway.process.events("delivered").len();
        send(&gateway, from, &[&to], &mail("a@client.example", "asked"));
        let Some(want) = want else {
            gateway.process.wait_for_nth("delivered", delivered + 1);
            assert_eq!(reports(&home).len(), before, "{notify} {path}");
            continue;
        };
        let report = wait_until(SOON, "the report", || {
            reports(&home).into_iter().nth(before)
        });
        for words in [
            want,
            "Original-Envelope-Id: our name",
            "Original-Recipient: rfc822; first@name.example",
            "text/rfc822-headers",
        ] {
            assert!(
                report.message.contains(words),
                "{words}: {}",
                report.message
            );
        }
    }
}

#[test]
fn a_next_hop_that_reports_by_itself_is_told_the_wishes_and_we_say_nothing() {
    let hop = NextHop::start(&["DSN"], answer);
    let home = NextHop::start(&[], |_| None);
    let gateway = site(&hop.target("smtp"), &home).start();
    let to = "<one@gate.example> NOTIFY=SUCCESS";
    send(
        &gateway,
        "<a@client.example>",
        &[to],
        &mail("a@client.example", "passed on"),
    );
    let taken = hop.wait_for(1).remove(0);
    assert_eq!(taken.rcpt, ["RCPT TO:<one@gate.example> NOTIFY=SUCCESS"]);
    gateway.process.wait_for("delivered");
    assert_eq!(
        (home.taken().len(), gateway.process.events("reported").len()),
        (0, 0)
    );
}

#[test]
fn internationalized_addresses_come_back_as_they_were() {
    let hop = NextHop::start(&["SMTPUTF8"], |_| Some("550 5.1.1 niemand".to_owned()));
    let home = NextHop::start(&["SMTPUTF8"], |_| None);
    let gateway = site(&hop.target("smtp"), &home).start();
    let from = "<\u{e4}nna@client.example> SMTPUTF8 BODY=8BITMIME";
    let message = mail("\u{e4}nna@client.example", "Gr\u{fc}\u{df}e");
    send(&gateway, from, &["<j\u{f6}rg@gate.example>"], &message);
    let report = home.wait_for(1).remove(0);
    assert!(report.mail.contains("SMTPUTF8"), "{}", report.mail);
    assert_eq!(report.rcpt, ["RCPT TO:<\u{e4}nna@client.example>"]);
    for words in [
        "To: <\u{e4}nna@client.example>",
        "Content-Type: message/global-delivery-status",
        "Final-Recipient: utf-8; j\u{f6}rg@gate.example",
        "Content-Type: message/global\r\n",
    ] {
        assert!(
            report.message.contains(words),
            "{words}: {}",
            report.message
        );
    }
}

#[test]
fn mail_without_a_return_path_is_never_answered() {
    let (hop, home) = (NextHop::start(&[], answer), NextHop::start(&[], |_| None));
    let gateway = site(&hop.target("smtp"), &home).start();
    send(
        &gateway,
        "<>",
        &["<unknown@gate.example>"],
        &mail("a@client.example", "bounce"),
    );
    let event = gateway.process.wait_for("failure not reported");
    assert_eq!(event["reason"], "it has no return path");
    assert_eq!(gateway.process.events("reported").len(), 0);
    wait_until(SOON, "an empty queue", || is_empty(&gateway).then_some(()));
}

#[test]
fn a_double_bounce_goes_to_the_postmaster_and_no_further() {
    let hop = NextHop::start(&[], answer);
    let home = NextHop::start(&[], |rcpt| {
        let is_ours = rcpt.contains("<boss@") || rcpt.contains("<c@");
        (!is_ours).then(|| "550 5.1.1 nobody".to_owned())
    });
    let site = site(&hop.target("smtp"), &home);
    let gateway = site
        .with("[bounces]\ndouble_bounce_to = \"boss@client.example\"\n")
        .start();
    // The sender cannot have the bounce.
    send(
        &gateway,
        "<a@client.example>",
        &["<unknown@gate.example>"],
        &mail("a@client.example", "lost"),
    );
    let report = home.wait_for(1).remove(0);
    assert_eq!(report.rcpt, ["RCPT TO:<boss@client.example>"]);
    for words in [
        "A message without a return address",
        "550 5.1.1 nobody",
        "a@client.example",
    ] {
        assert!(
            report.message.contains(words),
            "{words}: {}",
            report.message
        );
    }
    wait_until(SOON, "an empty queue", || is_empty(&gateway).then_some(()));

    // Neither can the postmaster.
    let hop = NextHop::start(&[], |_| Some("550 5.1.1 nobody at all".to_owned()));
    let gateway = self::site(&hop.target("smtp"), &hop)
        .with("[bounces]\ndouble_bounce_to = \"boss@client.example\"\n")
        .start();
    send(
        &gateway,
        "<a@client.example>",
        &["<one@gate.example>"],
        &mail("a@client.example", "loop"),
    );
    gateway.process.wait_for("failure not reported");
    wait_until(SOON, "an empty queue", || is_empty(&gateway).then_some(()));
    assert_eq!(gateway.process.events("reported").len(), 2);
    assert_eq!(gateway.process.events("failed").len(), 3);
}

fn is_empty(gateway: &Gateway) -> bool {
    let metrics = gateway.site.get("/metrics");
    metrics
        .lines()
        .any(|line| line == "gatepost_queue_messages 0")
}

#[test]
fn what_is_not_taken_in_time_is_given_up_with_the_last_words() {
    let (hop, home) = (NextHop::start(&[], answer), NextHop::start(&[], |_| None));
    let mut site = site(&hop.target("smtp"), &home);
    site.queue = "give_up_after = \"3s\"".to_owned();
    let gateway = site.start();
    send(
        &gateway,
        "<a@client.example>",
        &["<later@gate.example>"],
        &mail("a@client.example", "late"),
    );
    gateway.process.wait_for("deferred");
    let report = home.wait_for(1).remove(0);
    for words in [
        "It was tried for 3 seconds.",
        "450 4.2.0 come back later",
        "Status: 4.4.7",
    ] {
        assert!(
            report.message.contains(words),
            "{words}: {}",
            report.message
        );
    }
}

#[test]
fn a_warning_comes_once_also_through_restarts_and_while_the_destination_is_down() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("it is bound");
    drop(port);
    let hop = NextHop::start(&[], answer);
    let home = NextHop::start(&[], |_| None);
    let mut site = site(&hop.target("smtp"), &home).with(&format!(
        "[domains.\"dead.example\"]\ndeliver = \"smtp:{address}\"\nrecipients = \"any\"\n\
         [bounces]\ndelay_warning = \"3s\"\n"
    ));
    site.queue = "retry_max = \"1s\"\npause_first = \"1s\"\npause_max = \"1s\"".to_owned();
    let mut gateway = site.start();
    let message = mail("a@client.example", "late");
    send(
        &gateway,
        "<a@client.example>",
        &["<later@gate.example>"],
        &message,
    );
    // Only the first of them is tried before its time.
    for _ in 0..5 {
        send(
            &gateway,
            "<a@client.example>",
            &["<b@dead.example>"],
            &message,
        );
    }
    let quiet = "<later@gate.example> NOTIFY=FAILURE";
    send(&gateway, "<a@client.example>", &[quiet], &message);
    gateway.process.wait_for_nth("deferred", 2);
    assert!(gateway.process.stop().success());
    gateway.restart();
    home.wait_for(6);
    gateway.process.wait_for("destination down");
    assert!(gateway.process.stop().success());
    gateway.restart();
    gateway.process.wait_for_nth("deferred", 8);
    assert_eq!(home.taken().len(), 6);
    for report in home.taken() {
        for words in [
            "Action: delayed",
            "Will-Retry-Until: ",
            "You need not send it again",
        ] {
            assert!(
                report.message.contains(words),
                "{words}: {}",
                report.message
            );
        }
    }
}

#[test]
fn while_no_report_can_be_stored_nothing_is_given_up() {
    let (hop, home) = (NextHop::start(&[], answer), NextHop::start(&[], |_| None));
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("it is bound");
    drop(port);
    let mut gateway = site(&format!("smtp:{address}"), &home).start();
    send(
        &gateway,
        "<a@client.example>",
        &["<unknown@gate.example>"],
        &mail("a@client.example", "full"),
    );
    gateway.process.wait_for("deferred");
    assert!(gateway.process.stop().success());
    let plain = gateway.site.extra.clone();
    gateway.site.deliver = hop.target("smtp");
    gateway.site.extra += "[spool]\nkeep_free = \"1000TiB\"\n";
    gateway.restart();
    gateway.process.wait_for("report not stored");
    let reason = gateway.process.wait_for("deferred")["reason"].to_string();
    assert!(
        reason.contains("550 5.1.1") && reason.contains("cannot be stored"),
        "{reason}"
    );
    assert!(gateway.process.stop().success());
    gateway.site.extra = plain;
    gateway.restart();
    home.wait_for(1);
    gateway.process.wait_for("failed");
}

#[test]
fn after_kill_9_each_failure_has_its_report() {
    const MESSAGES: usize = 150;
    let hop = NextHop::start(&[], |_| Some("550 5.1.1 nobody".to_owned()));
    let home = NextHop::start(&[], |_| None);
    let mut gateway = site(&hop.target("smtp"), &home).start();
    let mut rng = rand::rng();
    let mut sent = Vec::new();
    while sent.len() < MESSAGES {
        for _ in 0..10 {
            let name = format!("crash{}", sent.len());
            let message = mail("a@client.example", &name);
            send(
                &gateway,
                "<a@client.example>",
                &["<b@gate.example>"],
                &message,
            );
            sent.push(name);
        }
        thread::sleep(Duration::from_millis(rng.random_range(0..30)));
        gateway.process.kill9();
        gateway.restart();
    }
    let patience = 3 * SOON;
    wait_until(patience, "an empty queue", || {
        is_empty(&gateway).then_some(())
    });
    let told: Vec<String> = home
        .taken()
        .into_iter()
        .map(|taken| taken.message)
        .collect();
    for name in sent {
        let subject = format!("Subject: Not delivered: {name}\r\n");
        assert!(
            told.iter().any(|report| report.contains(&subject)),
            "{name} has no report"
        );
    }
}

#[test]
fn a_bounce_is_signed_where_our_own_name_has_a_key() {
    let (hop, home) = (NextHop::start(&[], answer), NextHop::start(&[], |_| None));
    let site = site(&hop.target("smtp"), &home);
    DkimKey::new().give_to(&site, HOSTNAME);
    let gateway = site.start();
    let message = mail("a@client.example", "signed");
    send(
        &gateway,
        "<a@client.example>",
        &["<unknown@gate.example>"],
        &message,
    );
    let report = home.wait_for(1).remove(0).message;
    let signature = field(&report, "DKIM-Signature").concat();
    for words in [&format!("d={HOSTNAME};"), "s=s1;", "From"] {
        assert!(signature.contains(words), "{report}");
    }
}

#[test]
fn a_bounce_lands_in_a_mailbox_of_ours() {
    let hop = NextHop::start(&[], answer);
    let site = Site::new().with(&format!(
        "[domains.\"far.example\"]\ndeliver = \"{}\"\nrecipients = \"any\"\n",
        hop.target("smtp")
    ));
    site.dns.txt("gate.example", "v=spf1 ip4:127.0.0.1 -all");
    let gateway = site.start();
    let message = mail("user@gate.example", "home again");
    send(
        &gateway,
        "<user@gate.example>",
        &["<unknown@far.example>"],
        &message,
    );
    let got = gateway.site.mailbox("user").first();
    assert!(got.starts_with("Return-Path: <>"), "{got}");
    assert_eq!(field(&got, "Auto-Submitted"), ["auto-replied"]);
}
