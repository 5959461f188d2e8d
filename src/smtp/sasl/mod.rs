//! How a client proves who it is (SASL, RFC 4422): what comes of each of its messages.
//!
//! Pure: a mechanism is fed what the client sent, decoded, and says what to do next. What it cannot
//! know (is that the password? what are this user's keys?) it asks. PLAIN, LOGIN and SCRAM-SHA-256 are
//! spoken here; bearer tokens are for somebody else to judge, only who they are for is read from them.

mod bearer;
mod plain;
pub mod scram;

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

pub use self::bearer::claimed_user;

use self::scram::Bindings;
use self::scram::First;
use self::scram::Keys;
use self::scram::Waiting;

/// How a client may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub enum Mechanism {
    /// A challenge and its answer, bound to the TLS connection (RFC 7677).
    ScramSha256Plus,
    /// A challenge and its answer; the password is never sent (RFC 7677).
    ScramSha256,
    /// Name and password (RFC 4616).
    Plain,
    /// Name and password, asked for one by one; no RFC has it, some clients have nothing else.
    Login,
    /// A token (RFC 7628).
    OAuthBearer,
    /// A token, in the form of before RFC 7628.
    XOAuth2,
}

impl Mechanism {
    /// All of them, the strongest first, as EHLO lists them.
    pub const ALL: [Mechanism; 6] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha256,
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::OAuthBearer,
        Mechanism::XOAuth2,
    ];

    /// Its name in IANA's registry.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::OAuthBearer => "OAUTHBEARER",
            Mechanism::XOAuth2 => "XOAUTH2",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such mechanism here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no mechanism that is spoken here; these are: SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN, LOGIN, OAUTHBEARER, XOAUTH2"
)]
pub struct UnknownMechanism(String);

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(text: &str) -> Result<Mechanism, UnknownMechanism> {
        let same = |mechanism: &Mechanism| mechanism.name().eq_ignore_ascii_case(text);
        let found = Mechanism::ALL.into_iter().find(same);
        found.ok_or_else(|| UnknownMechanism(text.to_owned()))
    }
}

impl TryFrom<String> for Mechanism {
    type Error = UnknownMechanism;

    fn try_from(text: String) -> Result<Mechanism, UnknownMechanism> {
        text.parse()
    }
}

/// What only the client and we may know. It is shown nowhere, not even where a type is printed whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps it.
    pub fn new(octets: impl Into<Vec<u8>>) -> Secret {
        Secret(octets.into())
    }

    /// For whoever has to look at it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Who a client says that it is, with the password for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// As whom it wants to act, where that is somebody else (RFC 4616 §2).
    pub authorize_as: Option<String>,
    /// Whose password it is.
    pub name: String,
    /// UTF-8 without NUL.
    pub password: Secret,
}

/// What comes of a message of the client's.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Send this; its answer is the next message.
    Challenge(Vec<u8>),
    /// Is that the password? Whatever is the answer, the exchange is over.
    Password(Credentials),
    /// Find out this user's keys, then call [`Exchange::keys_found`].
    Keys(String),
    /// The client has shown that it knows the password of this user.
    Proved(String),
    /// The client has shown that it does not know the password of this user, or somebody is between us.
    Disproved(String),
    /// This is no message of the mechanism.
    Malformed,
}

/// One exchange of a mechanism that is spoken here.
#[derive(Debug)]
pub struct Exchange {
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    LoginName,
    LoginPassword(String),
    ScramFirst {
        mechanism: Mechanism,
        bindings: Bindings,
        nonce: String,
    },
    ScramKeys(Box<First>, String),
    ScramFinal(Box<Waiting>),
    ScramDone(String),
    Over,
}

impl Exchange {
    /// Begins one; None for a mechanism whose messages somebody else has to judge. `bindings` are those
    /// of the TLS connection; `nonce` is printable ASCII without a comma, and never used twice.
    pub fn begin(mechanism: Mechanism, bindings: Bindings, nonce: String) -> Option<Exchange> {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => State::LoginName,
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => State::ScramFirst {
                mechanism,
                bindings,
                nonce,
            },
            Mechanism::OAuthBearer | Mechanism::XOAuth2 => return None,
        };
        Some(Exchange { state })
    }

    /// The client's next message; None where AUTH brought none with it.
    pub fn take(&mut self, message: Option<&[u8]>) -> Turn {
        match (std::mem::replace(&mut self.state, State::Over), message) {
            (state @ (State::Plain | State::ScramFirst { .. }), None) => {
                // RFC 4954 §4: an empty challenge, for the client speaks first.
                self.state = state;
                Turn::Challenge(Vec::new())
            }
            (State::LoginName, None) => {
                self.state = State::LoginName;
                Turn::Challenge(b"Username:".to_vec())
            }
            (State::Plain, Some(message)) => {
                plain::parse(message).map_or(Turn::Malformed, Turn::Password)
            }
            (State::LoginName, Some(name)) => match plain::text(name) {
                Some(name) => {
                    self.state = State::LoginPassword(name);
                    Turn::Challenge(b"Password:".to_vec())
                }
                None => Turn::Malformed,
            },
            (State::LoginPassword(name), Some(password)) => match plain::text(password) {
                Some(password) => Turn::Password(Credentials {
                    authorize_as: None,
                    name,
                    password: Secret::new(password),
                }),
                None => Turn::Malformed,
            },
            (
                State::ScramFirst {
                    mechanism,
                    bindings,
                    nonce,
                },
                Some(message),
            ) => match First::parse(message, mechanism, bindings) {
                Ok(first) => {
                    let user = first.user().to_owned();
                    self.state = State::ScramKeys(Box::new(first), nonce);
                    Turn::Keys(user)
                }
                Err(scram::Fault::Malformed) => Turn::Malformed,
                Err(scram::Fault::Disproved(user)) => Turn::Disproved(user),
            },
            (State::ScramFinal(waiting), Some(message)) => match waiting.finish(message) {
                Ok((user, proof)) => {
                    self.state = State::ScramDone(user);
                    Turn::Challenge(proof)
                }
                Err(scram::Fault::Malformed) => Turn::Malformed,
                Err(scram::Fault::Disproved(user)) => Turn::Disproved(user),
            },
            // SMTP has no room for our proof in the last reply, so it was a challenge (RFC 4422 §3.7).
            (State::ScramDone(user), Some([])) => Turn::Proved(user),
            (
                State::LoginPassword(_)
                | State::ScramKeys(..)
                | State::ScramFinal(_)
                | State::ScramDone(_)
                | State::Over,
                _,
            ) => Turn::Malformed,
        }
    }

    /// These are the keys of the user that [`Turn::Keys`] named, or keys that nobody has.
    pub fn keys_found(&mut self, keys: Keys) -> Turn {
        match std::mem::replace(&mut self.state, State::Over) {
            State::ScramKeys(first, nonce) => {
                let (challenge, waiting) = first.challenge(keys, &nonce);
                self.state = State::ScramFinal(Box::new(waiting));
                Turn::Challenge(challenge)
            }
            _ => Turn::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(mechanism: Mechanism) -> Exchange {
        Exchange::begin(mechanism, Bindings::default(), "nonce".to_owned()).unwrap()
    }

    #[test]
    fn name_and_password_come_together_or_one_by_one() {
        let want = |password: &str| {
            Turn::Password(Credentials {
                authorize_as: None,
                name: "tim".to_owned(),
                password: Secret::new(password),
            })
        };
        let mut plain = begin(Mechanism::Plain);
        assert_eq!(plain.take(None), Turn::Challenge(Vec::new()));
        assert_eq!(plain.take(Some(b"\0tim\0secret")), want("secret"));
        assert_eq!(plain.take(Some(b"\0tim\0secret")), Turn::Malformed);
        let mut login = begin(Mechanism::Login);
        assert_eq!(login.take(None), Turn::Challenge(b"Username:".to_vec()));
        assert_eq!(
            login.take(Some(b"tim")),
            Turn::Challenge(b"Password:".to_vec())
        );
        assert_eq!(login.take(Some(b"secret")), want("secret"));
        let mut login = begin(Mechanism::Login);
        assert_eq!(
            login.take(Some(b"tim")),
            Turn::Challenge(b"Password:".to_vec())
        );
        assert_eq!(login.take(Some(b"a\0b")), Turn::Malformed);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!(
            "{:?}",
            begin(Mechanism::Plain).take(Some(b"\0tim\0tanstaaf"))
        );
        assert!(
            shown.contains("tim") && !shown.contains("tanstaaf"),
            "{shown}"
        );
    }
}
