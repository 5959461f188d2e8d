//! Keys and certificates: what a listener shakes hands with, and what a handshake came to.
//!
//! [`Store`] holds the certificates, picks one by the name that the client asks for, and takes
//! changed files while sessions go on. What does not load never replaces what did. Where no
//! certificate is configured one is made, so that mail is encrypted from the first minute.
//!
//! TLS 1.2 and 1.3 on aws-lc-rs, tickets without state, hybrid post-quantum key exchange first, no
//! ALPN, no client certificates.
//!
//! # Limits
//!
//! The files are read by the user that the gateway runs as, after root is given up: a key that only
//! root may read (`/etc/letsencrypt/live`) needs a deploy hook or a group.

use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use tokio_rustls::rustls;

mod certificate;
pub mod client;
mod facts;
mod made;
mod resolver;
mod store;
mod watched;

pub use self::facts::Facts;
pub use self::facts::facts;
pub use self::store::Inspected;
pub use self::store::Store;
pub use self::store::inspect;

/// `[tls]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Certificates with their keys, in PEM. Several are told apart by the name that the client asks
    /// for. Default: none, so one is made.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version of TLS that is spoken.
    pub minimum_version: MinimumVersion,
}

/// One of `certificates`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The server's own certificate, then those that lead to the authority (certbot's `fullchain.pem`).
    pub chain: PathBuf,
    /// The private key of the first, not encrypted (certbot's `privkey.pem`).
    pub key: PathBuf,
}

/// `minimum_version`. Default: `"1.2"`, for mail that is refused here goes unencrypted elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum MinimumVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// A certificate or key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}{}", .path.display(), hint(.source))]
    Read { path: PathBuf, source: io::Error },
    #[error("there is no certificate in {}; it should begin with the server's own, `-----BEGIN CERTIFICATE-----`", .path.display())]
    NoCertificate { path: PathBuf },
    #[error("there is no private key in {}; it should hold `-----BEGIN PRIVATE KEY-----`, not encrypted", .path.display())]
    NoKey { path: PathBuf },
    #[error("the certificate in {} is broken: {reason}", .path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("the key in {} is of no use; RSA from 2048 bits, ECDSA P-256, P-384, P-521 and Ed25519 are", .path.display())]
    Key {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("the key in {} does not belong to the first certificate in {}", .key.display(), .chain.display())]
    Mismatch { chain: PathBuf, key: PathBuf },
    #[error("cannot make a certificate for {hostname}")]
    Make {
        hostname: String,
        source: rcgen::Error,
    },
    #[error("cannot keep a certificate in {}", .path.display())]
    Keep { path: PathBuf, source: io::Error },
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// What an operator can do about it.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; a certificate's files are given by `chain` and `key`, certbot's are fullchain.pem and privkey.pem"
        }
        io::ErrorKind::PermissionDenied => "; the user that the gateway runs as has to be able to",
        _ => "",
    }
}
