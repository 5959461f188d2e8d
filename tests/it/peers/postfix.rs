//! Postfix before the gateway, as a client, and behind it, as the next hop.

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mailbox::field;
use crate::support::mails::mail;
use crate::support::postfix;
use crate::support::postfix::Onward;
use crate::support::postfix::Postfix;

#[test]
fn postfix_as_client_brings_mail_over_tls() {
    if !postfix::present() {
        return;
    }
    let gateway = Gateway::start();
    let postfix = Postfix::start(Onward::NextHop(gateway.smtp()));
    let message = mail("a@client.example", "from postfix");
    Client::hello(postfix.smtp).hand_over("a@client.example", "user@gate.example", &message);
    let got = gateway.site.mailbox("user").first();
    assert_eq!(field(&got, "Subject"), ["from postfix"]);
    let received = &field(&got, "Received")[0];
    assert!(received.contains("ESMTPS"), "{received}");
}

#[test]
fn postfix_as_next_hop_takes_mail_and_names_its_users() {
    if !postfix::present() {
        return;
    }
    let postfix = Postfix::start(Onward::Mailboxes);
    let site = Site::new()
        .delivering_to(postfix.target())
        .knowing("callout");
    let gateway = site.start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<nobody@gate.example>", "550 5.1.1");
    client.expect("RSET", "250");
    let message = mail("a@client.example", "to postfix");
    client.hand_over("a@client.example", "user@gate.example", &message);
    let got = postfix.mailbox("user").first();
    assert!(
        got.replace("\r\n", "\n")
            .ends_with(&message.replace("\r\n", "\n")),
        "{got}"
    );
    let event = gateway.process.wait_for("delivered");
    assert!(event["reply"].to_string().contains("queued as"), "{event}");
}

#[test]
fn mail_waits_while_postfix_is_down_and_arrives_when_it_is_back() {
    if !postfix::present() {
        return;
    }
    let postfix = Postfix::start(Onward::Mailboxes);
    let site = Site::new().delivering_to(postfix.target()).knowing("any");
    let gateway = site.start();
    postfix.stop();
    let message = mail("a@client.example", "patience");
    Client::hello(gateway.smtp()).hand_over("a@client.example", "user@gate.example", &message);
    gateway.process.wait_for("deferred");
    postfix.restart();
    postfix.mailbox("user").wait_for(1);
}
