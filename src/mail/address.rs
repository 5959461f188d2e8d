//! Mail addresses and the paths of MAIL FROM and RCPT TO (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! An [`Address`] that exists is valid, holds no control character, no CR and no LF, and fits the
//! limits of RFC 5321 §4.5.3.1. Its domain is kept in lower case and as A-labels, so that two
//! spellings of one domain are equal; its local part is kept as the client wrote it, unquoted.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

/// Why a text is not an address. The text of each fits after "because".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no @, or nothing behind it.
    #[error("it has no @ and domain")]
    NoDomain,
    /// Nothing stands before the @.
    #[error("the part before the @ is empty")]
    NoLocalPart,
    /// Neither a dot-string nor a quoted string (RFC 5321 §4.1.2).
    #[error("the part before the @ is not valid")]
    LocalPart,
    /// RFC 5321 §4.5.3.1.1
    #[error("the part before the @ is longer than 64 octets")]
    LocalPartTooLong,
    /// What stands behind the @ is no name that a host can have.
    #[error("the domain is not valid")]
    Domain,
    /// What stands in brackets is no address literal (RFC 5321 §4.1.3).
    #[error("the address in brackets is not an IP address")]
    Literal,
    /// A path lacks its angle brackets (RFC 5321 §4.1.2).
    #[error("it is not enclosed in < and >")]
    Brackets,
    /// A path has at most 256 octets, two of them its brackets (RFC 5321 §4.5.3.1.3).
    #[error("it is longer than 254 octets")]
    TooLong,
}

/// A domain name in lower case, internationalised names as A-labels (RFC 5891). Never an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Box<str>);

impl Domain {
    /// Reads a domain name, ASCII or internationalised, without a final dot.
    ///
    /// Letters, digits, hyphens and underscores; labels of 1 to 63 octets; 253 in all. Underscores
    /// are no host name (RFC 952), but names with them send mail every day.
    pub fn parse(text: &str) -> Result<Domain, Error> {
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(text).map_err(|_| Error::Domain)?
        };
        let valid_label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // RFC 5321 §4.5.3.1.2
        if ascii.len() > 253 || !ascii.split('.').all(valid_label) {
            return Err(Error::Domain);
        }
        Ok(Domain(ascii.into_boxed_str()))
    }

    /// The name as text, in lower case, without a final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Domain, Error> {
        Domain::parse(text)
    }
}

impl TryFrom<String> for Domain {
    type Error = Error;

    fn try_from(text: String) -> Result<Domain, Error> {
        Domain::parse(&text)
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> String {
        domain.0.into_string()
    }
}

/// What stands right of the @: a domain, or an IP address in brackets (RFC 5321 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// `example.org`
    Domain(Domain),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`
    Literal(IpAddr),
}

impl Host {
    /// Reads a domain or an address literal, as in the argument of EHLO.
    pub fn parse(text: &str) -> Result<Host, Error> {
        let Some(inner) = text.strip_prefix('[') else {
            return Domain::parse(text).map(Host::Domain);
        };
        let inner = inner.strip_suffix(']').ok_or(Error::Literal)?;
        // RFC 5321 §4.1.3
        let address = match inner.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
                inner[5..].parse::<Ipv6Addr>().map(IpAddr::V6)
            }
            _ => inner.parse::<std::net::Ipv4Addr>().map(IpAddr::V4),
        };
        address.map(Host::Literal).map_err(|_| Error::Literal)
    }

    /// The domain, where it is one.
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Host::Domain(domain) => Some(domain),
            Host::Literal(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Domain(domain) => domain.fmt(f),
            Host::Literal(IpAddr::V4(ip)) => write!(f, "[{ip}]"),
            Host::Literal(IpAddr::V6(ip)) => write!(f, "[IPv6:{ip}]"),
        }
    }
}

/// A mailbox: a local part and where it lives. `Display` writes it as SMTP wants it, quoted where
/// it must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    local: Box<str>,
    host: Host,
}

impl Address {
    /// Reads `local@domain`, `"quoted local"@domain` or `local@[192.0.2.1]`, without brackets around
    /// it. Any UTF-8 is taken in the local part (RFC 6531 §3.3); [`Address::is_ascii`] tells.
    pub fn parse(text: &str) -> Result<Address, Error> {
        // RFC 5321 §4.5.3.1.3: 256 octets for a path, of which two are the brackets.
        if text.len() > 254 {
            return Err(Error::TooLong);
        }
        let (local, host) = match text.strip_prefix('"') {
            Some(rest) => split_quoted(rest)?,
            None => {
                let (local, host) = text.split_once('@').ok_or(Error::NoDomain)?;
                check_dot_string(local)?;
                (local.to_owned(), host)
            }
        };
        if local.len() > 64 {
            return Err(Error::LocalPartTooLong); // RFC 5321 §4.5.3.1.1
        }
        let address = Address {
            local: local.into_boxed_str(),
            host: Host::parse(host)?,
        };
        // As A-labels a domain is longer, and what is too long now could not be read back.
        if !host.is_ascii() && address.to_string().len() > 254 {
            return Err(Error::TooLong);
        }
        Ok(address)
    }

    /// Joins a local part, as it is meant and without quotes, and a domain.
    pub fn new(local: &str, domain: Domain) -> Result<Address, Error> {
        let address = Address {
            local: local.into(),
            host: Host::Domain(domain),
        };
        match local {
            "" => Err(Error::NoLocalPart),
            _ if local.chars().any(char::is_control) => Err(Error::LocalPart),
            _ => Address::parse(&address.to_string()),
        }
    }

    /// Postmaster of a domain (RFC 5321 §4.5.1).
    pub fn postmaster(domain: &Domain) -> Address {
        Address {
            local: "postmaster".into(),
            host: Host::Domain(domain.clone()),
        }
    }

    /// Who writes reports for a host.
    pub fn mailer_daemon(hostname: &Domain) -> Address {
        Address {
            local: "MAILER-DAEMON".into(),
            host: Host::Domain(hostname.clone()),
        }
    }

    /// The local part, without quotes and backslashes.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// What stands right of the @.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The domain, unless the address ends in an IP address.
    pub fn domain(&self) -> Option<&Domain> {
        self.host.domain()
    }

    /// Whether it can travel without SMTPUTF8 (RFC 6531 §3.4).
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }

    /// Whether mail for it is mail for `owner`: the same domain and, in whatever case, the same local
    /// part, or one that goes on behind `delimiter` (`anna+lists` is `anna`'s).
    pub fn belongs_to(&self, owner: &Address, delimiter: Option<char>) -> bool {
        let same = |local: &str| local.to_lowercase() == owner.local.to_lowercase();
        let base = delimiter.and_then(|delimiter| self.local.split_once(delimiter));
        self.host == owner.host && (same(&self.local) || base.is_some_and(|(base, _)| same(base)))
    }

    /// Whether this is the postmaster, in any spelling (RFC 5321 §4.5.1).
    pub fn is_postmaster(&self) -> bool {
        self.local.eq_ignore_ascii_case("postmaster")
    }
}

/// Takes the quotes and backslashes off; gives the local part and what stands behind its @.
fn split_quoted(rest: &str) -> Result<(String, &str), Error> {
    let mut local = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let host = rest[at + 1..].strip_prefix('@').ok_or(Error::NoDomain)?;
                return Ok((local, host));
            }
            '\\' => match chars.next() {
                Some((_, quoted)) if !quoted.is_control() => local.push(quoted),
                _ => return Err(Error::LocalPart),
            },
            c if c.is_control() => return Err(Error::LocalPart),
            c => local.push(c),
        }
    }
    Err(Error::LocalPart)
}

/// RFC 5321 §4.1.2: Dot-string. Two dots in a row or a dot at an end are no address, though some
/// systems make them; those must quote.
fn check_dot_string(local: &str) -> Result<(), Error> {
    if local.is_empty() {
        return Err(Error::NoLocalPart);
    }
    let valid = local.split('.').all(|atom| {
        !atom.is_empty()
            && atom
                .chars()
                .all(|c| is_atext(c) || !c.is_ascii() && !c.is_control())
    });
    if valid { Ok(()) } else { Err(Error::LocalPart) }
}

/// RFC 5322 §3.2.3
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if check_dot_string(&self.local).is_ok() {
            return write!(f, "{}@{}", self.local, self.host);
        }
        f.write_str("\"")?;
        for c in self.local.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        write!(f, "\"@{}", self.host)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        Address::parse(text)
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Address, Error> {
        Address::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// Who gets a bounce: nobody (`<>`), or an address (RFC 5321 §4.5.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ReversePath {
    /// `<>`: a bounce, or other mail that must not be answered by one.
    Null,
    /// This address.
    Address(Address),
}

impl ReversePath {
    /// Reads the path of MAIL FROM, with its brackets.
    pub fn parse(text: &str) -> Result<ReversePath, Error> {
        match inside_brackets(text)? {
            "" => Ok(ReversePath::Null),
            inner => Address::parse(without_route(inner)).map(ReversePath::Address),
        }
    }

    /// The address, where there is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            ReversePath::Null => None,
            ReversePath::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReversePath::Null => f.write_str("<>"),
            ReversePath::Address(address) => write!(f, "<{address}>"),
        }
    }
}

impl TryFrom<String> for ReversePath {
    type Error = Error;

    fn try_from(text: String) -> Result<ReversePath, Error> {
        ReversePath::parse(&text)
    }
}

impl From<ReversePath> for String {
    fn from(path: ReversePath) -> String {
        path.to_string()
    }
}

/// Who a message is for: an address, or the postmaster of whoever reads this (RFC 5321 §4.1.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<Postmaster>`, without a domain.
    Postmaster,
    /// This address.
    Address(Address),
}

impl ForwardPath {
    /// Reads the path of RCPT TO, with its brackets.
    pub fn parse(text: &str) -> Result<ForwardPath, Error> {
        let inner = inside_brackets(text)?;
        if inner.eq_ignore_ascii_case("postmaster") {
            return Ok(ForwardPath::Postmaster);
        }
        Address::parse(without_route(inner)).map(ForwardPath::Address)
    }

    /// Whether it names a postmaster, ours or a domain's (RFC 5321 §4.5.1).
    pub fn is_postmaster(&self) -> bool {
        match self {
            ForwardPath::Postmaster => true,
            ForwardPath::Address(address) => address.is_postmaster(),
        }
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ForwardPath::Postmaster => f.write_str("<Postmaster>"),
            ForwardPath::Address(address) => write!(f, "<{address}>"),
        }
    }
}

fn inside_brackets(text: &str) -> Result<&str, Error> {
    text.strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'))
        .ok_or(Error::Brackets)
}

/// RFC 5321 §4.1.1.3: a source route is taken and ignored.
fn without_route(path: &str) -> &str {
    if !path.starts_with('@') {
        return path;
    }
    path.split_once(':').map_or(path, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::prop_assert_eq;
    use proptest::prelude::proptest;

    use super::*;

    #[test]
    fn paths_are_read_as_rfc_5321_says() {
        for (text, want) in [
            ("<a@b.example>", Ok("<a@b.example>")),
            ("<A.b@B.Example>", Ok("<A.b@b.example>")),
            (
                "<@relay.example,@two.example:a@b.example>",
                Ok("<a@b.example>"),
            ), // §4.1.1.3
            ("<postMaster>", Ok("<Postmaster>")),
            ("<\"john doe\"@b.example>", Ok("<\"john doe\"@b.example>")),
            ("<\"plain\"@b.example>", Ok("<plain@b.example>")),
            ("<\"a\\\"b\"@b.example>", Ok("<\"a\\\"b\"@b.example>")),
            ("<\"a@b\"@b.example>", Ok("<\"a@b\"@b.example>")),
            ("<a@[192.0.2.1]>", Ok("<a@[192.0.2.1]>")),
            ("<a@[IPv6:2001:db8::1]>", Ok("<a@[IPv6:2001:db8::1]>")),
            ("<a@bücher.example>", Ok("<a@xn--bcher-kva.example>")),
            ("<ü@b.example>", Ok("<ü@b.example>")),
            ("<a@b.example", Err(Error::Brackets)),
            ("a@b.example", Err(Error::Brackets)),
            ("<>", Err(Error::NoDomain)),
            ("<a>", Err(Error::NoDomain)),
            ("<@b.example>", Err(Error::NoLocalPart)),
            ("<a..b@b.example>", Err(Error::LocalPart)),
            ("<a b@b.example>", Err(Error::LocalPart)),
            ("<a@b..example>", Err(Error::Domain)),
            ("<a@-b.example>", Err(Error::Domain)),
            ("<a@b.example.>", Err(Error::Domain)),
            ("<a@b@c.example>", Err(Error::Domain)),
            ("<a@[300.0.2.1]>", Err(Error::Literal)),
            ("<a\r\n@b.example>", Err(Error::LocalPart)),
            ("<\"a\r\"@b.example>", Err(Error::LocalPart)),
        ] {
            let got = ForwardPath::parse(text).map(|path| path.to_string());
            assert_eq!(got, want.map(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn an_address_belongs_to_whoever_gets_its_mail() {
        let owner = Address::parse("Anna@Example.com").unwrap();
        for (address, want) in [
            ("anna@example.com", true),
            ("ANNA@EXAMPLE.COM", true),
            ("anna+lists+more@example.com", true),
            ("\"anna+a b\"@example.com", true),
            ("anna-lists@example.com", false),
            ("annabel@example.com", false),
            ("x+anna@example.com", false),
            ("+anna@example.com", false),
            ("anna@sub.example.com", false),
            ("anna@[192.0.2.1]", false),
        ] {
            let address = Address::parse(address).unwrap();
            assert_eq!(address.belongs_to(&owner, Some('+')), want, "{address}");
        }
        let tagged = Address::parse("anna+lists@example.com").unwrap();
        assert!(!tagged.belongs_to(&owner, None));
    }

    #[test]
    fn a_local_part_is_quoted_where_it_must_be() {
        let join = |local| {
            let domain = Domain::parse("b.example").unwrap();
            Address::new(local, domain).map(|address| address.to_string())
        };
        for (local, want) in [
            ("a.b", Ok("a.b@b.example")),
            ("a b", Ok("\"a b\"@b.example")),
            ("a\"b", Ok("\"a\\\"b\"@b.example")),
            ("", Err(Error::NoLocalPart)),
            ("a\r\nb", Err(Error::LocalPart)),
        ] {
            assert_eq!(join(local), want.map(str::to_owned), "{local:?}");
        }
        assert_eq!(join(&"a".repeat(65)), Err(Error::LocalPartTooLong));
    }

    #[test]
    fn the_null_path_is_only_a_sender() {
        assert_eq!(ReversePath::parse("<>"), Ok(ReversePath::Null));
        assert_eq!(ReversePath::Null.to_string(), "<>");
    }

    #[test]
    fn limits_are_those_of_rfc_5321() {
        let long = "a".repeat(65);
        assert_eq!(
            Address::parse(&format!("{long}@b.example")),
            Err(Error::LocalPartTooLong)
        );
        assert_eq!(
            Address::parse(&format!("a@{}", "b".repeat(300))),
            Err(Error::TooLong)
        );
        assert_eq!(
            Address::parse(&format!("a@{}.example", "b".repeat(64))),
            Err(Error::Domain)
        );
    }

    #[test]
    fn what_outgrows_the_limit_as_a_labels_is_too_long() {
        let long = format!("{}@{}example", "a".repeat(64), "ü.".repeat(30));
        assert!(long.len() < 254);
        assert_eq!(Address::parse(&long), Err(Error::TooLong));
    }

    proptest! {
        #[test]
        fn an_address_is_read_back_as_it_was_written(
            local in "[ab.@\"\\\\ ü%]{0,8}",
            host in "[abüß._0-9-]{1,12}|\\[[0-9.]{7,9}\\]|\\[IPv6:[0-9a-f:.]{2,12}\\]",
        ) {
            let quoted = local.replace('\\', "\\\\").replace('"', "\\\"");
            for text in [format!("{local}@{host}"), format!("\"{quoted}\"@{host}")] {
                if let Ok(address) = Address::parse(&text) {
                    prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
                }
            }
        }
    }
}
