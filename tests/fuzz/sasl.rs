//! Mechanisms: whatever a client sends, it is in only with the password, and none is shown.
//!
//! An input is a script: the name of a mechanism, then a message a line; `none` is AUTH without one.

use super::lines;
use super::run;
use crate::smtp::sasl;
use crate::smtp::sasl::Exchange;
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::Turn;
use crate::smtp::sasl::scram::Bindings;
use crate::smtp::sasl::scram::Keys;

#[test]
fn no_message_proves_a_password_that_nobody_has() {
    run("sasl", |input| {
        let mut script = lines(input);
        let name = script
            .next()
            .and_then(|name| std::str::from_utf8(name).ok());
        let mechanism = name.and_then(|name| name.parse().ok());
        let mechanism: Mechanism = mechanism.unwrap_or(Mechanism::Plain);
        let bindings = Bindings {
            exporter: Some(vec![0; 32]),
            end_point: None,
            offered: true,
        };
        let Some(mut exchange) = Exchange::begin(mechanism, bindings, "nonce".to_owned()) else {
            let claimed = sasl::claimed_user(mechanism, script.next().unwrap_or_default());
            return vec![10 + u8::from(claimed.is_some())];
        };
        let mut seen = Vec::new();
        for message in script.take(6) {
            let message = (message != b"none").then_some(message);
            let mut turn = exchange.take(message);
            if let Turn::Keys(user) = &turn {
                assert!(!user.is_empty() && !user.contains('\0'));
                turn = exchange.keys_found(Keys::nobodys(b"seed", user, None));
            }
            seen.push(match turn {
                Turn::Challenge(octets) => {
                    assert!(octets.len() < 1024);
                    1
                }
                Turn::Password(credentials) => {
                    let password = credentials.password.expose();
                    assert!(!password.is_empty() && !password.contains(&0));
                    2
                }
                Turn::Disproved(_) => 3,
                Turn::Malformed => 4,
                Turn::Keys(_) | Turn::Proved(_) => panic!("{mechanism}: {turn:?}"),
            });
        }
        seen
    });
}
