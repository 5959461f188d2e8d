//! TLS with OpenSSL as the client: sessions that are resumed, and certificates that prove nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::Site;
use crate::support::process;

/// What `openssl s_client` says of a session of this port that sends no mail.
fn s_client(port: u16, arguments: &[&str]) -> String {
    let mut command = Command::new("sh");
    // The input must not end before the handshake is done and tickets have come; a Q would end it.
    command.args([
        "-c",
        "port=$1; shift; (sleep 1; printf 'EHLO client.example\\n'; sleep 1; printf 'quit\\n'; sleep 1) |\
         timeout 30 openssl s_client -starttls smtp -crlf -connect 127.0.0.1:$port \"$@\"",
        "sh",
        &port.to_string(),
    ]);
    process::attempt(command.args(arguments)).1
}

#[test]
fn openssl_resumes_its_sessions() {
    if !process::present(&["openssl"]) {
        return;
    }
    let gateway = Gateway::start();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let file = gateway.site.path(name).display().to_string();
        let port = gateway.smtp().port();
        let first = s_client(port, &[version, "-sess_out", &file]);
        assert!(first.contains(&format!("New, {name}")), "{first}");
        let second = s_client(port, &[version, "-sess_in", &file]);
        assert!(second.contains(&format!("Reused, {name}")), "{second}");
    }
    let begun = gateway.process.events("tls begun");
    let resumed: Vec<_> = begun.iter().map(|event| event["resumed"] == true).collect();
    assert_eq!(resumed, [false, true, false, true]);
}

#[test]
fn a_certificate_that_proves_nothing_keeps_no_mail_out() {
    if !process::present(&["openssl"]) {
        return;
    }
    let port = free_port();
    let site = Site::new();
    let (small, old) = (site.path("small"), site.path("old"));
    let small_sum = make(&small, "req -x509 -newkey rsa:1024 -subj /CN=small -days 9");
    let old_sum = make(&old, "req -newkey rsa:2048 -subj /CN=old");
    let gateway = site
        .with(&format!(
            "[[listen]]\nservice = \"mx\"\naddress = \"127.0.0.1:{port}\"\n\
             client_certificates = \"ask\"\n\
             [internal]\ncertificates = [{small_sum:?}, {old_sum:?}]\n"
        ))
        .start();
    for folder in [small, old] {
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(
                port,
                &[
                    version,
                    "-cipher",
                    "DEFAULT@SECLEVEL=0",
                    "-cert",
                    &chain.display().to_string(),
                    "-key",
                    &key.display().to_string(),
                ],
            );
            assert!(said.contains("250-PIPELINING"), "{version}: {said}");
            assert!(said.contains("\n221 "), "{version}: {said}");
        }
    }
    let shown = gateway.process.events("client certificate");
    assert!(shown.is_empty(), "{shown:?}");
    assert_eq!(gateway.process.events("tls begun").len(), 4);
}

/// Makes a key and a certificate that the TLS library does not read: an RSA key of 1024 bits, or X.509
/// version 1. Gives the certificate's SHA-256.
fn make(folder: &Path, how: &str) -> String {
    fs::create_dir_all(folder).expect("a folder");
    let openssl = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        process::run(Command::new("openssl").args(arguments).current_dir(folder))
    };
    if how.contains("-x509") {
        openssl(&format!("{how} -nodes -keyout key.pem -out chain.pem"));
    } else {
        openssl(&format!("{how} -nodes -keyout key.pem -out request.pem"));
        openssl("x509 -req -in request.pem -signkey key.pem -days 9 -out chain.pem");
    }
    let said = openssl("x509 -in chain.pem -noout -fingerprint -sha256");
    let (_, sum) = said.trim().rsplit_once('=').expect("a fingerprint");
    sum.to_owned()
}
