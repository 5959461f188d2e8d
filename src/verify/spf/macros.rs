//! The macros of SPF records (RFC 7208 §7).
//!
//! A macro string is read once and expanded for each question. Pure: what has to be asked (`%{p}`,
//! the validated name of the client) and the time of day (`%{t}`) are given.

use std::net::IpAddr;

use crate::verify::spf::Question;

/// A text with macros in it, its grammar checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MacroString(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Macro(Macro),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Macro {
    letter: Letter,
    /// How many parts are kept, counted from the right.
    keep: Option<usize>,
    reversed: bool,
    delimiters: String,
    /// An upper-case letter: the value is escaped as in a URL.
    escaped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Letter {
    Sender,
    LocalPart,
    SenderDomain,
    Domain,
    Ip,
    ValidatedName,
    Family,
    Helo,
    ReadableIp,
    Receiver,
    Time,
}

/// What the letters stand for.
pub(super) struct Values<'a> {
    pub(super) question: &'a Question<'a>,
    /// The domain whose record is evaluated; changes with include and redirect.
    pub(super) domain: &'a str,
    /// `%{p}`: a name of the client that leads back to it.
    pub(super) validated_name: &'a str,
    /// `%{t}`: seconds since 1970.
    pub(super) now: u64,
}

impl MacroString {
    /// Reads a `macro-string` without the letters that only explanations know.
    pub(super) fn parse(text: &str) -> Option<MacroString> {
        let string = MacroString::read(text, false)?;
        string.0.iter().all(Part::is_for_domains).then_some(string)
    }

    /// Reads the text of an explanation, `*( macro-string / SP )` (RFC 7208 §6.2).
    pub(super) fn parse_explanation(text: &str) -> Option<MacroString> {
        MacroString::read(text, true)
    }

    /// Reads a `domain-spec`: a macro string that ends in a macro or in a top label.
    pub(super) fn parse_domain(text: &str) -> Option<MacroString> {
        let string = MacroString::parse(text)?;
        let ends_well = match string.0.last()? {
            Part::Macro(_) => true,
            Part::Literal(literal) => ends_in_top_label(literal),
        };
        ends_well.then_some(string)
    }

    fn read(text: &str, spaces: bool) -> Option<MacroString> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if c != '%' {
                // RFC 7208 §7.1: macro-literal
                if !(c.is_ascii_graphic() || spaces && c == ' ') {
                    return None;
                }
                literal.push(c);
                rest = &rest[1..];
                continue;
            }
            let plain = match rest.as_bytes().get(1)? {
                b'%' => "%",
                b'_' => " ",
                b'-' => "%20",
                b'{' => {
                    let end = rest.find('}')?;
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Macro(Macro::parse(&rest[2..end])?));
                    rest = &rest[end + 1..];
                    continue;
                }
                _ => return None,
            };
            literal.push_str(plain);
            rest = &rest[2..];
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Some(MacroString(parts))
    }

    /// Whether `%{p}` has to be found out first.
    pub(super) fn needs_validated_name(&self) -> bool {
        self.0
            .iter()
            .any(|part| matches!(part, Part::Macro(of) if of.letter == Letter::ValidatedName))
    }

    /// The text with each macro replaced by its value.
    pub(super) fn expand(&self, values: &Values<'_>) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Literal(literal) => literal.clone(),
                Part::Macro(of) => of.expand(values),
            })
            .collect()
    }

    /// The text as a domain: without a final dot, and whole labels taken off its left side until it
    /// fits in a name (RFC 7208 §7.3).
    pub(super) fn expand_domain(&self, values: &Values<'_>) -> String {
        let text = self.expand(values);
        let mut name = text.strip_suffix('.').unwrap_or(&text);
        while name.len() > 253 {
            match name.split_once('.') {
                Some((_, rest)) => name = rest,
                None => break,
            }
        }
        name.to_owned()
    }
}

/// RFC 7208 §7.1: domain-end. The last label of a name: letters, digits, hyphens, not all digits.
fn ends_in_top_label(literal: &str) -> bool {
    let literal = literal.strip_suffix('.').unwrap_or(literal);
    let Some((_, label)) = literal.rsplit_once('.') else {
        return false;
    };
    !label.is_empty()
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
        && !label.bytes().all(|b| b.is_ascii_digit())
}

impl Part {
    fn is_for_domains(&self) -> bool {
        match self {
            Part::Literal(_) => true,
            Part::Macro(of) => !matches!(
                of.letter,
                Letter::ReadableIp | Letter::Receiver | Letter::Time
            ),
        }
    }
}

impl Macro {
    /// Reads what stands between the braces.
    fn parse(text: &str) -> Option<Macro> {
        let first = text.chars().next()?;
        let letter = match first.to_ascii_lowercase() {
            's' => Letter::Sender,
            'l' => Letter::LocalPart,
            'o' => Letter::SenderDomain,
            'd' => Letter::Domain,
            'i' => Letter::Ip,
            'p' => Letter::ValidatedName,
            'v' => Letter::Family,
            'h' => Letter::Helo,
            'c' => Letter::ReadableIp,
            'r' => Letter::Receiver,
            't' => Letter::Time,
            _ => return None,
        };
        let rest = &text[1..];
        let after_digits = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &rest[..rest.len() - after_digits.len()];
        let keep = match digits {
            "" => None,
            // RFC 7208 §7.1: at least one part. More than anyone has means all.
            _ => Some(digits.parse().unwrap_or(usize::MAX)).filter(|keep| *keep > 0),
        };
        if keep.is_none() && !digits.is_empty() {
            return None;
        }
        let delimiters = after_digits
            .strip_prefix(['r', 'R'])
            .unwrap_or(after_digits);
        if !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return None;
        }
        Some(Macro {
            letter,
            keep,
            reversed: delimiters.len() < after_digits.len(),
            delimiters: if delimiters.is_empty() {
                ".".to_owned()
            } else {
                delimiters.to_owned()
            },
            escaped: first.is_ascii_uppercase(),
        })
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let value = self.letter.value(values);
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.reversed {
            parts.reverse();
        }
        let skip = parts.len().saturating_sub(self.keep.unwrap_or(parts.len()));
        let text = parts[skip..].join(".");
        if self.escaped { escape(&text) } else { text }
    }
}

impl Letter {
    fn value(self, values: &Values<'_>) -> String {
        let question = values.question;
        match self {
            Letter::Sender => format!("{}@{}", question.local_part(), question.domain),
            Letter::LocalPart => question.local_part().to_owned(),
            Letter::SenderDomain => question.domain.to_owned(),
            Letter::Domain => values.domain.to_owned(),
            Letter::Ip => dotted(question.ip),
            Letter::ValidatedName => values.validated_name.to_owned(),
            Letter::Family => match question.ip {
                IpAddr::V4(_) => "in-addr".to_owned(),
                IpAddr::V6(_) => "ip6".to_owned(),
            },
            Letter::Helo => question.helo.to_owned(),
            Letter::ReadableIp => question.ip.to_string(),
            Letter::Receiver => question.receiver.to_owned(),
            Letter::Time => values.now.to_string(),
        }
    }
}

/// RFC 7208 §7.3: an IPv6 address as 32 digits with dots between.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let digits: Vec<String> = ip
                .octets()
                .iter()
                .flat_map(|octet| [octet >> 4, octet & 15])
                .map(|digit| format!("{digit:X}"))
                .collect();
            digits.join(".")
        }
    }
}

/// RFC 7208 §7.3: all but the unreserved characters of RFC 3986 §2.3.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::proptest;

    proptest! {
        #[test]
        fn no_text_makes_the_expansion_panic(text: String, macros in "[%{}slodipvhcrtSLr0-9.+,/_=-]{0,40}") {
            let _ = expand(&text, "192.0.2.1");
            let _ = expand(&macros, "2001:db8::1");
        }
    }

    fn expand(text: &str, ip: &str) -> Option<String> {
        let question = Question {
            ip: ip.parse().unwrap(),
            local: "strong-bad",
            domain: "email.example.com",
            helo: "mx.example.org",
            receiver: "receiver.example",
        };
        let values = Values {
            question: &question,
            domain: "email.example.com",
            validated_name: "unknown",
            now: 1_000_000,
        };
        MacroString::parse_explanation(text).map(|string| string.expand(&values))
    }

    #[test]
    fn the_examples_of_rfc_7208_expand_as_it_says() {
        // RFC 7208 §7.4
        for (text, want) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            (
                "%{ir}.%{v}._spf.%{d2}",
                "3.2.0.192.in-addr._spf.example.com",
            ),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("100%% of%_it%-", "100% of it%20"),
            ("%{S}", "strong-bad%40email.example.com"),
            ("%{c} %{r} %{t}", "192.0.2.3 receiver.example 1000000"),
        ] {
            assert_eq!(expand(text, "192.0.2.3").as_deref(), Some(want), "{text}");
        }
        assert_eq!(
            expand("%{ir}.%{v}", "2001:db8::cb01").as_deref(),
            Some("1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6")
        );
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for text in [
            "%", "%{", "%{x}", "%{d0}", "%{d*}", "%{d2rr}", "%a", "%{}", "é",
        ] {
            assert_eq!(expand(text, "192.0.2.3"), None, "{text}");
        }
        for text in ["%{c}.example", "a b.example"] {
            assert_eq!(MacroString::parse(text), None, "{text}");
        }
        for text in ["example.123", "example", "b.-x", "%{d}x", "", ".com-"] {
            assert_eq!(MacroString::parse_domain(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_too_long_loses_whole_labels_on_the_left() {
        let question = Question {
            ip: "192.0.2.1".parse().unwrap(),
            local: "",
            domain: "example.com",
            helo: "h",
            receiver: "r",
        };
        let values = Values {
            question: &question,
            domain: &"abcdefghi.".repeat(30),
            validated_name: "unknown",
            now: 0,
        };
        let name = MacroString::parse_domain("%{d}.example.com")
            .unwrap()
            .expand_domain(&values);
        assert!(name.len() <= 253 && name.len() > 240, "{}", name.len());
        assert!(name.starts_with("abcdefghi."), "{name}");
    }
}
