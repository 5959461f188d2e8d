//! `gatepost queue list`, `show`, `retry`, `hold`, `release`, `bounce`, `delete`: the queue of the
//! running gateway, by its control socket.

use std::io;
use std::io::Write;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use clap::ValueEnum;

use crate::admin::control::Command;
use crate::admin::control::Done;
use crate::admin::control::Filter;
use crate::admin::control::Message;
use crate::admin::control::State;
use crate::admin::control::client::Client;
use crate::admin::control::client::Error;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::block_on;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::say;
use crate::mail::id::SpoolId;

/// Which messages are meant. All that is given has to be true of one.
#[derive(Debug, Default, Args)]
struct Which {
    /// Names of messages, as list, the log and the 250 reply give them
    ids: Vec<SpoolId>,
    /// The sender: an address, "<>" for none; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    from: Option<String>,
    /// Somebody who is still to get it, written likewise
    #[arg(long, value_name = "PATTERN")]
    to: Option<String>,
    /// The domain of somebody who is still to get it
    #[arg(long)]
    domain: Option<String>,
    /// Accepted so long ago or longer, as in "2h"
    #[arg(long, value_name = "TIME", value_parser = humantime_serde::re::humantime::parse_duration)]
    older_than: Option<Duration>,
    /// How it stands
    #[arg(long, value_enum)]
    state: Option<StateName>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateName {
    /// Tried now, or as soon as its destination allows
    Active,
    /// Waits for a later time
    Deferred,
    /// Kept until it is released
    Held,
}

impl Which {
    fn filter(&self, all: bool) -> Filter {
        Filter {
            ids: self.ids.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            domain: self.domain.clone(),
            older_than: self.older_than.map(|age| age.as_secs()),
            state: self.state.map(|state| match state {
                StateName::Active => State::Active,
                StateName::Deferred => State::Deferred,
                StateName::Held => State::Held,
            }),
            all,
        }
    }
}

/// Lists what is in the queue of the running gateway: all, or what the options say.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    gatepost queue list --domain example.com --state deferred\n  \
    gatepost queue list --from '<>' --older-than 1d --json")]
pub(in crate::cli) struct List {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    which: Which,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl List {
    /// All of the queue, in words.
    pub(in crate::cli) fn all(file: ConfigFile) -> List {
        List {
            file,
            which: Which::default(),
            json: false,
        }
    }
}

/// Shows one message: its envelope, what the next hops said last, its header.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost queue show 01JDQ4T9X2K.1")]
pub(super) struct Show {
    #[command(flatten)]
    file: ConfigFile,
    /// Its name
    id: SpoolId,
    /// Write the message itself, and nothing else
    #[arg(long, conflicts_with = "json")]
    body: bool,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

/// An order for the messages that the options name.
#[derive(Debug, Args)]
pub(super) struct Order {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    which: Which,
    /// All messages of the queue
    #[arg(long)]
    all: bool,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

/// The order to hold, and why.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  gatepost queue hold --from 'news@*' --reason 'asked the sender'"
)]
pub(super) struct Hold {
    #[command(flatten)]
    order: Order,
    /// Why, for whoever looks at them later
    #[arg(long)]
    reason: Option<String>,
}

pub(in crate::cli) fn list(arguments: &List) -> Status {
    let filter = arguments.which.filter(false);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut count = 0;
    // A reader that has seen enough, such as `head`, is no fault.
    let mut listening = Ok(());
    let see = |message: Message| {
        if count == 0 && !arguments.json && listening.is_ok() {
            listening = writeln!(
                out,
                "{:<16} {:<8} {:>9} {:<20} FROM -> TO",
                "ID", "STATE", "SIZE", "ARRIVED"
            );
        }
        count += 1;
        if listening.is_ok() {
            listening = match arguments.json {
                true => serde_json::to_writer(&mut out, &message)
                    .map_err(io::Error::from)
                    .and_then(|()| writeln!(out)),
                false => writeln!(out, "{}", line(&message)),
            };
        }
    };
    let asked = ask(&arguments.file, async |client| {
        client.list(&filter, see).await
    });
    let _ = out.flush();
    drop(out);
    match asked {
        Ok(()) if count == 0 && !arguments.json => {
            say("no message");
            Status::Ok
        }
        Ok(()) => Status::Ok,
        Err(status) => status,
    }
}

/// One message in one line, and what keeps it below.
fn line(message: &Message) -> String {
    let to: Vec<&str> = open(message).map(|to| to.address.as_str()).collect();
    let shown = match to.as_slice() {
        [first, second, third, _, ..] => {
            format!("{first} {second} {third} and {} more", to.len() - 3)
        }
        few => few.join(" "),
    };
    let mut line = format!(
        "{:<16} {:<8} {:>9} {:<20} <{}> -> {shown}",
        message.id,
        message.state.to_string(),
        ByteSize(message.size.into()).to_string(),
        message.arrived.to_string(),
        message.from,
    );
    let replies = open(message).filter_map(|to| to.reply.as_ref());
    let replies = replies.map(|reply| reply.text.as_str());
    let mut reasons: Vec<&str> = message.held.as_deref().into_iter().chain(replies).collect();
    reasons.dedup();
    for reason in reasons.iter().take(3) {
        line.push_str(&format!("\n{:17}{reason}", ""));
    }
    line
}

fn open(message: &Message) -> impl Iterator<Item = &crate::admin::control::Recipient> {
    message.recipients.iter().filter(|to| to.open)
}

pub(super) fn show(arguments: &Show) -> Status {
    let id = arguments.id.to_string();
    if arguments.body {
        return match ask(&arguments.file, async |client| client.message(&id).await) {
            Ok(message) => {
                let _ = io::stdout().write_all(&message);
                Status::Ok
            }
            Err(status) => status,
        };
    }
    match ask(&arguments.file, async |client| client.show(&id).await) {
        Ok(message) if arguments.json => {
            say(serde_json::json!(message));
            Status::Ok
        }
        Ok(message) => {
            tell(&message);
            Status::Ok
        }
        Err(status) => status,
    }
}

fn tell(message: &Message) {
    say(format!("id        {}", message.id));
    say(format!("state     {}", message.state));
    if let Some(held) = &message.held {
        say(format!("held      {held}"));
    }
    say(format!("from      <{}>", message.from));
    for to in &message.recipients {
        let done = if to.open { "" } else { " (done with)" };
        say(format!("to        <{}>{done}", to.address));
        if let Some(reply) = &to.reply {
            say(format!("          {}", reply.text));
            say(format!(
                "          in attempt {}, {}",
                reply.attempt, reply.at
            ));
        }
    }
    say(format!("size      {}", ByteSize(message.size.into())));
    say(format!("arrived   {}", message.arrived));
    if message.state == State::Deferred {
        say(format!("due       {}", message.due));
    }
    say(format!("attempts  {}", message.attempts));
    if let Some(client) = &message.client {
        let login = message.login.as_deref();
        let login = login.map(|login| format!(", logged in as {login}"));
        say(format!("client    {client}{}", login.unwrap_or_default()));
    }
    if let Some(header) = &message.header {
        say(format!("\n{}", header.trim_end().replace("\r\n", "\n")));
    }
}

pub(super) fn hold(arguments: &Hold) -> Status {
    carry_out("hold", &arguments.order, arguments.reason.clone())
}

pub(super) fn order(name: &'static str, arguments: &Order) -> Status {
    carry_out(name, arguments, None)
}

fn carry_out(name: &str, arguments: &Order, reason: Option<String>) -> Status {
    let command = Command {
        filter: arguments.which.filter(arguments.all),
        reason,
    };
    if !command.filter.is_given() {
        complain(&format!(
            "gatepost: say which messages are meant, by name or by --from, --to ..., or give --all\n  \
             gatepost queue list with the same options shows what gatepost queue {name} would change"
        ));
        return Status::Usage;
    }
    let done = ask(&arguments.file, async |client| {
        client.order(name, &command).await
    });
    match done {
        Ok(done) => {
            match arguments.json {
                true => say(serde_json::json!(done)),
                false => say(format!("{name}: {}", super::messages(done.done))),
            }
            told_what_is_left(name, &done)
        }
        Err(status) => status,
    }
}

/// Says what was not done, and why.
fn told_what_is_left(name: &str, done: &Done) -> Status {
    for id in &done.missing {
        complain(&format!("gatepost: there is no message {id} in the queue"));
    }
    let others = done.done + done.under_way + done.failed;
    let so_already = done.matched.saturating_sub(others);
    for (count, why) in [
        (so_already, so(name)),
        (
            done.under_way,
            "not done, as a delivery is under way that did not end in time; try again",
        ),
        (done.failed, "not done; the log says why"),
    ] {
        if count > 0 {
            complain(&format!("gatepost: {}: {why}", super::messages(count)));
        }
    }
    match (done.missing.len(), done.under_way + done.failed) {
        (0, 0) => Status::Ok,
        _ => Status::Flawed,
    }
}

/// What a message is to which an order does not apply.
fn so(name: &str) -> &'static str {
    match name {
        "release" => "not held",
        "hold" => "held already",
        "retry" => "held, and tried only when released",
        _ => "gone meanwhile",
    }
}

/// Asks the running gateway, and says why it does not answer.
pub(in crate::cli) fn ask<T>(
    file: &ConfigFile,
    question: impl AsyncFnOnce(Client) -> Result<T, Error>,
) -> Result<T, Status> {
    let config = file.read()?;
    let client = Client::new(&config.admin.control_socket(&config.data_dir));
    block_on(question(client))?.map_err(|error| match error {
        Error::Away { ref source, .. } => {
            let what = match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "only root and the gateway's own user may; try again with sudo"
                }
                _ => {
                    "is it running? what works without it: gatepost queue verify, export and import"
                }
            };
            complain(&format!("{}\n  {what}", chain(&error)));
            Status::Unavailable
        }
        Error::Refused(text) => {
            complain(&format!("gatepost: {text}"));
            Status::Flawed
        }
        Error::Broken(_) => {
            complain(&chain(&error));
            Status::Unavailable
        }
    })
}
