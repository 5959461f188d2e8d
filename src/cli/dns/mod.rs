//! `gatepost dns`: the records to publish for a domain, and whether the world sees them.

mod compare;
mod records;
pub(super) mod zone;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use self::compare::Comparison;
use self::compare::Found;
use self::records::Need;
use self::records::Wanted;
use self::records::wanted;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::block_on;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::dkim;
use crate::cli::say;
use crate::config::Config;
use crate::dns::Dns;
use crate::mail::address::Domain;
use crate::sign::Held;
use crate::verify::Verifier;

/// Prints the records to publish for a domain of ours, as lines of a zone file; with --verify, what the
/// DNS has of them. The status is then 1 where one that is needed is missing or differs.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost dns example.com --verify")]
pub(super) struct Arguments {
    /// One of our domains. Default: all
    domain: Option<Domain>,
    /// Ask the DNS and compare
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    file: ConfigFile,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

/// What a domain needs, and what the DNS has of each where it was asked.
struct Site {
    domain: Domain,
    records: Vec<(Wanted, Option<Found>)>,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let sites = arguments.file.read().and_then(|config| {
        let keys = dkim::all(&dkim::open_or_say(&config)?);
        let mut sites = sites(arguments, &config, &keys)?;
        if arguments.verify {
            compare(&config, &mut sites)?;
        }
        Ok(sites)
    });
    let sites = match sites {
        Ok(sites) => sites,
        Err(status) => return status,
    };
    let status = status(&sites);
    if arguments.json {
        let sites: Vec<Value> = sites.iter().map(as_json).collect();
        say(json!({ "ok": status == Status::Ok, "domains": sites }));
        return status;
    }
    for (at, site) in sites.iter().enumerate() {
        if at > 0 {
            say("");
        }
        tell(site);
    }
    status
}

fn sites(arguments: &Arguments, config: &Config, keys: &[Held]) -> Result<Vec<Site>, Status> {
    if let Some(domain) = &arguments.domain
        && !config.domains.contains_key(domain)
    {
        complain(&format!(
            "gatepost: {domain} is none of our domains; a section [domains.\"{domain}\"] makes it one"
        ));
        return Err(Status::Usage);
    }
    let one = arguments.domain.as_ref();
    let domains = config.domains.keys();
    let domains = domains.filter(|domain| one.is_none_or(|one| one == *domain));
    let site = |(at, domain): (usize, &Domain)| {
        let keys = keys
            .iter()
            .filter(|held| signs_as(held, domain) || at == 0 && signs_as(held, &config.hostname));
        let keys: Vec<Held> = keys.cloned().collect();
        let records = wanted(config, domain, &keys).into_iter();
        Site {
            domain: domain.clone(),
            records: records.map(|wanted| (wanted, None)).collect(),
        }
    };
    let mut sites: Vec<Site> = domains.enumerate().map(site).collect();
    // What stands at our own name is said once.
    for site in sites.iter_mut().skip(1) {
        site.records.retain(|(wanted, _)| !wanted.is_of_the_host());
    }
    Ok(sites)
}

fn signs_as(held: &Held, domain: &Domain) -> bool {
    held.signer.name().domain == *domain
}

fn compare(config: &Config, sites: &mut [Site]) -> Result<(), Status> {
    let dns = Dns::new(&config.dns).map_err(|error| {
        complain(&chain(&error));
        Status::Unavailable
    })?;
    let verifier = Verifier::new(dns.clone(), &config.hostname, &config.verify);
    block_on(async {
        for site in sites {
            let comparison = Comparison {
                dns: &dns,
                verifier: &verifier,
                hostname: &config.hostname,
                domain: &site.domain,
            };
            for (wanted, found) in &mut site.records {
                *found = Some(comparison.of(wanted).await);
            }
        }
    })
}

fn tell(site: &Site) {
    for (wanted, found) in &site.records {
        match found {
            None => say(wanted.zone_line()),
            Some(found) => say(compared(wanted, found)),
        }
    }
    let has_key = site.records.iter().any(|(wanted, _)| {
        wanted
            .key()
            .is_some_and(|held| signs_as(held, &site.domain))
    });
    if !has_key {
        let domain = &site.domain;
        say(format!(
            "; no DKIM key signs as {domain}; `gatepost dkim genkey {domain}` makes one"
        ));
    }
}

/// `differs  example.com. MX: there is 10 mail.example.net.; publish 10 mx.example.com.`
fn compared(wanted: &Wanted, found: &Found) -> String {
    let (name, kind, text) = (&wanted.name, wanted.kind(), found.text());
    let told = match found {
        Found::Right(_) | Found::Unknown(_) if text.is_empty() => String::new(),
        Found::Right(_) | Found::Unknown(_) => format!(": {text}"),
        Found::Missing => format!(": publish {}", wanted.text()),
        Found::Differs(_) => format!(": {text}; publish {}", wanted.text()),
    };
    let advised = match wanted.need {
        Need::Advised if !matches!(found, Found::Right(_)) => " (not needed, but of use)",
        Need::Advised | Need::Needed => "",
    };
    format!("{:<8} {name}. {kind}{told}{advised}", found.word())
}

fn is_trouble(wanted: &Wanted, found: &Found) -> bool {
    wanted.need == Need::Needed && !matches!(found, Found::Right(_))
}

fn as_json(site: &Site) -> Value {
    let record = |(wanted, found): &(Wanted, Option<Found>)| {
        let mut record = wanted.as_json();
        if let Some(found) = found {
            record["result"] = found.word().into();
            record["found"] = found.text().into();
        }
        record
    };
    let records: Vec<Value> = site.records.iter().map(record).collect();
    json!({ "domain": site.domain.as_str(), "records": records })
}

fn status(sites: &[Site]) -> Status {
    let records = sites.iter().flat_map(|site| &site.records);
    let mut status = Status::Ok;
    for (wanted, found) in records {
        let Some(found) = found else { continue };
        match (is_trouble(wanted, found), found) {
            (true, Found::Unknown(_)) if status == Status::Ok => status = Status::Unavailable,
            (true, Found::Missing | Found::Differs(_)) => status = Status::Flawed,
            (true, Found::Unknown(_) | Found::Right(_)) | (false, _) => {}
        }
    }
    status
}
