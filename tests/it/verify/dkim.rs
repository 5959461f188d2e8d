//! What signatures are worth, beside those that pass.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gatepost::verify::Config;
use gatepost::verify::DkimResult;
use gatepost::verify::Signature;
use gatepost::verify::Verifier;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;

use crate::support::dns::Nameserver;
use crate::verify::domain;
use crate::verify::key_line;
use crate::verify::signed;
use crate::verify::signer;
use crate::verify::verifier;

const MESSAGE: &str = "From: a@example.com\r\nSubject: x\r\n\r\nbody\r\n";
/// A public key of 512 bits, which anyone can break in an afternoon.
const SHORT_KEY: &str = "v=DKIM1; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL7/DrbxkP13De5UFYPmxTPuP+apMFrY0RlNouNKwYogC8LIPF787JwAp2wOVU38k4ZuaaC6vDg2NgFmna714NMCAwEAAQ==";

async fn verify(server: &Nameserver, message: &str) -> Vec<Signature> {
    verifier(server).message(message.as_bytes(), &[]).await.dkim
}

/// The one signature of a message.
async fn verify_one(server: &Nameserver, message: &str) -> Signature {
    let mut signatures = verify(server, message).await;
    assert_eq!(signatures.len(), 1, "{signatures:?}");
    signatures.remove(0)
}

#[tokio::test]
async fn a_signature_of_ours_passes_and_says_with_what_key() {
    let signer = signer("example.com");
    let server = Nameserver::with(&key_line(&signer));
    let signature = verify_one(&server, &signed(&signer, MESSAGE)).await;
    assert_eq!(signature.result, DkimResult::Pass);
    assert!(signature.counts);
    assert_eq!(signature.reason.as_deref(), Some("ed25519 key"));
    assert_eq!(signature.selector, "s1");
    assert_eq!(signature.b.len(), 8);
}

#[tokio::test]
async fn each_way_to_be_worth_nothing_has_its_result() {
    use DkimResult::Fail;
    use DkimResult::PermError;
    use DkimResult::TempError;
    let signer = signer("example.com");
    let zone = format!(
        "{}{}{}{}{}{}",
        key_line(&signer),
        "revoked._domainkey.example.com TXT v=DKIM1; p=\n",
        "broken._domainkey.example.com SERVFAIL\n",
        "nonsense._domainkey.example.com TXT v=DKIM1; p=*\n",
        format_args!(
            "sha1._domainkey.example.com TXT h=sha1; {}\n",
            signer.dns_record()
        ),
        // RFC 8460 §3: a key for reports on TLS, not for mail.
        format_args!(
            "reports._domainkey.example.com TXT s=tlsrpt; {}\n",
            signer.dns_record()
        ),
    );
    let server = Nameserver::with(&zone);
    let good = signed(&signer, MESSAGE);
    for (from, to, want) in [
        ("body", "other", Fail),
        ("Subject: x", "Subject: y", Fail),
        ("\r\nFrom: a", "\r\nFrom: b@evil.example\r\nFrom: a", Fail),
        ("t=", "x=1; t=", PermError),
        ("t=", "x=5; n=", Fail),
        ("a=ed25519-sha256", "a=rsa-sha1", Fail),
        ("a=ed25519-sha256", "a=rsa-sha256", PermError),
        ("d=example.com", "d=example.com; d=example.com", PermError),
        ("d=example.com", "d=other.example", PermError),
        (
            "d=example.com",
            "d=example.com; i=@other.example",
            PermError,
        ),
        ("s=s1", "s=none", PermError),
        ("s=s1", "s=revoked", PermError),
        ("s=s1", "s=nonsense", PermError),
        ("s=s1", "s=sha1", PermError),
        ("s=s1", "s=reports", PermError),
        ("s=s1", "s=broken", TempError),
        ("v=1", "v=2", PermError),
        ("h=", "h", PermError),
    ] {
        assert!(good.contains(from), "{from} is not in {good}");
        let signature = verify_one(&server, &good.replacen(from, to, 1)).await;
        assert_eq!(signature.result, want, "{to}: {signature:?}");
        assert!(!signature.counts, "{to}");
        assert!(signature.reason.is_some(), "{to}");
    }
}

#[tokio::test]
async fn a_short_key_fails_and_its_length_is_told() {
    let signer = signer("example.com");
    let server = Nameserver::with(&format!("s1._domainkey.example.com TXT {SHORT_KEY}"));
    let message = signed(&signer, MESSAGE).replacen("a=ed25519-sha256", "a=rsa-sha256", 1);
    let signature = verify_one(&server, &message).await;
    assert_eq!(signature.result, DkimResult::Fail, "{signature:?}");
    assert_eq!(
        signature.reason.as_deref(),
        Some("the key has only 512 bits")
    );
}

#[tokio::test]
async fn a_signature_that_leaves_body_out_does_not_count() {
    let pkcs8 = Ed25519Key::generate_pkcs8().unwrap();
    let key = || Ed25519Key::from_pkcs8_der(&pkcs8).unwrap();
    let field = DkimSigner::from_key(key())
        .domain("example.com")
        .selector("s1")
        .headers(["From"])
        .body_length(true)
        .sign(MESSAGE.as_bytes())
        .unwrap()
        .to_header();
    let public = STANDARD.encode(key().public_key());
    let zone = format!("s1._domainkey.example.com TXT v=DKIM1; k=ed25519; p={public}");
    let server = Nameserver::with(&zone);
    for (tail, counts) in [("", true), ("added\r\n", false)] {
        let message = format!("{field}{MESSAGE}{tail}");
        let signature = verify_one(&server, &message).await;
        assert_eq!(signature.result, DkimResult::Pass, "{tail:?} {signature:?}");
        assert_eq!(signature.counts, counts, "{tail:?}");
    }
}

#[tokio::test]
async fn only_so_many_signatures_are_verified_the_authors_first() {
    let (author, other) = (signer("example.com"), signer("other.example"));
    let zone = key_line(&author) + &key_line(&other);
    let server = Nameserver::with(&zone);
    let own = signed(&author, MESSAGE);
    let foreign = other.sign(MESSAGE.as_bytes()).unwrap();
    let message = foreign.repeat(40) + &own;
    let config = Config {
        max_signatures: 2,
        ..Config::default()
    };
    let verifier = Verifier::new(server.dns(), &domain("mx.example.net"), &config);
    // The author's stands below those that are read at all.
    let signatures = verifier.message(message.as_bytes(), &[]).await.dkim;
    assert_eq!(signatures.len(), 32);
    let message = foreign.repeat(4) + &own;
    let signatures = verifier.message(message.as_bytes(), &[]).await.dkim;
    let results: Vec<_> = signatures
        .iter()
        .map(|s| (s.domain.as_str(), s.result))
        .collect();
    assert_eq!(
        results,
        [
            ("example.com", DkimResult::Pass),
            ("other.example", DkimResult::Pass),
            ("other.example", DkimResult::Policy),
            ("other.example", DkimResult::Policy),
            ("other.example", DkimResult::Policy),
        ]
    );
}

#[tokio::test]
async fn a_key_is_asked_for_once() {
    let signer = signer("example.com");
    let server = Nameserver::with(&key_line(&signer));
    let verifier = verifier(&server);
    let message = signed(&signer, MESSAGE);
    for _ in 0..3 {
        let dkim = verifier.message(message.as_bytes(), &[]).await.dkim;
        assert_eq!(dkim[0].result, DkimResult::Pass);
    }
    let question = format!("{} TXT", signer.dns_name());
    assert_eq!(server.times_asked(&question), 1);
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_message_is_judged_within_its_deadline() {
    let signer = signer("example.com");
    let zone = format!("{} TIMEOUT\n_dmarc.example.com TIMEOUT", signer.dns_name());
    let server = Nameserver::with(&zone);
    let short = Duration::from_millis(600);
    let message = signed(&signer, MESSAGE);
    for (message_deadline, header_deadline) in [(short, LONG), (LONG, short)] {
        let config = Config {
            message_deadline,
            header_deadline,
            ..Config::default()
        };
        let verifier = Verifier::new(server.dns(), &domain("mx.example.net"), &config);
        let begin = std::time::Instant::now();
        // What decides nothing has a deadline of its own.
        let evidence = match message_deadline < header_deadline {
            true => verifier.message(message.as_bytes(), &[]).await,
            false => verifier.message_for_header(message.as_bytes(), &[]).await,
        };
        assert!(begin.elapsed() < Duration::from_secs(2), "{config:?}");
        assert_eq!(evidence.dkim[0].result, DkimResult::TempError);
        assert_eq!(
            evidence.dmarc.result,
            gatepost::verify::DmarcResult::TempError
        );
    }
}

#[tokio::test]
async fn a_key_that_does_not_come_holds_up_no_other_signature() {
    let signers = ["one.example", "two.example", "three.example"].map(signer);
    let zone: String = signers[..2].iter().map(key_line).collect();
    let server = Nameserver::with(&format!("{zone}{} TIMEOUT", signers[2].dns_name()));
    let config = Config {
        message_deadline: Duration::from_secs(2),
        ..Config::default()
    };
    let verifier = Verifier::new(server.dns(), &domain("mx.example.net"), &config);
    let message = signers.iter().fold(MESSAGE.to_owned(), |message, signer| {
        signed(signer, &message)
    });
    let dkim = verifier.message(message.as_bytes(), &[]).await.dkim;
    let results: Vec<_> = dkim.iter().map(|signature| signature.result).collect();
    let want = [DkimResult::TempError, DkimResult::Pass, DkimResult::Pass];
    assert_eq!(results, want);
}
