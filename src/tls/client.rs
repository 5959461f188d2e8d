//! TLS towards others: the next hop, and the authority that certifies us.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls_native_certs::load_native_certs;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::DEFAULT_VERSIONS;
use tokio_rustls::rustls::DigitallySignedStruct;
use tokio_rustls::rustls::Error;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::client::danger::ServerCertVerified;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::WebPkiSupportedAlgorithms;
use tokio_rustls::rustls::crypto::verify_tls12_signature;
use tokio_rustls::rustls::crypto::verify_tls13_signature;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::UnixTime;

use super::Shown;
use super::policy;

/// Opportunistic TLS (RFC 3207 §4.1, RFC 7435): takes any certificate. The connection is safe from
/// listeners, not from somebody who answers in the next hop's place; the alternative is no TLS.
pub fn client_config_any() -> Arc<ClientConfig> {
    any(DEFAULT_VERSIONS)
}

pub(super) fn any(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    with(versions, AnyCertificate)
}

/// A client that leaves it to `belief` whether a certificate is believed.
pub(super) fn believing(belief: impl Belief + 'static) -> Arc<ClientConfig> {
    with(DEFAULT_VERSIONS, belief)
}

/// `TLS1.2` or `TLS1.3`, of a connection whose handshake is done.
pub fn version(connection: &ClientConnection) -> &'static str {
    super::facts::version(connection)
}

fn with(
    versions: &[&'static SupportedProtocolVersion],
    belief: impl Belief + 'static,
) -> Arc<ClientConfig> {
    let provider = Arc::new(policy::provider());
    let algorithms = provider.signature_verification_algorithms;
    #[expect(
        clippy::expect_used,
        reason = "who calls names the versions, and our provider has suites for each"
    )]
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("aws-lc-rs speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { belief, algorithms }))
        .with_no_client_auth();
    Arc::new(config)
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust<'a> {
    /// Those whom this system trusts: `/etc/ssl/certs`, or what `SSL_CERT_FILE` names.
    System,
    /// Those of a file in PEM alone.
    File(&'a Path),
}

/// TLS with a server that has to prove its name. Reads files.
pub fn client_config_verified(trust: Trust<'_>) -> Result<Arc<ClientConfig>, super::Error> {
    let roots = roots(trust)?;
    let config = ClientConfig::builder_with_provider(Arc::new(policy::provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots(trust: Trust<'_>) -> Result<RootCertStore, super::Error> {
    let (found, whose) = match trust {
        Trust::File(path) => (super::store::chain(path)?, path.display().to_string()),
        Trust::System => (load_native_certs().certs, "this system".to_owned()),
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found);
    match roots.is_empty() {
        true => Err(super::Error::NoRoots { whose }),
        false => Ok(roots),
    }
}

/// The certificate that the server of a connection has shown. None where it cannot be read.
pub fn shown(connection: &ClientConnection) -> Option<Shown> {
    Shown::read(connection.peer_certificates()?.first()?)
}

/// Whether the server's certificate is valid now, for this name, and by somebody who is trusted; why not, in
/// words for an operator. Reads files.
pub fn judge(
    trust: Trust<'_>,
    connection: &ClientConnection,
    name: &ServerName<'_>,
) -> Result<(), String> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let (own, others) = chain.split_first().ok_or("the server has shown none")?;
    let roots = Arc::new(roots(trust).map_err(|error| error.to_string())?);
    let provider = Arc::new(policy::provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let judged = verifier.verify_server_cert(own, others, name, &[], UnixTime::now());
    judged.map(drop).map_err(|error| match error {
        Error::InvalidCertificate(error) => error.to_string(),
        error => error.to_string(),
    })
}

/// Which certificates are believed. That the server holds the key, it has to prove in any case.
pub(super) trait Belief: fmt::Debug + Send + Sync {
    /// Whether the certificate is one of them; `sent` are the others that came with it.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error>;
}

/// All are.
#[derive(Debug)]
struct AnyCertificate;

impl Belief for AnyCertificate {
    fn check(
        &self,
        _certificate: &CertificateDer<'_>,
        _sent: &[CertificateDer<'_>],
        _now: UnixTime,
        _algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        Ok(())
    }
}

/// A belief, as the TLS library asks for it.
#[derive(Debug)]
struct Verifier<B> {
    belief: B,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<B: Belief> ServerCertVerifier for Verifier<B> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self
            .belief
            .check(certificate, intermediates, now, &self.algorithms);
        checked.map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
