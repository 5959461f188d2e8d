//! `gatepost dkim list`: which key signs for whom.

use clap::Args;

use super::as_json;
use super::lines;
use super::open_or_say;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::say;

/// Says which key signs for whom, in the order in which it is decided.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost dkim list --config /etc/gatepost/gatepost.toml")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let signing = match arguments
        .file
        .read()
        .and_then(|config| open_or_say(&config))
    {
        Ok(signing) => signing,
        Err(status) => return status,
    };
    if arguments.json {
        say(as_json(&signing));
        return Status::Ok;
    }
    match lines(&signing).as_slice() {
        [] => say("nothing is signed; gatepost dkim genkey DOMAIN makes a key"),
        lines => say(lines.join("\n")),
    }
    Status::Ok
}
