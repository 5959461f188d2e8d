//! Certificates that the gateway presents and the test client trusts.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use rcgen::CertificateParams;
use rcgen::KeyPair;
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
        Certificate::make_until(folder, name, 4096)
    }

    /// As [`Certificate::make`], for one that is no longer valid.
    pub fn make_expired(folder: &Path, name: &str) -> Certificate {
        Certificate::make_until(folder, name, 2020)
    }

    fn make_until(folder: &Path, name: &str, year: i32) -> Certificate {
        let pair = KeyPair::generate().expect("a key can be made");
        let mut parameters = CertificateParams::new([name.to_owned()]).expect("a name");
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let made = parameters
            .self_signed(&pair)
            .expect("a certificate can be made");
        fs::create_dir_all(folder).expect("a folder for the certificate");
        let certificate = Certificate {
            chain: folder.join("fullchain.pem"),
            key: folder.join("privkey.pem"),
            der: made.der().clone(),
        };
        fs::write(&certificate.key, pair.serialize_pem()).expect("written");
        fs::write(&certificate.chain, made.pem()).expect("written");
        certificate
    }

    /// Its entry in `certificates` of `[tls]`.
    pub fn entry(&self) -> String {
        format!("{{ chain = {:?}, key = {:?} }}", self.chain, self.key)
    }

    /// The `[tls]` section that names the files.
    pub fn section(&self) -> String {
        format!("[tls]\ncertificates = [{}]\n", self.entry())
    }
}
