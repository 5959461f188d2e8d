//! Plays each file of `tests/dialogues/` against the real binary.

use std::fs;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;

use crate::support::client::Client;
use crate::support::dialogue;
use crate::support::dialogue::Turn;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;

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
    let gateway = Gateway::start();
    let mut faults = Vec::new();
    for file in files() {
        let name = file.file_stem().expect("a file").display().to_string();
        let text = fs::read_to_string(&file).expect("a dialogue");
        let turns = dialogue::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let played = panic::catch_unwind(AssertUnwindSafe(|| play(&gateway.site, &turns)));
        match played {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => faults.push(format!("{name}: {fault}")),
            Err(_) => faults.push(format!("{name}: broke off, see above")),
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn play(site: &Site, turns: &[Turn]) -> Result<(), String> {
    let mut client = Client::connect(site.smtp);
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
