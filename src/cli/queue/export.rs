//! `gatepost queue export`: writes queued messages to plain files, as a copy or as a move.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

use super::block_on;
use super::check_ours;
use super::check_there;
use super::directory;
use super::messages;
use super::refuse;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::complain;
use crate::cli::say;
use crate::config::Config;
use crate::mail::id::SpoolId;
use crate::spool::export::Afterwards;
use crate::spool::export::Exported;
use crate::spool::export::export;

/// Writes each queued message to ID.eml (its octets) and ID.json (its envelope and how far it has
/// come). The gateway has to be stopped: what it delivers meanwhile would be delivered twice. Nothing
/// is overwritten.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    gatepost queue export --to /var/tmp/queue            a copy; the messages stay in the queue\n  \
    gatepost queue export --to /var/tmp/queue --remove   a move\n\n\
    The status is 1 where a message was left out.")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Where the files go; made where it is missing
    #[arg(long, value_name = "DIRECTORY")]
    to: PathBuf,
    /// Only this message; may be given several times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<SpoolId>,
    /// Take the messages out of the queue once all files are on disk
    #[arg(long)]
    remove: bool,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let checked = arguments.file.read().and_then(|config| {
        check_there(&directory(&config))?;
        check_ours(&config)?;
        Ok(config)
    });
    checked
        .and_then(|config| work(arguments, &config))
        .unwrap_or_else(|status| status)
}

fn work(arguments: &Arguments, config: &Config) -> Result<Status, Status> {
    let afterwards = match arguments.remove {
        true => Afterwards::Remove,
        false => Afterwards::Keep,
    };
    let wanted = (!arguments.ids.is_empty()).then_some(arguments.ids.as_slice());
    let directory = directory(config);
    let exporting = export(&directory, &config.spool, &arguments.to, wanted, afterwards);
    match block_on(exporting)? {
        Ok(exported) => Ok(tell(arguments, &exported)),
        Err(error) => {
            let status = refuse(&error);
            if arguments.remove {
                complain("  nothing was taken out of the queue");
            }
            Err(status)
        }
    }
}

fn tell(arguments: &Arguments, exported: &Exported) -> Status {
    let mut status = Status::Ok;
    for (id, reason) in &exported.left_out {
        complain(&format!("gatepost: {id} was not exported: {reason}"));
        status = Status::Flawed;
    }
    if exported.gaps > 0 {
        complain("gatepost: the spool is damaged; gatepost queue verify says where");
        status = Status::Flawed;
    }
    let (count, size) = (messages(exported.messages.len()), ByteSize(exported.octets));
    say(format!(
        "{count} exported to {}, {size}",
        arguments.to.display()
    ));
    match (&exported.not_removed, arguments.remove) {
        (Some(reason), _) => {
            complain(&format!(
                "gatepost: they are still in the queue as well: {reason}"
            ));
            status = Status::Flawed;
        }
        (None, true) => say("they are not in the queue any more"),
        (None, false) => {
            say("they are still in the queue; import this copy only where that queue is lost")
        }
    }
    status
}
