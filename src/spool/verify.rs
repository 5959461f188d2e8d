//! Says how the spool is, in words for its operator: what is in the queue, and what is damaged.
//!
//! Reads all checksums: of each record, of each message, of each large message's file. Changes
//! nothing and takes no lock. As a gateway may write meanwhile, what looks wrong is looked at again:
//! damage stays, a write under way does not.

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::mail::id::SpoolId;
use crate::spool::Error;
use crate::spool::disk::Disk;
use crate::spool::large::Large;
use crate::spool::record::Kind;
use crate::spool::survey;
use crate::spool::survey::Gap;
use crate::spool::survey::Survey;

pub use crate::spool::survey::Records;

/// How often the spool is read at most until what is found is found twice.
const READINGS: usize = 5;
/// How long a large message may take from its last octet to its record.
const STORING: Duration = Duration::from_secs(60);

/// What is in a spool, and how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files of the log.
    pub segments: usize,
    /// Their octets.
    pub octets: u64,
    /// What they hold.
    pub records: Records,
    /// Messages in the queue, of which the next three say more. A message may be several.
    pub queued: usize,
    /// Kept until an operator releases them.
    pub held: usize,
    /// Tried at least once, and to be tried again.
    pub deferred: usize,
    /// Done with for some of their recipients.
    pub partly: usize,
    /// Octets that the queue takes, in the log and in files of their own.
    pub queued_octets: u64,
    /// Messages that the log still knows as done.
    pub finished: usize,
    /// Those of the queue that are in files of their own.
    pub large: usize,
    /// Octets of these files.
    pub large_octets: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// The file that it is in.
    pub file: PathBuf,
    /// Where in the file, in octets. 0 where it is about the file as a whole.
    pub offset: u64,
    /// What is seen, and what it means.
    pub text: String,
    /// The messages that it is about, as far as that can still be told.
    pub messages: Vec<SpoolId>,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weight {
    /// Nothing that was acknowledged is touched; the operator may like to know.
    Note,
    /// Something is not as it was written.
    Damage,
}

impl Report {
    /// Whether all is as it was written.
    pub fn is_sound(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.weight == Weight::Note)
    }
}

/// Reads all of the spool in this directory. Blocks on the disk. An error says why it could not be
/// looked at; damage is none.
pub fn verify(directory: &Path) -> Result<Report, Error> {
    let mut report = look(directory)?;
    let mut before = HashSet::new();
    for _ in 1..READINGS {
        if report.findings.iter().all(|found| before.contains(found)) {
            break;
        }
        before = report.findings.into_iter().collect();
        report = look(directory)?;
    }
    report.findings.retain(|found| before.contains(found));
    Ok(report)
}

fn look(directory: &Path) -> Result<Report, Error> {
    let large = Large::new(Disk::default(), directory.join("large"));
    // Before the log is read: a file is there before the record that names it.
    let names = large
        .names()
        .map_err(|e| Error::directory(large.directory(), e))?;
    let survey = Survey::read(directory)?;
    let mut report = count(&survey);
    let findings = &mut report.findings;
    findings.extend(survey.gaps.iter().map(|gap| judge(gap, &survey)));
    findings.extend(large_findings(&survey, &large, names));
    if let Some((file, offset, torn)) = &survey.torn {
        findings.push(Finding {
            weight: Weight::Note,
            file: file.clone(),
            offset: *offset,
            text: format!(
                "a torn end of {torn} octets: what was being written at a crash or a power cut, and was \
                 never acknowledged; the next start cuts it off"
            ),
            messages: Vec::new(),
        });
    }
    let set_aside = survey::set_aside(directory).map_err(|e| Error::directory(directory, e))?;
    findings.extend(set_aside.into_iter().map(|file| Finding {
        weight: Weight::Note,
        file,
        offset: 0,
        text: "set aside by an earlier start, because part of it could not be read; it may be removed"
            .to_owned(),
        messages: Vec::new(),
    }));
    Ok(report)
}

fn count(survey: &Survey) -> Report {
    let mut report = Report {
        segments: survey.seals.len(),
        octets: survey.octets,
        records: survey.records,
        queued: survey.index.len(),
        finished: survey.finished.len(),
        ..Report::default()
    };
    let ids = survey.index.ids().into_iter();
    for entry in ids.filter_map(|id| survey.index.find(id.into())) {
        let state = &entry.state;
        report.held += usize::from(state.held.is_some());
        report.deferred += usize::from(state.held.is_none() && state.attempts > 0);
        report.partly += usize::from(!state.marked.is_empty());
        report.large += usize::from(entry.large > 0);
        report.large_octets += u64::from(entry.large);
    }
    report.queued_octets = survey.index.octets() + report.large_octets;
    report
}

/// What a bad place in the log means, now that the rest of it is known.
fn judge(gap: &Gap, survey: &Survey) -> Finding {
    let meanings = gap.remains.iter().map(|(kind, id)| {
        let queued = survey.index.contains(*id);
        let meaning = match kind {
            _ if survey.finished.contains(id) => "is finished, nothing of it is lost",
            Kind::Accept if queued => "is whole elsewhere in the log",
            Kind::Accept => "is lost: it was accepted and cannot be delivered any more",
            _ if !queued => "is not in the queue",
            Kind::Result => "may come twice to recipients that have it",
            Kind::Defer => "may be tried sooner than it was put off to",
            Kind::Hold => "was held and is not any more",
            Kind::Release => "was released and is held",
            Kind::Done => "was finished and may be delivered again",
        };
        format!("message {id} {meaning}")
    });
    let mut meanings: Vec<_> = meanings.collect();
    if meanings.is_empty() {
        meanings.push("which messages it was about cannot be told any more".to_owned());
    }
    let mut messages: Vec<_> = gap.remains.iter().map(|(_, id)| *id).collect();
    messages.dedup();
    Finding {
        weight: Weight::Damage,
        file: gap.file.clone(),
        offset: gap.offset,
        text: format!("{}: {}", gap.what, meanings.join("; ")),
        messages,
    }
}

/// Whether each large message of the queue has its file, and each file its message.
fn large_findings(survey: &Survey, large: &Large, mut names: HashSet<SpoolId>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |weight, id, text| {
        findings.push(Finding {
            weight,
            file: large.path(id),
            offset: 0,
            text,
            messages: vec![id],
        });
    };
    let mut ids: Vec<_> = survey.large.keys().copied().collect();
    ids.sort_unstable();
    for id in ids {
        names.remove(&id);
        let (length, checksum) = survey.large[&id];
        let fault = match read(&large.path(id)) {
            Ok((found, _)) if found != u64::from(length) => {
                format!("the file has {found} octets and was written with {length}")
            }
            Ok((_, found)) if found != checksum => {
                "the file's content is not as it was written".to_owned()
            }
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                "the file is missing".to_owned()
            }
            Err(error) => format!("the file cannot be read: {error}"),
        };
        let text = format!("{fault}: message {id} is in the queue and cannot be delivered");
        find(Weight::Damage, id, text);
    }
    // One that is new may be of a message that is still being stored.
    let settled = |id: &SpoolId| {
        let modified = fs::metadata(large.path(*id)).and_then(|found| found.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= STORING))
    };
    let mut orphans: Vec<_> = names.into_iter().filter(settled).collect();
    orphans.sort_unstable();
    for id in orphans {
        let text = match survey.gaps.is_empty() {
            true => "no message of the queue names this file; the next start removes it",
            false => {
                "no message of the queue names this file; it may be all that is left of one whose \
                 record is damaged"
            }
        };
        find(Weight::Note, id, text.to_owned());
    }
    findings
}

/// The length and the checksum of a file.
fn read(file: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(file)?;
    let mut piece = vec![0; 256 * 1024];
    let (mut length, mut checksum) = (0, 0);
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((length, checksum)),
            Ok(read) => {
                length += read as u64;
                checksum = crc32c::crc32c_append(checksum, &piece[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
}
