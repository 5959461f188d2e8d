//! Asks clients for a certificate, and takes any: in the handshake a client only has to prove that it
//! holds the key. Whose certificate it is, and whether it opens anything, is found out afterwards
//! ([`super::Authorities::shown`]), anew for a session that is resumed.
//!
//! A certificate whose key cannot be verified here proves nothing, and must not keep mail out either: it
//! is as good as none.

use std::sync::Arc;

use tokio_rustls::rustls::CertificateError;
use tokio_rustls::rustls::DigitallySignedStruct;
use tokio_rustls::rustls::DistinguishedName;
use tokio_rustls::rustls::Error;
use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::verify_tls12_signature;
use tokio_rustls::rustls::crypto::verify_tls13_signature;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::server::danger::ClientCertVerified;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// A session keeps what its client has shown, and so does each of its tickets.
const MOST_OCTETS: usize = 16 * 1024;

/// Bits of the RSA keys whose signatures are verified.
const RSA: std::ops::RangeInclusive<usize> = 2048..=8192;

pub(super) fn verifier(provider: Arc<CryptoProvider>) -> Arc<dyn ClientCertVerifier> {
    Arc::new(AnyCertificate { provider })
}

/// Whether a handshake that came off proves that the client holds the key of this certificate. Depends
/// on the certificate alone, so that it is the same for a session that is resumed.
pub(super) fn is_provable(certificate: &CertificateDer<'_>) -> bool {
    if ParsedCertificate::try_from(certificate).is_err() {
        return false;
    }
    let Ok((_, read)) = X509Certificate::from_der(certificate) else {
        return false;
    };
    match read.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => RSA.contains(&key.key_size()),
        Ok(_) => true,
        Err(_) => false,
    }
}

#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a client that has a certificate shows it, whoever made it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let octets = intermediates.iter().map(|one| one.len()).sum::<usize>() + certificate.len();
        if octets > MOST_OCTETS {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !is_provable(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !is_provable(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
