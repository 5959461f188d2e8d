//! The command line: one file a subcommand.
//!
//! Each command ends with a status of sysexits(3) and, when it fails, says why and what to do.
//! Output is plain text; only the help of clap has colours, and only on a terminal.

mod acme;
mod check;
mod demo;
mod descriptors;
mod dkim;
mod dns;
mod queue;
mod runner;
mod sendmail;
mod serve;
mod status;
mod tls;
mod user;

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::Parser;
use clap::Subcommand;

use crate::accept::privileges;
use crate::config::Config;
use crate::config::DEFAULT_PATH;
use crate::config::fault::Faults;

/// A standalone SMTP gateway: SPF at RCPT TO, DMARC at DATA, a 250 that means on disk.
#[derive(Debug, Parser)]
#[command(
    name = "gatepost",
    version,
    arg_required_else_help = true,
    after_help = "Example:\n  \
        gatepost demo --once                 the whole job on loopback\n  \
        gatepost check && gatepost serve     with /etc/gatepost/gatepost.toml\n  \
        gatepost dns example.com             the records to publish\n  \
        gatepost status                      how it goes, where mail waits\n  \
        gatepost acme list                   the certificates that it gets for itself\n  \
        gatepost queue verify                is all that was acknowledged as it was written\n  \
        gatepost tls example.com             how safe mail to a domain is\n  \
        gatepost user add anna@example.com   who may log in and send\n\n\
        Exit codes are those of sysexits(3): 64 wrong arguments, 65 a name or password that will not\n\
        do, or a key that is not the published one, 66 no such file, 67 no such user, 69 something\n\
        stands in the way, 73 a file cannot be made, 75 try again, 77 not allowed, 78 the\n\
        configuration has faults; and 1 where the queue is damaged, there is no such message, one\n\
        could not be moved or dealt with, or a record is not published."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Check(check::Arguments),
    Acme(acme::Arguments),
    Demo(demo::Arguments),
    Dkim(dkim::Arguments),
    Dns(dns::Arguments),
    Queue(queue::Arguments),
    Sendmail(sendmail::Arguments),
    Status(status::Arguments),
    Tls(tls::Arguments),
    User(user::Arguments),
}

/// Which file to read.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short, long, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

impl ConfigFile {
    /// The configuration, or the status to end with when the faults are said.
    fn read(&self) -> Result<Config, Status> {
        Config::read(&self.config).map_err(|faults| {
            complain(&faults_text(&faults));
            status_of(&faults)
        })
    }
}

/// How a command ended: sysexits(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Ok = 0,
    /// The work was done, and not all was well.
    Flawed = 1,
    Usage = 64,
    Data = 65,
    NoInput = 66,
    NoUser = 67,
    Unavailable = 69,
    CannotCreate = 73,
    TemporaryFailure = 75,
    NoPermission = 77,
    Config = 78,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    if let Some(arguments) = sendmail::called(env::args_os()) {
        return sendmail::run(arguments).into();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are errors to clap. Nothing can be done when they cannot be printed.
            let _ = error.print();
            let status = if error.use_stderr() {
                Status::Usage
            } else {
                Status::Ok
            };
            return status.into();
        }
    };
    descriptors::allow_all();
    let status = match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Acme(arguments) => acme::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Dkim(arguments) => dkim::run(&arguments),
        Command::Dns(arguments) => dns::run(&arguments),
        Command::Queue(arguments) => queue::run(&arguments),
        Command::Sendmail(arguments) => sendmail::run(arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Tls(arguments) => tls::run(&arguments),
        Command::User(arguments) => user::run(&arguments),
    };
    status.into()
}

/// Makes the data directory as the start would, where there is none or nothing in it: one that holds a
/// file of ours already would not be given to the gateway's user any more.
fn make_data_dir(config: &Config) -> Result<(), Status> {
    let begun = fs::read_dir(&config.data_dir).is_ok_and(|mut inside| inside.next().is_some());
    if begun {
        return Ok(());
    }
    let made = privileges::make_data_dir(&config.data_dir, config.user.as_deref());
    made.map_err(|error| {
        complain(&chain(&error));
        Status::CannotCreate
    })
}

/// One fault a line, or the reason why the file cannot be read.
fn faults_text(faults: &Faults) -> String {
    match faults {
        Faults::Wrong { .. } => faults.to_string(),
        Faults::Unreadable { path, .. } => format!(
            "{}\n  give another file with --config, or make {} readable",
            chain(faults),
            path.display()
        ),
    }
}

fn status_of(faults: &Faults) -> Status {
    match faults {
        Faults::Unreadable { .. } => Status::NoInput,
        Faults::Wrong { .. } => Status::Config,
    }
}

/// An error and what is behind it, one a line.
fn chain(error: &dyn std::error::Error) -> String {
    format!("gatepost: {}", sources(error).join("\n  because: "))
}

/// The texts of an error and of what is behind it.
fn sources(error: &dyn std::error::Error) -> Vec<String> {
    let errors = std::iter::successors(Some(error), |error| error.source());
    errors.map(ToString::to_string).collect()
}

/// Runs what has to wait for others.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Status> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        complain(&format!("gatepost: cannot start the runtime: {error}"));
        Status::Unavailable
    })?;
    Ok(runtime.block_on(work))
}

/// Says something to whoever started us. Nothing can be done when they do not listen.
fn say(text: impl fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Says what is wrong.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_each_command_has_an_example() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            if sub.get_name() != "help" {
                let help = sub.clone().render_long_help().to_string();
                assert!(help.contains("Example:\n  gatepost "), "{help}");
            }
        }
    }

    #[test]
    fn an_error_is_said_with_all_that_is_behind_it() {
        let error = anyhow::anyhow!("the port is in use").context("cannot listen on [::]:25");
        assert_eq!(
            chain(error.as_ref()),
            "gatepost: cannot listen on [::]:25\n  because: the port is in use"
        );
    }
}
