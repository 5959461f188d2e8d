//! Answers, errors, deadlines and memory of the resolver.

use std::time::Duration;
use std::time::Instant;

use futures_util::future::join_all;
use gatepost::dns;
use gatepost::dns::Dns;
use gatepost::dns::Error;
use gatepost::dns::Existence;

use crate::support::dns::Nameserver;
use crate::verify::domain;

const ZONE: &str = "
    both.example A 192.0.2.1
    both.example AAAA 2001:db8::1
    four.example A 192.0.2.4
    alias.example CNAME four.example
    txt.example TXT hello
    mail.example MX 20 b.example
    mail.example MX 10 A.example
    1.2.0.192.in-addr.arpa PTR both.example
    2.2.0.192.in-addr.arpa PTR not..a..name!
    broken.example SERVFAIL
    silent.example TIMEOUT
    half.example A 192.0.2.5
    half.example TIMEOUT
";

/// Answers in so little time that silence does not hold a test up.
fn impatient(server: &Nameserver) -> Dns {
    Dns::new(&dns::Config {
        timeout: Duration::from_millis(300),
        deadline: Duration::from_millis(500),
        ..server.config()
    })
    .unwrap()
}

#[tokio::test]
async fn addresses_are_those_of_both_families_or_of_either() {
    let server = Nameserver::with(ZONE);
    let dns = server.dns();
    for (name, want) in [
        ("both.example", &["2001:db8::1", "192.0.2.1"][..]),
        ("four.example", &["192.0.2.4"]),
        ("alias.example", &["192.0.2.4"]),
    ] {
        let found = dns.addresses(&domain(name)).await.unwrap();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, want, "{name}");
    }
    // One family has no answer at all; the other is enough.
    let found = impatient(&server).addresses(&domain("half.example")).await;
    assert_eq!(found.unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_there_and_no_answer_are_told_apart() {
    let server = Nameserver::with(ZONE);
    let dns = server.dns();
    for name in ["nobody.example", "txt.example"] {
        let found = dns.addresses(&domain(name)).await;
        assert_eq!(found, Err(Error::NotFound), "{name}");
    }
    let found = dns.addresses(&domain("broken.example")).await;
    assert!(matches!(found, Err(Error::Temporary(_))), "{found:?}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let server = Nameserver::with(ZONE);
    let begin = Instant::now();
    let found = impatient(&server).txt("silent.example").await;
    assert!(matches!(found, Err(Error::Temporary(_))), "{found:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn existence_is_not_having_an_address() {
    let server = Nameserver::with(ZONE);
    let dns = server.dns();
    for (name, want) in [
        ("both.example", Existence::Exists),
        ("txt.example", Existence::Exists),
        ("in-addr.arpa", Existence::Exists),
        ("nobody.example", Existence::DoesNotExist),
    ] {
        assert_eq!(dns.existence(&domain(name)).await, Ok(want), "{name}");
    }
    assert!(dns.existence(&domain("broken.example")).await.is_err());
}

#[tokio::test]
async fn exchangers_come_best_first_and_names_that_are_none_are_left_out() {
    let server = Nameserver::with(ZONE);
    let dns = server.dns();
    assert_eq!(
        dns.mx("mail.example").await.unwrap(),
        [(10, "A.example".to_owned()), (20, "b.example".to_owned())]
    );
    let names = dns.reverse("192.0.2.1".parse().unwrap()).await;
    assert_eq!(names, Ok(vec![domain("both.example")]));
    for ip in ["192.0.2.2", "192.0.2.3", "2001:db8::1"] {
        let names = dns.reverse(ip.parse().unwrap()).await;
        assert_eq!(names, Err(Error::NotFound), "{ip}");
    }
}

#[tokio::test]
async fn an_answer_good_or_empty_is_asked_for_once() {
    let server = Nameserver::with(ZONE);
    let dns = server.dns();
    for _ in 0..3 {
        assert!(dns.txt("txt.example").await.is_ok());
        assert_eq!(dns.txt("nobody.example").await, Err(Error::NotFound));
        assert!(dns.txt("broken.example").await.is_err());
    }
    assert_eq!(server.times_asked("txt.example TXT"), 1);
    assert_eq!(server.times_asked("nobody.example TXT"), 1);
    // An error is worth another question.
    assert!(server.times_asked("broken.example TXT") >= 3);
}

#[tokio::test]
async fn equal_questions_at_once_go_out_once() {
    let server = Nameserver::with(ZONE);
    server.away(Duration::from_millis(200));
    let dns = server.dns();
    let found = join_all((0..256).map(|_| dns.txt("txt.example"))).await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(server.questions(), 1);
}

#[tokio::test]
async fn the_bounds_hold_whatever_the_ttl() {
    let server = Nameserver::with(ZONE);
    let forgetful = Dns::new(&dns::Config {
        max_ttl: Duration::ZERO,
        negative_min_ttl: Duration::ZERO,
        negative_max_ttl: Duration::ZERO,
        ..server.config()
    })
    .unwrap();
    for _ in 0..2 {
        assert!(forgetful.txt("txt.example").await.is_ok());
        assert_eq!(forgetful.txt("nobody.example").await, Err(Error::NotFound));
    }
    assert_eq!(server.times_asked("txt.example TXT"), 2);
    assert_eq!(server.times_asked("nobody.example TXT"), 2);
}

#[tokio::test]
async fn what_does_not_fit_in_a_datagram_comes_over_tcp() {
    let server = Nameserver::start();
    let long = "x".repeat(9000);
    server.txt("long.example", &long);
    let found = server.dns().txt("long.example").await.unwrap();
    assert_eq!(found, [long.into_bytes()]);
}
