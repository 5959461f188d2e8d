//! What the DNS says of a key of ours (RFC 6376 §3.6.1): whether verifiers could use it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::dns;
use crate::dns::Dns;
use crate::sign::Algorithm;
use crate::sign::Signer;
use crate::sign::der;

/// What became of comparing a key with its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The record has our public key. The text says what is to be known of it besides.
    Right(Option<&'static str>),
    /// There is no record.
    Missing,
    /// There is a record, and our signatures fail with it: why.
    Wrong(String),
    /// The DNS does not say: why.
    Unknown(String),
}

/// Asks the DNS for the record of a key. Cancel safe.
pub async fn published(dns: &Dns, signer: &Signer) -> Published {
    match dns.txt(signer.dns_name()).await {
        Ok(texts) => match texts.as_slice() {
            [text] => compare(&String::from_utf8_lossy(text), signer),
            // RFC 6376 §3.6.2.2: what a verifier makes of several is not defined.
            several => Published::Wrong(format!(
                "there are {} records at this name; leave one",
                several.len()
            )),
        },
        Err(dns::Error::NotFound) => Published::Missing,
        Err(dns::Error::Temporary(why)) => Published::Unknown(why),
    }
}

fn compare(record: &str, signer: &Signer) -> Published {
    let tags = tags(record);
    let tag = |name: &str| {
        let found = tags.iter().find(|(tag, _)| tag == name);
        found.map(|(_, value)| value.as_str())
    };
    let lists = |name: &str, words: &[&str]| {
        tag(name).is_none_or(|list| list.split(':').any(|word| words.contains(&word)))
    };
    let wrong = |why: &str| Published::Wrong(why.to_owned());
    let version = tags.iter().position(|(tag, _)| tag == "v");
    if version.is_some_and(|at| at > 0) || tag("v").is_some_and(|version| version != "DKIM1") {
        return wrong("the record does not begin with v=DKIM1");
    }
    let want = signer.algorithm().key_type();
    let kind = tag("k").unwrap_or("rsa");
    if kind != want {
        return Published::Wrong(format!("the record is for k={kind}, our key is {want}"));
    }
    if !lists("h", &["sha256"]) || !lists("s", &["*", "email"]) {
        return wrong("the record is not for mail that is signed with sha256 (h=, s=)");
    }
    let public = match tag("p") {
        None => return wrong("the record has no p="),
        Some("") => return wrong("the record says that the key is revoked (an empty p=)"),
        Some(public) => STANDARD.decode(public),
    };
    let Ok(public) = public else {
        return wrong("p= of the record is not base64; was it cut off?");
    };
    // Some publish an RSA key bare, as RFC 6376 §3.6.1 can also be read.
    let is_bare = signer.algorithm() == Algorithm::Rsa
        && der::subject_public_key_info(&public) == signer.public();
    if public != signer.public() && !is_bare {
        return wrong("the record has another public key");
    }
    let is_test = tag("t").is_some_and(|flags| flags.split(':').any(|flag| flag == "y"));
    Published::Right(is_test.then_some("t=y: verifiers may treat signatures as a test"))
}

/// RFC 6376 §3.2, without white space, none of which counts in a key record.
fn tags(record: &str) -> Vec<(String, String)> {
    let clean = |text: &str| text.split_ascii_whitespace().collect::<String>();
    let pairs = record.split(';').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (clean(name), clean(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Domain;
    use crate::sign::make;

    fn signer(algorithm: Algorithm) -> Signer {
        let domain = Domain::parse("example.com").unwrap();
        Signer::from_pem(&make(algorithm, 2048).unwrap(), &domain, "s1").unwrap()
    }

    #[test]
    fn a_record_has_our_key_or_says_what_is_wrong() {
        let (ours, other) = (signer(Algorithm::Ed25519), signer(Algorithm::Ed25519));
        let public = STANDARD.encode(ours.public());
        let foreign = STANDARD.encode(other.public());
        let right = Published::Right(None);
        for (record, want) in [
            (ours.dns_record(), "right"),
            (
                format!(
                    "v = DKIM1 ; k = ed25519;p={} {}",
                    &public[..9],
                    &public[9..]
                ),
                "right",
            ),
            (
                format!("k=ed25519; h=sha1:sha256; s=email; p={public};"),
                "right",
            ),
            (format!("k=ed25519; p={foreign}"), "another public key"),
            (format!("p={public}"), "k=rsa"),
            (
                format!("k=ed25519; v=DKIM1; p={public}"),
                "begin with v=DKIM1",
            ),
            (
                format!("v=DKIM2; k=ed25519; p={public}"),
                "begin with v=DKIM1",
            ),
            (format!("k=ed25519; h=sha1; p={public}"), "h=, s="),
            (format!("k=ed25519; s=tlsrpt; p={public}"), "h=, s="),
            ("k=ed25519; p=".to_owned(), "revoked"),
            ("k=ed25519".to_owned(), "no p="),
            (format!("k=ed25519; p={}", &public[..9]), "base64"),
        ] {
            match compare(&record, &ours) {
                Published::Wrong(why) => assert!(why.contains(want), "{record}: {why}"),
                got => assert_eq!((&got, want), (&right, "right"), "{record}"),
            }
        }
        let testing = compare(&format!("{}; t=s:y", ours.dns_record()), &ours);
        assert!(matches!(testing, Published::Right(Some(_))));
    }

    #[test]
    fn an_rsa_key_may_stand_bare_in_its_record() {
        let ours = signer(Algorithm::Rsa);
        // What follows the 24 octets that say that it is RSA.
        let bare = STANDARD.encode(&ours.public()[24..]);
        for record in [ours.dns_record(), format!("v=DKIM1; p={bare}")] {
            assert_eq!(compare(&record, &ours), Published::Right(None), "{record}");
        }
    }
}
