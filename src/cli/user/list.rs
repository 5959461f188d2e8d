//! `gatepost user list`: who may log in, and as what they may send. Hashes are not shown.

use clap::Args;
use serde_json::json;

use super::file;
use super::refuse;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::say;
use crate::directory::users;
use crate::directory::users::Grant;
use crate::directory::users::User;

/// Lists the users: name, scheme of the password, and what there is to be said of them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost user list --json")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Status> {
    let config = arguments.file.read()?;
    let users = users::read(&file(&config)?).map_err(|error| refuse(&error))?;
    for user in users {
        if arguments.json {
            say(json!({
                "name": user.name, "scheme": user.password.scheme(), "scram": user.scram().is_some(),
                "also": also(&user), "disabled": user.is_disabled,
            }));
        } else {
            say(line(&user));
        }
    }
    Ok(())
}

fn line(user: &User) -> String {
    let mut words = vec![user.name.clone(), user.password.scheme().to_owned()];
    words.extend(user.scram().map(|_| "scram".to_owned()));
    words.extend((!user.also.is_empty()).then(|| format!("also={}", also(user).join(","))));
    words.extend(user.is_disabled.then(|| "disabled".to_owned()));
    words.join(" ")
}

fn also(user: &User) -> Vec<String> {
    user.also.iter().map(Grant::to_string).collect()
}
