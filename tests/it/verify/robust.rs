//! No bytes make a check panic, and none make it take long.

use gatepost::verify::Config;
use gatepost::verify::Verifier;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::prop_assert;
use proptest::prop_oneof;
use proptest::strategy::Just;
use proptest::strategy::Strategy;
use proptest::test_runner::Config as Runs;
use proptest::test_runner::TestRunner;
use tokio::runtime::Runtime;

use crate::support::dns::Nameserver;
use crate::verify::domain;
use crate::verify::key_line;
use crate::verify::signed;
use crate::verify::signer;

/// Bytes that mean something to some reader.
fn interesting() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"\r\n",
        b"\r\n ",
        b"\n",
        b"\r",
        b"\0",
        b":",
        b";",
        b"=",
        b"\"",
        b"(",
        b")",
        b"<",
        b">",
        b"@",
        b",",
        b"%{",
        b"\xff\xfe",
        b"From: ",
        b"DKIM-Signature: ",
        b"ARC-Seal: i=1; ",
        b"ARC-Message-Signature: i=1; ",
        b"ARC-Authentication-Results: i=1; ",
        b"l=0; ",
        b"l=18446744073709551615; ",
        b"x=99999999999999999999; ",
        b"h=from; ",
        b"bh=; ",
        b"b=; ",
        b"i=50; ",
        b"cv=pass; ",
        b"=?utf-8?Q?=00?=",
    ];
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    prop_oneof![
        (0..words.len()).prop_map(move |at| words[at].clone()),
        vec(any::<u8>(), 0..8),
        Just(Vec::new()),
    ]
}

#[test]
fn no_bytes_make_a_check_panic() {
    let runtime = Runtime::new().unwrap();
    let signer = signer("example.com");
    let server = Nameserver::with(&key_line(&signer));
    let verifier = Verifier::new(server.dns(), &domain("mx.example.net"), &Config::default());
    let base = signed(
        &signer,
        "From: A <a@example.com>\r\nTo: b@example.net\r\nSubject: x\r\n\r\nbody\r\n",
    );
    let base = format!(
        "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=example.com; s=s1; t=1; b=AAAA\r\n\
         ARC-Message-Signature: i=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1; h=From; bh=AAAA; b=AAAA\r\n\
         ARC-Authentication-Results: i=1; example.com; none\r\n{base}"
    );
    let edits = vec((0..base.len(), 0..20usize, interesting()), 1..8);
    let strategy = prop_oneof![
        // Random bytes.
        1 => vec(any::<u8>(), 0..400),
        // Words that mean something, in any order.
        1 => vec(interesting(), 0..60).prop_map(|words| words.concat()),
        // A signed and sealed message with wounds.
        3 => edits.prop_map(move |edits| {
            let mut message = base.clone().into_bytes();
            for (at, length, with) in edits {
                let at = at.min(message.len());
                let end = (at + length).min(message.len());
                message.splice(at..end, with);
            }
            message
        }),
    ];
    let runs = Runs {
        cases: 1500,
        failure_persistence: None,
        ..Runs::default()
    };
    TestRunner::new(runs)
        .run(&strategy, |message| {
            let evidence = runtime.block_on(verifier.message(&message, &[]));
            for signature in &evidence.dkim {
                let harmless = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b';');
                prop_assert!(harmless(&signature.domain), "{signature:?}");
                prop_assert!(harmless(&signature.selector), "{signature:?}");
            }
            Ok(())
        })
        .unwrap();
}
