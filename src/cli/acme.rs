//! `gatepost acme`: the certificates that the gateway gets for itself.

use std::path::Path;

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::acme;
use crate::acme::State;
use crate::acme::Wanted;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::say;
use crate::config::Config;
use crate::tls;

/// Lists the certificates that the gateway gets for itself, and has them renewed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    gatepost acme list\n  \
    gatepost acme renew mx.example.com     at once, however young it is\n\n\
    A running gateway renews them by itself; docs/acme.md tells how.\n\
    Exit codes: 69 the gateway cannot be asked, 78 there is no such certificate.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Renew(Renew),
}

/// Lists them: names, end, next attempt, and what the last one failed for.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost acme list --json")]
struct List {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Has a running gateway get certificates anew within seconds. What came of it is in its log.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost acme renew mx.example.com")]
struct Renew {
    #[command(flatten)]
    file: ConfigFile,
    /// A name in the certificate; without one, all of them
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let done = match &arguments.command {
        Command::List(list) => show(list),
        Command::Renew(renew) => ask(renew),
    };
    done.map_or_else(|status| status, |()| Status::Ok)
}

fn show(list: &List) -> Result<(), Status> {
    let config = list.file.read()?;
    for wanted in config.acme.wanted(&config.hostname) {
        match list.json {
            true => say(as_json(&wanted, &config.data_dir)),
            false => say(line(&wanted, &config.data_dir)),
        }
    }
    Ok(())
}

fn ask(renew: &Renew) -> Result<(), Status> {
    let config = renew.file.read()?;
    let meant = |wanted: &Wanted| match &renew.name {
        Some(name) => wanted.names.contains(name),
        None => true,
    };
    let wanted = config.acme.wanted(&config.hostname).into_iter();
    let wanted: Vec<_> = wanted.filter(meant).collect();
    if wanted.is_empty() {
        complain("gatepost: no such certificate in [acme]; `gatepost acme list` shows all");
        return Err(Status::Config);
    }
    for wanted in wanted {
        if let Err(error) = acme::ask_for_renewal(&wanted, &config.data_dir) {
            complain(&chain(&error));
            complain("  the gateway has to have run once with this [acme]");
            return Err(Status::Unavailable);
        }
        let names = wanted.names.join(" ");
        say(format!(
            "{names}: asked for; the log tells what comes of it"
        ));
    }
    Ok(())
}

/// Each certificate in a few words; `gatepost check` shows them too.
pub(super) fn lines(config: &Config) -> Vec<String> {
    let wanted = config.acme.wanted(&config.hostname).into_iter();
    wanted
        .map(|wanted| line(&wanted, &config.data_dir))
        .collect()
}

fn line(wanted: &Wanted, data_dir: &Path) -> String {
    let mut text = format!("{} ({})", wanted.names.join(" "), wanted.key);
    match tls::inspect(&wanted.files(data_dir)) {
        Ok(found) => text.push_str(&format!(" until {:.0}", found.expires)),
        Err(_) => text.push_str(" not obtained yet"),
    }
    text.push_str(&format!(
        ", by {} from {}",
        wanted.challenge, wanted.directory
    ));
    match State::read(wanted, data_dir) {
        Ok(Some(state)) => {
            text.push_str(&format!(", next {:.0}", state.next));
            if let Some(error) = &state.last_error {
                text.push_str(&format!("; attempt {} failed: {error}", state.failures));
            }
        }
        Ok(None) => {}
        Err(error) => text.push_str(&format!("; {error}")),
    }
    text
}

fn as_json(wanted: &Wanted, data_dir: &Path) -> Value {
    let state = State::read(wanted, data_dir).ok().flatten();
    let found = tls::inspect(&wanted.files(data_dir)).ok();
    json!({
        "names": wanted.names, "key": wanted.key, "challenge": wanted.challenge.to_string(),
        "directory": wanted.directory,
        "expires": found.map(|found| found.expires),
        "next": state.as_ref().map(|state| state.next),
        "failures": state.as_ref().map(|state| state.failures),
        "last_error": state.and_then(|state| state.last_error),
    })
}
