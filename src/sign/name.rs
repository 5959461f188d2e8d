//! The names of keys: their selectors, and domain and selector together.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

use crate::mail::address::Domain;

/// A key as rules and commands name it: `example.com/news2026`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyName {
    /// d=
    pub domain: Domain,
    /// s=
    pub selector: Selector,
}

impl TryFrom<String> for KeyName {
    type Error = String;

    fn try_from(text: String) -> Result<KeyName, String> {
        let parts = text.split_once('/').and_then(|(domain, selector)| {
            let domain = Domain::parse(domain).ok()?;
            let selector = selector.parse().ok()?;
            Some(KeyName { domain, selector })
        });
        parts.ok_or_else(|| {
            format!(
                "{text:?} is no key; give domain and selector, such as \"example.com/mail2026\""
            )
        })
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.selector)
    }
}

/// The name of a key below `_domainkey.DOMAIN` (RFC 6376 §3.1), in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Domain);

/// A text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no selector; one looks like \"mail2026\"")]
pub struct NoSelector(pub String);

impl Selector {
    /// The selector as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for Selector {
    type Err = NoSelector;

    fn from_str(text: &str) -> Result<Selector, NoSelector> {
        // Labels of a name in the DNS, as a domain has them.
        let wrong = || NoSelector(text.to_owned());
        Domain::parse(text).map(Selector).map_err(|_| wrong())
    }
}

impl TryFrom<String> for Selector {
    type Error = NoSelector;

    fn try_from(text: String) -> Result<Selector, NoSelector> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.0.into()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys_are_read_or_said_to_be_none() {
        let name = |text: &str| KeyName::try_from(text.to_owned());
        assert_eq!(
            name("Example.COM/a.b2026").unwrap().to_string(),
            "example.com/a.b2026"
        );
        for text in [
            "example.com",
            "/s1",
            "example.com/",
            "example.com/a b",
            "a b/s",
        ] {
            assert!(name(text).is_err(), "{text:?}");
        }
    }
}
