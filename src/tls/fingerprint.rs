//! A SHA-256 that a certificate or a public key is known by, as it is written in the configuration.

use std::fmt;

use serde::Deserialize;

/// 64 hexadecimal digits, in whatever case, with colons between pairs or without, with `sha256:` in front
/// or without.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Fingerprint(pub(super) [u8; 32]);

/// That is no SHA-256.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no SHA-256; give its 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256 -in FILE` says them"
)]
pub struct NoFingerprint(String);

impl TryFrom<String> for Fingerprint {
    type Error = NoFingerprint;

    fn try_from(text: String) -> Result<Fingerprint, NoFingerprint> {
        read(&text).ok_or(NoFingerprint(text))
    }
}

fn read(text: &str) -> Option<Fingerprint> {
    let text = text.trim();
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let mut sum = [0; 32];
    match digits.len() {
        64 => {
            let (pairs, _) = digits.as_bytes().as_chunks::<2>();
            for (octet, pair) in sum.iter_mut().zip(pairs) {
                *octet = pair_of(pair)?;
            }
        }
        95 => {
            let mut pairs = digits.split(':');
            for octet in &mut sum {
                *octet = pair_of(pairs.next()?.as_bytes().first_chunk()?)?;
            }
            // As many colons as there may be, and each pair two digits long: none can be left.
            if digits.split(':').any(|pair| pair.len() != 2) || pairs.next().is_some() {
                return None;
            }
        }
        _ => return None,
    }
    Some(Fingerprint(sum))
}

fn pair_of(pair: &[u8; 2]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let value = digit(pair[0])? * 16 + digit(pair[1])?;
    u8::try_from(value).ok()
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_tools_write_it() {
        let plain = "0f".repeat(32);
        let colons = vec!["0F"; 32].join(":");
        for (text, want) in [
            (plain.clone(), true),
            (plain.to_uppercase(), true),
            (format!("sha256:{plain}"), true),
            (format!(" {colons} "), true),
            (format!("sha256:{colons}"), true),
            ("0f".repeat(31), false),
            ("0f".repeat(20), false),
            ("0g".repeat(32), false),
            ("+f".repeat(32), false),
            (colons.replacen("0F:", "0:F", 1), false),
            (colons.replace(':', "::"), false),
            (colons.replace(':', "0"), false),
            (format!("md5:{plain}"), false),
            (String::new(), false),
        ] {
            let got = Fingerprint::try_from(text.clone());
            assert_eq!(got.is_ok(), want, "{text}");
            if let Ok(got) = got {
                assert_eq!(got.to_string(), plain, "{text}");
            }
        }
    }
}
