//! Tag lists (RFC 6376 §3.2), for what a result field says of a signature.
//!
//! The library reads signatures for verification; here they are read again for people, also where
//! the library cannot read them. What comes out is harmless in a header field.

use memchr::memchr;
use memchr::memchr_iter;

/// The longest value that is passed on.
pub(super) const MAX_VALUE: usize = 255;

/// A tag list, split once.
pub(super) struct Tags<'x>(Vec<(&'x [u8], &'x [u8])>);

impl<'x> Tags<'x> {
    pub(super) fn read(list: &'x [u8]) -> Tags<'x> {
        let mut tags = Vec::with_capacity(16);
        let mut start = 0;
        for end in memchr_iter(b';', list).chain([list.len()]) {
            let tag = &list[start..end];
            start = end + 1;
            if let Some(at) = memchr(b'=', tag) {
                tags.push((tag[..at].trim_ascii(), &tag[at + 1..]));
            } else if !tag.trim_ascii().is_empty() {
                tags.push((tag.trim_ascii(), &[]));
            }
        }
        Tags(tags)
    }

    /// The value of a tag without white space, if the list has it.
    pub(super) fn raw(&self, name: &str) -> Option<String> {
        let value = self.value(name)?;
        let text = String::from_utf8_lossy(value);
        Some(text.split_ascii_whitespace().collect())
    }

    /// Whether a tag stands in the list twice, in whatever case.
    pub(super) fn repeat(&self) -> bool {
        let mut names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        let lower = |name: &'x [u8]| name.iter().map(u8::to_ascii_lowercase);
        names.sort_unstable_by(|a, b| lower(a).cmp(lower(b)));
        names
            .windows(2)
            .any(|pair| !pair[0].is_empty() && pair[0].eq_ignore_ascii_case(pair[1]))
    }

    /// The value of a tag, at most `most` of the characters that domains, addresses and base 64 are
    /// made of.
    pub(super) fn harmless(&self, name: &str, most: usize) -> Option<String> {
        let value = self.value(name)?.iter();
        let value = value.filter(|b| b.is_ascii_alphanumeric() || b"@.-_+/".contains(b));
        Some(value.take(most).map(|b| char::from(*b)).collect())
    }

    fn value(&self, name: &str) -> Option<&'x [u8]> {
        let found = self.0.iter().find(|(of, _)| *of == name.as_bytes());
        found.map(|(_, value)| *value)
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/tags.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_whatever_white_space_is_around_it() {
        let list = b" v=1; a = rsa-sha256 ;\r\n\td=example\r\n .com; b=AB\r\n CD==; bh=x";
        for (name, want) in [
            ("v", Some("1")),
            ("a", Some("rsa-sha256")),
            ("d", Some("example.com")),
            ("b", Some("ABCD==")),
            ("bh", Some("x")),
            ("l", None),
        ] {
            assert_eq!(Tags::read(list).raw(name).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn a_repeated_tag_is_seen_in_any_case() {
        assert!(Tags::read(b"d=a; s=b;\r\n D =c").repeat());
        assert!(Tags::read(b"d=a; s=b; d").repeat());
        assert!(!Tags::read(b"d=a; s=b;; bh=c;").repeat());
    }

    #[test]
    fn nothing_that_means_something_in_a_result_field_comes_through() {
        assert_eq!(
            Tags::read(b"d=a.example\" (x) dkim=pass\x00")
                .harmless("d", MAX_VALUE)
                .as_deref(),
            Some("a.examplexdkimpass")
        );
        let long = format!("d={}", "a".repeat(1000));
        let long = Tags::read(long.as_bytes()).harmless("d", MAX_VALUE);
        assert_eq!(long.map(|d| d.len()), Some(255));
    }
}
