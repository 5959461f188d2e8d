//! Who the From field says wrote a message (RFC 5322 §3.6.2, RFC 9989 §5.3.1).
//!
//! What is enforced hangs on this field alone, so fields are counted in every spelling that some
//! reader of mail may take for one, and each is read strictly (`mailboxes`).

use crate::mail::address::Domain;
use crate::verify::Author;
use crate::verify::author::mailboxes::domains;
use crate::verify::signed::Signed;

mod mailboxes;

pub use self::mailboxes::Unreadable;
pub use self::mailboxes::addresses;

/// From fields with addresses in more domains than this are broken: each domain costs queries.
const MAX_DOMAINS: usize = 10;

/// The author of a message.
pub(super) fn of(mail: &Signed<'_>) -> Author {
    let values: Vec<&[u8]> = values(mail).collect();
    match values.as_slice() {
        [] => Author::Missing,
        // Some readers of mail end the header at a line that is no field, others go on behind it.
        [_] if mail.malformed_lines() > 0 => Author::Broken,
        [value] => match distinct(&[value]) {
            Ok(found) => match found.as_slice() {
                [] => Author::Broken,
                [domain] => Author::Domain(domain.clone()),
                _ => Author::Domains(found),
            },
            Err(TooMany) => Author::Broken,
        },
        several => match distinct(several) {
            Ok(_) => Author::Fields(several.len()),
            Err(TooMany) => Author::Broken,
        },
    }
}

/// Every domain that any From field names, for a verdict on a message with several.
pub(super) fn all_domains(mail: &Signed<'_>) -> Vec<Domain> {
    let values: Vec<&[u8]> = values(mail).collect();
    distinct(&values).unwrap_or_default()
}

fn values<'x>(mail: &Signed<'x>) -> impl Iterator<Item = &'x [u8]> {
    let fields = mail.named("from");
    fields.map(|(_, value)| value.strip_suffix(b"\r\n").unwrap_or(value))
}

/// More domains than anyone looks up.
struct TooMany;

/// The domains in the values, each once. A value that cannot be read has none.
fn distinct(values: &[&[u8]]) -> Result<Vec<Domain>, TooMany> {
    let mut found = Vec::new();
    let named = values.iter().filter_map(|value| domains(value).ok());
    for domain in named.flatten() {
        if found.contains(&domain) {
            continue;
        }
        if found.len() == MAX_DOMAINS {
            return Err(TooMany);
        }
        found.push(domain);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &[u8]) -> Author {
        of(&Signed::read(&[b"From:", value, b"\r\n\r\n"].concat()))
    }

    fn name(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn one_domain_is_found_in_every_form_of_rfc_5322() {
        for value in [
            "a@good.example",
            " A B <a@GOOD.example>",
            "\"B, A\" <a@good.example>",
            "\"a@evil.example\" <a@good.example>",
            "\"<a@evil.example>\" <a@good.example>",
            "=?utf-8?Q?a=40evil.example?= <a@good.example>",
            "(a@evil.example) a@good.example (<b@evil.example>)",
            "a(comment (nested \\) more))@good.example",
            "J. Doe <a@good.example>",
            "<@relay.example,@two.example:a@good.example>",
            "Group: a@good.example, B <b@good.example>;",
            "a@good.example, b@good.example,",
            "\"a b\"@good.example",
            "\"x>y\" <\"a>b\"@good.example>",
            "Ünï <a@good.example>",
            "A\r\n B\r\n\t<a@good.example>\r\n",
            "a . b @ good . example",
            "a@good.example <a@good.example>",
            "<a@good.example> (b)",
            "Doe, Inc. <a@good.example>",
            "[list] A <a@good.example>",
        ] {
            assert_eq!(
                read(value.as_bytes()),
                Author::Domain(name("good.example")),
                "{value:?}"
            );
        }
        assert_eq!(
            read("ü@bücher.example".as_bytes()),
            Author::Domain(name("xn--bcher-kva.example"))
        );
        assert_eq!(
            read(b"\xfc\xe4 <a@good.example>"),
            Author::Domain(name("good.example"))
        );
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_broken() {
        for value in [
            "",
            "a",
            "<>",
            "undisclosed:;",
            "a, b, [c]",
            "a@[192.0.2.1]",
            "<a@good.example> <b@evil.example>",
            "<a@good.example>b@evil.example",
            "a@good.example b@evil.example",
            "a@good.example <b@evil.example>",
            "a@good.example@evil.example",
            "<a@good.example@evil.example>",
            "<a@good.example,b@evil.example>",
            "<<a@good.example>>",
            "<a@good.example",
            "\"a <a@good.example>",
            "(a <a@good.example>",
            "a@good.example)",
            "a@good.example\0@evil.example",
            "a@good.example\r",
            "a@good.example\n",
            "a@good.example; b@evil.example",
            "A: B: a@good.example;;",
            "A: a@good.example",
            "A: a@good.example; b@evil.example",
            "a..b@good.example",
            "a@good..example",
            "a@.example",
            "@good.example",
            "a\\@evil.example <b@good.example>",
        ] {
            assert_eq!(read(value.as_bytes()), Author::Broken, "{value:?}");
        }
        let many: Vec<_> = (0..11).map(|n| format!("a@d{n}.example")).collect();
        assert_eq!(read(many.join(",").as_bytes()), Author::Broken);
        let deep = format!("{}a@good.example", "(".repeat(100_000));
        assert_eq!(read(deep.as_bytes()), Author::Broken);
    }

    #[test]
    fn several_domains_are_all_named() {
        assert_eq!(
            read(b"a@one.example, G: b@two.example, c@one.example;"),
            Author::Domains(vec![name("one.example"), name("two.example")])
        );
    }

    #[test]
    fn fields_are_counted_in_any_spelling() {
        for (message, want) in [
            (
                "To: a@b.example\r\n\r\nFrom: a@b.example\r\n",
                Author::Missing,
            ),
            (
                "FROM : a@b.example\r\n\r\n",
                Author::Domain(name("b.example")),
            ),
            (
                "From: a@b.example\r\nfrom\t: c@d.example\r\n\r\n",
                Author::Fields(2),
            ),
            (
                "From: a@b.example\r\nno field\r\nFrom: c@d.example\r\n\r\n",
                Author::Fields(2),
            ),
            ("no field\r\nFrom: c@d.example\r\n\r\n", Author::Broken),
            ("From\0: a@b.example\r\n\r\n", Author::Missing),
            ("", Author::Missing),
        ] {
            assert_eq!(of(&Signed::read(message.as_bytes())), want, "{message:?}");
        }
    }

    #[test]
    fn no_domain_hides_behind_others_in_many_fields() {
        let many: String = (0..11)
            .map(|n| format!("From: a@d{n}.example\r\n"))
            .collect();
        assert_eq!(
            of(&Signed::read(format!("{many}\r\n").as_bytes())),
            Author::Broken
        );
    }

    #[test]
    fn all_fields_are_read_where_there_are_several() {
        assert_eq!(
            all_domains(&Signed::read(b"From: a@b.example\r\nFrom: <c@d.example> <e@f.example>\r\nFrom: g@h.example\r\n\r\n")),
            [name("b.example"), name("h.example")]
        );
    }
}
