//! Passwords as they are stored: `{SCHEME}...`, as Dovecot and others write them, read and verified.
//!
//! New ones are made with Argon2id. What is read beside that is what systems hold that people come from;
//! passwords in the clear are not taken. Comparing takes the same time wherever two hashes differ.

mod crypt;
mod digests;
mod pbkdf2;

use std::fmt;
use std::str::FromStr;

use argon2::Argon2;
use argon2::PasswordHasher;
use argon2::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;

use crate::smtp::sasl::scram;

use self::digests::Digest;
use self::pbkdf2::Pbkdf2;

/// The longest password that is hashed, in octets. No scheme gains by more, and some lose time.
const LONGEST: usize = 1024;

/// The most memory that a hash may want to be verified, in KiB: 1 GiB.
const MOST_MEMORY: u32 = 1 << 20;

/// The most that bcrypt may cost, which is some seconds.
const MOST_COST: u32 = 16;

/// A stored password.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    text: String,
    scheme: Scheme,
}

#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Argon2(String),
    Bcrypt(String),
    ShaCrypt(crypt::ShaCrypt),
    Md5Crypt(crypt::Md5Crypt),
    Pbkdf2(Pbkdf2),
    Digest(Digest),
    Scram(scram::Keys),
}

/// A text that is no stored password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text neither has a `{SCHEME}` nor begins like a hash.
    #[error("no scheme is named; a password is stored as {{SCHEME}}HASH")]
    NoScheme,
    /// The scheme is none that is read here.
    #[error(
        "the scheme is not known here; these are: ARGON2ID, ARGON2I, BLF-CRYPT, SHA512-CRYPT, \
         SHA256-CRYPT, MD5-CRYPT, CRYPT, PBKDF2, SCRAM-SHA-256, SSHA512, SSHA256, SSHA, SMD5, SHA512, \
         SHA256, SHA1, PLAIN-MD5"
    )]
    UnknownScheme,
    /// What follows the scheme is not written as the scheme has it.
    #[error("the hash is not written as its scheme has it")]
    Malformed,
    /// To verify it would take more memory or time than one login may.
    #[error("the hash costs more memory or time than one login may")]
    TooDear,
    /// The library could not make a hash.
    #[error("no hash could be made")]
    NotMade,
}

impl Password {
    /// Hashes a new password with Argon2id: 19 MiB, two passes. Takes some ten milliseconds.
    pub fn make(password: &[u8]) -> Result<Password, Error> {
        let hash = Argon2::default().hash_password(password);
        let hash = hash.map_err(|_| Error::NotMade)?;
        format!("{{ARGON2ID}}{hash}").parse()
    }

    /// Whether this is the password. Takes as long as the scheme says, so not for the runtime's threads.
    pub fn verify(&self, password: &[u8]) -> bool {
        if password.len() > LONGEST {
            return false;
        }
        match &self.scheme {
            Scheme::Argon2(hash) => Argon2::default()
                .verify_password(password, hash.as_str())
                .is_ok(),
            Scheme::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Scheme::ShaCrypt(hash) => hash.verify(password),
            Scheme::Md5Crypt(hash) => hash.verify(password),
            Scheme::Pbkdf2(hash) => hash.verify(password),
            Scheme::Digest(hash) => hash.verify(password),
            Scheme::Scram(keys) => keys.are_of(password),
        }
    }

    /// The keys for SCRAM, where the scheme has them.
    pub fn scram(&self) -> Option<&scram::Keys> {
        match &self.scheme {
            Scheme::Scram(keys) => Some(keys),
            _ => None,
        }
    }

    /// The name of its scheme, as Dovecot has it.
    pub fn scheme(&self) -> &'static str {
        match &self.scheme {
            Scheme::Argon2(hash) if hash.starts_with("$argon2id") => "ARGON2ID",
            Scheme::Argon2(_) => "ARGON2I",
            Scheme::Bcrypt(_) => "BLF-CRYPT",
            Scheme::ShaCrypt(hash) => hash.scheme(),
            Scheme::Md5Crypt(_) => "MD5-CRYPT",
            Scheme::Pbkdf2(_) => "PBKDF2",
            Scheme::Digest(digest) => digest.scheme(),
            Scheme::Scram(_) => "SCRAM-SHA-256",
        }
    }

    /// As it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Password {
    type Err = Error;

    fn from_str(text: &str) -> Result<Password, Error> {
        let (name, hash) = match text.strip_prefix('{') {
            Some(rest) => rest.split_once('}').ok_or(Error::NoScheme)?,
            None if text.starts_with('$') => ("CRYPT", text),
            None => return Err(Error::NoScheme),
        };
        Ok(Password {
            text: text.to_owned(),
            scheme: scheme(&name.to_ascii_uppercase(), hash)?,
        })
    }
}

/// A hash is nothing for a log.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

fn scheme(name: &str, hash: &str) -> Result<Scheme, Error> {
    match name {
        "CRYPT" => match hash {
            hash if hash.starts_with("$argon2") => argon2(hash),
            hash if hash.starts_with("$2") => bcrypt(hash),
            hash if hash.starts_with("$5$") || hash.starts_with("$6$") => {
                Ok(Scheme::ShaCrypt(hash.parse()?))
            }
            hash if hash.starts_with("$1$") => Ok(Scheme::Md5Crypt(hash.parse()?)),
            hash if hash.starts_with("$pbkdf2") => Ok(Scheme::Pbkdf2(hash.parse()?)),
            _ => Err(Error::UnknownScheme),
        },
        "ARGON2ID" | "ARGON2I" | "ARGON2" => argon2(hash),
        "BLF-CRYPT" | "BCRYPT" => bcrypt(hash),
        "SHA256-CRYPT" | "SHA512-CRYPT" => Ok(Scheme::ShaCrypt(hash.parse()?)),
        "MD5-CRYPT" | "MD5" => Ok(Scheme::Md5Crypt(hash.parse()?)),
        "PBKDF2" | "PBKDF2-SHA1" | "PBKDF2-SHA256" | "PBKDF2-SHA512" => {
            Ok(Scheme::Pbkdf2(hash.parse()?))
        }
        "SCRAM-SHA-256" => Ok(Scheme::Scram(hash.parse().map_err(|_| Error::Malformed)?)),
        name => Ok(Scheme::Digest(Digest::parse(name, hash)?)),
    }
}

fn argon2(hash: &str) -> Result<Scheme, Error> {
    let parsed = PasswordHash::new(hash).map_err(|_| Error::Malformed)?;
    let is_argon2 = ["argon2id", "argon2i", "argon2d"].contains(&parsed.algorithm.as_str());
    if !is_argon2 || parsed.hash.is_none() || parsed.salt.is_none() {
        return Err(Error::Malformed);
    }
    let params = argon2::Params::try_from(&parsed).map_err(|_| Error::Malformed)?;
    if params.m_cost() > MOST_MEMORY || params.t_cost() > 100 {
        return Err(Error::TooDear);
    }
    Ok(Scheme::Argon2(hash.to_owned()))
}

fn bcrypt(hash: &str) -> Result<Scheme, Error> {
    let parts: bcrypt::HashParts = hash.parse().map_err(|_| Error::Malformed)?;
    if parts.get_cost() > MOST_COST {
        return Err(Error::TooDear);
    }
    Ok(Scheme::Bcrypt(hash.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by `doveadm pw`.
    const STORED: &[&str] = &[
        "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$nN1M02DFtCLFH+t1fqFAqg$0iz5MEaMsd8ainG9HOQeP9lCDxoXeV35SZY8193E6Jo",
        "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$LcgcLllfSQ0GtetvQe8eAA$+sHNR87cUSiwUmnzr1pKXA2tSEOhIG3+X/rAg/iSB5s",
        "{BLF-CRYPT}$2y$05$DOGnmBAJs4znZiYDVLgDz.K/DLwUlTRsvLz4mVP5Bookd2fs2HXf.",
        "{SHA256-CRYPT}$5$u6y/PehI928ZoDHg$Ed/HBBKDdeZg9Wf6BPgOeIoWz.zZ./HoLbyFAd7VWb1",
        "{SHA512-CRYPT}$6$NKR7oCodMhTmmFEW$Wz9eBqZSTHlHojqgYZcPdACRxdzIGPkt8IxqbUK/YXeuWs6A22zglxQ0lCb3TYDyqotbXlqXYQ2hTqPqhePEG.",
        "{MD5-CRYPT}$1$3FuFs5Dz$tMO2BG64Vuquefi/s9cyk.",
        "{PBKDF2}$1$v34dsEyvzc8i7Bue$5000$9f5c80f7a00bcfdb2433d88401a80a5753b4951b",
        "{SSHA}gxHBdS6lviRm7tFK2/ksfP64XsF9G+uh",
        "{SSHA256}8qjNG5MPbIFHXq6DA9ciQ4zkvQWhAw6Z1a9PCIB4J9p+JVx6",
        "{SSHA512}xxWA8LeLcqCfCMaUNsQoBhBNAOBpGD8rAlS9CpjN1NH1ifmyKwiGq8VsP8x03b0FejoCnP6aVObWT+EgzVrKZVqHcdE=",
        "{SMD5}LISryUSAkr/PiK0mRdiBEfYggjE=",
        "{SHA}HuBr0dbbiKEV0LCm4RYYIaf29J0=",
        "{SHA1}HuBr0dbbiKEV0LCm4RYYIaf29J0=",
        "{SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=",
        "{SHA512}MGeWgHmV9IMgkaYRUav7v2kRBWuhgmTTs5KKBQSeUWcXUYFqibTlbSZr2y+buYuH9LpIPtTVXWUsiVSEE8BSiw==",
        "{SHA512.HEX}306796807995f4832091a61151abfbbf6911056ba18264d3b3928a05049e51671751816a89b4e56d266bdb2f9bb98b87f4ba483ed4d55d652c89548413c0528b",
        "{SSHA256.HEX}b3b7d4e4133777fc2ff9e2b201907d32dfcd9ad7d6d5c6a9be1cb5ce3c2056b26c51e3c8",
        "{SHA256.b64}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=",
        "{PLAIN-MD5}ddc037ad51193028024e43dc7e3237e0",
        "{LDAP-MD5}3cA3rVEZMCgCTkPcfjI34A==",
        "{SCRAM-SHA-256}4096,kgYg2h7EbbQ1knMdow8TOg==,Ly1l5k70HFLNOoB+SMuXx8dI9f6TRGxfoGd9HnetF2g=,/NnO1X4yzQhcHqeKUriJmd2/z5n5bRXAMKqVhmtzRxc=",
        "{CRYPT}$2y$05$ficYh.y2TFzt3SJ3Ds804efFXMhegeBbPVfauSxSPU4liQLIZ4YNO",
        "$6$NKR7oCodMhTmmFEW$Wz9eBqZSTHlHojqgYZcPdACRxdzIGPkt8IxqbUK/YXeuWs6A22zglxQ0lCb3TYDyqotbXlqXYQ2hTqPqhePEG.",
    ];

    #[test]
    fn what_dovecot_has_stored_is_verified() {
        for text in STORED {
            let stored: Password = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(stored.verify(b"tanstaaftanstaaf"), "{text}");
            for wrong in [&b""[..], b"tanstaaftanstaa", b"tanstaaftanstaaf "] {
                assert!(!stored.verify(wrong), "{text}: {}", wrong.escape_ascii());
            }
        }
    }

    #[test]
    fn known_answers_of_others_come_out() {
        for (text, password) in [
            // The specification of SHA-crypt.
            (
                "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
                "Hello world!",
            ),
            (
                "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
                "Hello world!",
            ),
            // Made by OpenSSL.
            ("$1$saltsalt$le8lFSqqnPaRFOlmAZpvH1", "Hello world!"),
            // RFC 6070 §2
            (
                "{PBKDF2}$1$salt$4096$4b007901b765489abead49d926f721d065a429c1",
                "password",
            ),
            // As passlib writes it, and as a PHC string.
            (
                "{PBKDF2-SHA256}$pbkdf2-sha256$1000$c2FsdHNhbHQ$ysE87Nl1b58vSQoBNKAIw5js4iaO4NhK9dyRStHZZ94",
                "tanstaaftanstaaf",
            ),
            (
                "$pbkdf2-sha512$i=1000,l=64$c2FsdHNhbHQ$CnVsAp+1WfoOO+quoEexKpS3JUmiWAh7hvNgfu97VMqZmda2rAQZcmz01VpSuhnoWfLgdWs3+NEHbZZ5nl4y2g",
                "tanstaaftanstaaf",
            ),
        ] {
            let stored: Password = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(stored.verify(password.as_bytes()), "{text}");
            assert!(!stored.verify(b"another"), "{text}");
        }
    }

    #[test]
    fn a_password_is_hashed_with_argon2id() {
        let made = Password::make("Grüße".as_bytes()).unwrap();
        assert!(
            made.as_str()
                .starts_with("{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$")
        );
        assert!(made.verify("Grüße".as_bytes()) && !made.verify(b"Gruesse"));
    }

    #[test]
    fn what_is_no_stored_password_or_too_dear_says_so() {
        for (text, want) in [
            ("secret", Error::NoScheme),
            ("{PLAIN}secret", Error::UnknownScheme),
            ("{SSHA}AAAA", Error::Malformed),
            ("{SSHA}HuBr0dbbiKEV0LCm4RYYIaf29J0=", Error::Malformed),
            (
                "{SHA.ROT13}HuBr0dbbiKEV0LCm4RYYIaf29J0=",
                Error::UnknownScheme,
            ),
            (
                "{BLF-CRYPT}$2y$20$DOGnmBAJs4znZiYDVLgDz.K/DLwUlTRsvLz4mVP5Bookd2fs2HXf.",
                Error::TooDear,
            ),
            (
                "{PBKDF2}$1$salt$4294967295$4b007901b765489abead49d926f721d065a429c1",
                Error::TooDear,
            ),
            ("{PBKDF2}$1$salt$4096$4b00", Error::Malformed),
            (
                "{ARGON2ID}$argon2id$v=19$m=4194304,t=3,p=1$nN1M02DFtCLFH+t1fqFAqg$0iz5MEaMsd8ainG9HOQeP9lCDxoXeV35SZY8193E6Jo",
                Error::TooDear,
            ),
            ("{ARGON2ID}", Error::Malformed),
            ("$6$rounds=99999999$salt$x", Error::TooDear),
            ("$6$salt$x", Error::Malformed),
            ("$1$salt$short", Error::Malformed),
            ("{SCRAM-SHA-256}1,2", Error::Malformed),
        ] {
            assert_eq!(text.parse::<Password>().err(), Some(want), "{text}");
        }
    }
}
