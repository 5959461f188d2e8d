//! What an operator gets wrong, and what breaks around us: a clear message each, and nothing lost.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::dns::Behaviour;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mails::mail;
use crate::support::process::attempt;
use crate::support::process::present;
use crate::support::process::root;
use crate::support::wait_until;

/// Starts on a file that cannot work; gives what was said. The status must not be success.
fn refusal(site: &Site, config: &str) -> String {
    let file = site.path("gatepost.toml");
    fs::write(&file, config).expect("written");
    let mut process = Running::start(&file);
    let status = process.ended();
    assert!(!status.success(), "it started:\n{}", process.log());
    process.log()
}

#[track_caller]
fn assert_says(log: &str, words: &[&str]) {
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let (succeeded, said) = attempt(&mut gatepost(&["serve", "--config", "/no/such/file.toml"]));
    assert!(!succeeded);
    assert_says(&said, &["/no/such/file.toml"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let (succeeded, said) = attempt(&mut gatepost(&["serve", "--config", "/"]));
    assert!(!succeeded);
    assert_says(&said, &["cannot read", "directory"]);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_right_one() {
    let site = Site::new();
    let config = site.config().replace("hostname =", "hostnam =");
    assert_says(
        &refusal(&site, &config),
        &["gatepost.toml:1: hostnam: ", "did you mean hostname?"],
    );
}

#[test]
fn a_wrong_value_is_named_with_its_key() {
    let site = Site::new();
    let config = site.config().replace("\"starttls\"", "\"sometimes\"");
    assert_says(&refusal(&site, &config), &["tls", "sometimes", "starttls"]);
}

#[test]
fn check_names_every_fault_at_once_and_touches_nothing() {
    let site = Site::new();
    let config = site
        .config()
        .replace("recipients =", "recipiants =")
        .replace("retry_first =", "retry_frist =");
    let file = site.path("gatepost.toml");
    fs::write(&file, config).expect("written");
    let (succeeded, said) = attempt(&mut gatepost(&[
        "check",
        "--config",
        &file.display().to_string(),
    ]));
    assert!(!succeeded);
    assert_says(
        &said,
        &["recipiants", "recipients", "retry_frist", "retry_first"],
    );
    assert!(!site.path("data").exists());
}

#[test]
fn check_of_a_right_file_succeeds() {
    let file = Site::new();
    let path = file.write_config().display().to_string();
    let (succeeded, said) = attempt(&mut gatepost(&["check", "--config", &path]));
    assert!(succeeded, "{said}");
}

#[test]
fn the_file_that_the_readme_shows_is_right() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(readme).expect("it is there");
    let (_, rest) = readme.split_once("```toml\n").expect("a file is shown");
    let (shown, _) = rest.split_once("```").expect("the block is closed");
    let site = Site::new();
    let config = shown.replace(
        "/etc/letsencrypt/live/mail.example.com",
        &site.path("certs").display().to_string(),
    );
    let file = site.path("gatepost.toml");
    let data = site.path("data").display().to_string();
    fs::write(&file, format!("data_dir = {data:?}\n{config}")).expect("written");
    let (succeeded, said) = attempt(&mut gatepost(&[
        "check",
        "--config",
        &file.display().to_string(),
    ]));
    assert!(succeeded, "{said}");
}

#[test]
fn a_missing_certificate_is_named() {
    let site = Site::new();
    fs::remove_file(&site.certificate.chain).expect("it is there");
    assert_says(&refusal(&site, &site.config()), &["fullchain.pem"]);
}

#[test]
fn a_port_in_use_is_named() {
    let site = Site::new();
    let _taken = TcpListener::bind(site.smtp).expect("the port is free");
    assert_says(
        &refusal(&site, &site.config()),
        &[&site.smtp.to_string(), "in use"],
    );
}

#[test]
fn the_data_directory_of_another_instance_is_left_alone() {
    let gateway = Gateway::start();
    let config = gateway
        .site
        .config()
        .replace(
            &gateway.site.smtp.to_string(),
            &format!("127.0.0.1:{}", free_port()),
        )
        .replace(
            &gateway.site.proxied.to_string(),
            &format!("127.0.0.1:{}", free_port()),
        )
        .replace(
            &gateway.site.admin.to_string(),
            &format!("127.0.0.1:{}", free_port()),
        );
    let data = gateway.site.path("data").display().to_string();
    assert_says(&refusal(&gateway.site, &config), &[&data]);
    let message = mail("a@client.example", "still here");
    Client::hello(gateway.smtp()).hand_over("a@client.example", "user@gate.example", &message);
}

#[test]
fn a_dns_that_is_down_defers_mail_and_its_return_brings_it_in() {
    let site = Site::new();
    site.dns.behave(".", Behaviour::Fails);
    let gateway = site.start();
    let message = mail("a@client.example", "patience");
    let deliver = || {
        let mut client = Client::hello(gateway.smtp());
        client.deliver("a@client.example", "user@gate.example", &message)
    };
    let reply = deliver();
    assert!(reply.starts_with("451 4."), "{reply:?}");
    gateway.site.dns.behave(".", Behaviour::Answers);
    wait_until(SOON, "the DNS to be believed again", || {
        deliver().starts_with("250").then_some(())
    });
}

#[test]
fn a_next_hop_that_is_down_costs_nothing_but_time() {
    // Nobody listens there. `any`: recipients are not asked of it.
    let hop = free_port();
    let site = Site::new()
        .delivering_to(format!("lmtp:127.0.0.1:{hop}"))
        .knowing("any");
    let gateway = site.start();
    let message = mail("a@client.example", "patience");
    Client::hello(gateway.smtp()).hand_over("a@client.example", "user@gate.example", &message);
    let event = gateway.process.wait_for("deferred");
    assert!(
        event["host"].to_string().contains(&hop.to_string()),
        "{event}"
    );
    gateway.process.wait_for_nth("deferred", 2);
}

#[test]
fn a_next_hop_that_cannot_be_asked_defers_its_recipients() {
    let hop = free_port();
    let site = Site::new()
        .delivering_to(format!("lmtp:127.0.0.1:{hop}"))
        .knowing("callout");
    let gateway = site.start();
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<a@client.example>", "250");
    client.expect("RCPT TO:<user@gate.example>", "451 4.");
}

#[test]
fn a_full_disk_defers_mail_and_loses_none_that_was_taken() {
    if !present(&["unshare"]) || !root() {
        return;
    }
    let site = Site::new().with("[spool]\nsegment_size = \"8MiB\"\nkeep_free = \"1MiB\"");
    // A file stands where the Maildirs would be made, so that mail stays in the spool.
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
    let line = format!("{}\r\n", "x".repeat(998));
    let large = mail("a@client.example", "large") + &line.repeat(256);
    // Each over a connection of its own: one that is told no too often is closed.
    let deliver =
        || Client::hello(site.smtp).deliver("a@client.example", "user@gate.example", &large);
    let mut taken = 0;
    let refusal = loop {
        let reply = deliver();
        if !reply.starts_with("250") {
            break reply;
        }
        taken += 1;
        assert!(taken < 200, "50 MiB fit on a disk of 32");
    };
    assert!(
        refusal.starts_with("452 4.3.1") || refusal.starts_with("451 4.3."),
        "{refusal:?}"
    );
    assert!(taken > 0);
    fs::remove_file(site.path("mail")).expect("it is there");
    assert_eq!(site.mailbox("user").wait_for(taken).len(), taken);
    wait_until(SOON, "space", || deliver().starts_with("250").then_some(()));
}
