//! The fields that we write, octet for octet, as they lie in the mailbox.
//!
//! What differs from run to run has a placeholder. `UPDATE_GOLDEN=1` writes the files of
//! `tests/golden/` anew; the difference is to be reviewed.

use std::env;
use std::fs;
use std::path::Path;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::mails::DkimKey;
use crate::support::mails::Forwarder;
use crate::support::mails::mail;
use crate::support::submission;

/// Whom the zones allow to send, and a stranger.
const OURS: &str = "192.0.2.1";
const STRANGER: &str = "198.51.100.9";

/// `reject.example` and `quarantine.example` publish SPF, DKIM and DMARC.
fn site(key: &DkimKey) -> Site {
    let site = Site::new();
    for domain in ["reject.example", "quarantine.example"] {
        let policy = domain.trim_end_matches(".example");
        site.dns
            .txt(domain, "v=spf1 ip4:192.0.2.1 -all")
            .txt(&format!("s1._domainkey.{domain}"), &key.record())
            .txt(
                &format!("_dmarc.{domain}"),
                &format!("v=DMARC1; p={policy}"),
            );
    }
    site.dns
        .host("helo.example", OURS)
        .pointer(OURS, "helo.example")
        .txt("helo.example", "v=spf1 a -all")
        .txt("forwarder.example", "v=spf1 ip4:198.51.100.9 -all");
    site
}

fn connect(gateway: &Gateway, source: &str) -> Client {
    let helo = match source {
        OURS => "helo.example",
        _ => "forwarder.example",
    };
    Client::hello_from(gateway.site.proxied, source, helo)
}

/// Delivers the message and compares what stands in front of it in the mailbox.
#[track_caller]
fn assert_golden(gateway: &Gateway, mut client: Client, from: &str, message: &str, name: &str) {
    client.hand_over(from, "user@gate.example", message);
    assert_kept_golden(gateway, message, name);
}

/// Compares what stands in front of this part of the message in the mailbox.
#[track_caller]
fn assert_kept_golden(gateway: &Gateway, kept: &str, name: &str) {
    let got = gateway.site.mailbox("user").first();
    let message = kept.replace("\r\n", "\n");
    let ours = got
        .strip_suffix(&message)
        .expect("the message as it was sent");
    let id = gateway.process.wait_for("accepted")["id"].clone();
    let id = id.as_str().expect("a text");
    let mut fields = ours.replace(&format!(" id {id}"), " id ID");
    fields = fields.replace(&format!("<{id}@"), "<ID@");
    // Folded, so that it is several lines.
    if let Some((before, value)) = fields.split_once("; b=") {
        let after = value.split_once(";").expect("the end of it").1;
        fields = format!("{before}; b=SIGNATURE;{after}");
    }
    for (before, after, placeholder) in [
        (";\n\t", " +0000\n", "DATE"),
        ("\nDate: ", " +0000\n", "DATE"),
        ("; t=", ";", "TIME"),
        (" with cipher ", ")", "CIPHER"),
        (" header.b=", ";", "SIGNATURE"),
    ] {
        fields = replace_between(&fields, before, after, placeholder);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
        .with_extension("txt");
    if env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&file, &fields).expect("written");
    }
    let want = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(fields, want, "\n{}:\n{want}\nnot\n{fields}", file.display());
}

/// Puts `placeholder` for what stands in one line between the two, wherever they do.
fn replace_between(text: &str, before: &str, after: &str, placeholder: &str) -> String {
    let mut pieces = text.split(before);
    let mut replaced = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        replaced.push_str(before);
        match piece.split_once(after) {
            Some((value, rest)) if !value.contains('\n') => {
                replaced.push_str(&[placeholder, after, rest].concat());
            }
            _ => replaced.push_str(piece),
        }
    }
    replaced
}

#[test]
fn all_that_can_pass_passes_over_plain_text() {
    let key = DkimKey::new();
    let gateway = site(&key).start();
    let message = key.sign("reject.example", &mail("boss@reject.example", "pass"));
    let client = connect(&gateway, OURS);
    assert_golden(&gateway, client, "boss@reject.example", &message, "pass");
}

#[test]
fn a_plain_forward_is_marked_and_rescued_over_tls() {
    let key = DkimKey::new();
    let mut site = site(&key);
    site.spf = "unless_dmarc = true";
    let gateway = site.start();
    let message = key.sign("reject.example", &mail("boss@reject.example", "forward"));
    let mut client = connect(&gateway, STRANGER);
    client.expect("STARTTLS", "220");
    let root = &gateway.site.certificate.der;
    client.secure(root, HOSTNAME).expect("a handshake");
    client.expect("EHLO forwarder.example", "250");
    assert_golden(&gateway, client, "boss@reject.example", &message, "forward");
}

#[test]
fn what_is_to_be_put_aside_has_a_mark() {
    let gateway = site(&DkimKey::new()).start();
    let message = mail("boss@quarantine.example", "suspect");
    let client = connect(&gateway, STRANGER);
    assert_golden(
        &gateway,
        client,
        "a@forwarder.example",
        &message,
        "quarantine",
    );
}

#[test]
fn an_exempt_network_is_named_as_the_reason() {
    let mut site = site(&DkimKey::new());
    site.exempt = "198.51.100.0/24";
    let gateway = site.start();
    let message = mail("boss@reject.example", "exempt");
    let client = connect(&gateway, STRANGER);
    assert_golden(&gateway, client, "boss@reject.example", &message, "exempt");
}

#[tokio::test]
async fn a_trusted_forwarder_is_named_as_the_reason() {
    let forwarder = Forwarder::new("forwarder.example");
    let mut site = site(&DkimKey::new());
    site.dmarc = "trusted_forwarders = [\"forwarder.example\"]";
    site.dns.add_zone(&forwarder.zone());
    let message = mail("boss@reject.example", "sealed");
    let message = forwarder.forward(&site.dns.dns(), &message).await;
    let gateway = site.start();
    let client = connect(&gateway, STRANGER);
    assert_golden(
        &gateway,
        client,
        "a@forwarder.example",
        &message,
        "trusted_forwarder",
    );
}

#[test]
fn the_null_sender_is_judged_by_its_helo() {
    let gateway = site(&DkimKey::new()).start();
    let message = mail("mailer-daemon@helo.example", "bounce");
    let client = connect(&gateway, OURS);
    assert_golden(&gateway, client, "", &message, "null_sender");
}

#[test]
fn what_a_user_sends_is_put_right_and_signed() {
    let folder = tempfile::tempdir().expect("a folder");
    let users = folder.path().join("users");
    let hash = "{SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=";
    let user = format!("anna@gate.example {hash} also=team@gate.example\n");
    fs::write(&users, user).expect("written");
    let keys = format!("users = \"file:{}\"", users.display());
    let site = Site::new().with(&submission::section(&keys));
    DkimKey::new().give_to(&site, "gate.example");
    let gateway = site.start();
    let mut client = submission::client(&gateway);
    client.expect(
        &submission::plain("anna@gate.example", "tanstaaftanstaaf"),
        "235",
    );
    let blind = "Bcc: <hidden@gate.example>,\r\n <other@gate.example>\r\n";
    let kept = "From: \"Anna\" <anna@gate.example>, <team@gate.example>\r\nSubject: Hello\r\n\r\nHello.\r\n";
    let message = format!("{blind}{kept}");
    client.hand_over("anna@gate.example", "user@gate.example", &message);
    assert_kept_golden(&gateway, kept, "submission");
}
