//! A password as somebody gives it: typed twice and not shown, or a line of standard input.

use std::io;
use std::io::BufRead as _;
use std::io::IsTerminal as _;
use std::io::Read as _;

/// Longest password, in octets.
const LONGEST: u64 = 1024;

/// Asks for a password. The error says what to do.
pub(super) fn password(from_stdin: bool) -> Result<String, String> {
    let stdin = io::stdin();
    let typed = if from_stdin || !stdin.is_terminal() {
        let mut line = Vec::new();
        let mut input = stdin.lock().take(LONGEST + 2);
        let read = input.read_until(b'\n', &mut line);
        read.map_err(|error| format!("cannot read the password: {error}"))?;
        line
    } else {
        let ask = |prompt| {
            let typed = rpassword::prompt_password(prompt);
            typed.map_err(|error| format!("cannot ask for the password: {error}"))
        };
        let typed = ask("Password: ")?;
        if typed != ask("Again: ")? {
            return Err("the two are not the same; nothing was changed".to_owned());
        }
        typed.into_bytes()
    };
    checked(&typed)
}

fn checked(typed: &[u8]) -> Result<String, String> {
    let line = typed.strip_suffix(b"\n").unwrap_or(typed);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let wrong = match std::str::from_utf8(line) {
        Err(_) => "a password has to be UTF-8",
        Ok("") => "no password was given",
        Ok(text) if text.len() as u64 > LONGEST => "a password has at most 1024 octets",
        Ok(text) if text.contains(char::is_control) => "a password has no control characters",
        Ok(text) => return Ok(text.to_owned()),
    };
    Err(format!("{wrong}; nothing was changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_of_text() {
        for (typed, want) in [
            (&b"secret\n"[..], Some("secret")),
            (b"secret\r\n", Some("secret")),
            (b" a b ", Some(" a b ")),
            ("Gr\u{fc}\u{df}e".as_bytes(), Some("Gr\u{fc}\u{df}e")),
            (b"", None),
            (b"\n", None),
            (b"\xff", None),
            (b"a\0b", None),
            (&[b'a'; 1025], None),
        ] {
            let got = checked(typed).ok();
            assert_eq!(got.as_deref(), want, "{}", typed.escape_ascii());
        }
    }
}
