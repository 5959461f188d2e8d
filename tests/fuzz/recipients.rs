//! Files of recipients: any text gives the recipients of its domain, or the line that is wrong.

use super::*;
use crate::fuzz::run;

#[test]
fn any_file_gives_recipients_of_its_domain_or_the_line_that_is_wrong() {
    let domain = Domain::parse("gate.example").unwrap();
    run("recipients", |input| {
        let file = String::from_utf8_lossy(input);
        match parse(&file, &domain) {
            Ok(recipients) => {
                assert!(recipients.len() <= file.lines().count());
                // Lower case may take more octets.
                assert!(recipients.iter().all(|local| local.len() <= 2 * 64));
                Ok((recipients.len().min(5), recipients.contains("")))
            }
            Err(wrong) => {
                let line = file.lines().nth(wrong.number - 1).unwrap();
                assert!(line.contains(&wrong.text));
                Err(wrong.reason.to_string())
            }
        }
    });
}
