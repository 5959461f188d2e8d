//! Puts messages from files into the queue, as new messages with ids of their own; `export` writes
//! such files, and a few lines of JSON beside a message do as well (`portable`).
//!
//! A message counts as imported when it is on disk in the spool; then its `NAME.json` is renamed to
//! `NAME.json.imported`, so that it is not imported twice. Before the first one, the file
//! [`UNFINISHED`] is written beside them, with the id that each will get. When an import is cut off,
//! the next one finds it there and looks in the log for each of these ids: what is there, in the
//! queue or finished since, is renamed, and the rest is imported. Where the log does not reach back
//! to the begin of that import any more, this cannot be told, and the operator is asked.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::io::IoSlice;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::mail::content::Content;
use crate::mail::id::SpoolId;
use crate::spool;
use crate::spool::Config;
use crate::spool::Error;
use crate::spool::Spool;
use crate::spool::disk::Disk;
use crate::spool::index::locked;
use crate::spool::intake::Origin;
use crate::spool::lock;
use crate::spool::portable::Portable;
use crate::spool::recovery;
use crate::spool::survey::Survey;

/// The file that says which import was begun and not finished.
pub const UNFINISHED: &str = "import.unfinished";

/// How many messages wait for the disk together; a large one waits alone.
const TOGETHER: usize = 64;
/// What is large here.
const LARGE: usize = 1024 * 1024;

/// What was imported.
#[derive(Debug, Default)]
pub struct Imported {
    /// Messages that are in the queue now.
    pub messages: usize,
    /// Octets of them.
    pub octets: u64,
    /// Messages that an import which was cut off had stored.
    pub resumed: usize,
    /// The names of those that were not imported, and why.
    pub left_out: Vec<(String, String)>,
    /// Why the rest was not tried, where that is so.
    pub stopped: Option<Error>,
}

/// What is to be imported, as [`UNFINISHED`] tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    /// The newest segment when it was made: all that was imported stands in this one or behind it.
    segment: u32,
    /// By which that segment is known from one of another spool.
    salt: u64,
    /// The first name's id; the next one's serial is one higher.
    first: SpoolId,
    names: Vec<String>,
}

/// Imports all pairs in the directory `from` into the spool in `directory`, which is made where it is
/// missing. Each message that it counts is on disk.
///
/// Not cancel safe; what is cut off is finished by the next import.
pub async fn import(directory: &Path, config: &Config, from: &Path) -> Result<Imported, Error> {
    let disk = Disk::default();
    let outside = |error| Error::outside(from, error);
    let lock = lock::take(&disk, directory)?;
    let mut importing = Importing {
        from,
        disk: disk.clone(),
        is_told: true,
        imported: Imported::default(),
    };
    let mut names = importing.names().map_err(outside)?;
    if let Some(plan) = importing.unfinished().map_err(outside)? {
        let survey = Survey::read(directory)?;
        if !plan.is_covered_by(&survey) {
            importing.ask(&plan, &names);
            return Ok(importing.imported);
        }
        let skipped = importing.skip_stored(&plan, &survey, &mut names);
        skipped.map_err(outside)?;
    }
    let (spool, _) = spool::open_locked(disk, directory, config, lock)?;
    // Only then it is known what is in the queue already.
    spool.loaded().await?;
    let plan = plan(&importing.disk, directory, &spool, names)?;
    importing.begin(&plan).map_err(outside)?;
    importing.carry_out(&spool, &plan).await.map_err(outside)?;
    spool.close().await;
    Ok(importing.imported)
}

/// Gives each name an id.
fn plan(
    disk: &Disk,
    directory: &Path,
    spool: &Spool,
    names: BTreeSet<String>,
) -> Result<Plan, Error> {
    let segments = directory.join("segments");
    let (generations, _) = recovery::list(&segments).map_err(|e| Error::directory(&segments, e))?;
    let segment = generations.last().copied().unwrap_or_default();
    let newest = recovery::open(disk, &segments, segment)?;
    Ok(Plan {
        segment,
        // A salt that is none is found in no log, and so trusted by no later import.
        salt: newest.map_or(0, |(_, head)| head.seal.salt),
        first: SpoolId {
            session: spool.clock().next(SystemTime::now()),
            serial: 1,
        },
        names: names.into_iter().collect(),
    })
}

impl Plan {
    /// Each name with its id.
    fn ids(&self) -> impl Iterator<Item = (&str, SpoolId)> {
        let ids = (self.first.serial..).map(|serial| SpoolId {
            session: self.first.session,
            serial,
        });
        self.names.iter().map(String::as_str).zip(ids)
    }

    /// Whether the log would tell of everything that was stored since.
    fn is_covered_by(&self, survey: &Survey) -> bool {
        let mut seals = survey.seals.iter();
        let reaches = seals.any(|seal| (seal.generation, seal.salt) == (self.segment, self.salt));
        reaches && survey.gaps.is_empty()
    }
}

/// An import under way.
struct Importing<'a> {
    from: &'a Path,
    disk: Disk,
    /// Whether each message that is stored has a file that says so.
    is_told: bool,
    imported: Imported,
}

impl Importing<'_> {
    /// The names of all JSON files. Messages without one are left out.
    fn names(&mut self) -> io::Result<BTreeSet<String>> {
        let (mut names, mut others) = (BTreeSet::new(), BTreeSet::new());
        for entry in fs::read_dir(self.from)? {
            let file = entry?.file_name();
            let Some(file) = file.to_str() else {
                continue;
            };
            names.extend(file.strip_suffix(".json").map(str::to_owned));
            others.extend(file.strip_suffix(".eml").map(str::to_owned));
        }
        others.retain(|name| !names.contains(name) && !self.path(name, "json.imported").exists());
        let reason = |name: String| {
            let reason =
                format!("{name}.eml has no {name}.json beside it, which says for whom it is");
            (name, reason)
        };
        self.imported
            .left_out
            .extend(others.into_iter().map(reason));
        Ok(names)
    }

    /// What an import that was cut off had in hand.
    fn unfinished(&self) -> io::Result<Option<Plan>> {
        match fs::read(self.from.join(UNFINISHED)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The plan is on disk, name and all, when this returns.
    fn begin(&self, plan: &Plan) -> io::Result<()> {
        let made = self.from.join(format!("{UNFINISHED}.part"));
        let text = serde_json::to_vec(plan)?;
        let file = self.disk.create(&made)?;
        self.disk.write(&file, &mut [IoSlice::new(&text)], 0)?;
        self.disk.sync(&file)?;
        fs::rename(made, self.from.join(UNFINISHED))?;
        self.disk.sync_directory(self.from)
    }

    /// First the new names, then that nothing is unfinished.
    fn finish(&self) -> io::Result<()> {
        self.disk.sync_directory(self.from)?;
        fs::remove_file(self.from.join(UNFINISHED))?;
        self.disk.sync_directory(self.from)
    }

    /// It cannot be told which of these were stored.
    fn ask(&mut self, plan: &Plan, names: &BTreeSet<String>) {
        let file = self.from.join(UNFINISHED);
        let file = file.display();
        let left = plan.names.iter().filter(|name| names.contains(*name));
        self.imported.left_out.extend(left.map(|name| {
            let reason = format!(
                "an import was cut off, and the queue has moved on since: it may be delivered already. \
                 Take {name}.json away, or remove {file} to import it once more"
            );
            (name.clone(), reason)
        }));
    }

    /// Renames what the import that was cut off has stored.
    fn skip_stored(
        &mut self,
        plan: &Plan,
        survey: &Survey,
        names: &mut BTreeSet<String>,
    ) -> io::Result<()> {
        for (name, id) in plan.ids() {
            if survey.knows(id) && names.remove(name) {
                self.rename(name)?;
                self.imported.resumed += 1;
            }
        }
        // The next plan, which replaces this one, does not know of them.
        self.disk.sync_directory(self.from)
    }

    /// Imports what the plan names, and ends it.
    async fn carry_out(&mut self, spool: &Spool, plan: &Plan) -> io::Result<()> {
        let now = SystemTime::now();
        let mut storing = JoinSet::new();
        for (name, id) in plan.ids() {
            let (portable, content) = match self.read(spool, name, now) {
                Ok(pair) => pair,
                Err(reason) => {
                    self.imported.left_out.push((name.to_owned(), reason));
                    continue;
                }
            };
            let is_large = content.len() > LARGE;
            storing.spawn(store(spool.clone(), id, name.to_owned(), portable, content));
            while storing.len() >= TOGETHER || is_large && !storing.is_empty() {
                self.stored(storing.join_next().await);
            }
            if self.imported.stopped.is_some() {
                break;
            }
        }
        while let Some(stored) = storing.join_next().await {
            self.stored(Some(stored));
        }
        // Otherwise the next import has to look which are stored.
        if self.is_told { self.finish() } else { Ok(()) }
    }

    /// Reads a pair, or says what is wrong with it.
    fn read(
        &self,
        spool: &Spool,
        name: &str,
        now: SystemTime,
    ) -> Result<(Portable, Content), String> {
        let read = |end| {
            let read = fs::read(self.path(name, end));
            read.map_err(|error| format!("{name}.{end} cannot be read: {error}"))
        };
        let (about, message) = (read("json")?, read("eml")?);
        let portable = Portable::read(&about, &message, now)?;
        if let Some(id) = portable.id
            && locked(&spool.0.library.index).contains(id)
        {
            return Err(format!(
                "message {id} is in this queue already; take `id` out to have it there twice"
            ));
        }
        Ok((portable, Content::from(Bytes::from(message))))
    }

    /// The message is on disk in the spool, or is not in it.
    fn stored(&mut self, stored: Option<Result<Stored, tokio::task::JoinError>>) {
        let (name, octets, outcome) = match stored {
            Some(Ok(stored)) => stored,
            Some(Err(_)) => {
                self.is_told = false;
                self.imported.stopped.get_or_insert(Error::Closed);
                return;
            }
            None => return,
        };
        match outcome {
            Ok(()) => {
                self.imported.messages += 1;
                self.imported.octets += octets as u64;
                if let Err(error) = self.rename(&name) {
                    self.is_told = false;
                    let error = Error::outside(&self.path(&name, "json"), error);
                    self.imported.stopped.get_or_insert(error);
                }
            }
            Err(error @ (Error::TooLarge | Error::Taken { .. })) => {
                self.imported.left_out.push((name, error.to_string()));
            }
            Err(error) => {
                // It may be on disk even so.
                self.is_told &= !matches!(error, Error::Closed);
                self.imported.stopped.get_or_insert(error);
            }
        }
    }

    fn rename(&self, name: &str) -> io::Result<()> {
        fs::rename(self.path(name, "json"), self.path(name, "json.imported"))
    }

    fn path(&self, name: &str, end: &str) -> PathBuf {
        self.from.join(format!("{name}.{end}"))
    }
}

/// A name, the octets of its message, and what became of it.
type Stored = (String, usize, Result<(), Error>);

async fn store(
    spool: Spool,
    id: SpoolId,
    name: String,
    portable: Portable,
    content: Content,
) -> Stored {
    let octets = content.len();
    let origin = Origin::Moved {
        arrived: portable.arrived,
        state: portable.state,
    };
    let stored = spool.put(id, portable.envelope, content, origin).await;
    if stored.is_ok() && !portable.marks.is_empty() {
        // They are done with already; this keeps the words.
        spool.mark(id, portable.marks.into_iter().collect());
    }
    (name, octets, stored)
}
