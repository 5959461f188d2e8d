//! Writes queued messages to files that anybody can read: `ID.eml` and `ID.json` for each
//! (`portable` says what is in them). With [`Afterwards::Remove`] it is a move.
//!
//! The spool is taken for us alone meanwhile: a message that a gateway delivers while it is copied
//! would be delivered twice. All files are on disk before anything is removed. Nothing that is there
//! already is overwritten. A pair counts by its JSON file, which is written last.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::IoSlice;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::mail::content::Content;
use crate::mail::id::SpoolId;
use crate::spool;
use crate::spool::Config;
use crate::spool::Error;
use crate::spool::Mark;
use crate::spool::disk::Disk;
use crate::spool::entry::Stored;
use crate::spool::large::Large;
use crate::spool::lock;
use crate::spool::log::Part;
use crate::spool::log::Reader;
use crate::spool::portable::Portable;
use crate::spool::record;
use crate::spool::segment;
use crate::spool::shelf::Segment;
use crate::spool::shelf::Shelf;
use crate::spool::survey::Survey;

/// What becomes of a message in the spool once its files are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It stays there and will be delivered.
    Keep,
    /// It is finished there.
    Remove,
}

/// What was exported.
#[derive(Debug, Default)]
pub struct Exported {
    /// These messages, each in two files.
    pub messages: Vec<SpoolId>,
    /// Octets of them.
    pub octets: u64,
    /// These were not, and why.
    pub left_out: Vec<(SpoolId, String)>,
    /// Places in the log that are not as they were written.
    pub gaps: usize,
    /// Why the messages could not be removed from the spool, where that was asked for and failed.
    pub not_removed: Option<String>,
}

/// Exports these messages of the spool in `directory`, or all, to the directory `to`, which is made
/// where it is missing. Blocks on the disk.
///
/// After an error nothing was removed; what was written by then is whole. Not cancel safe: when
/// dropped, messages may be exported and not removed.
pub async fn export(
    directory: &Path,
    config: &Config,
    to: &Path,
    wanted: Option<&[SpoolId]>,
    afterwards: Afterwards,
) -> Result<Exported, Error> {
    let disk = Disk::default();
    let lock = lock::take(&disk, directory)?;
    let survey = Survey::read(directory)?;
    let outside = |error| Error::outside(to, error);
    disk.create_directory(to).map_err(outside)?;
    let mut exported = Exported {
        gaps: survey.gaps.len(),
        ..Exported::default()
    };
    let mut source = Source {
        large: Large::new(disk.clone(), directory.join("large")),
        segments: directory.join("segments"),
        survey,
        shelf: None,
    };
    let mut recipients = Vec::new();
    for id in source.in_order(wanted, &mut exported.left_out) {
        let (portable, content) = match source.load(id) {
            Ok(loaded) => loaded,
            Err(reason) => {
                exported.left_out.push((id, reason));
                continue;
            }
        };
        match write_pair(&disk, to, id, &portable, &content) {
            Ok(()) => {
                exported.messages.push(id);
                recipients.push(portable.envelope.recipients.len());
                exported.octets += content.len() as u64;
            }
            Err((path, error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                let reason = format!(
                    "{} is there already; nothing is overwritten",
                    path.display()
                );
                exported.left_out.push((id, reason));
            }
            Err((path, error)) => return Err(Error::outside(&path, error)),
        }
    }
    disk.sync_directory(to).map_err(outside)?;
    if afterwards == Afterwards::Remove && !exported.messages.is_empty() {
        let (spool, _) = spool::open_locked(disk, directory, config, lock)?;
        spool.loaded().await?;
        for (id, recipients) in exported.messages.iter().zip(recipients) {
            spool.mark(
                *id,
                (0..recipients).map(|at| (at, Mark::Delivered)).collect(),
            );
        }
        spool.close().await;
        exported.not_removed = spool.0.condition.trouble();
    }
    Ok(exported)
}

/// Where the messages come from.
struct Source {
    survey: Survey,
    segments: PathBuf,
    large: Large,
    /// The segment that was read last, and its generation.
    shelf: Option<(u32, Shelf)>,
}

impl Source {
    /// The messages that are wanted, in the order in which they stand in the log.
    fn in_order(
        &self,
        wanted: Option<&[SpoolId]>,
        left_out: &mut Vec<(SpoolId, String)>,
    ) -> Vec<SpoolId> {
        let index = &self.survey.index;
        let all = || index.ids().into_iter().map(SpoolId::from).collect();
        let mut ids = wanted.map_or_else(all, <[SpoolId]>::to_vec);
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| {
            let found = index.contains(*id);
            if !found {
                let reason = "there is no such message in the queue";
                left_out.push((*id, reason.to_owned()));
            }
            found
        });
        let place = |id: &SpoolId| index.find(*id).map(|entry| entry.place);
        ids.sort_by_key(|id| place(id).map(|place| (place.generation, place.offset)));
        ids
    }

    /// The message, or why it cannot be had.
    fn load(&mut self, id: SpoolId) -> Result<(Portable, Content), String> {
        let damaged = || "it is damaged; see gatepost queue verify".to_owned();
        let unreadable = |error: io::Error| format!("it cannot be read: {error}");
        let entry = self.survey.index.find(id).ok_or_else(damaged)?;
        let place = entry.place;
        if self
            .shelf
            .as_ref()
            .is_none_or(|(generation, _)| *generation != place.generation)
        {
            self.shelf = Some((
                place.generation,
                self.open(place.generation).map_err(unreadable)?,
            ));
        }
        let (_, shelf) = self.shelf.as_ref().ok_or_else(damaged)?;
        let kept = shelf.read(id, place, Part::Whole).map_err(unreadable)?;
        let kept = kept.ok_or_else(damaged)?;
        let content = match entry.stored() {
            Stored::InLog => kept.content,
            Stored::InFile => {
                let content = self.large.read(id, kept.body_checksum);
                content.map_err(unreadable)?
            }
        };
        let portable = Portable {
            id: Some(id),
            envelope: kept.envelope,
            arrived: kept.arrived,
            state: entry.state.clone(),
            marks: self.survey.marks.get(&id).cloned().unwrap_or_default(),
        };
        Ok((portable, content.ok_or_else(damaged)?))
    }

    fn open(&self, generation: u32) -> io::Result<Shelf> {
        let file = File::open(segment::path(&self.segments, generation))?;
        let shelf = Shelf::default();
        let mut seals = self.survey.seals.iter().copied();
        if let Some(seal) = seals.find(|seal| seal.generation == generation) {
            shelf.put(Arc::new(Segment { file, seal }));
        }
        Ok(shelf)
    }
}

/// Writes both files, or neither. They are on disk when this returns, but for their names.
fn write_pair(
    disk: &Disk,
    to: &Path,
    id: SpoolId,
    portable: &Portable,
    content: &Content,
) -> Result<(), (PathBuf, io::Error)> {
    let octets = to.join(format!("{id}.eml"));
    let about = to.join(format!("{id}.json"));
    let text = portable.write(content.len(), record::checksum(content));
    let text = text.map_err(|error| (about.clone(), error.into()))?;
    write(
        disk,
        &octets,
        &mut content.chunks().map(IoSlice::new).collect::<Vec<_>>(),
    )?;
    write(disk, &about, &mut [IoSlice::new(text.as_bytes())]).inspect_err(|_| {
        // A message without its JSON file would only be in the way.
        let _ = fs::remove_file(&octets);
    })
}

fn write(disk: &Disk, path: &Path, slices: &mut [IoSlice<'_>]) -> Result<(), (PathBuf, io::Error)> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let file = file.map_err(|error| (path.to_owned(), error))?;
    let written = disk.write(&file, slices, 0).and_then(|()| disk.sync(&file));
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        (path.to_owned(), error)
    })
}
