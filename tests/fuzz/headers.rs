//! The header's fields: each octet of the header is in one of them or in a line that is counted as none.

use super::run;
use crate::mail::headers::fields;
use crate::mail::headers::indented;

#[test]
fn each_octet_of_a_header_is_in_a_field_or_in_a_line_that_is_counted() {
    run("headers", |input| {
        let mut walk = fields(input);
        let mut at = 0;
        let mut malformed = 0;
        let mut count = 0;
        while let Some(field) = walk.next() {
            let passed_over = field.range.start - at;
            assert_eq!(passed_over > 0, walk.malformed() > malformed, "at {at}");
            malformed = walk.malformed();
            at = field.range.end;
            assert_eq!(at, walk.position());
            count += 1;
            let whole = &input[field.range];
            assert!(whole.starts_with(field.name.as_bytes()));
            assert!(
                field
                    .name
                    .bytes()
                    .all(|octet| octet.is_ascii_graphic() && octet != b':')
            );
            assert!(!field.name.is_empty());
            let end = whole.strip_suffix(b"\r\n").unwrap_or(whole);
            assert!(end.ends_with(field.value));
            assert!(
                !matches!(input.get(at), Some(b' ' | b'\t')),
                "the fold goes on"
            );
        }
        let rest = &input[walk.position()..];
        assert!(rest.is_empty() || rest.starts_with(b"\r\n"));
        assert_eq!(walk.position() > at, walk.malformed() > malformed);
        let front = indented(input);
        assert!(front <= input.len());
        assert!(!matches!(input.get(front), Some(b' ' | b'\t')));
        (
            count.min(8),
            walk.malformed().min(8),
            rest.is_empty(),
            front > 0,
        )
    });
}
