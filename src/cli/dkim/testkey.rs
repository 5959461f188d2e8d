//! `gatepost dkim testkey`: compares keys with what the DNS has of them.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use super::all;
use super::open_or_say;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::block_on;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::say;
use crate::config::Config;
use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::sign::KeyName;
use crate::sign::Published;
use crate::sign::Selector;
use crate::sign::Signer;
use crate::sign::published;

/// Compares each key with the record that the DNS has of it. The status is 0 where all are right, 65
/// where a record does not fit its key, 69 where there is none or the DNS does not say.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost dkim testkey example.com --selector mail2026")]
pub(super) struct Arguments {
    /// Only the keys of this domain
    domain: Option<Domain>,
    /// Only the key of this selector
    #[arg(long)]
    selector: Option<Selector>,
    /// A key file, instead of those that the configuration names
    #[arg(long, value_name = "PATH", requires = "domain", requires = "selector")]
    key: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let tested = arguments.file.read().and_then(|config| {
        let signers = signers(arguments, &config)?;
        let dns = Dns::new(&config.dns).map_err(|error| {
            complain(&chain(&error));
            Status::Unavailable
        })?;
        block_on(async {
            let mut tested = Vec::new();
            for signer in signers {
                let found = published(&dns, &signer).await;
                tested.push((signer, found));
            }
            tested
        })
    });
    let tested = match tested {
        Ok(tested) => tested,
        Err(status) => return status,
    };
    if arguments.json {
        let keys: Vec<Value> = tested
            .iter()
            .map(|(signer, found)| {
                let (word, text) = in_words(found);
                json!({ "key": signer.name().to_string(), "name": signer.dns_name(),
                        "result": word, "text": text })
            })
            .collect();
        say(json!({ "ok": status(&tested) == Status::Ok, "keys": keys }));
    } else {
        for (signer, found) in &tested {
            let line = match in_words(found) {
                (word, None) => format!("{}: key {word}", signer.dns_name()),
                (word, Some(text)) => format!("{}: key {word}: {text}", signer.dns_name()),
            };
            say(line);
        }
    }
    status(&tested)
}

/// The keys to test, at least one.
fn signers(arguments: &Arguments, config: &Config) -> Result<Vec<Arc<Signer>>, Status> {
    if let (Some(path), Some(domain), Some(selector)) =
        (&arguments.key, &arguments.domain, &arguments.selector)
    {
        let name = KeyName {
            domain: domain.clone(),
            selector: selector.clone(),
        };
        let signer = Signer::from_file(path, &name).map_err(|error| {
            complain(&chain(&error));
            Status::NoInput
        })?;
        return Ok(vec![Arc::new(signer)]);
    }
    let signing = open_or_say(config)?;
    let wanted = |name: &KeyName| {
        let (domain, selector) = (&arguments.domain, &arguments.selector);
        domain.as_ref().is_none_or(|domain| *domain == name.domain)
            && selector
                .as_ref()
                .is_none_or(|selector| *selector == name.selector)
    };
    let signers = all(&signing).into_iter().map(|held| held.signer);
    let signers: Vec<_> = signers.filter(|signer| wanted(signer.name())).collect();
    if signers.is_empty() {
        complain("gatepost: there is no such key; gatepost dkim list names all");
        return Err(Status::NoInput);
    }
    Ok(signers)
}

fn in_words(found: &Published) -> (&'static str, Option<String>) {
    match found {
        Published::Right(note) => ("OK", note.map(str::to_owned)),
        Published::Missing => ("missing", Some("there is no TXT record".to_owned())),
        Published::Wrong(why) => ("mismatch", Some(why.clone())),
        Published::Unknown(why) => ("unknown", Some(why.clone())),
    }
}

fn status(tested: &[(Arc<Signer>, Published)]) -> Status {
    let any = |test: fn(&Published) -> bool| tested.iter().any(|(_, found)| test(found));
    if any(|found| matches!(found, Published::Wrong(_))) {
        return Status::Data;
    }
    match any(|found| matches!(found, Published::Missing | Published::Unknown(_))) {
        true => Status::Unavailable,
        false => Status::Ok,
    }
}
