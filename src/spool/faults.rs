//! The disk of the tests: calls fail as they were told to, the process dies between two calls, and
//! the power goes.
//!
//! A disk that is told nothing makes its calls as outside tests. One made by [`Disk::with_power`] also
//! remembers what was not synced ([`Unsynced`]), so that a power cut can take some of it away.

use std::fs::File;
use std::io;
use std::io::IoSlice;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::uio::pwritev;

use crate::spool::disk::Call;
use crate::spool::disk::Disk;
use crate::spool::power::Unsynced;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    Write,
    Sync,
    Forget,
    SyncDirectory,
    Allocate,
    Create,
    Open,
    Rename,
    Remove,
    Read,
}

impl Call<'_> {
    fn kind(&self) -> On {
        match self {
            Call::Sync(_) => On::Sync,
            Call::Forget(_) => On::Forget,
            Call::SyncDirectory(_) => On::SyncDirectory,
            Call::Allocate(_) => On::Allocate,
            Call::Create(_) => On::Create,
            Call::Open => On::Open,
            Call::Rename(..) => On::Rename,
            Call::Remove(_) => On::Remove,
            Call::Read => On::Read,
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Error(Errno),
    /// A write ends after so many octets, and says so.
    Short(usize),
    Late(Duration),
}

/// What was planned, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Each happens once, the first of its kind first.
    planned: Vec<(On, Fault)>,
    made: Vec<On>,
    happened: Vec<Errno>,
    /// So many calls are made yet.
    lives_for: Option<u32>,
    unsynced: Option<Unsynced>,
}

impl Faults {
    /// What happens to the call that comes now.
    fn next(&mut self, on: On) -> Option<Fault> {
        self.made.push(on);
        let fault = match &mut self.lives_for {
            Some(0) => Some(Fault::Error(Errno::EIO)),
            lives_for => {
                if let Some(calls) = lives_for {
                    *calls -= 1;
                }
                let at = self.planned.iter().position(|(due, _)| *due == on);
                at.map(|at| self.planned.remove(at).1)
            }
        };
        if let Some(Fault::Error(error)) = fault {
            self.happened.push(error);
        }
        fault
    }
}

impl Disk {
    /// A disk that remembers what was not synced. What chance decides follows from `seed`.
    pub(super) fn with_power(seed: u64) -> Disk {
        let disk = Disk::default();
        disk.faults.lock().unwrap().unsynced = Some(Unsynced::new(seed));
        disk
    }

    pub(super) fn before(&self, call: Call<'_>) -> io::Result<()> {
        let mut faults = self.faults.lock().unwrap();
        let dead = faults.lives_for == Some(0);
        let fault = faults.next(call.kind());
        if let Some(unsynced) = &mut faults.unsynced
            && !dead
        {
            match fault {
                Some(Fault::Error(_)) => unsynced.failed(call),
                Some(Fault::Short(_) | Fault::Late(_)) | None => unsynced.called(call),
            }
        }
        drop(faults);
        match fault {
            Some(Fault::Error(error)) => Err(error.into()),
            Some(Fault::Late(late)) => {
                std::thread::sleep(late);
                Ok(())
            }
            Some(Fault::Short(_)) | None => Ok(()),
        }
    }

    pub(super) fn put(
        &self,
        file: &File,
        slices: &[IoSlice<'_>],
        offset: i64,
    ) -> nix::Result<usize> {
        let mut faults = self.faults.lock().unwrap();
        let most = match faults.next(On::Write) {
            Some(Fault::Error(error)) => return Err(error),
            Some(Fault::Short(octets)) => octets.max(1),
            Some(Fault::Late(_)) | None => usize::MAX,
        };
        let slices = first(slices, most);
        if let Some(unsynced) = &mut faults.unsynced {
            let length = slices.iter().map(|slice| slice.len()).sum();
            unsynced.write(file, offset as u64, length);
        }
        pwritev(file, &slices, offset)
    }

    /// The next call of this kind fails with this error number; each time this was said, once.
    pub(super) fn fail_next(&self, on: On, error: Errno) {
        self.plan(on, Fault::Error(error));
    }

    /// This happens to the next call of this kind for which nothing is planned yet.
    pub(super) fn plan(&self, on: On, fault: Fault) {
        self.faults.lock().unwrap().planned.push((on, fault));
    }

    /// No call of this kind fails from now on.
    pub(super) fn unplan(&self, on: On) {
        let mut faults = self.faults.lock().unwrap();
        faults.planned.retain(|(due, _)| *due != on);
    }

    /// No call fails from now on.
    pub(super) fn heal(&self) {
        let mut faults = self.faults.lock().unwrap();
        faults.planned.clear();
        faults.lives_for = None;
    }

    /// The calls since this was asked last.
    pub(super) fn calls(&self) -> Vec<On> {
        std::mem::take(&mut self.faults.lock().unwrap().made)
    }

    /// The errors that calls ended with since this was asked last.
    pub(super) fn happened(&self) -> Vec<Errno> {
        std::mem::take(&mut self.faults.lock().unwrap().happened)
    }

    /// After so many more calls the process is as good as dead: each fails.
    pub(super) fn die_after(&self, calls: u32) {
        self.faults.lock().unwrap().lives_for = Some(calls);
    }

    /// Takes back what [`Disk::die_after`] said. False where the process has died already.
    pub(super) fn live_on(&self) -> bool {
        let mut faults = self.faults.lock().unwrap();
        let lives = faults.lives_for != Some(0);
        if lives {
            faults.lives_for = None;
        }
        lives
    }

    pub(super) fn is_dead(&self) -> bool {
        self.faults.lock().unwrap().lives_for == Some(0)
    }

    /// The power goes: of what was not synced, the directories keep what chance says.
    pub(super) fn cut_power(&self) {
        if let Some(unsynced) = &mut self.faults.lock().unwrap().unsynced {
            unsynced.cut();
        }
    }
}

/// The first `most` octets of the slices.
fn first<'a>(slices: &'a [IoSlice<'_>], mut most: usize) -> Vec<IoSlice<'a>> {
    let mut some = Vec::with_capacity(slices.len());
    for slice in slices {
        let taken = slice.len().min(most);
        some.push(IoSlice::new(&slice[..taken]));
        most -= taken;
        if most == 0 {
            break;
        }
    }
    some
}
