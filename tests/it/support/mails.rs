//! Messages to send: plain ones, and ones with a DKIM signature or ARC seals.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gatepost::dns::Dns;
use mail_auth::AuthenticatedMessage;
use mail_auth::AuthenticationResults;
use mail_auth::Parameters;
use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::crypto::RsaKey;
use mail_auth::common::crypto::Sha256;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use rcgen::KeyPair;
use rcgen::PKCS_RSA_SHA256;
use rcgen::RsaKeySize;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::support::gateway::Site;

/// A small, correct message whose author is `from`; its subject tells it from others.
pub fn mail(from: &str, subject: &str) -> String {
    format!(
        "From: <{from}>\r\n\
         To: <user@gate.example>\r\n\
         Subject: {subject}\r\n\
         Date: Tue, 24 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <{}@client.example>\r\n\
         \r\n\
         Hello.\r\n",
        subject.replace(' ', ".")
    )
}

/// A key pair of a domain that signs.
pub struct DkimKey {
    pair: KeyPair,
}

impl DkimKey {
    /// An RSA key of 2048 bits.
    pub fn new() -> DkimKey {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
            .expect("a key can be made");
        DkimKey { pair }
    }

    /// The TXT record to publish at `SELECTOR._domainkey.DOMAIN`.
    pub fn record(&self) -> String {
        let pem = self.pair.public_key_pem();
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        format!("v=DKIM1; k=rsa; p={base64}")
    }

    /// The private key, in PEM, as other signers want it.
    pub fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// Lets the gateway of a site sign for `domain` with it, by the selector `s1`.
    pub fn give_to(&self, site: &Site, domain: &str) {
        let folder = site.path("data/dkim").join(domain);
        fs::create_dir_all(&folder).expect("made");
        let file = folder.join("s1.pem");
        fs::write(&file, self.pem()).expect("written");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("closed");
    }

    /// `message` with a signature of `domain` by the selector `s1` in front of it.
    pub fn sign(&self, domain: &str, message: &str) -> String {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialize_der()));
        let key = RsaKey::<Sha256>::from_key_der(key).expect("the key is good");
        let signature = DkimSigner::from_key(key)
            .domain(domain)
            .selector("s1")
            .headers(["From", "To", "Subject", "Date", "Message-ID"])
            .sign(message.as_bytes())
            .expect("the message can be signed");
        format!("{}{message}", signature.to_header())
    }
}

/// Somebody who forwards and seals: a domain and its key.
pub struct Forwarder {
    domain: &'static str,
    key: Vec<u8>,
    /// Which fields its signature covers.
    pub signs: &'static [&'static str],
}

impl Forwarder {
    pub fn new(domain: &'static str) -> Forwarder {
        let key = Ed25519Key::generate_pkcs8().expect("a key can be made");
        Forwarder {
            domain,
            key,
            signs: &["From", "To", "Subject"],
        }
    }

    fn key(&self) -> Ed25519Key {
        Ed25519Key::from_pkcs8_der(&self.key).expect("the key is good")
    }

    /// The line of a zone that publishes the key.
    pub fn zone(&self) -> String {
        let public = STANDARD.encode(self.key().public_key());
        format!(
            "arc._domainkey.{} TXT v=DKIM1; k=ed25519; p={public}\n",
            self.domain
        )
    }

    /// The message with one more set.
    pub async fn forward(&self, dns: &Dns, message: &str) -> String {
        let parsed = AuthenticatedMessage::parse(message.as_bytes()).expect("a message");
        let parameters = Parameters::new(&parsed);
        let chain = dns.authenticator().verify_arc(parameters).await;
        let results = AuthenticationResults::new(self.domain);
        let set = ArcSealer::from_key(self.key())
            .domain(self.domain)
            .selector("arc")
            .headers(self.signs.iter().copied())
            .seal(&parsed, &results, &chain)
            .expect("the message can be sealed");
        set.to_header() + message
    }
}
