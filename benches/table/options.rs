//! What the table is asked for.

use std::path::PathBuf;

use clap::Parser;

/// Measures the gateway beside its peers.
#[derive(Debug, Parser)]
#[command(about, disable_help_subcommand = true)]
pub(crate) struct Options {
    /// The rows to measure; none given: all.
    #[arg(value_parser = row)]
    rows: Vec<String>,
    /// Messages a round, where a row has no number of its own.
    #[arg(long, default_value_t = 5000)]
    messages: usize,
    /// Rounds that count; one more goes before them to warm up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..100))]
    rounds: u16,
    /// A single round of little, to see that all rows run; its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Writes the table to this file, too.
    #[arg(long)]
    pub(crate) markdown: Option<PathBuf>,
    /// Where the temporary folder is made: the disk that is measured. Default: that of the target
    /// directory.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    pub(crate) folder: PathBuf,
    /// What cargo says to all benches.
    #[arg(long, hide = true)]
    bench: bool,
}

fn row(name: &str) -> Result<String, String> {
    let mut names = crate::rows::ROWS.iter().map(|row| row.name);
    match names.any(|row| row == name) {
        true => Ok(name.to_owned()),
        false => {
            let names: Vec<_> = crate::rows::ROWS.iter().map(|row| row.name).collect();
            Err(format!("the rows are {}", names.join(", ")))
        }
    }
}

impl Options {
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|name| name == row)
    }

    /// Rounds that count.
    pub(crate) fn rounds(&self) -> usize {
        if self.quick {
            1
        } else {
            usize::from(self.rounds)
        }
    }

    /// Messages a round.
    pub(crate) fn messages(&self) -> usize {
        if self.quick { 400 } else { self.messages }
    }

    /// The number of its own that a row has, or a little of it.
    pub(crate) fn number(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(32) } else { full }
    }

    /// Rounds of a row that takes long.
    pub(crate) fn few_rounds(&self) -> usize {
        self.rounds().min(3)
    }
}
