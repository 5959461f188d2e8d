//! A digest of the password, with or without a salt behind it: `{SSHA256}`, `{SHA512.HEX}` and their like.
//!
//! Fast to try out for whoever steals the file; read so that nobody has to choose a new password at once.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::Digest as _;
use md5::Md5;

use super::Error;

/// The digest, and the salt.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Digest {
    algorithm: Algorithm,
    digest: Vec<u8>,
    salt: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

/// Longest salt that is taken, in octets.
const LONGEST_SALT: usize = 64;

impl Digest {
    /// Reads what stands behind `{NAME}`. Without `.HEX` or `.B64` it is hexadecimal where it is as long
    /// as that would be, and base64 otherwise.
    pub(super) fn parse(name: &str, hash: &str) -> Result<Digest, Error> {
        let (name, encoding) = match name.split_once('.') {
            Some((name, encoding)) => (name, Some(encoding)),
            None => (name, None),
        };
        let (algorithm, is_salted) = match name {
            "SSHA512" => (Algorithm::Sha512, true),
            "SSHA256" => (Algorithm::Sha256, true),
            "SSHA" => (Algorithm::Sha1, true),
            "SMD5" => (Algorithm::Md5, true),
            "SHA512" => (Algorithm::Sha512, false),
            "SHA256" => (Algorithm::Sha256, false),
            "SHA" | "SHA1" => (Algorithm::Sha1, false),
            "PLAIN-MD5" | "LDAP-MD5" => (Algorithm::Md5, false),
            _ => return Err(Error::UnknownScheme),
        };
        let length = algorithm.length();
        let octets = match encoding {
            Some("HEX") => from_hex(hash),
            Some("B64" | "BASE64") => BASE64_STANDARD.decode(hash).ok(),
            Some(_) => return Err(Error::UnknownScheme),
            None if !is_salted && hash.len() == 2 * length => from_hex(hash),
            None => BASE64_STANDARD.decode(hash).ok(),
        };
        let mut octets = octets.ok_or(Error::Malformed)?;
        if octets.len() < length || octets.len() > length + LONGEST_SALT {
            return Err(Error::Malformed);
        }
        let salt = octets.split_off(length);
        if salt.is_empty() == is_salted {
            return Err(Error::Malformed);
        }
        Ok(Digest {
            algorithm,
            digest: octets,
            salt,
        })
    }

    pub(super) fn scheme(&self) -> &'static str {
        match (self.algorithm, self.salt.is_empty()) {
            (Algorithm::Md5, true) => "PLAIN-MD5",
            (Algorithm::Md5, false) => "SMD5",
            (Algorithm::Sha1, true) => "SHA1",
            (Algorithm::Sha1, false) => "SSHA",
            (Algorithm::Sha256, true) => "SHA256",
            (Algorithm::Sha256, false) => "SSHA256",
            (Algorithm::Sha512, true) => "SHA512",
            (Algorithm::Sha512, false) => "SSHA512",
        }
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let salted = [password, &self.salt].concat();
        let digest = self.algorithm.digest(&salted);
        verify_slices_are_equal(&digest, &self.digest).is_ok()
    }
}

impl Algorithm {
    fn length(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }

    fn digest(self, octets: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Algorithm::Md5 => return Md5::digest(octets).to_vec(),
            Algorithm::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => &digest::SHA256,
            Algorithm::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, octets).as_ref().to_vec()
    }
}

/// Pairs of hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
