//! Gets a Python source distribution and unpacks it under `target/vectors`, once.

use std::env;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::support::process::skip;

/// The folder of the unpacked distribution, or None where it cannot be had.
///
/// Panics then, where `REQUIRE_PEERS=1` says that a skip is a failure.
pub fn source_distribution(name: &str, version: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()?
        .join("vectors");
    let folder = target.join(format!("{name}-{version}"));
    if folder.is_dir() {
        return Some(folder);
    }
    match fetch(name, version, &target) {
        Ok(()) => Some(folder),
        Err(reason) => {
            skip(&format!("{}: {reason}", wanted(name, version)));
            None
        }
    }
}

fn wanted(name: &str, version: &str) -> String {
    format!("{name}=={version}")
}

fn fetch(name: &str, version: &str, target: &Path) -> Result<(), String> {
    std::fs::create_dir_all(target).map_err(|error| error.to_string())?;
    // Beside its place and then moved, so that a test that runs at the same time never sees half.
    let beside = tempfile::tempdir_in(target).map_err(|error| error.to_string())?;
    run(Command::new("pip")
        .args(["download", "--quiet", "--no-deps", "--no-binary", ":all:"])
        .arg("--dest")
        .arg(beside.path())
        .arg(wanted(name, version)))?;
    let folder = format!("{name}-{version}");
    run(Command::new("tar")
        .arg("xzf")
        .arg(beside.path().join(format!("{folder}.tar.gz")))
        .arg("-C")
        .arg(beside.path()))?;
    match std::fs::rename(beside.path().join(&folder), target.join(&folder)) {
        Err(error) if !target.join(&folder).is_dir() => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.lines().last().unwrap_or_default().to_owned())
}
