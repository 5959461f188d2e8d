//! One certificate that is to be had, and where it is kept.

use std::path::Path;
use std::path::PathBuf;

use super::config::Challenge;
use crate::tls::CertificateFiles;
use crate::tls::KeyKind;

/// A certificate that the configuration wants, with all that is to be known for getting it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The authority.
    pub directory: String,
    /// At least one.
    pub names: Vec<String>,
    /// How each is shown to be ours.
    pub challenge: Challenge,
    /// What kind of key it is for.
    pub key: KeyKind,
    /// Whether the next one has the key of the last.
    pub reuse_key: bool,
}

impl Wanted {
    /// Where it is kept, and what is known about it beside that, by the ending.
    pub(super) fn path(&self, folder: &Path, ending: &str) -> PathBuf {
        let name = self.names.first().map_or("", String::as_str);
        let name = name.replace('*', "_");
        folder.join(format!("{name}.{}.{ending}", self.key))
    }

    /// Where the certificate is kept, with its key.
    pub fn files(&self, data_dir: &Path) -> CertificateFiles {
        CertificateFiles::in_one(&self.path(&folder(data_dir), "pem"))
    }
}

/// Where all that we keep for this lies.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("acme")
}
