//! `gatepost serve`: runs the gateway.

use clap::Args;

use crate::app;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::chain;
use crate::cli::complain;

/// Runs the gateway until SIGTERM, which lets sessions finish; SIGHUP reloads the configuration.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost serve --config /etc/gatepost/gatepost.toml")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

/// Ends when the gateway has been told to stop and has drained.
pub(super) fn run(arguments: &Arguments) -> Status {
    let config = match arguments.file.read() {
        Ok(config) => config,
        Err(status) => return status,
    };
    match app::serve(&arguments.file.config, config) {
        Ok(()) => Status::Ok,
        Err(error) => {
            complain(&chain(error.as_ref()));
            complain("  gatepost check looks for what stands in the way");
            Status::Unavailable
        }
    }
}
