//! What a listener agrees to in a handshake: versions, cipher suites, whether it asks for a certificate.
//!
//! All that the library speaks has forward secrecy and authenticated encryption (RFC 9325 §4.2), so
//! that a list of suites makes a choice among good ones. Of the groups for the key exchange the client
//! chooses, and clients that have the hybrid post-quantum one put it first.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use tokio_rustls::rustls::NamedGroup;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::SupportedCipherSuite;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use tokio_rustls::rustls::server::ProducesTickets;
use tokio_rustls::rustls::server::ResolvesServerCert;
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::version::TLS13;

use super::Error;
use super::asked;
use super::facts;

/// What a listener agrees to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    /// The oldest version that is spoken.
    pub minimum_version: MinimumVersion,
    /// The suites that are spoken, the preferred first. None given: all.
    pub ciphers: Vec<Cipher>,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
}

/// What a listener has of its own instead of what `[tls]` says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    /// `tls_minimum_version`
    pub minimum_version: Option<MinimumVersion>,
    /// `tls_ciphers`
    pub ciphers: Option<Vec<Cipher>>,
    /// `client_certificates`
    pub client_certificates: ClientCertificates,
}

/// `minimum_version`. Default: `"1.2"`, for mail that is refused here goes unencrypted elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum MinimumVersion {
    /// `"1.2"`: TLS 1.2 and 1.3.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// `"1.3"`: TLS 1.3 alone.
    #[serde(rename = "1.3")]
    Tls13,
}

/// `client_certificates`: whether clients are asked for one. None has to have any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    Off,
    /// They are asked, and may do without.
    Ask,
}

/// A cipher suite, by IANA's name.
#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cipher(SupportedCipherSuite);

/// There is no such suite, or it is not one that is spoken here.
#[derive(Debug, thiserror::Error)]
#[error("{given:?} is no cipher suite that is spoken here; there are {}", names().join(", "))]
pub struct UnknownCipher {
    given: String,
}

impl TryFrom<String> for Cipher {
    type Error = UnknownCipher;

    fn try_from(given: String) -> Result<Cipher, UnknownCipher> {
        let mut all = ALL_CIPHER_SUITES.iter().map(|suite| Cipher(*suite));
        all.find(|cipher| cipher.name() == given)
            .ok_or(UnknownCipher { given })
    }
}

impl Cipher {
    /// IANA's name.
    pub fn name(self) -> &'static str {
        facts::cipher(self.0.suite()).0
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn names() -> Vec<&'static str> {
    let all = ALL_CIPHER_SUITES.iter();
    all.map(|suite| Cipher(*suite).name()).collect()
}

impl Policy {
    /// Whether there is a suite for a version that is spoken.
    pub fn can_agree(&self) -> bool {
        let is_new = |cipher: &Cipher| cipher.0.tls13().is_some();
        match self.minimum_version {
            MinimumVersion::Tls12 => true,
            MinimumVersion::Tls13 => self.ciphers.is_empty() || self.ciphers.iter().any(is_new),
        }
    }

    /// What a listener with this policy shakes hands with.
    pub(super) fn server_config(
        &self,
        resolver: Arc<dyn ResolvesServerCert>,
        tickets: &Tickets,
    ) -> Result<ServerConfig, Error> {
        let versions = match self.minimum_version {
            MinimumVersion::Tls12 => &[&TLS13, &TLS12][..],
            MinimumVersion::Tls13 => &[&TLS13],
        };
        let mut provider = provider();
        if !self.ciphers.is_empty() {
            provider.cipher_suites = self.ciphers.iter().map(|cipher| cipher.0).collect();
        }
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?;
        let builder = match self.client_certificates {
            ClientCertificates::Off => builder.with_no_client_auth(),
            ClientCertificates::Ask => builder.with_client_cert_verifier(asked::verifier(provider)),
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.ignore_client_order = true;
        // A mail client comes back once with each, not with several connections at a time.
        config.send_tls13_tickets = 1;
        config.ticketer = Arc::clone(match self.client_certificates {
            ClientCertificates::Off => &tickets.unasked,
            ClientCertificates::Ask => &tickets.asked,
        });
        Ok(config)
    }
}

/// The keys of tickets (RFC 8446 §4.6.1, RFC 5077), renewed every six hours; nothing else is kept of a
/// session that may be resumed.
///
/// A ticket holds the certificate that the client showed, or that it showed none. So one from a
/// listener that did not ask must not be good where clients are asked, or a client would be taken
/// for one without a certificate.
#[derive(Debug)]
pub(super) struct Tickets {
    asked: Arc<dyn ProducesTickets>,
    unasked: Arc<dyn ProducesTickets>,
}

impl Tickets {
    pub(super) fn new() -> Result<Tickets, Error> {
        Ok(Tickets {
            asked: aws_lc_rs::Ticketer::new()?,
            unasked: aws_lc_rs::Ticketer::new()?,
        })
    }
}

/// aws-lc-rs, its hybrid post-quantum key exchange first: as a client, we prefer it.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let groups = &mut provider.kx_groups;
    groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_known_by_their_registered_names() {
        #[derive(Debug, Deserialize)]
        struct Listed {
            ciphers: Vec<Cipher>,
        }
        let read = |name: &str| toml::from_str::<Listed>(&format!("ciphers = [{name:?}]"));
        for name in names() {
            assert_eq!(read(name).unwrap().ciphers[0].name(), name);
        }
        for name in [
            "TLS_RSA_WITH_AES_128_CBC_SHA",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "",
        ] {
            let error = read(name).unwrap_err().to_string();
            assert!(error.contains("TLS_AES_128_GCM_SHA256"), "{error}");
        }
    }

    #[test]
    fn a_list_without_a_suite_for_the_version_agrees_to_nothing() {
        let cipher = |name: &str| Cipher::try_from(name.to_owned()).unwrap();
        let old = cipher("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        let new = cipher("TLS_AES_128_GCM_SHA256");
        for (minimum_version, ciphers, want) in [
            (MinimumVersion::Tls12, vec![], true),
            (MinimumVersion::Tls12, vec![old], true),
            (MinimumVersion::Tls13, vec![], true),
            (MinimumVersion::Tls13, vec![old], false),
            (MinimumVersion::Tls13, vec![old, new], true),
        ] {
            let policy = Policy {
                minimum_version,
                ciphers,
                client_certificates: ClientCertificates::Off,
            };
            assert_eq!(policy.can_agree(), want, "{policy:?}");
        }
    }
}
