//! Where the addresses stand in a list of them, as in To or in an argument (RFC 5322 §3.4, §4.4).
//!
//! Meant for mail of this machine's own users, who leave out the domain: it finds `root` in
//! `root (Cron Daemon)`. Whether what it finds is an address is for others to say; display names, comments,
//! groups and routes are passed over.

use std::ops::Range;

/// Where each address stands in the value, in order.
pub(super) fn spans(value: &[u8]) -> Vec<Range<usize>> {
    let mut walk = Walk::default();
    let mut at = 0;
    while let Some(octet) = value.get(at) {
        // What stands behind a backslash has no meaning of its own.
        let is_pair = *octet == b'\\' && (walk.is_quoted || walk.comments > 0);
        if is_pair {
            walk.word(at..at + 2);
            at += 1;
        } else {
            walk.take(*octet, at, value);
        }
        at += 1;
    }
    walk.end_element(value);
    walk.found
}

/// Whether a domain is missing.
pub(super) fn is_bare(address: &str) -> bool {
    let at = address.rfind('@');
    let quote = address.rfind('"');
    !address.is_empty()
        && !address.contains(char::is_whitespace)
        && at.is_none_or(|at| quote > Some(at))
}

#[derive(Default)]
struct Walk {
    found: Vec<Range<usize>>,
    /// From the first to the last octet of the element's words.
    words: Option<Range<usize>>,
    /// What stands between angle brackets.
    angle: Option<Range<usize>>,
    is_quoted: bool,
    is_angled: bool,
    is_literal: bool,
    comments: usize,
}

impl Walk {
    fn take(&mut self, octet: u8, at: usize, value: &[u8]) {
        if self.comments > 0 {
            match octet {
                b'(' => self.comments += 1,
                b')' => self.comments -= 1,
                _ => {}
            }
            return;
        }
        if self.is_quoted {
            self.is_quoted = octet != b'"';
            return self.word(at..at + 1);
        }
        match octet {
            b'"' => self.is_quoted = true,
            b'(' => {
                self.comments = 1;
                return;
            }
            b'[' => self.is_literal = true,
            b']' => self.is_literal = false,
            b'<' => {
                self.is_angled = true;
                self.angle = None;
                return;
            }
            b'>' if self.is_angled => {
                self.is_angled = false;
                self.angle.get_or_insert(at..at);
                return;
            }
            // A route, as in <@a.example,@b.example:c@d.example>, means nothing (RFC 5321 appendix C).
            b',' | b':' if self.is_angled && !self.is_literal => {
                self.angle = None;
                return;
            }
            b',' | b';' if !self.is_literal => return self.end_element(value),
            // The name of a group.
            b':' if !self.is_literal => {
                self.words = None;
                return;
            }
            octet if octet.is_ascii_whitespace() => return,
            _ => {}
        }
        self.word(at..at + 1);
    }

    fn word(&mut self, octets: Range<usize>) {
        if self.comments > 0 {
            return;
        }
        let part = match self.is_angled {
            true => &mut self.angle,
            false => &mut self.words,
        };
        match part {
            Some(part) => part.end = octets.end,
            None => *part = Some(octets),
        }
    }

    fn end_element(&mut self, value: &[u8]) {
        self.is_angled = false;
        let words = self.words.take();
        if let Some(found) = self.angle.take().or(words) {
            let found = found.start..found.end.min(value.len());
            if !found.is_empty() {
                self.found.push(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str) -> Vec<&str> {
        let spans = spans(value.as_bytes()).into_iter();
        spans.map(|span| &value[span]).collect()
    }

    #[test]
    fn addresses_are_found_however_they_are_dressed() {
        for (value, want) in [
            ("root", vec!["root"]),
            ("root (Cron Daemon)", vec!["root"]),
            (
                " a@b.example,\r\n\tc@d.example ",
                vec!["a@b.example", "c@d.example"],
            ),
            (
                "\"Doe, Anna\" <anna@b.example>, bob",
                vec!["anna@b.example", "bob"],
            ),
            (
                "Anna (x <y@z> \\) (nested)) <anna@b.example>",
                vec!["anna@b.example"],
            ),
            (
                "friends: a@b.example, \"c d\"@e.example;, f",
                vec!["a@b.example", "\"c d\"@e.example", "f"],
            ),
            ("undisclosed-recipients:;", vec![]),
            ("<@x.example,@y.example:a@b.example>", vec!["a@b.example"]),
            (
                "a@[IPv6:2001:db8::1], <b@[192.0.2.1]>",
                vec!["a@[IPv6:2001:db8::1]", "b@[192.0.2.1]"],
            ),
            ("<>, ,", vec![]),
            ("\"a\\\"b\"@c.example", vec!["\"a\\\"b\"@c.example"]),
            ("anna doe", vec!["anna doe"]),
            ("\"open", vec!["\"open"]),
            ("\"open\\", vec!["\"open\\"]),
            ("(", vec![]),
        ] {
            assert_eq!(found(value), want, "{value}");
        }
    }

    #[test]
    fn a_name_without_a_domain_is_bare() {
        for (address, want) in [
            ("root", true),
            ("\"a@b\"", true),
            ("a@b", false),
            ("\"a@b\"@c", false),
            ("anna doe", false),
            ("", false),
        ] {
            assert_eq!(is_bare(address), want, "{address}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_found_lies_within(value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            for span in spans(&value) {
                assert!(span.start < span.end && span.end <= value.len());
            }
        }
    }
}
