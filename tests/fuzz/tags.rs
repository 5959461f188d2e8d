//! Tag lists: what is passed on of one can do no harm in a header field.

use super::*;
use crate::fuzz::run;

#[test]
fn what_is_passed_on_of_a_tag_is_harmless_and_bounded() {
    run("tags", |input| {
        let tags = Tags::read(input);
        let count = tags.0.len();
        assert!(count <= input.len());
        for name in ["v", "a", "d", "i", "s", "b", "bh"] {
            let Some(value) = tags.harmless(name, MAX_VALUE) else {
                continue;
            };
            assert!(value.len() <= MAX_VALUE);
            assert!(
                value
                    .bytes()
                    .all(|octet| octet.is_ascii_graphic() && !b"\"()<>;=".contains(&octet))
            );
            let raw = tags.raw(name).unwrap();
            assert!(!raw.contains(|c: char| c.is_ascii_whitespace()));
        }
        (count.min(8), tags.repeat())
    });
}
