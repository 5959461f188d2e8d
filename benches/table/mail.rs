//! The messages of rows with checks, and the key that signs them.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;
use gatepost::mail::address::Domain;
use gatepost::sign::Signer;
use rcgen::KeyPair;
use rcgen::PKCS_RSA_SHA256;

use crate::sending::CLIENT;
use crate::sending::SIZE;

/// A domain that asks for rejection, and for which nothing here may send.
pub(crate) const STRICT: &str = "strict.example";

/// The key of every domain, RSA of 2048 bits as most mail has it.
pub(crate) struct Key {
    pem: String,
    record: String,
}

impl Key {
    pub(crate) fn make() -> Result<Key> {
        let pem = KeyPair::generate_for(&PKCS_RSA_SHA256)?.serialize_pem();
        let record = Signer::from_pem(&pem, &Domain::parse(CLIENT)?, "s1")?.dns_record();
        Ok(Key { pem, record })
    }

    /// The key itself, PKCS #8 in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// What stands at `s1._domainkey` of every domain.
    pub(crate) fn record(&self) -> &str {
        &self.record
    }

    /// A message of about [`SIZE`] octets of an author of this domain, signed by it.
    pub(crate) fn signed(&self, domain: &str) -> Result<String> {
        let signer = Signer::from_pem(&self.pem, &Domain::parse(domain)?, "s1")?;
        let message = message(domain, SIZE);
        Ok(signer.sign(message.as_bytes())? + &message)
    }
}

/// Text of about `size` octets under a header such as mail has, from an author of this domain.
pub(crate) fn message(domain: &str, size: usize) -> String {
    let mut message = format!(
        "From: Ann Author <ann@{domain}>\r\n\
         To: Ben <user@gate.example>\r\n\
         Subject: What the checks cost\r\n\
         Date: Tue, 24 Nov 2026 05:00:00 +0000\r\n\
         Message-ID: <1234567890@{domain}>\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    );
    while message.len() < size {
        message.push_str("A line of plain text such as people write, of sixty octets.\r\n");
    }
    message
}

/// Writes what nobody else may read.
pub(crate) fn write_secret(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(file, Permissions::from_mode(0o600))?)
}

/// Writes a message as `smtp-source -F` wants it, with LF at its line ends.
pub(crate) fn write(folder: &Path, message: &str) -> Result<PathBuf> {
    let file = folder.join("message");
    fs::write(&file, message.replace("\r\n", "\n"))?;
    Ok(file)
}
