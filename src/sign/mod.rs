//! Our own DKIM signatures (RFC 6376, RFC 8463).
//!
//! A [`Signer`] is one key of one domain. It signs what RFC 6376 §5.4.1 lists, relaxed/relaxed, with
//! From signed once more than it occurs so that none can be added.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::DkimKey;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::crypto::RsaKey;
use mail_auth::common::crypto::Sha256;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use mail_auth::dkim::Done;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::mail::address::Domain;

/// RFC 6376 §5.4.1. From stands twice: the second one signs that there is no other.
const SIGNED_FIELDS: &[&str] = &[
    "From",
    "From",
    "Reply-To",
    "Subject",
    "Date",
    "To",
    "Cc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
];

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is neither Ed25519 nor RSA of 2048 bits and more, or not in PKCS #8 or #1.
    #[error("cannot use the key: {0}")]
    Key(String),
    /// The selector is no name in the DNS.
    #[error("{0:?} is no selector; one looks like \"mail2026\"")]
    Selector(String),
    /// There is nothing to sign, such as a message without a header.
    #[error("cannot sign the message: {0}")]
    Message(String),
}

/// One key of one domain. Shared by all who sign with it.
pub struct Signer {
    signer: DkimSigner<DkimKey, Done>,
    record_name: String,
    record: String,
}

impl Signer {
    /// Reads a private key in PEM: Ed25519 or RSA in PKCS #8, or RSA in PKCS #1.
    pub fn from_pem(pem: &str, domain: &Domain, selector: &str) -> Result<Signer, Error> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| Error::Key(error.to_string()))?;
        if let PrivateKeyDer::Pkcs8(pkcs8) = &key
            && let Ok(key) = Ed25519Key::from_pkcs8_maybe_unchecked_der(pkcs8.secret_pkcs8_der())
        {
            return Signer::ed25519(key, domain, selector);
        }
        let key = RsaKey::<Sha256>::from_key_der(key).map_err(|e| Error::Key(e.to_string()))?;
        let public = STANDARD.encode(subject_public_key_info(&key.public_key()));
        Signer::new(DkimKey::Rsa(key), "rsa", &public, domain, selector)
    }

    /// Makes a new Ed25519 key, which is not kept anywhere.
    pub fn generate(domain: &Domain, selector: &str) -> Result<Signer, Error> {
        let key = Ed25519Key::generate_pkcs8()
            .and_then(|der| Ed25519Key::from_pkcs8_der(&der))
            .map_err(|error| Error::Key(error.to_string()))?;
        Signer::ed25519(key, domain, selector)
    }

    fn ed25519(key: Ed25519Key, domain: &Domain, selector: &str) -> Result<Signer, Error> {
        // RFC 8463 §4.2: the bare key.
        let public = STANDARD.encode(key.public_key());
        Signer::new(DkimKey::Ed25519(key), "ed25519", &public, domain, selector)
    }

    fn new(
        key: DkimKey,
        kind: &str,
        public: &str,
        domain: &Domain,
        selector: &str,
    ) -> Result<Signer, Error> {
        let record_name = format!("{selector}._domainkey.{domain}");
        if Domain::parse(&record_name).is_err() {
            return Err(Error::Selector(selector.to_owned()));
        }
        Ok(Signer {
            signer: DkimSigner::from_key(key)
                .domain(domain.as_str())
                .selector(selector)
                .headers(SIGNED_FIELDS.iter().copied()),
            record_name,
            record: format!("v=DKIM1; k={kind}; p={public}"),
        })
    }

    /// The DKIM-Signature field of a message, folded, with its final CRLF.
    pub fn sign(&self, raw: &[u8]) -> Result<String, Error> {
        self.signer
            .sign(raw)
            .map(|signature| signature.to_header())
            .map_err(|error| Error::Message(error.to_string()))
    }

    /// Where the public key is to be published: `mail2026._domainkey.example.com`.
    pub fn dns_name(&self) -> &str {
        &self.record_name
    }

    /// The TXT record to publish there: `v=DKIM1; k=ed25519; p=...`. Longer than one string of a TXT
    /// record where the key is RSA.
    pub fn dns_record(&self) -> String {
        self.record.clone()
    }
}

/// An RSA public key (PKCS #1) as everyone publishes it: RFC 5280 §4.1.2.7.
fn subject_public_key_info(public_key: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    /// `rsaEncryption` (1.2.840.113549.1.1.1) with NULL parameters.
    const ALGORITHM: &[u8] = &[
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let bits = der(BIT_STRING, &[&[0], public_key].concat());
    der(SEQUENCE, &[ALGORITHM, &bits].concat())
}

/// One value in DER (X.690 §8.1).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let first = length.iter().take_while(|b| **b == 0).count();
    let digits = &length[first..];
    let mut value = vec![tag];
    match digits {
        [] => value.push(0),
        [short] if *short < 0x80 => value.push(*short),
        long => {
            value.push(0x80 | long.len() as u8);
            value.extend(long);
        }
    }
    value.extend(content);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> Domain {
        Domain::parse("example.com").unwrap()
    }

    #[test]
    fn a_signature_is_one_field_and_says_who_signed() {
        let signer = Signer::generate(&domain(), "s1").unwrap();
        let field = signer
            .sign(b"From: a@example.com\r\nSubject: x\r\n\r\nbody\r\n")
            .unwrap();
        assert!(field.starts_with("DKIM-Signature: v=1; a=ed25519-sha256;"));
        assert!(field.ends_with("\r\n"));
        assert!(field.contains("d=example.com"));
        assert_eq!(crate::mail::headers::fields(field.as_bytes()).count(), 1);
        assert_eq!(signer.dns_name(), "s1._domainkey.example.com");
        assert!(signer.dns_record().starts_with("v=DKIM1; k=ed25519; p="));
    }

    #[test]
    fn from_is_signed_once_more_than_it_occurs() {
        let signer = Signer::generate(&domain(), "s1").unwrap();
        let field = signer.sign(b"From: a@example.com\r\n\r\n").unwrap();
        let names = field.split("h=").nth(1).unwrap();
        let names = names.split(';').next().unwrap();
        let from = names.split(':').filter(|name| name.trim() == "From");
        assert_eq!(from.count(), 2, "{names}");
    }

    #[test]
    fn what_cannot_sign_is_refused() {
        assert!(matches!(
            Signer::generate(&domain(), "a b"),
            Err(Error::Selector(_))
        ));
        assert!(matches!(
            Signer::from_pem("nonsense", &domain(), "s1"),
            Err(Error::Key(_))
        ));
    }

    #[test]
    fn lengths_are_written_as_der_wants_them() {
        assert_eq!(der(4, &[]), [4, 0]);
        assert_eq!(der(4, &[1; 127])[..2], [4, 127]);
        assert_eq!(der(4, &[1; 128])[..3], [4, 0x81, 128]);
        assert_eq!(der(4, &[1; 300])[..4], [4, 0x82, 1, 44]);
    }
}
