//! How routes are gone, against Postfix: logins that Dovecot checks, XCLIENT and XFORWARD; and against
//! a smtp-sink that fails at each step.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use gatepost::delivery::Config;
use gatepost::delivery::Delivery;
use gatepost::delivery::Fate;
use gatepost::delivery::Outcome;
use gatepost::delivery::Target;
use gatepost::delivery::next_hop::NextHop;
use gatepost::delivery::outcome::Cause;
use gatepost::delivery::outcome::Handover;
use gatepost::delivery::route::Route;
use gatepost::delivery::route::Tls;
use gatepost::dns;
use gatepost::dns::Dns;
use gatepost::mail::address::Domain;
use gatepost::mail::address::Host;
use gatepost::mail::envelope::Envelope;
use tempfile::TempDir;

use super::delivery::ID;
use super::delivery::content;
use super::delivery::envelope;
use super::delivery::sink;
use crate::support::SOON;
use crate::support::client::Client;
use crate::support::dovecot;
use crate::support::dovecot::Dovecot;
use crate::support::gateway::Site;
use crate::support::mails::mail;
use crate::support::postfix;
use crate::support::postfix::Onward;
use crate::support::postfix::Postfix;
use crate::support::wait_until;

fn by(to: &str, change: impl FnOnce(&mut Route)) -> Target {
    let mut route = Route::to(NextHop::parse(to).unwrap());
    change(&mut route);
    Target::new(&Arc::new(route), &Host::parse("gate.example").unwrap())
}

/// One attempt of a delivery that keeps no connection.
async fn attempt(target: &Target, envelope: &Envelope) -> Outcome {
    let mut config = Config::default();
    config.reuse.connections = 0;
    config.deadlines.data = Duration::from_secs(10);
    let hostname = Domain::parse("mx.example").unwrap();
    let dns = Dns::new(&dns::Config::default()).unwrap();
    let delivery = Delivery::new(&config, hostname, dns).unwrap();
    let mut outcomes = delivery
        .attempt(target, ID, envelope, &[0], &content())
        .await;
    outcomes.remove(0)
}

#[tokio::test]
async fn postfix_lets_us_in_by_each_mechanism_and_not_with_a_wrong_password() {
    if !postfix::present() || !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let folder = TempDir::new().unwrap();
    let (right, wrong) = (folder.path().join("right"), folder.path().join("wrong"));
    fs::write(&right, "secret\n").unwrap();
    fs::write(&wrong, "guess\n").unwrap();
    for mechanism in ["plain", "login", "scram-sha-256"] {
        let postfix = Postfix::start_with(
            Onward::Mailboxes,
            &format!(
                "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {}\n\
                 smtpd_tls_auth_only = yes\nsmtpd_sasl_mechanism_filter = {mechanism}\n\
                 mynetworks =\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject\n",
                dovecot.auth().display()
            ),
        );
        let envelope = envelope(&["user@gate.example"]);
        let login = |file: &std::path::Path| {
            by(&postfix.target(), |route| {
                route.tls = Some(Tls::Encrypt);
                route.login = Some("user@gate.example".to_owned());
                route.password_file = Some(file.to_owned());
            })
        };
        let outcome = attempt(&login(&right), &envelope).await;
        let want = Fate::Delivered(Handover::WishesPassedOn);
        assert_eq!(outcome.fate, want, "{mechanism}: {outcome:?}");
        let name = format!("sasl_method={}", mechanism.to_uppercase());
        assert!(postfix.log().contains(&name), "{}", postfix.log());
        if mechanism != "scram-sha-256" {
            continue;
        }
        // Once is enough: Dovecot has who guesses wait.
        let outcome = attempt(&login(&wrong), &envelope).await;
        assert_eq!(
            outcome.fate,
            Fate::Deferred(Cause::Destination),
            "{mechanism}: {outcome:?}"
        );
        assert_eq!(outcome.reply.code, 535, "{mechanism}: {outcome:?}");
        let outcome = attempt(&by(&postfix.target(), |_| ()), &envelope).await;
        assert_eq!(outcome.fate, Fate::Failed, "{outcome:?}");
    }
}

#[tokio::test]
async fn postfix_is_told_who_the_client_was() {
    if !postfix::present() {
        return;
    }
    let postfix = Postfix::start_with(
        Onward::Mailboxes,
        "smtpd_authorized_xclient_hosts = 127.0.0.1\nsmtpd_authorized_xforward_hosts = 127.0.0.1\n\
         smtpd_relay_restrictions = permit_auth_destination, reject\n",
    );
    for (client, change, logged) in [
        (
            "192.0.2.7",
            (|route| route.xclient = true) as fn(&mut Route),
            "client=unknown[192.0.2.7]",
        ),
        (
            "192.0.2.8",
            |route| route.xforward = true,
            "orig_queue_id=00000000001.1, orig_client=unknown[192.0.2.8]",
        ),
    ] {
        let envelope = Envelope {
            client: Some(client.parse().unwrap()),
            hello: Some("pc.example".to_owned()),
            ..envelope(&["user@gate.example"])
        };
        let outcome = attempt(&by(&postfix.target(), change), &envelope).await;
        assert!(matches!(outcome.fate, Fate::Delivered(_)), "{outcome:?}");
        wait_until(SOON, logged, || {
            postfix.log().contains(logged).then_some(())
        });
    }
}

#[tokio::test]
async fn a_sink_that_fails_at_a_step_fails_or_defers_what_it_was_given() {
    let envelope = envelope(&["a@y.example"]);
    let later = Fate::Deferred(Cause::Message);
    let down = Fate::Deferred(Cause::Destination);
    for (step, soft, hard) in [
        ("connect", down, down),
        // A server that does not know EHLO is greeted with HELO, and takes no 8-bit octets.
        ("ehlo", down, Fate::Failed),
        ("mail", later, Fate::Failed),
        ("rcpt", later, Fate::Failed),
        ("data", later, Fate::Failed),
        (".", later, Fate::Failed),
    ] {
        for (option, want) in [
            ("-r", vec![soft]),
            ("-f", vec![hard]),
            ("-q", vec![later, down]),
            ("-Q", vec![later, down]),
        ] {
            let Some((_running, port)) = sink(&[option, step]) else {
                return;
            };
            let target = by(&format!("smtp:127.0.0.1:{port}"), |_| ());
            let outcome = attempt(&target, &envelope).await;
            assert!(want.contains(&outcome.fate), "{option} {step}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn postfix_with_which_no_tls_comes_about_gets_plain_text_or_nothing() {
    if !postfix::present() {
        return;
    }
    // Older than anything that we speak.
    let postfix = Postfix::start_with(Onward::Mailboxes, "smtpd_tls_protocols = TLSv1\n");
    let envelope = envelope(&["user@gate.example"]);
    for (tls, want) in [
        (Tls::May, Fate::Delivered(Handover::WishesPassedOn)),
        (Tls::Encrypt, Fate::Deferred(Cause::Destination)),
        (Tls::Verify, Fate::Deferred(Cause::Destination)),
    ] {
        let target = by(&postfix.target(), |route| route.tls = Some(tls));
        let outcome = attempt(&target, &envelope).await;
        assert_eq!(outcome.fate, want, "{tls}: {outcome:?}");
    }
    assert_eq!(postfix.mailbox("user").wait_for(1).len(), 1);
    let log = postfix.log();
    assert!(log.contains("SSL_accept error"), "{log}");
}

#[test]
fn the_client_is_told_by_dovecot_that_a_mailbox_is_full() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let route = format!(
        "[routes.dovecot]\nto = \"{}\"\nthrough = true\n",
        dovecot.unix()
    );
    let site = Site::new().delivering_to("dovecot").knowing("callout");
    let gateway = site.with(&route).start();
    let mut client = Client::hello(gateway.smtp());
    let message = mail("a@client.example", "full");
    let reply = client.hand_over("a@client.example", "user@gate.example", &message);
    assert!(reply.contains("<user@gate.example>"), "{reply}");
    dovecot.mailbox("user").first();
    let reply = client.deliver("a@client.example", "full@gate.example", &message);
    assert!(reply.contains(".2.2 <full@gate.example>"), "{reply}");
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<nobody@gate.example>", "550 5.1.1");
}
