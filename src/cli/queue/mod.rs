//! `gatepost queue`: looks at the queue and steers it while the gateway runs; checks it on disk, and
//! moves messages out of it and in. Nothing is ever locked up in our format.

mod export;
mod import;
pub(super) mod steer;
mod verify;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;
use nix::unistd::Uid;
use nix::unistd::User;

use crate::cli::Status;
use crate::cli::block_on;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::runner::Runner;
use crate::config::Config;
use crate::spool;

/// Looks at the queue and steers it; checks it on disk, and moves messages as plain files.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    gatepost queue list --state deferred        of the running gateway\n  \
    gatepost queue retry --domain example.com   now, whatever was planned\n  \
    gatepost queue verify                       also beside a running gateway\n  \
    gatepost queue export --to /var/tmp/queue   with the gateway stopped\n  \
    gatepost queue import /var/tmp/queue        there or on another machine\n\n\
    docs/queue.md tells of each, and of the files.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Arguments),
    Export(export::Arguments),
    Import(import::Arguments),
    List(steer::List),
    Show(steer::Show),
    /// Tries messages now, whatever was planned
    #[command(after_help = "Example:\n  gatepost queue retry --domain example.com")]
    Retry(steer::Order),
    /// Keeps messages, and does not deliver them until they are released
    Hold(steer::Hold),
    /// Delivers messages that are held
    #[command(after_help = "Example:\n  gatepost queue release 01JDQ4T9X2K.1")]
    Release(steer::Order),
    /// Gives messages up and tells their senders
    #[command(after_help = "Example:\n  gatepost queue bounce --to '*@gone.example'")]
    Bounce(steer::Order),
    /// Drops messages; nobody is told
    #[command(after_help = "Example:\n  gatepost queue delete --from spammer@example.net")]
    Delete(steer::Order),
}

pub(super) fn run(arguments: &Arguments) -> Status {
    match &arguments.command {
        Command::Verify(arguments) => verify::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::List(arguments) => steer::list(arguments),
        Command::Show(arguments) => steer::show(arguments),
        Command::Retry(arguments) => steer::order("retry", arguments),
        Command::Hold(arguments) => steer::hold(arguments),
        Command::Release(arguments) => steer::order("release", arguments),
        Command::Bounce(arguments) => steer::order("bounce", arguments),
        Command::Delete(arguments) => steer::order("delete", arguments),
    }
}

/// The spool's directory.
fn directory(config: &Config) -> PathBuf {
    config.data_dir.join("spool")
}

/// Says where there is no spool.
fn check_there(directory: &Path) -> Result<(), Status> {
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            complain(&format!(
                "gatepost: there is no spool in {shown}\n  \
                 the key data_dir says where it is; another file is given with --config"
            ));
            Err(Status::NoInput)
        }
        Err(error) => {
            complain(&format!("gatepost: cannot look at {shown}: {error}"));
            Err(Status::Unavailable)
        }
    }
}

/// Says where we are not the one who runs the gateway: what we make in the spool would not be theirs.
fn check_ours(config: &Config) -> Result<(), Status> {
    let owner = match Runner::named(config.user.as_deref()) {
        Ok(Runner::Ourselves) => owner(config),
        Ok(Runner::Other { user, .. }) => Some(user.name),
        Err(message) => {
            complain(&format!("gatepost: {message}"));
            return Err(Status::Config);
        }
    };
    let Some(owner) = owner else {
        return Ok(());
    };
    complain(&format!(
        "gatepost: the spool in {} is {owner}'s, and what another user writes there could not be read\n  \
         run this as that user: sudo -u {owner} gatepost queue ...",
        config.data_dir.display()
    ));
    Err(Status::Unavailable)
}

/// Whose the spool is, where it is somebody else's.
fn owner(config: &Config) -> Option<String> {
    let candidates = [directory(config), config.data_dir.clone()];
    let found = candidates.iter().find_map(|path| fs::metadata(path).ok())?;
    let uid = Uid::from_raw(found.uid());
    if uid == Uid::effective() {
        return None;
    }
    let user = User::from_uid(uid).ok().flatten();
    Some(user.map_or_else(|| format!("#{uid}"), |user| user.name))
}

/// Says why the spool could not be used.
fn refuse(error: &spool::Error) -> Status {
    match error {
        spool::Error::Locked { holder, .. } => complain(&format!(
            "gatepost: the gateway is running ({holder}); stop it first, as with systemctl stop gatepost\n  \
             what it delivers or takes in meanwhile would be there twice, or not at all"
        )),
        error => complain(&chain(error)),
    }
    Status::Unavailable
}

/// `1 message`, `2 messages`
pub(super) fn messages(count: usize) -> String {
    match count {
        1 => "1 message".to_owned(),
        many => format!("{many} messages"),
    }
}
