//! `gatepost queue import`: puts messages from plain files into the queue.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

use super::block_on;
use super::check_ours;
use super::directory;
use super::messages;
use super::refuse;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::say;
use crate::config::Config;
use crate::spool::import::Imported;
use crate::spool::import::import;

/// Puts each NAME.eml with its NAME.json into the queue as a new message. The gateway has to be
/// stopped. NAME.json becomes NAME.json.imported, so that it is not imported twice; an import that is
/// cut off is finished by the next one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    gatepost queue import /var/tmp/queue\n\n\
    This is enough beside a message:\n  \
    { \"from\": \"anna@here.example\", \"recipients\": [\"bob@there.example\"] }\n\n\
    The status is 1 where a message was left out.")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Where the files are
    #[arg(value_name = "DIRECTORY")]
    from: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let checked = arguments.file.read().and_then(|config| {
        check_source(arguments)?;
        check_ours(&config)?;
        Ok(config)
    });
    checked
        .and_then(|config| work(arguments, &config))
        .unwrap_or_else(|status| status)
}

fn check_source(arguments: &Arguments) -> Result<(), Status> {
    if arguments.from.is_dir() {
        return Ok(());
    }
    complain(&format!(
        "gatepost: {} is not a directory",
        arguments.from.display()
    ));
    Err(Status::NoInput)
}

fn work(arguments: &Arguments, config: &Config) -> Result<Status, Status> {
    let directory = directory(config);
    let importing = import(&directory, &config.spool, &arguments.from);
    let imported = block_on(importing)?.map_err(|error| refuse(&error))?;
    Ok(tell(&imported))
}

fn tell(imported: &Imported) -> Status {
    let mut status = Status::Ok;
    for (name, reason) in &imported.left_out {
        complain(&format!("gatepost: {name} was not imported: {reason}"));
        status = Status::Flawed;
    }
    if imported.resumed > 0 {
        let count = messages(imported.resumed);
        say(format!(
            "{count} had been imported before the last import was cut off"
        ));
    }
    let count = messages(imported.messages);
    say(format!("{count} imported, {}", ByteSize(imported.octets)));
    if let Some(error) = &imported.stopped {
        complain(&chain(error));
        complain("  the rest was not tried; import once more when that is mended");
        status = Status::Unavailable;
    }
    status
}
