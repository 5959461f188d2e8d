//! Clients that others wrote: swaks, Python's smtplib, signatures of dkimpy.

use std::fs;
use std::process::Command;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::mailbox::body;
use crate::support::mailbox::field;
use crate::support::mails::DkimKey;
use crate::support::mails::mail;
use crate::support::process;

/// Debian's Python, which has Debian's dkimpy.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn swaks_delivers_with_starttls_and_pipelining() {
    if !process::present(&["swaks"]) {
        return;
    }
    let gateway = Gateway::start();
    let said = process::run(Command::new("swaks").args([
        "--server",
        &gateway.smtp().to_string(),
        "--helo",
        "client.example",
        "--from",
        "a@client.example",
        "--to",
        "user@gate.example,second@gate.example",
        "--h-From",
        "<a@client.example>",
        "--header",
        "Subject: from swaks",
        "--tls",
        "--pipeline",
    ]));
    assert!(said.contains("250 2.0.0"), "{said}");
    for local in ["user", "second"] {
        let got = gateway.site.mailbox(local).first();
        assert_eq!(field(&got, "Subject"), ["from swaks"]);
    }
}

#[test]
fn smtplib_delivers_internationalized_mail() {
    if !process::present(&["python3"]) {
        return;
    }
    let gateway = Gateway::start();
    let script = r#"
import smtplib, ssl, sys
from email.message import EmailMessage
mail = EmailMessage()
mail["From"] = "a@client.example"
mail["To"] = "user@gate.example"
mail["Subject"] = "Grüße"
mail["Date"] = "Tue, 24 Nov 2026 10:00:00 +0000"
mail["Message-ID"] = "<smtplib@client.example>"
mail.set_content("Schöne Grüße.\n.\n", cte="8bit")
tls = ssl.create_default_context(cafile=sys.argv[3])
with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), "client.example") as smtp:
    smtp._host = "mx.gate.example"
    smtp.starttls(context=tls)
    smtp.send_message(mail, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    try:
        smtp.sendmail("a@client.example", ["nobody@gate.example"], b"x")
    except smtplib.SMTPRecipientsRefused as refused:
        code, text = refused.recipients["nobody@gate.example"]
        assert code == 550 and text.startswith(b"5.1.1"), refused
    else:
        sys.exit("an unknown recipient was taken")
"#;
    process::run(
        Command::new(PYTHON)
            .args(["-c", script])
            .arg(gateway.smtp().ip().to_string())
            .arg(gateway.smtp().port().to_string())
            .arg(&gateway.site.certificate.chain),
    );
    let got = gateway.site.mailbox("user").first();
    assert_eq!(body(&got), "Schöne Grüße.\n.\n");
}

#[test]
fn a_message_that_dkimpy_signed_passes() {
    if !process::present(&["python3", "dkimsign"]) {
        return;
    }
    let site = Site::new();
    let key = DkimKey::new();
    site.dns
        .txt("s1._domainkey.reject.example", &key.record())
        .txt("_dmarc.reject.example", "v=DMARC1; p=reject");
    fs::write(
        site.path("message"),
        mail("boss@reject.example", "by dkimpy"),
    )
    .expect("written");
    fs::write(site.path("key"), key.pem()).expect("written");
    let script = "import dkim, sys; key = open(sys.argv[1], 'rb').read(); \
                  mail = open(sys.argv[2], 'rb').read(); \
                  sys.stdout.buffer.write(dkim.sign(mail, b's1', b'reject.example', key) + mail)";
    let signed = process::run(
        Command::new(PYTHON)
            .args(["-c", script])
            .arg(site.path("key"))
            .arg(site.path("message")),
    );
    let gateway = site.start();
    let mut client = Client::hello(gateway.smtp());
    client.hand_over("a@client.example", "user@gate.example", &signed);
    let got = gateway.site.mailbox("user").first();
    let results = field(&got, "Authentication-Results").remove(0);
    assert!(
        results.contains("dkim=pass") && results.contains("dmarc=pass"),
        "{results}"
    );
}
