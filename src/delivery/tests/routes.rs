//! How a route is gone: what is asked of TLS, who logs in, what the next hop is told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::Connection;
use super::HELLO;
use super::ID;
use super::Server;
use super::TAKEN;
use super::attempt;
use super::delivery;
use super::envelope;
use crate::delivery::Answer;
use crate::delivery::Config;
use crate::delivery::Delivery;
use crate::delivery::Fate;
use crate::delivery::Outcome;
use crate::delivery::Target;
use crate::delivery::next_hop::NextHop;
use crate::delivery::outcome::Handover;
use crate::delivery::route::Route;
use crate::delivery::route::Tls;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::Host;
use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;

const OFFERS_TLS: &str = "S 250-x|250-PIPELINING|250 STARTTLS";

/// A target at the server, whose route is gone as told.
fn by(server: &Server, change: impl FnOnce(&mut Route)) -> Target {
    let to = format!("smtp:127.0.0.1:{}", server.port);
    let mut route = Route::to(NextHop::parse(&to).unwrap());
    change(&mut route);
    Target::new(&Arc::new(route), &Host::parse("y.example").unwrap())
}

/// A connection that is used once.
fn once() -> Config {
    let mut config = Config::default();
    config.reuse.connections = 0;
    config
}

async fn one(delivery: &Delivery, target: &Target) -> String {
    attempt(delivery, target, &["a@y.example"]).await.remove(0)
}

#[tokio::test]
async fn a_route_that_wants_tls_sends_nothing_without() {
    const NOT_OFFERED: Connection = &["S 220 hi", "C EHLO", "S 250 x"];
    const REFUSED: Connection = &[
        "S 220 hi",
        "C EHLO",
        OFFERS_TLS,
        "C STARTTLS",
        "S 454 4.7.0 not now",
    ];
    const BROKEN: Connection = &["S 220 hi", "C EHLO", OFFERS_TLS, "C STARTTLS", "S 220 go"];
    for tls in [Tls::Encrypt, Tls::Verify] {
        for (script, want) in [
            (NOT_OFFERED, "the server offers no TLS"),
            (REFUSED, "454 4.7.0 not now"),
            (BROKEN, "TLS with 127.0.0.1[127.0.0.1]"),
        ] {
            let scripts: &'static [Connection] = Box::leak(Box::new([script]));
            let server = Server::start(&[], scripts).await;
            let target = by(&server, |route| route.tls = Some(tls));
            let outcome = one(&delivery(&once()), &target).await;
            assert!(
                outcome.starts_with(&format!("deferred Destination {want}")),
                "{tls:?}: {outcome}"
            );
            server.messages().await;
        }
    }
}

#[tokio::test]
async fn any_certificate_encrypts_and_only_a_trusted_one_is_verified() {
    const ENCRYPTED: Connection = &[
        "S 220 hi",
        "C EHLO",
        OFFERS_TLS,
        "C STARTTLS",
        "S 220 go",
        "tls",
        "C EHLO",
        "S 250 x",
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 taken",
    ];
    let server = Server::start(&[], &[ENCRYPTED]).await;
    let target = by(&server, |route| route.tls = Some(Tls::Encrypt));
    assert_eq!(
        one(&delivery(&once()), &target).await,
        "delivered 250 taken"
    );

    const UNTRUSTED: Connection = &[
        "S 220 hi",
        "C EHLO",
        OFFERS_TLS,
        "C STARTTLS",
        "S 220 go",
        "no tls",
    ];
    let server = Server::start(&[], &[UNTRUSTED]).await;
    let target = by(&server, |route| route.tls = Some(Tls::Verify));
    let outcome = one(&delivery(&once()), &target).await;
    // Where the machine has no roots, nothing can be verified, and the reason is another one.
    assert!(outcome.starts_with("deferred Destination "), "{outcome}");
    assert!(
        outcome.contains("TLS with ") || outcome.contains("can be verified"),
        "{outcome}"
    );
}

#[tokio::test]
async fn where_tls_comes_first_nothing_is_said_before_it() {
    const ENCRYPTED: Connection = &[
        "tls",
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 AUTH PLAIN",
        "C AUTH PLAIN AHVzZXIAcGVuY2ls\r\n",
        "S 235 2.7.0 in",
        "C MAIL",
        "S 550 no",
    ];
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "pencil\n").unwrap();
    let server = Server::start(&[], &[ENCRYPTED]).await;
    let target = by(&server, |route| {
        route.implicit_tls = true;
        route.tls = Some(Tls::Encrypt);
        route.login = Some("user".to_owned());
        route.password_file = Some(password);
    });
    assert_eq!(one(&delivery(&once()), &target).await, "failed 550 no");

    for (tls, script) in [
        (Tls::Encrypt, &["S 220 hi"] as Connection),
        (Tls::Verify, &["no tls"]),
    ] {
        let scripts: &'static [Connection] = Box::leak(Box::new([script]));
        let server = Server::start(&[], scripts).await;
        let target = by(&server, |route| {
            route.implicit_tls = true;
            route.tls = Some(tls);
        });
        let outcome = one(&delivery(&once()), &target).await;
        assert!(outcome.starts_with("deferred Destination "), "{outcome}");
    }
}

#[tokio::test]
async fn a_server_with_which_tls_did_not_come_off_is_not_asked_for_it_again() {
    const BROKEN: Connection = &["S 220 hi", "C EHLO", OFFERS_TLS, "C STARTTLS", "S 220 go"];
    const PLAIN: Connection = &[
        "S 220 hi",
        "C EHLO",
        OFFERS_TLS,
        "C MAIL",
        "C RCPT",
        "C DATA",
        "S 250 ok|250 ok|354 go",
        "message",
        "S 250 taken",
    ];
    let server = Server::start(&[], &[BROKEN, PLAIN, PLAIN]).await;
    let (delivery, target) = (delivery(&once()), server.target("smtp"));
    for _ in 0..2 {
        assert_eq!(one(&delivery, &target).await, "delivered 250 taken");
    }
    assert_eq!(server.messages().await.len(), 2);
}

#[tokio::test]
async fn who_takes_nothing_in_the_clear_is_tried_again_where_tls_did_not_come_off() {
    const BROKEN: Connection = &["S 220 hi", "C EHLO", OFFERS_TLS, "C STARTTLS", "S 220 go"];
    const PLAIN: Connection = &[
        "S 220 hi",
        "C EHLO",
        OFFERS_TLS,
        "C MAIL",
        "C RCPT",
        "C DATA",
        "S 530 5.7.0 Must issue a STARTTLS command first|530 x|530 x",
    ];
    const NO_TLS_TO_BE_HAD: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250 x",
        "C MAIL",
        "S 530 5.7.1 log in first",
    ];
    let server = Server::start(&[], &[BROKEN, PLAIN, NO_TLS_TO_BE_HAD]).await;
    let (delivery, target) = (delivery(&once()), server.target("smtp"));
    assert_eq!(
        one(&delivery, &target).await,
        "deferred Destination 530 5.7.0 Must issue a STARTTLS command first"
    );
    assert_eq!(
        one(&delivery, &target).await,
        "failed 530 5.7.1 log in first"
    );
}

#[tokio::test]
async fn a_route_without_tls_does_not_take_the_offer() {
    const PLAIN: Connection = &[
        "S 220 hi",
        "C EHLO out.example",
        OFFERS_TLS,
        "C MAIL",
        "C RCPT",
        "C DATA",
        "S 550 no|503 x|503 x",
    ];
    let server = Server::start(&[], &[PLAIN]).await;
    let target = by(&server, |route| {
        route.tls = Some(Tls::None);
        route.hello = Some(Domain::parse("out.example").unwrap());
    });
    assert_eq!(one(&delivery(&once()), &target).await, "failed 550 no");
}

fn logging_in(server: &Server, password: PathBuf) -> Target {
    by(server, |route| {
        route.tls = Some(Tls::Encrypt);
        route.login = Some("user".to_owned());
        route.password_file = Some(password);
    })
}

const UNDER_TLS: [&str; 7] = [
    "S 220 hi",
    "C EHLO",
    "S 250-x|250-AUTH PLAIN|250 STARTTLS",
    "C STARTTLS",
    "S 220 go",
    "tls",
    "C EHLO",
];

#[tokio::test]
async fn a_login_comes_before_the_first_message_and_once_a_connection() {
    const SCRIPT: Connection = &[
        "S 250-x|250 AUTH GSSAPI PLAIN",
        "C AUTH PLAIN AHVzZXIAcGVuY2ls\r\n",
        "S 235 2.7.0 in",
        "C MAIL",
        "S 250 ok",
        "C RCPT",
        "S 550 no",
        "C RSET",
        "S 250 ok",
        "C MAIL",
    ];
    let server = Server::start(&UNDER_TLS, &[SCRIPT]).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "pencil\nand a comment\n").unwrap();
    let (delivery, target) = (delivery(&Config::default()), logging_in(&server, password));
    assert_eq!(one(&delivery, &target).await, "failed 550 no");
    one(&delivery, &target).await;
    server.messages().await;
}

#[tokio::test]
async fn who_is_not_let_in_waits_and_fails_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "pencil\n").unwrap();
    let missing = folder.path().join("none");
    for (script, file, want) in [
        (
            &[
                "S 250-x|250 AUTH PLAIN",
                "C AUTH PLAIN",
                "S 535 5.7.8 wrong password",
            ] as Connection,
            &password,
            "535 5.7.8 wrong password",
        ),
        (
            &["S 250-x|250 AUTH XOAUTH2"],
            &password,
            "the server offers no AUTH of",
        ),
        (
            &["S 250-x|250 AUTH LOGIN", "C AUTH LOGIN", "S 235 in already"],
            &password,
            "cannot log in",
        ),
        (
            &[
                "S 250-x|250 AUTH SCRAM-SHA-256",
                "C AUTH SCRAM-SHA-256",
                "S 334 !",
                "C *",
                "S 501 ok",
            ],
            &password,
            "cannot log in",
        ),
        (
            &["S 250-x|250 AUTH PLAIN"],
            &missing,
            "cannot read the password",
        ),
    ] {
        let scripts: &'static [Connection] = Box::leak(Box::new([script]));
        let server = Server::start(&UNDER_TLS, scripts).await;
        let target = logging_in(&server, file.clone());
        let outcome = one(&delivery(&once()), &target).await;
        let want = format!("deferred Destination {want}");
        assert!(outcome.starts_with(&want), "{outcome} instead of {want}");
    }
}

#[tokio::test]
async fn recipients_that_are_too_many_go_in_another_transaction() {
    const SCRIPT: Connection = &[
        "C MAIL",
        "S 250 ok",
        "C RCPT TO:<a@",
        "S 250 ok",
        "C RCPT TO:<b@",
        "S 452 4.5.3 one is enough",
        "C RCPT TO:<c@",
        "S 550 no c",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 a",
        "C MAIL",
        "S 250 ok",
        "C RCPT TO:<b@",
        "S 250 ok",
        "C DATA",
        "S 354 go",
        "message",
        "S 250 b",
        // Where nobody gets on, they are put off.
        "C MAIL",
        "S 250 ok",
        "C RCPT TO:<a@",
        "S 452 4.5.3 none",
        "C RSET",
        "S 250 ok",
    ];
    let server = Server::start(&HELLO, &[SCRIPT]).await;
    let (delivery, target) = (delivery(&Config::default()), server.target("smtp"));
    let outcomes = attempt(
        &delivery,
        &target,
        &["a@y.example", "b@y.example", "c@y.example"],
    )
    .await;
    assert_eq!(
        outcomes,
        ["delivered 250 a", "delivered 250 b", "failed 550 no c"]
    );
    assert_eq!(
        one(&delivery, &target).await,
        "deferred Message 452 4.5.3 none"
    );
    assert_eq!(server.messages().await.len(), 2);
}

/// The same message, from a client.
async fn from_a_client(delivery: &Delivery, target: &Target) -> Outcome {
    let client: IpAddr = "192.0.2.7".parse().unwrap();
    let envelope = Envelope {
        client: Some(client),
        hello: Some("pc.example".to_owned()),
        ..envelope(&["a@y.example"])
    };
    let content = Content::from(Bytes::from_static(b"A: b\r\n\r\n"));
    let mut outcomes = delivery
        .attempt(target, ID, &envelope, &[0], &content)
        .await;
    outcomes.remove(0)
}

#[tokio::test]
async fn a_next_hop_is_told_for_each_message_whose_it_is() {
    const SCRIPT: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 XFORWARD ADDR IDENT",
        "C XFORWARD ADDR=192.0.2.7 IDENT=",
        "S 250 ok",
        "C MAIL",
        "S 550 no",
        "C XFORWARD ADDR=192.0.2.7",
        "S 550 not from you",
        "C MAIL",
        "S 551 no",
    ];
    let server = Server::start(&[], &[SCRIPT]).await;
    let target = by(&server, |route| route.xforward = true);
    let delivery = delivery(&Config::default());
    for code in [550, 551] {
        assert_eq!(from_a_client(&delivery, &target).await.reply.code, code);
    }
}

#[tokio::test]
async fn a_next_hop_that_takes_us_for_the_client_is_greeted_anew() {
    const SCRIPT: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250-PIPELINING|250 XCLIENT NAME ADDR",
        "C XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7\r\n",
        "S 220 hi again",
        "C EHLO pc.example\r\n",
        "S 250-x|250 XCLIENT NAME ADDR",
        "C MAIL",
        "S 550 no",
    ];
    let server = Server::start(&[], &[SCRIPT]).await;
    let target = by(&server, |route| route.xclient = true);
    let outcome = from_a_client(&delivery(&once()), &target).await;
    assert_eq!(outcome.reply.code, 550);
    let peer = outcome.peer.unwrap().to_string();
    assert_eq!(peer, format!("127.0.0.1[127.0.0.1]:{}", server.port));
}

#[tokio::test]
async fn nothing_of_ours_goes_as_the_client_of_an_earlier_message() {
    const AS_CLIENT: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 XCLIENT ADDR",
        "C XCLIENT ADDR=192.0.2.7\r\n",
        "S 220 hi again",
        "C EHLO",
        "S 250-x|250 XCLIENT ADDR",
        "C MAIL",
        "S 550 no",
    ];
    const REFUSED: Connection = &[
        "S 220 hi",
        "C EHLO",
        "S 250-x|250 XCLIENT ADDR",
        "C XCLIENT ADDR=192.0.2.7\r\n",
        "S 501 5.5.4 not this one",
        "C MAIL",
        "S 551 no",
    ];
    const OURS: Connection = &["S 220 hi", "C EHLO", "S 250 x", "C MAIL", "S 552 no"];
    const ASKED: Connection = &[
        "S 220 hi", "C EHLO", "S 250 x", "C MAIL", "S 250 ok", "C RCPT", "S 250 ok", "C RSET",
        "S 250 ok",
    ];
    let again = &[AS_CLIENT, &["C XCLIENT", "S 501 5.5.4 no"]]
        .concat()
        .leak()[..];
    let scripts: &'static [Connection] = Box::leak(Box::new([
        again, REFUSED, AS_CLIENT, OURS, AS_CLIENT, ASKED,
    ]));
    let server = Server::start(&[], scripts).await;
    let target = by(&server, |route| route.xclient = true);
    let delivery = delivery(&Config::default());
    // A refusal is one for the client before.
    assert_eq!(from_a_client(&delivery, &target).await.reply.code, 550);
    assert_eq!(from_a_client(&delivery, &target).await.reply.code, 551);
    // A message of our own.
    delivery.close().await;
    assert_eq!(from_a_client(&delivery, &target).await.reply.code, 550);
    assert_eq!(one(&delivery, &target).await, "failed 552 no");
    // A question of our own.
    delivery.close().await;
    assert_eq!(from_a_client(&delivery, &target).await.reply.code, 550);
    let recipient = Recipient::new(Address::parse("a@y.example").unwrap());
    let answer = delivery.probe(&target, &recipient).await;
    assert_eq!(answer, Answer::Exists);
    server.messages().await;
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_followed_by_the_next() {
    // Nobody listens at ::1 of this port, or what does is no mail server.
    let server = Server::start(&HELLO, &[&TAKEN]).await;
    let target = Target::parse(&format!("smtp:localhost:{}", server.port)).unwrap();
    assert_eq!(
        one(&delivery(&once()), &target).await,
        "delivered 250 taken"
    );
}

#[tokio::test]
async fn a_family_without_a_source_is_not_used() {
    let server = Server::start(&HELLO, &[&TAKEN]).await;
    let delivery = delivery(&once());
    let v6 = by(&server, |route| route.source = vec!["::1".parse().unwrap()]);
    let outcome = one(&delivery, &v6).await;
    assert!(outcome.contains("no address of a family"), "{outcome}");
    let v4 = by(&server, |route| {
        route.source = vec!["127.0.0.1".parse().unwrap()]
    });
    assert_eq!(one(&delivery, &v4).await, "delivered 250 taken");
}

#[tokio::test]
async fn who_was_told_a_senders_wishes_is_told_apart_from_who_was_not() {
    for (hello, scheme, want) in [
        ("S 250-x|250 DSN", "smtp", Handover::WishesPassedOn),
        ("S 250 x", "smtp", Handover::WishesUnknown),
        ("S 250-x|250 DSN", "lmtp", Handover::Final),
    ] {
        let script = [&["S 220 hi", "C ", hello], &TAKEN[..]].concat();
        let scripts: &'static [Connection] = Box::leak(Box::new([&*script.leak()]));
        let server = Server::start(&[], scripts).await;
        let (delivery, target) = (delivery(&once()), server.target(scheme));
        let content = Content::from(Bytes::from_static(b"A: b\r\n\r\n"));
        let envelope = envelope(&["a@y.example"]);
        let outcomes = delivery
            .attempt(&target, ID, &envelope, &[0], &content)
            .await;
        assert_eq!(outcomes[0].fate, Fate::Delivered(want), "{hello} {scheme}");
    }
}

#[tokio::test]
async fn idle_connections_are_bounded_over_all_destinations() {
    const CLOSED: Connection = &["C MAIL", "S 550 no", "C QUIT"];
    let first = Server::start(&HELLO, &[&["C MAIL", "S 550 no", "C MAIL", "S 551 no"]]).await;
    let second = Server::start(&HELLO, &[CLOSED]).await;
    let mut config = Config::default();
    config.reuse.connections_in_all = 1;
    let delivery = delivery(&config);
    for (server, want) in [
        (&first, "failed 550 no"),
        (&second, "failed 550 no"),
        (&first, "failed 551 no"),
    ] {
        assert_eq!(one(&delivery, &server.target("smtp")).await, want);
    }
    second.messages().await;
}
