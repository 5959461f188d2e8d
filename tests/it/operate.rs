//! What an operator and the service manager see from outside.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mailbox::Mailbox;
use crate::support::mails::mail;
use crate::support::process::attempt;
use crate::support::process::present;
use crate::support::process::root;
use crate::support::wait_until;

#[test]
fn metrics_count_what_the_log_says() {
    let gateway = Gateway::start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<nobody@gate.example>", "550");
    client.expect("RSET", "250");
    let message = mail("a@client.example", "counted");
    client.hand_over("a@client.example", "user@gate.example", &message);
    gateway.process.wait_for("delivered");
    let metrics = gateway.site.get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    for line in [
        "gatepost_accepted_total 1",
        "gatepost_delivered_total 1",
        "gatepost_refused_total{stage=\"rcpt\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    assert!(!metrics.contains("client.example"), "a stranger is a label");
}

#[test]
fn health_is_good_while_it_runs() {
    let gateway = Gateway::start();
    let health = gateway.site.get("/health");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
}

#[test]
fn the_gauges_follow_sessions_and_the_queue() {
    let site = Site::new();
    // A file stands where the Maildirs would be made, so that mail stays in the spool.
    fs::write(site.path("mail"), "in the way").expect("written");
    let gateway = site.start();
    let shows = |line: &str| {
        wait_until(SOON, line, || {
            let metrics = gateway.site.get("/metrics");
            metrics.lines().any(|have| have == line).then_some(())
        });
    };
    shows("gatepost_sessions 0");
    shows("gatepost_queue_messages 0");
    let mut client = Client::hello(gateway.smtp());
    shows("gatepost_sessions 1");
    let message = mail("a@client.example", "queued");
    let reply = client.deliver("a@client.example", "user@gate.example", &message);
    assert!(reply.starts_with("250"), "{reply:?}");
    shows("gatepost_queue_messages 1");
    drop(client);
    shows("gatepost_sessions 0");
    fs::remove_file(gateway.site.path("mail")).expect("it is there");
    shows("gatepost_queue_messages 0");
}

#[test]
fn health_says_that_the_spool_cannot_store_until_it_can() {
    if !present(&["unshare"]) || !root() {
        return;
    }
    let spool = "segment_size = \"8MiB\"\nlarge_message = \"64KiB\"\nkeep_free = \"8MiB\"";
    let site = Site::new().with(&format!("[spool]\n{spool}"));
    fs::write(site.path("mail"), "in the way").expect("written");
    fs::create_dir(site.path("data")).expect("a new folder");
    let script = format!(
        "mount -t tmpfs -o size=32m none {:?} && exec {:?} serve --config {:?}",
        site.path("data"),
        env!("CARGO_BIN_EXE_gatepost"),
        site.write_config()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let process = Running::run(command);
    process.wait_for("started");
    let healthy = || site.get("/health").starts_with("HTTP/1.1 200");
    assert!(healthy(), "{}", site.get("/health"));
    // Just above large_message, so that each takes space of its own until it is delivered.
    let line = format!("{}\r\n", "x".repeat(998));
    let large = mail("a@client.example", "large") + &line.repeat(66);
    let mut client = Client::hello(site.smtp);
    let refusal = (0..500)
        .map(|_| client.deliver("a@client.example", "user@gate.example", &large))
        .find(|reply| !reply.starts_with("250"))
        .expect("the disk is full at some time");
    assert!(refusal.starts_with("452 4.3.1"), "{refusal:?}");
    let health = site.get("/health");
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    assert!(
        health.contains("spool: the spool's disk is full"),
        "{health}"
    );
    fs::remove_file(site.path("mail")).expect("it is there");
    wait_until(SOON, "good health", || healthy().then_some(()));
}

#[test]
fn the_service_manager_is_told_of_each_turn() {
    let site = Site::new();
    let path = site.path("notify");
    let manager = UnixDatagram::bind(&path).expect("a new socket");
    manager
        .set_read_timeout(Some(SOON))
        .expect("a time-out can be set");
    let told = |what: &str| {
        let mut text = [0; 4096];
        wait_until(SOON, what, || {
            let length = manager.recv(&mut text).ok()?;
            let text = String::from_utf8_lossy(&text[..length]);
            text.lines().any(|line| line == what).then_some(())
        });
    };
    let config = site.write_config().display().to_string();
    let mut command = gatepost(&["serve", "--config", &config]);
    command.env("NOTIFY_SOCKET", &path);
    let mut process = Running::run(command);
    told("READY=1");
    // Ready means ready.
    Client::hello(site.smtp).expect("NOOP", "250");
    process.signal(Signal::SIGHUP);
    told("RELOADING=1");
    told("READY=1");
    process.signal(Signal::SIGTERM);
    told("STOPPING=1");
    assert!(process.ended().success());
}

#[test]
fn ipv6_clients_are_served() {
    let port = free_port();
    let listen = format!("[[listen]]\nservice = \"mx\"\naddress = \"[::1]:{port}\"\n");
    let gateway = Site::new().with(&listen).start();
    let address = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    gateway.site.dns.txt("six.example", "v=spf1 ip6:::1 -all");
    let mut client = Client::hello(address);
    let message = mail("a@six.example", "six");
    client.hand_over("a@six.example", "user@gate.example", &message);
    let got = gateway.site.mailbox("user").first();
    assert!(got.contains("[IPv6:::1]"), "{got}");
}

#[test]
fn the_log_is_text_where_no_format_is_given() {
    let site = Site::new();
    let config = site.config().replace("format = \"json\"", "");
    let file = site.path("gatepost.toml");
    fs::write(&file, config).expect("written");
    let process = Running::start(&file);
    let line = wait_until(SOON, "the start", || {
        let log = process.log();
        log.lines()
            .find(|line| line.contains("started"))
            .map(str::to_owned)
    });
    assert!(line.contains("hostname=mx.gate.example"), "{line}");
    assert!(
        !line.contains('\u{1b}'),
        "colours go to terminals only: {line:?}"
    );
}

#[test]
fn each_command_has_help_with_an_example() {
    for command in ["serve", "check", "demo"] {
        let (succeeded, said) = attempt(&mut gatepost(&[command, "--help"]));
        assert!(
            succeeded && said.contains(&format!("gatepost {command}")),
            "{said}"
        );
    }
}

#[test]
fn the_tour_of_the_demo_goes_as_told() {
    let (succeeded, said) = attempt(
        Command::new("timeout")
            .arg("60")
            .arg(env!("CARGO_BIN_EXE_gatepost"))
            .args(["demo", "--once"]),
    );
    assert!(succeeded, "{said}");
    for words in ["550 5.7.23", "550 5.7.1", "dkim=pass", "dmarc=pass"] {
        assert!(said.contains(words), "{words} is not in:\n{said}");
    }
}

#[test]
fn what_led_to_a_refusal_is_in_the_log_under_its_id() {
    let site = Site::new();
    site.dns.txt("_dmarc.bank.example", "v=DMARC1; p=reject");
    let gateway = site.start();
    let mut client = Client::hello(gateway.smtp());
    let forged = mail("service@bank.example", "forged");
    let reply = client.deliver("a@client.example", "user@gate.example", &forged);
    assert!(reply.starts_with("550 5.7.1"), "{reply:?}");
    let refused = gateway.process.wait_for("refused");
    assert_eq!(refused["rcpt"], "<user@gate.example>");
    let judged = gateway.process.wait_for("judged");
    assert_eq!(judged["id"], refused["id"]);
    let results = judged["results"].to_string();
    assert!(results.contains("dmarc=fail (p=reject)"), "{results}");
}

#[test]
fn dmarc_that_only_observes_holds_nothing() {
    let site = Site::new();
    site.dns
        .txt("_dmarc.bank.example", "v=DMARC1; p=quarantine");
    let observing = "[dmarc]\nmode = \"observe\"\nquarantine = \"hold\"";
    let file = site.path("gatepost.toml");
    fs::write(&file, site.config().replace("[dmarc]", observing)).expect("written");
    let process = Running::start(&file);
    process.wait_for("started");
    let mut client = Client::hello(site.smtp);
    let doubtful = mail("service@bank.example", "doubtful");
    let reply = client.deliver("a@client.example", "user@gate.example", &doubtful);
    assert!(reply.starts_with("250"), "{reply:?}");
    let got = site.mailbox("user").first();
    assert!(got.contains("dmarc=fail (p=quarantine)"), "{got}");
}

#[test]
fn root_becomes_the_user_of_the_config_and_mail_is_theirs() {
    if !root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody")
        .expect("the user list can be read")
        .expect("every system has nobody");
    let site = Site::new();
    // Others may walk through the folder to what is made for them.
    fs::set_permissions(site.folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mail_folder = site.path("data/mail");
    let target = format!("maildir:{}/{{local}}", mail_folder.display());
    let site = site.delivering_to(target);
    let config = format!("user = \"nobody\"\n{}", site.config());
    let file = site.path("gatepost.toml");
    fs::write(&file, config).expect("written");
    let process = Running::start(&file);
    process.wait_for("started");
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    for (name, want) in [("Uid", nobody.uid.as_raw()), ("Gid", nobody.gid.as_raw())] {
        let line = status.lines().find(|line| line.starts_with(name));
        let ids: Vec<&str> = line
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .collect();
        // Real, effective, saved, of the file system: no way back.
        assert_eq!(ids, [want.to_string().as_str(); 4], "{name}");
    }
    let message = mail("a@client.example", "for nobody");
    Client::hello(site.smtp).hand_over("a@client.example", "user@gate.example", &message);
    Mailbox::at(mail_folder.join("user")).first();
    let owner = fs::metadata(mail_folder.join("user")).expect("it is there");
    assert_eq!(owner.uid(), nobody.uid.as_raw());
}
