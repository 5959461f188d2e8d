//! Other programs: whether they are there, what they use, and that they are ended.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use crate::wait;
use crate::wait::SOON;

/// Fails, and says what is missing, unless all of these are there.
pub(crate) fn need(programs: &[&str]) -> Result<()> {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| find(program).is_none())
        .copied()
        .collect();
    if !missing.is_empty() {
        bail!("missing: {}", missing.join(", "));
    }
    Ok(())
}

/// Fails unless we are root, whom Debian's daemons want.
pub(crate) fn need_root() -> Result<()> {
    if !is_root() {
        bail!("needs root");
    }
    Ok(())
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|folder| Path::new(folder).join(program))
        .find(|file| file.is_file())
}

/// A command by its full path, where it is in the folders of system programs.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null());
    command
}

/// Runs a command to its end and says how long that took; fails where it fails.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<Duration> {
    let began = Instant::now();
    let mut process = Process::start(command)?;
    let status = wait::until(deadline, &format!("the end of {command:?}"), || {
        Ok(process.child.try_wait()?)
    })?;
    let took = began.elapsed();
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(took)
}

/// A program of the run, ended when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Process> {
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Process { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, waits, and kills it where it does not.
    pub(crate) fn stop(&mut self) {
        let Ok(None) = self.child.try_wait() else {
            return;
        };
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let asked = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if asked.elapsed() > SOON {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a tick of the times in /proc lasts, on all of Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU that these processes, all below them and all those that they have waited for have used.
pub(crate) fn cpu(roots: &[u32]) -> Result<Duration> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may be gone by now.
        if let Some(stat) = stat(pid) {
            processes.insert(pid, stat);
        }
    }
    let of_ours = |mut pid: u32| {
        while let Some((parent, _)) = processes.get(&pid) {
            if roots.contains(&pid) {
                return true;
            }
            pid = *parent;
        }
        false
    };
    let ours = processes.iter().filter(|(pid, _)| of_ours(**pid));
    let ticks: u32 = ours.map(|(_, (_, ticks))| ticks).sum();
    Ok(TICK * ticks)
}

/// The parent and the ticks of a process, those of the ended children it has waited for included.
fn stat(pid: u32) -> Option<(u32, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of a process may hold blanks and brackets: the fields behind it count.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = fields
        .get(11..15)?
        .iter()
        .flat_map(|field| field.parse::<u32>());
    Some((fields.get(1)?.parse().ok()?, ticks.sum()))
}

/// CPU that one process has used, to the nanosecond.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid as i32))?;
    Ok(clock.now()?.into())
}

/// What memory of a process is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// That no file stands behind.
    Anonymous,
    /// All that is in use, of what others use, too, its part (PSS).
    Whole,
}

/// Octets of memory that a process has.
pub(crate) fn memory(pid: u32, counted: Memory) -> Result<f64> {
    let name = match counted {
        Memory::Anonymous => "Anonymous:",
        Memory::Whole => "Pss:",
    };
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib: f64 = line
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .with_context(|| format!("smaps_rollup has no line {name}"))?
        .trim()
        .parse()?;
    Ok(kib * 1024.0)
}
