//! `gatepost user`: who may log in, where the users are in a file of ours.
//!
//! A running gateway takes a change within seconds. A password is typed, or read from standard input; it
//! never stands among the arguments, where every user of the machine could read it.

mod list;
mod typed;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;

use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::make_data_dir;
use crate::cli::runner::Runner;
use crate::cli::say;
use crate::config::Config;
use crate::directory::users;
use crate::directory::users::Change;
use crate::directory::users::Error;
use crate::directory::users::NewPassword;
use crate::directory::users::Scram;
use crate::directory::users::Source;

/// Adds users who may log in, gives them passwords, removes and lists them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    gatepost user add anna@example.com              asks for the password\n  \
    pass show anna | gatepost user passwd anna@example.com --stdin\n  \
    gatepost user list\n\n\
    The file is the one of [submission] users; docs/users.md tells of it.\n\
    Exit codes: 65 the name or the password will not do, 66 the file cannot be read, 67 there is no\n\
    such user, 73 the file cannot be written.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    Passwd(Passwd),
    Remove(Remove),
    List(list::Arguments),
}

/// Adds a user. A user whose name is an address may send as that address.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost user add anna@example.com --also info@example.com")]
struct Add {
    #[command(flatten)]
    user: OneUser,
    #[command(flatten)]
    password: Given,
    /// What the user may send as beside: addresses, or '*@DOMAIN' for all of a domain
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    also: Vec<String>,
}

/// Gives a user another password.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost user passwd anna@example.com")]
struct Passwd {
    #[command(flatten)]
    user: OneUser,
    #[command(flatten)]
    password: Given,
}

/// Removes a user. Who is logged in stays so until the session ends.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost user remove anna@example.com")]
struct Remove {
    #[command(flatten)]
    user: OneUser,
}

#[derive(Debug, Args)]
struct OneUser {
    #[command(flatten)]
    file: ConfigFile,
    /// The name to log in with, mostly an address
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
struct Given {
    /// Read the password from standard input, one line, also where that is a terminal
    #[arg(long)]
    stdin: bool,
    /// Keep no keys for SCRAM. It is offered only where each user has them
    #[arg(long)]
    no_scram: bool,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let done = match &arguments.command {
        Command::Add(add) => change(&add.user, || {
            Ok(Change::Add {
                password: add.password.read()?,
                also: add.also.clone(),
            })
        }),
        Command::Passwd(passwd) => change(&passwd.user, || {
            Ok(Change::Password(passwd.password.read()?))
        }),
        Command::Remove(remove) => change(&remove.user, || Ok(Change::Remove)),
        Command::List(arguments) => list::run(arguments),
    };
    done.map_or_else(|status| status, |()| Status::Ok)
}

impl Given {
    /// Asks for it, and hashes it.
    fn read(&self) -> Result<NewPassword, Status> {
        let typed = typed::password(self.stdin).map_err(|message| {
            complain(&format!("gatepost: {message}"));
            Status::Data
        })?;
        let scram = match self.no_scram {
            true => Scram::Left,
            false => Scram::Kept,
        };
        NewPassword::hash(&typed, scram).map_err(|error| refuse(&error))
    }
}

/// Makes the change of one user that `what` gives once all else is known to be right.
fn change(user: &OneUser, what: impl FnOnce() -> Result<Change, Status>) -> Result<(), Status> {
    let config = user.file.read()?;
    let path = file(&config)?;
    if path.starts_with(&config.data_dir) {
        make_data_dir(&config)?;
    }
    let owner = owner(&config)?;
    let change = what()?;
    users::change(&path, &user.name, &change, owner).map_err(|error| refuse(&error))?;
    if config.submission.users.is_none() {
        say("Nobody can log in yet: the configuration has no [submission] users = \"file\".");
    }
    Ok(())
}

/// The file of users.
fn file(config: &Config) -> Result<PathBuf, Status> {
    let source = config
        .submission
        .users
        .clone()
        .unwrap_or(Source::File(None));
    source.file(&config.data_dir).ok_or_else(|| {
        complain(&format!(
            "gatepost: the users are Dovecot's ([submission] users = \"{source}\"); change them there"
        ));
        Status::Config
    })
}

/// Whose a new file is to be: the user's who runs the gateway. None: ours.
fn owner(config: &Config) -> Result<Option<(u32, u32)>, Status> {
    match Runner::named(config.user.as_deref()) {
        Ok(Runner::Other { user, .. }) => Ok(Some((user.uid.as_raw(), user.gid.as_raw()))),
        // A unit of systemd may name the user; the data directory is theirs.
        Ok(Runner::Ourselves) => Ok(match fs::metadata(&config.data_dir) {
            Ok(found) if nix::unistd::Uid::effective().is_root() => {
                Some((found.uid(), found.gid()))
            }
            Ok(_) | Err(_) => None,
        }),
        Err(message) => {
            complain(&format!("gatepost: {message}"));
            Err(Status::Config)
        }
    }
}

/// Says why, and gives the status that fits.
fn refuse(error: &Error) -> Status {
    complain(&chain(error));
    match error {
        Error::Unknown(_) => Status::NoUser,
        Error::Exists(_) | Error::Wrong(_) | Error::Line { .. } => Status::Data,
        Error::Read { .. } => Status::NoInput,
        Error::Write { .. } => Status::CannotCreate,
        Error::Threads(_) => Status::Unavailable,
    }
}
