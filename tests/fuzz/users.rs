//! Files of users: any text gives users, each by its name, or the line that is wrong.

use super::*;
use crate::fuzz::run;

#[test]
fn any_file_gives_users_with_a_password_or_the_line_that_is_wrong() {
    run("users", |input| {
        let file = String::from_utf8_lossy(input);
        match parse(&file) {
            Ok(table) => {
                assert!(table.users.len() <= file.lines().count());
                for user in &table.users {
                    assert_eq!(table.user(&user.name), Some(user));
                    assert!(file.contains(user.password.as_str()));
                }
                Ok((table.users.len().min(5), table.has_scram_for_all()))
            }
            Err((line, reason)) => {
                assert!((1..=file.lines().count()).contains(&line));
                Err(std::mem::discriminant(&reason))
            }
        }
    });
}
