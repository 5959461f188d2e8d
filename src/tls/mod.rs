//! Keys and certificates: what a listener shakes hands with, and what a handshake came to.
//!
//! [`Store`] holds the certificates, picks one by the name that the client asks for, and takes
//! changed files while sessions go on. What does not load never replaces what did. Where no
//! certificate is configured one is made, so that mail is encrypted from the first minute.
//!
//! TLS 1.2 and 1.3 on aws-lc-rs, tickets without state, hybrid post-quantum key exchange, no
//! ALPN for mail. A listener agrees to what its [`Policy`] says. A client's certificate is taken
//! whatever it is; what it is known by is a fact ([`Authorities::shown`]), and opens nothing here.
//!
//! # Limits
//!
//! The files are read by the user that the gateway runs as, after root is given up: a key that only
//! root may read (`/etc/letsencrypt/live`) needs a deploy hook or a group.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use tokio_rustls::rustls;

mod alpn;
mod asked;
mod association;
mod authorities;
mod certificate;
pub mod client;
pub mod dane;
mod facts;
mod fingerprint;
mod made;
mod policy;
mod requested;
mod resolver;
mod shown;
mod store;
mod watched;

pub use self::authorities::Authorities;
pub use self::authorities::Identity;
pub use self::facts::Facts;
pub use self::facts::facts;
pub use self::fingerprint::Fingerprint;
pub use self::made::keep;
pub use self::policy::Cipher;
pub use self::policy::ClientCertificates;
pub use self::policy::MinimumVersion;
pub use self::policy::Policy;
pub use self::policy::Terms;
pub use self::requested::KeyKind;
pub use self::requested::Requested;
pub use self::shown::Shown;
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
    /// The cipher suites that are spoken, by IANA's names, the preferred first. Default: all.
    pub ciphers: Vec<Cipher>,
    /// Certificates that the gateway gets for itself. Not in the file; these need not be there yet.
    #[serde(skip)]
    pub obtained: Vec<CertificateFiles>,
}

impl Config {
    /// What is wrong with the values: key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        match self.policy(&Terms::default()).can_agree() {
            true => Vec::new(),
            false => vec![("ciphers".to_owned(), NO_SUITE.to_owned())],
        }
    }

    /// What a listener with terms of its own agrees to.
    pub fn policy(&self, terms: &Terms) -> Policy {
        Policy {
            minimum_version: terms.minimum_version.unwrap_or(self.minimum_version),
            ciphers: terms.ciphers.as_ref().unwrap_or(&self.ciphers).clone(),
            client_certificates: terms.client_certificates,
        }
    }
}

/// What is wrong with a list of suites of which none can be used.
pub const NO_SUITE: &str = "none of these is of TLS 1.3, and nothing older is spoken; add one, such as \
     \"TLS_AES_128_GCM_SHA256\", or allow \"1.2\"";

/// One of `certificates`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The server's own certificate, then those that lead to the authority (certbot's `fullchain.pem`).
    pub chain: PathBuf,
    /// The private key of the first, not encrypted (certbot's `privkey.pem`).
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Key and chain in one file.
    pub fn in_one(path: &Path) -> CertificateFiles {
        CertificateFiles {
            chain: path.to_owned(),
            key: path.to_owned(),
        }
    }
}

/// A certificate or key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file, or it may not be read.
    #[error("cannot read {}{}", .path.display(), hint(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The file of `chain` has no PEM block of a certificate.
    #[error("there is no certificate in {}; it should begin with the server's own, `-----BEGIN CERTIFICATE-----`", .path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file of `key` has no PEM block of a private key.
    #[error("there is no private key in {}; it should hold `-----BEGIN PRIVATE KEY-----`, not encrypted", .path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The first certificate of `chain`, or the PEM around one, cannot be read (RFC 5280).
    #[error("the certificate in {} is broken: {reason}", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What the reader says of it.
        reason: String,
    },
    /// The key is of a kind or a size that the TLS library does not take.
    #[error("the key in {} is of no use; RSA from 2048 bits, ECDSA P-256, P-384, P-521 and Ed25519 are", .path.display())]
    Key {
        /// The file of `key`.
        path: PathBuf,
        /// What the TLS library says of it.
        source: rustls::Error,
    },
    /// The certificate is for another key.
    #[error("the key in {} does not belong to the first certificate in {}", .key.display(), .chain.display())]
    Mismatch {
        /// The file of `chain`.
        chain: PathBuf,
        /// The file of `key`.
        key: PathBuf,
    },
    /// No certificate could be made for a gateway that was given none.
    #[error("cannot make a certificate for {hostname}")]
    Make {
        /// Whom it was to be for.
        hostname: String,
        /// What the library says of it.
        source: rcgen::Error,
    },
    /// A certificate that we made or got could not be written.
    #[error("cannot keep a certificate in {}", .path.display())]
    Keep {
        /// The file that it or its key was to be in.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// There is nobody whose certificates we could trust.
    #[error("there are no roots to trust in {whose}")]
    NoRoots {
        /// Where they were looked for.
        whose: String,
    },
    /// An authority of ours that the world trusts as well.
    #[error("{} holds {name}, whom this system trusts: everybody can get a certificate of theirs, and could send through us", .path.display())]
    PublicAuthority {
        /// The file.
        path: PathBuf,
        /// The authority.
        name: String,
    },
    /// What is to be an authority is none.
    #[error("{} holds a certificate that may sign no others, that of {name}; list its SHA-256 under `certificates` instead", .path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        name: String,
    },
    /// The TLS library refuses its own settings, and why.
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
