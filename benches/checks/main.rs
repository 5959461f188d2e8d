//! What the evidence on a message costs: `cargo bench --bench checks`.
//!
//! * `warm`: processor time of SPF, DKIM, ARC and DMARC with all answers remembered, beside the mail
//!   authentication library asked bare for the same, on the same messages.
//! * `cold`: how long many messages at once take with nothing remembered and a DNS server 20 ms away,
//!   beside the longest chain of questions of which each needs the answer to the one before.
//!
//! Each line is a ratio: the median of several rounds and its range.

#![expect(clippy::expect_used, reason = "a bench that cannot run stops")]

use std::time::Duration;

use gatepost::mail::address::Domain;
use gatepost::sign::Signer;
use nix::time::ClockId;
use nix::time::clock_gettime;
use rcgen::KeyPair;
use rcgen::PKCS_RSA_SHA256;

mod cold;
#[expect(dead_code, unreachable_pub, reason = "the tests use all of it")]
#[path = "../../tests/it/support/dns.rs"]
mod nameserver;
mod warm;

/// What the DNS server of the tests wants of them.
mod support {
    pub(crate) fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.local_addr().expect("it is bound").port()
    }
}

fn main() {
    // `cargo test --benches` only wants to see that it runs.
    let brief = !std::env::args().any(|argument| argument == "--bench");
    warm::run(if brief { 1 } else { 41 });
    cold::run(if brief { 1 } else { 9 });
}

fn signer(algorithm: &str, domain: &str) -> Signer {
    let domain = Domain::parse(domain).expect("a domain");
    match algorithm {
        "rsa-2048" => {
            let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
            Signer::from_pem(&key.serialize_pem(), &domain, "s1").expect("a signer")
        }
        _ => Signer::generate(&domain, "s1").expect("a signer"),
    }
}

/// Text of about `size` octets from somebody at `domain`, under a header such as mail has, signed.
fn message(signer: &Signer, domain: &str, size: usize) -> String {
    let mut message = format!(
        "Received: from a.example (a.example [192.0.2.9])\r\n\
         \tby mx.{domain} with ESMTPS id 1234567890\r\n\
         \tfor <ben@example.net>; Tue, 24 Nov 2026 05:00:00 +0000\r\n\
         From: Ann Author <ann@{domain}>\r\n\
         To: Ben <ben@example.net>\r\n\
         Subject: What the evidence costs\r\n\
         Date: Tue, 24 Nov 2026 05:00:00 +0000\r\n\
         Message-ID: <1234567890@{domain}>\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 8bit\r\n\r\n"
    );
    while message.len() < size {
        message.push_str("A line of plain text such as people  write, of sixty octets.\r\n");
    }
    signer.sign(message.as_bytes()).expect("a signature") + &message
}

/// Of this thread: others on the machine do not count.
const THREAD: ClockId = ClockId::CLOCK_THREAD_CPUTIME_ID;
/// Of all threads of this process.
const PROCESS: ClockId = ClockId::CLOCK_PROCESS_CPUTIME_ID;

fn processor_time(of: ClockId) -> Duration {
    Duration::from(clock_gettime(of).expect("there is such a clock"))
}

/// Median, least and most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[values.len() / 2],
        values[0],
        values[values.len() - 1],
    )
}
