//! PROXY headers: where one ends and what it says does not depend on how it comes.

use super::*;
use crate::fuzz::run;

#[test]
fn a_header_is_read_the_same_however_it_comes_and_is_bounded() {
    run("proxy", |input| {
        let whole = parse(input).map_err(|error| error.to_string());
        for come in (0..input.len()).step_by(1 + input.len() / 256) {
            match parse(&input[..come]) {
                Ok(Progress::Partial) => {}
                part => assert_eq!(part.map_err(|e| e.to_string()), whole, "at {come}"),
            }
        }
        match whole {
            Ok(Progress::Whole { header, length }) => {
                assert!((1..=input.len().min(V2_LIMIT)).contains(&length));
                Ok(match header {
                    Header::Local => 0,
                    Header::Proxied { client, server } => {
                        assert_eq!(client.is_ipv4(), server.is_ipv4());
                        1 + u8::from(client.is_ipv4())
                    }
                })
            }
            Ok(Progress::Partial) => {
                assert!(input.len() < V2_LIMIT);
                Ok(3)
            }
            Err(error) => Err(error),
        }
    });
}
