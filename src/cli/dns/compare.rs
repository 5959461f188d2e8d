//! What the DNS has, record by record, beside what should stand there.
//!
//! Not letter by letter: what counts is that a stranger who asks comes to the right result, whatever
//! else the domain publishes. SPF is evaluated for the addresses that we have.

use std::net::IpAddr;

use super::records::Data;
use super::records::Wanted;
use crate::dns;
use crate::dns::Dns;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::Host;
use crate::sign::Published;
use crate::sign::published;
use crate::verify::Spf;
use crate::verify::SpfResult;
use crate::verify::Verifier;

/// What came of comparing a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// It does what it should: how.
    Right(String),
    /// There is none.
    Missing,
    /// What stands there does something else.
    Differs(String),
    /// It cannot be told: why.
    Unknown(String),
}

impl Found {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Found::Right(_) => "ok",
            Found::Missing => "missing",
            Found::Differs(_) => "differs",
            Found::Unknown(_) => "unknown",
        }
    }

    /// What stands there, or why that is not known.
    pub(super) fn text(&self) -> &str {
        match self {
            Found::Right(text) | Found::Differs(text) | Found::Unknown(text) => text,
            Found::Missing => "",
        }
    }

    fn failed(error: dns::Error) -> Found {
        match error {
            dns::Error::NotFound => Found::Missing,
            dns::Error::Temporary(why) => Found::Unknown(why),
        }
    }
}

/// Who asks, and as whom.
pub(super) struct Comparison<'a> {
    pub(super) dns: &'a Dns,
    pub(super) verifier: &'a Verifier,
    pub(super) hostname: &'a Domain,
    pub(super) domain: &'a Domain,
}

impl Comparison<'_> {
    /// Asks the DNS about one record.
    pub(super) async fn of(&self, wanted: &Wanted) -> Found {
        match &wanted.data {
            Data::Addresses => self.addresses().await,
            Data::Exchanger(host) => self.exchanger(host).await,
            Data::Spf(_) => self.spf(&wanted.name).await,
            Data::HelloSpf(_) => self.hello_spf(&wanted.name).await,
            Data::Dkim(held) => match published(self.dns, &held.signer).await {
                Published::Right(note) => Found::Right(note.unwrap_or_default().to_owned()),
                Published::Missing => Found::Missing,
                Published::Wrong(why) => Found::Differs(why),
                Published::Unknown(why) => Found::Unknown(why),
            },
            Data::Dmarc(_) => self.dmarc(&wanted.name).await,
        }
    }

    /// The name has addresses, and each of them has the name.
    async fn addresses(&self) -> Found {
        let addresses = match self.dns.addresses(self.hostname).await {
            Ok(addresses) => addresses,
            Err(error) => return Found::failed(error),
        };
        let mut texts = Vec::new();
        for address in addresses {
            match self.dns.reverse(address).await {
                Ok(names) if names.contains(self.hostname) => texts.push(address.to_string()),
                Ok(names) => {
                    return Found::Differs(format!("{address} has the name {}", joined(&names)));
                }
                Err(dns::Error::NotFound) => {
                    return Found::Differs(format!("{address} has no name (PTR)"));
                }
                Err(dns::Error::Temporary(why)) => return Found::Unknown(why),
            }
        }
        Found::Right(texts.join(" "))
    }

    async fn exchanger(&self, host: &Domain) -> Found {
        let exchangers = match self.dns.mx(self.domain.as_str()).await {
            Ok(exchangers) => exchangers,
            Err(error) => return Found::failed(error),
        };
        let list: Vec<_> = exchangers
            .iter()
            .map(|(preference, name)| format!("{preference} {name}."))
            .collect();
        let is_there = exchangers
            .iter()
            .any(|(_, name)| name.eq_ignore_ascii_case(host.as_str()));
        match is_there {
            true => Found::Right(list.join(", ")),
            false => Found::Differs(list.join(", ")),
        }
    }

    /// The one record of a name that begins so, or what is found instead.
    async fn only(&self, name: &str, version: &str) -> Result<String, Found> {
        let texts = self.dns.txt(name).await.map_err(Found::failed)?;
        let texts = texts.iter().map(|text| String::from_utf8_lossy(text));
        let mut found: Vec<String> = texts
            .filter(|text| {
                let word = text.split([' ', ';']).next().unwrap_or_default();
                word.eq_ignore_ascii_case(version)
            })
            .map(|text| text.into_owned())
            .collect();
        match (found.pop(), found.len()) {
            (None, _) => Err(Found::Missing),
            (Some(text), 0) => Ok(text),
            (Some(_), more) => Err(Found::Differs(format!(
                "there are {} records {version}; leave one",
                more + 1
            ))),
        }
    }

    async fn spf(&self, name: &str) -> Found {
        let text = match self.only(name, "v=spf1").await {
            Ok(text) => text,
            Err(found) => return found,
        };
        let sender = Address::postmaster(self.domain);
        let hello = Host::Domain(self.hostname.clone());
        let addresses = match self.our_addresses().await {
            Ok(addresses) => addresses,
            Err(found) => return found,
        };
        for ip in addresses {
            let spf = self.verifier.spf_sender(ip, &hello, &sender).await;
            if let Some(found) = judged(&spf, ip, &text) {
                return found;
            }
        }
        Found::Right(text)
    }

    async fn hello_spf(&self, name: &str) -> Found {
        let text = match self.only(name, "v=spf1").await {
            Ok(text) => text,
            Err(found) => return found,
        };
        let hello = Host::Domain(self.hostname.clone());
        let addresses = match self.our_addresses().await {
            Ok(addresses) => addresses,
            Err(found) => return found,
        };
        for ip in addresses {
            let spf = self.verifier.spf_helo(ip, &hello).await;
            if let Some(found) = judged(&spf, ip, &text) {
                return found;
            }
        }
        Found::Right(text)
    }

    async fn our_addresses(&self) -> Result<Vec<IpAddr>, Found> {
        let addresses = self.dns.addresses(self.hostname).await;
        addresses.map_err(|_| {
            let hostname = self.hostname;
            Found::Unknown(format!("{hostname} has no addresses to evaluate it for"))
        })
    }

    async fn dmarc(&self, name: &str) -> Found {
        match self.only(name, "v=DMARC1").await {
            Ok(text) => Found::Right(text),
            // RFC 9989 §4.10: a domain above may speak for it.
            Err(Found::Missing) => match self.verifier.publishes_dmarc(self.domain).await {
                Ok(true) => Found::Right("a domain above has a record".to_owned()),
                Ok(false) => Found::Missing,
                Err(error) => Found::failed(error),
            },
            Err(found) => found,
        }
    }
}

/// What is wrong with a record that should let us send from this address.
fn judged(spf: &Spf, ip: IpAddr, text: &str) -> Option<Found> {
    let told = |what: &str| Some(Found::Differs(format!("{text:?} {what} {ip}")));
    match spf.result {
        SpfResult::Pass => None,
        SpfResult::TempError => Some(Found::Unknown("the DNS did not answer".to_owned())),
        SpfResult::PermError => Some(Found::Differs(format!("{text:?} cannot be evaluated"))),
        SpfResult::None | SpfResult::Neutral => told("does not say that mail may come from"),
        SpfResult::Fail | SpfResult::SoftFail => told("says that no mail comes from"),
    }
}

fn joined(names: &[Domain]) -> String {
    let names: Vec<&str> = names.iter().map(Domain::as_str).collect();
    names.join(" ")
}
