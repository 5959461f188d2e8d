//! A machine that is known by a certificate, and how it connects.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::SHA256;
use aws_lc_rs::digest::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::KeyPair;
use rcgen::PublicKeyData;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::NamedGroup;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::version::TLS13;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::tls_host::Authority;

/// Both versions, the newer first.
pub const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A certificate with a key, which need not be its own.
pub struct Machine {
    pub der: CertificateDer<'static>,
    pub key: KeyPair,
}

impl Machine {
    /// Signed by itself.
    pub fn new(name: &str) -> Machine {
        let key = KeyPair::generate().expect("a key");
        Machine::with(name, key)
    }

    /// Another certificate for the same key.
    pub fn renewed(&self, name: &str) -> Machine {
        let key = KeyPair::from_pem(&self.key.serialize_pem()).expect("the same key");
        Machine::with(name, key)
    }

    fn with(name: &str, key: KeyPair) -> Machine {
        let made = params(name).self_signed(&key).expect("a certificate");
        let der = made.der().clone();
        Machine { der, key }
    }

    /// Signed by an authority, for this usage, until this year.
    pub fn of(authority: &Authority, usage: ExtendedKeyUsagePurpose, until: i32) -> Machine {
        let key = KeyPair::generate().expect("a key");
        let mut params = params("machine.example");
        params.extended_key_usages = vec![usage];
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let der = authority.sign(&params, &key);
        Machine { der, key }
    }

    /// SHA-256 of the certificate, as `openssl x509 -fingerprint` writes it.
    pub fn fingerprint(&self) -> String {
        pairs(&self.der).join(":")
    }

    /// SHA-256 of the public key.
    pub fn key_fingerprint(&self) -> String {
        pairs(&self.key.subject_public_key_info()).concat()
    }
}

/// A certificate in PEM.
pub fn pem(der: &CertificateDer<'_>) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([]).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn pairs(octets: &[u8]) -> Vec<String> {
    let sum = digest(&SHA256, octets);
    let pair = |octet: &u8| format!("{octet:02X}");
    sum.as_ref().iter().map(pair).collect()
}

/// A client that trusts the gateway, and shows the certificate of a machine where it is asked. It
/// remembers its sessions.
pub fn config(
    gateway: &Gateway,
    machine: Option<&Machine>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = gateway.site.certificate.der.clone();
    roots.add(root).expect("a certificate");
    let mut provider = default_provider();
    // As clients have it that know it: the hybrid post-quantum key exchange first.
    let groups = &mut provider.kx_groups;
    groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(versions);
    let builder = builder.expect("versions of the library");
    let builder = builder.with_root_certificates(roots);
    Arc::new(match machine {
        None => builder.with_no_client_auth(),
        Some(machine) => builder.with_client_cert_resolver(shown(machine)),
    })
}

/// Unlike what the library does by itself, also for a key that is another's.
fn shown(machine: &Machine) -> Arc<dyn ResolvesClientCert> {
    let der = PrivateKeyDer::Pkcs8(machine.key.serialize_der().into());
    let key = any_supported_type(&der).expect("a key");
    let certified = CertifiedKey::new(vec![machine.der.clone()], key);
    Arc::new(SingleCertAndKey::from(certified))
}

/// Connects to a port that offers TLS, shakes hands and says EHLO.
pub fn connect(port: u16, config: &Arc<ClientConfig>) -> io::Result<Client> {
    let mut client = Client::hello(([127, 0, 0, 1], port).into());
    client.expect("STARTTLS", "220");
    client.secure_with(config, HOSTNAME)?;
    client.try_send(b"EHLO machine.example\r\n")?;
    client.try_reply()?;
    Ok(client)
}
