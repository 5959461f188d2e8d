//! What an authority is asked to certify: a key of ours, and the names that it is to be for (PKCS #10,
//! RFC 2986); and the file in which its answer is kept.

use std::fmt;
use std::fs;
use std::path::Path;

use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::KeyPair;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rcgen::PKCS_ECDSA_P384_SHA384;
use rcgen::PKCS_RSA_SHA256;
use rcgen::RsaKeySize;
use serde::Deserialize;
use serde::Serialize;

use super::CertificateFiles;
use super::Error;
use super::Inspected;
use super::inspect;
use super::made::keep;

/// What kind of key a certificate is for. Default: ECDSA on P-256, which every mail server of this
/// century takes, with the smallest handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum KeyKind {
    /// `"ecdsa-p256"`
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// `"ecdsa-p384"`
    #[serde(rename = "ecdsa-p384")]
    EcdsaP384,
    /// `"rsa-2048"`
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// `"rsa-4096"`
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyKind::EcdsaP256 => "ecdsa-p256",
            KeyKind::EcdsaP384 => "ecdsa-p384",
            KeyKind::Rsa2048 => "rsa-2048",
            KeyKind::Rsa4096 => "rsa-4096",
        })
    }
}

/// A key, and the request to certify it.
pub struct Requested {
    /// The private key as PEM (PKCS #8).
    key: String,
    /// The request in DER.
    pub der: Vec<u8>,
}

impl fmt::Debug for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requested").finish_non_exhaustive()
    }
}

impl Requested {
    /// A request for these names with a new key. An RSA key takes a while: seconds of a core.
    pub fn new(names: &[String], kind: KeyKind) -> Result<Requested, Error> {
        let made = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyKind::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        };
        let request = made.and_then(|key| request(names, &key));
        request.map_err(|source| failed(names, source))
    }

    /// A request for these names with the key of a certificate that was [kept](Requested::keep), so that
    /// whoever pinned the key (RFC 7672 §3.1.1, usage 3 1 1) finds it again.
    pub fn with_key_of(names: &[String], kept: &Path) -> Result<Requested, Error> {
        let text = fs::read_to_string(kept).map_err(|source| Error::Read {
            path: kept.to_owned(),
            source,
        })?;
        let request = KeyPair::from_pem(&text).and_then(|key| request(names, &key));
        request.map_err(|source| failed(names, source))
    }

    /// Writes the key and what the authority made of it, its own certificate first, into one file for
    /// nobody but us, so that the two can't come apart. What cannot be used never replaces what can.
    pub fn keep(&self, chain: &str, path: &Path) -> Result<Inspected, Error> {
        let fresh = path.with_added_extension("fresh");
        keep(&fresh, &format!("{}{chain}", self.key))?;
        let found = inspect(&CertificateFiles::in_one(&fresh));
        let renamed = found.and_then(|found| {
            let renamed = fs::rename(&fresh, path).map_err(|source| Error::Keep {
                path: path.to_owned(),
                source,
            });
            renamed.map(|()| found)
        });
        if renamed.is_err() {
            // Of no use to anybody; the next one is written over it.
            let _ = fs::remove_file(&fresh);
        }
        renamed
    }
}

fn request(names: &[String], key: &KeyPair) -> Result<Requested, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = DistinguishedName::new();
    Ok(Requested {
        der: parameters.serialize_request(key)?.der().to_vec(),
        key: key.serialize_pem(),
    })
}

fn failed(names: &[String], source: rcgen::Error) -> Error {
    Error::Make {
        hostname: names.join(" "),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_with_its_key_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("mx.pem");
        let names = ["mx.example.com".to_owned()];
        let requested = Requested::new(&names, KeyKind::EcdsaP256).unwrap();
        let sign = |key: &str| {
            let key = KeyPair::from_pem(key).unwrap();
            let parameters = CertificateParams::new(names.clone()).unwrap();
            parameters.self_signed(&key).unwrap().pem()
        };
        let found = requested.keep(&sign(&requested.key), &path).unwrap();
        assert_eq!(found.names, names);
        let again = Requested::with_key_of(&names, &path).unwrap();
        assert_eq!(again.key, requested.key);

        let before = fs::read(&path).unwrap();
        let other = Requested::new(&names, KeyKind::EcdsaP384).unwrap();
        for wrong in [sign(&other.key), "no PEM".to_owned()] {
            assert!(requested.keep(&wrong, &path).is_err(), "{wrong}");
        }
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
