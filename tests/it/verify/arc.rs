//! Chains of ARC seals: intact, touched, and such that cannot be whole.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gatepost::dns::Dns;
use gatepost::verify::Arc;
use gatepost::verify::ArcResult;
use mail_auth::AuthenticatedMessage;
use mail_auth::AuthenticationResults;
use mail_auth::Parameters;
use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;

use crate::support::dns::Nameserver;
use crate::verify::verifier;

const MESSAGE: &str =
    "From: a@example.com\r\nTo: b@example.net\r\nSubject: x\r\n\r\nbody  of it\r\n\r\n";

/// Somebody who forwards: a domain and its key.
struct Forwarder {
    domain: &'static str,
    key: Vec<u8>,
}

impl Forwarder {
    fn new(domain: &'static str) -> Forwarder {
        let key = Ed25519Key::generate_pkcs8().unwrap();
        Forwarder { domain, key }
    }

    fn key(&self) -> Ed25519Key {
        Ed25519Key::from_pkcs8_der(&self.key).unwrap()
    }

    fn zone(&self) -> String {
        let public = STANDARD.encode(self.key().public_key());
        format!(
            "arc._domainkey.{} TXT v=DKIM1; k=ed25519; p={public}\n",
            self.domain
        )
    }

    /// The message with one more set.
    async fn forward(&self, dns: &Dns, message: &str) -> String {
        let parsed = AuthenticatedMessage::parse(message.as_bytes()).unwrap();
        let parameters = Parameters::new(&parsed).with_txt_cache(dns.keys());
        let chain = dns.authenticator().verify_arc(parameters).await;
        let results = AuthenticationResults::new(self.domain);
        let set = ArcSealer::from_key(self.key())
            .domain(self.domain)
            .selector("arc")
            .headers(["From", "To", "Subject"])
            .seal(&parsed, &results, &chain)
            .unwrap();
        set.to_header() + message
    }
}

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
