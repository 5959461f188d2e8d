//! Tag lists (RFC 6376 §3.2), for what a result field says of a signature.
//!
//! The library reads signatures for verification; here they are read again for people, also where
//! the library cannot read them. What comes out is harmless in a header field.

/// The longest value that is passed on.
const MAX_VALUE: usize = 255;

/// The value of a tag without white space, if the list has it.
pub(super) fn raw(list: &[u8], name: &str) -> Option<String> {
    list.split(|b| *b == b';').find_map(|tag| {
        let at = tag.iter().position(|b| *b == b'=')?;
        let (of, value) = (tag[..at].trim_ascii(), &tag[at + 1..]);
        (of == name.as_bytes()).then(|| {
            String::from_utf8_lossy(value)
                .chars()
                .filter(|c| !c.is_ascii_whitespace())
                .collect()
        })
    })
}

/// Whether a tag stands in the list twice, in whatever case.
pub(super) fn repeats(list: &[u8]) -> bool {
    let mut names: Vec<Vec<u8>> = list
        .split(|b| *b == b';')
        .filter_map(|tag| tag.split(|b| *b == b'=').next())
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// The value of a tag, of the characters that domains, addresses and base 64 are made of.
pub(super) fn harmless(list: &[u8], name: &str) -> Option<String> {
    let value: String = raw(list, name)?
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "@.-_+/".contains(*c))
        .take(MAX_VALUE)
        .collect();
    Some(value)
}

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
            assert_eq!(raw(list, name).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn a_repeated_tag_is_seen_in_any_case() {
        assert!(repeats(b"d=a; s=b;\r\n D =c"));
        assert!(!repeats(b"d=a; s=b;; bh=c;"));
    }

    #[test]
    fn nothing_that_means_something_in_a_result_field_comes_through() {
        assert_eq!(
            harmless(b"d=a.example\" (x) dkim=pass\x00", "d").as_deref(),
            Some("a.examplexdkimpass")
        );
        let long = format!("d={}", "a".repeat(1000));
        assert_eq!(harmless(long.as_bytes(), "d").map(|d| d.len()), Some(255));
    }
}
