//! Replies, ours and others': ours are such as RFC 5321 wants them and our own client reads them; any
//! octets of a server's are read the same however they come, or refused.

use super::run;
use crate::smtp::client::capabilities::Capabilities;
use crate::smtp::client::response::Response;
use crate::smtp::reply::Reply;

/// Whether a reply goes over the wire as RFC 5321 §4.2 and RFC 2034 §4 want it.
#[track_caller]
pub(super) fn assert_well_formed(reply: &Reply) {
    let mut wire = Vec::new();
    reply.write(&mut wire);
    let text = String::from_utf8(wire).unwrap();
    let lines: Vec<_> = text.split_inclusive("\r\n").collect();
    let last = lines.len() - 1;
    for (number, line) in lines.iter().enumerate() {
        let separator = if number == last { " " } else { "-" };
        let front = format!("{}{separator}", reply.code);
        let text = line.strip_suffix("\r\n").unwrap();
        assert!(text.starts_with(&front), "{line:?}");
        assert!(!text.contains(char::is_control), "{line:?}");
        assert!(line.len() <= 512, "{line:?}"); // RFC 5321 §4.5.3.1.5
    }
    let (read, length) = Response::read(text.as_bytes()).unwrap().unwrap();
    assert_eq!((read.code, length), (reply.code, text.len()));
    assert_eq!(read.enhanced, reply.enhanced, "{text:?}");
    assert!(matches!(reply.code, 200..=599));
}

#[test]
fn a_reply_is_read_the_same_however_it_comes() {
    run("replies", |input| {
        let whole = Response::read(input);
        for come in (0..input.len()).step_by(1 + input.len() / 256) {
            match Response::read(&input[..come]) {
                Ok(None) => {}
                part => assert_eq!(part, whole, "at {come}"),
            }
        }
        let (response, length) = whole.ok()??;
        assert!((1..=input.len()).contains(&length));
        assert!((200..600).contains(&response.code));
        let shown = response.to_string();
        assert!(shown.len() <= 600 && !shown.contains(char::is_control));
        assert!(response.lines().count() <= 100);
        if let Some((class, _, _)) = response.enhanced {
            assert_eq!(u16::from(class), response.code / 100);
        }
        let offered = format!("{:?}", Capabilities::read(&response));
        let digits = |c: char| c.is_ascii_digit();
        Some((
            response.class() as u8,
            response.enhanced.is_some(),
            offered.replace(digits, ""),
        ))
    });
}
