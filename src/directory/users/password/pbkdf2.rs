//! PBKDF2 (RFC 8018 §5.2), as Dovecot writes it, and as passlib and the PHC strings do.

use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurpose;
use base64::engine::GeneralPurposeConfig;

use super::Error;
use super::digests::from_hex;

/// More rounds would take a processor for a minute.
const MOST_ROUNDS: u32 = 50_000_000;

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pbkdf2 {
    function: Function,
    rounds: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Sha1,
    Sha256,
    Sha512,
}

impl Pbkdf2 {
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let algorithm = match self.function {
            Function::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Function::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Function::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        pbkdf2::verify(algorithm, self.rounds, &self.salt, password, &self.hash).is_ok()
    }
}

impl FromStr for Pbkdf2 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Pbkdf2, Error> {
        let parts: Vec<&str> = text.split('$').collect();
        let ["", name, rounds, salt, hash] = parts[..] else {
            return Err(Error::Malformed);
        };
        // Dovecot: $1$SALT$ROUNDS$HEX, where the salt is text.
        if name == "1" {
            let (salt, rounds) = (rounds, salt);
            let hash = from_hex(hash).ok_or(Error::Malformed)?;
            return checked(Function::Sha1, rounds, salt.as_bytes().to_vec(), hash);
        }
        let function = match name {
            "pbkdf2" | "pbkdf2-sha1" => Function::Sha1,
            "pbkdf2-sha256" => Function::Sha256,
            "pbkdf2-sha512" => Function::Sha512,
            _ => return Err(Error::UnknownScheme),
        };
        // PHC: i=ROUNDS,l=LENGTH.
        let rounds = rounds.split(',').next().unwrap_or_default();
        let rounds = rounds.strip_prefix("i=").unwrap_or(rounds);
        checked(function, rounds, decode(salt)?, decode(hash)?)
    }
}

fn checked(
    function: Function,
    rounds: &str,
    salt: Vec<u8>,
    hash: Vec<u8>,
) -> Result<Pbkdf2, Error> {
    let rounds: NonZeroU32 = rounds.parse().map_err(|_| Error::Malformed)?;
    if rounds.get() > MOST_ROUNDS {
        return Err(Error::TooDear);
    }
    // A short hash would let in whoever guesses it.
    if !(16..=128).contains(&hash.len()) || salt.len() > 1024 {
        return Err(Error::Malformed);
    }
    Ok(Pbkdf2 {
        function,
        rounds,
        salt,
        hash,
    })
}

/// Base64 with or without its end, `.` for `+` where passlib wrote it.
fn decode(text: &str) -> Result<Vec<u8>, Error> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, config);
    engine
        .decode(text.replace('.', "+"))
        .map_err(|_| Error::Malformed)
}
