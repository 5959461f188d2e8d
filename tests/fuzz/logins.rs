//! Challenges of a server at which we log in: each is answered with one line, or is an error; a login
//! is complete only when all was said, and the password goes out only where the mechanism sends it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::run;
use crate::smtp::client::login::Login;
use crate::smtp::client::login::Mechanisms;

#[test]
fn whatever_a_server_asks_is_answered_in_a_line_or_not_at_all() {
    run("logins", |input| {
        let mut seen = Vec::new();
        for words in ["SCRAM-SHA-256", "PLAIN", "LOGIN"] {
            let offered = Mechanisms::read([words].into_iter());
            let mut login = Login::new(offered, "user", "pencil", "nonce")?;
            assert!(login.begin().ends_with("\r\n"));
            let mut said = 0;
            for challenge in input.split(|octet| *octet == b'\n').take(4) {
                let Ok(line) = login.answer(&STANDARD.encode(challenge)) else {
                    break;
                };
                let answer = line.strip_suffix("\r\n").expect("a line");
                let answer = STANDARD.decode(answer).expect("encoded");
                let is_password = answer == b"pencil";
                assert!(!is_password || words == "LOGIN" && said == 1);
                assert!(words != "SCRAM-SHA-256" || said == 1 || !login.is_complete());
                said += 1;
            }
            seen.push((said, login.is_complete()));
        }
        Some(seen)
    });
}
