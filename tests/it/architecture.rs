//! Holds ARCHITECTURE.md against the code, so that page and code cannot disagree.
//!
//! The `map` block says which room of `src/` may name which; the `doors` block says in which rooms a
//! foreign crate may be named. Both hold wherever a path is written, in a `use` or in the middle of a
//! line; comments, texts and unit tests are free. The form of files and imports is held here too.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The rows of a block in the order of the page: a name, and the names behind the arrow.
type Rows = Vec<(String, BTreeSet<String>)>;

/// A source file: where it is below the project's folder, and its text.
struct Source {
    path: String,
    text: String,
}

#[test]
fn rooms_name_only_what_the_map_allows() {
    assert_none(map_offences(&page_rows("map"), &product()));
}

#[test]
fn foreign_crates_come_in_by_their_doors() {
    assert_none(door_offences(&page_rows("doors"), &product()));
}

#[test]
fn the_map_shows_each_room_once_and_only_what_is_there() {
    let on_the_map: Vec<_> = page_rows("map").into_iter().map(|(room, _)| room).collect();
    let unique: BTreeSet<_> = on_the_map.iter().cloned().collect();
    assert_eq!(on_the_map.len(), unique.len(), "a room has two rows");
    let built: BTreeSet<_> = sources("src")
        .iter()
        .map(|source| room(&source.path).to_owned())
        .filter(|room| room != "lib")
        .collect();
    assert_eq!(unique, built, "the map on the left, src/ on the right");
}

#[test]
fn rows_of_the_map_name_only_rows_below() {
    let rows = page_rows("map");
    for (at, (room, below)) in rows.iter().enumerate() {
        for name in below {
            let there = rows[at + 1..].iter().any(|(row, _)| row == name);
            assert!(
                there,
                "{room} -> {name}: {name} has no row below that of {room}"
            );
        }
    }
}

#[test]
fn doors_open_into_rooms_of_the_map() {
    let rooms: BTreeSet<_> = page_rows("map").into_iter().map(|(room, _)| room).collect();
    for (crate_name, doors) in page_rows("doors") {
        assert!(doors.is_subset(&rooms), "{crate_name} -> {doors:?}");
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    let files = ["src", "tests", "benches"].into_iter().flat_map(sources);
    let silent = files.filter(|source| !source.text.starts_with("//! "));
    assert_none(silent.map(|source| format!("{}: no //! at the top", source.path)));
}

#[test]
fn imports_stand_one_a_line_and_by_name() {
    assert_none(import_offences(&product()));
}

#[test]
fn the_page_of_rfcs_names_each_that_is_cited_with_its_rooms() {
    let page = fs::read_to_string(project().join("docs/rfcs.md")).expect("the page is there");
    let (named, cited) = (rfcs_named(&page), rfcs_cited(&product()));
    let row = |(rfc, room): &(u32, String)| format!("RFC {rfc} in {room}");
    let missing = cited.difference(&named).map(row);
    assert_none(missing.map(|row| format!("not in docs/rfcs.md: {row}")));
    let idle = named.difference(&cited).map(row);
    assert_none(idle.map(|row| format!("in docs/rfcs.md, but not in the code: {row}")));
}

#[track_caller]
fn assert_none(offences: impl IntoIterator<Item = String>) {
    let offences: Vec<_> = offences.into_iter().collect();
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

// The page.

fn page_rows(block: &str) -> Rows {
    let page = fs::read_to_string(project().join("ARCHITECTURE.md")).expect("the page is there");
    rows(&page, block).unwrap_or_else(|error| panic!("ARCHITECTURE.md: {error}"))
}

fn rows(page: &str, block: &str) -> Result<Rows, String> {
    let fence = format!("```{block}\n");
    let (_, rest) = page.split_once(&fence).ok_or(format!("no block {block}"))?;
    let (text, _) = rest
        .split_once("```")
        .ok_or(format!("{block} is not closed"))?;
    let row = |line: &str| {
        let (name, names) = line
            .split_once("->")
            .ok_or(format!("no arrow in {line:?}"))?;
        let names = names.split_whitespace().map(str::to_owned).collect();
        Ok((name.trim().to_owned(), names))
    };
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(row)
        .collect()
}

/// Each RFC of the page's table with each of its rooms.
fn rfcs_named(page: &str) -> BTreeSet<(u32, String)> {
    let mut named = BTreeSet::new();
    for line in page.lines() {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", numbers, _, rooms, ""] = columns[..] else {
            continue;
        };
        for number in numbers.split(", ").filter_map(|number| number.parse().ok()) {
            let rooms = rooms.split('`').skip(1).step_by(2);
            named.extend(rooms.map(|name| (number, room(name).to_owned())));
        }
    }
    named
}

// The code.

/// Each RFC that a source cites, with the source's room.
fn rfcs_cited(sources: &[Source]) -> BTreeSet<(u32, String)> {
    let mut cited = BTreeSet::new();
    for source in sources {
        let text = source.text.split("#[cfg(test)]\nmod tests").next();
        for rest in text.unwrap_or(&source.text).split("RFC ").skip(1) {
            let digits = rest.chars().take_while(char::is_ascii_digit).count();
            cited.extend(
                rest[..digits]
                    .parse()
                    .map(|number| (number, room(&source.path).to_owned())),
            );
        }
    }
    cited
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder of the project.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![project().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path: PathBuf = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(project()).expect("it is below");
                found.push(Source {
                    path: below.display().to_string(),
                    text: fs::read_to_string(&path).expect("a source can be read"),
                });
            }
        }
    }
    found
}

/// The files of `src/` that are not tests through and through.
fn product() -> Vec<Source> {
    let mut sources = sources("src");
    let tests: BTreeSet<String> = sources.iter().flat_map(test_files).collect();
    sources.retain(|source| !tests.contains(&source.path));
    sources
}

/// The files that a source declares as modules for tests only.
fn test_files(source: &Source) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let own_folder = match stem {
        "mod" | "lib" | "main" => folder.to_owned(),
        _ => format!("{folder}/{stem}"),
    };
    let declarations = source.text.split("#[cfg(test)]\n").skip(1);
    declarations
        .filter_map(|declaration| {
            let line = declaration.lines().next()?;
            if let Some(path) = line.strip_prefix("#[path = \"") {
                return Some(format!("{folder}/{}", path.trim_end_matches("\"]")));
            }
            let name = line.strip_prefix("mod ")?.strip_suffix(';')?;
            Some(format!("{own_folder}/{name}.rs"))
        })
        .collect()
}

/// The room of a file: the folder below `src/`, or the file itself.
fn room(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    let first = below.split('/').next().unwrap_or(below);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// How many `super::` lead from a file to the root of the crate.
fn depth(path: &str) -> usize {
    let below = path.strip_prefix("src/").unwrap_or(path);
    let folders = below.matches('/').count();
    let named = !below.ends_with("mod.rs") && below != "lib.rs" && below != "main.rs";
    folders + usize::from(named)
}

fn map_offences(map: &Rows, sources: &[Source]) -> Vec<String> {
    let map: BTreeMap<_, _> = map
        .iter()
        .map(|(room, below)| (room.as_str(), below))
        .collect();
    let mut offences = Vec::new();
    for source in sources.iter().filter(|source| source.path != "src/lib.rs") {
        let room = room(&source.path);
        for (line, named) in rooms_named(source) {
            let allowed =
                named == room || map.get(room).is_some_and(|below| below.contains(&named));
            if !allowed {
                offences.push(format!(
                    "{}:{line}: {room} may not name {named}",
                    source.path
                ));
            }
        }
    }
    offences
}

/// Each room that the code names from the root of the crate, with its line.
fn rooms_named(source: &Source) -> Vec<(usize, String)> {
    let code = code_of(&source.text);
    let mut named = Vec::new();
    for (line, path) in paths(&code) {
        let names: Vec<&str> = path.split("::").collect();
        let climbed = names.iter().take_while(|name| **name == "super").count();
        let from_root = match names[0] {
            "crate" | "gatepost" => 1,
            "super" if climbed >= depth(&source.path) => climbed,
            _ => continue,
        };
        if let Some(name) = names.get(from_root) {
            named.push((line, (*name).to_owned()));
        }
    }
    named
}

fn door_offences(doors: &Rows, sources: &[Source]) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources {
        let room = room(&source.path);
        let code = code_of(&source.text);
        for (line, path) in paths(&code) {
            let first = path.split("::").next().unwrap_or_default();
            let door = doors.iter().find(|(name, _)| name == first);
            if door.is_some_and(|(_, rooms)| !rooms.contains(room)) {
                let path = &source.path;
                offences.push(format!("{path}:{line}: {first} has no door into {room}"));
            }
        }
    }
    offences
}

fn import_offences(sources: &[Source]) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources {
        let code = code_of(&source.text);
        for (number, line) in code.lines().enumerate() {
            let place = format!("{}:{}", source.path, number + 1);
            let line = line.trim_start();
            let line = line.strip_prefix("pub ").unwrap_or(line);
            if line.starts_with("use ") && line.contains("::*") {
                offences.push(format!("{place}: imports a glob"));
            }
            if line.starts_with("use ") && line.contains('{') {
                offences.push(format!("{place}: imports a group"));
            }
        }
    }
    offences
}

/// Each path of two or more names in the code (`a::b::c`), and each crate imported whole.
fn paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let name_char = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
        for word in line.split(|char| !name_char(char)) {
            let path = word.trim_start_matches("::").trim_end_matches(':');
            let whole = line.trim_start().starts_with("use ") && path != "use";
            if path.contains("::") || word.ends_with("::") || whole {
                found.push((number + 1, path.to_owned()));
            }
        }
    }
    found
}

/// A source without comments, texts and unit tests; lines stay where they were.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let mut code = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let skipped = match char {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '"' => quoted(rest, '"'),
            '\'' => char_literal(rest),
            'r' if starts_raw(rest) && !code.ends_with(is_name) => raw(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(char);
            rest = &rest[char.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skipped].chars().filter(|char| *char == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

fn is_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The length of a text that opens with `quote`.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = true; // The opening quote does not close.
    for (at, char) in rest.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if char == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character in quotes; 0 for a lifetime.
fn char_literal(rest: &str) -> usize {
    let mut chars = rest.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(rest, '\''),
        _ => 0,
    }
}

fn starts_raw(rest: &str) -> bool {
    rest[1..].trim_start_matches('#').starts_with('"')
}

fn raw(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|char| *char == '#').count();
    let close = format!("\"{}", "#".repeat(hashes));
    let body = hashes + 2;
    rest[body..]
        .find(&close)
        .map_or(rest.len(), |at| body + at + close.len())
}

// The checker itself, on small sources that somebody could have written.

mod checker {
    use super::*;

    const PAGE: &str = "```map\napp   -> spool mail\nspool -> mail\nmail  ->\n```\n\
                        ```doors\nsqlx -> spool\n```\n";

    fn offences(path: &str, text: &str) -> Vec<String> {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let sources = [source];
        let map = rows(PAGE, "map").expect("a map");
        let doors = rows(PAGE, "doors").expect("doors");
        let mut all = map_offences(&map, &sources);
        all.extend(door_offences(&doors, &sources));
        all.extend(import_offences(&sources));
        all
    }

    #[test]
    fn what_the_map_allows_is_no_offence() {
        for (path, text) in [
            ("src/app.rs", "use crate::spool::Spool;\nuse crate::mail;"),
            (
                "src/spool/disk.rs",
                "use crate::spool::Error;\nuse super::Error;",
            ),
            (
                "src/spool/mod.rs",
                "use sqlx::Pool;\nfn f() { ::sqlx::connect() }",
            ),
            (
                "src/mail/mod.rs",
                "// crate::app\n/* crate::app */ const A: &str = \"crate::app\";",
            ),
            (
                "src/mail/mod.rs",
                "const A: &str = r#\"\"crate::app\"#; const B: char = '\"';",
            ),
            (
                "src/mail/mod.rs",
                "fn f<'a>(a: &'a str) {}\n#[cfg(test)]\nmod tests {\n    use crate::app;\n}",
            ),
            ("src/lib.rs", "pub mod app;"),
        ] {
            assert_eq!(offences(path, text), [""; 0], "{path}: {text}");
        }
    }

    #[test]
    fn an_arrow_up_is_found_wherever_it_is_written() {
        for (path, text) in [
            ("src/mail/mod.rs", "\nuse crate::spool::Spool;"),
            ("src/mail/mod.rs", "\nuse crate::spool;"),
            (
                "src/mail/address.rs",
                "\nfn f() -> crate::spool::Spool { todo!() }",
            ),
            (
                "src/mail/address.rs",
                "\nfn f(a: Vec<crate::spool::Spool>) {}",
            ),
            ("src/mail/mod.rs", "\nuse super::spool::Spool;"),
            ("src/mail/address.rs", "\nuse super::super::spool::Spool;"),
            ("src/mail/mod.rs", "\nfn f() { gatepost::spool::open() }"),
            ("src/mail/mod.rs", "\"a \\\" b\";\nuse crate::spool::Spool;"),
        ] {
            let want = format!("{path}:2: mail may not name spool");
            assert_eq!(offences(path, text), [want], "{text}");
        }
    }

    #[test]
    fn a_foreign_crate_without_a_door_is_found() {
        for text in [
            "use sqlx;",
            "use sqlx::Pool;",
            "fn f(a: sqlx::Pool) {}",
            "use ::sqlx::Pool;",
        ] {
            let want = "src/app.rs:1: sqlx has no door into app";
            assert_eq!(offences("src/app.rs", text), [want], "{text}");
        }
    }

    #[test]
    fn globs_and_groups_are_found() {
        for (text, want) in [
            ("use crate::mail::*;", "src/app.rs:1: imports a glob"),
            ("use std::{fs, io};", "src/app.rs:1: imports a group"),
            ("pub use std::{fs, io};", "src/app.rs:1: imports a group"),
        ] {
            assert_eq!(offences("src/app.rs", text), [want], "{text}");
        }
    }

    #[test]
    fn files_of_tests_are_known_by_their_declaration() {
        for (path, text, want) in [
            (
                "src/a/mod.rs",
                "#[cfg(test)]\nmod shipped;",
                "src/a/shipped.rs",
            ),
            (
                "src/a/b.rs",
                "#[cfg(test)]\nmod shipped;",
                "src/a/b/shipped.rs",
            ),
            (
                "src/a/b.rs",
                "#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;",
                "src/a/b_tests.rs",
            ),
        ] {
            let source = Source {
                path: path.to_owned(),
                text: text.to_owned(),
            };
            assert_eq!(test_files(&source), [want]);
        }
    }

    #[test]
    fn rfcs_are_found_on_the_page_and_in_the_code() {
        let page = "RFC 1 | is | no | row\n| RFC | about | where |\n| 5, 77 | x | `mail/`, `dns/ask.rs` |\n";
        let want = [(5, "dns"), (5, "mail"), (77, "dns"), (77, "mail")];
        let named = rfcs_named(page);
        assert!(
            named
                .iter()
                .map(|(number, room)| (*number, room.as_str()))
                .eq(want)
        );
        let source = Source {
            path: "src/mail/id.rs".to_owned(),
            text: "// RFC 5 \u{a7}1, RFC 77.\n#[cfg(test)]\nmod tests { /* RFC 9 */ }".to_owned(),
        };
        let cited = rfcs_cited(&[source]);
        assert_eq!(
            cited,
            BTreeSet::from([(5, "mail".to_owned()), (77, "mail".to_owned())])
        );
    }

    #[test]
    fn a_page_without_its_blocks_is_an_error() {
        assert!(rows("no block", "map").is_err());
        assert!(rows("```map\na -> b\n", "map").is_err());
        assert!(rows("```map\na b\n```", "map").is_err());
    }
}
