//! The table: lines of rows, as text while they come and as Markdown at the end.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Result;

use crate::setting::Setting;

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    /// Messages a second of processor time.
    PerCpuSecond,
    Milliseconds,
    Microseconds,
    Octets,
    Kibibytes,
    Mebibytes,
}

/// What the ratio is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Only shown.
    None,
}

/// One ratio.
pub(crate) struct Line {
    what: String,
    against: String,
    unit: Unit,
    ours: Series,
    theirs: Series,
    ratio: Series,
    bound: Bound,
    notes: Vec<String>,
}

impl Line {
    /// Figures of ours and theirs, a pair a round.
    pub(crate) fn new(
        what: impl Into<String>,
        unit: Unit,
        (against, bound): (impl Into<String>, Bound),
        figures: impl IntoIterator<Item = (f64, f64)>,
    ) -> Line {
        let (ours, theirs): (Vec<f64>, Vec<f64>) = figures.into_iter().unzip();
        let ratio = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        Line {
            what: what.into(),
            against: against.into(),
            unit,
            ours: Series(ours),
            theirs: Series(theirs),
            ratio: Series(ratio),
            bound,
            notes: Vec::new(),
        }
    }

    /// Adds what should be known beside the ratio.
    pub(crate) fn note(mut self, text: impl Into<String>) -> Line {
        self.notes.push(text.into());
        self
    }

    fn is_met(&self) -> &'static str {
        let ratio = self.ratio.median();
        match self.bound {
            Bound::AtLeast(least) if ratio >= least => "yes",
            Bound::AtMost(most) if ratio <= most => "yes",
            Bound::AtLeast(_) | Bound::AtMost(_) => "NO",
            Bound::None => "",
        }
    }

    /// Row, what, ours, against, theirs, ratio, range, wanted, met.
    fn cells(&self, row: &str) -> [String; 9] {
        let (least, most) = self.ratio.range();
        [
            row.to_owned(),
            self.what.clone(),
            self.unit.show(self.ours.median()),
            self.against.clone(),
            self.unit.show(self.theirs.median()),
            significant(self.ratio.median()),
            format!("{}..{}", significant(least), significant(most)),
            self.bound.to_string(),
            self.is_met().to_owned(),
        ]
    }
}

const HEAD: [&str; 9] = [
    "row", "what", "ours", "against", "theirs", "ratio", "range", "wanted", "met",
];

/// One figure a round.
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Series {
        Series(figures.into_iter().collect())
    }

    pub(crate) fn median(&self) -> f64 {
        percentile(&self.0, 0.5)
    }

    fn range(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    }
}

/// The value below which this part of the figures lies; not a number where there are none.
pub(crate) fn percentile(figures: &[f64], part: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = last as f64 * part;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

impl Unit {
    /// The figure with its unit.
    pub(crate) fn show(self, figure: f64) -> String {
        let unit = match self {
            Unit::PerSecond => "/s",
            Unit::PerCpuSecond => "/CPU s",
            Unit::Milliseconds => " ms",
            Unit::Microseconds => " us",
            Unit::Octets => " octets",
            Unit::Kibibytes => " KiB",
            Unit::Mebibytes => " MiB",
        };
        format!("{}{unit}", significant(figure))
    }
}

/// Three digits that count at least.
fn significant(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(least) => write!(f, ">= {least}"),
            Bound::AtMost(most) => write!(f, "<= {most}"),
            Bound::None => Ok(()),
        }
    }
}

/// All lines so far.
pub(crate) struct Table {
    title: String,
    rows: Vec<(&'static str, Result<Vec<Line>>)>,
}

impl Table {
    pub(crate) fn new(setting: &Setting) -> Table {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let options = &setting.options;
        let title = format!(
            "{} messages a round, medians of {} rounds with their range, {cores} cores, {}",
            options.messages(),
            options.rounds(),
            processor(),
        );
        Table {
            title,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, row: &'static str, lines: Result<Vec<Line>>) {
        self.rows.push((row, lines));
    }

    pub(crate) fn print_head(&self, out: &mut impl io::Write) -> Result<()> {
        writeln!(out, "{}\n", self.title)?;
        print_cells(out, &HEAD.map(str::to_owned))
    }

    /// The lines of the row that was added last.
    pub(crate) fn print_newest(&self, out: &mut impl io::Write) -> Result<()> {
        let Some((row, lines)) = self.rows.last() else {
            return Ok(());
        };
        match lines {
            Ok(lines) => {
                for line in lines {
                    print_cells(out, &line.cells(row))?;
                    for note in &line.notes {
                        writeln!(out, "{:14}{note}", "")?;
                    }
                }
            }
            Err(error) => writeln!(out, "{row:<14}did not run: {error:#}")?,
        }
        Ok(out.flush()?)
    }

    pub(crate) fn write_markdown(&self, file: &Path) -> Result<()> {
        let mut text = format!("{}.\n\n", self.title);
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text += &row(&HEAD.map(str::to_owned));
        text += &row(&HEAD.map(|_| "---".to_owned()));
        let mut notes = String::new();
        for (name, lines) in &self.rows {
            match lines {
                Ok(lines) => {
                    for line in lines {
                        text += &row(&line.cells(name));
                        for note in &line.notes {
                            notes += &format!("- {name}, {}: {note}\n", line.what);
                        }
                    }
                }
                Err(error) => notes += &format!("- {name} did not run: {error:#}\n"),
            }
        }
        Ok(fs::write(file, format!("{text}\n{notes}"))?)
    }
}

fn print_cells(out: &mut impl io::Write, cells: &[String; 9]) -> Result<()> {
    const WIDTHS: [usize; 9] = [14, 34, 13, 32, 13, 8, 14, 9, 3];
    let padded = cells.iter().zip(WIDTHS);
    let line: String = padded
        .map(|(cell, width)| format!("{cell:<width$} "))
        .collect();
    Ok(writeln!(out, "{}", line.trim_end())?)
}

/// What the processor calls itself.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": "));
    name.map_or("a processor without a name", |(_, name)| name)
        .to_owned()
}
