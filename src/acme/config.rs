//! `[acme]`: who certifies us, for which names, and how we show that these are ours.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::Deserializer;

use super::wanted::Wanted;
use crate::dns;
use crate::mail::address::Domain;
use crate::tls::KeyKind;

/// `[acme]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether the operator has read the authority's terms of service and agrees to them. Nothing is
    /// asked of an authority before.
    pub terms_agreed: bool,
    /// The addresses at which the authority may reach the operator. Default: none.
    #[serde(deserialize_with = "one_or_many")]
    pub contact: Vec<String>,
    /// The authority.
    pub directory: Directory,
    /// Whose certificates are believed when the authority is asked, in PEM. Default: those of this system.
    pub ca_file: Option<PathBuf>,
    /// What ties our account to one that exists at the authority already. Default: nothing.
    pub external_account: Option<ExternalAccount>,
    /// How we show that a name is ours.
    pub challenge: Challenge,
    /// The folder that a web server of this machine serves, for HTTP-01. Default: none, and we listen.
    pub webroot: Option<PathBuf>,
    /// What kind of key is made for a certificate.
    pub key: KeyKind,
    /// Whether a renewed certificate keeps its key, for whoever has pinned it.
    pub reuse_key: bool,
    /// The certificates. Default: one, for our hostname.
    pub certificates: Vec<Entry>,
    /// How long after a failure the authority is asked again; twice as long after each further one.
    #[serde(with = "humantime_serde")]
    pub retry_first: Duration,
    /// The longest time between two attempts, unless the authority wants to be left alone for longer.
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
    /// `[acme.dns]`: for DNS-01.
    pub dns: dns::update::Config,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            terms_agreed: false,
            contact: Vec::new(),
            directory: Directory::default(),
            ca_file: None,
            external_account: None,
            challenge: Challenge::Http01,
            webroot: None,
            key: KeyKind::EcdsaP256,
            reuse_key: false,
            certificates: Vec::new(),
            retry_first: Duration::from_secs(10 * 60),
            retry_max: Duration::from_secs(24 * 3600),
            dns: dns::update::Config::default(),
        }
    }
}

/// The address of an authority's directory (RFC 8555 §7.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Directory(String);

impl Directory {
    /// As it is asked for.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Directory {
    fn default() -> Directory {
        Directory("https://acme-v02.api.letsencrypt.org/directory".to_owned())
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Directory {
    type Error = String;

    fn try_from(text: String) -> Result<Directory, String> {
        match text.as_str() {
            "letsencrypt" => Ok(Directory::default()),
            "letsencrypt-staging" => Ok(Directory(
                "https://acme-staging-v02.api.letsencrypt.org/directory".to_owned(),
            )),
            url if url.starts_with("https://") => Ok(Directory(text)),
            _ => Err(format!(
                "{text:?} is no authority; give \"letsencrypt\", \"letsencrypt-staging\" or the https \
                 address of a directory"
            )),
        }
    }
}

/// An account that the authority knows already (RFC 8555 §7.3.4).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalAccount {
    /// Its name at the authority.
    pub id: String,
    /// The file with its key, as the authority shows it: base64url.
    pub key_file: PathBuf,
}

/// How we show that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Challenge {
    /// A page at the name, on port 80 (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// A certificate that is shown on port 443 of the name (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// A record in the name's zone (RFC 8555 §8.4). The only one for a wildcard.
    #[serde(rename = "dns-01")]
    Dns01,
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Challenge::Http01 => "http-01",
            Challenge::TlsAlpn01 => "tls-alpn-01",
            Challenge::Dns01 => "dns-01",
        })
    }
}

/// One of `certificates`. What it does not say, `[acme]` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The names that it is for.
    pub names: Vec<Name>,
    /// As in `[acme]`.
    pub challenge: Option<Challenge>,
    /// As in `[acme]`.
    pub key: Option<KeyKind>,
    /// As in `[acme]`.
    pub reuse_key: Option<bool>,
}

/// A name in a certificate: of one host, or of all hosts of a domain (`*.example.com`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

impl Name {
    /// In lower case, with A-labels.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Name, String> {
        let (star, domain) = match text.strip_prefix("*.") {
            Some(domain) => ("*.", domain),
            None => ("", text.as_str()),
        };
        match Domain::parse(domain) {
            Ok(domain) => Ok(Name(format!("{star}{domain}"))),
            Err(error) => Err(format!("{text:?} is no name for a certificate: {error}")),
        }
    }
}

impl Config {
    /// The certificates that are to be had; none where the terms are not agreed to.
    pub fn wanted(&self, hostname: &Domain) -> Vec<Wanted> {
        if !self.terms_agreed {
            return Vec::new();
        }
        let ours = Entry {
            names: vec![Name(hostname.as_str().to_owned())],
            challenge: None,
            key: None,
            reuse_key: None,
        };
        let ours = self.certificates.is_empty().then_some(&ours);
        let entries = self.certificates.iter().chain(ours);
        entries.map(|entry| self.filled(entry)).collect()
    }

    fn filled(&self, entry: &Entry) -> Wanted {
        Wanted {
            directory: self.directory.as_str().to_owned(),
            names: entry.names.iter().map(|name| name.0.clone()).collect(),
            challenge: entry.challenge.unwrap_or(self.challenge),
            key: entry.key.unwrap_or(self.key),
            reuse_key: entry.reuse_key.unwrap_or(self.reuse_key),
        }
    }

    /// The files that are read for it, each with its key.
    pub fn reads(&self) -> Vec<(&'static str, &Path)> {
        let external = self.external_account.as_ref();
        let files = [
            ("ca_file", self.ca_file.as_ref()),
            (
                "external_account.key_file",
                external.map(|account| &account.key_file),
            ),
            ("dns.key_file", self.dns.key_file.as_ref()),
        ];
        let given = files.into_iter();
        given
            .filter_map(|(key, path)| Some((key, path?.as_path())))
            .collect()
    }

    /// Whether port 80 is needed.
    pub fn listens(&self, hostname: &Domain) -> bool {
        let mut wanted = self.wanted(hostname).into_iter();
        self.webroot.is_none() && wanted.any(|one| one.challenge == Challenge::Http01)
    }

    /// Whether port 443 is needed.
    pub fn listens_for_tls(&self, hostname: &Domain) -> bool {
        let mut wanted = self.wanted(hostname).into_iter();
        wanted.any(|one| one.challenge == Challenge::TlsAlpn01)
    }

    /// What is wrong with the values: key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, right: &str| faults.push((key.to_owned(), right.to_owned()));
        if !self.terms_agreed && *self != Config::default() {
            fault(
                "terms_agreed",
                "read the authority's terms of service and say here whether you agree to them; \
                 without terms_agreed = true no certificate is asked for",
            );
        }
        if let Some(wrong) = self.contact.iter().find(|text| !is_contact(text)) {
            let right = format!("{wrong:?} is no address of a person, such as \"me@example.com\"");
            fault("contact", &right);
        }
        if self
            .webroot
            .as_ref()
            .is_some_and(|path| !path.is_absolute())
        {
            fault("webroot", "give the full path, from the first / on");
        }
        if self.retry_first < Duration::from_secs(1) {
            fault("retry_first", "must be \"1s\" or more");
        }
        if self.retry_max < self.retry_first {
            fault("retry_max", "must not be shorter than retry_first");
        }
        let mut seen = BTreeSet::new();
        for (index, entry) in self.certificates.iter().enumerate() {
            let wanted = self.filled(entry);
            let key = format!("certificates.{index}.names");
            let is_wild = entry.names.iter().any(Name::is_wildcard);
            if entry.names.is_empty() {
                fault(&key, "a certificate is for one name at least");
            } else if is_wild && wanted.challenge != Challenge::Dns01 {
                fault(
                    &key,
                    "no authority gives a wildcard for a page or a certificate; use challenge = \
                     \"dns-01\"",
                );
            } else if !seen.insert((wanted.names.first().cloned(), wanted.key)) {
                fault(
                    &key,
                    "there is another certificate with the same first name and kind of key; give \
                     each name once",
                );
            }
        }
        let dns = self.dns.faults().into_iter();
        faults.extend(dns.map(|(key, right)| (format!("dns.{key}"), right)));
        faults
    }
}

fn is_contact(text: &str) -> bool {
    text.contains('@') && !text.contains([' ', ',', '?', ':'])
}

/// Takes `"ANNA@EXAMPLE.COM"` or a list of such.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an address or a list of such")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn two_lines_get_a_certificate_for_our_own_name() {
        let hostname = Domain::parse("mx.example.com").unwrap();
        let config = read("contact = 'me@example.com'\nterms_agreed = true");
        assert_eq!(config.faults(), []);
        let wanted = config.wanted(&hostname);
        assert_eq!(wanted.len(), 1);
        assert_eq!(wanted[0].names, ["mx.example.com"]);
        assert_eq!(
            (wanted[0].challenge, wanted[0].key),
            (Challenge::Http01, KeyKind::EcdsaP256)
        );
        assert!(config.listens(&hostname) && !config.listens_for_tls(&hostname));
        let path = wanted[0].files(Path::new("/data")).chain;
        assert_eq!(path, Path::new("/data/acme/mx.example.com.ecdsa-p256.pem"));
        let disagreed = read("contact = 'me@example.com'");
        assert_eq!(disagreed.wanted(&hostname), []);
        assert_eq!(disagreed.faults()[0].0, "terms_agreed");
    }

    #[test]
    fn what_no_authority_gives_is_a_fault() {
        for (text, key) in [
            ("contact = 'me'", "contact"),
            ("webroot = 'www'", "webroot"),
            ("retry_first = '0s'", "retry_first"),
            ("retry_first = '2days'", "retry_max"),
            ("certificates = [{ names = [] }]", "certificates.0.names"),
            (
                "certificates = [{ names = ['*.a.example'] }]",
                "certificates.0.names",
            ),
            (
                "certificates = [{ names = ['a.example'] }, { names = ['a.example', 'b.example'] }]",
                "certificates.1.names",
            ),
        ] {
            let faults = read(&format!("terms_agreed = true\n{text}")).faults();
            let keys: Vec<_> = faults.into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys, [key], "{text}");
        }
        for text in [
            "directory = 'http://a.example'",
            "certificates = [{ names = ['a b'] }]",
        ] {
            assert!(toml::from_str::<Config>(text).is_err(), "{text}");
        }
        let both = "certificates = [{ names = ['a.example'] }, { names = ['a.example'], key = 'rsa-2048' }]";
        assert_eq!(read(&format!("terms_agreed = true\n{both}")).faults(), []);
    }
}
