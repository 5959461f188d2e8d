//! What is said of the client and the sender: SPF and iprev.

use std::time::Duration;

use gatepost::mail::address::Address;
use gatepost::mail::address::Host;
use gatepost::verify::Config;
use gatepost::verify::IprevResult;
use gatepost::verify::SpfIdentity;
use gatepost::verify::SpfResult;
use gatepost::verify::Verifier;

use crate::support::dns::Nameserver;
use crate::verify::domain;
use crate::verify::verifier;

const ZONE: &str = "
    ok.example TXT v=spf1 ip4:192.0.2.0/24 -all
    explained.example TXT v=spf1 -all exp=why.example
    why.example TXT %{i} may not send for %{d}, see https://%{d}/?s=%{S}&r=%{r}
    dirty.example TXT v=spf1 -all exp=dirt.example
    unexplained.example TXT v=spf1 -all exp=silent.example
    dirt.example TXT 550 ok %{h}
    two.example TXT v=spf1 -all
    two.example TXT v=spf1 +all
    bad.example TXT v=spf1 ip4:nonsense -all
    broken.example SERVFAIL
    silent.example TIMEOUT
    loop.example TXT v=spf1 include:loop.example -all
    void2.example TXT v=spf1 a:n1.example mx:n2.example ip4:192.0.2.1 -all
    void3.example TXT v=spf1 a:n1.example mx:n2.example exists:n3.example ip4:192.0.2.1 -all
    v4only.example TXT v=spf1 a:h1.example a:h2.example a:h3.example -all
    h1.example A 192.0.2.11
    h2.example A 192.0.2.12
    h3.example A 192.0.2.13
    eleven.example TXT v=spf1 a:h1.example a:h1.example a:h1.example a:h1.example a:h1.example a:h1.example a:h1.example a:h1.example a:h1.example a:h1.example a:h1.example -all
    mx.helo.example TXT v=spf1 ip4:192.0.2.1 -all

    1.2.0.192.in-addr.arpa PTR good.example
    good.example A 192.0.2.1
    2.2.0.192.in-addr.arpa PTR liar.example
    liar.example A 192.0.2.99
    3.2.0.192.in-addr.arpa PTR liar.example
    3.2.0.192.in-addr.arpa PTR second.example
    second.example A 192.0.2.3
    4.2.0.192.in-addr.arpa PTR broken.example
    5.2.0.192.in-addr.arpa SERVFAIL
";

async fn spf(verifier: &Verifier, ip: &str, sender: &str) -> (SpfResult, Option<String>) {
    let helo = Host::parse("mx.helo.example").unwrap();
    let sender = Address::parse(sender).unwrap();
    let spf = verifier
        .spf_sender(ip.parse().unwrap(), &helo, &sender)
        .await;
    assert_eq!(spf.identity, SpfIdentity::MailFrom);
    (spf.result, spf.explanation)
}

#[tokio::test]
async fn a_sender_is_checked_by_the_record_of_its_domain() {
    let server = Nameserver::with(ZONE);
    let verifier = verifier(&server);
    for (sender, ip, want) in [
        ("a@ok.example", "192.0.2.1", SpfResult::Pass),
        ("a@ok.example", "::ffff:192.0.2.1", SpfResult::Pass),
        ("a@ok.example", "198.51.100.1", SpfResult::Fail),
        ("a@ok.example", "2001:db8::1", SpfResult::Fail),
        ("a@nobody.example", "192.0.2.1", SpfResult::None),
        ("a@[192.0.2.1]", "192.0.2.1", SpfResult::None),
        ("a@localhost", "192.0.2.1", SpfResult::None),
        ("a@two.example", "192.0.2.1", SpfResult::PermError),
        ("a@bad.example", "192.0.2.1", SpfResult::PermError),
        ("a@broken.example", "192.0.2.1", SpfResult::TempError),
        ("a@loop.example", "192.0.2.1", SpfResult::PermError),
        ("a@eleven.example", "192.0.2.1", SpfResult::PermError),
        // Two terms may find nothing, three may not.
        ("a@void2.example", "192.0.2.1", SpfResult::Pass),
        ("a@void3.example", "192.0.2.1", SpfResult::PermError),
    ] {
        let (result, _) = spf(&verifier, ip, sender).await;
        assert_eq!(result, want, "{sender} from {ip}");
    }
}

#[tokio::test]
async fn an_explanation_is_expanded_and_fit_for_a_reply() {
    let server = Nameserver::with(ZONE);
    let verifier = verifier(&server);
    let (result, explanation) = spf(&verifier, "192.0.2.1", "\"a b\"@explained.example").await;
    assert_eq!(result, SpfResult::Fail);
    assert_eq!(
        explanation.as_deref(),
        Some(
            "192.0.2.1 may not send for explained.example, see \
             https://explained.example/?s=%22a%20b%22%40explained.example&r=mx.example.net"
        )
    );
    let (_, explanation) = spf(&verifier, "192.0.2.1", "a@dirty.example").await;
    assert_eq!(explanation.as_deref(), Some("550 ok mx.helo.example"));
}

#[tokio::test]
async fn a_check_that_takes_too_long_is_a_temporary_error() {
    let server = Nameserver::with(ZONE);
    let config = Config {
        spf_deadline: Duration::from_millis(300),
        ..Config::default()
    };
    let verifier = Verifier::new(server.dns(), &domain("mx.example.net"), &config);
    let (result, _) = spf(&verifier, "192.0.2.1", "a@silent.example").await;
    assert_eq!(result, SpfResult::TempError);
}

#[tokio::test]
async fn later_terms_are_asked_about_while_an_earlier_one_is_waited_for() {
    let server = Nameserver::with(
        "slow.example TXT v=spf1 include:silent.example a:a.example include:b.example -all
         silent.example TIMEOUT
         a.example A 192.0.2.9
         b.example TXT v=spf1 mx ip4:192.0.2.0/24 exists:%{i}.c.example -all
         b.example MX 10 mx.example",
    );
    let config = Config {
        spf_deadline: Duration::from_secs(1),
        ..Config::default()
    };
    let verifier = Verifier::new(server.dns(), &domain("mx.example.net"), &config);
    let (result, _) = spf(&verifier, "192.0.2.1", "a@slow.example").await;
    assert_eq!(result, SpfResult::TempError);
    for question in [
        "a.example A",
        "b.example TXT",
        "b.example MX",
        "mx.example A",
    ] {
        assert_eq!(server.times_asked(question), 1, "{question}");
    }
    // Behind what is sure to match.
    assert_eq!(server.times_asked("192.0.2.1.c.example A"), 0);
}

#[tokio::test]
async fn a_helo_name_is_checked_and_a_literal_has_no_record() {
    let server = Nameserver::with(ZONE);
    let verifier = verifier(&server);
    for (helo, want) in [
        ("mx.helo.example", SpfResult::Pass),
        ("explained.example", SpfResult::Fail),
        ("[192.0.2.1]", SpfResult::None),
    ] {
        let host = Host::parse(helo).unwrap();
        let spf = verifier.spf_helo("192.0.2.1".parse().unwrap(), &host).await;
        assert_eq!(
            (spf.result, spf.identity),
            (want, SpfIdentity::Helo),
            "{helo}"
        );
        assert_eq!(spf.domain, helo);
    }
}

#[tokio::test]
async fn a_name_counts_only_where_it_leads_back() {
    let server = Nameserver::with(ZONE);
    let verifier = verifier(&server);
    for (ip, want, name) in [
        ("192.0.2.1", IprevResult::Pass, Some("good.example")),
        ("::ffff:192.0.2.1", IprevResult::Pass, Some("good.example")),
        ("192.0.2.2", IprevResult::Fail, None),
        ("192.0.2.3", IprevResult::Pass, Some("second.example")),
        ("192.0.2.4", IprevResult::TempError, None),
        ("192.0.2.5", IprevResult::TempError, None),
        ("192.0.2.6", IprevResult::PermError, None),
    ] {
        let iprev = verifier.iprev(ip.parse().unwrap()).await;
        let found = iprev.name.as_ref().map(|name| name.as_str());
        assert_eq!((iprev.result, found), (want, name), "{ip}");
    }
}

#[tokio::test]
async fn a_fail_stands_however_long_its_explanation_takes() {
    let server = Nameserver::with(ZONE);
    let config = Config {
        spf_deadline: Duration::from_millis(500),
        ..Config::default()
    };
    let verifier = Verifier::new(server.dns(), &domain("mx.example.net"), &config);
    let found = spf(&verifier, "192.0.2.1", "a@unexplained.example").await;
    assert_eq!(found, (SpfResult::Fail, None));
}
