//! Certificates that the gateway presents and the test client trusts.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use tokio_rustls::rustls::pki_types::CertificateDer;

/// A self-signed certificate with its key, in PEM files as certbot lays them out.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    pub der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes `fullchain.pem` and `privkey.pem` for `name` in `folder`; replaces those that are there.
    pub fn make(folder: &Path, name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed([name.to_owned()])
            .expect("a certificate can be made");
        fs::create_dir_all(folder).expect("a folder for the certificate");
        let certificate = Certificate {
            chain: folder.join("fullchain.pem"),
            key: folder.join("privkey.pem"),
            der: made.cert.der().clone(),
        };
        fs::write(&certificate.key, made.signing_key.serialize_pem()).expect("written");
        fs::write(&certificate.chain, made.cert.pem()).expect("written");
        certificate
    }

    /// The `[tls]` section that names the files.
    pub fn section(&self) -> String {
        format!(
            "[tls]\ncertificates = [{{ chain = {:?}, key = {:?} }}]\n",
            self.chain, self.key
        )
    }
}
