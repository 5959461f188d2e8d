//! How two names stand to each other.

use crate::mail::address::Domain;

/// Whether a name is the domain or stands below it, in whatever case.
pub(super) fn is_within(name: &str, domain: &str) -> bool {
    let Some(at) = name.len().checked_sub(domain.len()) else {
        return false;
    };
    let (front, end) = name.as_bytes().split_at(at);
    end.eq_ignore_ascii_case(domain.as_bytes()) && matches!(front.last(), None | Some(b'.'))
}

/// Whether a domain could belong together with one of `authors`: they share two labels. A guess, good
/// enough to say what is looked at first.
pub(super) fn is_related(domain: &str, authors: &[Domain]) -> bool {
    authors
        .iter()
        .any(|author| last_two(author.as_str()).eq_ignore_ascii_case(last_two(domain)))
}

fn last_two(name: &str) -> &str {
    let dot = name.rfind('.').and_then(|last| name[..last].rfind('.'));
    dot.map_or(name, |dot| &name[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_two_labels_in_common_are_related() {
        let authors = [Domain::parse("news.example.com").unwrap()];
        for (domain, want) in [
            ("example.com", true),
            ("mail.EXAMPLE.com", true),
            ("example.org", false),
            ("com", false),
        ] {
            assert_eq!(is_related(domain, &authors), want, "{domain}");
        }
    }

    #[test]
    fn a_name_is_within_a_domain_only_at_a_dot() {
        for (name, domain, want) in [
            ("example.com", "Example.com", true),
            ("a.example.com", "example.com", true),
            ("badexample.com", "example.com", false),
            ("com", "example.com", false),
        ] {
            assert_eq!(is_within(name, domain), want, "{name} {domain}");
        }
    }
}
