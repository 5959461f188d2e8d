//! `gatepost dkim`: makes keys, compares them with what is published, says who signs for whom.

mod genkey;
mod list;
mod testkey;

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::cli::Status;
use crate::cli::chain;
use crate::cli::complain;
use crate::config::Config;
use crate::sign;
use crate::sign::Held;
use crate::sign::Signing;

/// Makes DKIM keys, compares them with what is published, and says who signs for whom.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    gatepost dkim genkey example.com     makes a key and prints its record for the zone\n  \
    gatepost dkim testkey example.com    is it published as it should be\n  \
    gatepost dkim list                   which key signs for whom\n\n\
    docs/dkim.md tells of each.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Genkey(genkey::Arguments),
    Testkey(testkey::Arguments),
    List(list::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Status {
    match &arguments.command {
        Command::Genkey(arguments) => genkey::run(arguments),
        Command::Testkey(arguments) => testkey::run(arguments),
        Command::List(arguments) => list::run(arguments),
    }
}

/// All keys of a configuration.
pub(super) fn open(config: &Config) -> Result<Signing, sign::Error> {
    let domains = config.signing_domains();
    Signing::open(&config.signing, &domains, &config.data_dir)
}

/// All keys of a configuration, or the status to end with when it is said why there are none.
pub(super) fn open_or_say(config: &Config) -> Result<Signing, Status> {
    open(config).map_err(|error| {
        complain(&chain(&error));
        Status::Config
    })
}

/// Each key once: those of domains, then those that only rules name.
pub(super) fn all(signing: &Signing) -> Vec<Held> {
    let domains = signing.domains().into_iter().flat_map(|(_, held)| held);
    let rules = signing.rules().into_iter().flat_map(|(_, held)| held);
    let mut all: Vec<Held> = Vec::new();
    for held in domains.chain(rules) {
        if !all
            .iter()
            .any(|known| known.path == held.path && known.signer.name() == held.signer.name())
        {
            all.push(held);
        }
    }
    all
}

/// Who signs for whom, one a line, in the order in which it is decided.
pub(super) fn lines(signing: &Signing) -> Vec<String> {
    let rules = signing.rules().into_iter().map(|(from, held)| {
        let names: Vec<_> = held
            .iter()
            .map(|held| held.signer.name().to_string())
            .collect();
        match names.as_slice() {
            [] => format!("{from} not at all"),
            names => format!("{from} by {}", names.join(" and ")),
        }
    });
    let domains = signing.domains().into_iter().flat_map(|(domain, held)| {
        let line = move |held: Held| format!("{domain} by {}", described(&held));
        held.into_iter().map(line)
    });
    rules.chain(domains).collect()
}

fn described(held: &Held) -> String {
    let signer = &held.signer;
    format!(
        "{} ({}, {} bits) from {}",
        signer.name().selector,
        signer.algorithm().signature_name(),
        signer.bits(),
        held.path.display()
    )
}

/// The same for programs.
pub(super) fn as_json(signing: &Signing) -> Value {
    let keys: Vec<Value> = all(signing).iter().map(key_json).collect();
    let names = |held: &[Held]| -> Vec<String> {
        held.iter()
            .map(|held| held.signer.name().to_string())
            .collect()
    };
    let rules: Vec<Value> = signing
        .rules()
        .iter()
        .map(|(from, held)| json!({ "from": from.to_string(), "keys": names(held) }))
        .collect();
    let domains: serde_json::Map<String, Value> = signing
        .domains()
        .iter()
        .map(|(domain, held)| (domain.clone(), names(held).into()))
        .collect();
    json!({ "keys": keys, "rules": rules, "domains": domains })
}

fn key_json(held: &Held) -> Value {
    let signer = &held.signer;
    json!({
        "key": signer.name().to_string(), "domain": signer.name().domain.as_str(),
        "selector": signer.name().selector.as_str(), "algorithm": signer.algorithm().signature_name(),
        "bits": signer.bits(), "file": held.path, "name": signer.dns_name(),
        "record": signer.dns_record(),
    })
}
