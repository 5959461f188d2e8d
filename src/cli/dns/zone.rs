//! Records as lines of a zone file, in the form that BIND and its kind read (RFC 1035 §5.1).

/// No string of a TXT record is longer (RFC 1035 §3.3.14); this leaves room for what else an editor
/// puts on a line.
const LONGEST_STRING: usize = 250;

/// A TXT record. What does not fit into one string goes on in the next.
pub(in crate::cli) fn txt(name: &str, text: &str, comment: &str) -> String {
    // A key begins a string of its own, so that it can be compared at a glance.
    let (head, tail) = match text.find("p=") {
        Some(at) if text.len() > LONGEST_STRING => text.split_at(at),
        _ => (text, ""),
    };
    let strings: Vec<String> = [head, tail]
        .iter()
        .flat_map(|part| pieces(part))
        .map(|piece| format!("\"{}\"", escaped(piece)))
        .collect();
    let comment = match comment {
        "" => String::new(),
        text => format!("  ; {text}"),
    };
    match strings.as_slice() {
        [one] => format!("{name}.\tIN\tTXT\t{one}{comment}"),
        several => format!("{name}.\tIN\tTXT\t( {} ){comment}", several.join("\n\t  ")),
    }
}

fn pieces(mut text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let mut end = LONGEST_STRING.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, rest) = text.split_at(end);
        pieces.push(piece);
        text = rest;
    }
    pieces
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_one_string_and_a_long_one_several() {
        assert_eq!(
            txt("example.com", "v=spf1 mx \"~all", "why"),
            "example.com.\tIN\tTXT\t\"v=spf1 mx \\\"~all\"  ; why"
        );
        let long = format!("v=DKIM1; k=rsa; p={}", "A".repeat(392));
        let line = txt("s._domainkey.example.com", &long, "");
        let strings: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        assert_eq!(strings.concat(), long);
        assert_eq!(strings[0], "v=DKIM1; k=rsa; ");
        assert!(strings.iter().all(|string| string.len() <= 255));
        assert!(line.ends_with(" )"), "{line}");
    }
}
