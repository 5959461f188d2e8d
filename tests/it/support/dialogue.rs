//! Dialogues written as the RFCs write them, read from text and played.
//!
//! ```text
//! # Lines with a hash are comments.
//! C: EHLO client.example        a line of the client's; consecutive ones go out in one packet
//! S: 250-*SIZE*                 the whole reply, its lines joined; * is anything, ? one character
//! B: a\r.\x00                   bytes of the client's just as written: \r \n \\ \xHH
//! TLS                           both shake hands now
//! CLOSE                         the server hangs up now
//! ```
//!
//! A reply of several lines may be written as several `S:` lines, `250-` in all but the last. The
//! greeting is read unasked, unless the dialogue begins with `S:`. At the end QUIT is said and must
//! be answered 221, which shows that no reply was one too many; unless the dialogue ends with CLOSE.

use std::mem;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The client sends these bytes.
    Client(Vec<u8>),
    /// The server says a reply like this.
    Server(String),
    Tls,
    Close,
}

/// Reads a dialogue. An error names the line.
pub fn parse(text: &str) -> Result<Vec<Turn>, String> {
    let mut turns = Vec::new();
    let mut reply: Vec<&str> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}: {line:?}", number + 1);
        if !line.starts_with("S:") && !reply.is_empty() {
            turns.push(Turn::Server(mem::take(&mut reply).join("\n")));
        }
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        match line.split_once(':').unwrap_or((line, "")) {
            ("C", said) => {
                let said = said.strip_prefix(' ').unwrap_or(said);
                client(&mut turns, format!("{said}\r\n").as_bytes());
            }
            ("B", said) => {
                let said = said.strip_prefix(' ').unwrap_or(said);
                client(
                    &mut turns,
                    &unescape(said).ok_or_else(|| wrong("bad escape"))?,
                );
            }
            ("S", said) => {
                let said = said.strip_prefix(' ').unwrap_or(said);
                reply.push(said);
                if said.as_bytes().get(3) != Some(&b'-') {
                    turns.push(Turn::Server(mem::take(&mut reply).join("\n")));
                }
            }
            ("TLS", "") => turns.push(Turn::Tls),
            ("CLOSE", "") => turns.push(Turn::Close),
            _ => return Err(wrong("not a line of a dialogue")),
        }
    }
    if !reply.is_empty() {
        turns.push(Turn::Server(reply.join("\n")));
    }
    if !matches!(turns.first(), Some(Turn::Server(_))) {
        turns.insert(0, Turn::Server("220 *".to_owned()));
    }
    if turns.last() != Some(&Turn::Close) {
        turns.push(Turn::Client(b"QUIT\r\n".to_vec()));
        turns.push(Turn::Server("221 *".to_owned()));
        turns.push(Turn::Close);
    }
    Ok(turns)
}

fn client(turns: &mut Vec<Turn>, bytes: &[u8]) {
    if let Some(Turn::Client(said)) = turns.last_mut() {
        said.extend_from_slice(bytes);
    } else {
        turns.push(Turn::Client(bytes.to_vec()));
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match rest.next()? {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            '\\' => bytes.push(b'\\'),
            'x' => {
                let digits: String = rest.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&digits, 16).ok()?);
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Whether `text` is as `pattern` says: `*` stands for anything, line ends too, `?` for one character.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern.len() == text.len() && begins(text, pattern);
    };
    if !begins(text, first) {
        return false;
    }
    let text = &text[first.len()..];
    (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
}

fn begins(text: &str, pattern: &str) -> bool {
    let same = |(got, want): (u8, u8)| want == b'?' || got == want;
    text.len() >= pattern.len() && text.bytes().zip(pattern.bytes()).all(same)
}

#[test]
fn a_dialogue_is_read_with_its_greeting_and_its_farewell() {
    let text = "# A comment.\nC: EHLO a\nS: 250-x\nS: 250 y\nB: \\x41\\r\nC: B\nS: 5?? *\n";
    let want = [
        Turn::Server("220 *".to_owned()),
        Turn::Client(b"EHLO a\r\n".to_vec()),
        Turn::Server("250-x\n250 y".to_owned()),
        Turn::Client(b"A\rB\r\n".to_vec()),
        Turn::Server("5?? *".to_owned()),
        Turn::Client(b"QUIT\r\n".to_vec()),
        Turn::Server("221 *".to_owned()),
        Turn::Close,
    ];
    assert_eq!(parse(text), Ok(want.to_vec()));
    assert!(parse("X: what").is_err_and(|error| error.starts_with("line 1")));
}

#[test]
fn patterns_match_as_shell_patterns_do() {
    for (pattern, text, want) in [
        ("250 ok", "250 ok", true),
        ("250 ok", "250 okay", false),
        ("250 *", "250 okay", true),
        ("250-*SIZE *", "250-a\n250-SIZE 9\n250 b", true),
        ("250-*TURN*", "250-a\n250 b", false),
        ("5?? 5.7.1 *", "554 5.7.1 no", true),
        ("5?? 5.7.1 *", "554 5.7.2 no", false),
        ("*", "", true),
    ] {
        assert_eq!(matches(pattern, text), want, "{pattern:?} and {text:?}");
    }
}
