//! Reads an SPF record (RFC 7208 §4.5, §4.6, §5, §6, §12).
//!
//! The whole record is read before any of it is evaluated, so that a mistake anywhere in it is a
//! permanent error, as RFC 7208 §4.6 wants. Pure; asks nothing.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use ipnet::IpNet;
use ipnet::Ipv4Net;
use ipnet::Ipv6Net;

use crate::verify::SpfResult;
use crate::verify::spf::macros::MacroString;

/// What the TXT records of a domain say of SPF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Published {
    Nothing,
    Record(Record),
    /// A record that breaks the grammar, or several.
    Broken,
}

impl Published {
    /// RFC 7208 §4.5: the one SPF record among the texts.
    pub(super) fn read(texts: &[Vec<u8>]) -> Published {
        let mut records = texts.iter().filter(|text| is_spf(text));
        match (records.next(), records.next()) {
            (None, _) => Published::Nothing,
            (Some(record), None) => {
                Record::parse(record).map_or(Published::Broken, Published::Record)
            }
            (Some(_), Some(_)) => Published::Broken,
        }
    }
}

/// A record whose grammar is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) directives: Vec<Directive>,
    pub(super) redirect: Option<MacroString>,
    pub(super) explanation: Option<MacroString>,
}

/// A mechanism, and what it means when it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) result: SpfResult,
    pub(super) mechanism: Mechanism,
}

/// RFC 7208 §5. A domain that is not given is the one whose record this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Prefixes),
    Mx(Option<MacroString>, Prefixes),
    Ptr(Option<MacroString>),
    Ip(IpNet),
    Exists(MacroString),
}

/// The lengths of the networks around addresses that are looked up (RFC 7208 §5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefixes {
    v4: u8,
    v6: u8,
}

impl Prefixes {
    /// Whether both addresses are in one network of that length.
    pub(super) fn join(self, client: IpAddr, listed: IpAddr) -> bool {
        let network = match (client, listed) {
            (IpAddr::V4(_), IpAddr::V4(_)) => IpNet::new(listed, self.v4),
            (IpAddr::V6(_), IpAddr::V6(_)) => IpNet::new(listed, self.v6),
            _ => return false,
        };
        network.is_ok_and(|network| network.contains(&client))
    }
}

/// A record that breaks the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BadRecord;

/// Whether a TXT record is an SPF record at all (RFC 7208 §4.5).
fn is_spf(txt: &[u8]) -> bool {
    match txt.split_at_checked(6) {
        Some((version, rest)) => {
            version.eq_ignore_ascii_case(b"v=spf1") && matches!(rest.first(), None | Some(b' '))
        }
        None => false,
    }
}

impl Record {
    /// Reads a text for which [`is_spf`] holds.
    fn parse(txt: &[u8]) -> Result<Record, BadRecord> {
        // RFC 7208 §3.1: the record is US-ASCII.
        let text = std::str::from_utf8(txt)
            .ok()
            .filter(|text| text.is_ascii())
            .ok_or(BadRecord)?;
        let mut record = Record {
            directives: Vec::new(),
            redirect: None,
            explanation: None,
        };
        // RFC 7208 §4.6.1: terms are parted by spaces, not by any other white space.
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            record.read(term)?;
        }
        Ok(record)
    }

    fn read(&mut self, term: &str) -> Result<(), BadRecord> {
        let Some((name, value)) = split_modifier(term) else {
            self.directives.push(directive(term)?);
            return Ok(());
        };
        let slot = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.explanation,
            // RFC 7208 §6: others are ignored, if their grammar is right.
            _ => return MacroString::parse(value).map(drop).ok_or(BadRecord),
        };
        // RFC 7208 §6: each of the two no more than once.
        if slot.is_some() {
            return Err(BadRecord);
        }
        *slot = Some(domain_spec(value)?);
        Ok(())
    }
}

/// `name=value`, where the name is one (RFC 7208 §12).
fn split_modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    valid.then_some((name, value))
}

fn directive(term: &str) -> Result<Directive, BadRecord> {
    let (result, rest) = match term.as_bytes().first() {
        Some(b'+') => (SpfResult::Pass, &term[1..]),
        Some(b'-') => (SpfResult::Fail, &term[1..]),
        Some(b'~') => (SpfResult::SoftFail, &term[1..]),
        Some(b'?') => (SpfResult::Neutral, &term[1..]),
        _ => (SpfResult::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    let argument = tail.strip_prefix(':');
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if tail.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain_spec(argument.ok_or(BadRecord)?)?),
        "exists" => Mechanism::Exists(domain_spec(argument.ok_or(BadRecord)?)?),
        "ptr" if tail.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(domain_spec(argument.ok_or(BadRecord)?)?)),
        "a" => {
            let (domain, prefixes) = domain_and_prefixes(tail)?;
            Mechanism::A(domain, prefixes)
        }
        "mx" => {
            let (domain, prefixes) = domain_and_prefixes(tail)?;
            Mechanism::Mx(domain, prefixes)
        }
        "ip4" => Mechanism::Ip(ip4(argument.ok_or(BadRecord)?)?),
        "ip6" => Mechanism::Ip(ip6(argument.ok_or(BadRecord)?)?),
        _ => return Err(BadRecord),
    };
    Ok(Directive { result, mechanism })
}

fn domain_spec(text: &str) -> Result<MacroString, BadRecord> {
    MacroString::parse_domain(text).ok_or(BadRecord)
}

/// `[":" domain-spec] [dual-cidr-length]`
fn domain_and_prefixes(tail: &str) -> Result<(Option<MacroString>, Prefixes), BadRecord> {
    let (rest, v6) = cut_prefix(tail, "//", 128)?;
    let (rest, v4) = cut_prefix(rest, "/", 32)?;
    let domain = match rest {
        "" => None,
        _ => Some(domain_spec(rest.strip_prefix(':').ok_or(BadRecord)?)?),
    };
    Ok((domain, Prefixes { v4, v6 }))
}

/// Cuts a final `/24` (or `//64`) off. Where there is none, the length is the longest there is.
fn cut_prefix<'a>(text: &'a str, slashes: &str, max: u8) -> Result<(&'a str, u8), BadRecord> {
    let head = text.trim_end_matches(|c: char| c.is_ascii_digit());
    match head.strip_suffix(slashes) {
        Some(rest) if !rest.ends_with('/') => Ok((rest, prefix_length(&text[head.len()..], max)?)),
        _ => Ok((text, max)),
    }
}

/// RFC 7208 §12: no leading zeros.
fn prefix_length(digits: &str, max: u8) -> Result<u8, BadRecord> {
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(BadRecord);
    }
    digits
        .parse()
        .ok()
        .filter(|length| *length <= max)
        .ok_or(BadRecord)
}

fn ip4(text: &str) -> Result<IpNet, BadRecord> {
    let (address, length) = cut_prefix(text, "/", 32)?;
    let address: Ipv4Addr = address.parse().map_err(|_| BadRecord)?;
    Ipv4Net::new(address, length)
        .map(IpNet::V4)
        .map_err(|_| BadRecord)
}

fn ip6(text: &str) -> Result<IpNet, BadRecord> {
    let (address, length) = cut_prefix(text, "/", 128)?;
    let address: Ipv6Addr = address.parse().map_err(|_| BadRecord)?;
    Ipv6Net::new(address, length)
        .map(IpNet::V6)
        .map_err(|_| BadRecord)
}

#[cfg(test)]
#[path = "../../../tests/fuzz/spf.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::proptest;

    proptest! {
        #[test]
        fn no_record_makes_the_reader_panic(txt: Vec<u8>, terms in "[amx:/0-9%{}dr.= +~?-]{0,60}") {
            let _ = Record::parse(&txt);
            let _ = Record::parse(format!("v=spf1 {terms}").as_bytes());
        }
    }

    #[test]
    fn the_version_stands_alone() {
        for (txt, want) in [
            ("v=spf1", true),
            ("V=SPF1 -all", true),
            ("v=spf1  ", true),
            ("v=spf10 -all", false),
            ("v=spf1\t-all", false),
            (" v=spf1", false),
            ("", false),
        ] {
            assert_eq!(is_spf(txt.as_bytes()), want, "{txt:?}");
        }
    }

    #[test]
    fn a_mistake_anywhere_spoils_the_record() {
        for (txt, right) in [
            ("v=spf1 a mx ptr -all", true),
            ("v=spf1 a:b.example/24//64 mx//64 ~all", true),
            ("v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32", true),
            ("v=spf1 redirect=b.example exp=e.%{d2}", true),
            ("v=spf1 foo=bar%{i} a", true),
            ("v=spf1 -all:b.example", false),
            ("v=spf1 all/8", false),
            ("v=spf1 a:", false),
            ("v=spf1 a/033", false),
            ("v=spf1 a/33", false),
            ("v=spf1 a///64", false),
            ("v=spf1 ip4:192.0.2", false),
            ("v=spf1 ip4:192.0.2.1/", false),
            ("v=spf1 include", false),
            ("v=spf1 unknown:b.example", false),
            ("v=spf1 redirect=a.example redirect=b.example", false),
            ("v=spf1 foo=%{", false),
            ("v=spf1 a:b.example\u{e9} -all", false),
            ("v=spf1 -a\tll", false),
        ] {
            assert_eq!(Record::parse(txt.as_bytes()).is_ok(), right, "{txt:?}");
        }
    }

    #[test]
    fn networks_are_counted_by_the_family_of_the_address() {
        let prefixes = Prefixes { v4: 24, v6: 64 };
        for (client, listed, want) in [
            ("192.0.2.9", "192.0.2.200", true),
            ("192.0.3.9", "192.0.2.200", false),
            ("2001:db8::9", "2001:db8::ffff:1", true),
            ("2001:db8:0:1::9", "2001:db8::1", false),
            ("192.0.2.9", "2001:db8::1", false),
        ] {
            let (client, listed) = (client.parse().unwrap(), listed.parse().unwrap());
            assert_eq!(prefixes.join(client, listed), want, "{client} {listed}");
        }
    }
}
