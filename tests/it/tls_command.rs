//! `gatepost tls`: what it sees of a gateway, and what it says of it.

use serde_json::Value;

use crate::support::free_port;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::process;

#[test]
fn the_servers_of_a_domain_are_seen_as_mail_would_meet_them() {
    let (open, implicit) = (free_port(), free_port());
    let listen = |port: u16, tls: &str| {
        format!("[[listen]]\nservice = \"mx\"\naddress = \"127.0.0.1:{port}\"\ntls = {tls:?}\n")
    };
    let gateway = Site::new()
        .with(&listen(open, "off"))
        .with(&listen(implicit, "implicit"))
        .start();
    let site = &gateway.site;
    let config = site.path("gatepost.toml").display().to_string();
    let look = |arguments: &[&str], trusts: bool| -> (bool, Value) {
        let all = [&["tls", "--config", &config, "--json"], arguments].concat();
        let mut command = gatepost(&all);
        if trusts {
            command.env("SSL_CERT_FILE", &site.certificate.chain);
        }
        let (succeeded, said) = process::attempt(&mut command);
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        assert_eq!(said["ok"], succeeded);
        (succeeded, said["servers"][0].clone())
    };
    let usual = site.smtp.port().to_string();
    for trusts in [true, false] {
        let (goes, server) = look(&["gate.example", "--port", &usual], trusts);
        assert!(goes);
        assert_eq!(server["host"], HOSTNAME);
        assert_eq!(server["wanted"], "may: nothing published");
        let tls = &server["tls"];
        assert_eq!(tls["version"], "TLS1.3");
        assert_eq!(tls["key_exchange"], "X25519MLKEM768");
        assert_eq!(tls["trusted"], trusts, "{tls}");
        assert_eq!(tls["certificate"]["names"][0], HOSTNAME);
        assert_eq!(tls["certificate"]["expires"], "4096-01-01T00:00:00Z");
        assert_eq!(
            tls["certificate"]["sha256"].as_str().map(str::len),
            Some(64)
        );
    }
    let (goes, server) = look(&["gate.example", "--port", &open.to_string()], true);
    assert!(goes, "nobody asks for TLS");
    assert!(
        server["tls"]["error"].to_string().contains("offers no TLS"),
        "{server}"
    );
    let named = format!("smtp:{HOSTNAME}:{implicit}");
    let (goes, server) = look(&[&named, "--implicit"], true);
    assert!(goes);
    assert_eq!(server["tls"]["trusted"], true, "{server}");
    let closed = free_port().to_string();
    let (goes, server) = look(&["gate.example", "--port", &closed], true);
    assert!(!goes);
    assert!(
        server["no_mail"].to_string().contains("cannot connect"),
        "{server}"
    );
}
