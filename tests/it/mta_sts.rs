//! What becomes of mail whose destination has an MTA-STS policy, or seems to (RFC 8461): a web server
//! that has policies of all kinds, and mail exchangers with certificates of all kinds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::HashMap;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

use rand::Rng;
use serde_json::Value;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::rustls::StreamOwned;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mails::mail;
use crate::support::process;
use crate::support::tls_host::Authority;
use crate::support::tls_host::Tls;
use crate::support::tls_host::TlsHost;
use crate::support::wait_until;

const VALID: i32 = 4096;

/// Status, type and body.
type Page = (u16, &'static str, String);

/// A web server at the port that policies are fetched from.
struct Web {
    address: Ipv4Addr,
    pages: Arc<Mutex<HashMap<String, Page>>>,
}

impl Web {
    fn start(config: Arc<ServerConfig>) -> Web {
        // Others may have the port at some of the addresses.
        let any = |_| {
            let mut rng = rand::rng();
            let address = Ipv4Addr::new(127, rng.random_range(64..128), rng.random(), rng.random());
            TcpListener::bind((address, 443)).map(|listener| (address, listener))
        };
        let (address, listener) = (0..100).find_map(|n| any(n).ok()).expect("port 443");
        let pages = Arc::<Mutex<HashMap<String, Page>>>::default();
        let shown = Arc::clone(&pages);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, shown) = (Arc::clone(&config), Arc::clone(&shown));
                thread::spawn(move || serve(stream, config, &shown));
            }
        });
        Web { address, pages }
    }

    fn show(&self, domain: &str, page: Page) {
        let mut pages = self.pages.lock().unwrap();
        pages.insert(format!("mta-sts.{domain}"), page);
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    pages: &Mutex<HashMap<String, Page>>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let (mut line, mut host) = (String::new(), String::new());
    stream.read_line(&mut line)?;
    assert_eq!(line, "GET /.well-known/mta-sts.txt HTTP/1.1\r\n");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line)?;
        if let Some(value) = line.strip_prefix("host: ") {
            value.trim().clone_into(&mut host);
        }
    }
    let page = pages.lock().unwrap().get(&host).cloned();
    let (status, kind, body) = page.unwrap_or((404, "text/plain", String::new()));
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nLocation: https://{host}/other\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    let out = stream.get_mut();
    out.write_all(answer.as_bytes())?;
    out.conn.send_close_notify();
    out.flush()
}

fn policy(mode: &str, mx: &[&str]) -> Page {
    policy_for(mode, mx, 86_400)
}

fn policy_for(mode: &str, mx: &[&str], max_age: u64) -> Page {
    let mx: String = mx.iter().map(|mx| format!("mx: {mx}\r\n")).collect();
    let text = format!("version: STSv1\r\nmode: {mode}\r\n{mx}max_age: {max_age}\r\n");
    (200, "text/plain; charset=utf-8", text)
}

/// A gateway, the web server, and mail exchangers.
struct Scene {
    gateway: Gateway,
    internal: SocketAddr,
    web: Web,
    trusted: std::path::PathBuf,
    hosts: Vec<TlsHost>,
}

impl Scene {
    /// The web server's certificate is for the names below `mta-sts.` of these domains.
    fn start(domains: &[&str]) -> Scene {
        let (trusted, stranger) = (Authority::new(), Authority::new());
        let web_names: Vec<String> = domains.iter().map(|d| format!("mta-sts.{d}")).collect();
        let web_names: Vec<&str> = web_names.iter().map(String::as_str).collect();
        let web = Web::start(trusted.issue_all(&web_names, VALID).server_config());
        let (port, internal) = (free_port(), free_port());
        let internal = SocketAddr::from((Ipv4Addr::LOCALHOST, internal));
        let mut site = Site::new();
        site.queue = "retry_max = \"1s\"\npause_first = \"1s\"\npause_max = \"1s\"".to_owned();
        let with = |chain: crate::support::tls_host::Chain| Tls::With(chain.server_config());
        let hosts = [
            ("good.example", with(trusted.issue("good.example", VALID))),
            ("self.example", with(stranger.issue("self.example", VALID))),
            ("name.example", with(trusted.issue("other.example", VALID))),
            ("old.example", with(trusted.issue("old.example", 2020))),
            ("strip.example", Tls::NotOffered),
            ("keeps.example", with(trusted.issue("keeps.example", VALID))),
            (
                "a.wild.example",
                with(trusted.issue("a.wild.example", VALID)),
            ),
        ];
        let hosts = (40..).zip(hosts).map(|(octet, (name, tls))| {
            let address = Ipv4Addr::new(127, 0, 0, octet);
            site.dns.host(name, &address.to_string());
            let offers: &[&str] = match name {
                "keeps.example" => &["REQUIRETLS"],
                _ => &[],
            };
            TlsHost::start((address, port).into(), tls, offers)
        });
        let hosts = hosts.collect();
        let site = site.with(&format!(
            "[[listen]]\nservice = \"internal\"\naddress = \"{internal}\"\n\n\
             [routes.internet]\nto = \"mx:{port}\"\n"
        ));
        let roots = site.path("roots.pem");
        fs::write(&roots, trusted.pem()).unwrap();
        let process = start(&site, &roots);
        Scene {
            gateway: Gateway { site, process },
            internal,
            web,
            trusted: roots,
            hosts,
        }
    }

    fn restart(&mut self) {
        self.gateway.process.stop();
        self.gateway.process = start(&self.gateway.site, &self.trusted);
    }

    /// A domain with these mail exchangers, and the id of a policy.
    fn publish(&self, domain: &str, id: &str, mx: &[&str]) {
        let dns = &self.gateway.site.dns;
        for (place, host) in mx.iter().enumerate() {
            dns.record(domain, "MX", &format!("{} {host}", 10 * (place + 1)));
        }
        dns.txt(&format!("_mta-sts.{domain}"), &format!("v=STSv1; id={id};"));
        dns.host(&format!("mta-sts.{domain}"), &self.web.address.to_string());
    }

    fn send(&self, domain: &str) {
        let mut client = Client::hello(self.internal);
        let message = mail("a@gate.example", "to them");
        client.hand_over("a@gate.example", &format!("a@{domain}"), &message);
    }

    /// The first event of this name that is about a recipient in the domain.
    fn wait_for(&self, event: &str, domain: &str) -> Value {
        let rcpt = format!("a@{domain}");
        wait_until(SOON, &format!("{event} {domain}"), || {
            let events = self.gateway.process.events(event);
            events.into_iter().find(|event| event["rcpt"] == *rcpt)
        })
    }

    /// The results that were told about a domain, by type of policy.
    fn told(&self, domain: &str) -> Vec<String> {
        let events = self.gateway.process.events("next hop not safe");
        let of_domain = events.iter().filter(|event| event["domain"] == domain);
        let word = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
        of_domain
            .map(|event| format!("{} {}", word(event, "policy"), word(event, "result")))
            .collect()
    }
}

fn start(site: &Site, roots: &std::path::Path) -> Running {
    let file = site.write_config().display().to_string();
    let mut command = gatepost(&["serve", "--config", &file]);
    command.env("SSL_CERT_FILE", roots);
    let process = Running::run(command);
    process.wait_for("started");
    process
}

/// The domain without `.test.example`, its mail exchangers, what the web server has, whether the mail
/// is delivered, what the decision or the reason has in it, and what is told.
type Row = (
    &'static str,
    &'static [&'static str],
    Option<fn() -> Page>,
    bool,
    &'static str,
    &'static [&'static str],
);

const GOOD: &[&str] = &["good.example"];
const SELF: &[&str] = &["self.example"];
const STRIP: &[&str] = &["strip.example"];

const ROWS: &[Row] = &[
    (
        "good",
        GOOD,
        Some(|| policy("enforce", GOOD)),
        true,
        "verify: MTA-STS enforce 1; TLS1.3",
        &[],
    ),
    (
        "wild",
        &["a.wild.example"],
        Some(|| policy("enforce", &["x.example", "*.wild.example"])),
        true,
        "verify: MTA-STS enforce",
        &[],
    ),
    (
        "self",
        SELF,
        Some(|| policy("enforce", SELF)),
        false,
        "UnknownIssuer",
        &["sts certificate-not-trusted"],
    ),
    (
        "name",
        &["name.example"],
        Some(|| policy("enforce", &["name.example"])),
        false,
        "not valid for name",
        &["sts certificate-host-mismatch"],
    ),
    (
        "old",
        &["old.example"],
        Some(|| policy("enforce", &["old.example"])),
        false,
        "expired",
        &["sts certificate-expired"],
    ),
    (
        "strip",
        STRIP,
        Some(|| policy("enforce", STRIP)),
        false,
        "offers no TLS",
        &["sts starttls-not-supported"],
    ),
    (
        "unnamed",
        GOOD,
        Some(|| policy("enforce", &["*.good.example"])),
        false,
        "not among the hosts",
        &["sts validation-failure"],
    ),
    (
        "mixed",
        &["strip.example", "self.example", "good.example"],
        Some(|| policy("enforce", &["good.example", "self.example"])),
        true,
        "verify: MTA-STS enforce",
        &["sts validation-failure", "sts certificate-not-trusted"],
    ),
    (
        "tests-good",
        GOOD,
        Some(|| policy("testing", GOOD)),
        true,
        "trial: MTA-STS testing 1; TLS1.3",
        &[],
    ),
    (
        "tests-self",
        SELF,
        Some(|| policy("testing", SELF)),
        true,
        "may: MTA-STS testing 1; TLS1.3",
        &["sts certificate-not-trusted"],
    ),
    (
        "tests-strip",
        STRIP,
        Some(|| policy("testing", STRIP)),
        true,
        "may: MTA-STS testing 1; not offered",
        &["sts starttls-not-supported"],
    ),
    (
        "tests-unnamed",
        GOOD,
        Some(|| policy("testing", SELF)),
        true,
        "may: MTA-STS testing 1; TLS1.3",
        &["sts validation-failure"],
    ),
    (
        "none",
        SELF,
        Some(|| policy("none", &[])),
        true,
        "may: nothing published; TLS1.3",
        &[],
    ),
    (
        "lost",
        SELF,
        None,
        true,
        "may: nothing published",
        &["sts sts-policy-fetch-error"],
    ),
    (
        "moved",
        SELF,
        Some(|| (301, "text/plain", policy("enforce", SELF).2)),
        true,
        "may: nothing published",
        &["sts sts-policy-fetch-error"],
    ),
    (
        "html",
        SELF,
        Some(|| (200, "text/html", policy("enforce", SELF).2)),
        true,
        "may: nothing published",
        &["sts sts-policy-fetch-error"],
    ),
    (
        "long",
        SELF,
        Some(|| {
            (
                200,
                "text/plain",
                policy("enforce", SELF).2 + &"x: y\n".repeat(20_000),
            )
        }),
        true,
        "may: nothing published",
        &["sts sts-policy-fetch-error"],
    ),
    (
        "broken",
        SELF,
        Some(|| policy("maybe", SELF)),
        true,
        "may: nothing published",
        &["sts sts-policy-invalid"],
    ),
    (
        "webpki",
        SELF,
        Some(|| policy("enforce", SELF)),
        true,
        "may: nothing published",
        &["sts sts-webpki-invalid"],
    ),
];

#[test]
fn mail_goes_as_the_policy_of_its_destination_says() {
    if !process::root() {
        return;
    }
    let domains: Vec<String> = ROWS
        .iter()
        .map(|row| format!("{}.test.example", row.0))
        .collect();
    let web_names = domains.iter().map(String::as_str);
    let web_names: Vec<&str> = web_names
        .filter(|name| !name.starts_with("webpki"))
        .collect();
    let scene = Scene::start(&web_names);
    for ((_, mx, page, ..), domain) in ROWS.iter().zip(&domains) {
        scene.publish(domain, "1", mx);
        if let Some(page) = page {
            scene.web.show(domain, page());
        }
        scene.send(domain);
    }
    for ((_, _, _, delivered, why, told), domain) in ROWS.iter().zip(&domains) {
        let (event, key) = match delivered {
            true => ("delivered", "tls"),
            false => ("deferred", "reason"),
        };
        let said = scene.wait_for(event, domain)[key]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(said.contains(why), "{domain}: {said}");
        let mut known = scene.told(domain);
        // A deferred message may have been tried again by now.
        known.truncate(told.len());
        assert_eq!(known, *told, "{domain}");
    }
    let metrics = scene.gateway.site.get("/metrics");
    for (policy, result) in [
        ("sts", "success"),
        ("sts", "certificate-expired"),
        ("sts", "sts-policy-fetch-error"),
        ("no-policy-found", "success"),
    ] {
        let counter = format!("gatepost_host_tls_total{{policy=\"{policy}\",result=\"{result}\"}}");
        assert!(metrics.contains(&counter), "{counter} in {metrics}");
    }
}

#[test]
fn a_policy_that_was_seen_counts_until_its_time_is_over() {
    if !process::root() {
        return;
    }
    let (kept, short) = ("kept.test.example", "short.test.example");
    let mut scene = Scene::start(&[kept, short]);
    let dns_forgets = |scene: &Scene, domain: &str| {
        scene.gateway.site.dns.forget(&format!("_mta-sts.{domain}"));
    };
    // It is fetched, then the web server and the record are gone, and so is TLS.
    for (domain, max_age) in [(kept, 86_400), (short, 3)] {
        scene.publish(domain, "1", STRIP);
        scene
            .web
            .show(domain, policy_for("enforce", STRIP, max_age));
        scene.send(domain);
        scene.wait_for("deferred", domain);
        scene.web.show(domain, (500, "text/plain", String::new()));
        dns_forgets(&scene, domain);
    }
    assert!(
        scene.wait_for("delivered", short)["tls"]
            .as_str()
            .unwrap()
            .contains("nothing published")
    );
    // Neither a restart nor the DNS's silence makes a difference for the other.
    scene.restart();
    let reason = scene.wait_for("deferred", kept)["reason"].to_string();
    assert!(reason.contains("(verify: MTA-STS enforce 1)"), "{reason}");
    assert!(scene.gateway.process.events("delivered").is_empty());
    // A new id is a new policy.
    scene
        .gateway
        .site
        .dns
        .txt(&format!("_mta-sts.{kept}"), "v=STSv1; id=2");
    scene.web.show(kept, policy("none", &[]));
    scene.restart();
    scene.wait_for("delivered", kept);
}

#[test]
fn a_policy_that_is_a_day_old_is_fetched_anew_and_stays_where_that_fails() {
    if !process::root() {
        return;
    }
    let (renewed, lost) = ("renewed.test.example", "lost.test.example");
    let mut scene = Scene::start(&[renewed, lost]);
    for domain in [renewed, lost] {
        scene.publish(domain, "1", STRIP);
        let two_days = Duration::from_secs(2 * 86_400);
        let fetched = (SystemTime::now() - two_days).duration_since(SystemTime::UNIX_EPOCH);
        let file = serde_json::json!({
            "id": "1",
            "fetched": fetched.unwrap().as_secs(),
            "policy": policy_for("enforce", STRIP, 7 * 86_400).2,
        });
        let folder = scene.gateway.site.path("data/mta-sts");
        fs::write(folder.join(domain), file.to_string()).unwrap();
    }
    scene.web.show(renewed, policy("none", &[]));
    scene.restart();
    scene.send(renewed);
    scene.send(lost);
    scene.wait_for("delivered", renewed);
    let reason = scene.wait_for("deferred", lost)["reason"].to_string();
    assert!(reason.contains("(verify: MTA-STS enforce 1)"), "{reason}");
    assert_eq!(scene.told(lost)[0], "sts sts-policy-fetch-error");
}

#[test]
fn a_message_that_requires_tls_gets_it_or_comes_back() {
    if !process::root() {
        return;
    }
    let domains = [
        "keeps.test.example",
        "good.test.example",
        "tests.test.example",
        "self.test.example",
    ];
    let scene = Scene::start(&domains);
    let [keeps, good, tests, stranger] = domains;
    scene.publish(keeps, "1", &["keeps.example"]);
    scene.web.show(keeps, policy("enforce", &["keeps.example"]));
    scene.publish(good, "1", GOOD);
    scene.web.show(good, policy("enforce", GOOD));
    scene.publish(tests, "1", SELF);
    scene.web.show(tests, policy("testing", SELF));
    scene.publish(stranger, "1", SELF);
    let site = &scene.gateway.site;
    for domain in domains {
        let mut client = Client::hello(scene.internal);
        client.expect("STARTTLS", "220");
        client.secure(&site.certificate.der, HOSTNAME).unwrap();
        client.expect("EHLO client.example", "250");
        client.expect("MAIL FROM:<user@gate.example> REQUIRETLS RET=FULL", "250");
        client.expect(&format!("RCPT TO:<a@{domain}>"), "250");
        client.expect("DATA", "354");
        let message = mail("user@gate.example", "a secret");
        client.expect(&format!("{message}\r\n."), "250");
    }
    scene.wait_for("delivered", keeps);
    let taken: Vec<_> = scene.hosts.iter().flat_map(TlsHost::taken).collect();
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert!(taken[0].mail.ends_with(" REQUIRETLS"), "{taken:?}");
    for (domain, why) in [
        (good, "(5.7.30)"),
        (tests, "the sender requires TLS: TLS with self.example"),
        (stranger, "nothing proves"),
    ] {
        let reason = scene.wait_for("failed", domain)["reason"].to_string();
        assert!(reason.contains(why), "{domain}: {reason}");
    }
    // What was not to be read on the way does not come back whole, whatever its sender said.
    let bounces = site.mailbox("user").wait_for(3);
    for bounce in bounces {
        assert!(bounce.contains("Subject: a secret"), "{bounce}");
        assert!(bounce.contains("text/rfc822-headers"), "{bounce}");
    }
}
