//! A Maildir, read as its owner's mail reader would.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::support::SOON;
use crate::support::wait_until;

/// One Maildir, which need not be there yet.
#[derive(Debug, Clone)]
pub struct Mailbox(PathBuf);

impl Mailbox {
    pub fn at(folder: impl AsRef<Path>) -> Mailbox {
        Mailbox(folder.as_ref().to_owned())
    }

    /// The messages in `new` and `cur`, in the order of their names.
    pub fn messages(&self) -> Vec<String> {
        let mut files: Vec<PathBuf> = ["new", "cur"]
            .iter()
            .filter_map(|folder| fs::read_dir(self.0.join(folder)).ok())
            .flatten()
            .map(|entry| entry.expect("a file").path())
            .collect();
        files.sort();
        files
            .iter()
            .filter_map(|file| fs::read(file).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// Waits until there are `count` messages, and gives them.
    pub fn wait_for(&self, count: usize) -> Vec<String> {
        wait_until(
            SOON,
            &format!("{count} messages in {}", self.0.display()),
            || {
                let messages = self.messages();
                (messages.len() >= count).then_some(messages)
            },
        )
    }

    /// Waits for the first message.
    pub fn first(&self) -> String {
        self.wait_for(1).remove(0)
    }
}

/// What stands behind the header of a message, with line ends made LF.
pub fn body(message: &str) -> String {
    let message = message.replace("\r\n", "\n");
    let (_, body) = message.split_once("\n\n").expect("a header and a body");
    body.to_owned()
}

/// The unfolded values of all fields of this name.
pub fn field(message: &str, name: &str) -> Vec<String> {
    let message = message
        .replace("\r\n", "\n")
        .replace("\n\t", " ")
        .replace("\n ", " ");
    let header = message.split("\n\n").next().unwrap_or_default();
    header
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}
