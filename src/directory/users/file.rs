//! The file of users: one a line, `NAME HASH [also=ADDRESS,...] [scram=KEYS] [disabled]`.
//!
//! `#` begins a line of comment. Names are equal in whatever case. A changed file is taken within seconds;
//! one that cannot be read or has a wrong line is reported and leaves the users as they were.

use std::collections::HashMap;
use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use super::grant::Grant;
use super::grant::NoGrant;
use super::password;
use super::password::Password;
use crate::smtp::sasl::scram;
use crate::telemetry::events;

/// How often the file is looked at. A look is one stat(2).
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Longest name, in octets.
const LONGEST_NAME: usize = 320;

/// What a user without a password of their own is compared with where the file has no other user.
const DECOY: &str = "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU$\
                     MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

/// A file of users that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file, it may not be read, or it is not UTF-8.
    #[error("cannot read the users in {}{}", .path.display(), hint(.source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// A line is neither a user nor empty nor a comment.
    #[error("{}:{line}: {reason}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        reason: Reason,
    },
    /// The file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says of it.
        source: io::Error,
    },
    /// There is such a user already.
    #[error("there is a user {0:?} already")]
    Exists(String),
    /// There is no such user.
    #[error("there is no user {0:?}")]
    Unknown(String),
    /// This can be no user's name, or no hash.
    #[error("{0}")]
    Wrong(#[from] Reason),
    /// No thread to hash passwords on could be started.
    #[error("cannot start a thread")]
    Threads(#[source] io::Error),
}

/// What an operator can do about it.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; `gatepost user add NAME` makes it",
        io::ErrorKind::PermissionDenied => "; the user that the gateway runs as has to be able to",
        _ => "",
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There is a name alone.
    #[error("no password; a line is NAME {{SCHEME}}HASH and options")]
    NoPassword,
    /// The name is too long, or has what no name can have.
    #[error(
        "this can be no user's name: one word of at most 320 octets that does not begin with #"
    )]
    Name,
    /// Another line has the same name.
    #[error("the user stands here twice, first in line {0}")]
    Twice(usize),
    /// What should be a stored password is none.
    #[error("{0}")]
    Password(#[from] password::Error),
    /// What should be keys for SCRAM are none.
    #[error("{0}")]
    Scram(#[from] scram::NotKeys),
    /// What the user is to be allowed to send as is nothing of the kind.
    #[error("{0}")]
    Also(#[from] NoGrant),
    /// There is white space or a comma in it, which part one from the next.
    #[error("{0:?} has a comma or white space in it")]
    Parted(String),
    /// A word that is no option.
    #[error("{0:?} is unknown; also=, scram= and disabled may stand here")]
    Option(String),
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// As it stands in the file. The user's own address where it is an address.
    pub name: String,
    /// The password, hashed.
    pub password: Password,
    /// The keys for SCRAM of their own.
    scram: Option<scram::Keys>,
    /// What the user may send as beside the own address.
    pub also: Vec<Grant>,
    /// Whether nobody may log in as this user for now.
    pub is_disabled: bool,
}

impl User {
    /// The keys for SCRAM, where there are any.
    pub fn scram(&self) -> Option<&scram::Keys> {
        self.scram.as_ref().or_else(|| self.password.scram())
    }
}

/// All users of a file as it was at one time.
#[derive(Debug, Default)]
pub(super) struct Table {
    users: Vec<Arc<User>>,
    /// Where each is in `users`, by the name in lower case.
    places: HashMap<String, usize>,
}

impl Table {
    pub(super) fn user(&self, name: &str) -> Option<&Arc<User>> {
        let place = self.places.get(&name.to_lowercase())?;
        self.users.get(*place)
    }

    /// A password that costs as much to verify as some user's: always the same for the same name.
    pub(super) fn decoy(&self, name: &str) -> Option<Password> {
        let mut hasher = DefaultHasher::new();
        name.to_lowercase().hash(&mut hasher);
        let users = self.users.len().max(1) as u64;
        let place = usize::try_from(hasher.finish() % users).unwrap_or(0);
        match self.users.get(place) {
            Some(user) => Some(user.password.clone()),
            None => DECOY.parse().ok(),
        }
    }

    /// Whether whoever may log in can do so by SCRAM. A client that sees it offered tries nothing else.
    pub(super) fn has_scram_for_all(&self) -> bool {
        let mut enabled = self
            .users
            .iter()
            .filter(|user| !user.is_disabled)
            .peekable();
        enabled.peek().is_some() && enabled.all(|user| user.scram().is_some())
    }

    /// Keys like most are.
    pub(super) fn any_scram(&self) -> Option<&scram::Keys> {
        self.users.iter().find_map(|user| user.scram())
    }
}

/// A file of users that is looked at now and then.
pub(super) struct UserFile {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    table: Arc<Table>,
    version: Option<Version>,
    looked: Instant,
}

/// What changes with a file.
#[derive(PartialEq, Eq)]
struct Version {
    changed: SystemTime,
    size: u64,
    inode: u64,
}

impl UserFile {
    /// Reads the file.
    pub(super) fn open(path: PathBuf) -> Result<UserFile, Error> {
        let version = version(&path);
        let state = State {
            table: Arc::new(load(&path)?),
            version,
            looked: Instant::now(),
        };
        Ok(UserFile {
            path,
            state: Mutex::new(state),
        })
    }

    /// The users as they are now.
    pub(super) fn table(&self) -> Arc<Table> {
        // No code that could panic runs under the lock, so that poison means nothing here.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() > LOOK_EVERY {
            self.look(&mut state);
        }
        Arc::clone(&state.table)
    }

    fn look(&self, state: &mut State) {
        state.looked = Instant::now();
        let found = version(&self.path);
        if found == state.version {
            return;
        }
        state.version = found;
        match load(&self.path) {
            Ok(table) => state.table = Arc::new(table),
            Err(error) => events::users_broken(&self.path, &error),
        }
    }
}

fn version(path: &Path) -> Option<Version> {
    let found = fs::metadata(path).ok()?;
    Some(Version {
        changed: found.modified().ok()?,
        size: found.len(),
        inode: found.ino(),
    })
}

/// All users of the file, in the order of their lines.
pub fn read(path: &Path) -> Result<Vec<Arc<User>>, Error> {
    load(path).map(|table| table.users)
}

fn load(path: &Path) -> Result<Table, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let table = parse(&text).map_err(|(line, reason)| Error::Line {
        path: path.to_owned(),
        line,
        reason,
    })?;
    if fs::metadata(path).is_ok_and(|found| found.mode() & 0o077 != 0) {
        events::users_open(path);
    }
    Ok(table)
}

/// All users of a text, or the number of the first wrong line, from 1.
pub(super) fn parse(text: &str) -> Result<Table, (usize, Reason)> {
    let mut table = Table::default();
    let mut lines: HashMap<String, usize> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let Some(user) = user(line).map_err(|reason| (number, reason))? else {
            continue;
        };
        let name = user.name.to_lowercase();
        if let Some(first) = lines.insert(name.clone(), number) {
            return Err((number, Reason::Twice(first)));
        }
        table.places.insert(name, table.users.len());
        table.users.push(Arc::new(user));
    }
    Ok(table)
}

/// The user of a line; None where it is empty or a comment.
fn user(line: &str) -> Result<Option<User>, Reason> {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next().filter(|name| !name.starts_with('#')) else {
        return Ok(None);
    };
    check_name(name)?;
    let mut user = User {
        name: name.to_owned(),
        password: words.next().ok_or(Reason::NoPassword)?.parse()?,
        scram: None,
        also: Vec::new(),
        is_disabled: false,
    };
    for word in words {
        match word.split_once('=') {
            Some(("also", list)) => {
                for text in list.split(',') {
                    user.also.push(Grant::try_from(text.to_owned())?);
                }
            }
            Some(("scram", keys)) => user.scram = Some(keys.parse()?),
            None if word == "disabled" => user.is_disabled = true,
            Some(_) | None => return Err(Reason::Option(word.to_owned())),
        }
    }
    Ok(Some(user))
}

/// Whether a user may have this name.
pub(super) fn check_name(name: &str) -> Result<(), Reason> {
    let is_word = !name.contains(|char: char| char.is_whitespace() || char.is_control());
    let is_right = is_word && (1..=LONGEST_NAME).contains(&name.len()) && !name.starts_with('#');
    is_right.then_some(()).ok_or(Reason::Name)
}

/// Whether this may stand among what a user may send as.
pub(super) fn check_grant(text: &str) -> Result<(), Reason> {
    if text.contains(|char: char| char.is_whitespace() || char == ',') {
        return Err(Reason::Parted(text.to_owned()));
    }
    Grant::try_from(text.to_owned())?;
    Ok(())
}

#[cfg(test)]
#[path = "../../../tests/fuzz/users.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "{SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=";

    #[test]
    fn a_line_is_a_user_with_options() {
        let text = format!(
            "# ours\n\nAnn@a.example {HASH} also=info@a.example,@b.example,*@c.example\n\
             bob\t{HASH} scram=4096,kgYg2h7EbbQ1knMdow8TOg==,Ly1l5k70HFLNOoB+SMuXx8dI9f6TRGxfoGd9HnetF2g=,\
             /NnO1X4yzQhcHqeKUriJmd2/z5n5bRXAMKqVhmtzRxc= disabled\n"
        );
        let table = parse(&text).unwrap();
        let ann = table.user("ann@A.example").unwrap();
        let also: Vec<String> = ann.also.iter().map(Grant::to_string).collect();
        assert_eq!(also, ["info@a.example", "*@b.example", "*@c.example"]);
        let bob = table.user("bob").unwrap();
        assert!(bob.is_disabled && bob.scram().is_some());
        assert!(table.user("carl").is_none());
        assert!(!table.has_scram_for_all(), "Ann has none");
    }

    #[test]
    fn a_wrong_line_is_named() {
        let twice = format!("ann {HASH}\n\nANN {HASH}");
        for (text, want) in [
            ("ann", (1, Reason::NoPassword)),
            (
                "ann secret",
                (1, Reason::Password(password::Error::NoScheme)),
            ),
            (&twice, (3, Reason::Twice(1))),
            (
                &format!("ann {HASH} also=@"),
                (1, Grant::try_from("@".to_owned()).unwrap_err().into()),
            ),
            (
                &format!("ann {HASH} off"),
                (1, Reason::Option("off".to_owned())),
            ),
            (
                &format!("ann {HASH} scram=1"),
                (1, Reason::Scram(scram::NotKeys)),
            ),
        ] {
            assert_eq!(parse(text).err(), Some(want), "{text}");
        }
    }

    #[test]
    fn a_user_whom_there_is_not_costs_what_one_does_that_there_is() {
        let none = Table::default().decoy("ann").unwrap();
        assert!(none.as_str().starts_with("{ARGON2ID}") && !none.verify(b""));
        let one = parse(&format!("ann {HASH}")).unwrap();
        assert_eq!(one.decoy("bob").unwrap().as_str(), HASH);
    }
}
