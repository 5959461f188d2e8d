//! What becomes of mail whose destination has published TLSA records, or seems to (RFC 7672): a signed
//! DNS tree in BIND, unbound as the resolver, and servers with certificates of all kinds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest::SHA256;
use aws_lc_rs::digest::digest;
use bytes::Bytes;
use gatepost::delivery::Config;
use gatepost::delivery::Delivery;
use gatepost::delivery::Fate;
use gatepost::delivery::Outcome;
use gatepost::delivery::Target;
use gatepost::delivery::next_hop::NextHop;
use gatepost::delivery::route::Route;
use gatepost::delivery::route::Tls as Level;
use gatepost::dns::Dns;
use gatepost::dns::Dnssec;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::support::dnssec;
use crate::support::dnssec::Resolver;
use crate::support::dnssec::Tree;
use crate::support::free_port;
use crate::support::gateway::gatepost;
use crate::support::mailbox::field;
use crate::support::postfix;
use crate::support::postfix::Onward;
use crate::support::postfix::Postfix;
use crate::support::process;
use crate::support::tls_host::Authority;
use crate::support::tls_host::Chain;
use crate::support::tls_host::Taken;
use crate::support::tls_host::Tls;
use crate::support::tls_host::TlsHost;

/// The servers, by the name of their host and the last octet of their address.
struct Hosts {
    port: u16,
    good: Chain,
    old: Chain,
    of_domain: Chain,
    all: Vec<(&'static str, TlsHost)>,
}

const OFFERS: &[&str] = &["REQUIRETLS"];
const VALID: i32 = 4096;

impl Hosts {
    fn start() -> Hosts {
        let authority = Authority::new();
        let good = authority.issue("good.secure.example", VALID);
        let old = authority.issue("nobody.example", 2020);
        let of_domain = authority.issue("names.secure.example", VALID);
        let port = free_port();
        let with = |chain: &Chain| Tls::With(chain.server_config());
        let all = [
            ("good", 10, with(&good), OFFERS),
            ("old", 11, with(&old), OFFERS),
            ("strip", 12, Tls::NotOffered, OFFERS),
            ("breaks", 13, Tls::Breaks, OFFERS),
            ("domain", 14, with(&of_domain), OFFERS),
            ("bare", 15, with(&good), &[]),
        ];
        let all = all.map(|(name, octet, tls, offers)| {
            let address = SocketAddr::from(([127, 0, 0, octet], port));
            (name, TlsHost::start(address, tls, offers))
        });
        Hosts {
            port,
            good,
            old,
            of_domain,
            all: all.into(),
        }
    }

    /// Who took a message since last time, and how.
    fn taken(&self, seen: &mut [usize]) -> Vec<(&'static str, Taken)> {
        let mut new = Vec::new();
        for ((name, host), seen) in self.all.iter().zip(seen) {
            let taken = host.taken();
            new.extend(taken[*seen..].iter().map(|taken| (*name, taken.clone())));
            *seen = taken.len();
        }
        new
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut text, octet| {
        write!(text, "{octet:02X}").expect("text grows");
        text
    })
}

fn sha256(data: &[u8]) -> String {
    hex(digest(&SHA256, data).as_ref())
}

/// The records of both zones.
fn zones(hosts: &Hosts) -> (String, String) {
    let port = hosts.port;
    let (good, old) = (sha256(&hosts.good.spki), sha256(&hosts.old.spki));
    let authority = sha256(&hosts.good.authority);
    let (whole, wrong) = (hex(&hosts.good.server), sha256(b"another"));
    let torn = format!("DEADBEEF{}", &wrong[8..]);
    assert_eq!(hosts.of_domain.authority, hosts.good.authority);
    let mut secure = String::new();
    // Name of the host, last octet of its address, and its TLSA records.
    for (host, octet, records) in [
        ("ee", 10, vec![format!("3 1 1 {good}")]),
        ("whole", 10, vec![format!("3 0 0 {whole}")]),
        ("eeold", 11, vec![format!("3 1 1 {old}")]),
        ("good", 10, vec![format!("2 0 1 {authority}")]),
        ("taold", 11, vec![format!("2 0 1 {authority}")]),
        ("taname", 10, vec![format!("2 0 1 {authority}")]),
        ("tadomain", 14, vec![format!("2 0 1 {authority}")]),
        ("wrong", 10, vec![format!("3 1 1 {wrong}")]),
        (
            "rolls",
            10,
            vec![format!("3 1 1 {wrong}"), format!("3 1 1 {good}")],
        ),
        (
            "pkix",
            11,
            vec![format!("1 1 1 {old}"), format!("0 0 1 {authority}")],
        ),
        ("pkixstrip", 12, vec![format!("1 1 1 {good}")]),
        ("strip", 12, vec![format!("3 1 1 {good}")]),
        ("breaks", 13, vec![format!("3 1 1 {good}")]),
        ("none", 11, vec![]),
        ("nonestrip", 12, vec![]),
        ("torntlsa", 10, vec![format!("3 1 1 {torn}")]),
        ("tornhost", 99, vec![format!("3 1 1 {good}")]),
        ("bare", 15, vec![format!("3 1 1 {good}")]),
        ("implicit", 10, vec![format!("3 1 1 {good}")]),
    ] {
        writeln!(secure, "{host}.secure.example. A 127.0.0.{octet}").expect("text grows");
        for record in records {
            writeln!(secure, "_{port}._tcp.{host}.secure.example. TLSA {record}")
                .expect("text grows");
        }
    }
    // A domain for each host that has its name, with one exchanger; then those with more to them.
    for line in [
        "d-ee MX 10 ee",
        "d-whole MX 10 whole",
        "d-eeold MX 10 eeold",
        "d-ta MX 10 good",
        "d-taold MX 10 taold",
        "d-taname MX 10 taname",
        "names MX 10 tadomain",
        "d-wrong MX 10 wrong",
        "d-rolls MX 10 rolls",
        "d-pkix MX 10 pkix",
        "d-pkixstrip MX 10 pkixstrip",
        "d-strip MX 10 strip",
        "d-breaks MX 10 breaks",
        "d-none MX 10 none",
        "d-nonestrip MX 10 nonestrip",
        "d-torntlsa MX 10 torntlsa",
        "d-tornhost MX 10 tornhost",
        "d-tornmx MX 66 ee",
        "d-bare MX 10 bare",
        "d-second MX 10 wrong",
        "d-second MX 20 ee",
        "d-open MX 10 strip",
        "d-open MX 20 none",
        "d-shut MX 10 wrong",
        "d-shut MX 20 strip",
        "d-shut MX 30 torntlsa",
        "alias CNAME good",
        "d-alias MX 10 alias",
        "own CNAME none",
        "d-own MX 10 own",
        "away CNAME host.plain.example.",
        "d-away MX 10 away",
        "d-out MX 10 host.plain.example.",
    ] {
        let (name, rest) = line.split_once(' ').expect("words");
        let dot = if rest.ends_with('.') {
            ""
        } else {
            ".secure.example."
        };
        writeln!(secure, "{name}.secure.example. {rest}{dot}").expect("text grows");
    }
    writeln!(secure, "_{port}._tcp.own.secure.example. TLSA 3 1 1 {old}").expect("text grows");
    writeln!(
        secure,
        "_{port}._tcp.away.secure.example. TLSA 3 1 1 {good}"
    )
    .expect("text grows");
    let plain = format!(
        "host.plain.example. A 127.0.0.10\n_{port}._tcp.host.plain.example. TLSA 3 1 1 {wrong}\n\
         d.plain.example. MX 10 wrong.secure.example.\n"
    );
    (secure, plain)
}

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Usual,
    Required,
    NotRequired,
}

async fn send(delivery: &Delivery, port: u16, domain: &str, wish: Wish) -> Outcome {
    send_by(delivery, Route::to(NextHop::Mx(port)), domain, wish).await
}

async fn send_by(delivery: &Delivery, route: Route, domain: &str, wish: Wish) -> Outcome {
    let to = Address::parse(&format!("a@{domain}")).unwrap();
    let target = Target::new(&Arc::new(route), to.host());
    let mut envelope = Envelope::new(ReversePath::Null, vec![Recipient::new(to)]);
    envelope.requiretls = wish == Wish::Required;
    let id = SpoolId {
        session: SessionId(1),
        serial: 1,
    };
    let header = match wish {
        Wish::NotRequired => "TLS-Required: No\r\n",
        Wish::Usual | Wish::Required => "A: b\r\n",
    };
    let content = Content::from(Bytes::from(format!("{header}\r\n")));
    let outcomes = delivery.attempt(&target, id, &envelope, &[0], &content);
    outcomes.await.remove(0)
}

/// A domain, what the message asks for, and what is to come of it: `delivered HOST` or the enhanced code;
/// what the decision or the reason has in it.
type Row = (&'static str, Wish, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        "d-ee.secure",
        Wish::Usual,
        "delivered good",
        "dane: 1 TLSA record at _PORT._tcp.ee.secure.example; TLS1.3",
    ),
    (
        "d-whole.secure",
        Wish::Usual,
        "delivered good",
        "dane: 1 TLSA record",
    ),
    (
        "d-eeold.secure",
        Wish::Usual,
        "delivered old",
        "dane: 1 TLSA record",
    ),
    (
        "d-ta.secure",
        Wish::Usual,
        "delivered good",
        "dane: 1 TLSA record",
    ),
    ("d-taold.secure", Wish::Usual, "4.7.5", "expired"),
    (
        "d-taname.secure",
        Wish::Usual,
        "4.7.5",
        "not valid for name",
    ),
    (
        "names.secure",
        Wish::Usual,
        "delivered domain",
        "dane: 1 TLSA record",
    ),
    (
        "d-wrong.secure",
        Wish::Usual,
        "4.7.5",
        "no TLSA record fits the certificate (dane: 1 TLSA record",
    ),
    (
        "d-rolls.secure",
        Wish::Usual,
        "delivered good",
        "dane: 2 TLSA records",
    ),
    (
        "d-pkix.secure",
        Wish::Usual,
        "delivered old",
        "encrypt: no usable TLSA record",
    ),
    ("d-pkixstrip.secure", Wish::Usual, "4.7.4", "offers no TLS"),
    ("d-strip.secure", Wish::Usual, "4.7.4", "offers no TLS"),
    ("d-breaks.secure", Wish::Usual, "4.7.5", "failed"),
    (
        "d-none.secure",
        Wish::Usual,
        "delivered old",
        "may: nothing published; TLS1.3",
    ),
    (
        "d-nonestrip.secure",
        Wish::Usual,
        "delivered strip",
        "may: nothing published; not offered",
    ),
    (
        "d-torntlsa.secure",
        Wish::Usual,
        "4.4.3",
        "cannot resolve the TLSA records of torntlsa",
    ),
    (
        "d-tornhost.secure",
        Wish::Usual,
        "4.4.3",
        "cannot resolve tornhost",
    ),
    (
        "d-tornmx.secure",
        Wish::Usual,
        "4.4.3",
        "cannot resolve d-tornmx",
    ),
    (
        "implicit.secure",
        Wish::Usual,
        "delivered good",
        "dane: 1 TLSA record",
    ),
    (
        "d-second.secure",
        Wish::Usual,
        "delivered good",
        "ee.secure.example",
    ),
    (
        "d-open.secure",
        Wish::Usual,
        "delivered old",
        "may: nothing published",
    ),
    (
        "d-shut.secure",
        Wish::Usual,
        "4.4.3",
        "cannot resolve the TLSA records",
    ),
    (
        "d-alias.secure",
        Wish::Usual,
        "delivered good",
        "_PORT._tcp.good.secure.example",
    ),
    (
        "d-own.secure",
        Wish::Usual,
        "delivered old",
        "_PORT._tcp.own.secure.example",
    ),
    (
        "d-away.secure",
        Wish::Usual,
        "delivered good",
        "_PORT._tcp.away.secure.example",
    ),
    (
        "d-out.secure",
        Wish::Usual,
        "delivered good",
        "may: nothing published",
    ),
    (
        "d.plain",
        Wish::Usual,
        "delivered good",
        "may: nothing published",
    ),
    // RFC 8689
    (
        "d-wrong.secure",
        Wish::NotRequired,
        "delivered good",
        "may: TLS-Required: No",
    ),
    (
        "d-strip.secure",
        Wish::NotRequired,
        "delivered strip",
        "may: TLS-Required: No; not offered",
    ),
    (
        "d-ee.secure",
        Wish::Required,
        "delivered good",
        "dane: 1 TLSA record",
    ),
    ("d-bare.secure", Wish::Required, "5.7.30", "REQUIRETLS"),
    (
        "d-wrong.secure",
        Wish::Required,
        "5.7.10",
        "no TLSA record fits",
    ),
    ("d-breaks.secure", Wish::Required, "4.7.5", "failed"),
    ("d-strip.secure", Wish::Required, "5.7.10", "offers no TLS"),
    (
        "d-pkix.secure",
        Wish::Required,
        "5.7.10",
        "none of the TLSA records",
    ),
    ("d.plain", Wish::Required, "5.7.10", "nothing proves"),
    (
        "d-torntlsa.secure",
        Wish::Required,
        "4.4.3",
        "cannot resolve the TLSA records",
    ),
];

async fn goes_as_published(resolver: Resolver, dnssec: Dnssec) {
    if !dnssec::present() {
        return;
    }
    let hosts = Hosts::start();
    let (secure, plain) = zones(&hosts);
    let tree = Tree::start(&secure, &plain, resolver);
    let dns = Dns::new(&tree.config(dnssec)).unwrap();
    let mut config = Config::default();
    config.reuse.connections = 0;
    let delivery = Delivery::new(&config, Domain::parse("mx.ours.example").unwrap(), dns).unwrap();
    let mut seen = vec![0; hosts.all.len()];
    let mut wrong = Vec::new();
    for (domain, wish, want, why) in ROWS {
        let domain = format!("{domain}.example");
        let outcome = send(&delivery, hosts.port, &domain, *wish).await;
        let taken = hosts.taken(&mut seen);
        let tls = outcome.peer.as_ref().and_then(|peer| peer.tls.clone());
        let (got, said) = match (outcome.fate, taken.as_slice()) {
            (Fate::Delivered(_), [(host, how)]) => {
                let promised = how.mail.ends_with(" REQUIRETLS");
                assert_eq!(promised, *wish == Wish::Required, "{domain}: {how:?}");
                (
                    format!("delivered {host}"),
                    tls.unwrap_or_default().into_string(),
                )
            }
            _ => {
                let (class, subject, detail) = outcome.reply.enhanced.unwrap_or_default();
                assert_eq!(
                    class == 5,
                    outcome.fate == Fate::Failed,
                    "{domain}: {outcome:?}"
                );
                (
                    format!("{class}.{subject}.{detail}"),
                    outcome.reply.to_string(),
                )
            }
        };
        let why = why.replace("PORT", &hosts.port.to_string());
        if got != *want || !said.contains(&why) {
            wrong.push(format!("{domain} {wish:?}: {got} {said}; not {want} {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn mail_goes_as_tlsa_records_say_that_a_local_resolver_vouches_for() {
    goes_as_published(Resolver::Validates, Dnssec::Local).await;
}

#[tokio::test]
async fn mail_goes_as_tlsa_records_say_that_we_validate_ourselves() {
    goes_as_published(Resolver::PassesOn, Dnssec::Validate).await;
}

/// What `gatepost tls` says of a domain: its status, what is wanted of the server, and whether mail would go.
#[test]
fn the_command_says_what_tlsa_records_come_to() {
    if !dnssec::present() {
        return;
    }
    let hosts = Hosts::start();
    let (secure, plain) = zones(&hosts);
    let tree = Tree::start(&secure, &plain, Resolver::Validates);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gatepost.toml");
    let servers = tree.config(Dnssec::Local).servers;
    let servers: Vec<_> = servers.iter().map(|server| server.0.to_string()).collect();
    let text = format!(
        "hostname = \"mx.gate.example\"\n[domains.\"gate.example\"]\n[dns]\nservers = {servers:?}\n\
         [delivery]\nmta_sts = false\n"
    );
    fs::write(&file, text).unwrap();
    for (domain, goes, wanted, seen) in [
        ("d-ee", true, "dane: 1 TLSA record at", "TLS1.3"),
        (
            "d-wrong",
            false,
            "dane: 1 TLSA record at",
            "no TLSA record fits",
        ),
        (
            "d-strip",
            false,
            "dane: 1 TLSA record at",
            "the server offers no TLS",
        ),
        ("d-none", true, "may: nothing published", "no: "),
        (
            "d-torntlsa",
            false,
            "unknown: cannot resolve",
            "would not go",
        ),
    ] {
        let (domain, port) = (format!("{domain}.secure.example"), hosts.port.to_string());
        let file = file.display().to_string();
        let arguments = ["tls", &domain, "--port", &port, "--config", &file];
        let (succeeded, said) = process::attempt(&mut gatepost(&arguments));
        assert_eq!(succeeded, goes, "{said}");
        assert!(said.contains(&format!("wanted      {wanted}")), "{said}");
        assert!(said.contains(seen), "{said}");
    }
}

/// Level of the domain in `[delivery.tls]`, or of the route.
#[tokio::test]
async fn what_an_operator_writes_counts_before_what_is_published() {
    if !dnssec::present() {
        return;
    }
    let hosts = Hosts::start();
    let (secure, plain) = zones(&hosts);
    let tree = Tree::start(&secure, &plain, Resolver::Validates);
    for (domain, level, want, why) in [
        ("d-wrong.secure", Level::May, "delivered", "may: configured"),
        (
            "d-wrong.secure",
            Level::None,
            "delivered",
            "none: configured",
        ),
        (
            "d-strip.secure",
            Level::Encrypt,
            "4.7.4",
            "(encrypt: configured)",
        ),
        ("d-none.secure", Level::DaneOnly, "4.7.5", "no TLSA records"),
        ("d.plain", Level::DaneOnly, "4.7.5", "no TLSA records"),
        ("d-pkix.secure", Level::DaneOnly, "4.7.5", "can be used"),
        (
            "d-ee.secure",
            Level::DaneOnly,
            "delivered",
            "dane: 1 TLSA record",
        ),
        (
            "d-ee.secure",
            Level::Verify,
            "4.7.5",
            "(verify: configured)",
        ),
    ] {
        let mut config = Config::default();
        config.reuse.connections = 0;
        let name = format!("{domain}.example");
        config.tls.insert(Domain::parse(&name).unwrap(), level);
        let dns = Dns::new(&tree.config(Dnssec::Local)).unwrap();
        let ours = Domain::parse("mx.ours.example").unwrap();
        let delivery = Delivery::new(&config, ours, dns).unwrap();
        let outcome = send(&delivery, hosts.port, &name, Wish::Usual).await;
        let (class, subject, detail) = outcome.reply.enhanced.unwrap_or_default();
        let (got, said) = match (outcome.fate, &outcome.peer) {
            (Fate::Delivered(_), Some(peer)) => ("delivered".to_owned(), format!("{:?}", peer.tls)),
            _ => (
                format!("{class}.{subject}.{detail}"),
                outcome.reply.to_string(),
            ),
        };
        assert_eq!(got, want, "{domain} {level:?}: {said}");
        assert!(said.contains(why), "{domain} {level:?}: {said}");
    }
}

#[tokio::test]
async fn a_host_that_an_operator_names_is_known_by_its_records_too() {
    if !dnssec::present() {
        return;
    }
    let hosts = Hosts::start();
    let (secure, plain) = zones(&hosts);
    let tree = Tree::start(&secure, &plain, Resolver::Validates);
    let dns = Dns::new(&tree.config(Dnssec::Local)).unwrap();
    let ours = Domain::parse("mx.ours.example").unwrap();
    let delivery = Delivery::new(&Config::default(), ours, dns).unwrap();
    for (host, level, want) in [
        ("ee.secure", Level::Published, true),
        ("ee.secure", Level::DaneOnly, true),
        ("wrong.secure", Level::Published, false),
        ("wrong.secure", Level::May, true),
        ("host.plain", Level::Published, true),
        ("host.plain", Level::DaneOnly, false),
    ] {
        let to = format!("smtp:{host}.example:{}", hosts.port);
        let mut route = Route::to(NextHop::parse(&to).unwrap());
        route.name = format!("{host} {level}");
        route.tls = Some(level);
        let outcome = send_by(&delivery, route, "else.example", Wish::Usual).await;
        let delivered = matches!(outcome.fate, Fate::Delivered(_));
        assert_eq!(delivered, want, "{host} {level:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn postfix_gets_mail_where_its_own_key_is_published_and_none_where_anothers_is() {
    if !dnssec::present() || !postfix::present() {
        return;
    }
    let ours = "\nvirtual_mailbox_domains = mine.secure.example\n\
                virtual_mailbox_maps = inline:{a@mine.secure.example=user/}\n";
    let postfix = Postfix::start_with(Onward::Mailboxes, ours);
    let certificate = fs::read_to_string(postfix.certificate()).unwrap();
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let (right, wrong) = (sha256(&der), sha256(b"another"));
    let (address, port) = (postfix.smtp.ip(), postfix.smtp.port());
    let secure = format!(
        "mine.secure.example. A {address}\n_{port}._tcp.mine.secure.example. TLSA 3 0 1 {right}\n\
         other.secure.example. A {address}\n_{port}._tcp.other.secure.example. TLSA 3 0 1 {wrong}\n"
    );
    let tree = Tree::start(&secure, "", Resolver::Validates);
    let dns = Dns::new(&tree.config(Dnssec::Local)).unwrap();
    let ours = Domain::parse("mx.ours.example").unwrap();
    let delivery = Delivery::new(&Config::default(), ours, dns).unwrap();
    let outcome = send(&delivery, port, "mine.secure.example", Wish::Usual).await;
    assert!(matches!(outcome.fate, Fate::Delivered(_)), "{outcome:?}");
    let received = field(&postfix.mailbox("user").first(), "Received").join(" ");
    assert!(received.contains("TLSv1.3"), "{received}");
    let tls = outcome
        .peer
        .and_then(|peer| peer.tls.clone())
        .unwrap_or_default();
    assert!(
        tls.contains("dane: 1 TLSA record") && tls.ends_with("TLS1.3"),
        "{tls}"
    );
    let outcome = send(&delivery, port, "other.secure.example", Wish::Usual).await;
    assert!(matches!(outcome.fate, Fate::Deferred(_)), "{outcome:?}");
    assert!(
        outcome.reply.to_string().contains("no TLSA record fits"),
        "{outcome:?}"
    );
}
