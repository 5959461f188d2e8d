//! The configuration file: any text is a configuration, or has faults that are in it.

use super::run;
use crate::config::Config;

#[test]
fn any_text_is_a_configuration_or_has_faults_that_can_be_shown() {
    run("configuration", |input| {
        let text = String::from_utf8_lossy(input);
        match Config::parse(&text) {
            Ok(config) => {
                assert_eq!(config.faults(), []);
                assert!(config.routing().is_ok());
                assert!(!config.domains.is_empty());
                Vec::new()
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                let lines = 1..=text.lines().count() + 1;
                assert!(faults.iter().all(|fault| lines.contains(&fault.line)));
                assert!(faults.is_sorted_by_key(|fault| fault.line));
                // A word of it says which kind of fault it is.
                let shown = faults.iter().map(ToString::to_string);
                let kinds = shown.map(|fault| fault.chars().rev().take(12).collect::<String>());
                kinds.take(3).collect()
            }
        }
    });
}
