//! Programs of others that send mail by the sendmail command: bsd-mailx and git send-email.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use crate::sendmail::account;
use crate::sendmail::site;
use crate::support::gateway::Gateway;
use crate::support::mailbox::body;
use crate::support::mailbox::field;
use crate::support::process;

/// A program that is `sendmail` with our configuration.
fn wrapper(gateway: &Gateway) -> PathBuf {
    let path = gateway.site.path("sendmail");
    let config = gateway.site.path("gatepost.toml");
    let script = format!(
        "#!/bin/sh\nexec {} sendmail -C {} \"$@\"\n",
        env!("CARGO_BIN_EXE_gatepost"),
        config.display()
    );
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is ours");
    path
}

#[test]
fn mail_sends_what_is_typed() {
    if !process::present(&["bsd-mailx"]) {
        return;
    }
    let gateway = site("").start();
    let rc = gateway.site.path("mailrc");
    let settings = format!("set sendmail={}\n", wrapper(&gateway).display());
    fs::write(&rc, settings).expect("written");
    let input = gateway.site.path("input");
    fs::write(&input, "Grüße\n..\nbye\n").expect("written");
    let typed = fs::File::open(&input).expect("it is there");
    let mut command = Command::new("bsd-mailx");
    command
        .args([
            "-s",
            "disk full",
            "-c",
            "second",
            "-b",
            "postmaster",
            "user",
        ])
        .env("MAILRC", &rc)
        .env("HOME", gateway.site.folder.path())
        .stdin(Stdio::from(typed));
    process::run(&mut command);
    for mailbox in ["user", "second", "postmaster"] {
        let got = gateway.site.mailbox(mailbox).first();
        assert_eq!(field(&got, "Subject"), ["disk full"]);
        assert_eq!(field(&got, "To"), ["user@gate.example"]);
        assert_eq!(field(&got, "Cc"), ["second@gate.example"]);
        assert_eq!(field(&got, "Bcc"), Vec::<String>::new());
        let from = &field(&got, "From")[0];
        assert!(from.contains(&format!("{}@", account())), "{from}");
        assert_eq!(body(&got), "Grüße\n..\nbye\n");
    }
}

#[test]
fn git_sends_a_patch() {
    if !process::present(&["/usr/lib/git-core/git-send-email"]) {
        return;
    }
    let gateway = site("").start();
    let patch = gateway.site.path("0001.patch");
    let text = "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n\
                From: Anna <anna@client.example>\nDate: Tue, 24 Nov 2026 10:00:00 +0000\n\
                Subject: [PATCH] Add a line\n\n---\n a | 1 +\n\ndiff --git a/a b/a\n--- a/a\n+++ b/a\n\
                @@ -0,0 +1 @@\n+.\n--\n2.39.5\n";
    fs::write(&patch, text).expect("written");
    let mut command = Command::new("git");
    command
        .args([
            "send-email",
            "--quiet",
            "--confirm=never",
            "--suppress-cc=all",
        ])
        .args(["--from", "Anna <anna@client.example>"])
        .args(["--envelope-sender", "anna@client.example"])
        .args([
            "--to",
            "User <user@gate.example>",
            "--cc",
            "second@gate.example",
        ])
        .arg("--smtp-server")
        .arg(wrapper(&gateway))
        .arg(&patch)
        .env("HOME", gateway.site.folder.path())
        .env("GIT_COMMITTER_NAME", "Anna")
        .env("GIT_AUTHOR_NAME", "Anna")
        .env("EMAIL", "anna@client.example")
        .current_dir(gateway.site.folder.path());
    process::run(&mut command);
    for mailbox in ["user", "second"] {
        let got = gateway.site.mailbox(mailbox).first();
        assert_eq!(field(&got, "Subject"), ["[PATCH] Add a line"]);
        assert_eq!(field(&got, "Return-Path"), ["<anna@client.example>"]);
        assert!(body(&got).contains("\n+.\n"), "{got}");
    }
}
