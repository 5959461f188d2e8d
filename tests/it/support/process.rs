//! Other programs: whether they are there, how they are signalled, and that they are ended.

use std::env;
use std::fs;
use std::io::Write;
use std::io::stderr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::support::SOON;
use crate::support::wait_until;

/// Whether all of `programs` are there.
///
/// A missing peer is a loud skip, and a failure where `REQUIRE_PEERS=1`.
pub fn present(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| find(program).is_none())
        .collect();
    missing.is_empty()
        || skip(&format!(
            "{missing:?} is not there; see tests/peers-install"
        ))
}

/// Whether we are root, whom Postfix and Dovecot want. If not, that is a skip as in [`present`].
pub fn root() -> bool {
    nix::unistd::geteuid().is_root() || skip("this needs root")
}

/// Says loudly that a test does not run, and gives false. Fails where `REQUIRE_PEERS=1`.
pub fn skip(why: &str) -> bool {
    let required = env::var_os("REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "{why}");
    // Not eprintln: that is shown only where a test fails.
    let _ = writeln!(stderr(), "\n*** SKIPPED: {why}\n");
    false
}

/// Where a program is. The folders of system programs are searched whether in PATH or not.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/lib/dovecot"])
        .map(|folder| Path::new(folder).join(program))
        .find(|file| file.is_file())
}

/// A command by its full path, where it is in the folders of system programs.
pub fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| program.into()))
}

/// Runs a command to its end and gives what it wrote to both outputs; fails where it fails.
pub fn run(command: &mut Command) -> String {
    let (succeeded, text) = attempt(command);
    assert!(succeeded, "{command:?} failed:\n{text}");
    text
}

/// Runs a command to its end: whether it succeeded, and what it wrote to both outputs.
pub fn attempt(command: &mut Command) -> (bool, String) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Sends a signal to a process that the test has started.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    kill(pid, signal).expect("the process is there");
}

/// A process of the test, ended when dropped.
pub struct Process(pub Child);

impl Process {
    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            signal(self.0.id(), Signal::SIGTERM);
        }
        wait_until(SOON, "a peer's end", || self.0.try_wait().ok().flatten());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            signal(self.0.id(), Signal::SIGTERM);
        }
        let patient = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) {
            if patient.elapsed() > SOON {
                let _ = self.0.kill();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Gives `path` to the user and group `mail`, and lets anybody walk through its parent.
pub fn give_to_mail(path: &Path) {
    fs::create_dir_all(path).expect("a folder for mail");
    std::os::unix::fs::chown(path, Some(MAIL), Some(MAIL)).expect("we are root");
    let parent = path.parent().expect("not the root folder");
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// Debian's user and group `mail`.
pub const MAIL: u32 = 8;

/// Starts a DNS server and waits until it has an answer to the query, given as octets.
pub fn name_server(
    program: &str,
    arguments: &[&str],
    port: u16,
    query: &[u8],
) -> (Process, SocketAddr) {
    let child = command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server can be started");
    let process = Process(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a time-out can be set");
    wait_until(SOON, program, || {
        socket.send_to(query, address).ok()?;
        let mut answer = [0; 512];
        // The count of answers is not zero.
        let length = socket.recv(&mut answer).ok()?;
        (length > 12 && answer[7] > 0).then_some(())
    });
    (process, address)
}
