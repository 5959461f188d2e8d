//! Reads the addresses of a From field (RFC 5322 §3.4, §4.4). Pure.
//!
//! Where two readers could see two different authors there is none: the field is unreadable.
//! Comments, groups, quoted strings, obsolete routes and folding are read as RFC 5322 says; a display
//! name is never decoded, and never searched for an address.

use crate::mail::address::Address;
use crate::mail::address::Domain;

/// Comments in comments deeper than this are unreadable.
const MAX_DEPTH: usize = 32;

/// A field that cannot be read, or in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the field has no address that can be read for certain")]
pub struct Unreadable;

/// What stands left and right of an @. The left side is as it is meant, without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mailbox {
    local: String,
    domain: Domain,
}

/// What RFC 5322 §3.2 calls a token, comments and white space left out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// An atom, or the text of a quoted string.
    Word(String),
    /// `[...]`
    Literal,
    /// One of `<>@,:;.`
    Special(char),
}

/// The domain of each address of a field value, in order, repeated where it is.
pub(super) fn domains(value: &[u8]) -> Result<Vec<Domain>, Unreadable> {
    let found = mailboxes(value)?.into_iter();
    Ok(found.map(|mailbox| mailbox.domain).collect())
}

/// Each address of a field value, in order. One that no mail could be sent to is unreadable.
pub fn addresses(value: &[u8]) -> Result<Vec<Address>, Unreadable> {
    let found = mailboxes(value)?.into_iter();
    let address = |mailbox: Mailbox| Address::new(&mailbox.local, mailbox.domain);
    found
        .map(|mailbox| address(mailbox).map_err(|_| Unreadable))
        .collect()
}

fn mailboxes(value: &[u8]) -> Result<Vec<Mailbox>, Unreadable> {
    let tokens = tokens(&unfold(value)?)?;
    let mut found = Vec::new();
    let mut in_group = false;
    let mut rest = tokens.as_slice();
    loop {
        let end = rest.iter().position(ends_element).unwrap_or(rest.len());
        let (element, tail) = rest.split_at(end);
        let separator = tail.first();
        match separator {
            // RFC 5322 §3.4: a group begins with its name, and groups hold no groups.
            Some(Token::Special(':')) => {
                if in_group || !is_phrase(element) {
                    return Err(Unreadable);
                }
                in_group = true;
            }
            _ => {
                // RFC 5322 §4.4: empty elements are obsolete, not wrong. Words without an address
                // are wrong ("Doe, Inc. <a@b.example>", unquoted) and common; nobody can take them
                // for an author.
                if !is_phrase(element) {
                    found.push(mailbox(element)?);
                }
                if separator == Some(&Token::Special(';')) {
                    if !in_group {
                        return Err(Unreadable);
                    }
                    in_group = false;
                }
            }
        }
        match tail {
            [] if in_group => return Err(Unreadable),
            [] => return Ok(found),
            [_, after @ ..] => rest = after,
        }
        // Behind a group's semicolon only another element may follow, parted by a comma.
        if separator == Some(&Token::Special(';'))
            && !matches!(rest.first(), None | Some(Token::Special(',')))
        {
            return Err(Unreadable);
        }
    }
}

/// Commas and group marks, but not the colon of a route: that stands between angle brackets, which
/// are one token run for [`mailbox`].
fn ends_element(token: &Token) -> bool {
    matches!(token, Token::Special(',' | ':' | ';'))
}

/// One mailbox: `[phrase] <[route] local@domain>` or `local@domain`.
fn mailbox(element: &[Token]) -> Result<Mailbox, Unreadable> {
    let Some(open) = element
        .iter()
        .position(|token| *token == Token::Special('<'))
    else {
        return addr_spec(element);
    };
    let (phrase, angle) = element.split_at(open);
    let [_, inner @ .., Token::Special('>')] = angle else {
        return Err(Unreadable);
    };
    let mailbox = addr_spec(inner)?;
    // Some write the address as its own display name, unquoted. Readers that take the first
    // address must find the same author there.
    if !is_phrase(phrase) && addr_spec(phrase)?.domain != mailbox.domain {
        return Err(Unreadable);
    }
    Ok(mailbox)
}

/// RFC 5322 §3.2.5, with the dots of §4.1 and the brackets that some put into names.
fn is_phrase(tokens: &[Token]) -> bool {
    tokens
        .iter()
        .all(|token| matches!(token, Token::Word(_) | Token::Literal | Token::Special('.')))
}

/// RFC 5322 §3.4.1: `local@domain`, words and dots on the left, a domain on the right.
fn addr_spec(tokens: &[Token]) -> Result<Mailbox, Unreadable> {
    let at = tokens
        .iter()
        .position(|token| *token == Token::Special('@'))
        .ok_or(Unreadable)?;
    let (local, domain) = (&tokens[..at], &tokens[at + 1..]);
    Ok(Mailbox {
        local: dotted(local)?,
        domain: Domain::parse(&dotted(domain)?).map_err(|_| Unreadable)?,
    })
}

/// Words with single dots between them.
fn dotted(tokens: &[Token]) -> Result<String, Unreadable> {
    let mut text = String::new();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Word(word) if at % 2 == 0 => text.push_str(word),
            Token::Special('.') if at % 2 == 1 => text.push('.'),
            _ => return Err(Unreadable),
        }
    }
    // An odd number of tokens ends in a word; none at all is no name.
    if tokens.len() % 2 == 1 {
        Ok(text)
    } else {
        Err(Unreadable)
    }
}

/// The value on one line. Control characters are never innocent here: one reader stops at a NUL
/// where another reads on.
fn unfold(value: &[u8]) -> Result<String, Unreadable> {
    let text = String::from_utf8_lossy(value);
    let text = text.replace("\r\n", "").replace('\t', " ");
    if text.chars().any(char::is_control) {
        return Err(Unreadable);
    }
    Ok(text)
}

fn tokens(text: &str) -> Result<Vec<Token>, Unreadable> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' => {}
            '(' => skip_comment(&mut chars)?,
            '"' => tokens.push(Token::Word(quoted(&mut chars)?)),
            '[' => {
                if !chars.by_ref().any(|c| c == ']') {
                    return Err(Unreadable);
                }
                tokens.push(Token::Literal);
            }
            '<' => tokens.extend(angle(&mut chars, &tokens)?),
            '>' | '@' | ',' | ':' | ';' | '.' => tokens.push(Token::Special(c)),
            ')' | ']' | '\\' => return Err(Unreadable),
            c => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| !" ()<>[]:;@\\,.\"".contains(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// From behind a `<` to its `>`: the address in it, without an obsolete route (RFC 5322 §4.4).
fn angle(chars: &mut Chars<'_>, before: &[Token]) -> Result<Vec<Token>, Unreadable> {
    // A second pair of brackets in one element: which of them is the author?
    let element = before.rsplit(ends_element).next().unwrap_or_default();
    if element.contains(&Token::Special('<')) {
        return Err(Unreadable);
    }
    let mut inner = String::new();
    let mut quote = Quote::Outside;
    loop {
        let c = chars.next().ok_or(Unreadable)?;
        quote = match (quote, c) {
            (Quote::Outside, '>') => break,
            (Quote::Outside, '<') => return Err(Unreadable),
            (Quote::Outside, '"') => Quote::Inside,
            (Quote::Inside, '"') => Quote::Outside,
            (Quote::Inside, '\\') => {
                inner.push(c);
                inner.push(chars.next().ok_or(Unreadable)?);
                continue;
            }
            (quote, _) => quote,
        };
        inner.push(c);
    }
    let mut address = tokens(&inner)?;
    if address.first() == Some(&Token::Special('@')) {
        let colon = address
            .iter()
            .position(|token| *token == Token::Special(':'))
            .ok_or(Unreadable)?;
        address.drain(..=colon);
    }
    if address.iter().any(ends_element) {
        return Err(Unreadable);
    }
    let open = std::iter::once(Token::Special('<'));
    Ok(open.chain(address).chain([Token::Special('>')]).collect())
}

#[derive(Clone, Copy)]
enum Quote {
    Inside,
    Outside,
}

/// From behind a `"` to the closing one; gives what it says without backslashes.
fn quoted(chars: &mut Chars<'_>) -> Result<String, Unreadable> {
    let mut text = String::new();
    loop {
        match chars.next().ok_or(Unreadable)? {
            '"' => return Ok(text),
            '\\' => text.push(chars.next().ok_or(Unreadable)?),
            c => text.push(c),
        }
    }
}

/// From behind a `(` to the `)` that closes it.
fn skip_comment(chars: &mut Chars<'_>) -> Result<(), Unreadable> {
    let mut depth = 1;
    while depth > 0 {
        match chars.next().ok_or(Unreadable)? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(chars.next()),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Unreadable);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../../tests/fuzz/authors.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::proptest;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(value: Vec<u8>) {
            let _ = domains(&value);
        }

        #[test]
        fn no_specials_in_any_order_make_the_reader_panic(value in "[<>@,:;.()\\[\\]\"\\\\a \r\n]{0,40}") {
            let _ = domains(value.as_bytes());
        }

        #[test]
        fn an_address_is_found_behind_any_quoted_name(name in "[ -~]{0,30}") {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            let found = domains(format!("\"{name}\" <a@good.example>").as_bytes());
            assert_eq!(found, Ok(vec![Domain::parse("good.example").unwrap()]));
        }
    }

    #[test]
    fn each_address_is_read_whole() {
        for (value, want) in [
            ("a@good.example", Ok(vec!["a@good.example"])),
            (
                "A <\"a b\"@good.example>, G: c . d@Other.example;",
                Ok(vec!["\"a b\"@good.example", "c.d@other.example"]),
            ),
            ("\"plain\"@good.example", Ok(vec!["plain@good.example"])),
            ("a@[192.0.2.1]", Err(Unreadable)),
            ("\"\"@good.example", Err(Unreadable)),
            ("Undisclosed:;", Ok(vec![])),
        ] {
            let got = addresses(value.as_bytes());
            let got = got.map(|all| all.iter().map(Address::to_string).collect::<Vec<_>>());
            let want = want.map(|all| all.into_iter().map(str::to_owned).collect());
            assert_eq!(got, want, "{value:?}");
        }
    }
}
