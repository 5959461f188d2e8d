//! Who our domains are and who lives there: the facts behind every answer to RCPT TO.
//!
//! A domain's recipients stand in a file, are asked of the next hop (a callout), or are not checked.
//! Whatever cannot be found out now is said to be unsure; nothing here decides what that means.
//! [`users`] are those who may log in.

mod callout;
mod list;
pub mod users;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::ForwardPath;

pub use self::callout::Ask;
use self::callout::Callout;
pub use self::callout::Probe;
use self::list::List;
use self::users::Grant;
use self::users::Users;

/// `[directory]`: how recipients are looked up.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What parts a user from an extension: with "+", mail for user+lists is for user. Empty: nothing.
    pub recipient_delimiter: String,
    /// Who gets mail for postmaster where the domain has no such user (RFC 5321 §4.5.1).
    pub postmaster: Option<Address>,
    /// How long the next hop's word that a user exists is believed without asking again.
    #[serde(with = "humantime_serde")]
    pub callout_positive: Duration,
    /// How long it is believed when the next hop cannot be asked.
    #[serde(with = "humantime_serde")]
    pub callout_stale: Duration,
    /// How long the next hop's word that there is no such user is believed.
    #[serde(with = "humantime_serde")]
    pub callout_negative: Duration,
    /// How long a client waits for the next hop's word.
    #[serde(with = "humantime_serde")]
    pub callout_timeout: Duration,
    /// How many callouts run at once.
    pub callout_concurrency: usize,
    /// How many answers are remembered.
    pub callout_entries: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            recipient_delimiter: "+".to_owned(),
            postmaster: None,
            callout_positive: Duration::from_secs(2 * 3600),
            callout_stale: Duration::from_secs(7 * 24 * 3600),
            callout_negative: Duration::from_secs(5 * 60),
            callout_timeout: Duration::from_secs(20),
            callout_concurrency: 20,
            callout_entries: 100_000,
        }
    }
}

impl Config {
    /// What is wrong with the values: key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        if self.callout_concurrency == 0 {
            faults.push((
                "callout_concurrency".to_owned(),
                "must be 1 at least, or no recipient could ever be asked for".to_owned(),
            ));
        }
        if self.recipient_delimiter.chars().count() > 1 {
            faults.push((
                "recipient_delimiter".to_owned(),
                "must be one character, or empty".to_owned(),
            ));
        }
        faults
    }
}

/// Where a domain's recipients are known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Recipients {
    /// Nowhere: each is taken.
    Any,
    /// With the next hop, which is asked.
    Callout,
    /// In a file, one address or local part a line; `@domain` takes all of it.
    File(PathBuf),
}

impl TryFrom<String> for Recipients {
    type Error = String;

    fn try_from(text: String) -> Result<Recipients, String> {
        match text.as_str() {
            "any" => Ok(Recipients::Any),
            "callout" => Ok(Recipients::Callout),
            path if path.starts_with('/') => Ok(Recipients::File(path.into())),
            other => Err(format!(
                "{other:?} is unknown; give \"any\", \"callout\" or the full path of a file"
            )),
        }
    }
}

impl fmt::Display for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recipients::Any => f.write_str("any"),
            Recipients::Callout => f.write_str("callout"),
            Recipients::File(path) => path.display().fmt(f),
        }
    }
}

/// A file of recipients that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file, it may not be read, or it is not UTF-8.
    #[error("cannot read the recipients in {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says of it.
        source: std::io::Error,
    },
    /// A line is neither an address nor empty nor a comment.
    #[error("{}:{line}: {text:?} is no address because {reason}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
        /// Why it is no address.
        reason: crate::mail::address::Error,
    },
}

/// What is known of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Ours, and there is such a user, or nobody knows better. Deliver to this address.
    Known(Address),
    /// Not one of our domains.
    NotOurs(Address),
    /// One of our domains, and no such user.
    Unknown,
    /// One of our domains; whether there is such a user could not be found out.
    Unsure,
}

/// Our domains and their users.
pub struct Directory {
    config: Config,
    domains: HashMap<Domain, Source>,
    /// Whose postmaster `<Postmaster>` is: the host's own domain if it is ours, else the first.
    home: Domain,
    callout: Callout,
    users: Option<Arc<Users>>,
}

enum Source {
    Any,
    Callout,
    List(List),
}

impl Directory {
    /// Reads the files of `domains`. `ask` is how the next hop of a domain is asked about an address;
    /// `users` are those who may log in.
    pub fn open(
        config: Config,
        hostname: &Domain,
        domains: BTreeMap<Domain, Recipients>,
        ask: Ask,
        users: Option<Arc<Users>>,
    ) -> Result<Directory, Error> {
        let home = match domains.first_key_value() {
            Some((first, _)) if !domains.contains_key(hostname) => first.clone(),
            _ => hostname.clone(),
        };
        let domains = domains
            .into_iter()
            .map(|(domain, recipients)| {
                let source = match recipients {
                    Recipients::Any => Source::Any,
                    Recipients::Callout => Source::Callout,
                    Recipients::File(path) => Source::List(List::open(path, &domain)?),
                };
                Ok((domain, source))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Directory {
            callout: Callout::new(&config, ask),
            config,
            domains,
            home,
            users,
        })
    }

    /// Who a recipient is. Waits for the next hop at most `callout_timeout`. Cancel safe.
    pub async fn recipient(&self, path: &ForwardPath) -> Answer {
        let address = match path {
            ForwardPath::Postmaster => Address::postmaster(&self.home),
            ForwardPath::Address(address) => address.clone(),
        };
        let Some((domain, source)) = address.domain().and_then(|d| self.domains.get_key_value(d))
        else {
            return Answer::NotOurs(address);
        };
        let answer = match source {
            Source::Any | Source::Callout if is_route(address.local()) => {
                return Answer::NotOurs(address);
            }
            Source::Any => Probe::Exists,
            Source::Callout => self.callout.ask(&address).await,
            Source::List(list) => list.find(address.local(), domain, self.delimiter()),
        };
        match answer {
            Probe::Exists => Answer::Known(address),
            // RFC 5321 §4.5.1: postmaster is always there.
            Probe::Unknown | Probe::Unsure if address.is_postmaster() => {
                Answer::Known(self.config.postmaster.clone().unwrap_or(address))
            }
            Probe::Unknown => Answer::Unknown,
            Probe::Unsure => Answer::Unsure,
        }
    }

    /// Whether an address is the login's own: what it logs in with, in whatever case and with or without
    /// an extension, or what its line in the file of users adds. A login without a domain has its name at
    /// each of our domains.
    pub fn may_send_as(&self, login: &str, address: &Address) -> bool {
        let user = self.users.as_ref().and_then(|users| users.user(login));
        let also = user.iter().flat_map(|user| &user.also);
        let is_added = |grant: &Grant| grant.is_for(address, self.delimiter());
        self.is_named_by(login, address) || also.into_iter().any(is_added)
    }

    fn is_named_by(&self, login: &str, address: &Address) -> bool {
        let own = match (Address::parse(login), address.domain()) {
            (Ok(own), _) => own,
            (Err(_), Some(domain)) if self.domains.contains_key(domain) => {
                match Address::new(login, domain.clone()) {
                    Ok(own) => own,
                    Err(_) => return false,
                }
            }
            (Err(_), _) => return false,
        };
        address.belongs_to(&own, self.delimiter())
    }

    /// The address that stands for a login: the login itself, or its name at the host's own domain, if
    /// that is ours, or at the first of our domains. None where the login can be no address.
    pub fn address_of(&self, login: &str) -> Option<Address> {
        let own = Address::parse(login);
        own.or_else(|_| Address::new(login, self.home.clone())).ok()
    }

    /// What parts a user from an extension.
    pub fn delimiter(&self) -> Option<char> {
        self.config.recipient_delimiter.chars().next()
    }
}

/// Whether a local part names a user of another host: `user%host`, `host!user`, `user@host`.
///
/// The next hop trusts us, and many (Postfix as it comes) would send such mail on to that host.
fn is_route(local: &str) -> bool {
    local.contains(['%', '!', '@'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_may_send_as_itself_alone() {
        let domains =
            ["a.example", "b.example"].map(|name| (Domain::parse(name).unwrap(), Recipients::Any));
        let ask: Ask = Box::new(|_| Box::pin(async { Probe::Unsure }));
        let host = Domain::parse("b.example").unwrap();
        let directory =
            Directory::open(Config::default(), &host, domains.into(), ask, None).unwrap();
        for (login, address, want) in [
            ("anna", "anna@a.example", true),
            ("anna", "Anna+lists@b.example", true),
            ("anna", "anna@elsewhere.example", false),
            ("anna", "bob@a.example", false),
            ("anna", "anna@[192.0.2.1]", false),
            ("Anna@A.example", "anna+x@a.example", true),
            ("anna@a.example", "anna@b.example", false),
            ("anna@else.example", "anna@else.example", true),
            ("", "+x@a.example", false),
            ("anna@", "anna@a.example", false),
        ] {
            let address = Address::parse(address).unwrap();
            assert_eq!(
                directory.may_send_as(login, &address),
                want,
                "{login:?} as {address}"
            );
        }
        let address_of = |login| directory.address_of(login).map(|own| own.to_string());
        assert_eq!(address_of("anna").as_deref(), Some("anna@b.example"));
        assert_eq!(address_of("x@y.example").as_deref(), Some("x@y.example"));
        assert_eq!(address_of(""), None);
    }

    async fn answers(directory: &Directory, paths: &[&str]) -> Vec<String> {
        let mut answers = Vec::new();
        for path in paths {
            let path = ForwardPath::parse(path).unwrap();
            answers.push(match directory.recipient(&path).await {
                Answer::Known(address) => address.to_string(),
                other => format!("{other:?}").split('(').next().unwrap().to_owned(),
            });
        }
        answers
    }

    #[tokio::test]
    async fn recipients_are_found_in_files_by_any_and_by_asking() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        std::fs::write(&file, "# ours\nAnn\nbob@file.example\n\n").unwrap();
        let domains = [
            ("file.example", Recipients::File(file)),
            ("any.example", Recipients::Any),
            ("ask.example", Recipients::Callout),
        ];
        let domains = domains
            .into_iter()
            .map(|(name, recipients)| (Domain::parse(name).unwrap(), recipients))
            .collect();
        let ask: Ask = Box::new(|address| {
            let probe = match address.local() {
                "yes" => Probe::Exists,
                "no" => Probe::Unknown,
                _ => Probe::Unsure,
            };
            Box::pin(async move { probe })
        });
        let host = Domain::parse("mx.example").unwrap();
        let directory = Directory::open(Config::default(), &host, domains, ask, None).unwrap();

        for (path, want) in [
            ("<ann@file.example>", "ann@file.example"),
            ("<ANN@File.Example>", "ANN@file.example"),
            ("<bob+lists@file.example>", "bob+lists@file.example"),
            ("<carl@file.example>", "Unknown"),
            ("<postmaster@file.example>", "postmaster@file.example"),
            ("<Postmaster>", "postmaster@any.example"),
            ("<x@any.example>", "x@any.example"),
            ("<x@sub.any.example>", "NotOurs"),
            ("<x%elsewhere.example@any.example>", "NotOurs"),
            ("<elsewhere.example!yes@ask.example>", "NotOurs"),
            ("<\"yes@elsewhere.example\"@ask.example>", "NotOurs"),
            ("<carl%elsewhere.example@file.example>", "Unknown"),
            ("<bob+x%elsewhere.example@file.example>", "Unknown"),
            ("<x@[192.0.2.1]>", "NotOurs"),
            ("<yes@ask.example>", "yes@ask.example"),
            ("<no@ask.example>", "Unknown"),
            ("<perhaps@ask.example>", "Unsure"),
        ] {
            assert_eq!(answers(&directory, &[path]).await, [want], "{path}");
        }
    }
}
