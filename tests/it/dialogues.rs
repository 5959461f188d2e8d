//! Plays each file of `tests/dialogues/` against the real binary; those whose names begin with
//! `submission_` on a submission port, where `ann` has the password `tanstaaftanstaaf`.

use std::fs;
use std::net::SocketAddr;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;

use crate::support::client::Client;
use crate::support::dialogue;
use crate::support::dialogue::Turn;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::submission;

/// Who may log in.
pub const USERS: &str = "ann {SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=\n";

/// Whether a dialogue is one of a client that logs in.
pub fn is_submission(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("submission_"))
}

/// The files in the order of their names.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .collect();
    files.sort();
    files
}

#[test]
fn dialogues_go_over_a_socket_as_written() {
    let site = Site::new();
    let users = site.path("users");
    fs::write(&users, USERS).expect("written");
    let keys = format!(
        "users = \"file:{}\"\n[submission.logins]\ndelay = \"0s\"",
        users.display()
    );
    let gateway = site.with(&submission::section(&keys)).start();
    let port = SocketAddr::from(([127, 0, 0, 1], submission::port(&gateway)));
    let mut faults = Vec::new();
    for file in files() {
        let name = file.file_stem().expect("a file").display().to_string();
        let text = fs::read_to_string(&file).expect("a dialogue");
        let turns = dialogue::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let to = match is_submission(&file) {
            true => port,
            false => gateway.smtp(),
        };
        let played = panic::catch_unwind(AssertUnwindSafe(|| play(&gateway.site, to, &turns)));
        match played {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => faults.push(format!("{name}: {fault}")),
            Err(_) => faults.push(format!("{name}: broke off, see above")),
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn play(site: &Site, to: SocketAddr, turns: &[Turn]) -> Result<(), String> {
    let mut client = Client::connect(to);
    let mut said = String::new();
    for turn in turns {
        match turn {
            Turn::Client(bytes) => {
                said = String::from_utf8_lossy(&bytes[..bytes.len().min(70)]).into_owned();
                client
                    .try_send(bytes)
                    .map_err(|error| format!("{said:?} cannot be sent: {error}"))?;
            }
            Turn::Server(pattern) => {
                let reply = client
                    .try_reply()
                    .map_err(|error| format!("{said:?} was not answered: {error}"))?;
                if !dialogue::matches(pattern, &reply) {
                    return Err(format!("{said:?} was answered {reply:?}, not {pattern:?}"));
                }
            }
            Turn::Tls => client
                .secure(&site.certificate.der, HOSTNAME)
                .map_err(|error| format!("no handshake: {error}"))?,
            Turn::Close => {
                let rest = client.rest();
                if !rest.is_empty() {
                    return Err(format!("after {said:?} there came one more: {rest:?}"));
                }
            }
        }
    }
    Ok(())
}
