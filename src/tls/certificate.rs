//! A certificate that can be shaken hands with: understood, and found to fit its key.
//!
//! Nothing here judges whether anybody will trust it.

use std::sync::Arc;

use aws_lc_rs::digest::Algorithm;
use aws_lc_rs::digest::SHA256;
use aws_lc_rs::digest::SHA384;
use aws_lc_rs::digest::SHA512;
use aws_lc_rs::digest::digest;
use jiff::Timestamp;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::CertificateFiles;
use super::Error;

/// A chain with the key of its first certificate, and what that certificate says of itself.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// Its DNS names in lower case, wildcards as `*.example.com`.
    pub(super) names: Vec<String>,
    pub(super) begins: Timestamp,
    pub(super) expires: Timestamp,
    /// `tls-server-end-point` (RFC 5929 §4.1); None for a signature without a hash of its own, as Ed25519.
    pub(super) end_point: Option<Vec<u8>>,
}

impl Certificate {
    /// Takes what was read from the files, if it belongs together.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        files: &CertificateFiles,
    ) -> Result<Certificate, Error> {
        let key = any_supported_type(key).map_err(|source| Error::Key {
            path: files.key.clone(),
            source,
        })?;
        let broken = |reason: String| Error::Certificate {
            path: files.chain.clone(),
            reason,
        };
        let Facts {
            names,
            begins,
            expires,
            end_point,
        } = facts(&chain).map_err(broken)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Error::Mismatch {
                chain: files.chain.clone(),
                key: files.key.clone(),
            },
            error => broken(error.to_string()),
        })?;
        Ok(Certificate {
            key: Arc::new(key),
            names,
            begins,
            expires,
            end_point,
        })
    }

    /// The first of its names, which stands for all of them.
    pub(super) fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// From when on it should have been renewed: when only a sixth of its life is left, two weeks of
    /// the three months that are usual.
    pub(super) fn is_late_from(&self) -> Timestamp {
        let life = self.begins.duration_until(self.expires);
        self.expires - life / 6
    }

    /// Whether a client that wants this name, in lower case, is content with the certificate.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| matches(pattern, name))
    }
}

/// RFC 9525 §6.3: a wildcard is one whole label, the first.
fn matches(pattern: &str, name: &str) -> bool {
    if pattern == name {
        return true;
    }
    let parent = name.split_once('.').map(|(_, parent)| parent);
    parent.is_some() && pattern.strip_prefix("*.") == parent
}

/// What a certificate says of itself.
struct Facts {
    names: Vec<String>,
    begins: Timestamp,
    expires: Timestamp,
    end_point: Option<Vec<u8>>,
}

fn facts(chain: &[CertificateDer<'_>]) -> Result<Facts, String> {
    let der = chain.first().ok_or("it is missing")?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| error.to_string())?
        .map(|extension| dns_names(&extension.value.general_names))
        .unwrap_or_default();
    let moment = |seconds| Timestamp::from_second(seconds).map_err(|error| error.to_string());
    let begins = moment(certificate.validity().not_before.timestamp())?;
    let expires = moment(certificate.validity().not_after.timestamp())?;
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    let end_point = signature_hash(&signature).map(|hash| digest(hash, der).as_ref().to_vec());
    Ok(Facts {
        names,
        begins,
        expires,
        end_point,
    })
}

/// RFC 5929 §4.1: the hash of the signature, but SHA-256 for MD5 and SHA-1.
fn signature_hash(signature: &str) -> Option<&'static Algorithm> {
    match signature {
        // RSA and ECDSA, each with MD5, SHA-1 or SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => Some(&SHA256),
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => Some(&SHA256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(&SHA384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(&SHA512),
        _ => None,
    }
}

/// In lower case.
pub(super) fn dns_names(names: &[GeneralName<'_>]) -> Vec<String> {
    let dns_name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    names.iter().filter_map(dns_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, name, want) in [
            ("mx.example.com", "mx.example.com", true),
            ("*.example.com", "mx.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.mx.example.com", false),
            ("m*.example.com", "mx.example.com", false),
            ("com", "com", true),
            ("mx.example.com", "com", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }
}
