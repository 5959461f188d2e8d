//! From the 250 to the mailbox: what is handed on, under which id, and what stands in front of it.

use std::fs;

use crate::support::client::CLIENT;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::mailbox::field;
use crate::support::mails::mail;

fn accept(gateway: &Gateway, to: &str, message: &str) -> String {
    let mut client = Client::hello(gateway.smtp());
    client.hand_over("a@client.example", to, message)
}

#[test]
fn a_message_lands_in_the_maildir_as_it_was_sent() {
    let gateway = Gateway::start();
    let message = mail("a@client.example", "as sent").replace(
        "Hello.",
        "Long: \u{fc}\u{df}\u{1f4ee}\r\n  two spaces  \r\n\ttab\r\n\r\n-- \r\nend",
    );
    accept(&gateway, "user@gate.example", &message);
    let got = gateway.site.mailbox("user").first().replace("\r\n", "\n");
    assert!(got.ends_with(&message.replace("\r\n", "\n")), "{got}");
}

#[test]
fn one_id_leads_from_the_reply_through_the_log_to_the_header() {
    let gateway = Gateway::start();
    let reply = accept(
        &gateway,
        "user@gate.example",
        &mail("a@client.example", "id"),
    );
    let connected = gateway.process.wait_for("connected");
    let accepted = gateway.process.wait_for("accepted");
    let delivered = gateway.process.wait_for("delivered");
    let id = accepted["id"].as_str().expect("a text");
    assert_eq!(id.split('.').next(), connected["session"].as_str());
    assert_eq!(gateway.process.wait_for("judged")["id"], id);
    assert_eq!(
        gateway.process.wait_for("disconnected")["session"],
        connected["session"]
    );
    assert!(reply.contains(id), "{reply:?} lacks {id}");
    assert_eq!(delivered["id"], id);
    assert_eq!(delivered["rcpt"], "user@gate.example");
    assert_eq!(accepted["recipients"], 1);
    let received = field(&gateway.site.mailbox("user").first(), "Received");
    assert!(received[0].contains(id), "{received:?}");
}

#[test]
fn the_trace_says_whence_it_came_and_whose_it_is() {
    let gateway = Gateway::start();
    accept(
        &gateway,
        "user@gate.example",
        &mail("a@client.example", "trace"),
    );
    let got = gateway.site.mailbox("user").first();
    // RFC 5321 §4.4: Return-Path at the very top, then Received.
    assert!(got.starts_with("Return-Path: <a@client.example>"), "{got}");
    let received = &field(&got, "Received")[0];
    for part in [CLIENT, "[127.0.0.1]", HOSTNAME, "with ESMTP"] {
        assert!(received.contains(part), "{received} lacks {part}");
    }
    let results = field(&got, "Authentication-Results");
    assert_eq!(results.len(), 1, "{results:?}");
    assert!(results[0].starts_with(HOSTNAME), "{results:?}");
    assert!(results[0].contains("spf=pass"), "{results:?}");
}

#[test]
fn forged_results_and_return_paths_are_taken_out() {
    let gateway = Gateway::start();
    let message = format!(
        "Authentication-Results: {HOSTNAME}; dkim=pass header.d=bank.example\r\n\
         Authentication-Results: other.example; dkim=pass header.d=kept.example\r\n\
         Return-Path: <forged@bank.example>\r\n{}",
        mail("a@client.example", "forged results")
    );
    accept(&gateway, "user@gate.example", &message);
    let got = gateway.site.mailbox("user").first();
    assert!(!got.contains("bank.example"), "{got}");
    assert!(
        got.contains("kept.example"),
        "results of others stay: {got}"
    );
}

#[test]
fn each_recipient_gets_the_message() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    client.expect("RCPT TO:<second@gate.example>", "250");
    client.expect("DATA", "354");
    client.send(mail("a@client.example", "for two").as_bytes());
    client.expect(".", "250 2.0.0");
    for local in ["user", "second"] {
        let messages = gateway.site.mailbox(local).wait_for(1);
        assert_eq!(messages.len(), 1, "{local}");
    }
    gateway.process.wait_for_nth("delivered", 2);
}

#[test]
fn a_local_part_is_not_a_path() {
    let gateway = Gateway::start();
    let recipients = gateway.site.path("recipients");
    let known = fs::read_to_string(&recipients).expect("it is there");
    fs::write(
        &recipients,
        format!("{known}\"../../escaped\"@gate.example\n"),
    )
    .expect("written");
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    let mut client = Client::hello(gateway.smtp());
    let message = mail("a@client.example", "escape");
    client.deliver(
        "a@client.example",
        "\"../../escaped\"@gate.example",
        &message,
    );
    accept(&gateway, "user@gate.example", &message);
    gateway.site.mailbox("user").first();
    assert!(!gateway.site.path("escaped").exists());
    assert!(!gateway.site.path("mail/escaped").exists());
}

#[test]
fn what_waits_is_delivered_after_a_restart() {
    // A file stands where the Maildir's folder would be made.
    let site = Site::new();
    fs::write(site.path("mail"), "in the way").expect("written");
    let mut gateway = site.start();
    accept(
        &gateway,
        "user@gate.example",
        &mail("a@client.example", "waits"),
    );
    gateway.process.wait_for("deferred");
    assert!(gateway.process.stop().success());
    fs::remove_file(gateway.site.path("mail")).expect("it is there");
    gateway.restart();
    let got = gateway.site.mailbox("user").first();
    assert_eq!(field(&got, "Subject"), ["waits"]);
}

#[test]
fn mail_for_postmaster_is_taken_though_no_list_names_them() {
    let gateway = Gateway::start();
    let recipients = gateway.site.path("recipients");
    fs::write(&recipients, "user@gate.example\n").expect("written");
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    for (number, path) in ["Postmaster", "PostMaster@gate.example"].iter().enumerate() {
        accept(&gateway, path, &mail("a@client.example", "help"));
        let event = gateway.process.wait_for_nth("delivered", number + 1);
        assert!(
            event["rcpt"]
                .to_string()
                .to_lowercase()
                .contains("postmaster@gate.example"),
            "{event}"
        );
    }
}

#[test]
fn a_next_hop_is_found_by_its_name_at_the_address_that_answers() {
    let next = Gateway::start();
    let site = Site::new();
    site.dns
        .host("next.example", "::1")
        .host("next.example", "127.0.0.1");
    let target = format!("smtp:next.example:{}", next.smtp().port());
    let first = site.delivering_to(target).start();
    let message = mail("a@client.example", "by name").replace("Hello.", ".\r\n..\r\nüber");
    accept(&first, "user@gate.example", &message);
    let got = next.site.mailbox("user").first();
    assert!(got.ends_with(&message.replace("\r\n", "\n")), "{got}");
}
