//! Dovecot knows the users, and the gateway asks it: by unix socket and by TCP, while it is there and not.

use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::dovecot;
use crate::support::dovecot::Dovecot;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::process;
use crate::support::submission;
use crate::support::submission::plain;
use crate::support::wait_until;

fn asking(users: &str) -> Gateway {
    let section = submission::section(&format!("users = {users:?}\ntimeout = \"10s\""));
    Site::new().with(&section).start()
}

#[test]
fn plain_and_login_are_dovecots_to_judge_by_unix_socket_and_by_tcp() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    for users in [dovecot.auth_unix(), dovecot.auth_tcp()] {
        let gateway = asking(&users);
        let mut client = submission::client(&gateway);
        client.expect(&plain("user@gate.example", "wrong"), "535 5.7.8");
        client.expect(&plain("nobody@gate.example", "secret"), "535 5.7.8");
        client.expect(&plain("full@gate.example", "secret"), "535 5.7.8");
        client.expect(&plain("user@gate.example", "secret"), "235 2.7.0");
        let event = gateway.process.wait_for("logged in");
        assert_eq!(event["user"], "user@gate.example");
        let failed = gateway.process.events("login failed");
        let reasons: Vec<_> = failed
            .iter()
            .map(|event| event["reason"].to_string())
            .collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons[2].contains("user_disabled"), "{reasons:?}");
        let mut client = submission::client(&gateway);
        client.expect("AUTH LOGIN", "334 VXNlcm5hbWU6");
        client.expect("dXNlckBnYXRlLmV4YW1wbGU=", "334 UGFzc3dvcmQ6");
        client.expect("c2VjcmV0", "235 2.7.0");
        client.expect("MAIL FROM:<user@gate.example>", "250");
        assert!(
            !gateway.process.log().contains("secret"),
            "a password in the log"
        );
    }
}

#[test]
fn many_clients_log_in_over_the_one_connection() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let gateway = asking(&dovecot.auth_unix());
    let mut clients: Vec<_> = (0..20).map(|_| submission::client(&gateway)).collect();
    for client in &mut clients {
        client.send(format!("{}\r\n", plain("user@gate.example", "secret")).as_bytes());
    }
    for client in &mut clients {
        assert!(client.reply().starts_with("235"));
    }
}

#[test]
fn scram_is_passed_on_to_dovecot() {
    if !dovecot::present() || !process::present(&["msmtp"]) {
        return;
    }
    let dovecot = Dovecot::start();
    let gateway = asking(&dovecot.auth_unix());
    // Before Dovecot is reached for the first time, PLAIN is there alone.
    wait_until(SOON, "Dovecot's mechanisms", || {
        let hello = submission::client(&gateway).say("EHLO client.example");
        hello
            .contains("AUTH SCRAM-SHA-256 PLAIN LOGIN")
            .then_some(())
    });
    let login =
        |password| submission::msmtp(&gateway, "scram-sha-256", "user@gate.example", password);
    login("wrong");
    gateway.process.wait_for("login failed");
    login("secret");
    let event = gateway.process.wait_for("logged in");
    assert_eq!(event["mechanism"], "SCRAM-SHA-256");
    assert_eq!(event["user"], "user@gate.example");
}

#[test]
fn tokens_are_dovecots_to_judge() {
    if !dovecot::present() {
        return;
    }
    let dovecot = Dovecot::start();
    let gateway = asking(&dovecot.auth_unix());
    wait_until(SOON, "Dovecot's mechanisms", || {
        let hello = submission::client(&gateway).say("EHLO client.example");
        hello.contains("XOAUTH2").then_some(())
    });
    let user = "user@gate.example";
    let bearer = |token: &str| format!("auth=Bearer {token}\x01\x01");
    let first = |token: &str| BASE64_STANDARD.encode(format!("user={user}\x01{}", bearer(token)));
    let second = |token: &str| BASE64_STANDARD.encode(format!("n,a={user},\x01{}", bearer(token)));
    let (good, old) = (
        Dovecot::token(user, 4_000_000_000),
        Dovecot::token(user, 1_700_000_001),
    );
    let others = Dovecot::token("second@gate.example", 4_000_000_000);

    let mut client = submission::client(&gateway);
    for wrong in [&old, &others, &good.replace('.', "x")] {
        // The server says why in a challenge, which the client answers with nothing.
        client.expect(&format!("AUTH XOAUTH2 {}", first(wrong)), "334 ");
        client.expect("", "535 5.7.8");
    }
    client.expect(&format!("AUTH XOAUTH2 {}", first(&good)), "235 2.7.0");
    let mut client = submission::client(&gateway);
    client.expect("AUTH OAUTHBEARER", "334 ");
    client.expect(&second(&good), "235 2.7.0");
    client.expect("MAIL FROM:<user@gate.example>", "250");
    gateway.process.wait_for_nth("logged in", 2);
    let events = gateway.process.events("logged in");
    let mechanisms: Vec<_> = events.iter().map(|event| &event["mechanism"]).collect();
    assert_eq!(mechanisms, ["XOAUTH2", "OAUTHBEARER"]);
    assert!(events.iter().all(|event| event["user"] == user));
    assert!(!gateway.process.log().contains(&good), "a token in the log");
}

#[test]
fn while_dovecot_is_away_clients_are_told_to_try_again_until_it_is_back() {
    if !dovecot::present() {
        return;
    }
    let mut dovecot = Dovecot::start();
    let gateway = asking(&dovecot.auth_unix());
    let login = |gateway: &Gateway| -> String {
        let mut client: Client = submission::client(gateway);
        client.say(&plain("user@gate.example", "secret"))
    };
    assert!(login(&gateway).starts_with("235"));
    dovecot.stop();
    gateway.process.wait_for("users unreachable");
    let began = std::time::Instant::now();
    assert!(login(&gateway).starts_with("454 4.7.0"));
    assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
    gateway.process.wait_for("login not decided");
    dovecot.restart();
    wait_until(SOON, "Dovecot again", || {
        login(&gateway).starts_with("235").then_some(())
    });
}

#[test]
fn a_dovecot_that_says_nothing_holds_nobody_up() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let socket = folder.path().join("auth");
    let _mute = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let gateway = asking(&format!("dovecot:{}", socket.display()));
    let mut client = submission::client(&gateway);
    client.expect(&plain("user@gate.example", "secret"), "454 4.7.0");
}

#[test]
fn swaks_and_smtplib_log_in_with_the_users_of_dovecot() {
    if !dovecot::present() || !process::present(&["swaks", "python3"]) {
        return;
    }
    let dovecot = Dovecot::start();
    let gateway = asking(&dovecot.auth_unix());
    for mechanism in ["PLAIN", "LOGIN"] {
        let port = submission::port(&gateway);
        let said = process::run(Command::new("swaks").args([
            "--server",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--tls",
            "--auth",
            mechanism,
            "--auth-user",
            "user@gate.example",
            "--auth-password",
            "secret",
            "--quit-after",
            "AUTH",
        ]));
        assert!(said.contains("235 2.7.0"), "{said}");
    }
    gateway.process.wait_for_nth("logged in", 2);
}
