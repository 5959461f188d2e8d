//! From fields: what is read of one is what stands in it.

use super::*;
use crate::fuzz::run;
use crate::mail::headers::fields;
use crate::verify::author::MAX_DOMAINS;
use crate::verify::signed::Signed;

#[test]
fn each_domain_of_an_author_stands_in_the_field() {
    run("authors", |input| {
        // As the field comes: a line end in it is always a fold.
        let message = [b"From: ", input, b"\r\n\r\n"].concat();
        let value = fields(&message).next()?.value;
        let found = domains(value).map_err(|Unreadable| ()).ok()?;
        let text = String::from_utf8_lossy(value).to_lowercase();
        for domain in &found {
            // An internationalised one stands there otherwise, and white space or comments may part it.
            let labels = domain.as_str().split('.');
            let mut ascii = labels.filter(|label| !label.starts_with("xn--"));
            assert!(
                !text.is_ascii() || ascii.all(|label| text.contains(label)),
                "{domain}"
            );
        }
        assert!(found.len() <= value.len());
        let mail = Signed::read(&message);
        let author = crate::verify::author::of(&mail);
        assert!(crate::verify::author::all_domains(&mail).len() <= MAX_DOMAINS);
        Some((found.len().min(4), std::mem::discriminant(&author)))
    });
}
