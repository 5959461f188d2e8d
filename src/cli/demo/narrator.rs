//! What the demo prints: plain where it is no terminal, in colour where it is.

use std::io::IsTerminal;

fn colour(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

pub(super) fn title(text: &str) {
    println!("\n{}", colour("1", text));
}

pub(super) fn says(text: &str) {
    println!("{text}");
}

pub(super) fn client(line: &str) {
    println!("    {} {line}", colour("36", "C:"));
}

pub(super) fn server(line: &str) {
    let code = if line.starts_with(['4', '5']) {
        "31"
    } else {
        "32"
    };
    println!("    {} {}", colour(code, "S:"), line);
}

pub(super) fn quote(line: &str) {
    println!("    {} {line}", colour("33", "|"));
}
