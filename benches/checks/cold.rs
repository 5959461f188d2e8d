//! Many messages at once, each from a domain of its own, with a DNS server 20 ms away and nothing
//! remembered: through the decisions at RCPT TO and after the final dot.
//!
//! The longest chain of one message has four questions of which each needs the answer to the one
//! before. At RCPT TO: the SPF record of the sender's domain, that of the domain it includes, the
//! address of the host that this one names. After the final dot: the key of the signature. All others
//! (SPF of the name in EHLO; the client's name and the address of that; the steps of the DMARC walk)
//! are asked beside these.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use bytes::Bytes;
use gatepost::directory;
use gatepost::directory::Directory;
use gatepost::directory::Recipients;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ForwardPath;
use gatepost::mail::address::Host;
use gatepost::mail::address::ReversePath;
use gatepost::mail::envelope::Body;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;
use gatepost::pipeline;
use gatepost::pipeline::Case;
use gatepost::pipeline::Client;
use gatepost::pipeline::Pipeline;
use gatepost::pipeline::Service;
use gatepost::pipeline::submission::Quotas;
use gatepost::sign;
use gatepost::sign::Signing;
use gatepost::smtp::command::Hello;
use gatepost::smtp::server::Verb;
use gatepost::verify::Config;
use gatepost::verify::Verifier;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::PROCESS;
use crate::message;
use crate::nameserver::Nameserver;
use crate::processor_time;
use crate::signer;
use crate::spread;

const AWAY: Duration = Duration::from_millis(20);
const MESSAGES: u8 = 255;
const CHAIN: u32 = 4;

pub(crate) fn run(rounds: usize) {
    let server = Nameserver::start();
    let mails: Vec<_> = (0..=MESSAGES)
        .map(|n| Arc::new(Mail::new(n, &server)))
        .collect();
    server.away(AWAY);
    let runtime = Runtime::new().expect("a runtime");
    let mut alone = Vec::new();
    let mut together = Vec::new();
    let mut computed = Vec::new();
    let mut questions = 0;
    for _ in 0..rounds {
        alone.push(chains(&runtime, &server, &mails[..1]));
        let before = (server.questions(), processor_time(PROCESS));
        together.push(chains(&runtime, &server, &mails));
        computed.push((processor_time(PROCESS) - before.1).as_secs_f64() * 1e3);
        questions = server.questions() - before.0;
    }
    println!("cold, 20 ms away          of {CHAIN} x 20 ms");
    for (count, ratios) in [(1, alone), (mails.len(), together)] {
        let (ratio, least, most) = spread(ratios);
        println!("{count:3} at once               {ratio:.2} ({least:.2} to {most:.2})");
    }
    let (computed, _, _) = spread(computed);
    println!("{questions} questions, {computed:.0} ms of processor time, the server's included");
}

/// How long it takes until all are taken, in times the longest chain.
fn chains(runtime: &Runtime, server: &Nameserver, mails: &[Arc<Mail>]) -> f64 {
    let pipeline = Arc::new(runtime.block_on(async { pipeline(server) }));
    let begin = Instant::now();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for mail in mails {
            let (pipeline, mail) = (Arc::clone(&pipeline), Arc::clone(mail));
            tasks.spawn(async move { mail.go_through(&pipeline).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("the mail is taken");
        }
    });
    begin.elapsed().as_secs_f64() / (AWAY * CHAIN).as_secs_f64()
}

fn pipeline(server: &Nameserver) -> Pipeline {
    let us = domain("mx.example.net");
    let verifier = Verifier::new(server.dns(), &us, &Config::default());
    let domains = BTreeMap::from([(domain("example.net"), Recipients::Any)]);
    let directory = Directory::open(
        directory::Config::default(),
        &us,
        domains,
        Box::new(|_| Box::pin(std::future::pending())),
        None,
    );
    let directory = directory.expect("no file to read");
    let config = pipeline::Config::default();
    let signing = Signing::open(&sign::Config::default(), &BTreeMap::new(), Path::new("/"));
    let signing = signing.expect("no key to read");
    let quotas = Quotas::default();
    Pipeline::new(us, config, verifier, directory, signing, quotas)
}

/// A message on its way in.
struct Mail {
    client: Client,
    id: SpoolId,
    envelope: Envelope,
    message: Bytes,
}

impl Mail {
    fn new(n: u8, server: &Nameserver) -> Mail {
        let name = format!("author{n}.example");
        let ip = Ipv4Addr::new(192, 0, 2, n);
        let signer = signer("ed25519", &name);
        server.add_zone(&format!(
            "{} TXT {}\n\
             {name} TXT v=spf1 include:_spf.{name} mx -all\n\
             _spf.{name} TXT v=spf1 ip4:198.51.100.0/24 a:out.{name} ~all\n\
             out.{name} A {ip}\n\
             mx.{name} TXT v=spf1 a -all\n\
             mx.{name} A {ip}\n\
             {name} MX 10 mx.{name}\n\
             {n}.2.0.192.in-addr.arpa PTR mx.{name}\n\
             _dmarc.{name} TXT v=DMARC1; p=reject\n",
            signer.dns_name(),
            signer.dns_record()
        ));
        let helo = format!("mx.{name}");
        Mail {
            client: Client {
                address: IpAddr::V4(ip),
                service: Service::Mx,
                login: None,
                verb: Verb::Ehlo,
                hello: Hello {
                    host: Host::parse(&helo).ok(),
                    text: helo,
                },
                tls: None,
                certificate: None,
            },
            id: SpoolId {
                session: SessionId(n.into()),
                serial: 1,
            },
            envelope: Envelope {
                body: Body::EightBitMime,
                client: Some(IpAddr::V4(ip)),
                ..Envelope::new(
                    ReversePath::Address(address(&format!("ann@{name}"))),
                    vec![Recipient::new(address("ben@example.net"))],
                )
            },
            message: message(&signer, &name, 4 << 10).into(),
        }
    }

    async fn go_through(&self, pipeline: &Pipeline) {
        let Mail {
            client, envelope, ..
        } = self;
        let mut case = Case::new(self.id, envelope.from.clone());
        let to = ForwardPath::Address(address("ben@example.net"));
        let taken = pipeline.recipient(client, &mut case, &to).await;
        taken.expect("SPF lets it pass");
        let now = SystemTime::now();
        let passed = pipeline.message(client, &case, envelope, &self.message, now);
        passed.await.expect("DMARC lets it pass");
    }
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).expect("a domain")
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}
