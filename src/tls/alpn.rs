//! TLS-ALPN-01 (RFC 8737): an authority that wants to see that a name is ours asks for a certificate
//! that holds what it told us, in a protocol that nobody else asks for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use rcgen::CertificateParams;
use rcgen::CustomExtension;
use rcgen::KeyPair;
use rcgen::PKCS_ECDSA_P256_SHA256;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::server::ResolvesServerCert;
use tokio_rustls::rustls::sign::CertifiedKey;

use super::Error;
use super::resolver::Resolver;

/// The protocol by which an authority asks.
pub(super) const PROTOCOL: &[u8] = b"acme-tls/1";

/// The certificates of the challenges that are under way, and for all other clients the usual ones.
#[derive(Debug)]
pub(super) struct Challenges {
    under_way: Mutex<HashMap<String, Arc<CertifiedKey>>>,
    usual: Arc<Resolver>,
}

impl Challenges {
    pub(super) fn before(usual: &Arc<Resolver>) -> Challenges {
        Challenges {
            under_way: Mutex::default(),
            usual: Arc::clone(usual),
        }
    }

    /// Shows `digest` to whoever asks for `name` until it is [taken away](Challenges::withdraw).
    pub(super) fn answer(&self, name: &str, digest: &[u8]) -> Result<(), Error> {
        let shown = certificate(name, digest)?;
        self.under_way().insert(name.to_owned(), Arc::new(shown));
        Ok(())
    }

    pub(super) fn withdraw(&self, name: &str) {
        self.under_way().remove(name);
    }

    /// The map is whole between any two calls, so that poison means nothing here.
    fn under_way(&self) -> MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        let lock = self.under_way.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks = hello.alpn().into_iter().flatten().any(|p| p == PROTOCOL);
        if !asks {
            return self.usual.resolve(hello);
        }
        let name = hello.server_name()?.to_ascii_lowercase();
        self.under_way().get(&name).cloned()
    }
}

/// RFC 8737 §3: a self-signed certificate for the name, with the digest in an extension that is critical.
fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, Error> {
    let failed = |source| Error::Make {
        hostname: name.to_owned(),
        source,
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut parameters = CertificateParams::new([name.to_owned()]).map_err(failed)?;
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let made = parameters.self_signed(&key).map_err(failed)?;
    let der = PrivateKeyDer::try_from(key.serialize_der());
    let der = der.map_err(|_| failed(rcgen::Error::CouldNotParseKeyPair))?;
    let key = any_supported_type(&der)?;
    Ok(CertifiedKey::new(vec![made.der().clone()], key))
}
