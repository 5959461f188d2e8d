//! Who may log in: users of a file of our own, or those whom Dovecot knows.
//!
//! Verifying a password takes as long as whoever stored it wants, so it is done beside the runtime, for
//! so many at a time; who comes on top is told to try again. A user whom there is not costs the same
//! time as one that there is. Nothing here decides how often somebody may try.

mod dovecot;
mod edit;
mod file;
mod grant;
mod hashing;
mod password;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use moka::sync::Cache;
use serde::Deserialize;

use crate::smtp::sasl::Credentials;
use crate::smtp::sasl::Secret;
use crate::smtp::sasl::scram;

pub use self::dovecot::Dialogue;
pub use self::dovecot::Turn;
pub use self::edit::Change;
pub use self::edit::NewPassword;
pub use self::edit::Scram;
pub use self::edit::change;
pub use self::file::Error;
pub use self::file::User;
pub use self::file::read;
pub use self::grant::Grant;
pub use self::grant::NoGrant;
pub use self::password::Password;
pub use crate::smtp::sasl::Mechanism;

use self::dovecot::Dovecot;
use self::file::UserFile;
use self::hashing::Hashing;

/// Where users are known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Source {
    /// In a file of ours; None: `users` in the data directory.
    File(Option<PathBuf>),
    /// With Dovecot, which is asked over this unix socket.
    DovecotUnix(PathBuf),
    /// With Dovecot, which is asked over TCP at this host and port.
    DovecotTcp(String),
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Source, String> {
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        match text.split_once(':') {
            None if text == "file" => return Ok(Source::File(None)),
            Some(("file", path)) if path.starts_with('/') => {
                return Ok(Source::File(Some(path.into())));
            }
            Some(("dovecot", path)) if path.starts_with('/') => {
                return Ok(Source::DovecotUnix(path.into()));
            }
            Some(("dovecot", address)) => match address.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && is_port(port) => {
                    return Ok(Source::DovecotTcp(address.to_owned()));
                }
                _ => {}
            },
            _ => {}
        }
        Err(format!(
            "{text:?} is unknown; give \"file\", \"file:/PATH\", \"dovecot:/PATH\" of a socket or \
             \"dovecot:HOST:PORT\""
        ))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(None) => f.write_str("file"),
            Source::File(Some(path)) => write!(f, "file:{}", path.display()),
            Source::DovecotUnix(path) => write!(f, "dovecot:{}", path.display()),
            Source::DovecotTcp(address) => write!(f, "dovecot:{address}"),
        }
    }
}

impl Source {
    /// The file, where there is one; `data_dir` is where it stands if no other place is named.
    pub fn file(&self, data_dir: &Path) -> Option<PathBuf> {
        match self {
            Source::File(None) => Some(data_dir.join("users")),
            Source::File(Some(path)) => Some(path.clone()),
            Source::DovecotUnix(_) | Source::DovecotTcp(_) => None,
        }
    }
}

/// How users are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where they are known.
    pub source: Source,
    /// How long a password that was right is taken for right without hashing it again; zero: not at all.
    pub remember: Duration,
    /// How long Dovecot, or the line of those whose passwords are hashed, may take for one answer.
    pub timeout: Duration,
}

/// A client that wants to log in, as Dovecot is told of it. TLS is in use always.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// From where it came.
    pub peer: SocketAddr,
    /// Where it reached us.
    pub local: SocketAddr,
}

/// What became of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The client is this user.
    Granted(String),
    /// It is not, or may not log in.
    Refused {
        /// Whom it claimed to be, where that is known.
        user: Option<String>,
        /// For the log, never for the client.
        reason: String,
    },
    /// Nobody can tell now.
    Unsure {
        /// For the log.
        reason: String,
    },
}

/// All users. Holds threads and a connection, which end when it is dropped.
pub struct Users {
    backend: Backend,
}

enum Backend {
    File(Box<Local>),
    Dovecot(Dovecot),
}

/// The users of a file.
struct Local {
    file: UserFile,
    hashing: Hashing,
    timeout: Duration,
    /// Which passwords were right lately, as [`Local::memory`] names them.
    remembered: Option<Cache<[u8; 32], ()>>,
    /// Of this process alone.
    key: [u8; 32],
}

/// How many right passwords are remembered.
const REMEMBERED: u64 = 10_000;

impl Users {
    /// Reads the file, or begins to speak with Dovecot, which may not be there yet. To be called in the
    /// runtime, by the user that the gateway runs as.
    pub fn open(config: &Config, data_dir: &Path) -> Result<Users, Error> {
        let backend = match &config.source {
            Source::DovecotUnix(path) => {
                Backend::Dovecot(Dovecot::unix(path.clone(), config.timeout))
            }
            Source::DovecotTcp(address) => {
                Backend::Dovecot(Dovecot::tcp(address.clone(), config.timeout))
            }
            Source::File(_) => {
                let path = config.source.file(data_dir).unwrap_or_default();
                let remembered = (!config.remember.is_zero()).then(|| {
                    Cache::builder()
                        .max_capacity(REMEMBERED)
                        .time_to_live(config.remember)
                        .build()
                });
                Backend::File(Box::new(Local {
                    file: UserFile::open(path)?,
                    hashing: Hashing::start()?,
                    timeout: config.timeout,
                    remembered,
                    key: rand::random(),
                }))
            }
        };
        Ok(Users { backend })
    }

    /// Whether users may log in by this mechanism now. PLUS is there with SCRAM where the users are ours;
    /// whether a connection can be bound is for others to know.
    pub fn offer(&self, mechanism: Mechanism) -> bool {
        match (&self.backend, mechanism) {
            (Backend::File(_), Mechanism::Plain | Mechanism::Login) => true,
            (Backend::File(local), Mechanism::ScramSha256 | Mechanism::ScramSha256Plus) => {
                local.file.table().has_scram_for_all()
            }
            (Backend::File(_), Mechanism::OAuthBearer | Mechanism::XOAuth2) => false,
            // We ask for both parts of LOGIN ourselves, and hand them on as PLAIN.
            (Backend::Dovecot(dovecot), Mechanism::Login) => {
                dovecot.offers(Mechanism::Plain.name())
            }
            (Backend::Dovecot(_), Mechanism::ScramSha256Plus) => false,
            (Backend::Dovecot(dovecot), mechanism) => dovecot.offers(mechanism.name()),
        }
    }

    /// Whether the messages of this mechanism are for Dovecot to judge; see [`Users::pass_on`].
    pub fn passes_on(&self, mechanism: Mechanism) -> bool {
        match (&self.backend, mechanism) {
            (_, Mechanism::Plain | Mechanism::Login) | (Backend::File(_), _) => false,
            (Backend::Dovecot(_), _) => true,
        }
    }

    /// Is that the password? Cancel safe; waits as long as the time-out.
    pub async fn verify(&self, credentials: &Credentials, client: &Client) -> Verdict {
        match &self.backend {
            Backend::File(local) => local.verify(credentials).await,
            Backend::Dovecot(dovecot) => {
                let act_as = credentials.authorize_as.as_deref().unwrap_or_default();
                let head = format!("{act_as}\0{}\0", credentials.name);
                let message = [head.as_bytes(), credentials.password.expose()].concat();
                let mut dialogue = Dialogue::new(Mechanism::Plain, *client);
                let turn = dovecot.respond(&mut dialogue, Some(Secret::new(message)));
                match turn.await {
                    Turn::Verdict(verdict) => verdict,
                    Turn::Challenge(_) => Verdict::Unsure {
                        reason: "Dovecot has a question after PLAIN".to_owned(),
                    },
                }
            }
        }
    }

    /// The keys of a user for SCRAM; such as nobody has the password of, where there is no such user.
    pub fn scram_keys(&self, name: &str) -> scram::Keys {
        match &self.backend {
            Backend::File(local) => local.scram_keys(name),
            Backend::Dovecot(_) => scram::Keys::nobodys(&[], name, None),
        }
    }

    /// What Dovecot says to the client's next message. Cancel safe.
    pub async fn pass_on(&self, dialogue: &mut Dialogue, message: Option<Secret>) -> Turn {
        match &self.backend {
            Backend::Dovecot(dovecot) => dovecot.respond(dialogue, message).await,
            Backend::File(_) => Turn::Verdict(Verdict::Refused {
                user: None,
                reason: "not a mechanism of ours".to_owned(),
            }),
        }
    }

    /// A user of the file, by any case of the name; None where Dovecot knows the users.
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        match &self.backend {
            Backend::File(local) => local.file.table().user(name).cloned(),
            Backend::Dovecot(_) => None,
        }
    }
}

impl Local {
    async fn verify(&self, credentials: &Credentials) -> Verdict {
        let refused = |reason: &str| Verdict::Refused {
            user: Some(credentials.name.clone()),
            reason: reason.to_owned(),
        };
        if credentials.authorize_as.is_some() {
            return refused("wants to act as another user");
        }
        let table = self.file.table();
        let user = table.user(&credentials.name);
        let memory = user.map(|user| self.memory(user, &credentials.password));
        if let (Some(user), Some(memory), Some(remembered)) = (user, memory, &self.remembered)
            && !user.is_disabled
            && remembered.contains_key(&memory)
        {
            return Verdict::Granted(user.name.clone());
        }
        // Whoever tries names must not see by the time which of them there are.
        let stored = match user {
            Some(user) => Some(user.password.clone()),
            None => table.decoy(&credentials.name),
        };
        let password = credentials.password.clone();
        let verify = move || stored.is_some_and(|stored| stored.verify(password.expose()));
        let verified = self.hashing.run(verify);
        let is_right = match tokio::time::timeout(self.timeout, verified).await {
            Ok(Some(is_right)) => is_right,
            Ok(None) | Err(_) => {
                return Verdict::Unsure {
                    reason: "too many passwords to hash".to_owned(),
                };
            }
        };
        match user {
            None => refused("no such user"),
            Some(_) if !is_right => refused("wrong password"),
            Some(user) if user.is_disabled => refused("the user is disabled"),
            Some(user) => {
                if let (Some(memory), Some(remembered)) = (memory, &self.remembered) {
                    remembered.insert(memory, ());
                }
                Verdict::Granted(user.name.clone())
            }
        }
    }

    /// The name under which it is remembered that a password was right: nobody can tell the password from
    /// it, and it is another one once the user has another hash.
    fn memory(&self, user: &User, password: &Secret) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.key));
        for part in [user.name.as_bytes(), user.password.as_str().as_bytes()] {
            context.update(part);
            context.update(&[0]);
        }
        context.update(password.expose());
        let mut memory = [0; 32];
        memory.copy_from_slice(context.sign().as_ref());
        memory
    }

    fn scram_keys(&self, name: &str) -> scram::Keys {
        let table = self.file.table();
        let user = table.user(name).filter(|user| !user.is_disabled);
        match user.and_then(|user| user.scram()) {
            Some(keys) => keys.clone(),
            None => scram::Keys::nobodys(&self.key, &name.to_lowercase(), table.any_scram()),
        }
    }
}
