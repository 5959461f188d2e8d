//! `gatepost sendmail`, and the names `sendmail`, `mailq` and `newaliases`: how programs of this machine
//! send mail (docs/sendmail.md).
//!
//! Needs no privilege and has none: the message goes through the gateway's socket, which asks the kernel
//! who we are; while no gateway answers, into its drop directory. Ends with a status of sysexits(3).

mod mailboxes;
mod message;
mod options;

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use bytes::Bytes;
use clap::Args;
use nix::unistd::User;
use nix::unistd::geteuid;

use crate::accept::local;
use crate::accept::local::handover;
use crate::accept::local::handover::Refused;
use crate::accept::local::handover::Verdict;
use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::complain;
use crate::cli::faults_text;
use crate::cli::queue::steer;
use crate::cli::say;
use crate::cli::sources;
use crate::cli::status_of;
use crate::config::Config;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;

use self::options::Mode;
use self::options::Options;
use self::options::Recipients;

/// Sends the message on standard input, as the sendmail command of old; also by the name sendmail.
///
/// -t takes recipients from To, Cc and Bcc, besides those in the arguments; -i lets a line with a dot
/// alone be text; -f SENDER, -F NAME; -bs speaks SMTP, -bp (mailq) shows the queue; -N, -R and -V ask for
/// reports; -C FILE is another configuration. Other options of old are taken and mean nothing.
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Example:\n  gatepost sendmail -t -i < message\n  ln -s /usr/local/bin/gatepost /usr/sbin/sendmail"
)]
pub(super) struct Arguments {
    /// Options and recipients
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

/// The arguments, where the process was started as the sendmail command. They are not read by clap, which
/// knows no options of several letters behind one dash.
pub(super) fn called(mut argv: impl Iterator<Item = OsString>) -> Option<Arguments> {
    let program = argv.next()?;
    let name = Path::new(&program).file_name()?.to_str()?.to_owned();
    let mut arguments: Vec<_> = argv.collect();
    match name.as_str() {
        // BSD's mail calls it by the second.
        "sendmail" | "send-mail" => {}
        "mailq" => arguments.insert(0, "-bp".into()),
        "newaliases" => arguments.insert(0, "-bi".into()),
        _ if arguments.first()? == "sendmail" => drop(arguments.remove(0)),
        _ => return None,
    }
    let wants_help = arguments.first().is_some_and(|first| first == "--help");
    (!wants_help).then_some(Arguments {
        arguments,
        help: None,
    })
}

/// Does what the arguments ask for.
pub(super) fn run(arguments: Arguments) -> Status {
    let texts = arguments.arguments.into_iter().map(OsString::into_string);
    let options = texts
        .collect::<Result<Vec<_>, _>>()
        .map_err(|argument| format!("{} is not UTF-8", argument.display()))
        .and_then(Options::parse);
    let options = match options {
        Ok(options) => options,
        Err(wrong) => {
            complain(&format!(
                "sendmail: {wrong}\n  `gatepost sendmail --help` says what there is"
            ));
            return Status::Usage;
        }
    };
    match options.mode {
        Mode::Queue => {
            let config = options.config;
            return steer::list(&steer::List::all(ConfigFile { config }));
        }
        // Packages call it when they are installed; what there is to do is none.
        Mode::Aliases | Mode::Flush => return Status::Ok,
        Mode::Deliver | Mode::Dialogue => {}
    }
    let config = match Config::read(&options.config) {
        Ok(config) => config,
        Err(faults) => {
            complain(&faults_text(&faults));
            return status_of(&faults);
        }
    };
    let Some(directory) = &config.sendmail.directory else {
        complain(
            "sendmail: the gateway takes no mail here; name a directory in [sendmail] of its configuration",
        );
        return Status::Config;
    };
    let done = match options.mode {
        Mode::Dialogue => dialogue(&config, directory),
        _ => deliver(&config, directory, &options),
    };
    done.unwrap_or_else(|(status, wrong)| {
        complain(&format!("sendmail: {wrong}"));
        status
    })
}

/// What went wrong: how we end, and what we say.
type Failed = (Status, String);

/// The dialogue is the gateway's own; here octets are carried.
fn dialogue(config: &Config, directory: &Path) -> Result<Status, Failed> {
    let Ok(gateway) = UnixStream::connect(local::socket(directory)) else {
        let hostname = &config.hostname;
        // RFC 5321 §3.8
        let line =
            format!("421 4.3.2 {hostname} The mail service does not run, try again later\r\n");
        let _ = io::stdout().write_all(line.as_bytes());
        return Ok(Status::TemporaryFailure);
    };
    let broken = |error: io::Error| (Status::TemporaryFailure, error.to_string());
    let mut to_gateway = gateway.try_clone().map_err(broken)?;
    // Ends with us at the latest: who says QUIT may keep its end open.
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut to_gateway);
        let _ = to_gateway.shutdown(Shutdown::Write);
    });
    let mut from_gateway = gateway;
    let mut buffer = [0; 4096];
    loop {
        let octets = io::Read::read(&mut from_gateway, &mut buffer).map_err(broken)?;
        if octets == 0 {
            return Ok(Status::Ok);
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(&buffer[..octets]).and_then(|()| out.flush());
        written.map_err(broken)?;
    }
}

fn deliver(config: &Config, directory: &Path, options: &Options) -> Result<Status, Failed> {
    let domain = config.local_domain().as_str();
    let account = Account::ours();
    let sender = sender(options, &account, domain)?;
    let largest = config.session.size.as_u64();
    if options.recipients.is_empty() && options.from == Recipients::Arguments {
        let wrong = "no recipient; name some, or give -t where the message does";
        return Err((Status::Usage, wrong.to_owned()));
    }
    let read = message::read(io::stdin().lock(), options.dot, largest);
    let read = read.map_err(|error| (Status::Data, sources(&error).join(": ")))?;
    let full_name = options.full_name.as_deref().unwrap_or(&account.full_name);
    let own = format!("{}@{domain}", account.name);
    let address = sender.address().map_or(own, Address::to_string);
    let prepared = message::prepare(&read, domain, &message::author(full_name, &address));
    let recipients = recipients(options, prepared.recipients, domain)?;
    let mut envelope = Envelope::new(sender, recipients);
    envelope.ret = options.ret;
    envelope.envid.clone_from(&options.envid);
    submit(directory, &envelope, &prepared.message.into(), options)
}

/// Who runs us.
struct Account {
    name: String,
    full_name: String,
}

impl Account {
    fn ours() -> Account {
        let uid = geteuid();
        let Ok(Some(user)) = User::from_uid(uid) else {
            return Account {
                name: uid.to_string(),
                full_name: String::new(),
            };
        };
        let gecos = user.gecos.to_string_lossy();
        let full_name = gecos.split(',').next().unwrap_or_default().to_owned();
        Account {
            name: user.name,
            full_name,
        }
    }
}

fn sender(options: &Options, account: &Account, domain: &str) -> Result<ReversePath, Failed> {
    let text = match options.sender.as_deref() {
        None => &account.name,
        Some("" | "<>") => return Ok(ReversePath::Null),
        Some(sender) => sender,
    };
    match addresses(text, domain)?.as_slice() {
        [one] => Ok(ReversePath::Address(one.clone())),
        _ => Err((Status::Usage, format!("{text:?} is not one sender"))),
    }
}

/// Those in the arguments and, where -t is given, those that the header names (as with Postfix; Exim takes
/// the former away from the latter).
fn recipients(
    options: &Options,
    named: Vec<String>,
    domain: &str,
) -> Result<Vec<Recipient>, Failed> {
    let mut texts = options.recipients.clone();
    if options.from == Recipients::Header {
        texts.extend(named);
    }
    let mut all: Vec<Recipient> = Vec::new();
    for text in texts {
        for address in addresses(&text, domain)? {
            if all.iter().all(|other| other.address != address) {
                let notify = options.notify;
                let recipient = Recipient::new(address);
                all.push(Recipient {
                    notify,
                    ..recipient
                });
            }
        }
    }
    match all.is_empty() {
        false => Ok(all),
        true => Err((Status::Data, "the message names no recipient".to_owned())),
    }
}

/// The addresses of a list, with the domains that are missing.
fn addresses(list: &str, domain: &str) -> Result<Vec<Address>, Failed> {
    let mut addresses = Vec::new();
    for span in mailboxes::spans(list.as_bytes()) {
        let text = list.get(span).unwrap_or_default();
        let whole = match mailboxes::is_bare(text) {
            true => format!("{text}@{domain}"),
            false => text.to_owned(),
        };
        let address = Address::parse(&whole);
        addresses.push(address.map_err(|error| (Status::Data, format!("{text:?}: {error}")))?);
    }
    Ok(addresses)
}

/// Hands the message over, or drops it where there is nobody who takes it.
fn submit(
    directory: &Path,
    envelope: &Envelope,
    message: &Bytes,
    options: &Options,
) -> Result<Status, Failed> {
    let connected = UnixStream::connect(local::socket(directory));
    let verdict = match connected {
        Ok(gateway) => handover::hand_over(&gateway, envelope, message),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let path = directory.display();
            return Err((
                Status::NoPermission,
                format!("you may not send mail: {path}: {error}"),
            ));
        }
        Err(error) => Err(error.into()),
    };
    match verdict {
        Ok(Verdict::Taken(reply)) => {
            if options.is_verbose {
                say(reply);
            }
            Ok(Status::Ok)
        }
        Ok(Verdict::Refused(refused)) => Err((status(&refused), words(&refused))),
        Ok(Verdict::Partly(refused)) => {
            let text = format!("sent, but not to all of them:\n{}", words(&refused));
            Err((status(&refused), text))
        }
        Err(_) => {
            let dropped = local::drop::put(&local::drop_dir(directory), envelope, message);
            dropped.map_err(|error| {
                let text = sources(&error).join(": ");
                let wrong = format!("no gateway answers, and nothing can be left for it: {text}");
                (Status::TemporaryFailure, wrong)
            })?;
            if options.is_verbose {
                say("no gateway answers; it will take the message when it runs");
            }
            Ok(Status::Ok)
        }
    }
}

/// One no a line.
fn words(refused: &[Refused]) -> String {
    let words: Vec<_> = refused.iter().map(Refused::to_string).collect();
    words.join("\n  ")
}

/// What a no means to the caller: the first that is for good says it.
fn status(refused: &[Refused]) -> Status {
    let is_final = |refused: &&Refused| refused.reply.code >= 500;
    let Some(first) = refused.iter().find(is_final) else {
        return Status::TemporaryFailure;
    };
    match first.reply.enhanced {
        Some((5, 1, 1)) => Status::NoUser,
        Some((5, 7, _)) => Status::NoPermission,
        Some((5, 2 | 3 | 6, _)) => Status::Data,
        Some(_) | None => Status::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::client::response::Response;

    #[test]
    fn it_is_called_by_many_names() {
        for (argv, want) in [
            ("/usr/sbin/sendmail -t", Some("-t")),
            ("send-mail -i x", Some("-i x")),
            ("mailq", Some("-bp")),
            ("newaliases -v", Some("-bi -v")),
            ("gatepost sendmail -t -- x", Some("-t -- x")),
            ("gatepost sendmail --help", None),
            ("gatepost check", None),
            ("gatepost", None),
        ] {
            let arguments = called(argv.split(' ').map(OsString::from));
            let got = arguments.map(|got| got.arguments.join(" ".as_ref()));
            assert_eq!(got, want.map(OsString::from), "{argv}");
        }
    }

    #[test]
    fn a_no_for_good_says_how_it_ends() {
        for (replies, want) in [
            (vec!["451 4.3.0 later"], Status::TemporaryFailure),
            (vec!["451 4.3.0 x", "550 5.1.1 x"], Status::NoUser),
            (vec!["553 5.7.1 x"], Status::NoPermission),
            (vec!["552 5.3.4 x"], Status::Data),
            (vec!["550 5.6.0 x"], Status::Data),
            (vec!["554 x"], Status::Unavailable),
        ] {
            let refused = replies.iter().map(|line| {
                let line = format!("{line}\r\n");
                let reply = Response::read(line.as_bytes()).unwrap().unwrap().0;
                Refused { to: None, reply }
            });
            let refused: Vec<_> = refused.collect();
            assert_eq!(status(&refused), want, "{replies:?}");
        }
    }
}
