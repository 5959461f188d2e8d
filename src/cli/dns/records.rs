//! What has to stand in the DNS for a domain of ours, worked out from the configuration alone.

use serde_json::Value;
use serde_json::json;

use crate::cli::dns::zone;
use crate::config::Config;
use crate::mail::address::Domain;
use crate::sign::Held;

/// One thing to publish.
pub(super) struct Wanted {
    /// Without a final dot.
    pub(super) name: String,
    pub(super) data: Data,
    /// Why, or what to change in time; empty where it says itself.
    pub(super) comment: String,
    pub(super) need: Need,
}

/// The data of a record, which says what it is for and so how it is compared.
pub(super) enum Data {
    /// A and AAAA, whose addresses we do not know, and their names.
    Addresses,
    /// MX: the host.
    Exchanger(Domain),
    /// SPF of a domain that sends.
    Spf(String),
    /// SPF of the name in EHLO.
    HelloSpf(String),
    /// A key.
    Dkim(Held),
    /// A policy.
    Dmarc(String),
}

/// What it means where a record is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Mail is lost or refused.
    Needed,
    /// Mail fares better with it.
    Advised,
}

impl Wanted {
    pub(super) fn kind(&self) -> &'static str {
        match self.data {
            Data::Addresses => "A",
            Data::Exchanger(_) => "MX",
            Data::Spf(_) | Data::HelloSpf(_) | Data::Dkim(_) | Data::Dmarc(_) => "TXT",
        }
    }

    /// The text after the type.
    pub(super) fn text(&self) -> String {
        match &self.data {
            Data::Addresses => "the addresses of this machine".to_owned(),
            Data::Exchanger(host) => format!("10 {host}."),
            Data::Spf(text) | Data::HelloSpf(text) | Data::Dmarc(text) => text.clone(),
            Data::Dkim(held) => held.signer.dns_record(),
        }
    }

    /// The line of a zone file. What we cannot know stands there as a comment.
    pub(super) fn zone_line(&self) -> String {
        let (name, comment) = (&self.name, &self.comment);
        match &self.data {
            Data::Addresses => format!(
                "; {name}. needs A and AAAA records with the addresses of this machine, and each address\n\
                 ; the name {name} (PTR), which whoever gave you the address sets"
            ),
            Data::Exchanger(host) => format!("{name}.\tIN\tMX\t10 {host}."),
            Data::Spf(text) | Data::HelloSpf(text) | Data::Dmarc(text) => {
                zone::txt(name, text, comment)
            }
            Data::Dkim(held) => zone::txt(name, &held.signer.dns_record(), comment),
        }
    }

    pub(super) fn key(&self) -> Option<&Held> {
        match &self.data {
            Data::Dkim(held) => Some(held),
            Data::Addresses
            | Data::Exchanger(_)
            | Data::Spf(_)
            | Data::HelloSpf(_)
            | Data::Dmarc(_) => None,
        }
    }

    /// Whether it is the same for all domains.
    pub(super) fn is_of_the_host(&self) -> bool {
        matches!(self.data, Data::Addresses | Data::HelloSpf(_))
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind(), "data": self.text(),
            "needed": self.need == Need::Needed,
        })
    }
}

/// All records for a domain, those of our own name first. `keys` are those to publish with them.
pub(super) fn wanted(config: &Config, domain: &Domain, keys: &[Held]) -> Vec<Wanted> {
    let hostname = &config.hostname;
    let wanted = |name: String, data, comment: &str, need| Wanted {
        name,
        data,
        comment: comment.to_owned(),
        need,
    };
    let mut all = vec![wanted(
        hostname.to_string(),
        Data::Addresses,
        "",
        Need::Needed,
    )];
    if hostname != domain {
        // RFC 7208 §2.4: bounces have no sender but the name in EHLO.
        let text = Data::HelloSpf("v=spf1 a -all".to_owned());
        let comment = "for mail without a sender: bounces";
        all.push(wanted(hostname.to_string(), text, comment, Need::Advised));
    }
    all.push(wanted(
        domain.to_string(),
        Data::Exchanger(hostname.clone()),
        "",
        Need::Needed,
    ));
    let comment = "-all once all that sends for the domain is named";
    let text = Data::Spf("v=spf1 mx ~all".to_owned());
    all.push(wanted(domain.to_string(), text, comment, Need::Needed));
    for held in keys {
        let name = held.signer.dns_name().to_owned();
        let comment = format!("DKIM key {}", held.signer.name().selector);
        all.push(wanted(
            name,
            Data::Dkim(held.clone()),
            &comment,
            Need::Needed,
        ));
    }
    let text = format!("v=DMARC1; p=none; rua=mailto:postmaster@{domain}");
    let comment = "p=quarantine, then p=reject, once reports show only your own mail";
    let name = format!("_dmarc.{domain}");
    all.push(wanted(name, Data::Dmarc(text), comment, Need::Needed));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_what_mail_needs() {
        let text = "hostname = 'mx.example.com'\n[domains.'example.com']\n";
        let config = Config::parse(text).unwrap();
        let domain = Domain::parse("example.com").unwrap();
        let lines: Vec<String> = wanted(&config, &domain, &[])
            .iter()
            .map(Wanted::zone_line)
            .collect();
        assert_eq!(
            lines[1..],
            [
                "mx.example.com.\tIN\tTXT\t\"v=spf1 a -all\"  ; for mail without a sender: bounces",
                "example.com.\tIN\tMX\t10 mx.example.com.",
                "example.com.\tIN\tTXT\t\"v=spf1 mx ~all\"  ; -all once all that sends for the domain is \
                 named",
                "_dmarc.example.com.\tIN\tTXT\t\"v=DMARC1; p=none; rua=mailto:postmaster@example.com\"  \
                 ; p=quarantine, then p=reject, once reports show only your own mail",
            ]
        );
    }
}
