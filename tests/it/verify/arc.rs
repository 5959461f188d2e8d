//! Chains of ARC seals: intact, touched, and such that cannot be whole.

use gatepost::verify::Arc;
use gatepost::verify::ArcResult;

use crate::support::dns::Nameserver;
use crate::support::mails::Forwarder;
use crate::verify::verifier;

const MESSAGE: &str =
    "From: a@example.com\r\nTo: b@example.net\r\nSubject: x\r\n\r\nbody  of it\r\n\r\n";

async fn chain(server: &Nameserver, message: &str) -> Arc {
    verifier(server).message(message.as_bytes(), &[]).await.arc
}

#[tokio::test]
async fn an_intact_chain_names_its_sealers_oldest_first() {
    let (one, two) = (Forwarder::new("one.example"), Forwarder::new("two.example"));
    let server = Nameserver::with(&(one.zone() + &two.zone()));
    let dns = server.dns();
    let once = one.forward(&dns, MESSAGE).await;
    let twice = two.forward(&dns, &once).await;
    for (message, sealers) in [
        (once.as_str(), &["one.example"][..]),
        (twice.as_str(), &["one.example", "two.example"]),
    ] {
        let arc = chain(&server, message).await;
        assert_eq!(arc.result, ArcResult::Pass, "{message}");
        assert_eq!(arc.sealers, sealers);
    }
    for (from, to) in [
        ("body", "text"),
        ("Subject: x", "Subject: y"),
        ("i=1", "i=3"),
        ("cv=none", "cv=pass"),
        ("cv=pass", "cv=fail"),
        ("s=arc", "s=none"),
        ("a=ed25519-sha256", "a=rsa-sha1"),
    ] {
        assert!(twice.contains(from), "{from} is not in {twice}");
        let arc = chain(&server, &twice.replacen(from, to, 1)).await;
        assert_eq!(arc.result, ArcResult::Fail, "{to}");
        assert!(arc.sealers.is_empty(), "{to}");
    }
}

#[tokio::test]
async fn a_chain_that_cannot_be_whole_fails() {
    let one = Forwarder::new("one.example");
    let server = Nameserver::with(&one.zone());
    let seal = "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=a.example; s=s; b=AA\r\n";
    for (fields, want) in [
        (String::new(), ArcResult::None),
        ("ARC-Seal: i=1\r\n".to_owned(), ArcResult::Fail),
        (seal.to_owned(), ArcResult::Fail),
        (seal.repeat(60), ArcResult::Fail),
        (
            "ARC-Authentication-Results: i=1; a.example\r\n".to_owned(),
            ArcResult::Fail,
        ),
    ] {
        let arc = chain(&server, &format!("{fields}{MESSAGE}")).await;
        assert_eq!(arc.result, want, "{fields}");
    }
}

#[tokio::test]
async fn a_chain_whose_key_has_no_answer_is_not_a_failed_one() {
    let one = Forwarder::new("one.example");
    let server = Nameserver::with(&one.zone());
    let sealed = one.forward(&server.dns(), MESSAGE).await;
    let broken = Nameserver::with("arc._domainkey.one.example SERVFAIL");
    let arc = chain(&broken, &sealed).await;
    assert_eq!(arc.result, ArcResult::TempError);
    assert_eq!(arc.sealers, ["one.example"]);
}

#[tokio::test]
async fn a_chain_that_does_not_sign_the_author_fails() {
    let mut careless = Forwarder::new("one.example");
    careless.signs = &["To", "Subject"];
    let server = Nameserver::with(&careless.zone());
    let sealed = careless.forward(&server.dns(), MESSAGE).await;
    assert_eq!(chain(&server, &sealed).await.result, ArcResult::Fail);
}
