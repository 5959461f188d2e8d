//! The examples of RFC 6376 and RFC 8463 as dkimpy ships them, and dkimpy itself as a peer: what it
//! signs and seals we verify, what we sign it verifies.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use gatepost::mail::address::Domain;
use gatepost::sign::Signer;
use gatepost::verify;
use gatepost::verify::ArcResult;
use gatepost::verify::DkimResult;
use gatepost::verify::Evidence;
use gatepost::verify::Verifier;

use crate::support::dns::Nameserver;
use crate::support::process::skip;
use crate::vectors::fetch::source_distribution;

const VERSION: &str = "1.1.8";

fn data(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join("dkim/tests/data").join(name)).unwrap()
}

/// A message as it travels: the files have bare LF at line ends.
fn message(folder: &Path, name: &str) -> Vec<u8> {
    let text = String::from_utf8(data(folder, name)).unwrap();
    text.replace("\r\n", "\n")
        .replace('\n', "\r\n")
        .into_bytes()
}

/// The keys that the suite's tests answer for these names.
fn keys(folder: &Path) -> Nameserver {
    let server = Nameserver::start();
    for (name, file) in [
        ("test._domainkey.football.example.com", "test.txt"),
        ("test._domainkey.example.com", "test.txt"),
        ("sed._domainkey.test.ex", "eximtest.dns"),
    ] {
        server.strings(name, &[data(folder, file).trim_ascii()]);
    }
    // This one stands in the code of the tests, over two lines.
    let tests = folder.join("dkim/tests/test_dkim_ed25519.py");
    let code = std::fs::read_to_string(tests).unwrap();
    let name = "brisbane._domainkey.football.example.com";
    let (_, rest) = code.split_once(&format!("'{name}.': \"\"\"")).unwrap();
    let (key, _) = rest.split_once("\"\"\"").unwrap();
    server.txt(name, &key.replace("\\\n", ""));
    server
}

async fn verified(server: &Nameserver, message: &[u8]) -> Evidence {
    let hostname = Domain::parse("mx.example.net").unwrap();
    let verifier = Verifier::new(server.dns(), &hostname, &verify::Config::default());
    verifier.message(message, &[]).await
}

#[tokio::test]
async fn the_examples_of_rfc_6376_and_rfc_8463_pass_and_fail_when_touched() {
    let Some(folder) = source_distribution("dkimpy", VERSION) else {
        return;
    };
    let server = keys(&folder);
    for (file, domain, algorithms) in [
        (
            "rfc6376.signed.msg",
            "football.example.com",
            &["ed25519-sha256", "rsa-sha256"][..],
        ),
        (
            "rfc6376.signed.rsa.msg",
            "football.example.com",
            &["rsa-sha256"],
        ),
        ("ed25519test2.msg", "test.ex", &["ed25519-sha256"]),
    ] {
        let message = message(&folder, file);
        let evidence = verified(&server, &message).await;
        let found: Vec<_> = evidence.dkim.iter().map(|s| s.algorithm).collect();
        assert_eq!(found, algorithms, "{file}");
        for signature in &evidence.dkim {
            assert_eq!(signature.result, DkimResult::Pass, "{file}: {signature:?}");
            assert!(signature.counts, "{file}");
            assert_eq!(signature.domain, domain, "{file}");
        }

        let text = String::from_utf8(message).unwrap();
        let longer = format!("{text}more\r\n");
        let other = text.replacen("From: ", "From: x", 1);
        for touched in [longer, other] {
            let evidence = verified(&server, touched.as_bytes()).await;
            for signature in &evidence.dkim {
                assert_eq!(signature.result, DkimResult::Fail, "{file}: {signature:?}");
            }
        }
    }
}

/// Runs Python with dkimpy; None, loudly, where there is no Python that can.
fn python(path: &[&Path], code: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let path = std::env::join_paths(path).unwrap();
    let child = Command::new("/usr/bin/python3")
        .args(["-c", code])
        .args(arguments)
        .env("PYTHONPATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.and_then(|mut child| {
        child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(input))
            .transpose()?;
        child.wait_with_output()
    });
    match output {
        Ok(output) if output.status.success() => return Some(output.stdout),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let why = text.lines().last().unwrap_or_default();
            skip(&format!("dkimpy: {why}"));
        }
        Err(error) => {
            skip(&format!("python3: {error}"));
        }
    }
    None
}

#[tokio::test]
async fn what_dkimpy_signs_passes_in_every_canonicalization() {
    let Some(folder) = source_distribution("dkimpy", VERSION) else {
        return;
    };
    let server = keys(&folder);
    let plain = message(&folder, "test.message");
    let key = folder.join("dkim/tests/data/test.private");
    let code = "
import sys, dkim
key = open(sys.argv[1], 'rb').read()
algorithm = (sys.argv[2].encode(), sys.argv[3].encode())
text = sys.stdin.buffer.read()
sig = dkim.sign(text, b'test', b'example.com', key, canonicalize=algorithm, length=sys.argv[4] == 'l')
sys.stdout.buffer.write(sig + text)
";
    for header in ["simple", "relaxed"] {
        for body in ["simple", "relaxed"] {
            for length in ["", "l"] {
                let arguments = [key.to_str().unwrap(), header, body, length];
                let Some(signed) = python(&[&folder], code, &arguments, &plain) else {
                    return;
                };
                let evidence = verified(&server, &signed).await;
                let signature = &evidence.dkim[0];
                assert_eq!(
                    signature.result,
                    DkimResult::Pass,
                    "{arguments:?} {signature:?}"
                );
                // All of the body is covered, so l= does no harm.
                assert!(signature.counts, "{arguments:?}");
                assert_eq!(signature.reason.as_deref(), Some("1024-bit key"));

                let longer = [signed.as_slice(), b"more\r\n"].concat();
                let evidence = verified(&server, &longer).await;
                let signature = &evidence.dkim[0];
                let wanted = match length {
                    "l" => DkimResult::Pass,
                    _ => DkimResult::Fail,
                };
                assert_eq!(signature.result, wanted, "{arguments:?}, more body");
                assert!(!signature.counts, "{arguments:?}, more body");
            }
        }
    }
}

#[tokio::test]
async fn what_dkimpy_seals_is_an_intact_chain_until_touched() {
    let Some(folder) = source_distribution("dkimpy", VERSION) else {
        return;
    };
    let Some(results) = source_distribution("authres", "1.2.0") else {
        return;
    };
    let server = keys(&folder);
    let key = folder.join("dkim/tests/data/test.private");
    // Two hops; the second trusts its own result of the first.
    let code = "
import sys, dkim
key = open(sys.argv[1], 'rb').read()
text = sys.stdin.buffer.read()
text = b''.join(dkim.arc_sign(text, b'test', b'example.com', key, b'lists.example.org')) + text
text = b'Authentication-Results: two.example; arc=pass\\r\\n' + text
text = b''.join(dkim.arc_sign(text, b'test', b'football.example.com', key, b'two.example')) + text
sys.stdout.buffer.write(text)
";
    let plain = message(&folder, "test.message");
    let Some(sealed) = python(&[&folder, &results], code, &[key.to_str().unwrap()], &plain) else {
        return;
    };
    let evidence = verified(&server, &sealed).await;
    assert_eq!(
        evidence.arc.result,
        ArcResult::Pass,
        "{}",
        String::from_utf8_lossy(&sealed)
    );
    assert_eq!(
        evidence.arc.sealers,
        ["example.com", "football.example.com"]
    );

    let text = String::from_utf8(sealed).unwrap();
    for (from, to) in [
        ("This is a test message", "This is another message"),
        ("ARC-Seal: i=1", "ARC-Seal: i=2"),
        ("cv=none", "cv=pass"),
    ] {
        assert!(text.contains(from), "{from}");
        let touched = text.replacen(from, to, 1);
        let evidence = verified(&server, touched.as_bytes()).await;
        assert_eq!(evidence.arc.result, ArcResult::Fail, "{to}");
        assert!(evidence.arc.sealers.is_empty(), "{to}");
    }
}

#[test]
fn what_we_sign_dkimpy_verifies() {
    let Some(folder) = source_distribution("dkimpy", VERSION) else {
        return;
    };
    let domain = Domain::parse("example.com").unwrap();
    let mut signers = Vec::new();
    for file in ["2048_testkey.key", "2048_testkey_PKCS8.key"] {
        let pem = String::from_utf8(data(&folder, file)).unwrap();
        signers.push(Signer::from_pem(&pem, &domain, "ours").unwrap());
    }
    signers.push(Signer::generate(&domain, "ours").unwrap());
    let plain = message(&folder, "rfc6376.msg");
    let code = "
import sys, dkim
key = sys.argv[1].encode()
text = sys.stdin.buffer.read()
try:
    if b'ed25519' in key:
        import nacl
    sys.stdout.write(str(dkim.verify(text, dnsfunc=lambda name, timeout=5: key)))
except ImportError as error:
    sys.stdout.write(str(error))
";
    for signer in signers {
        let signature = signer.sign(&plain).unwrap();
        let signed = [signature.as_bytes(), &plain].concat();
        let Some(answer) = python(&[&folder], code, &[&signer.dns_record()], &signed) else {
            return;
        };
        let answer = String::from_utf8_lossy(&answer);
        // What dkimpy needs for ed25519 and what need not come with it.
        if answer.contains("nacl") {
            skip(&format!(
                "ed25519 with dkimpy: {answer}; see tests/peers-install"
            ));
            continue;
        }
        assert_eq!(answer, "True", "{signature}");
    }
}
