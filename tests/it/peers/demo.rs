//! The demo goes on listening, and the commands that it shows do what it says of them.

use std::fs;
use std::fs::File;
use std::process::Stdio;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::SOON;
use crate::support::gateway::gatepost;
use crate::support::process;
use crate::support::process::Process;
use crate::support::wait_until;

#[test]
fn each_command_that_the_demo_shows_does_what_is_said_of_it() {
    if !process::present(&["swaks"]) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("said");
    let child = gatepost(&["demo"])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(File::create(&file).expect("a new file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary is there");
    let mut demo = Process(child);
    let said = wait_until(SOON, "the commands", || {
        let said = fs::read_to_string(&file).ok()?;
        said.contains("tail -f ").then_some(said)
    });
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let commands: Vec<_> = lines
        .windows(2)
        .filter_map(|pair| Some((pair[0].strip_prefix("swaks ")?, pair[1])))
        .collect();
    assert_eq!(commands.len(), 5, "{said}");
    for (arguments, promise) in commands {
        let (accepted, answers) =
            process::attempt(process::command("swaks").args(arguments.split(' ')));
        assert_eq!(
            accepted,
            !promise.contains("refused"),
            "{promise}:\n{answers}"
        );
    }
    process::signal(demo.0.id(), Signal::SIGINT);
    let status = wait_until(SOON, "the end", || demo.0.try_wait().expect("our child"));
    assert!(status.success(), "{status}");
    // It leaves nothing behind.
    let left = fs::read_dir(folder.path()).expect("it is there");
    assert_eq!(left.count(), 1);
}
