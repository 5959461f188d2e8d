//! SPF at RCPT TO and DMARC at DATA, with the DNS that decides them.
//!
//! Clients come from documentation addresses, by a PROXY header. The zones: spf.example allows
//! 192.0.2.1 only; reject.example and quarantine.example publish DMARC and allow 192.0.2.1 only.

use std::fs;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::support::client::Client;
use crate::support::dns::Behaviour;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mailbox::field;
use crate::support::mails::DkimKey;
use crate::support::mails::mail;
use crate::support::process;

/// Whom the zones allow to send.
const OURS: &str = "192.0.2.1";
/// A stranger.
const STRANGER: &str = "198.51.100.9";

fn site() -> Site {
    let site = Site::new();
    for domain in ["spf.example", "reject.example", "quarantine.example"] {
        site.dns
            .txt(domain, "v=spf1 ip4:192.0.2.1 -all")
            .host(domain, OURS);
    }
    site.dns
        .txt("_dmarc.reject.example", "v=DMARC1; p=reject")
        .txt("_dmarc.quarantine.example", "v=DMARC1; p=quarantine")
        .txt("forwarder.example", "v=spf1 ip4:198.51.100.9 -all")
        .host("forwarder.example", STRANGER)
        .host("helo.example", STRANGER);
    site
}

/// A client at this address that has said `MAIL FROM:<from>`.
fn sender(gateway: &Gateway, address: &str, from: &str) -> Client {
    let mut client = Client::hello_from(gateway.site.proxied, address, "helo.example");
    client.expect(&format!("MAIL FROM:<{from}>"), "250");
    client
}

fn deliver(gateway: &Gateway, address: &str, from: &str, message: &str) -> String {
    let mut client = Client::hello_from(gateway.site.proxied, address, "helo.example");
    client.deliver(from, "user@gate.example", message)
}

fn results(gateway: &Gateway) -> String {
    let got = gateway.site.mailbox("user").first();
    field(&got, "Authentication-Results").remove(0)
}

#[test]
fn spf_fail_is_refused_at_rcpt() {
    let gateway = site().start();
    let mut client = sender(&gateway, STRANGER, "a@spf.example");
    let reply = client.expect("RCPT TO:<user@gate.example>", "550 5.7.23");
    assert!(reply.contains("spf.example"), "{reply:?}");
    let event = gateway.process.wait_for("refused");
    assert_eq!(event["stage"], "rcpt");
}

#[test]
fn spf_pass_stands_in_the_result() {
    let gateway = site().start();
    let reply = deliver(
        &gateway,
        OURS,
        "a@spf.example",
        &mail("a@spf.example", "pass"),
    );
    assert!(reply.starts_with("250"), "{reply:?}");
    assert!(results(&gateway).contains("spf=pass"));
    let got = gateway.site.mailbox("user").first();
    // One for MAIL FROM, one for HELO.
    let received = field(&got, "Received-SPF");
    assert!(received[0].starts_with("pass"), "{received:?}");
}

#[test]
fn spf_is_asked_once_for_all_recipients() {
    let gateway = site().start();
    let mut client = sender(&gateway, OURS, "a@spf.example");
    for _ in 0..5 {
        client.expect("RCPT TO:<user@gate.example>", "250");
        client.expect("RCPT TO:<second@gate.example>", "250");
    }
    assert_eq!(gateway.site.dns.times_asked("spf.example TXT"), 1);
}

#[test]
fn spf_is_not_asked_for_mail_that_is_refused_anyway() {
    let gateway = site().start();
    let mut client = sender(&gateway, OURS, "a@spf.example");
    client.expect("RCPT TO:<someone@elsewhere.example>", "5");
    assert_eq!(gateway.site.dns.times_asked("spf.example TXT"), 0);
}

#[test]
fn spf_temperror_is_a_451() {
    let site = site();
    site.dns.behave("spf.example", Behaviour::Fails);
    let gateway = site.start();
    let mut client = sender(&gateway, STRANGER, "a@spf.example");
    client.expect("RCPT TO:<user@gate.example>", "451 4.7.24");
}

#[test]
fn a_dns_that_says_nothing_holds_nobody_beyond_the_deadline() {
    let site = site();
    site.dns.behave("spf.example", Behaviour::Silent);
    let gateway = site.start();
    let mut client = sender(&gateway, STRANGER, "a@spf.example");
    client.send(b"RCPT TO:<user@gate.example>\r\n");
    let start = Instant::now();
    let reply = loop {
        match client.try_reply() {
            Ok(reply) => break reply,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(30), "{error}"),
        }
    };
    // RFC 7208 §4.6.4: 20 seconds for one check.
    assert!(reply.starts_with("451 4.7.24"), "{reply:?}");
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn where_nothing_is_enforced_a_silent_dns_holds_mail_up_for_little() {
    let mut site = site().with("[verify]\nheader_deadline = \"300ms\"");
    (site.spf, site.dmarc) = ("mode = \"off\"", "mode = \"off\"");
    site.dns.behave(".", Behaviour::Silent);
    let gateway = site.start();
    let message = mail("a@reject.example", "late");
    let start = Instant::now();
    let reply = deliver(&gateway, OURS, "a@reject.example", &message);
    assert!(reply.starts_with("250"), "{reply:?}");
    // One question alone would be given up after three seconds.
    let took = start.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let results = results(&gateway);
    assert!(results.contains("iprev=temperror"), "{results}");
    assert!(results.contains("dmarc=temperror"), "{results}");
}

#[test]
fn the_null_sender_is_judged_by_its_helo() {
    let site = site();
    site.dns.txt("helo.example", "v=spf1 -all");
    let gateway = site.start();
    let mut client = sender(&gateway, STRANGER, "");
    client.expect("RCPT TO:<user@gate.example>", "550 5.7.23");
}

#[test]
fn a_hello_that_is_no_name_has_no_record_and_harms_no_field() {
    let gateway = site().start();
    let mut client = Client::connect(gateway.site.proxied);
    client.send(format!("PROXY TCP4 {STRANGER} 192.0.2.25 40000 25\r\n").as_bytes());
    client.reply();
    client.expect("EHLO a\\\"(b;dmarc=pass", "250");
    let message = mail("boss@forwarder.example", "hello");
    let reply = client.deliver("", "user@gate.example", &message);
    assert!(reply.starts_with("250"), "{reply:?}");
    let results = results(&gateway);
    assert!(results.contains("spf=none"), "{results}");
    assert!(!results.contains(";dmarc=pass;"), "{results}");
    let got = gateway.site.mailbox("user").first();
    assert_eq!(field(&got, "Authentication-Results").len(), 1, "{got}");
    assert!(
        field(&got, "Received")[0].contains("from a???b?dmarc?pass ("),
        "{got}"
    );
}

#[test]
fn postmaster_is_reached_in_spite_of_an_spf_fail() {
    let gateway = site().start();
    let mut client = sender(&gateway, STRANGER, "a@spf.example");
    client.expect("RCPT TO:<user@gate.example>", "550 5.7.23");
    // RFC 5321 §4.5.1: who cannot send to us must be able to ask why.
    client.expect("RCPT TO:<postmaster>", "250");
}

#[test]
fn whoever_stands_in_for_postmaster_is_reached_in_spite_of_an_spf_fail() {
    let site = site().with("[directory]\npostmaster = \"second@gate.example\"");
    std::fs::write(site.path("recipients"), "user@gate.example\n").expect("written");
    let gateway = site.start();
    let mut client = sender(&gateway, STRANGER, "a@spf.example");
    client.expect("RCPT TO:<second@gate.example>", "550 5.1.1");
    client.expect("RCPT TO:<postmaster>", "250");
}

#[test]
fn a_forged_author_is_refused_by_the_policy_of_its_domain() {
    let gateway = site().start();
    let message = mail("boss@reject.example", "forged");
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("550 5.7.1 "), "{reply:?}");
    assert!(reply.contains("reject.example"), "{reply:?}");
    let event = gateway.process.wait_for("refused");
    assert_eq!(event["stage"], "data");
    assert!(gateway.process.events("accepted").is_empty());
}

#[test]
fn an_aligned_spf_pass_is_a_dmarc_pass() {
    let gateway = site().start();
    let message = mail("boss@reject.example", "aligned");
    let reply = deliver(&gateway, OURS, "a@reject.example", &message);
    assert!(reply.starts_with("250"), "{reply:?}");
    assert!(results(&gateway).contains("dmarc=pass"));
}

#[test]
fn a_forward_is_rescued_by_its_signature() {
    let site = site();
    let key = DkimKey::new();
    site.dns.txt("s1._domainkey.reject.example", &key.record());
    let gateway = site.start();
    let message = key.sign("reject.example", &mail("boss@reject.example", "forwarded"));
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("250"), "{reply:?}");
    let results = results(&gateway);
    assert!(
        results.contains("dkim=pass") && results.contains("dmarc=pass"),
        "{results}"
    );
}

#[test]
fn a_plain_forward_is_rescued_where_dmarc_is_to_judge_it() {
    let mut site = site();
    site.spf = "unless_dmarc = true";
    let key = DkimKey::new();
    site.dns.txt("s1._domainkey.reject.example", &key.record());
    let gateway = site.start();
    // The forwarder keeps the sender, so that SPF fails.
    let message = mail("boss@reject.example", "plain forward");
    let reply = deliver(&gateway, STRANGER, "boss@reject.example", &message);
    assert!(reply.starts_with("550 5.7.1 "), "{reply:?}");
    let signed = key.sign("reject.example", &message);
    let reply = deliver(&gateway, STRANGER, "boss@reject.example", &signed);
    assert!(reply.starts_with("250"), "{reply:?}");
    let results = results(&gateway);
    assert!(
        results.contains("spf=fail") && results.contains("dmarc=pass"),
        "{results}"
    );
    // No DMARC, so SPF has the last word.
    let reply = deliver(
        &gateway,
        STRANGER,
        "a@spf.example",
        &mail("a@spf.example", "no"),
    );
    assert!(reply.starts_with("550 5.7.23"), "{reply:?}");
}

#[test]
fn a_rule_that_observes_says_what_it_would_have_done() {
    let mut site = site();
    site.spf = "mode = \"observe\"";
    let gateway = site.start();
    let reply = deliver(
        &gateway,
        STRANGER,
        "a@spf.example",
        &mail("a@spf.example", "observed"),
    );
    assert!(reply.starts_with("250"), "{reply:?}");
    let event = gateway.process.wait_for("would refuse");
    assert!(event["reply"].to_string().contains("5.7.23"), "{event}");
    assert!(results(&gateway).contains("spf=fail"));
}

#[test]
fn a_signature_over_other_words_rescues_nothing() {
    let site = site();
    let key = DkimKey::new();
    site.dns.txt("s1._domainkey.reject.example", &key.record());
    let gateway = site.start();
    let signed = key.sign("reject.example", &mail("boss@reject.example", "changed"));
    let message = signed.replace("Hello.", "Pay at once.");
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("550 5.7.1 "), "{reply:?}");
}

#[test]
fn a_signature_of_another_domain_rescues_nothing() {
    let site = site();
    let key = DkimKey::new();
    site.dns
        .txt("s1._domainkey.forwarder.example", &key.record());
    let gateway = site.start();
    let message = key.sign(
        "forwarder.example",
        &mail("boss@reject.example", "unaligned"),
    );
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("550 5.7.1 "), "{reply:?}");
}

#[test]
fn quarantine_is_marked_and_delivered() {
    let gateway = site().start();
    let message = mail("boss@quarantine.example", "suspect");
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("250"), "{reply:?}");
    let results = results(&gateway);
    assert!(results.contains("dmarc=fail"), "{results}");
    assert!(results.contains("quarantine"), "{results}");
    let got = gateway.site.mailbox("user").first();
    assert_eq!(field(&got, "X-Gatepost-Mark").len(), 1, "{got}");
}

#[test]
fn a_key_that_cannot_be_fetched_is_a_451_where_it_could_save_a_reject() {
    let site = site();
    let key = DkimKey::new();
    site.dns
        .txt("s1._domainkey.reject.example", &key.record())
        .behave("_domainkey.reject.example", Behaviour::Fails);
    let gateway = site.start();
    let message = key.sign("reject.example", &mail("boss@reject.example", "no key"));
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("451 4.7.1 "), "{reply:?}");
}

#[test]
fn several_authors_or_none_are_refused() {
    let gateway = site().start();
    let good = mail("a@forwarder.example", "authors");
    for message in [
        format!("From: <boss@reject.example>\r\n{good}"),
        good.replace("From: <a@forwarder.example>\r\n", ""),
        good.replace(
            "<a@forwarder.example>",
            "<a@forwarder.example>, <boss@reject.example>",
        ),
        good.replace("From: <a@forwarder.example>", "From: nobody"),
    ] {
        let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
        assert!(reply.starts_with('5'), "{message}\nwas answered {reply:?}");
    }
}

#[test]
fn a_message_that_has_gone_in_circles_is_refused() {
    let gateway = site().start();
    let hop = "Received: from a.example by b.example; Tue, 24 Nov 2026 10:00:00 +0000\r\n";
    let message = hop.repeat(51) + &mail("a@forwarder.example", "loop");
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("554 5.4.6"), "{reply:?}");
}

#[test]
fn quarantine_may_be_a_hold_that_outlives_a_restart() {
    let mut site = site();
    site.dmarc = "quarantine = \"hold\"";
    let mut gateway = site.start();
    let message = mail("boss@quarantine.example", "held");
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("250"), "{reply:?}");
    let held = gateway.process.wait_for("held");
    assert_eq!(held["id"], gateway.process.wait_for("accepted")["id"]);
    assert!(gateway.process.stop().success());
    gateway.restart();
    assert_eq!(gateway.process.wait_for("spool opened")["messages"], 1);
    let message = mail("a@forwarder.example", "after it");
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("250"), "{reply:?}");
    let got = gateway.site.mailbox("user").first();
    assert_eq!(field(&got, "Subject"), ["after it"]);
}

#[test]
fn the_words_of_the_domain_are_passed_on_with_a_refusal() {
    let site = site();
    site.dns
        .txt("explained.example", "v=spf1 -all exp=why.explained.example")
        .txt("why.explained.example", "%{i} may not send for %{d}");
    let gateway = site.start();
    let mut client = sender(&gateway, STRANGER, "a@explained.example");
    let reply = client.expect("RCPT TO:<user@gate.example>", "550");
    assert!(
        reply.contains("198.51.100.9 may not send for explained.example"),
        "{reply:?}"
    );
    assert!(reply.contains("5.7.23"), "{reply:?}");
}

#[test]
fn each_spf_result_does_what_config_says() {
    for (keys, from, want) in [
        ("fail = \"defer\"", "a@spf.example", "451 4.7.23"),
        ("fail = \"accept\"", "a@spf.example", "250"),
        ("softfail = \"reject\"", "a@soft.example", "550 5.7.23"),
        ("none = \"reject\"", "a@none.example", "550 5.7."),
        ("permerror = \"reject\"", "a@broken.example", "550 5.7.24"),
        ("permerror = \"accept\"", "a@broken.example", "250"),
    ] {
        let mut site = site();
        site.dns
            .txt("soft.example", "v=spf1 ~all")
            .txt("broken.example", "v=spf1 nonsense -all");
        site.spf = keys;
        let gateway = site.start();
        // Its own name is not judged by the same key.
        let mut client = Client::hello_from(gateway.site.proxied, STRANGER, "forwarder.example");
        client.expect(&format!("MAIL FROM:<{from}>"), "250");
        let reply = client.say("RCPT TO:<user@gate.example>");
        assert!(reply.starts_with(want), "{keys}: {reply:?}");
    }
}

#[test]
fn a_trusted_forwarder_whose_chain_does_not_hold_rescues_nothing() {
    let mut site = site();
    site.dmarc = "trusted_forwarders = [\"forwarder.example\"]";
    let gateway = site.start();
    let message = mail("boss@reject.example", "unsealed");
    let reply = deliver(&gateway, STRANGER, "a@forwarder.example", &message);
    assert!(reply.starts_with("550 5.7.1 "), "{reply:?}");
}

#[test]
fn the_queue_knows_whose_sender_is_forged() {
    let mut site = site().delivering_to(format!("smtp:127.0.0.1:{}", free_port()));
    site.recipients = "any".to_owned();
    site.spf = "fail = \"mark\"";
    let mut gateway = site.start();
    let message = mail("a@forwarder.example", "who is it");
    for from in ["a@spf.example", "a@forwarder.example"] {
        let mut client = Client::hello_from(gateway.site.proxied, STRANGER, "helo.example");
        client.hand_over(from, "user@gate.example", &message);
    }
    gateway.process.stop();
    let to = gateway.site.path("exported");
    fs::create_dir(&to).expect("made");
    let file = gateway.site.write_config().display().to_string();
    let to_text = to.display().to_string();
    let mut export = gatepost(&["queue", "export", "--to", &to_text, "--config", &file]);
    process::run(&mut export);
    let files = fs::read_dir(&to).expect("it is there");
    let mut forged: Vec<(String, bool)> = files
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| serde_json::from_slice(&fs::read(path).expect("read")).expect("json"))
        .map(|message: Value| {
            let from = message["from"].as_str().expect("a text").to_owned();
            (from, message["forged"] == true)
        })
        .collect();
    forged.sort();
    let want = [("a@forwarder.example", false), ("a@spf.example", true)];
    assert_eq!(forged, want.map(|(from, forged)| (from.to_owned(), forged)));
}
