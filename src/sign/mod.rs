//! Our own DKIM signatures (RFC 6376, RFC 8463).
//!
//! [`Signing`] holds all keys and says who signs for an author: `[[signing.rule]]` first, then the
//! keys of the author's domain. Each key makes one DKIM-Signature field; a message is put into its
//! canonical form once for all of them. A [`Signer`] is one key of one domain.
//!
//! Only From of the header decides; whether a message may be signed at all (who logged in, from where
//! it came) is decided in front of this.
//!
//! # Limits
//!
//! rsa-sha256 with 2048 to 8192 bits and ed25519-sha256; no `l=`, no `z=`. Keys are files: no HSM. An
//! RSA signature takes a quarter of a millisecond, on the thread that asks for it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::content::Content;
use crate::sign::keys::Keys;
use crate::sign::keys::identity_text;
use crate::sign::message::Canonical;

mod config;
mod der;
mod keys;
mod made;
mod message;
mod name;
mod pattern;
mod published;
mod signer;

pub use self::config::Canonicalization;
pub use self::config::Config;
pub use self::config::Identity;
pub use self::config::KeyFile;
pub use self::config::Rule;
pub use self::keys::Held;
pub use self::keys::default_folder;
pub use self::keys::default_path;
pub use self::made::make;
pub use self::name::KeyName;
pub use self::name::NoSelector;
pub use self::name::Selector;
pub use self::pattern::Pattern;
pub use self::published::Published;
pub use self::published::published;
pub use self::signer::Signer;

/// The domains we sign for, each with its list of keys; None where it has no list, so that its folder
/// is looked through.
pub type Domains = BTreeMap<Domain, Option<Vec<KeyFile>>>;

/// What a key is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// rsa-sha256, which every verifier knows.
    Rsa,
    /// ed25519-sha256 (RFC 8463), which not every verifier knows.
    Ed25519,
}

impl Algorithm {
    /// As k= of a key record has it.
    pub fn key_type(self) -> &'static str {
        match self {
            Algorithm::Rsa => "rsa",
            Algorithm::Ed25519 => "ed25519",
        }
    }

    /// As a= of a signature has it.
    pub fn signature_name(self) -> &'static str {
        match self {
            Algorithm::Rsa => "rsa-sha256",
            Algorithm::Ed25519 => "ed25519-sha256",
        }
    }
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file or folder, or it may not be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// Others than its owner may read or write the file.
    #[error("the private key {shown} is open to others than its owner; `chmod 600 {shown}` closes it", shown = .0.display())]
    Exposed(PathBuf),
    /// The file was read, and its key can't be used.
    #[error("cannot use the key in {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with the key.
        source: Box<Error>,
    },
    /// The key is neither Ed25519 nor RSA of 2048 bits and more, or not in PKCS #8 or #1.
    #[error("cannot use the key: {0}")]
    Key(String),
    /// The selector is no name in the DNS.
    #[error("{0:?} is no selector; one looks like \"mail2026\"")]
    Selector(String),
    /// There is nothing to sign, such as a message without a header.
    #[error("cannot sign the message: {0}")]
    Message(String),
}

impl From<NoSelector> for Error {
    fn from(no: NoSelector) -> Error {
        Error::Selector(no.0)
    }
}

/// All keys of all domains. Clones share them, also when others have taken their place.
#[derive(Clone)]
pub struct Signing {
    keys: Arc<ArcSwap<Keys>>,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing").finish_non_exhaustive()
    }
}

impl Signing {
    /// Reads all keys; one that cannot be used is an error. To be called by the user that the gateway
    /// runs as.
    pub fn open(config: &Config, domains: &Domains, data_dir: &Path) -> Result<Signing, Error> {
        let keys = Keys::read(config, domains, data_dir)?;
        Ok(Signing {
            keys: Arc::new(ArcSwap::from_pointee(keys)),
        })
    }

    /// Takes the keys of another, for all clones. Messages that are being signed are not disturbed.
    pub fn replace(&self, other: &Signing) {
        self.keys.store(other.keys.load_full());
    }

    /// The DKIM-Signature fields to put in front of a message whose From is `author`, each with its
    /// final CRLF, one for each key that signs for this author. None where no key does.
    ///
    /// After an error the message must not go out: it would go unsigned. `now` becomes `t=`.
    pub fn fields(
        &self,
        author: &Address,
        message: &Content,
        now: SystemTime,
    ) -> Result<Option<String>, Error> {
        let keys = self.keys.load();
        let (held, identity) = keys.of(author);
        if held.is_empty() {
            return Ok(None);
        }
        let canonical = Canonical::of(message, &keys.form)?;
        let field = |held: &Held| {
            let identity = identity_text(identity, author, &held.signer);
            held.signer.field(&canonical, &keys.form, &identity, now)
        };
        held.iter()
            .map(field)
            .collect::<Result<String, _>>()
            .map(Some)
    }

    /// The keys of each domain that has some, in the order in which they sign.
    pub fn domains(&self) -> Vec<(String, Vec<Held>)> {
        let keys = self.keys.load();
        let domains = keys.domains.iter();
        let some = domains.filter(|(_, held)| !held.is_empty());
        some.map(|(domain, held)| (domain.clone(), held.clone()))
            .collect()
    }

    /// The rules in their order: whose mail, and the keys that sign it.
    pub fn rules(&self) -> Vec<(Pattern, Vec<Held>)> {
        let keys = self.keys.load();
        let rules = keys.rules();
        rules
            .map(|(from, held)| (from.clone(), held.to_vec()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
