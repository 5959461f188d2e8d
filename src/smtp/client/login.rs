//! Logging in at a next hop: the client's half of AUTH with SCRAM-SHA-256, PLAIN and LOGIN
//! (RFC 4954, RFC 5802, RFC 7677, RFC 4616).
//!
//! The caller sends what [`Login::begin`] says, then for each 334 what [`Login::answer`] says, until
//! another reply comes; a 235 counts only where [`Login::is_complete`]. Only to be spoken under TLS.
//!
//! # Limits
//! No channel binding. With PLAIN and LOGIN a password that is not ASCII is sent as it is.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::smtp::sasl::scram::Derived;
use crate::smtp::sasl::scram::exclusive_or;
use crate::smtp::sasl::scram::hash;
use crate::smtp::sasl::scram::hmac;
use crate::smtp::sasl::scram::prepared;

/// More rounds than any server asks for, and few enough to hold nobody up.
const MOST_ROUNDS: u32 = 200_000;

/// The mechanisms that a server offers, of those that we speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mechanisms {
    /// RFC 7677
    pub scram_sha_256: bool,
    /// RFC 4616
    pub plain: bool,
    /// What older servers know; nowhere specified.
    pub login: bool,
}

impl Mechanisms {
    /// Reads the words behind AUTH in a reply to EHLO.
    pub fn read<'w>(words: impl Iterator<Item = &'w str>) -> Mechanisms {
        let mut offered = Mechanisms::default();
        for word in words {
            match word.to_ascii_uppercase().as_str() {
                "SCRAM-SHA-256" => offered.scram_sha_256 = true,
                "PLAIN" => offered.plain = true,
                "LOGIN" => offered.login = true,
                _ => {}
            }
        }
        offered
    }
}

/// Why a challenge cannot be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server asks for more than the mechanism has to say.
    #[error("the server asks for more than the mechanism says")]
    Unasked,
    /// What the server sent is none of the mechanism's messages (RFC 5802 §7).
    #[error("the server does not keep to the mechanism")]
    Malformed,
    /// It does not know what one who knows the password would.
    #[error("the server does not know the password, so it is another one")]
    Impostor,
}

/// One login under way. Its `Debug` shows no secret.
pub struct Login<'a> {
    user: &'a str,
    password: &'a str,
    stage: Stage,
}

enum Stage {
    Plain,
    /// LOGIN: the name comes next.
    Name,
    /// LOGIN: the password comes next.
    Password,
    /// SCRAM: holds our first message without its head.
    First(String),
    /// SCRAM: holds what the server has to sign.
    Final(Vec<u8>),
    Complete,
}

impl<'a> Login<'a> {
    /// Takes the best mechanism on offer; None where there is none that we speak. `nonce` is printable
    /// ASCII without commas, and new for each login.
    pub fn new(
        offered: Mechanisms,
        user: &'a str,
        password: &'a str,
        nonce: &str,
    ) -> Option<Login<'a>> {
        let stage = if offered.scram_sha_256 {
            let user = prepared(user).replace('=', "=3D").replace(',', "=2C"); // RFC 5802 §5.1
            Stage::First(format!("n={user},r={nonce}"))
        } else if offered.plain {
            Stage::Plain
        } else if offered.login {
            Stage::Name
        } else {
            return None;
        };
        Some(Login {
            user,
            password,
            stage,
        })
    }

    /// The AUTH command.
    pub fn begin(&mut self) -> String {
        match &self.stage {
            Stage::First(bare) => {
                let first = STANDARD.encode(format!("n,,{bare}"));
                format!("AUTH SCRAM-SHA-256 {first}\r\n")
            }
            Stage::Plain => {
                let message = format!("\0{}\0{}", self.user, self.password); // RFC 4616 §2
                self.stage = Stage::Complete;
                format!("AUTH PLAIN {}\r\n", STANDARD.encode(message))
            }
            Stage::Name | Stage::Password | Stage::Final(_) | Stage::Complete => {
                "AUTH LOGIN\r\n".to_owned()
            }
        }
    }

    /// The line that answers a 334 with this text.
    ///
    /// # Errors
    /// [`Error`]; the login is to be cancelled then, with a line of one `*` (RFC 4954 §4).
    pub fn answer(&mut self, challenge: &str) -> Result<String, Error> {
        let (answer, next) = match &self.stage {
            Stage::Name => (self.user.as_bytes().to_vec(), Stage::Password),
            Stage::Password => (self.password.as_bytes().to_vec(), Stage::Complete),
            Stage::First(bare) => {
                let (answer, signature) = prove(bare, &decoded(challenge)?, self.password)?;
                (answer.into_bytes(), Stage::Final(signature))
            }
            Stage::Final(signature) => {
                let given = decoded(challenge)?;
                let given = given.strip_prefix("v=").ok_or(Error::Malformed)?;
                if STANDARD.decode(given).ok().as_ref() != Some(signature) {
                    return Err(Error::Impostor); // RFC 5802 §5
                }
                (Vec::new(), Stage::Complete)
            }
            Stage::Plain | Stage::Complete => return Err(Error::Unasked),
        };
        self.stage = next;
        Ok(format!("{}\r\n", STANDARD.encode(answer)))
    }

    /// Whether all was said, and the server has proven what the mechanism has it prove.
    pub fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Complete)
    }
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

fn decoded(challenge: &str) -> Result<String, Error> {
    let octets = STANDARD.decode(challenge).map_err(|_| Error::Malformed)?;
    String::from_utf8(octets).map_err(|_| Error::Malformed)
}

/// Our last message, and the signature that the server has to give for it (RFC 5802 §3).
fn prove(bare: &str, server: &str, password: &str) -> Result<(String, Vec<u8>), Error> {
    let mut parts = server.splitn(3, ',');
    let mut part = |name| parts.next().and_then(|part| part.strip_prefix(name));
    let (nonce, salt, rounds) = (part("r="), part("s="), part("i="));
    let (Some(nonce), Some(salt), Some(rounds)) = (nonce, salt, rounds) else {
        return Err(Error::Malformed);
    };
    let ours = bare.rsplit_once("r=").map_or("", |(_, ours)| ours);
    if nonce.len() <= ours.len() || !nonce.starts_with(ours) {
        return Err(Error::Malformed); // RFC 5802 §5.1
    }
    let salt = STANDARD.decode(salt).map_err(|_| Error::Malformed)?;
    let rounds = rounds
        .split(',')
        .next()
        .and_then(|rounds| rounds.parse().ok());
    let rounds = rounds.filter(|rounds: &NonZeroU32| rounds.get() <= MOST_ROUNDS);
    let rounds = rounds.ok_or(Error::Malformed)?;

    let keys = Derived::of(password.as_bytes(), &salt, rounds);
    let unproven = format!("c=biws,r={nonce}");
    let message = format!("{bare},{server},{unproven}");
    let signature = hmac(&hash(&keys.client_key), message.as_bytes());
    let proof = STANDARD.encode(exclusive_or(keys.client_key, signature));
    let server_signature = hmac(&keys.server_key, message.as_bytes());
    Ok((format!("{unproven},p={proof}"), server_signature.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(words: &str) -> Mechanisms {
        Mechanisms::read(words.split(' '))
    }

    fn plain(line: &str) -> String {
        let word = line.trim_end().rsplit(' ').next().unwrap();
        String::from_utf8(STANDARD.decode(word).unwrap()).unwrap()
    }

    #[test]
    fn the_best_mechanism_on_offer_is_taken() {
        for (words, want) in [
            (
                "CRAM-MD5 LOGIN PLAIN SCRAM-SHA-256",
                Some("AUTH SCRAM-SHA-256 "),
            ),
            ("login plain", Some("AUTH PLAIN ")),
            ("LOGIN", Some("AUTH LOGIN\r\n")),
            ("XOAUTH2 SCRAM-SHA-1", None),
        ] {
            let login = Login::new(offered(words), "user", "pencil", "nonce");
            let begin = login.map(|mut login| login.begin());
            assert_eq!(begin.is_some(), want.is_some(), "{words}");
            assert!(
                begin.unwrap_or_default().starts_with(want.unwrap_or("")),
                "{words}"
            );
        }
    }

    #[test]
    fn plain_says_all_at_once_and_login_what_it_is_asked() {
        let mut login = Login::new(offered("PLAIN"), "user", "pencil", "n").unwrap();
        assert_eq!(plain(&login.begin()), "\0user\0pencil");
        assert!(login.is_complete());
        assert_eq!(login.answer(""), Err(Error::Unasked));
        let mut login = Login::new(offered("LOGIN"), "user", "pencil", "n").unwrap();
        login.begin();
        assert_eq!(plain(&login.answer("VXNlcm5hbWU6").unwrap()), "user");
        assert!(!login.is_complete());
        assert_eq!(plain(&login.answer("UGFzc3dvcmQ6").unwrap()), "pencil");
        assert!(login.is_complete());
    }

    /// RFC 7677 §3
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    #[test]
    fn scram_proves_the_password_and_has_the_server_prove_it() {
        let mut login = Login::new(offered("SCRAM-SHA-256"), "user", "pencil", NONCE).unwrap();
        assert_eq!(plain(&login.begin()), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let last = login.answer(&STANDARD.encode(FIRST)).unwrap();
        assert_eq!(
            plain(&last),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(!login.is_complete());
        assert_eq!(login.answer(&STANDARD.encode(FINAL)).unwrap(), "\r\n");
        assert!(login.is_complete());
    }

    #[test]
    fn scram_proves_the_same_however_the_letters_of_a_password_are_put_together() {
        let proof = |user, password| {
            let mut login = Login::new(offered("SCRAM-SHA-256"), user, password, NONCE).unwrap();
            let first = plain(&login.begin());
            (first, login.answer(&STANDARD.encode(FIRST)))
        };
        let composed = proof("Gr\u{fc}n", "Gr\u{fc}\u{df}e");
        assert_eq!(composed, proof("Gru\u{308}n", "Gru\u{308}\u{df}e"));
        assert_ne!(composed, proof("Gr\u{fc}n", "Grusse"));
    }

    #[test]
    fn a_server_that_breaks_scram_is_not_answered() {
        for (first, last, want) in [
            (
                "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "",
                Error::Malformed,
            ),
            (
                "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "",
                Error::Malformed,
            ),
            (
                "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
                "",
                Error::Malformed,
            ),
            (
                "r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=4000000000",
                "",
                Error::Malformed,
            ),
            (
                "m=ext,r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1",
                "",
                Error::Malformed,
            ),
            (FIRST, "v=AAAA", Error::Impostor),
            (FIRST, "e=other-error", Error::Malformed),
        ] {
            let mut login = Login::new(offered("SCRAM-SHA-256"), "user", "pencil", NONCE).unwrap();
            login.begin();
            let mut got = login.answer(&STANDARD.encode(first));
            if got.is_ok() {
                got = login.answer(&STANDARD.encode(last));
            }
            assert_eq!(got, Err(want), "{first} {last}");
            assert!(!login.is_complete());
        }
    }

    #[test]
    fn a_login_that_is_shown_shows_no_password() {
        let login = Login::new(offered("PLAIN"), "user", "pencil", "n").unwrap();
        assert!(!format!("{login:?}").contains("pencil"));
    }
}
