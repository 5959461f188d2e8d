//! Who may send as whom: a user's mail names a user's own addresses.
//!
//! Held to it are the envelope's sender, every mailbox of the From field, and Sender where there is
//! one. What is a user's own the directory knows; grants are given here. The null sender is anybody's:
//! a mail program answers with it that a message was read (RFC 8098 §3).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::directory::Directory;
use crate::directory::users::Grant;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::headers;
use crate::pipeline::Mode;
use crate::smtp::reply::Refusal;
use crate::verify::author;

use super::local;

/// `[submission.senders]`: who may send as whom.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// enforce, observe or off.
    pub mode: Mode,
    /// What else a login may send as: addresses, `*@domain`, or `*` for all.
    pub grants: BTreeMap<String, Vec<Grant>>,
}

/// Who a message says wrote it and sent it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Writers {
    /// Of the one From field, at least one.
    pub(super) from: Vec<Address>,
    /// Of the Sender field; None where there is none.
    sender: Option<Vec<Address>>,
}

impl Writers {
    /// Reads the header. A message without one From field that can be read for certain is refused.
    pub(super) fn read(message: &[u8]) -> Result<Writers, Refusal> {
        let (mut from, mut sender) = (Vec::new(), Vec::new());
        let mut walk = headers::fields(message);
        for field in walk.by_ref() {
            if field.is("From") {
                from.push(field.value);
            } else if field.is("Sender") {
                sender.push(field.value);
            }
        }
        let refused = |what: &str| Err(Refusal::malformed(what.to_owned()));
        let value = match from.as_slice() {
            [] => return refused("The message has no From field"),
            // Some end the header at a line that is no field, others find a second From behind it.
            [value] if walk.malformed() == 0 => value,
            _ => return refused("The message needs one From field, and no lines without a name"),
        };
        let from = author::addresses(value).unwrap_or_default();
        if from.is_empty() {
            return refused("The From field has no address that can be read for certain");
        }
        let sender = sender.into_iter().map(author::addresses);
        Ok(Writers {
            from,
            sender: match sender.collect::<Result<Vec<_>, _>>() {
                Ok(none) if none.is_empty() => None,
                Ok(fields) => Some(fields.concat()),
                Err(author::Unreadable) => return refused("The Sender field cannot be read"),
            },
        })
    }

    /// The first author of each domain, for a domain signs once.
    pub(super) fn one_a_domain(&self) -> Vec<&Address> {
        let mut authors: Vec<&Address> = Vec::new();
        for author in &self.from {
            if !authors.iter().any(|other| other.host() == author.host()) {
                authors.push(author);
            }
        }
        authors
    }

    /// Whether the From field alone says who sent it, as the login's own address. RFC 5322 §3.6.2
    /// wants a Sender field where it does not.
    pub(super) fn name_the_sender(&self, user: &User<'_>) -> bool {
        self.sender.is_some()
            || user.is_trusted()
            || matches!(self.from.as_slice(), [one] if user.owns(one))
    }
}

/// A login, and what it may send as.
pub(super) struct User<'a> {
    pub(super) login: &'a str,
    /// For an account of this machine.
    pub(super) local: Option<&'a local::Config>,
    pub(super) config: &'a Config,
    pub(super) directory: &'a Directory,
}

impl User<'_> {
    /// MAIL FROM.
    pub(super) fn check_envelope(&self, from: &ReversePath) -> Result<(), Refusal> {
        let address = from.address();
        match address.filter(|address| !self.may_send_as(address)) {
            Some(address) => Err(Refusal::not_your_address(address, "MAIL FROM", self.login)),
            None => Ok(()),
        }
    }

    /// From and Sender.
    pub(super) fn check_header(&self, writers: &Writers) -> Result<(), Refusal> {
        let from = writers.from.iter().map(|address| (address, "From"));
        let sender = writers.sender.iter().flatten();
        let mut all = from.chain(sender.map(|address| (address, "Sender")));
        match all.find(|(address, _)| !self.may_send_as(address)) {
            Some((address, field)) => Err(Refusal::not_your_address(address, field, self.login)),
            None => Ok(()),
        }
    }

    /// Whether it speaks for others by trade, so that nothing is asked.
    fn is_trusted(&self) -> bool {
        self.local.is_some_and(|local| local.trusts(self.login))
    }

    /// Whether an address is the login's own, without a grant.
    fn owns(&self, address: &Address) -> bool {
        let delimiter = self.directory.delimiter();
        self.directory.may_send_as(self.login, address)
            || self
                .local
                .is_some_and(|local| local.owns(self.login, address, delimiter))
    }

    /// The address that stands for the login.
    pub(super) fn own_address(&self) -> Option<Address> {
        match self.local {
            Some(local) => local.address_of(self.login),
            None => self.directory.address_of(self.login),
        }
    }

    fn may_send_as(&self, address: &Address) -> bool {
        if self.is_trusted() || self.owns(address) {
            return true;
        }
        let grants = self.config.grants.iter();
        grants
            .filter(|(login, _)| login.eq_ignore_ascii_case(self.login))
            .flat_map(|(_, grants)| grants)
            .any(|grant| grant.is_for(address, self.directory.delimiter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory;
    use crate::directory::Ask;
    use crate::directory::Probe;
    use crate::directory::Recipients;
    use crate::mail::address::Domain;

    fn directory() -> Directory {
        let host = Domain::parse("mx.example.com").unwrap();
        let domains = [(Domain::parse("example.com").unwrap(), Recipients::Any)];
        let ask: Ask = Box::new(|_| Box::pin(async { Probe::Unsure }));
        let config = directory::Config::default();
        Directory::open(config, &host, domains.into(), ask, None).unwrap()
    }

    fn config() -> Config {
        let text = "grants = { Anna = ['info@example.com', '*@news.example.com'], robot = ['*'] }";
        toml::from_str(text).unwrap()
    }

    #[track_caller]
    fn code(result: Result<(), Refusal>) -> Option<u16> {
        result.err().map(|refusal| refusal.reply().code)
    }

    #[test]
    fn a_user_sends_as_itself_and_as_what_it_was_granted() {
        let (config, directory) = (config(), directory());
        for (login, from, want) in [
            ("anna", "<anna@example.com>", None),
            ("anna", "<ANNA+lists@Example.com>", None),
            ("anna", "<info@example.com>", None),
            ("anna", "<info+1@example.com>", None),
            ("anna", "<whoever@news.example.com>", None),
            ("anna", "<>", None),
            ("anna", "<whoever@sub.news.example.com>", Some(553)),
            ("anna", "<bob@example.com>", Some(553)),
            ("anna", "<anna@elsewhere.example>", Some(553)),
            ("bob", "<info@example.com>", Some(553)),
            ("robot", "<ceo@bank.example>", None),
        ] {
            let user = User {
                login,
                local: None,
                config: &config,
                directory: &directory,
            };
            let path = ReversePath::parse(from).unwrap();
            assert_eq!(code(user.check_envelope(&path)), want, "{login} as {from}");
        }
    }

    #[test]
    fn each_mailbox_of_from_and_sender_has_to_be_the_users() {
        let (config, directory) = (config(), directory());
        let user = User {
            login: "anna",
            local: None,
            config: &config,
            directory: &directory,
        };
        for (header, want) in [
            ("From: Anna <anna@example.com>\r\n", None),
            ("from : a@news.example.com, anna@example.com\r\n", None),
            (
                "From: anna@example.com\r\nSender: info@example.com\r\n",
                None,
            ),
            (
                "From: \"anna@example.com\" <bob@example.com>\r\n",
                Some(553),
            ),
            ("From: anna@example.com, bob@example.com\r\n", Some(553)),
            (
                "From: anna@example.com\r\nSender: bob@example.com\r\n",
                Some(553),
            ),
            ("From: anna@example.com\r\nSender: <x\r\n", Some(550)),
            (
                "From: anna@example.com\r\nFrom: bob@example.com\r\n",
                Some(550),
            ),
            ("From: anna@example.com\r\nno field\r\nX: y\r\n", Some(550)),
            ("From: anna@[192.0.2.1]\r\n", Some(550)),
            ("From: anna\r\n", Some(550)),
            ("From: nobody:;\r\n", Some(550)),
            ("Sender: anna@example.com\r\n", Some(550)),
            ("\r\nFrom: anna@example.com\r\n", Some(550)),
        ] {
            let writers = Writers::read(format!("{header}\r\nbody\r\n").as_bytes());
            let result = writers.and_then(|writers| user.check_header(&writers));
            assert_eq!(code(result), want, "{header:?}");
        }
    }
}
