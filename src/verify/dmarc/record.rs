//! Reads a DMARC policy record (RFC 9989 §4.7, §4.8). Pure.
//!
//! `pct`, `rf` and `ri` of RFC 7489 are gone; they are ignored like any unknown tag. Tags whose value
//! is not valid count as absent, but for `p`, `sp` and `np` (§4.10.1).

use crate::verify::DmarcPolicy;

/// What a domain publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) policies: Policies,
    pub(super) dkim: Alignment,
    pub(super) spf: Alignment,
    pub(super) suffix: Suffix,
}

/// What is asked for mail that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policies {
    Apply {
        /// `p`: for the domain itself.
        domain: DmarcPolicy,
        /// `sp`: for domains below it.
        subdomains: DmarcPolicy,
        /// `np`: for names below it that do not exist.
        nonexistent: DmarcPolicy,
    },
    /// The record is broken in a way that switches DMARC off (RFC 9989 §4.10.1).
    DoNotApply,
}

/// `adkim`, `aspf`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alignment {
    Relaxed,
    Strict,
}

/// `psd`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suffix {
    /// A public suffix: organisations are one label below it.
    Public,
    /// An organisation's own domain, whatever is published above it.
    Organization,
    Unknown,
}

impl Record {
    /// Reads a TXT record; None where it is no DMARC record.
    pub(super) fn parse(txt: &[u8]) -> Option<Record> {
        let text = String::from_utf8_lossy(txt);
        let mut tags = text.split(';').map(|tag| {
            let (name, value) = tag.split_once('=').unwrap_or((tag, ""));
            (name.trim(), value.trim())
        });
        // RFC 9989 §4.8: the version comes first.
        if tags.next() != Some(("v", "DMARC1")) {
            return None;
        }
        let tags: Vec<_> = tags.collect();
        let value = |name| tags.iter().find(|(of, _)| *of == name).map(|(_, v)| *v);
        Some(Record {
            policies: Policies::read(value),
            dkim: Alignment::read(value("adkim")),
            spf: Alignment::read(value("aspf")),
            suffix: match value("psd") {
                Some("y" | "Y") => Suffix::Public,
                Some("n" | "N") => Suffix::Organization,
                _ => Suffix::Unknown,
            },
        })
    }
}

impl Policies {
    fn read<'a>(value: impl Fn(&'static str) -> Option<&'a str>) -> Policies {
        let [p, sp, np] = ["p", "sp", "np"].map(|name| value(name).map(policy));
        let read = match (p, sp, np) {
            // Present and not valid.
            (Some(None), _, _) | (_, Some(None), _) | (_, _, Some(None)) => None,
            (p, sp, np) => {
                // RFC 9989 §4.7: no p is p=none; sp falls back to p, np to sp.
                let domain = p.flatten().unwrap_or(DmarcPolicy::None);
                let subdomains = sp.flatten().unwrap_or(domain);
                Some((domain, subdomains, np.flatten().unwrap_or(subdomains)))
            }
        };
        let (domain, subdomains, nonexistent) = match read {
            Some(policies) => policies,
            // RFC 9989 §4.10.1: a domain that asks for reports is still evaluated.
            None if value("rua").is_some_and(has_address) => {
                (DmarcPolicy::None, DmarcPolicy::None, DmarcPolicy::None)
            }
            None => return Policies::DoNotApply,
        };
        // RFC 9989 §4.7: under test, one step milder.
        let test = value("t").is_some_and(|t| t.eq_ignore_ascii_case("y"));
        let asked = |policy| if test { milder(policy) } else { policy };
        Policies::Apply {
            domain: asked(domain),
            subdomains: asked(subdomains),
            nonexistent: asked(nonexistent),
        }
    }
}

fn policy(text: &str) -> Option<DmarcPolicy> {
    match text.to_ascii_lowercase().as_str() {
        "none" => Some(DmarcPolicy::None),
        "quarantine" => Some(DmarcPolicy::Quarantine),
        "reject" => Some(DmarcPolicy::Reject),
        _ => None,
    }
}

fn milder(policy: DmarcPolicy) -> DmarcPolicy {
    match policy {
        DmarcPolicy::Reject => DmarcPolicy::Quarantine,
        DmarcPolicy::Quarantine | DmarcPolicy::None => DmarcPolicy::None,
    }
}

/// Whether a list of report addresses holds one that could be written to.
fn has_address(list: &str) -> bool {
    list.split(',').map(str::trim).any(|uri| {
        let scheme = uri.get(..7).unwrap_or_default();
        scheme.eq_ignore_ascii_case("mailto:") && uri[7..].contains('@')
    })
}

impl Alignment {
    fn read(value: Option<&str>) -> Alignment {
        match value {
            Some("s" | "S") => Alignment::Strict,
            _ => Alignment::Relaxed,
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/fuzz/dmarc.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::proptest;

    proptest! {
        #[test]
        fn no_record_makes_the_reader_panic(txt: Vec<u8>, tags: String) {
            let _ = Record::parse(&txt);
            let _ = Record::parse(format!("v=DMARC1;rua={tags};p={tags}").as_bytes());
        }
    }

    use DmarcPolicy::None as Nothing;
    use DmarcPolicy::Quarantine;
    use DmarcPolicy::Reject;

    #[test]
    fn only_a_record_that_begins_with_the_version_is_one() {
        for (txt, want) in [
            ("v=DMARC1", true),
            ("v = DMARC1 ; p=none", true),
            ("v=DMARC1;p=none;", true),
            ("p=none; v=DMARC1", false),
            ("v=DMARC10; p=none", false),
            ("v=dmarc1; p=none", false),
            ("v=spf1 -all", false),
            ("", false),
        ] {
            assert_eq!(Record::parse(txt.as_bytes()).is_some(), want, "{txt:?}");
        }
    }

    #[test]
    fn policies_fall_back_as_rfc_9989_says() {
        for (tags, want) in [
            ("p=reject", Some((Reject, Reject, Reject))),
            ("p=REJECT; sp=none", Some((Reject, Nothing, Nothing))),
            ("p=none; np=reject", Some((Nothing, Nothing, Reject))),
            ("p=reject; t=y", Some((Quarantine, Quarantine, Quarantine))),
            (
                "p=quarantine; sp=reject; t=y",
                Some((Nothing, Quarantine, Quarantine)),
            ),
            ("p=reject; pct=0", Some((Reject, Reject, Reject))),
            ("", Some((Nothing, Nothing, Nothing))),
            ("p=rejectt", None),
            ("p=reject; sp=", None),
            ("p=reject; np=x; rua=nobody", None),
            (
                "p=reject; sp=x; rua=mailto:a@b.example",
                Some((Nothing, Nothing, Nothing)),
            ),
        ] {
            let record = Record::parse(format!("v=DMARC1; {tags}").as_bytes()).unwrap();
            let got = match record.policies {
                Policies::Apply {
                    domain,
                    subdomains,
                    nonexistent,
                } => Some((domain, subdomains, nonexistent)),
                Policies::DoNotApply => None,
            };
            assert_eq!(got, want, "{tags:?}");
        }
    }

    #[test]
    fn what_is_not_valid_elsewhere_counts_as_absent() {
        let record = Record::parse(b"v=DMARC1; p=none; adkim=x; aspf=s; psd=z; fo=\xff").unwrap();
        assert_eq!(record.dkim, Alignment::Relaxed);
        assert_eq!(record.spf, Alignment::Strict);
        assert_eq!(record.suffix, Suffix::Unknown);
    }
}
