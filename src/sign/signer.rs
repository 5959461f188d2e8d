//! One key of one domain: read, published, signing.

use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use mail_auth::common::crypto;
use mail_auth::common::crypto::DkimKey;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::crypto::RsaKey;
use mail_auth::common::crypto::Sha256;
use mail_auth::common::crypto::SigningKey;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::common::headers::Writable;
use mail_auth::common::headers::Writer;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::Signature;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::mail::address::Domain;
use crate::mail::content::Content;
use crate::sign::Algorithm;
use crate::sign::Config;
use crate::sign::Error;
use crate::sign::KeyName;
use crate::sign::Selector;
use crate::sign::der;
use crate::sign::message::Canonical;
use crate::sign::message::Form;

/// No key file is longer.
const LONGEST_FILE: u64 = 64 * 1024;

/// One key of one domain. Shared by all who sign with it.
pub struct Signer {
    name: KeyName,
    key: DkimKey,
    algorithm: Algorithm,
    bits: usize,
    record_name: String,
    /// The public key as it is published, before its encoding.
    public: Vec<u8>,
}

impl Signer {
    /// Reads a private key in PEM: Ed25519 or RSA in PKCS #8, or RSA in PKCS #1.
    pub fn from_pem(pem: &str, domain: &Domain, selector: &str) -> Result<Signer, Error> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
            let reason = "there is no private key in PEM, such as -----BEGIN PRIVATE KEY-----";
            Error::Key(reason.to_owned())
        })?;
        if let PrivateKeyDer::Pkcs8(pkcs8) = &key
            && let Ok(key) = Ed25519Key::from_pkcs8_maybe_unchecked_der(pkcs8.secret_pkcs8_der())
        {
            return Signer::ed25519(key, domain, selector);
        }
        let key = RsaKey::<Sha256>::from_key_der(key).map_err(|error| refused(&error))?;
        let public = der::subject_public_key_info(&key.public_key());
        Signer::new(DkimKey::Rsa(key), public, domain, selector)
    }

    /// Reads a file with a private key, which nobody but its owner may read or write.
    pub fn from_file(path: &Path, name: &KeyName) -> Result<Signer, Error> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        let pem = read_private(path).map_err(read)?;
        let Some(pem) = pem else {
            return Err(Error::Exposed(path.to_owned()));
        };
        Signer::from_pem(&pem, &name.domain, name.selector.as_str()).map_err(|source| Error::File {
            path: path.to_owned(),
            source: Box::new(source),
        })
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
        let public = key.public_key();
        Signer::new(DkimKey::Ed25519(key), public, domain, selector)
    }

    fn new(
        key: DkimKey,
        public: Vec<u8>,
        domain: &Domain,
        selector: &str,
    ) -> Result<Signer, Error> {
        let selector: Selector = selector.parse()?;
        let record_name = format!("{selector}._domainkey.{domain}");
        if Domain::parse(&record_name).is_err() {
            return Err(Error::Selector(selector.into()));
        }
        let algorithm = match key {
            DkimKey::Rsa(_) => Algorithm::Rsa,
            DkimKey::Ed25519(_) => Algorithm::Ed25519,
        };
        let mut signer = Signer {
            name: KeyName {
                domain: domain.clone(),
                selector,
            },
            key,
            algorithm,
            bits: 256,
            record_name,
            public,
        };
        if algorithm == Algorithm::Rsa {
            let record = DomainKey::parse(signer.dns_record().as_bytes());
            let record = record.map_err(|error| Error::Key(error.to_string()))?;
            signer.bits = record.p.public_key_bits();
        }
        Ok(signer)
    }

    /// The DKIM-Signature field of a message, folded, with its final CRLF: the fields that are signed
    /// by default, relaxed/relaxed, now.
    pub fn sign(&self, raw: &[u8]) -> Result<String, Error> {
        let form = Form::new(&Config::default());
        let message = Canonical::of(&Content::from(Bytes::copy_from_slice(raw)), &form)?;
        self.field(&message, &form, "", SystemTime::now())
    }

    /// The DKIM-Signature field of a message, folded, with its final CRLF. An empty `identity` is none.
    pub(super) fn field(
        &self,
        message: &Canonical,
        form: &Form,
        identity: &str,
        now: SystemTime,
    ) -> Result<String, Error> {
        let (t, x) = form.times(now);
        let mut signature = Signature {
            v: 1,
            a: self.key.algorithm(),
            d: self.name.domain.as_str().to_owned(),
            s: self.name.selector.as_str().to_owned(),
            i: identity.to_owned(),
            h: message.names.clone(),
            bh: message.body_hash.clone(),
            ch: form.header,
            cb: form.body,
            t,
            x,
            ..Signature::default()
        };
        let input = Input {
            header: &message.header,
            signature: &signature,
        };
        let signed = self.key.sign(input);
        signature.b = signed.map_err(|error| Error::Message(error.to_string()))?;
        let field = signature.to_header();
        // Where b= fills its line, the last semicolon would have one of its own. The white space before it
        // is not signed (RFC 6376 §3.7), but there are verifiers that count it.
        Ok(match field.strip_suffix("\r\n\t;\r\n") {
            Some(start) => format!("{start};\r\n"),
            None => field,
        })
    }

    /// Domain and selector.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// What kind of key it is.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The length of the key: 2048 and more for RSA, 256 for Ed25519.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Where the public key is to be published: `mail2026._domainkey.example.com`.
    pub fn dns_name(&self) -> &str {
        &self.record_name
    }

    /// The TXT record to publish there: `v=DKIM1; k=ed25519; p=...`. Longer than one string of a TXT
    /// record where the key is RSA.
    pub fn dns_record(&self) -> String {
        let public = STANDARD.encode(&self.public);
        format!("v=DKIM1; k={}; p={public}", self.algorithm.key_type())
    }

    /// The public key as it stands in `p=`, without its encoding.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }
}

/// What a signature is made of: the signed fields, then its own without `b=` (RFC 6376 §3.7).
struct Input<'a> {
    header: &'a [u8],
    signature: &'a Signature,
}

impl Writable for Input<'_> {
    fn write(self, writer: &mut impl Writer) {
        writer.write(self.header);
        self.signature.write(writer, false);
    }
}

/// The text of a file; None where others than its owner may open it.
fn read_private(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Ok(None);
    }
    let mut text = String::new();
    file.take(LONGEST_FILE).read_to_string(&mut text)?;
    Ok(Some(text))
}

fn refused(error: &mail_auth::Error) -> Error {
    let text = match error {
        mail_auth::Error::Crypto(crypto::CryptoError::Library(text)) => text.clone(),
        other => other.to_string(),
    };
    // RFC 8301 §3.2: 2048 at least.
    Error::Key(match text.as_str() {
        "TooSmall" => "RSA keys need 2048 bits or more; gatepost dkim genkey makes one".to_owned(),
        _ => format!("it is neither an RSA nor an Ed25519 key that can sign ({text})"),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        assert_eq!(signer.bits(), 256);
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
    fn no_line_begins_with_a_semicolon_wherever_the_signature_ends() {
        let pem = crate::sign::make(Algorithm::Rsa, 2048).unwrap();
        let signer = Signer::from_pem(&pem, &domain(), "s1").unwrap();
        let form = Form::new(&Config::default());
        let message = Content::from(Bytes::from_static(b"From: a@example.com\r\n\r\n"));
        let message = Canonical::of(&message, &form).unwrap();
        for length in 1..100 {
            let identity = format!("{}@example.com", "a".repeat(length));
            let now = SystemTime::now();
            let field = signer.field(&message, &form, &identity, now).unwrap();
            assert!(field.ends_with("=;\r\n"), "{field}");
        }
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
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s1.pem");
        fs::write(&path, crate::sign::make(Algorithm::Ed25519, 256).unwrap()).unwrap();
        let name = KeyName::try_from("example.com/s1".to_owned()).unwrap();
        for (mode, right) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match Signer::from_file(&path, &name) {
                Ok(signer) => assert!(right, "{mode:o} {}", signer.name()),
                Err(Error::Exposed(_)) => assert!(!right, "{mode:o}"),
                Err(error) => panic!("{mode:o}: {error}"),
            }
        }
    }
}
