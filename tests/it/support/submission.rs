//! A submission port, and clients that log in there.

use std::fs;
use std::process::Command;
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;

/// A listener that offers TLS, one behind a proxy, and `[submission]` with these keys.
pub fn section(keys: &str) -> String {
    let (port, proxied) = (free_port(), free_port());
    format!(
        "[[listen]]\nservice = \"submission\"\naddress = \"127.0.0.1:{port}\"\n\n\
         [[listen]]\nservice = \"submission\"\naddress = \"127.0.0.1:{proxied}\"\n\
         proxy_protocol_from = [\"127.0.0.1/32\"]\n\n[submission]\n{keys}\n"
    )
}

/// The ports of [`section`].
fn ports(gateway: &Gateway) -> Vec<u16> {
    let sections = gateway
        .site
        .extra
        .split("service = \"submission\"\naddress = \"127.0.0.1:");
    let digits = |text: &str| text.split('"').next().and_then(|port| port.parse().ok());
    sections.skip(1).filter_map(digits).collect()
}

/// The port that offers TLS.
pub fn port(gateway: &Gateway) -> u16 {
    ports(gateway)[0]
}

/// A client of the port, within TLS, that has said EHLO.
pub fn client(gateway: &Gateway) -> Client {
    let client = Client::hello(([127, 0, 0, 1], port(gateway)).into());
    secured(gateway, client)
}

/// The same, as if from `source`.
pub fn client_from(gateway: &Gateway, source: &str) -> Client {
    let address = ([127, 0, 0, 1], ports(gateway)[1]).into();
    secured(
        gateway,
        Client::hello_from(address, source, "client.example"),
    )
}

fn secured(gateway: &Gateway, mut client: Client) -> Client {
    client.expect("STARTTLS", "220");
    let root = &gateway.site.certificate.der;
    client.secure(root, HOSTNAME).expect("a handshake");
    client.expect("EHLO client.example", "250");
    client
}

/// The command that logs in by PLAIN.
pub fn plain(user: &str, password: &str) -> String {
    let message = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
    format!("AUTH PLAIN {message}")
}

/// Lets msmtp log in, and send something if it can. What comes of it stands in the gateway's log.
pub fn msmtp(gateway: &Gateway, mechanism: &str, user: &str, password: &str) {
    let config = gateway.site.path("msmtprc");
    let port = port(gateway);
    let text = format!(
        "account default\nhost 127.0.0.1\nport {port}\ntls on\ntls_starttls on\n\
         tls_host_override {HOSTNAME}\ntls_trust_file {}\nauth {mechanism}\nuser {user}\n\
         password {password}\nfrom {user}\n",
        gateway.site.certificate.chain.display()
    );
    fs::write(&config, text).expect("written");
    let status = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&config, status).expect("it is ours");
    let output = Command::new("msmtp")
        .arg("-C")
        .arg(&config)
        .arg("somebody@elsewhere.example")
        .stdin(Stdio::null())
        .output()
        .expect("msmtp runs");
    // Shown where the test fails.
    eprintln!("msmtp: {}", String::from_utf8_lossy(&output.stderr));
}

/// Lets GNU SASL's client log in; gives what it says.
pub fn gsasl(gateway: &Gateway, mechanism: &str, user: &str, password: &str) -> String {
    let output = Command::new("gsasl")
        .args([
            "--smtp",
            "--starttls",
            "127.0.0.1",
            &port(gateway).to_string(),
        ])
        .arg(format!("--mechanism={mechanism}"))
        .arg(format!("--authentication-id={user}"))
        .arg(format!("--password={password}"))
        // It is for a name, and gsasl knows an address.
        .arg("--x509-ca-file=")
        .stdin(Stdio::null())
        .output()
        .expect("gsasl runs");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}
