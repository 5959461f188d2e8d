//! The DNS tree walk: which record applies to a domain, and which domain is its organisation's
//! (RFC 9989 §4.10).
//!
//! Our own, because the one of the mail authentication library takes the first of several records
//! where RFC 9989 discards them all, and gives up a walk whose upper steps cannot be answered even
//! where the lower ones settle the matter.

use futures_util::future::join_all;

use crate::dns::Dns;
use crate::dns::Error;
use crate::verify::dmarc::record::Record;
use crate::verify::dmarc::record::Suffix;

/// RFC 9989 §4.10: longer names are cut to this many labels after the first question.
const MAX_LABELS: usize = 7;

/// The records found on the way up from a domain.
#[derive(Debug)]
pub(super) struct Walk {
    start: String,
    /// Longest name first.
    found: Vec<(String, Record)>,
    /// Why a step had no answer. What is above it is not known.
    pub(super) broken_off: Option<Error>,
}

/// Where the record that applies was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At the domain itself: `p` applies.
    Author,
    /// Above it: `sp` or `np` apply.
    Above,
}

impl Walk {
    /// Walks up from a domain. At most eight questions, all asked at once: nearly every walk goes to
    /// its end.
    pub(super) async fn from(dns: &Dns, domain: &str) -> Walk {
        let mut walk = Walk {
            start: domain.to_owned(),
            found: Vec::new(),
            broken_off: None,
        };
        let names = steps(domain);
        let answers = names.iter().map(|name| async move {
            let name = format!("_dmarc.{name}");
            dns.read(&name, only_record).await
        });
        for (name, answer) in names.iter().zip(join_all(answers).await) {
            let record = match answer {
                Ok(record) => *record,
                Err(Error::NotFound) => None,
                Err(error) => {
                    walk.broken_off = Some(error);
                    return walk;
                }
            };
            if let Some(record) = record {
                let ends = record.suffix != Suffix::Unknown;
                walk.found.push(((*name).to_owned(), record));
                if ends {
                    break;
                }
            }
        }
        walk
    }

    /// The record that applies to the domain, and its name (RFC 9989 §4.10.1): the domain's own, its
    /// organisation's, its public suffix's.
    pub(super) fn policy(&self) -> Option<(&str, &Record, Place)> {
        let at = |wanted: &str| self.found.iter().find(|(name, _)| name == wanted);
        if let Some((name, record)) = at(&self.start) {
            return Some((name, record, Place::Author));
        }
        let suffix = || {
            let public = |found: &&(String, Record)| found.1.suffix == Suffix::Public;
            self.found.last().filter(public)
        };
        at(self.organization())
            .or_else(suffix)
            .map(|(name, record)| (name.as_str(), record, Place::Above))
    }

    /// The organisational domain (RFC 9989 §4.10.2).
    pub(super) fn organization(&self) -> &str {
        for (name, record) in &self.found {
            match record.suffix {
                Suffix::Organization => return name,
                Suffix::Public if *name != self.start => return one_below(name, &self.start),
                Suffix::Public | Suffix::Unknown => {}
            }
        }
        self.found.last().map_or(&self.start, |(name, _)| name)
    }
}

/// RFC 9989 §4.10 step 2: what is no DMARC record is discarded; if several are left, all of them.
fn only_record(texts: &[Vec<u8>]) -> Option<Record> {
    let mut records = texts.iter().filter_map(|text| Record::parse(text));
    let record = records.next()?;
    records.next().is_none().then_some(record)
}

/// The names that are asked, in order.
fn steps(domain: &str) -> Vec<&str> {
    let mut names = vec![domain];
    let mut name = domain;
    if label_count(name) > MAX_LABELS {
        name = last_labels(name, MAX_LABELS);
        names.push(name);
    }
    while let Some((_, parent)) = name.split_once('.') {
        name = parent;
        names.push(name);
    }
    names
}

fn label_count(name: &str) -> usize {
    name.split('.').count()
}

fn last_labels(name: &str, count: usize) -> &str {
    let skip = label_count(name).saturating_sub(count);
    let mut rest = name;
    for _ in 0..skip {
        rest = rest.split_once('.').map_or(rest, |(_, rest)| rest);
    }
    rest
}

/// The part of `name` that is one label longer than `suffix`, which it ends in.
fn one_below<'a>(suffix: &str, name: &'a str) -> &'a str {
    last_labels(name, label_count(suffix) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(start: &str, found: &[(&str, &str)]) -> Walk {
        Walk {
            start: start.to_owned(),
            found: found
                .iter()
                .map(|(name, tags)| {
                    let text = format!("v=DMARC1; {tags}");
                    ((*name).to_owned(), Record::parse(text.as_bytes()).unwrap())
                })
                .collect(),
            broken_off: None,
        }
    }

    #[test]
    fn a_long_name_costs_eight_questions() {
        assert_eq!(
            steps("a.b.c.d.e.f.g.h.i.j.mail.example.com"),
            [
                "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                "g.h.i.j.mail.example.com",
                "h.i.j.mail.example.com",
                "i.j.mail.example.com",
                "j.mail.example.com",
                "mail.example.com",
                "example.com",
                "com",
            ]
        );
        assert_eq!(steps("1.2.3.4.5.6.7.8").len(), 8);
        assert_eq!(steps("2.3.4.5.6.7.8").len(), 7);
        assert_eq!(steps("example.com"), ["example.com", "com"]);
        assert_eq!(steps("com"), ["com"]);
    }

    #[test]
    fn organisation_and_policy_are_those_of_rfc_9989() {
        for (start, found, organization, policy) in [
            // The examples of §4.10.2.
            (
                "a.mail.example.com",
                &[("mail.example.com", ""), ("example.com", "")][..],
                "example.com",
                Some(("example.com", Place::Above)),
            ),
            (
                "a.mail.example.com",
                &[("mail.example.com", "psd=n")],
                "mail.example.com",
                Some(("mail.example.com", Place::Above)),
            ),
            (
                "a.mail.example.com",
                &[("com", "psd=y")],
                "example.com",
                Some(("com", Place::Above)),
            ),
            // The domain's own record comes before all others.
            (
                "mail.example.com",
                &[("mail.example.com", ""), ("example.com", "")],
                "example.com",
                Some(("mail.example.com", Place::Author)),
            ),
            // A public suffix that sends mail itself.
            (
                "gov.example",
                &[("gov.example", "psd=y")],
                "gov.example",
                Some(("gov.example", Place::Author)),
            ),
            // Below a public suffix, without a record of its own.
            (
                "agency.gov.example",
                &[("gov.example", "psd=y")],
                "agency.gov.example",
                Some(("gov.example", Place::Above)),
            ),
            // A record between the two applies to nobody but its own domain.
            (
                "a.b.example.com",
                &[("b.example.com", ""), ("com", "psd=y")],
                "example.com",
                Some(("com", Place::Above)),
            ),
            ("example.com", &[], "example.com", None),
        ] {
            let walk = walk(start, found);
            let got = walk.policy().map(|(name, _, place)| (name, place));
            assert_eq!(
                (walk.organization(), got),
                (organization, policy),
                "{start} {found:?}"
            );
        }
    }

    #[test]
    fn of_several_records_none_is_left() {
        let texts = |texts: &[&str]| -> Vec<Vec<u8>> {
            texts.iter().map(|text| text.as_bytes().to_vec()).collect()
        };
        assert!(only_record(&texts(&["v=DMARC1; p=none", "something"])).is_some());
        assert!(only_record(&texts(&["v=DMARC1; p=none", "v=DMARC1"])).is_none());
        assert!(only_record(&texts(&["something"])).is_none());
    }
}
