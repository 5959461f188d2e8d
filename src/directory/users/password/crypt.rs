//! What crypt(3) makes: SHA-crypt, `$5$` and `$6$`, and before it MD5-crypt, `$1$`, as PostfixAdmin did for long.
//!
//! A thousand rounds of MD5 are soon tried out. Read so that nobody has to choose a new password at once.

use std::str::FromStr;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use md5::Digest as _;
use md5::Md5;

use super::Error;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct ShaCrypt {
    function: Function,
    rounds: u32,
    salt: String,
    hash: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Sha256,
    Sha512,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Md5Crypt {
    salt: String,
    hash: String,
}

/// The digits of crypt(3), from 0 to 63.
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// More rounds would take a processor for seconds.
const MOST_ROUNDS: u32 = 10_000_000;

/// Which octets of MD5's digest make up each group of four digits.
const GROUPS: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];

impl FromStr for ShaCrypt {
    type Err = Error;

    fn from_str(text: &str) -> Result<ShaCrypt, Error> {
        let (function, length, rest) = match text.split_at_checked(3) {
            Some(("$5$", rest)) => (Function::Sha256, 43, rest),
            Some(("$6$", rest)) => (Function::Sha512, 86, rest),
            _ => return Err(Error::Malformed),
        };
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            Some(rest) => rest.split_once('$').ok_or(Error::Malformed)?,
            None => ("5000", rest),
        };
        let rounds: u32 = rounds.parse().map_err(|_| Error::Malformed)?;
        if rounds > MOST_ROUNDS {
            return Err(Error::TooDear);
        }
        sha_crypt::Params::new(rounds).map_err(|_| Error::Malformed)?;
        let (salt, hash) = rest.split_once('$').ok_or(Error::Malformed)?;
        if !is_hash(hash, length) {
            return Err(Error::Malformed);
        }
        Ok(ShaCrypt {
            function,
            rounds,
            salt: salt.to_owned(),
            hash: hash.to_owned(),
        })
    }
}

impl ShaCrypt {
    pub(super) fn scheme(&self) -> &'static str {
        match self.function {
            Function::Sha256 => "SHA256-CRYPT",
            Function::Sha512 => "SHA512-CRYPT",
        }
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let Ok(params) = sha_crypt::Params::new(self.rounds) else {
            return false;
        };
        let salt = self.salt.as_bytes();
        let mut digits = Digits::default();
        match self.function {
            Function::Sha256 => {
                let digest = sha_crypt::sha256_crypt(password, salt, params);
                for at in 0..10 {
                    let mut group = [at, at + 10, at + 20];
                    group.rotate_right(at % 3);
                    digits.push(group.map(|at| digest[at]), 4);
                }
                digits.push([0, digest[31], digest[30]], 3);
            }
            Function::Sha512 => {
                let digest = sha_crypt::sha512_crypt(password, salt, params);
                for at in 0..21 {
                    let mut group = [at, at + 21, at + 42];
                    group.rotate_left(at % 3);
                    digits.push(group.map(|at| digest[at]), 4);
                }
                digits.push([0, 0, digest[63]], 2);
            }
        }
        verify_slices_are_equal(digits.0.as_bytes(), self.hash.as_bytes()).is_ok()
    }
}

/// A hash as crypt(3) writes it.
#[derive(Default)]
struct Digits(String);

impl Digits {
    /// Three octets, the high one first, as so many digits, the low one first.
    fn push(&mut self, octets: [u8; 3], digits: u32) {
        let [high, middle, low] = octets.map(u32::from);
        let value = high << 16 | middle << 8 | low;
        for at in 0..digits {
            let digit = value >> (6 * at) & 63;
            self.0.push(char::from(DIGITS[digit as usize]));
        }
    }
}

fn is_hash(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|octet| DIGITS.contains(&octet))
}

impl FromStr for Md5Crypt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Md5Crypt, Error> {
        let rest = text.strip_prefix("$1$").ok_or(Error::Malformed)?;
        let (salt, hash) = rest.split_once('$').ok_or(Error::Malformed)?;
        if !is_hash(hash, 22) {
            return Err(Error::Malformed);
        }
        // crypt(3) takes eight characters of the salt.
        let salt = salt.char_indices().take_while(|(at, _)| *at < 8);
        Ok(Md5Crypt {
            salt: salt.map(|(_, char)| char).collect(),
            hash: hash.to_owned(),
        })
    }
}

impl Md5Crypt {
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let hash = hash(password, self.salt.as_bytes());
        verify_slices_are_equal(hash.as_bytes(), self.hash.as_bytes()).is_ok()
    }
}

fn hash(password: &[u8], salt: &[u8]) -> String {
    let inner = Md5::digest([password, salt, password].concat());
    let mut first = [password, b"$1$", salt].concat();
    first.extend(inner.iter().cycle().take(password.len()));
    let mut left = password.len();
    while left > 0 {
        let odd = if left & 1 == 1 { 0 } else { password[0] };
        first.push(odd);
        left >>= 1;
    }
    let mut digest = Md5::digest(&first);
    for round in 0..1000 {
        let (odd, digested) = (round & 1 == 1, digest.to_vec());
        let mut next = Vec::new();
        next.extend_from_slice(if odd { password } else { &digested });
        if round % 3 != 0 {
            next.extend_from_slice(salt);
        }
        if round % 7 != 0 {
            next.extend_from_slice(password);
        }
        next.extend_from_slice(if odd { &digested } else { password });
        digest = Md5::digest(&next);
    }
    let mut digits = Digits::default();
    for group in GROUPS {
        digits.push(group.map(|at| digest[at]), 4);
    }
    digits.push([0, 0, digest[11]], 2);
    digits.0
}
