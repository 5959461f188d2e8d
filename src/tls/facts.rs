//! What a handshake came to, in the words of our Received field.

use tokio_rustls::rustls::CipherSuite;
use tokio_rustls::rustls::ConnectionCommon;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::NamedGroup;
use tokio_rustls::rustls::ProtocolVersion;

/// What the peers agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// `TLS1.2` or `TLS1.3`.
    pub version: &'static str,
    /// IANA's name of the cipher suite (RFC 8314 §4.3).
    pub cipher: &'static str,
    /// Length of the key that encrypts the connection.
    pub bits: u16,
    /// What the keys were agreed on by: `X25519MLKEM768`, `X25519`, `secp256r1` and the like. Empty where
    /// an older session was resumed with keys of its own.
    pub key_exchange: &'static str,
    /// Whether an older session was resumed.
    pub resumed: bool,
}

/// Reads them off a connection whose handshake is done.
pub fn facts<D>(connection: &ConnectionCommon<D>) -> Facts {
    let version = version(connection);
    let suite = connection.negotiated_cipher_suite();
    let (cipher, bits) = suite.map_or(UNKNOWN, |suite| cipher(suite.suite()));
    Facts {
        version,
        cipher,
        bits,
        key_exchange: key_exchange(connection),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

fn key_exchange<D>(connection: &ConnectionCommon<D>) -> &'static str {
    let group = connection.negotiated_key_exchange_group();
    match group.map(|group| group.name()) {
        Some(NamedGroup::X25519MLKEM768) => "X25519MLKEM768",
        Some(NamedGroup::X25519) => "X25519",
        Some(NamedGroup::secp256r1) => "secp256r1",
        Some(NamedGroup::secp384r1) => "secp384r1",
        Some(_) => "unknown",
        None => "",
    }
}

pub(super) fn version<D>(connection: &ConnectionCommon<D>) -> &'static str {
    match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLS1.3",
        _ => "unknown",
    }
}

const UNKNOWN: (&str, u16) = ("unknown", 0);

/// All that rustls speaks on aws-lc-rs.
pub(super) fn cipher(suite: CipherSuite) -> (&'static str, u16) {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => ("TLS_AES_256_GCM_SHA384", 256),
        CipherSuite::TLS13_AES_128_GCM_SHA256 => ("TLS_AES_128_GCM_SHA256", 128),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => ("TLS_CHACHA20_POLY1305_SHA256", 256),
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => {
            ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 256)
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => {
            ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 128)
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 256)
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => {
            ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 256)
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => {
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 128)
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 256)
        }
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

    use super::*;

    #[test]
    fn each_suite_has_a_name() {
        for suite in ALL_CIPHER_SUITES {
            assert_ne!(cipher(suite.suite()), UNKNOWN, "{suite:?}");
        }
    }
}
