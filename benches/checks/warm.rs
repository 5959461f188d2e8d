//! All checks of a message with warm caches, beside the mail authentication library.

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use gatepost::dns::Dns;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::Host;
use gatepost::verify::Config;
use gatepost::verify::DkimResult;
use gatepost::verify::DmarcResult;
use gatepost::verify::SpfResult;
use gatepost::verify::Verifier;
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::config::ResolverOpts;
use mail_auth::AuthenticatedMessage;
use mail_auth::MessageAuthenticator;
use mail_auth::Parameters;
use mail_auth::ResolverCache;
use mail_auth::Txt;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::spf::verify::SpfParameters;
use moka::sync::Cache;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::THREAD;
use crate::message;
use crate::nameserver::Nameserver;
use crate::processor_time;
use crate::signer;
use crate::spread;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HELO: &str = "mx.author.example";
const SENDER: &str = "ann@author.example";
const US: &str = "mx.example.net";

/// What is known not to be there is not asked for anew while the bench runs.
const LONG: Duration = Duration::from_secs(600);

/// Messages checked by either in one round.
const TIMES: u32 = 100;

pub(crate) fn run(rounds: usize) {
    println!("warm                      gatepost     library   ratio");
    for algorithm in ["ed25519", "rsa-2048"] {
        for kib in [4, 8] {
            let case = Case::new(algorithm, kib << 10);
            let (ours, theirs) = case.measure(rounds);
            let ratios = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
            let ((ours, _, _), (theirs, _, _)) = (spread(ours), spread(theirs));
            let (ratio, least, most) = spread(ratios);
            println!(
                "{algorithm:8} {kib} KiB         {ours:6.1} us   {theirs:6.1} us   \
                 {ratio:.2} ({least:.2} to {most:.2})"
            );
        }
    }
}

/// A signed message, and a DNS that knows all about its author.
struct Case {
    runtime: Runtime,
    /// Answers for as long as the case lives.
    server: Nameserver,
    message: String,
}

impl Case {
    fn new(algorithm: &str, size: usize) -> Case {
        let signer = signer(algorithm, "author.example");
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
        Case {
            runtime,
            server: Nameserver::with(&zone),
            message: message(&signer, "author.example", size),
        }
    }

    /// Microseconds a message, in turns.
    fn measure(&self, rounds: usize) -> (Vec<f64>, Vec<f64>) {
        let _inside = self.runtime.enter();
        let dns = Dns::new(&gatepost::dns::Config {
            negative_min_ttl: LONG,
            negative_max_ttl: LONG,
            ..self.server.config()
        });
        let dns = dns.expect("the configuration is right");
        let us = Domain::parse(US).expect("a domain");
        let verifier = Verifier::new(dns, &us, &Config::default());
        let library = Library::new(self.server.address);
        let mut times = (Vec::new(), Vec::new());
        self.runtime.block_on(async {
            self.ours(&verifier).await;
            self.theirs(&library).await;
            for _ in 0..rounds {
                let begin = processor_time(THREAD);
                for _ in 0..TIMES {
                    self.ours(&verifier).await;
                }
                let middle = processor_time(THREAD);
                for _ in 0..TIMES {
                    self.theirs(&library).await;
                }
                let end = processor_time(THREAD);
                let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(TIMES);
                times.0.push(each(middle - begin));
                times.1.push(each(end - middle));
            }
        });
        times
    }

    async fn ours(&self, verifier: &Verifier) {
        let helo = Host::parse(HELO).expect("a host");
        let sender = Address::parse(SENDER).expect("an address");
        let (helo_spf, sender_spf) = tokio::join!(
            verifier.spf_helo(CLIENT, &helo),
            verifier.spf_sender(CLIENT, &helo, &sender),
        );
        let spf = [helo_spf, sender_spf];
        let evidence = verifier.message(self.message.as_bytes(), &spf).await;
        assert!(spf.iter().all(|spf| spf.result == SpfResult::Pass));
        assert_eq!(evidence.dkim[0].result, DkimResult::Pass);
        assert_eq!(evidence.dmarc.result, DmarcResult::Pass);
    }

    async fn theirs(&self, library: &Library) {
        let (library, records) = (&library.authenticator, &library.records);
        let question = SpfParameters::verify_ehlo(CLIENT, HELO, US);
        let question = Parameters::new(question).with_txt_cache(records);
        let helo = library.verify_spf(question).await;
        let question = SpfParameters::verify_mail_from(CLIENT, HELO, US, SENDER);
        let question = Parameters::new(question).with_txt_cache(records);
        let spf = library.verify_spf(question).await;
        let message = AuthenticatedMessage::parse(self.message.as_bytes()).expect("a message");
        let parameters = || Parameters::new(&message).with_txt_cache(records);
        let dkim = library.verify_dkim(parameters()).await;
        let arc = library.verify_arc(parameters()).await;
        let question = DmarcParameters::new(&message, &dkim, "author.example", &spf);
        let question = Parameters::new(question).with_txt_cache(records);
        let dmarc = library.verify_dmarc(question).await;
        assert!(helo.result() == mail_auth::SpfResult::Pass);
        assert!(dkim[0].result() == &mail_auth::DkimResult::Pass);
        assert!(arc.result() == &mail_auth::DkimResult::None);
        assert!(dmarc.dkim_result() == &mail_auth::DmarcResult::Pass);
    }
}

/// The library with caches for what it asked and for what it has read, as it wants them.
struct Library {
    authenticator: MessageAuthenticator,
    records: Records,
}

impl Library {
    fn new(server: SocketAddr) -> Library {
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![connection]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut options = ResolverOpts::default();
        options.cache_size = 8192;
        options.negative_min_ttl = Some(LONG);
        Library {
            authenticator: MessageAuthenticator::new(config, options).expect("a resolver"),
            records: Records(Cache::new(8192)),
        }
    }
}

struct Records(Cache<Box<str>, Txt>);

impl ResolverCache<Box<str>, Txt> for Records {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.get(name)
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.remove(name)
    }

    fn insert(&self, name: Box<str>, record: Txt, _: Instant) {
        self.0.insert(name, record);
    }
}
