//! Which authors a rule is for: an address in which `*` stands for any text, also none.

use std::fmt;

use serde::Deserialize;

use crate::mail::address::Address;
use crate::mail::address::Domain;

/// `*@news.example.com`, `news-*@example.com`, `*@*.example.com`, `*`. In whatever case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Whether it fits the whole address.
    pub fn fits(&self, author: &Address) -> bool {
        fits(&self.0, &author.to_string().to_lowercase())
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Pattern, String> {
        let wrong = || {
            format!(
                "{text:?} can fit no address; give one, in which * stands for any text, such as \
                 \"*@news.example.com\""
            )
        };
        let Some((local, host)) = text.rsplit_once('@') else {
            let is_open = text.starts_with('*') || text.ends_with('*');
            return match is_open && text.is_ascii() {
                true => Ok(Pattern(text.to_lowercase())),
                false => Err(wrong()),
            };
        };
        // An address has its domain as A-labels, which a pattern cannot be turned into.
        let host = match host.contains('*') || host.starts_with('[') {
            true if host.is_ascii() => host.to_owned(),
            true => return Err(wrong()),
            false => Domain::parse(host).map_err(|_| wrong())?.into(),
        };
        if local.is_empty() {
            return Err(wrong());
        }
        Ok(Pattern(format!("{local}@{host}").to_lowercase()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Takes each part between stars where it first occurs: no later place leaves more for the rest.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = text
        .strip_prefix(start)
        .and_then(|text| text.strip_suffix(end));
    let Some(mut left) = inner else {
        return false;
    };
    for part in middle.split('*') {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<Pattern, String> {
        Pattern::try_from(text.to_owned())
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (text, author, want) in [
            ("a@example.com", "A@Example.COM", true),
            ("a@example.com", "b@example.com", false),
            ("*@news.example.com", "a@news.example.com", true),
            ("*@news.example.com", "a@example.com", false),
            ("*@news.example.com", "a@b.news.example.com", false),
            ("*@*.example.com", "a@b.c.example.com", true),
            ("*@*.example.com", "a@example.com", false),
            ("News-*@example.com", "news-@example.com", true),
            ("news-*-x*y@example.com", "news-1-x-x22y@example.com", true),
            ("news-*-x*y@example.com", "news-xy@example.com", false),
            ("*@example.*", "a@example.org", true),
            ("a*a@example.com", "a@example.com", false),
            ("*@Bücher.example", "a@xn--bcher-kva.example", true),
            ("*@[192.0.2.1]", "a@[192.0.2.1]", true),
            ("*", "a@example.com", true),
            ("*example.com", "a@sub.example.com", true),
        ] {
            let author = Address::parse(author).unwrap();
            let got = pattern(text).unwrap().fits(&author);
            assert_eq!(got, want, "{text} {author}");
        }
    }

    #[test]
    fn what_fits_nobody_is_refused() {
        for text in [
            "",
            "a",
            "example.com",
            "@example.com",
            "a@",
            "a@b c",
            "*@*bücher.de",
        ] {
            assert!(pattern(text).is_err(), "{text:?}");
        }
    }
}
