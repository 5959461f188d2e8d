//! Which certificate a client is shown: by the name it asks for (RFC 6066 §3) and what it can verify.
//!
//! The list behind it is exchanged whole; a handshake under way keeps the certificate it has.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::server::ResolvesServerCert;
use tokio_rustls::rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// Answers handshakes from the list that is in force.
#[derive(Debug)]
pub(super) struct Resolver {
    certificates: ArcSwap<Vec<Certificate>>,
    /// In lower case.
    hostname: String,
}

impl Resolver {
    pub(super) fn new(certificates: Vec<Certificate>, hostname: &str) -> Resolver {
        Resolver {
            certificates: ArcSwap::from_pointee(certificates),
            hostname: hostname.to_owned(),
        }
    }

    /// Puts another list in force.
    pub(super) fn set(&self, certificates: Vec<Certificate>) {
        self.certificates.store(Arc::new(certificates));
    }

    /// `tls-server-end-point` of what a client is shown that asks for the name; None where it may be one
    /// or another certificate.
    pub(super) fn end_point(&self, name: Option<&str>) -> Option<Vec<u8>> {
        let certificates = self.certificates.load();
        match self.candidates(&certificates, name)[..] {
            [only] => only.end_point.clone(),
            _ => None,
        }
    }

    /// The first certificate for the name, else the first for our own name, else the first; of each
    /// rather one whose signature the client can verify (an RSA and an ECDSA certificate may stand
    /// side by side).
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let certificates = self.certificates.load();
        let candidates = self.candidates(&certificates, name);
        let usable =
            |certificate: &&Certificate| certificate.key.key.choose_scheme(schemes).is_some();
        let best = candidates.iter().copied().find(usable);
        let chosen = best.or_else(|| candidates.first().copied())?;
        Some(Arc::clone(&chosen.key))
    }

    /// Those for the name, else those for our own name, else all.
    fn candidates<'c>(
        &self,
        certificates: &'c [Certificate],
        name: Option<&str>,
    ) -> Vec<&'c Certificate> {
        let name = name.map(str::to_ascii_lowercase);
        let asked = |certificate: &&Certificate| {
            name.as_deref().is_some_and(|name| certificate.covers(name))
        };
        let ours = |certificate: &&Certificate| certificate.covers(&self.hostname);
        let all = || certificates.iter();
        match (all().any(|l| asked(&l)), all().any(|l| ours(&l))) {
            (true, _) => all().filter(asked).collect(),
            (false, true) => all().filter(ours).collect(),
            (false, false) => all().collect(),
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
