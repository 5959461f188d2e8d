//! `gatepost dkim genkey`: makes a key where it signs without being named, and prints its record.

use std::fs;
use std::fs::DirBuilder;
use std::fs::OpenOptions;
use std::io;
use std::io::ErrorKind;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::unistd::Uid;
use serde_json::json;

use crate::cli::ConfigFile;
use crate::cli::Status;
use crate::cli::chain;
use crate::cli::complain;
use crate::cli::dns::zone;
use crate::cli::make_data_dir;
use crate::cli::runner::Runner;
use crate::cli::say;
use crate::config::Config;
use crate::mail::address::Domain;
use crate::sign;
use crate::sign::Algorithm;
use crate::sign::KeyName;
use crate::sign::Selector;
use crate::sign::Signer;

/// Makes a private key that only its owner may read, never over another, and prints the record to
/// publish as a zone file has it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost dkim genkey example.com --selector mail2026")]
pub(super) struct Arguments {
    /// The domain that will sign
    domain: Domain,
    /// The name of the key in the DNS. Default: mail and the year, such as mail2026 or mail2026-ed25519
    #[arg(long)]
    selector: Option<Selector>,
    /// rsa, which every verifier knows, or ed25519, which is worth having beside it
    #[arg(long, value_enum, default_value_t = Kind::Rsa)]
    algorithm: Kind,
    /// The length of an RSA key: 2048, 3072, 4096 or 8192. Default: 2048
    #[arg(long)]
    bits: Option<usize>,
    /// Where SELECTOR.pem is put. Default: dkim/DOMAIN in the data directory
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
    /// Answer with one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Rsa,
    Ed25519,
}

impl Kind {
    fn algorithm(self) -> Algorithm {
        match self {
            Kind::Rsa => Algorithm::Rsa,
            Kind::Ed25519 => Algorithm::Ed25519,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Status {
    match genkey(arguments) {
        Ok(()) => Status::Ok,
        Err(status) => status,
    }
}

fn genkey(arguments: &Arguments) -> Result<(), Status> {
    if arguments.bits.is_some() && arguments.algorithm == Kind::Ed25519 {
        complain("gatepost: all Ed25519 keys are of one length; leave --bits out");
        return Err(Status::Usage);
    }
    let selector = arguments
        .selector
        .clone()
        .map_or_else(|| default_selector(arguments), Ok)?;
    let name = KeyName {
        domain: arguments.domain.clone(),
        selector,
    };
    let config = match &arguments.directory {
        Some(_) => None,
        None => Some(arguments.file.read()?),
    };
    let (path, owner) = match (&arguments.directory, &config) {
        (Some(folder), _) => (folder.join(format!("{}.pem", name.selector)), None),
        (None, Some(config)) => {
            let owner = owner(config)?;
            make_data_dir(config)?;
            (sign::default_path(&config.data_dir, &name), owner)
        }
        (None, None) => return Err(Status::Usage),
    };
    let made = sign::make(
        arguments.algorithm.algorithm(),
        arguments.bits.unwrap_or(2048),
    );
    let signer = made.and_then(|pem| {
        let signer = Signer::from_pem(&pem, &name.domain, name.selector.as_str())?;
        Ok((pem, signer))
    });
    let (pem, signer) = signer.map_err(|error| {
        complain(&chain(&error));
        Status::Usage
    })?;
    keep(&path, &pem, owner).map_err(|error| refuse(&path, &error))?;
    tell(arguments, &signer, &path);
    if let Some(config) = config {
        hint(&config, &name, &path);
    }
    Ok(())
}

fn default_selector(arguments: &Arguments) -> Result<Selector, Status> {
    let year = Timestamp::now().to_zoned(TimeZone::UTC).year();
    let suffix = match arguments.algorithm {
        Kind::Rsa => "",
        Kind::Ed25519 => "-ed25519",
    };
    let selector = format!("mail{year}{suffix}").parse();
    selector.map_err(|error| {
        complain(&chain(&error));
        Status::Usage
    })
}

/// Whose the key has to be, where root makes it for somebody else.
fn owner(config: &Config) -> Result<Option<(u32, u32)>, Status> {
    match Runner::named(config.user.as_deref()) {
        Ok(Runner::Ourselves) => Ok(None),
        Ok(Runner::Other { user, .. }) if Uid::effective().is_root() => {
            Ok(Some((user.uid.as_raw(), user.gid.as_raw())))
        }
        Ok(Runner::Other { user, .. }) => {
            complain(&format!(
                "gatepost: only root and {0} can make keys that {0} may read\n  \
                 run this as one of them: sudo -u {0} gatepost dkim genkey ...",
                user.name
            ));
            Err(Status::Unavailable)
        }
        Err(message) => {
            complain(&format!("gatepost: {message}"));
            Err(Status::Config)
        }
    }
}

/// Writes the key. Root gives what it makes to `owner`, or else to whom the directory above belongs.
fn keep(path: &Path, pem: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let missing: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file
        .write_all(pem.as_bytes())
        .and_then(|()| file.sync_all());
    let given = written.and_then(|()| give(path, &missing, owner));
    if given.is_err() {
        // Half a key would be taken for one.
        let _ = fs::remove_file(path);
    }
    given
}

fn give(path: &Path, made: &[&Path], owner: Option<(u32, u32)>) -> io::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let (uid, gid) = match owner {
        Some(owner) => owner,
        None => {
            let highest = made.last().copied().unwrap_or(path);
            let above = highest
                .parent()
                .filter(|above| !above.as_os_str().is_empty());
            let found = fs::metadata(above.unwrap_or(Path::new(".")))?;
            (found.uid(), found.gid())
        }
    };
    for made in made.iter().copied().chain([path]) {
        chown(made, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn refuse(path: &Path, error: &io::Error) -> Status {
    let shown = path.display();
    if error.kind() == ErrorKind::AlreadyExists {
        complain(&format!(
            "gatepost: {shown} is there already, and a key is never written over\n  \
             give the new one another name with --selector, or move that file away"
        ));
        return Status::CannotCreate;
    }
    complain(&format!("gatepost: cannot write {shown}: {error}"));
    Status::CannotCreate
}

fn tell(arguments: &Arguments, signer: &Signer, path: &Path) {
    let name = signer.name();
    if arguments.json {
        say(json!({
            "key": name.to_string(), "file": path, "name": signer.dns_name(),
            "record": signer.dns_record(),
        }));
        return;
    }
    say(format!("; the private key is in {}", path.display()));
    let comment = format!("----- DKIM key {} for {}", name.selector, name.domain);
    say(zone::txt(signer.dns_name(), &signer.dns_record(), &comment));
}

/// What stands between the key and its first signature.
fn hint(config: &Config, name: &KeyName, path: &Path) {
    let domain = &name.domain;
    match config.domains.get(domain) {
        Some(section) if section.dkim.is_some() => complain(&format!(
            "Add {{ selector = \"{}\", key = {path:?} }} to dkim in [domains.\"{domain}\"].",
            name.selector
        )),
        Some(_) => {}
        None if *domain == config.hostname => {}
        None => complain(&format!(
            "There is no [domains.\"{domain}\"]: the key signs only where a [[signing.rule]] has \
             keys = [\"{name}\"]."
        )),
    }
    complain(&format!(
        "Publish the record; when `gatepost dkim testkey {domain}` says OK, reload the gateway to sign."
    ));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_its_owners_alone_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dkim/example.com/s1.pem");
        keep(&path, "first", None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let error = keep(&path, "second", None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn root_gives_what_it_makes_to_the_user_of_the_gateway() {
        if !Uid::effective().is_root() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dkim/example.com/s1.pem");
        keep(&path, "key", Some((1234, 1235))).unwrap();
        let owner = |path: &Path| {
            let found = fs::metadata(path).unwrap();
            (found.uid(), found.gid())
        };
        assert_eq!(owner(&path), (1234, 1235));
        assert_eq!(owner(&folder.path().join("dkim")), (1234, 1235));
        assert_eq!(owner(folder.path()).0, 0);
        let beside = folder.path().join("dkim/example.com/s2.pem");
        keep(&beside, "key", None).unwrap();
        assert_eq!(owner(&beside), (1234, 1235));
    }
}
