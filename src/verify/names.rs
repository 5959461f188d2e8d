//! How two names stand to each other.

/// Whether a name is the domain or stands below it, in whatever case.
pub(super) fn is_within(name: &str, domain: &str) -> bool {
    let Some(at) = name.len().checked_sub(domain.len()) else {
        return false;
    };
    let (front, end) = name.as_bytes().split_at(at);
    end.eq_ignore_ascii_case(domain.as_bytes()) && matches!(front.last(), None | Some(b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

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
