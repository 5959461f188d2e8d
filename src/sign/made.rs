//! New keys, in PEM.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::sign::Algorithm;
use crate::sign::Error;

/// RFC 7468 §2
const LINE: usize = 64;

/// A new private key as the text of a PEM file (PKCS #8). `bits` is 2048, 3072, 4096 or 8192 for RSA,
/// and plays no part for Ed25519. RSA takes a moment.
pub fn make(algorithm: Algorithm, bits: usize) -> Result<String, Error> {
    let made = match algorithm {
        Algorithm::Rsa => rsa(size(bits)?),
        // The first version of PKCS #8 is the one that all programs read.
        Algorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new())
            .map(|document| document.as_ref().to_vec()),
    };
    let der = made.map_err(|_| Error::Key("no key could be made".to_owned()))?;
    Ok(pem(&der))
}

fn rsa(size: KeySize) -> Result<Vec<u8>, Unspecified> {
    let document: Pkcs8V1Der<'static> = KeyPair::generate(size)?.as_der()?;
    Ok(document.as_ref().to_vec())
}

fn size(bits: usize) -> Result<KeySize, Error> {
    match bits {
        2048 => Ok(KeySize::Rsa2048),
        3072 => Ok(KeySize::Rsa3072),
        4096 => Ok(KeySize::Rsa4096),
        8192 => Ok(KeySize::Rsa8192),
        _ => Err(Error::Key(format!(
            "RSA keys have 2048, 3072, 4096 or 8192 bits, not {bits}"
        ))),
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(LINE.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Domain;
    use crate::sign::Signer;

    #[test]
    fn a_made_key_can_be_read() {
        let domain = Domain::parse("example.com").unwrap();
        for (algorithm, bits) in [(Algorithm::Rsa, 2048), (Algorithm::Ed25519, 256)] {
            let pem = make(algorithm, bits).unwrap();
            assert!(pem.lines().all(|line| line.len() <= LINE));
            let signer = Signer::from_pem(&pem, &domain, "s1").unwrap();
            assert_eq!((signer.algorithm(), signer.bits()), (algorithm, bits));
        }
        assert!(matches!(make(Algorithm::Rsa, 1024), Err(Error::Key(_))));
    }
}
