//! Lines of Dovecot's: whatever it says is read or breaks the protocol, and a name survives its way.

use super::*;
use crate::fuzz::run;

#[test]
fn any_line_is_read_or_breaks_the_protocol() {
    run("dovecot", |input| {
        if let Ok(text) = std::str::from_utf8(input) {
            let escaped = escape(text);
            assert!(!escaped.contains(['\t', '\n', '\0']));
            assert_eq!(unescape(&escaped), text);
        }
        let line = parse(input);
        match &line {
            Ok(Line::Failed { failure, .. }) => {
                assert!(!failure.reason.is_empty());
                (1, failure.is_temporary)
            }
            Ok(Line::Granted { user, .. }) => {
                assert!(user.as_ref().is_none_or(|user| !user.is_empty()));
                (2, user.is_some())
            }
            Ok(Line::Continue { octets, .. }) => (3, octets.is_empty()),
            Ok(Line::Version(_)) => (4, false),
            Ok(Line::Mechanism(_)) => (5, false),
            Ok(Line::Done) => (6, false),
            Ok(Line::Other) => (7, false),
            Err(Broken) => (8, false),
        }
    });
}
