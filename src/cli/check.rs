//! `gatepost check`: is this configuration right, and what is in force.
//!
//! Says every fault of the file at once, then looks at what stands outside of the file and would
//! stop the start: the user, the data directory, files that the configuration names. Changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::acme;
use crate::cli::complain;
use crate::cli::dkim;
use crate::cli::faults_text;
use crate::cli::runner::Access;
use crate::cli::runner::Runner;
use crate::cli::say;
use crate::cli::sources;
use crate::cli::status_of;
use crate::config::Config;
use crate::config::domains::InForce;
use crate::config::fault::Faults;
use crate::directory::Recipients;
use crate::directory::users;
use crate::mail::address::Domain;
use crate::tls;
use crate::tls::CertificateFiles;

/// Says every fault of the configuration at once, or what would be in force. Starts nothing.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost check --config /etc/gatepost/gatepost.toml")]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Status {
    let path = &arguments.file.config;
    let config = match Config::read(path) {
        Ok(config) => config,
        Err(faults) => {
            if arguments.json {
                say(faults_json(path, &faults));
            } else {
                complain(&faults_text(&faults));
            }
            return status_of(&faults);
        }
    };
    let troubles = outside(&config);
    if arguments.json {
        let list: Vec<_> = troubles
            .iter()
            .map(|trouble| json!({ "key": trouble.key, "message": trouble.message }))
            .collect();
        say(json!({
            "file": path, "ok": troubles.is_empty(), "faults": list, "in_force": in_force_json(&config),
        }));
    } else if troubles.is_empty() {
        say(format!("{}: ok\n\n{}", path.display(), in_force(&config)));
    }
    if troubles.is_empty() {
        return Status::Ok;
    }
    if !arguments.json {
        for trouble in &troubles {
            complain(&format!(
                "{}: {}: {}",
                path.display(),
                trouble.key,
                trouble.message
            ));
        }
    }
    Status::Config
}

pub(super) fn faults_json(path: &Path, faults: &Faults) -> Value {
    let list: Vec<_> = match faults {
        Faults::Unreadable { source, .. } => {
            vec![json!({ "key": "", "message": source.to_string() })]
        }
        Faults::Wrong { faults, .. } => faults
            .iter()
            .map(|fault| json!({ "line": fault.line, "key": fault.key, "message": fault.message }))
            .collect(),
    };
    json!({ "file": path, "ok": false, "faults": list })
}

/// Something outside of the file that would stop the start.
struct Trouble {
    /// The key that leads to it.
    key: String,
    /// What is wrong, and what to do.
    message: String,
}

/// Looks for everything outside of the file that would stop the start.
fn outside(config: &Config) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let mut trouble = |key: String, message: String| troubles.push(Trouble { key, message });
    let runner = Runner::named(config.user.as_deref()).unwrap_or_else(|message| {
        trouble("user".to_owned(), message);
        Runner::Ourselves
    });
    if let Err(message) = check_own_dir(&config.data_dir, &runner) {
        trouble("data_dir".to_owned(), message);
    }
    if let Some(directory) = &config.sendmail.directory
        && let Err(message) = check_own_dir(directory, &runner)
    {
        trouble("sendmail.directory".to_owned(), message);
    }
    for (index, files) in config.tls.certificates.iter().enumerate() {
        let key = format!("tls.certificates[{}]", index + 1);
        if let Err(error) = tls::inspect(files) {
            trouble(key, sources(&error).join(": "));
            continue;
        }
        for path in [&files.chain, &files.key] {
            if let Err(message) = check_readable(path, &runner) {
                trouble(key.clone(), message);
            }
        }
    }
    for (key, path) in config.acme.reads() {
        if let Err(message) = check_readable(path, &runner) {
            trouble(format!("acme.{key}"), message);
        }
    }
    for (index, path) in config.internal.authorities.iter().enumerate() {
        let usable = tls::Authorities::open(std::slice::from_ref(path))
            .map_err(|error| sources(&error).join(": "))
            .and_then(|_| check_readable(path, &runner));
        if let Err(message) = usable {
            trouble(format!("internal.authorities[{}]", index + 1), message);
        }
    }
    match dkim::open(config) {
        Ok(signing) => {
            for held in dkim::all(&signing) {
                if !runner.may(Access::Read, &held.path) {
                    let (name, path) = (runner.name(), held.path.display());
                    let message =
                        format!("{name} may not read {path}; `chown {name} {path}` lets them");
                    trouble("signing".to_owned(), message);
                }
            }
        }
        Err(error) => trouble("signing".to_owned(), sources(&error).join(": ")),
    }
    for (name, route) in &config.routes {
        if let Some(path) = &route.password_file
            && let Err(message) = check_readable(path, &runner)
        {
            trouble(format!("routes.{name}.password_file"), message);
        }
    }
    if let Some(source) = &config.submission.users
        && let Some(path) = source.file(&config.data_dir)
    {
        let usable = users::read(&path)
            .map_err(|error| sources(&error).join(": "))
            .and_then(|_| check_readable(&path, &runner));
        if let Err(message) = usable {
            trouble("submission.users".to_owned(), message);
        }
    }
    for (name, section) in &config.domains {
        if let Some(Recipients::File(path)) = &section.recipients
            && let Err(message) = check_readable(path, &runner)
        {
            trouble(format!("domains.\"{name}\".recipients"), message);
        }
    }
    troubles
}

/// Whether the one who will run the gateway can have this directory, once the start has made the directory
/// where there is none, and given it to the user where it is empty.
fn check_own_dir(path: &Path, runner: &Runner) -> Result<(), String> {
    let shown = path.display();
    let may_not_write = |path: &Path| {
        let (name, path) = (runner.name(), path.display());
        Err(format!(
            "{name} may not write to {path}; give it with chown to whoever runs the gateway"
        ))
    };
    match (fs::metadata(path), runner) {
        (Ok(found), _) if !found.is_dir() => Err(format!("{shown} is not a directory")),
        (Ok(_), Runner::Ourselves) if runner.may(Access::Write, path) => Ok(()),
        (Ok(_), Runner::Ourselves) => may_not_write(path),
        (Ok(found), Runner::Other { user, .. }) => {
            let is_empty = fs::read_dir(path).is_ok_and(|mut inside| inside.next().is_none());
            if found.uid() != user.uid.as_raw() && !is_empty {
                let name = &user.name;
                return Err(format!(
                    "{shown} belongs to another user; `chown -R {name} {shown}` gives it over"
                ));
            }
            check_enter(path.parent().unwrap_or(path), runner)
        }
        (Err(error), _) if error.kind() != ErrorKind::NotFound => {
            Err(format!("{shown} cannot be made: {error}"))
        }
        (Err(_), _) => match (nearest(path), runner) {
            (Some(above), Runner::Other { .. }) => check_enter(above, runner),
            (Some(above), Runner::Ourselves) if !runner.may(Access::Write, above) => {
                may_not_write(above)
            }
            _ => Ok(()),
        },
    }
}

/// Root makes the directory and gives it away, but its new owner has to come that far.
fn check_enter(above: &Path, runner: &Runner) -> Result<(), String> {
    if runner.may(Access::Enter, above) {
        return Ok(());
    }
    Err(format!(
        "{} may not enter {above}; `chmod o+x {above}` lets them",
        runner.name(),
        above = above.display()
    ))
}

/// The nearest place above `path` that exists.
fn nearest(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|above| above.exists())
}

fn check_readable(path: &Path, runner: &Runner) -> Result<(), String> {
    match fs::File::open(path) {
        Ok(_) if runner.may(Access::Read, path) => Ok(()),
        Ok(_) => Err(format!(
            "{} may not read {}; chgrp and chmod it, or copy it to where they may",
            runner.name(),
            path.display()
        )),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// What the gateway would do with this file, one thing a line.
fn in_force(config: &Config) -> String {
    let mut lines = vec![
        ("hostname", config.hostname.to_string()),
        ("data", config.data_dir.display().to_string()),
        (
            "user",
            config
                .user
                .clone()
                .unwrap_or_else(|| "as started".to_owned()),
        ),
    ];
    lines.extend(config.listeners().into_iter().map(|text| ("listen", text)));
    lines.extend(may_relay(config));
    lines.push(("admin", config.admin.listen.to_string()));
    lines.extend(certificates(config).into_iter().map(|text| ("tls", text)));
    lines.extend(checks(config));
    for (name, domain) in ours(config) {
        let text = format!(
            "{name} to {}, recipients {}",
            domain.route.to, domain.recipients
        );
        lines.push(("domain", text));
    }
    lines.extend(config.relay().map(|route| ("relay", route.to_string())));
    for (name, route) in &config.routes {
        lines.push(("route", format!("{name}: {route}")));
    }
    let signing = dkim::open(config).map(|signing| dkim::lines(&signing));
    let signing = signing.unwrap_or_default().into_iter();
    lines.extend(signing.map(|text| ("signing", text)));
    let lines: Vec<_> = lines
        .into_iter()
        .map(|(name, text)| format!("{name:<9} {text}"))
        .collect();
    lines.join("\n")
}

/// Who may send to anywhere.
fn may_relay(config: &Config) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(source) = &config.submission.users {
        lines.push(("users", source.to_string()));
        lines.push(("senders", config.submission.senders.mode.to_string()));
    }
    if config.internal.has_certificates() {
        let certificates = config.internal.certificates.iter().map(ToString::to_string);
        let authorities = config.internal.authorities.iter();
        let authorities = authorities.map(|path| format!("all of {}", path.display()));
        let known: Vec<_> = certificates.chain(authorities).collect();
        lines.push(("known", format!("by certificate: {}", known.join(", "))));
    }
    let networks = config.relaying_networks();
    if !networks.is_empty() {
        let networks = networks.iter().map(ToString::to_string);
        lines.push(("internal", networks.collect::<Vec<_>>().join(" ")));
    }
    if let Some(directory) = &config.sendmail.directory {
        let (path, trusted) = (directory.display(), config.sendmail.trusted_users.join(" "));
        let text = format!(
            "{path}, trusted {trusted}, domain {}",
            config.local_domain()
        );
        lines.push(("sendmail", text));
    }
    lines
}

/// The same for programs.
fn in_force_json(config: &Config) -> Value {
    let domains: serde_json::Map<_, _> = ours(config)
        .into_iter()
        .map(|(name, domain)| {
            let (to, recipients) = (domain.route.to.to_string(), domain.recipients.to_string());
            let value = json!({ "deliver": to, "recipients": recipients });
            (name.to_string(), value)
        })
        .collect();
    let checks: serde_json::Map<_, _> = checks(config)
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.into()))
        .collect();
    let routes: serde_json::Map<_, _> = config
        .routes
        .iter()
        .map(|(name, route)| (name.clone(), route.to_string().into()))
        .collect();
    json!({
        "relay": config.relay().map(|route| route.to_string()).ok(), "routes": routes,
        "hostname": config.hostname, "data_dir": config.data_dir, "user": config.user,
        "listen": config.listeners(), "admin": config.admin.listen.to_string(),
        "users": config.submission.users.as_ref().map(ToString::to_string),
        "senders": config.submission.senders.mode.to_string(), "internal": config.relaying_networks(),
        "certificates_known": config.internal.certificates.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "authorities": config.internal.authorities,
        "sendmail": config.sendmail.directory, "trusted_users": config.sendmail.trusted_users,
        "certificates": certificates(config), "checks": checks, "domains": domains,
        "signing": dkim::open(config).map(|signing| dkim::as_json(&signing)).unwrap_or_default(),
    })
}

/// What each check does about its results.
fn checks(config: &Config) -> [(&'static str, String); 3] {
    let (spf, structure, dmarc) = (&config.spf, &config.structure, &config.dmarc);
    let fail = match spf.unless_dmarc {
        true => format!("{} unless the domain publishes DMARC", spf.fail),
        false => spf.fail.to_string(),
    };
    [
        (
            "spf",
            format!(
                "{}: fail {fail}, softfail {}, neutral {}, none {}, permerror {}, temperror {}",
                spf.mode, spf.softfail, spf.neutral, spf.none, spf.permerror, spf.temperror
            ),
        ),
        (
            "structure",
            format!(
                "{}: missing date {}, repeated field {}, malformed line {}",
                structure.mode,
                structure.missing_date,
                structure.repeated_field,
                structure.malformed_line
            ),
        ),
        (
            "dmarc",
            format!(
                "{}: p=reject {}, p=quarantine {}, temperror {}",
                dmarc.mode, dmarc.reject, dmarc.quarantine, dmarc.temperror
            ),
        ),
    ]
}

fn certificates(config: &Config) -> Vec<String> {
    let obtained = acme::lines(config);
    if config.tls.certificates.is_empty() && obtained.is_empty() {
        return vec![format!(
            "self-signed for {}, which nobody trusts",
            config.hostname
        )];
    }
    let certificate = |files: &CertificateFiles| match tls::inspect(files) {
        Ok(found) => format!(
            "{} for {} until {:.0}",
            files.chain.display(),
            found.names.join(" "),
            found.expires
        ),
        Err(_) => format!("{} cannot be used", files.chain.display()),
    };
    let given = config.tls.certificates.iter().map(certificate);
    given.chain(obtained).collect()
}

/// A configuration without faults has a route for each of its domains.
fn ours(config: &Config) -> BTreeMap<Domain, InForce> {
    config.ours().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_stop_the_start_is_found_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "hostname = 'mx.example.com'\ndata_dir = '{0}/file/none'\nuser = 'no-such-user'\n\
             [domains.'example.com']\nrecipients = '{0}/list'\n\
             [tls]\ncertificates = [{{ chain = '{0}/c.pem', key = '{0}/k.pem' }}]\n",
            folder.path().display()
        );
        fs::write(folder.path().join("file"), "").unwrap();
        let config = Config::parse(&text).unwrap();
        let keys = |config: &Config| -> Vec<String> {
            let troubles = outside(config).into_iter();
            troubles.map(|trouble| trouble.key).collect()
        };
        let all = [
            "user",
            "data_dir",
            "tls.certificates[1]",
            "domains.\"example.com\".recipients",
        ];
        assert_eq!(keys(&config), all);

        let config = Config {
            user: None,
            data_dir: folder.path().join("made/at/the/start"),
            tls: tls::Config::default(),
            ..config
        };
        fs::write(folder.path().join("list"), "a\n").unwrap();
        assert_eq!(keys(&config), Vec::<String>::new());
    }

    #[test]
    fn who_may_send_to_anywhere_is_told() {
        let text = "hostname = 'mx.example.com'\n[domains.'a.example']\n[submission]\nusers = 'file'\n\
                    [submission.senders]\nmode = 'observe'\n[internal]\nnetworks = ['10.1.0.0/16']\n\
                    [[listen]]\nservice = 'internal'\naddress = '10.1.0.1:25'\n\
                    [sendmail]\ndirectory = '/var/spool/gatepost'\n";
        let config = Config::parse(text).unwrap();
        let want = [
            ("users", "file"),
            ("senders", "observe"),
            ("internal", "10.1.0.0/16"),
            (
                "sendmail",
                "/var/spool/gatepost, trusted root, domain a.example",
            ),
        ];
        assert_eq!(
            may_relay(&config),
            want.map(|(name, text)| (name, text.to_owned()))
        );
        let text = "hostname = 'mx.example.com'\n[domains.'a.example']\n";
        assert_eq!(may_relay(&Config::parse(text).unwrap()), []);
    }

    #[test]
    fn what_is_in_force_is_told_with_the_defaults_filled_in() {
        let text = "hostname = 'mx.example.com'\n[domains.'a.example']\n[domains.'b.example']\n\
                    deliver = 'lmtp:unix:/run/dovecot/lmtp'\n[routes.smart]\nlogin = 'us'\n\
                    to = 'smtp:smart.example:587'\npassword_file = '/p'\n";
        assert_eq!(
            in_force(&Config::parse(text).unwrap()),
            "hostname  mx.example.com\n\
             data      /var/lib/gatepost\n\
             user      as started\n\
             listen    port 25 of all addresses (mx, tls starttls)\n\
             admin     127.0.0.1:9125\n\
             tls       self-signed for mx.example.com, which nobody trusts\n\
             spf       enforce: fail reject, softfail mark, neutral accept, none accept, \
             permerror mark, temperror defer\n\
             structure enforce: missing date reject, repeated field reject, malformed line reject\n\
             dmarc     enforce: p=reject reject, p=quarantine mark, temperror defer\n\
             domain    a.example to maildir:/var/lib/gatepost/mail/{domain}/{local}, recipients any\n\
             domain    b.example to lmtp:unix:/run/dovecot/lmtp, recipients callout\n\
             relay     mx, tls published\n\
             route     smart: smtp:smart.example:587, tls verify, as us"
        );
    }
}
