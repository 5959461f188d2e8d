//! The checks and the DNS behind them, asked over loopback from a real DNS server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod arc;
mod dkim;
mod dmarc;
mod dns;
mod identity;
mod robust;

use gatepost::mail::address::Domain;
use gatepost::sign::Signer;
use gatepost::verify::Config;
use gatepost::verify::Verifier;

use crate::support::dns::Nameserver;

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn verifier(server: &Nameserver) -> Verifier {
    Verifier::new(server.dns(), &domain("mx.example.net"), &Config::default())
}

fn signer(name: &str) -> Signer {
    Signer::generate(&domain(name), "s1").unwrap()
}

/// The line of a zone that publishes a signer's key.
fn key_line(signer: &Signer) -> String {
    format!("{} TXT {}\n", signer.dns_name(), signer.dns_record())
}

fn signed(signer: &Signer, message: &str) -> String {
    signer.sign(message.as_bytes()).unwrap() + message
}
