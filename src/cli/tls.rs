//! `gatepost tls`: how safe mail to a destination is, seen as we would send it.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::block_on;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::say;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::delivery::Target;
use crate::delivery::look::Look;
use crate::delivery::look::Seen;
use crate::delivery::next_hop::NextHop;
use crate::delivery::route::Route;
use crate::delivery::route::Tls;
use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::mail::address::Host;

/// Connects to the servers of a destination as a message would, and says what is asked of TLS and why
/// (DANE, MTA-STS), what each shows, and whether mail would go. Sends nothing. The status is 1 where a
/// server would get no mail.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost tls example.com\n  \
                        gatepost tls smtp:mx.example.com:25")]
pub(super) struct Arguments {
    /// A domain, whose mail exchangers are looked at, or smtp:HOST:PORT
    #[arg(value_parser = destination)]
    destination: Destination,
    /// TLS from the first octet, for smtp:HOST:465 and the like
    #[arg(long)]
    implicit: bool,
    /// The port of mail exchangers
    #[arg(long, default_value_t = 25)]
    port: u16,
    #[command(flatten)]
    file: ConfigFile,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone)]
enum Destination {
    Exchangers(Domain),
    NextHop(NextHop),
}

fn destination(text: &str) -> Result<Destination, String> {
    if let Ok(domain) = Domain::parse(text) {
        return Ok(Destination::Exchangers(domain));
    }
    match NextHop::parse(text) {
        Ok(hop @ NextHop::Smtp(_)) => Ok(Destination::NextHop(hop)),
        Ok(_) | Err(_) => Err("give a domain or smtp:HOST:PORT".to_owned()),
    }
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let looked = arguments
        .file
        .read()
        .and_then(|config| looks(arguments, &config));
    let looks = match looked {
        Ok(looks) => looks,
        Err(status) => return status,
    };
    let is_good = looks.iter().all(|look| look.mail.is_ok());
    if arguments.json {
        let servers: Vec<Value> = looks.iter().map(as_json).collect();
        say(json!({ "ok": is_good, "servers": servers }));
    } else {
        let told: Vec<String> = looks.iter().map(tell).collect();
        say(told.join("\n\n"));
    }
    match is_good {
        true => Status::Ok,
        false => Status::Flawed,
    }
}

fn looks(arguments: &Arguments, config: &Config) -> Result<Vec<Look>, Status> {
    let unavailable = |error: &dyn std::error::Error| {
        complain(&chain(error));
        Status::Unavailable
    };
    let dns = Dns::new(&config.dns).map_err(|error| unavailable(&error))?;
    // As another host, to whom our own exchangers are no loop; RFC 6761 §6.4: nobody has this name.
    let nobody = Domain::parse("nobody.invalid").unwrap_or(config.hostname.clone());
    let delivery = Delivery::new(&config.delivery, nobody, dns);
    let delivery = delivery.map_err(|error| unavailable(&error))?;
    let (to, host) = match &arguments.destination {
        Destination::Exchangers(domain) => (NextHop::Mx(arguments.port), domain.clone()),
        Destination::NextHop(hop) => (hop.clone(), config.hostname.clone()),
    };
    let route = Route {
        implicit_tls: arguments.implicit,
        hello: Some(config.hostname.clone()),
        // Also of a server that is named: what binds others who send there.
        tls: Some(Tls::Published),
        ..Route::to(to)
    };
    let target = Target::new(&Arc::new(route), &Host::Domain(host));
    block_on(delivery.look(&target))?.map_err(|reason| {
        complain(&format!("gatepost: {target}: {reason}"));
        Status::Unavailable
    })
}

fn tell(look: &Look) -> String {
    let mut lines = vec![format!("{} at {}", look.host, look.address)];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<11} {text}"));
    line("wanted", said(&look.wanted));
    match &look.seen {
        Err(reason) => line("tls", format!("none: {reason}")),
        Ok(seen) => {
            let facts = &seen.facts;
            line(
                "tls",
                format!(
                    "{}, {}, {}",
                    facts.version, facts.cipher, facts.key_exchange
                ),
            );
            if let Some(shown) = &seen.certificate {
                let (begins, expires) = shown.valid;
                line(
                    "certificate",
                    format!("{} by {}", shown.subject, shown.issuer),
                );
                line("names", shown.names.join(" "));
                line("valid", format!("{begins:.0} to {expires:.0}"));
                line("sha256", shown.fingerprint.to_string());
                line("key sha256", shown.key.to_string());
            }
            line("trusted", trusted(seen));
        }
    }
    let mail = match &look.mail {
        Ok(()) => "would go".to_owned(),
        Err(reason) => format!("would not go: {reason}"),
    };
    line("mail", mail);
    lines.join("\n")
}

fn said(result: &Result<String, String>) -> String {
    match result {
        Ok(text) => text.clone(),
        Err(reason) => format!("unknown: {reason}"),
    }
}

fn trusted(seen: &Seen) -> String {
    match &seen.trusted {
        Ok(()) => "yes, by this system and for this name".to_owned(),
        Err(reason) => format!("no: {reason}"),
    }
}

fn as_json(look: &Look) -> Value {
    let seen = match &look.seen {
        Err(reason) => json!({ "error": reason }),
        Ok(seen) => {
            let certificate = seen.certificate.as_ref().map(|shown| {
                json!({
                    "subject": shown.subject, "issuer": shown.issuer, "names": shown.names,
                    "begins": shown.valid.0.to_string(), "expires": shown.valid.1.to_string(),
                    "sha256": shown.fingerprint.to_string(), "key_sha256": shown.key.to_string(),
                })
            });
            json!({
                "version": seen.facts.version, "cipher": seen.facts.cipher,
                "key_exchange": seen.facts.key_exchange, "certificate": certificate,
                "trusted": seen.trusted.is_ok(), "not_trusted": seen.trusted.as_ref().err(),
            })
        }
    };
    json!({
        "host": look.host, "address": look.address.to_string(),
        "wanted": look.wanted.as_ref().ok(), "not_known": look.wanted.as_ref().err(),
        "tls": seen, "mail": look.mail.is_ok(), "no_mail": look.mail.as_ref().err(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_domain_or_a_server() {
        for (text, want) in [
            ("example.com", true),
            ("smtp:mx.example.com:25", true),
            ("smtp:[2001:db8::1]:25", true),
            ("smtp:192.0.2.1:465", true),
            ("lmtp:unix:/run/lmtp", false),
            ("mx", true), // a name like any other
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(destination(text).is_ok(), want, "{text}");
        }
    }
}
