//! Certificates from an authority: Pebble.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use gatepost::http;
use gatepost::tls::client::Trust;
use gatepost::tls::client::client_config_verified;
use hyper::Request;
use instant_acme::Account;
use instant_acme::AccountCredentials;
use instant_acme::BodyWrapper;
use instant_acme::BytesResponse;
use instant_acme::HttpClient;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::pebble;
use crate::support::pebble::Act;
use crate::support::pebble::Door;
use crate::support::pebble::Pebble;
use crate::support::process;
use crate::support::process::Process;
use crate::support::wait_until;

/// A site without a certificate of its own.
pub(super) fn site() -> Site {
    let mut site = Site::new();
    site.has_certificate = false;
    site
}

/// Whether a client that trusts this root alone is content with what it is shown after STARTTLS.
pub(super) fn is_content(
    gateway: &Gateway,
    root: &CertificateDer<'static>,
    name: &str,
) -> Option<()> {
    let mut client = Client::hello(gateway.smtp());
    client.expect("STARTTLS", "220");
    client.secure(root, name).ok()
}

#[test]
fn a_gateway_without_a_certificate_gets_one_and_shows_it_without_a_restart() {
    if !pebble::present() {
        return;
    }
    let site = site();
    let pebble = Pebble::start(site.dns.address);
    let implicit = free_port();
    let listen = format!(
        "[[listen]]\nservice = \"mx\"\naddress = \"127.0.0.1:{implicit}\"\ntls = \"implicit\"\n"
    );
    let gateway = site.with(&pebble.sections("")).with(&listen).start();
    let event = gateway.process.wait_for("certificate obtained");
    assert_eq!(event["names"], HOSTNAME);
    let root = pebble.root();
    wait_until(SOON, "the new certificate", || {
        is_content(&gateway, &root, HOSTNAME)
    });
    let mut client = Client::connect(([127, 0, 0, 1], implicit).into());
    client
        .secure(&root, HOSTNAME)
        .expect("with implicit TLS, too");

    let folder = gateway.site.path("data/acme");
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let found = entry.expect("an entry");
        let mode = found.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", found.path());
    }
    let metrics = gateway.site.get("/metrics");
    let line = format!("gatepost_certificate_expires_seconds{{name=\"{HOSTNAME}\"}} ");
    assert!(metrics.contains(&line), "{metrics}");
}

#[test]
fn a_name_is_shown_to_be_ours_by_a_certificate() {
    if !pebble::present() {
        return;
    }
    let site = site();
    let pebble = Pebble::start(site.dns.address);
    let alpn = "challenge = \"tls-alpn-01\"\nkey = \"rsa-2048\"";
    let gateway = site.with(&pebble.sections(alpn)).start();
    gateway.process.wait_for("certificate obtained");
    let root = pebble.root();
    wait_until(SOON, "the new certificate", || {
        is_content(&gateway, &root, HOSTNAME)
    });
}

#[test]
fn a_web_server_of_this_machine_may_show_the_page() {
    if !process::present(&["pebble", "python3"]) {
        return;
    }
    let site = site();
    let pebble = Pebble::start(site.dns.address);
    let webroot = site.path("www");
    fs::create_dir_all(&webroot).expect("a folder");
    let child = process::command("python3")
        .args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"])
        .arg(&webroot)
        .arg(pebble.http.port().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("python can be started");
    let _server = Process(child);
    wait_until(SOON, "the web server", || {
        TcpStream::connect(pebble.http).ok()
    });
    let section = pebble.sections(&format!("webroot = {webroot:?}"));
    let gateway = site.with(&section).start();
    gateway.process.wait_for("certificate obtained");
    let pages = webroot.join(".well-known/acme-challenge");
    let left = fs::read_dir(pages).expect("the folder is there").count();
    assert_eq!(left, 0, "the page is taken away");
}

#[test]
fn several_names_stand_in_one_certificate_and_each_kind_of_key_has_its_own() {
    if !pebble::present() {
        return;
    }
    let site = site();
    site.dns.host("other.gate.example", "127.0.0.1");
    let pebble = Pebble::start(site.dns.address);
    let more = format!(
        "[[acme.certificates]]\nnames = [\"{HOSTNAME}\", \"other.gate.example\"]\n\
         [[acme.certificates]]\nnames = [\"{HOSTNAME}\"]\nkey = \"rsa-2048\"\n"
    );
    let gateway = site.with(&pebble.sections(&more)).start();
    gateway.process.wait_for_nth("certificate obtained", 2);
    assert_eq!(gateway.process.events("account opened").len(), 1);
    let root = pebble.root();
    wait_until(SOON, "the other name", || {
        is_content(&gateway, &root, "other.gate.example")
    });
}

#[test]
fn a_failure_is_told_and_tried_again_later_over_restarts_and_at_once_after_a_reload() {
    if !pebble::present() {
        return;
    }
    let site = site();
    // The authority looks for the page where nobody listens.
    let pebble = Pebble::start(site.dns.address);
    let elsewhere = format!("127.0.0.1:{}", free_port());
    let sections = pebble.sections("retry_max = \"1day\"");
    let wrong = sections
        .replace(&pebble.http.to_string(), &elsewhere)
        .replace("retry_first = \"1s\"", "retry_first = \"1h\"");
    let mut gateway = site.with(&wrong).start();
    let event = gateway.process.wait_for("certificate not obtained");
    let reason = event["reason"].to_string();
    assert!(
        reason.contains("does not believe that mx.gate.example is ours"),
        "{reason}"
    );
    assert_eq!(event["attempt"], 1);

    let config = gateway.site.write_config().display().to_string();
    let (_, said) = process::attempt(&mut gatepost(&["check", "--config", &config]));
    assert!(said.contains("does not believe"), "{said}");

    gateway.process.stop();
    gateway.restart();
    gateway.process.wait_for("listening");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(
        gateway
            .process
            .events("certificate not obtained")
            .is_empty()
    );
    gateway.reload();
    let event = gateway.process.wait_for("certificate not obtained");
    assert_eq!(event["attempt"], 2);
}

#[test]
fn a_certificate_is_got_anew_when_that_is_asked_for_with_its_key_where_it_is_kept() {
    if !pebble::present() {
        return;
    }
    let site = site();
    let mut pebble = Pebble::start(site.dns.address);
    let gateway = site.with(&pebble.sections("reuse_key = true")).start();
    gateway.process.wait_for("certificate obtained");
    let file = gateway
        .site
        .path("data/acme/mx.gate.example.ecdsa-p256.pem");
    let key = |text: &str| text.split("-----END").next().map(str::to_owned);
    let first = fs::read_to_string(&file).expect("it is there");

    // An authority that has forgotten us is asked by another account.
    pebble.restart();
    let config = gateway.site.write_config().display().to_string();
    let said = process::run(&mut gatepost(&["acme", "renew", "--config", &config]));
    assert!(said.contains(HOSTNAME), "{said}");
    gateway.process.wait_for("account lost");
    gateway.process.wait_for_nth("certificate obtained", 2);
    let second = fs::read_to_string(&file).expect("it is there");
    assert_ne!(first, second);
    assert_eq!(key(&first), key(&second));
    let root = pebble.root();
    wait_until(SOON, "the new certificate", || {
        is_content(&gateway, &root, HOSTNAME)
    });
    let said = process::run(&mut gatepost(&["acme", "list", "--config", &config]));
    assert!(said.contains(HOSTNAME) && said.contains("until"), "{said}");
}

#[test]
fn an_account_that_the_authority_wants_to_know_is_bound() {
    if !pebble::present() {
        return;
    }
    let site = site();
    let pebble = Pebble::start_with(
        site.dns.address,
        r#""externalAccountBindingRequired": true,
           "externalAccountMACKeys": {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},"#,
    );
    let key = site.path("eab.key");
    fs::write(
        &key,
        "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n",
    )
    .expect("written");
    let bound = format!("external_account = {{ id = \"kid-1\", key_file = {key:?} }}");
    let gateway = site.with(&pebble.sections(&bound)).start();
    gateway.process.wait_for("certificate obtained");
}

#[test]
fn an_authority_that_wants_to_be_left_alone_is_left_alone() {
    if !pebble::present() {
        return;
    }
    let site = site();
    let pebble = Pebble::start(site.dns.address);
    let times = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&times);
    let door = Door::before(&pebble, move |request| {
        if !request.starts_with("POST /order-plz") {
            return Act::Pass;
        }
        seen.fetch_add(1, Ordering::Relaxed);
        let problem = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many, see our page"}"#;
        let header = "Retry-After: 3600\r\nReplay-Nonce: none\r\n";
        Act::Answer(pebble::answer("429 Too Many Requests", header, problem))
    });
    let sections = pebble.sections_at(&door.directory(), "");
    let mut gateway = site.with(&sections).start();
    let event = gateway.process.wait_for("certificate not obtained");
    let reason = event["reason"].to_string();
    assert!(
        reason.contains("too many, see our page (rateLimited)"),
        "{reason}"
    );
    let next: jiff::Timestamp = event["next"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("a time");
    let wait = jiff::Timestamp::now().duration_until(next);
    assert!(wait.as_secs() > 3500, "{event}");
    // Neither a restart, nor a reload, nor an operator changes that.
    gateway.process.stop();
    gateway.restart();
    let config = gateway.site.write_config().display().to_string();
    process::run(&mut gatepost(&["acme", "renew", "--config", &config]));
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(times.load(Ordering::Relaxed), 1);
}

#[test]
fn an_authority_that_breaks_is_asked_again_until_it_works() {
    if !pebble::present() {
        return;
    }
    let site = site();
    let pebble = Pebble::start(site.dns.address);
    let left = AtomicUsize::new(3);
    let door = Door::before(&pebble, move |_| {
        let turn = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        match turn {
            Ok(3) => Act::Answer(pebble::answer("502 Bad Gateway", "", "<html>")),
            Ok(2) => Act::Answer("no HTTP\r\n".to_owned()),
            Ok(_) => Act::Answer(pebble::answer("200 OK", "", "{}")),
            Err(_) => Act::Pass,
        }
    });
    let gateway = site
        .with(&pebble.sections_at(&door.directory(), "retry_max = \"2s\""))
        .start();
    let reasons: Vec<_> = (1..=3)
        .map(|n| gateway.process.wait_for_nth("certificate not obtained", n)["reason"].to_string())
        .collect();
    for (reason, want) in reasons
        .iter()
        .zip(["502", "by the rules of HTTP", "missing field"])
    {
        assert!(reason.contains(want), "{reasons:?}");
    }
    gateway.process.wait_for("certificate obtained");
}

#[test]
fn a_certificate_is_renewed_when_the_authority_would_like_it_to_be() {
    if !pebble::present() {
        return;
    }
    let site = site();
    let pebble = Pebble::start(site.dns.address);
    let port = Arc::new(OnceLock::new());
    let at = Arc::clone(&port);
    let asked = AtomicUsize::new(0);
    let door = Door::before(&pebble, move |request| {
        if request.starts_with("GET /dir") {
            let url: &String = at.get().expect("it is open");
            return Act::Add(format!("\"renewalInfo\": {url:?}"));
        }
        if !request.starts_with("GET /renewal/") {
            return Act::Pass;
        }
        // The first certificate is about to be revoked, the second is not.
        let years = match asked.fetch_add(1, Ordering::Relaxed) {
            0 => ("2020", "2021"),
            _ => ("2098", "2099"),
        };
        let window = format!(
            r#"{{"suggestedWindow": {{"start": "{}-01-01T00:00:00Z", "end": "{}-01-01T00:00:00Z"}}}}"#,
            years.0, years.1
        );
        Act::Answer(pebble::answer("200 OK", "Retry-After: 3600\r\n", &window))
    });
    port.set(door.url("/renewal")).expect("set once");
    let gateway = site
        .with(&pebble.sections_at(&door.directory(), ""))
        .start();
    gateway.process.wait_for_nth("certificate obtained", 2);
    let config = gateway.site.write_config().display().to_string();
    wait_until(SOON, "the next window", || {
        let said = process::run(&mut gatepost(&["acme", "list", "--config", &config]));
        said.contains("next 2098-").then_some(())
    });
    assert_eq!(gateway.process.events("certificate obtained").len(), 2);
}

#[test]
fn an_account_that_was_closed_is_followed_by_another() {
    if !pebble::present() {
        return;
    }
    let site = site();
    let pebble = Pebble::start(site.dns.address);
    let gateway = site.with(&pebble.sections("")).start();
    gateway.process.wait_for("certificate obtained");
    let folder = fs::read_dir(gateway.site.path("data/acme")).expect("the folder is there");
    let kept = folder.flatten().map(|entry| entry.path());
    let kept = kept.filter(|path| path.to_string_lossy().contains("/account-"));
    let kept = fs::read_to_string(kept.last().expect("an account")).expect("it can be read");
    close(&kept, &pebble);

    let config = gateway.site.write_config().display().to_string();
    process::run(&mut gatepost(&[
        "acme", "renew", HOSTNAME, "--config", &config,
    ]));
    gateway.process.wait_for("account lost");
    gateway.process.wait_for_nth("certificate obtained", 2);
}

/// Closes an account at the authority, as its owner.
fn close(account: &str, pebble: &Pebble) {
    let tls = client_config_verified(Trust::File(&pebble.ca_file())).expect("a certificate");
    let client = http::Client::new(TlsConnector::from(tls), SOON);
    let credentials: AccountCredentials = serde_json::from_str(account).expect("an account");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let builder = Account::builder_with_http(Box::new(Https(client)));
        let account = builder.from_credentials(credentials).await;
        let closed = account.expect("it answers").deactivate().await;
        closed.expect("it is closed");
    });
}

struct Https(http::Client);

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = client.send(request).await.expect("an answer").into_parts();
            let body = Box::new(body);
            Ok(BytesResponse { parts, body })
        })
    }
}
