//! The options of the sendmail command, as forty years of callers write them: letters joined or apart,
//! values behind the letter or in the next argument.
//!
//! Options end at the first recipient or at `--`. What steered other programs' delivery, and means nothing
//! here, is passed over with its value; what would do something else than the caller wants is refused.

use std::path::PathBuf;

use crate::config::DEFAULT_PATH;
use crate::mail::envelope::Notify;
use crate::mail::envelope::Ret;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Send what comes on standard input.
    Deliver,
    /// Speak SMTP on standard input and output.
    Dialogue,
    /// Show the queue.
    Queue,
    /// Make the table of aliases anew, which is not ours to make.
    Aliases,
    /// Try the queue now, which the gateway does by itself.
    Flush,
}

/// What a line with nothing but a dot means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dot {
    /// The end of the message.
    Ends,
    /// A line with a dot.
    IsText,
}

/// Where the recipients stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recipients {
    /// In the arguments alone.
    Arguments,
    /// In the header, too.
    Header,
}

/// All that was asked for.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) mode: Mode,
    pub(super) config: PathBuf,
    pub(super) dot: Dot,
    pub(super) from: Recipients,
    /// The envelope's sender, as it was written; empty for the null sender.
    pub(super) sender: Option<String>,
    pub(super) full_name: Option<String>,
    pub(super) notify: Notify,
    pub(super) ret: Option<Ret>,
    pub(super) envid: Option<String>,
    /// Whether a success is told, too.
    pub(super) is_verbose: bool,
    pub(super) recipients: Vec<String>,
}

impl Options {
    /// Reads the arguments; the error says what is wrong with them.
    pub(super) fn parse(arguments: Vec<String>) -> Result<Options, String> {
        let mut options = Options {
            mode: Mode::Deliver,
            config: PathBuf::from(DEFAULT_PATH),
            dot: Dot::Ends,
            from: Recipients::Arguments,
            sender: None,
            full_name: None,
            notify: Notify::default(),
            ret: None,
            envid: None,
            is_verbose: false,
            recipients: Vec::new(),
        };
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            match argument.strip_prefix('-') {
                Some("-") => break,
                Some("-config") => options.config = value("", &mut rest, "--config")?.into(),
                Some(letters) if !letters.is_empty() => options.take(letters, &mut rest)?,
                Some(_) | None => {
                    options.recipients.push(argument);
                    break;
                }
            }
        }
        options.recipients.extend(rest);
        Ok(options)
    }

    /// One argument of options.
    fn take(
        &mut self,
        mut letters: &str,
        rest: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        while let Some(letter) = letters.chars().next() {
            letters = &letters[letter.len_utf8()..];
            let name = format!("-{letter}");
            match letter {
                't' => self.from = Recipients::Header,
                'i' => self.dot = Dot::IsText,
                'v' => self.is_verbose = true,
                'I' => self.mode = Mode::Aliases,
                // Me too, no aliases, by a gateway, at the start, by UUCP, from a user agent.
                'm' | 'n' | 'G' | 'E' | 'U' | 'x' => {}
                // Their values stand behind the letter, if anywhere.
                'q' => return self.set_mode(Mode::Flush),
                'A' | 'd' => return Ok(()),
                'b' => return self.choose_mode(&value(letters, rest, &name)?),
                'o' => return self.old_option(&value(letters, rest, &name)?),
                _ => return self.with_value(letter, value(letters, rest, &name)),
            }
        }
        Ok(())
    }

    /// An option that takes a value.
    fn with_value(&mut self, letter: char, value: Result<String, String>) -> Result<(), String> {
        match letter {
            'C' => self.config = value?.into(),
            'f' | 'r' => self.sender = Some(value?),
            'F' => self.full_name = Some(value?),
            'N' => self.notify = notify(&value?)?,
            'R' => self.ret = Some(ret(&value?)?),
            'V' => self.envid = Some(value?),
            // 8-bit or not is seen; errors are told by the exit code; hops are counted in the header.
            'B' | 'e' | 'h' | 'L' | 'O' | 'p' | 'X' => drop(value?),
            _ => return Err(format!("there is no option -{letter}")),
        }
        Ok(())
    }

    fn set_mode(&mut self, mode: Mode) -> Result<(), String> {
        self.mode = mode;
        Ok(())
    }

    fn choose_mode(&mut self, mode: &str) -> Result<(), String> {
        self.set_mode(match mode {
            "m" => Mode::Deliver,
            "s" => Mode::Dialogue,
            "p" => Mode::Queue,
            "i" => Mode::Aliases,
            "d" | "D" => return Err("the service is run by `gatepost serve`".to_owned()),
            other => return Err(format!("there is no mode -b{other}")),
        })
    }

    fn old_option(&mut self, option: &str) -> Result<(), String> {
        if option == "i" {
            self.dot = Dot::IsText;
        }
        Ok(())
    }
}

/// The value of an option: what stands behind its letter, or the next argument.
fn value(
    behind: &str,
    rest: &mut impl Iterator<Item = String>,
    name: &str,
) -> Result<String, String> {
    match behind {
        "" => rest.next().ok_or(format!("{name} wants a value")),
        value => Ok(value.to_owned()),
    }
}

/// RFC 3461 §4.1
fn notify(text: &str) -> Result<Notify, String> {
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in text.split(',') {
        match word.trim().to_ascii_lowercase().as_str() {
            "never" if text.trim().len() == "never".len() => return Ok(Notify::Never),
            "success" => success = true,
            "failure" => failure = true,
            "delay" => delay = true,
            _ => {
                return Err(format!(
                    "-N wants never, or some of success,failure,delay: {text}"
                ));
            }
        }
    }
    Ok(Notify::On {
        success,
        failure,
        delay,
    })
}

/// RFC 3461 §4.3
fn ret(text: &str) -> Result<Ret, String> {
    match text.to_ascii_lowercase().as_str() {
        "full" => Ok(Ret::Full),
        "hdrs" => Ok(Ret::Headers),
        _ => Err(format!("-R wants full or hdrs: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn the_usual_callers_are_understood() {
        for (line, from, dot, sender, recipients) in [
            ("-t -i", Recipients::Header, Dot::IsText, None, ""),
            (
                "-ti -fa@b",
                Recipients::Header,
                Dot::IsText,
                Some("a@b"),
                "",
            ),
            (
                "-oi -oem -odb -f a@b -- c@d e",
                Recipients::Arguments,
                Dot::IsText,
                Some("a@b"),
                "c@d e",
            ),
            (
                "-FCronDaemon -i -B8BITMIME -oem root",
                Recipients::Arguments,
                Dot::IsText,
                None,
                "root",
            ),
            (
                "-bm -e m -N never -R hdrs x -t",
                Recipients::Arguments,
                Dot::Ends,
                None,
                "x -t",
            ),
            (
                "-Am -d7.1 -O DeliveryMode=b -h 3 x",
                Recipients::Arguments,
                Dot::Ends,
                None,
                "x",
            ),
        ] {
            let options = parse(line).unwrap();
            assert_eq!(options.mode, Mode::Deliver, "{line}");
            assert_eq!((options.from, options.dot), (from, dot), "{line}");
            assert_eq!(options.sender.as_deref(), sender, "{line}");
            assert_eq!(options.recipients.join(" "), recipients, "{line}");
        }
        for (line, mode) in [
            ("-bs", Mode::Dialogue),
            ("-b s", Mode::Dialogue),
            ("-bp", Mode::Queue),
            ("-I", Mode::Aliases),
            ("-q30m", Mode::Flush),
        ] {
            assert_eq!(parse(line).unwrap().mode, mode, "{line}");
        }
        assert_eq!(parse("-C/x/y -t").unwrap().config, PathBuf::from("/x/y"));
        assert_eq!(
            parse("--config /x/y").unwrap().config,
            PathBuf::from("/x/y")
        );
        let wishes = parse("-N success,delay -R full -V id x").unwrap();
        let on = Notify::On {
            success: true,
            failure: false,
            delay: true,
        };
        assert_eq!((wishes.notify, wishes.ret), (on, Some(Ret::Full)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "-f",
            "-bd",
            "-bt",
            "-Z",
            "-N never,delay",
            "-R some",
            "--frob",
            "-M1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
