//! Mail programs that others wrote hand in mail of our users, which is signed and goes on to Postfix.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::process::Stdio;

use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mailbox::field;
use crate::support::mails::DkimKey;
use crate::support::postfix;
use crate::support::postfix::Onward;
use crate::support::postfix::Postfix;
use crate::support::process;
use crate::support::submission;

/// `tanstaaftanstaaf`, by SHA-256: quick to verify.
const HASH: &str = "{SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=";
const PASSWORD: &str = "tanstaaftanstaaf";

/// Debian's Python, which has Debian's dkimpy.
const PYTHON: &str = "/usr/bin/python3";

/// A gateway with a user, a key and a Postfix behind it; and the port with implicit TLS.
fn start(postfix: &Postfix, key: &DkimKey) -> (Gateway, u16) {
    let site = Site::new();
    let users = site.path("users");
    fs::write(&users, format!("anna@gate.example {HASH}\n")).expect("written");
    key.give_to(&site, "gate.example");
    let (implicit, local) = (free_port(), site.path("local"));
    let keys = format!("users = \"file:{}\"", users.display());
    let site = site.with(&submission::section(&keys)).with(&format!(
        "[sendmail]\ndirectory = {local:?}\n\n\
         [[listen]]\nservice = \"submission\"\naddress = \"127.0.0.1:{implicit}\"\n\
         tls = \"implicit\"\n\n[routes.out]\nto = {:?}\nrecipient_domains = [\"other.example\"]\n",
        postfix.target()
    ));
    (site.start(), implicit)
}

/// Whether dkimpy finds the signature of what Postfix got to hold.
fn assert_signed(gateway: &Gateway, key: &DkimKey, message: &str) {
    let file = gateway.site.path("got");
    // Postfix and the mailbox put their fields in front, and line ends of their own.
    fs::write(&file, message.replace("\r\n", "\n").replace('\n', "\r\n")).expect("written");
    let script = "import dkim, sys\n\
                  mail = open(sys.argv[1], 'rb').read()\n\
                  key = sys.argv[2].encode()\n\
                  ok = dkim.verify(mail, dnsfunc=lambda name, timeout=5: key)\n\
                  sys.exit(0 if ok else 'the signature does not hold')";
    process::run(
        Command::new(PYTHON)
            .args(["-c", script])
            .arg(&file)
            .arg(key.record()),
    );
}

#[test]
fn smtplib_sends_by_implicit_tls_what_dkimpy_verifies_behind_postfix() {
    if !process::present(&["python3", "dkimverify"]) || !postfix::present() {
        return;
    }
    let (postfix, key) = (Postfix::start(Onward::Mailboxes), DkimKey::new());
    let (gateway, port) = start(&postfix, &key);
    let script = r#"
import email.policy, smtplib, ssl, sys
from email.message import EmailMessage
mail = EmailMessage()
mail["From"] = "Anna <anna@gate.example>"
mail["Bcc"] = "fourth@other.example"
mail["Subject"] = "Grüße"
mail.set_content("Schöne Grüße, \n" + "lang " * 300 + "\n.\n\n\n", cte="8bit")
tls = ssl.create_default_context(cafile=sys.argv[2])
tls.check_hostname = False
with smtplib.SMTP_SSL("127.0.0.1", int(sys.argv[1]), "client.example", context=tls) as smtp:
    smtp.login("anna@gate.example", sys.argv[3])
    smtp.sendmail("anna@gate.example", ["third@other.example", "fourth@other.example"],
                  mail.as_bytes(policy=email.policy.SMTP), mail_options=["BODY=8BITMIME"])
    try:
        smtp.sendmail("boss@gate.example", ["third@other.example"], mail.as_bytes(policy=email.policy.SMTP))
    except smtplib.SMTPRecipientsRefused as refused:
        code, text = refused.recipients["third@other.example"]
        assert code == 553 and text.startswith(b"5.7.1 <boss@gate.example>"), refused
    else:
        sys.exit("another's address was taken")
"#;
    process::run(
        Command::new(PYTHON)
            .args(["-c", script, &port.to_string()])
            .arg(&gateway.site.certificate.chain)
            .arg(PASSWORD),
    );
    for user in ["third", "fourth"] {
        let got = postfix.mailbox(user).first();
        assert_eq!(field(&got, "Bcc"), Vec::<String>::new());
        assert_eq!(field(&got, "To"), ["undisclosed-recipients:;"]);
        assert_eq!(field(&got, "Message-ID").len(), 1);
        assert_signed(&gateway, &key, &got);
    }
}

#[test]
fn swaks_and_msmtp_send_by_starttls() {
    if !process::present(&["swaks", "msmtp", "dkimverify"]) || !postfix::present() {
        return;
    }
    let (postfix, key) = (Postfix::start(Onward::Mailboxes), DkimKey::new());
    let (gateway, _) = start(&postfix, &key);
    let server = format!("127.0.0.1:{}", submission::port(&gateway));
    let said = process::run(Command::new("swaks").args([
        "--server",
        &server,
        "--tls",
        "--auth",
        "PLAIN",
        "--auth-user",
        "anna@gate.example",
        "--auth-password",
        PASSWORD,
        "--from",
        "anna@gate.example",
        "--to",
        "third@other.example",
    ]));
    assert!(said.contains("250 2.0.0"), "{said}");
    assert_signed(&gateway, &key, &postfix.mailbox("third").first());

    let config = gateway.site.path("msmtprc");
    let text = format!(
        "account default\nhost 127.0.0.1\nport {}\ntls on\ntls_starttls on\n\
         tls_host_override {HOSTNAME}\ntls_trust_file {}\nauth plain\nuser anna@gate.example\n\
         password {PASSWORD}\nfrom anna@gate.example\n",
        submission::port(&gateway),
        gateway.site.certificate.chain.display()
    );
    fs::write(&config, text).expect("written");
    fs::set_permissions(&config, PermissionsExt::from_mode(0o600)).expect("closed");
    let mut msmtp = Command::new("msmtp")
        .arg("-C")
        .arg(&config)
        .arg("-t")
        .stdin(Stdio::piped())
        .spawn()
        .expect("msmtp runs");
    let mail =
        b"From: anna@gate.example\nTo: fourth@other.example\nSubject: from msmtp\n\nHello.\n";
    let mut input = msmtp.stdin.take().expect("it is piped");
    input.write_all(mail).expect("msmtp reads");
    drop(input);
    assert!(msmtp.wait().expect("it is ours").success());
    let got = postfix.mailbox("fourth").first();
    assert_eq!(field(&got, "Subject"), ["from msmtp"]);
    assert_signed(&gateway, &key, &got);
}

#[test]
fn the_sendmail_command_sends_what_dkimpy_verifies_behind_postfix() {
    if !process::present(&["dkimverify"]) || !postfix::present() {
        return;
    }
    let (postfix, key) = (Postfix::start(Onward::Mailboxes), DkimKey::new());
    let (gateway, _) = start(&postfix, &key);
    let config = gateway.site.path("gatepost.toml").display().to_string();
    let mut command = gatepost(&["sendmail", "-C", &config, "-t", "-i"]);
    let mut sending = command.stdin(Stdio::piped()).spawn().expect("it is there");
    let mail = "From: Cron <cron@gate.example>\nTo: third@other.example,\n fourth@other.example\n\
                Bcc: fourth@other.example\nSubject: from cron\n\nHello,\n.\nthere.\n";
    let mut input = sending.stdin.take().expect("it is piped");
    input.write_all(mail.as_bytes()).expect("it reads");
    drop(input);
    assert!(sending.wait().expect("it is ours").success());
    for user in ["third", "fourth"] {
        let got = postfix.mailbox(user).first();
        assert_eq!(field(&got, "Bcc"), Vec::<String>::new());
        assert!(
            got.replace('\r', "").ends_with("\n\nHello,\n.\nthere.\n"),
            "{got}"
        );
        assert_signed(&gateway, &key, &got);
    }
}

#[test]
fn nodemailer_sends_what_dkimpy_verifies_behind_postfix() {
    if !process::present(&["node", "dkimverify"]) || !postfix::present() {
        return;
    }
    let (postfix, key) = (Postfix::start(Onward::Mailboxes), DkimKey::new());
    let (gateway, implicit) = start(&postfix, &key);
    let script = r#"
const nodemailer = require("nodemailer");
const [port, implicit, ca, servername, pass] = process.argv.slice(1);
const options = {
  host: "127.0.0.1", auth: {user: "anna@gate.example", pass}, requireTLS: true,
  tls: {ca: require("fs").readFileSync(ca), servername},
};
const mail = {
  from: {name: "Anna Grün", address: "anna@gate.example"}, subject: "Grüße", text: "Schöne Grüße\n.\n",
  attachments: [{filename: "noise", content: Buffer.alloc(100000, 7)}],
};
async function main() {
  const later = nodemailer.createTransport({...options, port: implicit, secure: true, pool: true});
  const now = nodemailer.createTransport({...options, port});
  console.log((await now.sendMail({...mail, to: "third@other.example"})).response);
  console.log((await later.sendMail({...mail, bcc: "fourth@other.example"})).response);
  later.close();
  const wrong = nodemailer.createTransport({...options, port, auth: {...options.auth, pass: "wrong"}});
  await wrong.verify().then(() => { throw "a wrong password was taken" },
    e => { if (e.code != "EAUTH" || e.responseCode != 535) throw e });
  await now.sendMail({...mail, from: "boss@gate.example", to: "third@other.example"}).then(
    () => { throw "another's address was taken" }, e => { if (e.responseCode != 553) throw e });
}
main().catch(e => { console.error(e); process.exit(1) });
"#;
    let said = process::run(
        Command::new("node")
            .env("NODE_PATH", "/usr/share/nodejs")
            .args(["-e", script, "--"])
            .args([submission::port(&gateway), implicit].map(|port| port.to_string()))
            .arg(&gateway.site.certificate.chain)
            .args([HOSTNAME, PASSWORD]),
    );
    assert_eq!(said.matches("250 2.0.0").count(), 2, "{said}");
    for user in ["third", "fourth"] {
        let got = postfix.mailbox(user).first();
        assert_eq!(field(&got, "Bcc"), Vec::<String>::new());
        assert_signed(&gateway, &key, &got);
    }
}
