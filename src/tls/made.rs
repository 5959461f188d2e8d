//! The certificate that we make for ourselves where none is configured.
//!
//! Nobody trusts it, but opportunistic TLS asks for no trust (RFC 7435): most of the world's mail
//! servers deliver encrypted to any certificate. Kept in the data directory across restarts, so that
//! whoever pins it (RFC 7672) can; made anew when it nears its end or the host is renamed.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use jiff::Timestamp;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::PKCS_ECDSA_P256_SHA256;

use super::CertificateFiles;
use super::Error;
use super::certificate::Certificate;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const VALID_FOR: Duration = DAY.saturating_mul(365);

/// Where it is kept.
pub(super) fn files(data_dir: &Path) -> CertificateFiles {
    let directory = data_dir.join("tls");
    CertificateFiles {
        chain: directory.join("self-signed.pem"),
        key: directory.join("self-signed.key"),
    }
}

/// Whether it is time to make another.
pub(super) fn is_due(certificate: &Certificate, now: Timestamp) -> bool {
    certificate.is_late_from() <= now
}

/// Makes a key and a certificate for the host name, and keeps them.
pub(super) fn make(files: &CertificateFiles, hostname: &str, now: Timestamp) -> Result<(), Error> {
    let failed = |source| Error::Make {
        hostname: hostname.to_owned(),
        source,
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let certificate = parameters(hostname, now.into())
        .and_then(|parameters| parameters.self_signed(&key))
        .map_err(failed)?;
    keep(&files.key, &key.serialize_pem())?;
    keep(&files.chain, &certificate.pem())
}

fn parameters(hostname: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(vec![hostname.to_owned()])?;
    // A peer's clock may be behind ours.
    parameters.not_before = (now - DAY).into();
    parameters.not_after = (now + VALID_FOR).into();
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.distinguished_name = DistinguishedName::new();
    // RFC 5280 appendix A.1: a common name has at most 64 characters.
    if hostname.len() <= 64 {
        let names = &mut parameters.distinguished_name;
        names.push(DnType::CommonName, hostname);
    }
    Ok(parameters)
}

/// Writes a file for nobody but us (mode 0600), whole or not at all, in a folder for nobody but us.
pub fn keep(path: &Path, text: &str) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            let mut private = fs::DirBuilder::new();
            private.recursive(true).mode(0o700).create(directory)?;
        }
        let new = path.with_added_extension("new");
        // One left over from a crash may have other permissions.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut private = OpenOptions::new();
        private.write(true).create_new(true).mode(0o600);
        let mut file = private.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|source| Error::Keep {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_host_name_gets_a_certificate() {
        let hostname = format!("{}.example", ["a"; 120].join("."));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let parameters = parameters(&hostname, SystemTime::now()).unwrap();
        assert!(parameters.self_signed(&key).is_ok());
    }
}
