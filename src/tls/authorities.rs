//! Authorities of ours, whose certificates make a client known, and what a client has shown.
//!
//! A public authority gives a certificate to anybody, so that one here would make an open relay of us:
//! none is taken that this system trusts, or that is signed by one of those. Nothing is asked of a
//! revocation list; a machine that is lost has to wait for its certificate's end, or is better
//! known by a fingerprint.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls_native_certs::load_native_certs;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::Error;
use super::Shown;
use super::asked;
use super::policy;
use super::store;

/// Who signs for machines of ours. Of none, no certificate is of an authority of ours.
#[derive(Clone, Default)]
pub struct Authorities {
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// A certificate that a client holds the key of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate.
    pub shown: Shown,
    /// Whether an authority of ours leads to it, its time is now, and it is for clients.
    pub is_of_authority: bool,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").finish_non_exhaustive()
    }
}

impl Authorities {
    /// Reads files of PEM, all certificates of each. Blocks.
    pub fn open(files: &[PathBuf]) -> Result<Authorities, Error> {
        if files.is_empty() {
            return Ok(Authorities::default());
        }
        let public = load_native_certs().certs;
        let mut roots = RootCertStore::empty();
        for path in files {
            for authority in store::chain(path)? {
                check(path, &authority, &public)?;
                roots.add(authority).map_err(|error| Error::Certificate {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
            }
        }
        let provider = Arc::new(policy::provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
        let verifier = verifier.map_err(|error| {
            Error::Setup(tokio_rustls::rustls::Error::General(error.to_string()))
        })?;
        Ok(Authorities {
            verifier: Some(verifier),
        })
    }

    /// The certificate that the client of a connection has shown, in this handshake or in that of the
    /// session that it resumes. None where it has shown none, or one whose key could not be verified.
    pub fn shown(&self, connection: &ServerConnection) -> Option<Identity> {
        let (own, others) = connection.peer_certificates()?.split_first()?;
        if !asked::is_provable(own) {
            return None;
        }
        let now = UnixTime::now();
        let leads_to = |verifier: &Arc<dyn ClientCertVerifier>| {
            verifier.verify_client_cert(own, others, now).is_ok()
        };
        Some(Identity {
            shown: Shown::read(own)?,
            is_of_authority: self.verifier.as_ref().is_some_and(leads_to),
        })
    }
}

/// Whether a certificate may stand for an authority of ours. `public` are those whom the system trusts.
fn check(
    path: &Path,
    authority: &CertificateDer<'_>,
    public: &[CertificateDer<'_>],
) -> Result<(), Error> {
    let broken = |reason: String| Error::Certificate {
        path: path.to_owned(),
        reason,
    };
    let (_, read) =
        X509Certificate::from_der(authority).map_err(|error| broken(error.to_string()))?;
    let name = || read.subject().to_string();
    if !read.is_ca() {
        return Err(Error::NoAuthority {
            path: path.to_owned(),
            name: name(),
        });
    }
    // By name, so that another certificate of the same authority, or one that it has signed, is found too.
    let names = |public: &CertificateDer<'_>| match X509Certificate::from_der(public) {
        Ok((_, public)) => [read.subject(), read.issuer()].contains(&public.subject()),
        Err(_) => false,
    };
    match public.iter().any(names) {
        true => Err(Error::PublicAuthority {
            path: path.to_owned(),
            name: name(),
        }),
        false => Ok(()),
    }
}
