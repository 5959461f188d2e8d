//! What the authority is shown, where it looks for it: a page, a certificate, a record. Each is there
//! only as long as its order.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use instant_acme::KeyAuthorization;

use super::config::Challenge;
use crate::dns::update;
use crate::dns::update::Published;
use crate::dns::update::Updates;
use crate::http::Pages;
use crate::tls;

/// Where the pages of HTTP-01 are (RFC 8555 §8.3).
const PAGES: &str = "/.well-known/acme-challenge/";

/// What is to be shown could not be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of the web server cannot be written to.
    #[error("cannot write {}", .path.display())]
    Webroot {
        /// The page.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// The certificate could not be made.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The record could not be published.
    #[error(transparent)]
    Dns(#[from] update::Error),
}

/// The pages of HTTP-01 that are shown now, by their token. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<Mutex<HashMap<String, String>>>);

impl Tokens {
    /// The pages for a listener. They are the same whatever name of ours is asked.
    pub fn pages(&self) -> Pages {
        let tokens = self.clone();
        Pages::new(move |_, path| {
            let token = path.strip_prefix(PAGES)?;
            tokens.all().get(token).cloned()
        })
    }

    /// The map is whole between any two calls, so that poison means nothing here.
    fn all(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shows things.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) tokens: Tokens,
    pub(super) webroot: Option<PathBuf>,
    pub(super) certificates: tls::Store,
    pub(super) updates: Updates,
}

/// What is shown for one order; to be [taken away](Shown::withdraw) at its end.
#[derive(Default)]
pub(super) struct Shown {
    tokens: Vec<String>,
    files: Vec<PathBuf>,
    names: Vec<String>,
    records: Vec<Published>,
}

impl Answers {
    /// Shows that `name` is ours, and notes in `shown` what is to be taken away.
    pub(super) async fn show(
        &self,
        challenge: Challenge,
        name: &str,
        token: &str,
        authorization: &KeyAuthorization,
        shown: &mut Shown,
    ) -> Result<(), Error> {
        match (challenge, &self.webroot) {
            (Challenge::Http01, None) => {
                let page = authorization.as_str().to_owned();
                self.tokens.all().insert(token.to_owned(), page);
                shown.tokens.push(token.to_owned());
            }
            (Challenge::Http01, Some(webroot)) => {
                let path = page_in(webroot, token)?;
                shown.files.push(path.clone());
                let written = write_page(&path, authorization.as_str());
                written.map_err(|source| Error::Webroot { path, source })?;
            }
            (Challenge::TlsAlpn01, _) => {
                let digest = authorization.digest();
                self.certificates.answer_challenge(name, digest.as_ref())?;
                shown.names.push(name.to_owned());
            }
            (Challenge::Dns01, _) => {
                // RFC 8555 §8.4
                let record = format!("_acme-challenge.{name}");
                let value = authorization.dns_value();
                let published = self.updates.publish(&record, &value).await?;
                shown.records.push(published);
            }
        }
        Ok(())
    }

    /// Takes away what an order has shown. What can't be taken away harms nobody: it proves nothing for
    /// another order.
    pub(super) async fn withdraw(&self, shown: Shown) {
        for token in shown.tokens {
            self.tokens.all().remove(&token);
        }
        for path in shown.files {
            let _ = fs::remove_file(path);
        }
        for name in shown.names {
            self.certificates.withdraw_challenge(&name);
        }
        for record in shown.records {
            let _ = self.updates.withdraw(&record).await;
        }
    }
}

/// RFC 8555 §8.3: a token holds nothing but base64url, so that it can't lead out of the folder; the
/// authority is not believed blindly in that.
fn page_in(webroot: &Path, token: &str) -> Result<PathBuf, Error> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let path = webroot.join(PAGES.trim_start_matches('/'));
    if token.is_empty() || !token.bytes().all(is_plain) {
        let source = io::Error::other("the authority gave a token that is none");
        return Err(Error::Webroot { path, source });
    }
    Ok(path.join(token))
}

/// For the web server to read, whoever runs it.
fn write_page(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stays_in_its_folder() {
        for (token, want) in [
            ("a-Z_9", true),
            ("", false),
            ("../../x", false),
            ("a/b", false),
            ("a.b", false),
        ] {
            assert_eq!(page_in(Path::new("/w"), token).is_ok(), want, "{token}");
        }
        let path = page_in(Path::new("/w"), "t").unwrap();
        assert_eq!(path, Path::new("/w/.well-known/acme-challenge/t"));
    }
}
