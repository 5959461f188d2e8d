//! testssl.sh looks at the three ports, and finds nothing worse than "low".
//!
//! What it looks at: protocols, ciphers, preferences, defaults with the certificate, forward secrecy,
//! known vulnerabilities. The three runs go side by side, for it waits more than it works.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::SystemTime;

use rcgen::CertificateParams;
use rcgen::CrlDistributionPoint;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::KeyPair;
use serde_json::Value;

use crate::support::certs::Certificate;
use crate::support::free_port;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::machine;
use crate::support::process;
use crate::support::tls_host::Authority;

/// Each stands for a part that was looked at.
const LOOKED_AT: &[&str] = &[
    "SSLv3",
    "TLS1",
    "TLS1_2",
    "TLS1_3",
    "cipherlist_NULL",
    "cipherlist_LOW",
    "cipher_order",
    "cert_trust",
    "cert_chain_of_trust",
    "cert_expirationStatus",
    "FREAK",
    "heartbleed",
    "secure_renego",
    "DROWN",
];

/// What testssl cannot do with Debian's openssl, whatever the server does.
const NOT_LOOKED_AT: &[&str] = &[
    "engine_problem",
    "sessionresumption_ticket",
    "sessionresumption_ID",
];

#[test]
fn testssl_finds_nothing_worse_than_low_on_the_three_ports() {
    if !process::present(&["testssl", "openssl"]) {
        return;
    }
    let site = Site::new();
    let authority = site.path("authority.pem");
    sign(&authority, &site.certificate);
    let (submissions, submission) = (free_port(), free_port());
    let users = site.path("users");
    fs::write(&users, "").expect("written");
    let sections = format!(
        "[[listen]]\nservice = \"submission\"\naddress = \"127.0.0.1:{submissions}\"\n\
         tls = \"implicit\"\n\n\
         [[listen]]\nservice = \"submission\"\naddress = \"127.0.0.1:{submission}\"\n\n\
         [submission]\nusers = \"file:{}\"\n",
        users.display()
    );
    let gateway = site.with(&sections).start();
    let ports = [
        ("25", gateway.smtp().port(), &["--starttls", "smtp"][..]),
        ("465", submissions, &[]),
        ("587", submission, &["--starttls", "smtp"]),
    ];
    let folder = gateway.site.folder.path();
    thread::scope(|scope| {
        let look = |(name, port, how)| {
            let file = folder.join(format!("{name}.json"));
            let authority = &authority;
            scope.spawn(move || (name, findings(port, how, authority, &file)))
        };
        for looking in ports.map(look) {
            let (name, found) = looking.join().expect("a run");
            judge(name, &found);
        }
    });
}

/// Puts a certificate in place of the site's that an authority has signed, as those of the world are:
/// for three months, and with a list of those that were revoked.
fn sign(authority_file: &Path, certificate: &Certificate) {
    const DAYS: u64 = 24 * 60 * 60;
    let authority = Authority::new();
    fs::write(authority_file, authority.pem()).expect("written");
    let names = ["localhost".to_owned(), HOSTNAME.to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + std::time::Duration::from_secs(89 * DAYS)).into();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec!["http://authority.example/list".to_owned()],
    }];
    let key = KeyPair::generate().expect("a key");
    let signed = machine::pem(&authority.sign(&params, &key));
    fs::write(&certificate.chain, signed).expect("written");
    fs::write(&certificate.key, key.serialize_pem()).expect("written");
}

/// Runs it against a port; all that it found, of whatever severity.
fn findings(port: u16, how: &[&str], authority: &Path, file: &Path) -> Vec<Value> {
    let mut testssl = process::command("timeout");
    testssl.arg("300").arg("testssl");
    testssl.args([
        "--quiet",
        "--color",
        "0",
        "--warnings",
        "off",
        "--nodns",
        "none",
    ]);
    // A client that testssl starts may wait for ever.
    testssl.args(["--openssl-timeout", "10"]);
    testssl.args(["-p", "-s", "-P", "-S", "-f", "-U"]).args(how);
    testssl.arg("--add-ca").arg(authority);
    testssl.arg("--jsonfile").arg(file);
    testssl.arg(format!("localhost:{port}"));
    // Its status counts what it could not do.
    let (_, said) = process::attempt(&mut testssl);
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {said}"));
    serde_json::from_str(&text).expect("a list of findings")
}

fn judge(port: &str, found: &[Value]) {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let ids: BTreeSet<String> = found.iter().map(|finding| text(finding, "id")).collect();
    for part in LOOKED_AT {
        assert!(
            ids.contains(*part),
            "port {port}: nothing of {part} in {ids:?}"
        );
    }
    let is_bad = |finding: &&Value| match text(finding, "severity").as_str() {
        "OK" | "INFO" | "LOW" | "DEBUG" => false,
        "WARN" => !NOT_LOOKED_AT.contains(&text(finding, "id").as_str()),
        _ => true,
    };
    let bad: Vec<&Value> = found.iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "port {port}: {bad:#?}");
}
