//! What the evidence on one message costs in processor time: SPF, DKIM, ARC and DMARC with warm
//! caches, beside the mail authentication library asked bare for the same.
//!
//! `cargo bench --bench checks`. Everything is answered from the caches after the first round, so
//! that elapsed time is processor time.

#![expect(clippy::expect_used, reason = "a bench that cannot run stops")]

use std::net::IpAddr;
use std::net::Ipv4Addr;

use divan::Bencher;
use divan::counter::BytesCount;
use gatepost::dns::Dns;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::Host;
use gatepost::sign::Signer;
use gatepost::verify::Config;
use gatepost::verify::DkimResult;
use gatepost::verify::DmarcResult;
use gatepost::verify::SpfResult;
use gatepost::verify::Verifier;
use mail_auth::AuthenticatedMessage;
use mail_auth::Parameters;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use rcgen::KeyPair;
use rcgen::PKCS_RSA_SHA256;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

#[expect(dead_code, unreachable_pub, reason = "the tests use all of it")]
#[path = "../tests/it/support/dns.rs"]
mod nameserver;

/// What the DNS server of the tests wants of them.
mod support {
    pub(crate) fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.local_addr().expect("it is bound").port()
    }
}

fn main() {
    divan::main();
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HELO: &str = "mx.author.example";
const SENDER: &str = "ann@author.example";
const US: &str = "mx.example.net";

/// A signed message, and a DNS that knows all about its author.
struct Case {
    runtime: Runtime,
    /// Answers for as long as the case lives.
    server: nameserver::Nameserver,
    message: String,
}

impl Case {
    fn new((algorithm, size): (&str, usize)) -> Case {
        let signer = signer(algorithm);
        let message = message(size);
        let message = signer.sign(message.as_bytes()).expect("a signature") + &message;
        let zone = format!(
            "{} TXT {}\n\
             author.example TXT v=spf1 include:_spf.author.example mx -all\n\
             _spf.author.example TXT v=spf1 ip4:198.51.100.0/24 ip4:192.0.2.0/28 ~all\n\
             mx.author.example TXT v=spf1 a -all\n\
             mx.author.example A 192.0.2.1\n\
             _dmarc.author.example TXT v=DMARC1; p=reject; rua=mailto:d@author.example\n",
            signer.dns_name(),
            signer.dns_record()
        );
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let server = nameserver::Nameserver::with(&zone);
        Case {
            runtime,
            server,
            message,
        }
    }

    fn dns(&self) -> Dns {
        let _inside = self.runtime.enter();
        self.server.dns()
    }
}

fn signer(algorithm: &str) -> Signer {
    let domain = Domain::parse("author.example").expect("a domain");
    match algorithm {
        "rsa-2048" => {
            let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key");
            Signer::from_pem(&key.serialize_pem(), &domain, "s1").expect("a signer")
        }
        _ => Signer::generate(&domain, "s1").expect("a signer"),
    }
}

/// Text of about `size` octets under a header such as mail has.
fn message(size: usize) -> String {
    let mut message = "Received: from a.example (a.example [192.0.2.9])\r\n\
        \tby mx.author.example with ESMTPS id 1234567890\r\n\
        \tfor <ben@example.net>; Tue, 24 Nov 2026 05:00:00 +0000\r\n\
        From: Ann Author <ann@author.example>\r\n\
        To: Ben <ben@example.net>\r\n\
        Subject: What the evidence costs\r\n\
        Date: Tue, 24 Nov 2026 05:00:00 +0000\r\n\
        Message-ID: <1234567890@author.example>\r\n\
        MIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: 8bit\r\n\r\n"
        .to_owned();
    while message.len() < size {
        message.push_str("A line of plain text such as people  write, of sixty octets.\r\n");
    }
    message
}

const CASES: [(&str, usize); 4] = [
    ("ed25519", 4 << 10),
    ("ed25519", 8 << 10),
    ("rsa-2048", 4 << 10),
    ("rsa-2048", 8 << 10),
];

#[divan::bench(args = CASES)]
fn verifier(bencher: Bencher<'_, '_>, case: (&str, usize)) {
    let case = Case::new(case);
    let us = Domain::parse(US).expect("a domain");
    let verifier = Verifier::new(case.dns(), &us, &Config::default());
    let helo = Host::parse(HELO).expect("a host");
    let sender = Address::parse(SENDER).expect("an address");
    let check = || {
        case.runtime.block_on(async {
            let (helo_spf, sender_spf) = tokio::join!(
                verifier.spf_helo(CLIENT, &helo),
                verifier.spf_sender(CLIENT, &helo, &sender),
            );
            let spf = [helo_spf, sender_spf];
            let evidence = verifier.message(case.message.as_bytes(), &spf).await;
            (spf, evidence)
        })
    };
    let (spf, evidence) = check();
    assert!(spf.iter().all(|spf| spf.result == SpfResult::Pass));
    assert_eq!(evidence.dkim[0].result, DkimResult::Pass);
    assert_eq!(evidence.dmarc.result, DmarcResult::Pass);
    bencher
        .counter(BytesCount::of_str(&case.message))
        .bench_local(check);
}

#[divan::bench(args = CASES)]
fn library(bencher: Bencher<'_, '_>, case: (&str, usize)) {
    let case = Case::new(case);
    let dns = case.dns();
    let library = dns.authenticator();
    let check = || {
        case.runtime.block_on(async {
            let question = SpfParameters::verify_ehlo(CLIENT, HELO, US);
            let helo = library
                .verify_spf(Parameters::new(question).with_txt_cache(dns.keys()))
                .await;
            let question = SpfParameters::verify_mail_from(CLIENT, HELO, US, SENDER);
            let spf = library
                .verify_spf(Parameters::new(question).with_txt_cache(dns.keys()))
                .await;
            let message = AuthenticatedMessage::parse(case.message.as_bytes()).expect("a message");
            let parameters = || Parameters::new(&message).with_txt_cache(dns.keys());
            let dkim = library.verify_dkim(parameters()).await;
            let arc = library.verify_arc(parameters()).await;
            let question = DmarcParameters::new(&message, &dkim, "author.example", &spf);
            let dmarc = library
                .verify_dmarc(Parameters::new(question).with_txt_cache(dns.keys()))
                .await;
            assert!(dkim[0].result() == &mail_auth::DkimResult::Pass);
            assert!(dmarc.dkim_result() == &mail_auth::DmarcResult::Pass);
            (helo, spf, arc.result().clone(), dmarc)
        })
    };
    check();
    bencher
        .counter(BytesCount::of_str(&case.message))
        .bench_local(check);
}
