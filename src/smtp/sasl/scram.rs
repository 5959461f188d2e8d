//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's half (RFC 5802, RFC 7677).
//!
//! The password is never sent, and who reads our keys cannot log in with them. With PLUS the exchange
//! is bound to the TLS connection that it is made on, so that nobody can sit between client and us.
//! Messages are ASCII but for the user's name; optional extensions are passed over, as are none that
//! must be understood (`m=`).

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::Mechanism;

/// How often the password is hashed in keys that we make (RFC 7677 §4 asks for 4096 at least).
pub const ITERATIONS: u32 = 4096;

/// The most that keys may ask for: it is the client that has to hash as often.
const MOST_ITERATIONS: u32 = 10_000_000;

/// What the server keeps of a password (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Keys {
    /// The keys of a password. Takes as long as `iterations` say; 0 is taken for 1.
    pub fn of(password: &[u8], salt: Vec<u8>, iterations: u32) -> Keys {
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        let derived = Derived::of(password, &salt, iterations);
        Keys {
            salt,
            iterations,
            stored_key: hash(&derived.client_key),
            server_key: derived.server_key,
        }
    }

    /// Keys that nobody has the password of, for a user whom there is not. `seed` is ours alone, so that
    /// the same name gets the same salt and nobody can tell.
    pub fn nobodys(seed: &[u8], name: &str, like: Option<&Keys>) -> Keys {
        let salt = hmac(seed, format!("salt {name}").as_bytes());
        let length = like.map_or(16, |keys| keys.salt.len()).clamp(1, 32);
        let iterations = like.map_or(ITERATIONS, |keys| keys.iterations.get());
        Keys {
            salt: salt[..length].to_vec(),
            iterations: NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN),
            stored_key: hmac(seed, format!("stored {name}").as_bytes()),
            server_key: hmac(seed, format!("server {name}").as_bytes()),
        }
    }

    /// Whether these are the keys of a password, in constant time but for the hashing.
    pub fn are_of(&self, password: &[u8]) -> bool {
        let other = Keys::of(password, self.salt.clone(), self.iterations.get());
        verify_slices_are_equal(&self.stored_key, &other.stored_key).is_ok()
    }
}

/// What both sides derive from a password (RFC 5802 §3). Only who knows it has the first.
pub(in crate::smtp) struct Derived {
    pub(in crate::smtp) client_key: [u8; 32],
    pub(in crate::smtp) server_key: [u8; 32],
}

impl Derived {
    /// Takes as long as `iterations` say.
    pub(in crate::smtp) fn of(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Derived {
        // RFC 5802 §2.2: a password beyond ASCII is written in several ways, and has one set of keys.
        let text = std::str::from_utf8(password).map(prepared);
        let password = text.as_ref().map_or(password, |text| text.as_bytes());
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            password,
            &mut salted,
        );
        Derived {
            client_key: hmac(&salted, b"Client Key"),
            server_key: hmac(&salted, b"Server Key"),
        }
    }
}

/// As Dovecot writes them: `iterations,salt,stored key,server key`, all but the first in base64.
impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |octets: &[u8]| BASE64_STANDARD.encode(octets);
        write!(
            f,
            "{},{},{},{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// These are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SCRAM keys are written as ITERATIONS,SALT,STORED,SERVER, the last three in base64")]
pub struct NotKeys;

impl FromStr for Keys {
    type Err = NotKeys;

    fn from_str(text: &str) -> Result<Keys, NotKeys> {
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| NotKeys);
        let key = |text: &str| <[u8; 32]>::try_from(decode(text)?).map_err(|_| NotKeys);
        let parts: Vec<&str> = text.split(',').collect();
        let [iterations, salt, stored_key, server_key] = parts[..] else {
            return Err(NotKeys);
        };
        let iterations: NonZeroU32 = iterations.parse().map_err(|_| NotKeys)?;
        let salt = decode(salt)?;
        if salt.is_empty() || salt.len() > 255 || iterations.get() > MOST_ITERATIONS {
            return Err(NotKeys);
        }
        Ok(Keys {
            salt,
            iterations,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

/// What binds an exchange to its TLS connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings {
    /// `tls-exporter` (RFC 9266 §4.2), of TLS 1.3.
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` (RFC 5929 §4.1): a hash of our certificate.
    pub end_point: Option<Vec<u8>>,
    /// Whether PLUS was offered, so that a client that says it was not has been lied to.
    pub offered: bool,
}

impl Bindings {
    /// Whether PLUS is worth offering. Before TLS 1.3 most clients know only a binding that we do not
    /// have (`tls-unique`), and would fail by PLUS where they would be in without.
    pub fn are_there(&self) -> bool {
        self.exporter.is_some()
    }

    fn of(&self, name: &str) -> Option<&[u8]> {
        match name {
            "tls-exporter" => self.exporter.as_deref(),
            "tls-server-end-point" => self.end_point.as_deref(),
            _ => None,
        }
    }
}

/// Why an exchange goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Not a message of SCRAM.
    Malformed,
    /// The password of this user is not known to the client, or somebody is between it and us.
    Disproved(String),
}

/// The client's first message.
#[derive(Debug)]
pub(super) struct First {
    user: String,
    /// The header with the data of the binding, as the last message has to repeat it.
    bound: Vec<u8>,
    nonce: String,
    bare: String,
}

impl First {
    /// RFC 5802 §7: `gs2-header client-first-message-bare`.
    pub(super) fn parse(
        message: &[u8],
        mechanism: Mechanism,
        bindings: Bindings,
    ) -> Result<First, Fault> {
        let (flag, authorize_as, bare, header) = split(message).ok_or(Fault::Malformed)?;
        let (user, nonce) = names(bare).ok_or(Fault::Malformed)?;
        if authorize_as.is_some_and(|other| other != user) {
            return Err(Fault::Disproved(user));
        }
        let mut bound = header.as_bytes().to_vec();
        match (flag, mechanism) {
            // RFC 5802 §6: the client would have bound the exchange, had it seen our offer.
            ("y", Mechanism::ScramSha256) if bindings.offered => {
                return Err(Fault::Disproved(user));
            }
            ("n" | "y", Mechanism::ScramSha256) => {}
            (flag, Mechanism::ScramSha256Plus) => {
                let name = flag.strip_prefix("p=").ok_or(Fault::Malformed)?;
                bound.extend_from_slice(bindings.of(name).ok_or(Fault::Malformed)?);
            }
            _ => return Err(Fault::Malformed),
        }
        Ok(First {
            user,
            bound,
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
        })
    }

    /// Whom a first message names, whatever else is in it.
    pub(super) fn claimed_user(message: &[u8]) -> Option<String> {
        let (_, _, bare, _) = split(message)?;
        names(bare).map(|(user, _)| user)
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The server's first message, and what waits for the answer to it.
    pub(super) fn challenge(self, keys: Keys, nonce: &str) -> (Vec<u8>, Waiting) {
        let nonce = format!("{}{nonce}", self.nonce);
        let salt = BASE64_STANDARD.encode(&keys.salt);
        let challenge = format!("r={nonce},s={salt},i={}", keys.iterations);
        let waiting = Waiting {
            said: format!("{},{challenge}", self.bare),
            user: self.user,
            bound: self.bound,
            nonce,
            keys,
        };
        (challenge.into_bytes(), waiting)
    }
}

/// The server between its first message and the client's last.
#[derive(Debug)]
pub(super) struct Waiting {
    user: String,
    bound: Vec<u8>,
    nonce: String,
    keys: Keys,
    /// What was said so far, as both sides sign it.
    said: String,
}

impl Waiting {
    /// RFC 5802 §3: whether the client knows the password; our proof that we know its keys.
    pub(super) fn finish(self, message: &[u8]) -> Result<(String, Vec<u8>), Fault> {
        let text = std::str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        let (unproved, proof) = text.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let proof = BASE64_STANDARD.decode(proof).ok();
        let proof: [u8; 32] = proof
            .and_then(|proof| proof.try_into().ok())
            .ok_or(Fault::Malformed)?;
        let mut parts = unproved.split(',');
        let (Some(bound), Some(nonce)) = (
            parts.next().and_then(|part| part.strip_prefix("c=")),
            parts.next().and_then(|part| part.strip_prefix("r=")),
        ) else {
            return Err(Fault::Malformed);
        };
        let bound = BASE64_STANDARD
            .decode(bound)
            .map_err(|_| Fault::Malformed)?;
        if nonce != self.nonce {
            return Err(Fault::Malformed);
        }
        let said = format!("{},{unproved}", self.said);
        let client_key = exclusive_or(proof, hmac(&self.keys.stored_key, said.as_bytes()));
        let is_proved = verify_slices_are_equal(&hash(&client_key), &self.keys.stored_key).is_ok();
        let is_bound = verify_slices_are_equal(&bound, &self.bound).is_ok();
        if !is_proved || !is_bound {
            return Err(Fault::Disproved(self.user));
        }
        let signature = hmac(&self.keys.server_key, said.as_bytes());
        let proof = format!("v={}", BASE64_STANDARD.encode(signature));
        Ok((self.user, proof.into_bytes()))
    }
}

/// The flag of the binding, the authorization identity, the bare message, and the header before it.
fn split(message: &[u8]) -> Option<(&str, Option<String>, &str, &str)> {
    let text = std::str::from_utf8(message).ok()?;
    let (flag, rest) = text.split_once(',')?;
    let (authorize_as, bare) = rest.split_once(',')?;
    let authorize_as = match authorize_as {
        "" => None,
        other => Some(name(other.strip_prefix("a=")?)?),
    };
    let header = &text[..text.len() - bare.len()];
    Some((flag, authorize_as, bare, header))
}

/// The user and the nonce of a bare message.
fn names(bare: &str) -> Option<(String, &str)> {
    let mut parts = bare.split(',');
    let user = name(parts.next()?.strip_prefix("n=")?)?;
    let nonce = parts.next()?.strip_prefix("r=")?;
    let is_right = (1..=256).contains(&nonce.len()) && nonce.bytes().all(|b| b.is_ascii_graphic());
    is_right.then_some((user, nonce))
}

/// RFC 5802 §5.1: a comma is written `=2C` and an equals sign `=3D`, and nothing else so.
fn name(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (char, rest) = match part.get(..2)? {
            "2C" => (',', &part[2..]),
            "3D" => ('=', &part[2..]),
            _ => return None,
        };
        name.push(char);
        name.push_str(rest);
    }
    let is_right = (1..=1024).contains(&name.len()) && !name.contains('\0');
    is_right.then_some(name)
}

/// A name or password as RFC 4013 (SASLprep) has it. What that does not allow stays as it is, as most send it.
pub(in crate::smtp) fn prepared(text: &str) -> Cow<'_, str> {
    stringprep::saslprep(text).unwrap_or(Cow::Borrowed(text))
}

/// A key hidden by a signature, and the key again: RFC 5802 §3 makes and reads the proof by it.
pub(in crate::smtp) fn exclusive_or(mut one: [u8; 32], other: [u8; 32]) -> [u8; 32] {
    one.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
    one
}

pub(in crate::smtp) fn hash(octets: &[u8]) -> [u8; 32] {
    fixed(digest::digest(&digest::SHA256, octets).as_ref())
}

pub(in crate::smtp) fn hmac(key: &[u8], octets: &[u8]) -> [u8; 32] {
    fixed(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), octets).as_ref())
}

/// SHA-256 gives 32 octets.
fn fixed(octets: &[u8]) -> [u8; 32] {
    let mut fixed = [0; 32];
    fixed.copy_from_slice(octets);
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;

    // The exchange of RFC 7677 §3.
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const PROOF: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn keys() -> Keys {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Keys::of(b"pencil", salt, 4096)
    }

    fn waiting(first: &[u8], mechanism: Mechanism, bindings: Bindings) -> Result<Waiting, Fault> {
        let first = First::parse(first, mechanism, bindings)?;
        Ok(first.challenge(keys(), NONCE).1)
    }

    /// The client's last message, for what the server has said and the data of its binding.
    fn answer(waiting: &Waiting, bound: &[u8]) -> String {
        let bound = BASE64_STANDARD.encode(bound);
        let unproved = format!("c={bound},r={}", waiting.nonce);
        let said = format!("{},{unproved}", waiting.said);
        let mut salted = [0; 32];
        let keys = keys();
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            keys.iterations,
            &keys.salt,
            b"pencil",
            &mut salted,
        );
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&keys.stored_key, said.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        format!("{unproved},p={}", BASE64_STANDARD.encode(proof))
    }

    #[test]
    fn the_exchange_of_rfc_7677_comes_out_as_printed() {
        let first = First::parse(FIRST, Mechanism::ScramSha256, Bindings::default()).unwrap();
        let (challenge, waiting) = first.challenge(keys(), NONCE);
        assert_eq!(String::from_utf8(challenge).unwrap(), CHALLENGE);
        assert_eq!(answer(&waiting, b"n,,"), FINAL);
        let (user, proof) = waiting.finish(FINAL.as_bytes()).unwrap();
        assert_eq!(
            (user.as_str(), proof.as_slice()),
            ("user", PROOF.as_bytes())
        );
    }

    #[test]
    fn a_wrong_proof_or_another_nonce_is_refused() {
        let begin = || waiting(FIRST, Mechanism::ScramSha256, Bindings::default()).unwrap();
        let wrong = FINAL.replace("dHzb", "dHzc");
        assert_eq!(
            begin().finish(wrong.as_bytes()),
            Err(Fault::Disproved("user".to_owned()))
        );
        for message in [
            FINAL.replace("NEkqO", "NEkqP"),
            "c=biws".to_owned(),
            "\u{fc}".to_owned(),
        ] {
            assert_eq!(
                begin().finish(message.as_bytes()),
                Err(Fault::Malformed),
                "{message}"
            );
        }
    }

    #[test]
    fn an_exchange_bound_to_another_connection_is_refused() {
        let bindings = Bindings {
            exporter: Some(b"ours".to_vec()),
            end_point: Some(b"certificate".to_vec()),
            offered: true,
        };
        for (name, bound) in [
            ("tls-exporter", "ours"),
            ("tls-server-end-point", "certificate"),
        ] {
            let header = format!("p={name},,");
            let first = format!("{header}n=user,r=rOprNGfwEbeRWgbNEkqO");
            let plus = Mechanism::ScramSha256Plus;
            let begin = || waiting(first.as_bytes(), plus, bindings.clone()).unwrap();
            let right = answer(&begin(), format!("{header}{bound}").as_bytes());
            assert!(begin().finish(right.as_bytes()).is_ok(), "{name}");
            let wrong = answer(&begin(), format!("{header}theirs").as_bytes());
            let refused = begin().finish(wrong.as_bytes());
            assert!(matches!(refused, Err(Fault::Disproved(_))), "{name}");
        }
    }

    #[test]
    fn the_flag_has_to_fit_the_mechanism_and_what_was_offered() {
        let bound = |offered| Bindings {
            exporter: Some(b"ours".to_vec()),
            end_point: None,
            offered,
        };
        let (scram, plus) = (Mechanism::ScramSha256, Mechanism::ScramSha256Plus);
        let disproved = || Err(Fault::Disproved("u".to_owned()));
        for (first, mechanism, offered, want) in [
            ("n,,n=u,r=x", scram, true, Ok(())),
            ("y,,n=u,r=x", scram, false, Ok(())),
            ("y,,n=u,r=x", scram, true, disproved()),
            (
                "p=tls-exporter,,n=u,r=x",
                scram,
                true,
                Err(Fault::Malformed),
            ),
            ("p=tls-exporter,,n=u,r=x", plus, true, Ok(())),
            ("p=tls-unique,,n=u,r=x", plus, true, Err(Fault::Malformed)),
            ("n,,n=u,r=x", plus, true, Err(Fault::Malformed)),
            ("n,a=u,n=u,r=x", scram, true, Ok(())),
            ("n,a=v,n=u,r=x", scram, true, disproved()),
            ("n,,m=1,n=u,r=x", scram, true, Err(Fault::Malformed)),
            ("n,,n=u", scram, true, Err(Fault::Malformed)),
            ("n,,n=,r=x", scram, true, Err(Fault::Malformed)),
            ("n,,n=a=2Db,r=x", scram, true, Err(Fault::Malformed)),
        ] {
            let got = First::parse(first.as_bytes(), mechanism, bound(offered)).map(|_| ());
            assert_eq!(got, want, "{first} by {mechanism}, offered: {offered}");
        }
        let first = First::parse(b"n,,n=a=2Cb=3Dc,r=x", scram, bound(true)).unwrap();
        assert_eq!(first.user(), "a,b=c");
    }

    #[test]
    fn keys_are_written_as_dovecot_writes_them_and_read_again() {
        let text = keys().to_string();
        assert!(text.starts_with("4096,W22ZaJ0SNY7soEsUEjb6gQ==,"), "{text}");
        let read: Keys = text.parse().unwrap();
        assert!(read == keys() && read.are_of(b"pencil") && !read.are_of(b"pen"));
        for wrong in ["", "4096,AA==", "0,AA==,AA==,AA==", "4096,AA==,AA==,AA=="] {
            assert!(wrong.parse::<Keys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_has_the_same_keys_however_its_letters_are_put_together() {
        let keys = |password: &str| Keys::of(password.as_bytes(), b"salt".to_vec(), 1);
        assert!(keys("Gru\u{308}\u{df}e") == keys("Gr\u{fc}\u{df}e"));
        assert!(keys("Gr\u{fc}\u{df}e") != keys("Grusse"));
    }

    #[test]
    fn a_user_whom_there_is_not_has_the_same_salt_each_time() {
        let nobodys = |name| Keys::nobodys(b"ours", name, None);
        assert!(nobodys("a") == nobodys("a") && nobodys("a") != nobodys("b"));
    }
}
