//! All keys of a configuration, and who of them signs for an author.
//!
//! Rules come first. Where none fits, the keys of the author's domain sign, or those of the nearest
//! domain above it that has some, where subdomains are signed for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::sign::Config;
use crate::sign::Domains;
use crate::sign::Error;
use crate::sign::Identity;
use crate::sign::KeyName;
use crate::sign::Selector;
use crate::sign::Signer;
use crate::sign::config::is_within;
use crate::sign::message::Form;
use crate::sign::pattern::Pattern;

/// What a key file's name ends with.
const SUFFIX: &str = ".pem";

/// Where a key is looked for that no section names: `DATA_DIR/dkim/DOMAIN/SELECTOR.pem`.
pub fn default_path(data_dir: &Path, key: &KeyName) -> PathBuf {
    let folder = default_folder(data_dir, &key.domain);
    folder.join(format!("{}{SUFFIX}", key.selector))
}

/// Where the keys of a domain are looked for that has no list of them.
pub fn default_folder(data_dir: &Path, domain: &Domain) -> PathBuf {
    data_dir.join("dkim").join(domain.as_str())
}

/// A key and the file it came from.
#[derive(Clone)]
pub struct Held {
    /// What signs.
    pub signer: Arc<Signer>,
    /// Its file.
    pub path: PathBuf,
}

/// All keys, and what they sign.
pub(super) struct Keys {
    pub(super) form: Form,
    pub(super) identity: Identity,
    subdomains: bool,
    rules: Vec<Rule>,
    /// A domain without keys that is here has none on purpose.
    pub(super) domains: BTreeMap<String, Vec<Held>>,
}

struct Rule {
    from: Pattern,
    signers: Vec<Held>,
    identity: Option<Identity>,
}

impl Keys {
    pub(super) fn read(config: &Config, domains: &Domains, data_dir: &Path) -> Result<Keys, Error> {
        let mut held = BTreeMap::new();
        for (domain, listed) in domains {
            let files = match listed {
                Some(list) => list
                    .iter()
                    .map(|file| (file.selector.clone(), file.key.clone()))
                    .collect(),
                None => found(&default_folder(data_dir, domain))?,
            };
            let keys = files.into_iter().map(|(selector, path)| {
                let domain = domain.clone();
                hold(KeyName { domain, selector }, path)
            });
            let keys = keys.collect::<Result<Vec<_>, _>>()?;
            if listed.is_some() || !keys.is_empty() {
                held.insert(domain.as_str().to_owned(), keys);
            }
        }
        let mut rules = Vec::new();
        for rule in &config.rule {
            let signers = rule.keys.iter().map(|name| {
                let keys = held.get(name.domain.as_str());
                let known = keys.and_then(|keys| keys.iter().find(|key| key.signer.name() == name));
                let known = known.cloned().map(Ok);
                known.unwrap_or_else(|| hold(name.clone(), default_path(data_dir, name)))
            });
            rules.push(Rule {
                from: rule.from.clone(),
                signers: signers.collect::<Result<_, _>>()?,
                identity: rule.identity.clone(),
            });
        }
        Ok(Keys {
            form: Form::new(config),
            identity: config.identity.clone(),
            subdomains: config.subdomains,
            rules,
            domains: held,
        })
    }

    /// Who signs for this author, and whom each names; empty where nobody does.
    pub(super) fn of(&self, author: &Address) -> (&[Held], &Identity) {
        if let Some(rule) = self.rules.iter().find(|rule| rule.from.fits(author)) {
            let identity = rule.identity.as_ref().unwrap_or(&self.identity);
            return (&rule.signers, identity);
        }
        let mut name = author.domain().map(Domain::as_str);
        while let Some(domain) = name {
            if let Some(keys) = self.domains.get(domain) {
                return (keys, &self.identity);
            }
            let above = domain.split_once('.').map(|(_, above)| above);
            name = above.filter(|_| self.subdomains);
        }
        (&[], &self.identity)
    }

    /// Each rule: whose mail, and the keys that sign it.
    pub(super) fn rules(&self) -> impl Iterator<Item = (&Pattern, &[Held])> {
        self.rules
            .iter()
            .map(|rule| (&rule.from, rule.signers.as_slice()))
    }
}

/// What stands in i= of a signature of `signer`; empty for none.
pub(super) fn identity_text(identity: &Identity, author: &Address, signer: &Signer) -> String {
    match identity {
        Identity::Domain => String::new(),
        // RFC 6376 §3.5: only who is in the domain of d= or below it.
        Identity::Author => match author.domain() {
            Some(domain) if is_within(domain, &signer.name().domain) => author.to_string(),
            _ => String::new(),
        },
        Identity::Given(named) => named.as_str().to_owned(),
    }
}

fn hold(name: KeyName, path: PathBuf) -> Result<Held, Error> {
    let signer = Arc::new(Signer::from_file(&path, &name)?);
    Ok(Held { signer, path })
}

/// The keys in a folder by their selectors; none where there is no folder.
fn found(folder: &Path) -> Result<Vec<(Selector, PathBuf)>, Error> {
    let read = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(read)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(selector) = name.strip_suffix(SUFFIX) else {
            continue;
        };
        if !selector.starts_with('.') {
            files.push((selector.parse()?, path.clone()));
        }
    }
    files.sort();
    Ok(files)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
