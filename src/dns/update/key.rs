//! The key by which a name server knows us, in a file as BIND's `tsig-keygen` and `nsupdate -k` have it:
//!
//! ```text
//! key "gatepost" {
//!     algorithm hmac-sha256;
//!     secret "c2VjcmV0IG9mIHRoaXJ0eSB0d28gb2N0ZXRzIQ==";
//! };
//! ```

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::TSigner;
use hickory_resolver::proto::rr::rdata::tsig::TsigAlgorithm;

/// How far the server's clock may be from ours, in seconds. RFC 8945 §10: 300 is recommended.
const FUDGE: u16 = 300;

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file, or it may not be read.
    #[error("cannot read the key {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// It is no key.
    #[error("{} {reason}; `tsig-keygen NAME` writes a key", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Reads the first key of a file.
pub(super) fn read(path: &Path) -> Result<TSigner, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|reason| Error::Wrong {
        path: path.to_owned(),
        reason,
    })
}

fn parse(text: &str) -> Result<TSigner, &'static str> {
    let words = words(text);
    let after = |word: &str| {
        let at = words.iter().position(|found| found == word)?;
        words.get(at + 1).map(String::as_str)
    };
    let name = after("key").and_then(|name| Name::from_ascii(name).ok());
    let name = name.ok_or("has no key with a name")?;
    let algorithm = after("algorithm").unwrap_or_default().to_ascii_lowercase();
    let algorithm = match algorithm.trim_end_matches('.') {
        "hmac-sha256" => TsigAlgorithm::HmacSha256,
        "hmac-sha384" => TsigAlgorithm::HmacSha384,
        "hmac-sha512" => TsigAlgorithm::HmacSha512,
        _ => return Err("has no key for hmac-sha256, hmac-sha384 or hmac-sha512"),
    };
    let secret = after("secret").and_then(|secret| STANDARD.decode(secret).ok());
    let secret = secret.filter(|secret| !secret.is_empty());
    let secret = secret.ok_or("has no secret in base64")?;
    TSigner::new(secret, algorithm, name, FUDGE).map_err(|_| "has a key that cannot be used")
}

/// The words of the file without quotes, braces, semicolons and comments.
fn words(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| {
        let end = line.find(['#']).or_else(|| line.find("//"));
        // Base64 may hold two slashes in a row, but only in quotes.
        match line.contains('"') {
            true => line,
            false => &line[..end.unwrap_or(line.len())],
        }
    });
    let split = lines.flat_map(|line| line.split([' ', '\t', '"', '{', '}', ';']));
    split
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_bind_writes_it() {
        let text = "# for the gateway\nkey \"gate.post\" {\n\talgorithm hmac-sha256;\n\tsecret \
                    \"bm8/c2xhc2hlcz8//w==\";\n};\n";
        let key = parse(text).unwrap();
        assert_eq!(key.signer_name().to_string(), "gate.post.");
        assert_eq!(key.algorithm(), &TsigAlgorithm::HmacSha256);
        assert_eq!(key.key().len(), 13);
        let one_line = "key k { algorithm HMAC-SHA512; secret YWJj; };";
        assert_eq!(parse(one_line).unwrap().key(), b"abc");
    }

    #[test]
    fn a_file_that_is_no_key_says_what_is_missing() {
        for (text, want) in [
            ("", "name"),
            ("key k { algorithm hmac-md5; secret YWJj; };", "hmac-sha256"),
            ("key k { algorithm hmac-sha256; };", "secret"),
            ("key k { algorithm hmac-sha256; secret \"?\"; };", "secret"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
