//! A certificate that a peer has shown, as facts: whose it is, who says so, and by what it is known.

use aws_lc_rs::digest::SHA256;
use aws_lc_rs::digest::digest;
use jiff::Timestamp;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::Fingerprint;
use super::certificate::dns_names;

/// A peer's own certificate. What it says of itself was written by whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The common name of whom it is for, else the first of its names; empty where there is neither.
    pub subject: String,
    /// The common name of who made it, else the organisation; empty where there is neither.
    pub issuer: String,
    /// Its DNS names, in lower case (RFC 5280 §4.2.1.6).
    pub names: Vec<String>,
    /// The first and the last moment at which it is valid (RFC 5280 §4.1.2.5).
    pub valid: (Timestamp, Timestamp),
    /// The SHA-256 of all of it.
    pub fingerprint: Fingerprint,
    /// The SHA-256 of its public key, with the algorithm (SubjectPublicKeyInfo), which outlives a renewal.
    pub key: Fingerprint,
}

impl Shown {
    /// Reads a certificate. None where it cannot be read.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Shown> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let time = |seconds| Timestamp::from_second(seconds).ok();
        let extension = certificate.subject_alternative_name().ok().flatten();
        let names = extension.map(|extension| dns_names(&extension.value.general_names));
        let names = names.unwrap_or_default();
        Some(Shown {
            subject: common_name(certificate.subject())
                .or_else(|| names.first().cloned())
                .unwrap_or_default(),
            issuer: common_name(certificate.issuer())
                .or_else(|| organisation(certificate.issuer()))
                .unwrap_or_default(),
            valid: (
                time(validity.not_before.timestamp())?,
                time(validity.not_after.timestamp())?,
            ),
            fingerprint: sha256(der),
            key: sha256(certificate.public_key().raw),
            names,
        })
    }
}

fn common_name(name: &X509Name<'_>) -> Option<String> {
    let first = name.iter_common_name().next()?;
    first.as_str().ok().map(str::to_owned)
}

fn organisation(name: &X509Name<'_>) -> Option<String> {
    let first = name.iter_organization().next()?;
    first.as_str().ok().map(str::to_owned)
}

fn sha256(octets: &[u8]) -> Fingerprint {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, octets).as_ref());
    Fingerprint(sum)
}
