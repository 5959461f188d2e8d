//! Users log in on a submission port, with a file of ours; who fails too often is banned.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::process::Stdio;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::process;
use crate::support::submission;
use crate::support::submission::plain;
use crate::support::wait_until;

/// `tanstaaftanstaaf`, by SHA-256: quick to verify.
const HASH: &str = "{SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=";
const PASSWORD: &str = "tanstaaftanstaaf";

/// Ann may log in, Bob may not.
fn site(keys: &str) -> Site {
    let site = Site::new();
    let users = site.path("users");
    let text = format!("ann@gate.example {HASH}\nbob@gate.example {HASH} disabled\n");
    fs::write(&users, text).expect("written");
    let keys = format!("users = \"file:{}\"\n{keys}", users.display());
    site.with(&submission::section(&keys))
}

fn start() -> Gateway {
    site("[submission.logins]\ndelay = \"0s\"").start()
}

#[test]
fn nobody_logs_in_or_sends_before_tls() {
    let gateway = start();
    let mut client = Client::hello(([127, 0, 0, 1], submission::port(&gateway)).into());
    let hello = client.say("EHLO client.example");
    assert!(!hello.contains("AUTH"), "{hello}");
    client.expect(&plain("ann@gate.example", PASSWORD), "538 5.7.11");
    client.expect("MAIL FROM:<ann@gate.example>", "530 5.7.0");
}

#[test]
fn a_user_logs_in_once_and_only_between_messages() {
    let gateway = start();
    let mut client = submission::client(&gateway);
    let hello = client.say("EHLO client.example");
    assert!(hello.contains("AUTH PLAIN LOGIN"), "{hello}");
    client.expect("MAIL FROM:<ann@gate.example>", "530 5.7.0");
    client.expect("AUTH CRAM-MD5", "504 5.5.4");
    client.expect("AUTH", "501 5.5.4");
    client.expect("AUTH PLAIN %%%", "501 5.5.2");
    client.expect("AUTH PLAIN =", "501 5.5.2");
    client.expect("AUTH PLAIN", "334 ");
    client.expect("*", "501 5.7.0");
    client.expect("AUTH LOGIN", "334 VXNlcm5hbWU6");
    client.expect("YW5uQGdhdGUuZXhhbXBsZQ==", "334 UGFzc3dvcmQ6");
    client.expect("d3Jvbmc=", "535 5.7.8");
    for (user, password) in [
        ("ann@gate.example", "wrong"),
        ("bob@gate.example", PASSWORD),
        ("carl@gate.example", PASSWORD),
    ] {
        client.expect(&plain(user, password), "535 5.7.8");
    }
    client.expect(&plain("ANN@gate.example", PASSWORD), "235 2.7.0");
    client.expect("AUTH PLAIN AHgAeA==", "503 5.5.1");
    client.expect("EHLO client.example", "250");
    client.expect("MAIL FROM:<ann@gate.example>", "250");
    client.expect("RCPT TO:<x@elsewhere.example>", "250");
    gateway.process.wait_for("logged in");
    let reasons: Vec<_> = gateway
        .process
        .events("login failed")
        .iter()
        .map(|event| event["reason"].to_string())
        .collect();
    let want = [
        "wrong password",
        "wrong password",
        "the user is disabled",
        "no such user",
    ];
    assert_eq!(reasons, want.map(|reason| format!("{reason:?}")));
    assert!(
        !gateway.process.log().contains(PASSWORD),
        "a password in the log"
    );
    let metrics = gateway.site.get("/metrics");
    assert!(
        metrics.contains("gatepost_login_failures_total 4"),
        "{metrics}"
    );
    assert!(metrics.contains("gatepost_logins_total 1"), "{metrics}");
}

#[test]
fn a_line_of_authentication_is_long_and_bounded() {
    let gateway = start();
    let mut client = submission::client(&gateway);
    client.expect(
        &format!("AUTH PLAIN {}", "A".repeat(12_288 - 20)),
        "501 5.5.2",
    );
    client.expect("AUTH PLAIN", "334 ");
    client.send(&[b'A'; 13_000]);
    assert!(client.reply().starts_with("500 5.5.6"));
}

#[test]
fn authentication_is_not_for_the_port_of_the_world() {
    let gateway = start();
    let mut client = Client::hello(gateway.smtp());
    client.expect(&plain("ann@gate.example", PASSWORD), "502 5.5.1");
    client.expect("MAIL FROM:<a@client.example>", "250");
}

#[test]
fn a_changed_file_of_users_is_taken_while_sessions_go_on() {
    let gateway = start();
    let users = gateway.site.path("users");
    let mut client = submission::client(&gateway);
    client.expect(&plain("ann@gate.example", PASSWORD), "235");
    let text = fs::read_to_string(&users).expect("it is there");
    fs::write(&users, text.replace("ann@", "anna@")).expect("written");
    wait_until(SOON, "the new name", || {
        let reply = submission::client(&gateway).say(&plain("anna@gate.example", PASSWORD));
        reply.starts_with("235").then_some(())
    });
    let mut client = submission::client(&gateway);
    client.expect(&plain("ann@gate.example", PASSWORD), "535");
    fs::write(&users, "anna@gate.example nothing\n").expect("written");
    wait_until(SOON, "the wrong line", || {
        let reply = submission::client(&gateway).say(&plain("anna@gate.example", PASSWORD));
        assert!(
            reply.starts_with("235"),
            "the old users stay in use: {reply}"
        );
        let events = gateway
            .process
            .events("users not loaded, the old ones stay in use");
        (!events.is_empty()).then_some(())
    });
}

#[test]
fn who_fails_too_often_is_banned_and_others_are_not() {
    let keys = "[submission.logins]\ndelay = \"0s\"\nper_address = 3\nper_user = 5";
    let gateway = site(keys).start();
    let mut client = submission::client_from(&gateway, "192.0.2.1");
    for _ in 0..3 {
        client.expect(&plain("ann@gate.example", "wrong"), "535 5.7.8");
    }
    client.expect(
        &plain("ann@gate.example", PASSWORD),
        "421 4.7.0 Too many failed logins from you",
    );
    let mut client = submission::client_from(&gateway, "192.0.2.1");
    client.expect("AUTH PLAIN", "421 4.7.0");
    let mut client = submission::client_from(&gateway, "192.0.2.2");
    client.expect(&plain("ann@gate.example", PASSWORD), "235");
    let mut client = submission::client_from(&gateway, "192.0.2.3");
    for _ in 0..2 {
        client.expect(&plain("ann@gate.example", "wrong"), "535 5.7.8");
    }
    client.expect(
        &plain("ann@gate.example", PASSWORD),
        "454 4.7.0 Too many failed logins for this user",
    );
    client.expect(&plain("carl@gate.example", PASSWORD), "535 5.7.8");
    // Ann was in from there before.
    let mut client = submission::client_from(&gateway, "192.0.2.2");
    client.expect(&plain("ann@gate.example", PASSWORD), "235");
    gateway.process.wait_for_nth("banned", 3);
    let bans = gateway.process.events("banned");
    let of: Vec<_> = bans.iter().map(|event| event["of"].as_str()).collect();
    assert_eq!(of, [Some("address"), Some("user"), Some("address")]);
    // Loopback is exempt.
    let mut client = submission::client(&gateway);
    for _ in 0..9 {
        client.expect(&plain("carl@gate.example", "wrong"), "535 5.7.8");
    }
    // A reload forgets nothing.
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    let mut client = submission::client_from(&gateway, "192.0.2.1");
    client.expect("AUTH PLAIN", "421 4.7.0");
}

#[test]
fn who_tries_many_passwords_at_once_learns_of_no_more_of_them() {
    let keys = "[submission.logins]\ndelay = \"0s\"\nper_address = 3\nwindow = \"1day\"";
    let site = site(keys);
    // One that takes its time: all are asked about before the first is answered.
    let slow = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$nN1M02DFtCLFH+t1fqFAqg$0iz5MEaMsd8ainG9HOQeP9lCDxoXeV35SZY8193E6Jo";
    fs::write(site.path("users"), format!("ann@gate.example {slow}\n")).expect("written");
    let gateway = site.start();
    let connect = |_| submission::client_from(&gateway, "192.0.2.1");
    let mut clients: Vec<_> = (0..6).map(connect).collect();
    let passwords = ["a", "b", "c", "d", "e", PASSWORD];
    for (client, password) in clients.iter_mut().zip(passwords) {
        let line = format!("{}\r\n", plain("ann@gate.example", password));
        client.send(line.as_bytes());
    }
    let said: Vec<_> = clients.iter_mut().map(Client::reply).collect();
    let count = |code: &str| said.iter().filter(|reply| reply.starts_with(code)).count();
    assert!(count("535") <= 3 && count("421") >= 2, "{said:?}");
    assert_eq!(count("535") + count("235") + count("421"), 6, "{said:?}");
}

#[test]
fn a_failed_login_is_answered_late() {
    let gateway = site("[submission.logins]\ndelay = \"1s\"").start();
    let mut client = submission::client(&gateway);
    let began = std::time::Instant::now();
    client.expect(&plain("ann@gate.example", "wrong"), "535");
    assert!(began.elapsed().as_millis() >= 1000);
}

#[test]
fn smtplib_logs_in_over_implicit_tls() {
    if !process::present(&["python3"]) {
        return;
    }
    let port = free_port();
    let listen = format!(
        "[[listen]]\nservice = \"submission\"\naddress = \"127.0.0.1:{port}\"\ntls = \"implicit\"\n"
    );
    let gateway = site("").with(&listen).start();
    let script = r#"
import smtplib, ssl, sys
tls = ssl.create_default_context(cafile=sys.argv[2])
tls.check_hostname = False
for mechanism in ["auth_plain", "auth_login"]:
    with smtplib.SMTP_SSL("127.0.0.1", int(sys.argv[1]), "client.example", context=tls) as smtp:
        smtp.ehlo()
        smtp.user, smtp.password = "ann@gate.example", sys.argv[3]
        code, text = smtp.auth(mechanism[5:].upper(), getattr(smtp, mechanism))
        assert code == 235, (code, text)
    with smtplib.SMTP_SSL("127.0.0.1", int(sys.argv[1]), "client.example", context=tls) as smtp:
        try:
            smtp.login("ann@gate.example", "wrong")
        except smtplib.SMTPAuthenticationError as error:
            assert error.smtp_code == 535, error
        else:
            sys.exit("a wrong password was taken")
"#;
    process::run(
        Command::new("/usr/bin/python3")
            .args(["-c", script, &port.to_string()])
            .arg(&gateway.site.certificate.chain)
            .arg(PASSWORD),
    );
    gateway.process.wait_for_nth("logged in", 2);
}

#[test]
fn msmtp_and_gsasl_log_in_by_scram_bound_to_the_connection_and_not() {
    if !process::present(&["msmtp", "gsasl"]) {
        return;
    }
    let gateway = start();
    let file = gateway.site.write_config().display().to_string();
    user(&["remove", "bob@gate.example", "--config", &file], "");
    user(
        &["passwd", "ann@gate.example", "--config", &file, "--stdin"],
        "Gr\u{fc}\u{df}e\n",
    );
    wait_until(SOON, "the keys", || {
        let hello = submission::client(&gateway).say("EHLO client.example");
        hello
            .contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN")
            .then_some(())
    });
    submission::msmtp(&gateway, "scram-sha-256", "ann@gate.example", "wrong");
    gateway.process.wait_for("login failed");
    submission::msmtp(
        &gateway,
        "scram-sha-256",
        "ann@gate.example",
        "Gr\u{fc}\u{df}e",
    );
    let event = gateway.process.wait_for("logged in");
    assert_eq!(event["mechanism"], "SCRAM-SHA-256");
    let plus = "SCRAM-SHA-256-PLUS";
    let said = submission::gsasl(&gateway, plus, "ann@gate.example", "wrong");
    assert!(said.contains("535 5.7.8"), "{said}");
    let said = submission::gsasl(&gateway, plus, "ann@gate.example", "Gr\u{fc}\u{df}e");
    assert!(said.contains("235 2.7.0"), "{said}");
    let event = gateway.process.wait_for_nth("logged in", 2);
    assert_eq!(event["mechanism"], plus);
}

/// `gatepost user` with these arguments and this input; its status and what it says.
fn user(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = gatepost(&[&["user"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is there");
    let mut stdin = child.stdin.take().expect("it is piped");
    // It may have ended without reading.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn users_are_added_given_passwords_listed_and_removed() {
    let site = site("");
    let users = site.path("users");
    fs::write(&users, "# ours\n").expect("written");
    let file = site.write_config().display().to_string();
    let with =
        |arguments: &[&str], input: &str| user(&[arguments, &["--config", &file]].concat(), input);
    let also = ["--also", "info@gate.example"];
    let add = [&["add", "ann@gate.example"], &also[..]].concat();
    assert_eq!(with(&add, "one\n").0, Some(0));
    assert_eq!(with(&["add", "bob", "--no-scram"], "two\n").0, Some(0));
    assert_eq!(with(&["add", "Bob"], "two\n").0, Some(65), "there is one");
    assert_eq!(with(&["add", "carl"], "\n").0, Some(65), "no password");
    assert_eq!(with(&["add", "# carl"], "x\n").0, Some(65), "no name");
    assert_eq!(with(&["passwd", "carl"], "x\n").0, Some(67), "no such user");
    let (status, said) = with(&["list"], "");
    assert_eq!(status, Some(0));
    assert_eq!(
        said,
        "ann@gate.example ARGON2ID scram also=info@gate.example\nbob ARGON2ID\n"
    );
    let gateway = site.start();
    let mut client = submission::client(&gateway);
    client.expect(&plain("bob", "two"), "235");
    assert_eq!(with(&["passwd", "bob"], "three\n").0, Some(0));
    wait_until(SOON, "the new password", || {
        let reply = submission::client(&gateway).say(&plain("bob", "three"));
        reply.starts_with("235").then_some(())
    });
    submission::client(&gateway).expect(&plain("bob", "two"), "535");
    assert_eq!(with(&["remove", "bob"], "").0, Some(0));
    let text = fs::read_to_string(&users).expect("it is there");
    assert!(
        text.starts_with("# ours\nann@gate.example {ARGON2ID}$argon2id$"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2, "{text}");
    let (status, said) = with(&["list", "--json"], "");
    assert_eq!(status, Some(0));
    let listed: serde_json::Value = serde_json::from_str(&said).expect("one object");
    assert_eq!(listed["name"], "ann@gate.example");
    assert_eq!(listed["scram"], true);
}

#[test]
fn a_gateway_without_its_file_of_users_does_not_start_and_says_what_to_do() {
    let site = Site::new().with(&submission::section("users = \"file\""));
    let file = site.write_config().display().to_string();
    let output = gatepost(&["serve", "--config", &file])
        .output()
        .expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("gatepost user add NAME"),
        "{said}"
    );
    let (status, said) = user(&["add", "ann", "--stdin", "--config", &file], "x\n");
    assert_eq!(status, Some(0), "{said}");
    let gateway = site.start();
    submission::client(&gateway).expect(&plain("ann", "x"), "235");
}

#[test]
fn the_first_user_is_added_before_the_first_start() {
    let site = Site::new().with(&submission::section("users = \"file\""));
    let file = site.write_config().display().to_string();
    let checked = gatepost(&["check", "--config", &file]).output();
    let checked = checked.expect("it ends");
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("gatepost user add NAME"), "{said}");
    assert!(!site.path("data").exists());
    let (status, said) = user(&["add", "ann", "--stdin", "--config", &file], "x\n");
    assert_eq!(status, Some(0), "{said}");
    let mode = fs::metadata(site.path("data")).expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o700);
    let gateway = site.start();
    submission::client(&gateway).expect(&plain("ann", "x"), "235");
}
