//! Dovecot behind the gateway, by unix socket and by TCP.

use crate::support::client::Client;
use crate::support::dovecot;
use crate::support::dovecot::Dovecot;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mailbox::field;
use crate::support::mails::mail;

fn behind(target: String) -> Gateway {
    Site::new().delivering_to(target).knowing("callout").start()
}

fn deliver(gateway: &Gateway, to: &str, message: &str) -> String {
    Client::hello(gateway.smtp()).deliver("a@client.example", to, message)
}

#[test]
fn what_was_sent_arrives_byte_for_byte_by_unix_socket_and_by_tcp() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    for (count, target) in [(1, dovecot.unix()), (2, dovecot.tcp())] {
        let gateway = behind(target);
        let body = "Hello.\r\n.\r\n..dots\r\n\u{fc}\u{1f4ee}\r\n \r\nlong ".to_owned()
            + &"x".repeat(900)
            + "\r\n\r\nend";
        let message = mail("a@client.example", "bytes").replace("Hello.", &body);
        let reply = deliver(&gateway, "user@gate.example", &message);
        assert!(reply.starts_with("250"), "{reply:?}");
        let messages = dovecot.mailbox("user").wait_for(count);
        for got in &messages {
            let got = got.replace("\r\n", "\n");
            assert!(got.ends_with(&message.replace("\r\n", "\n")), "{got}");
        }
        assert_eq!(messages.len(), count);
    }
}

#[test]
fn an_unknown_user_is_refused_while_the_client_waits() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let gateway = behind(dovecot.unix());
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<nobody@gate.example>", "550 5.1.1");
    client.expect("RCPT TO:<user@gate.example>", "250");
    // The answer is remembered: Dovecot may be gone.
    drop(dovecot);
    client.expect("RCPT TO:<nobody@gate.example>", "550 5.1.1");
}

#[test]
fn one_recipient_over_quota_takes_nothing_from_the_other() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let gateway = behind(dovecot.unix());
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<tiny@gate.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "250");
    client.expect("DATA", "354");
    client.send(mail("a@client.example", "large").as_bytes());
    client.send("0123456789\r\n".repeat(500).as_bytes());
    client.expect(".", "250");
    dovecot.mailbox("user").wait_for(1);
    let event = gateway.process.wait_for("failed");
    assert_eq!(event["rcpt"], "tiny@gate.example");
    assert!(event["reason"].to_string().contains("5.2.2"), "{event}");
    assert!(dovecot.mailbox("tiny").messages().is_empty());
    gateway.process.wait_for("delivered");
    assert_eq!(gateway.process.events("delivered").len(), 1);
}

#[test]
fn mail_waits_while_dovecot_is_down_and_arrives_when_it_is_back() {
    if !dovecot::present() {
        return;
    }
    let mut dovecot = Dovecot::start();
    let gateway = behind(dovecot.unix());
    // So that the callout's answer is remembered.
    let first = mail("a@client.example", "first");
    assert!(deliver(&gateway, "user@gate.example", &first).starts_with("250"));
    dovecot.mailbox("user").wait_for(1);
    dovecot.stop();
    let second = mail("a@client.example", "second");
    assert!(deliver(&gateway, "user@gate.example", &second).starts_with("250"));
    gateway.process.wait_for("deferred");
    dovecot.restart();
    let messages = dovecot.mailbox("user").wait_for(2);
    let mut subjects: Vec<_> = messages
        .iter()
        .flat_map(|message| field(message, "Subject"))
        .collect();
    subjects.sort();
    assert_eq!(subjects, ["first", "second"]);
}

#[test]
fn dovecot_without_smtputf8_gets_what_does_not_need_it_and_the_rest_comes_back() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let gateway = behind(dovecot.unix());
    for subject in ["in ascii", "Gr\u{fc}\u{df}e"] {
        let mut client = Client::hello(gateway.smtp());
        let mail_from = "MAIL FROM:<a@client.example> SMTPUTF8 BODY=8BITMIME";
        client.expect(mail_from, "250");
        client.expect("RCPT TO:<user@gate.example>", "250");
        client.expect("DATA", "354");
        let message = mail("a@client.example", subject).replace("Hello.", "Gr\u{fc}\u{df}e");
        client.send(message.as_bytes());
        client.expect(".", "250");
    }
    // RFC 6531 §3.4: the parameter alone asks for nothing.
    let got = dovecot.mailbox("user").first();
    assert_eq!(field(&got, "Subject"), ["in ascii"]);
    let received = field(&got, "Received").join("\n");
    assert!(received.contains("with UTF8SMTP"), "{received}");
    // RFC 6531 §3.5: a header beyond ASCII may not go to a server that does not offer it.
    let event = gateway.process.wait_for("failed");
    assert!(event["reason"].to_string().contains("5.6.9"), "{event}");
    assert_eq!(dovecot.mailbox("user").messages().len(), 1);
}
