//! The sendmail command, as the programs of this machine call it: through the socket, and into the drop
//! directory while no gateway runs.

use std::fs;
use std::fs::File;
use std::fs::Permissions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::User;
use nix::unistd::geteuid;
use nix::unistd::mkfifo;

use crate::support::free_port;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mailbox::Mailbox;
use crate::support::mailbox::body;
use crate::support::mailbox::field;
use crate::support::mails::DkimKey;
use crate::support::process::root;
use crate::support::wait_until;

/// A site that takes mail of this machine, from accounts that must send as themselves.
pub fn site(keys: &str) -> Site {
    let site = Site::new();
    let directory = site.path("local");
    let section = format!("[sendmail]\ndirectory = {directory:?}\n{keys}");
    site.with(&section)
}

const NOBODY_IS_TRUSTED: &str = "trusted_users = []";
const ALL_MAY: &str = "[submission.senders]\nmode = \"off\"";

/// The account that runs the tests.
pub fn account() -> String {
    let user = User::from_uid(geteuid()).expect("accounts can be read");
    user.expect("we have a name").name
}

/// Runs a command with this on its standard input.
fn run(mut command: Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is there");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A command that ends early reads no more.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// `gatepost sendmail` with these arguments.
fn sendmail(site: &Site, arguments: &[&str], input: &str) -> Output {
    let config = site.path("gatepost.toml").display().to_string();
    let mut command = gatepost(&["sendmail", "-C", &config]);
    command.args(arguments);
    run(command, input)
}

#[track_caller]
fn send(site: &Site, arguments: &[&str], input: &str) {
    let output = sendmail(site, arguments, input);
    assert!(output.status.success(), "{}", said(&output));
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[out.as_slice(), err].concat()).into_owned()
}

fn drops(site: &Site) -> Vec<PathBuf> {
    files(&site.path("local/drop"))
}

fn refused(site: &Site) -> Vec<PathBuf> {
    files(&site.path("local/refused"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is there");
    entries.map(|entry| entry.expect("a file").path()).collect()
}

/// A place for the socket and what is dropped, as a gateway leaves it that has stopped.
fn stopped(site: Site) -> Gateway {
    let mut gateway = site.start();
    assert!(gateway.process.stop().success());
    gateway
}

#[test]
fn recipients_are_taken_from_the_header_and_the_blind_ones_are_not_shown() {
    let gateway = site("").start();
    let message = "From: root (Cron Daemon)\nTo: User <user@gate.example>,\n second\n\
                   Bcc: postmaster\nSubject: folded\n subject\n\nHello.\n";
    send(&gateway.site, &["-t", "-i", "-F", "ignored"], message);
    for mailbox in ["user", "second", "postmaster"] {
        let got = gateway.site.mailbox(mailbox).first();
        assert_eq!(field(&got, "From"), ["root@gate.example (Cron Daemon)"]);
        let to = "User <user@gate.example>, second@gate.example";
        assert_eq!(field(&got, "To"), [to]);
        assert_eq!(field(&got, "Bcc"), Vec::<String>::new());
        assert_eq!(field(&got, "Subject"), ["folded subject"]);
        assert_eq!(field(&got, "Message-ID").len(), 1);
        let sender = format!("<{}@gate.example>", account());
        assert_eq!(field(&got, "Return-Path"), [sender]);
        assert_eq!(body(&got), "Hello.\n");
    }
    let got = gateway.site.mailbox("user").first();
    let accepted = gateway.process.wait_for("accepted");
    let (id, login) = (accepted["id"].as_str(), accepted["login"].as_str());
    assert_eq!(login, Some(account().as_str()));
    let received = field(&got, "Received").remove(0);
    let want = format!(
        "by {HOSTNAME} (Gatepost, from user {}) id {};",
        account(),
        id.unwrap_or_default()
    );
    assert!(received.starts_with(&want), "{received}");
    let login = gateway.process.wait_for("logged in");
    assert_eq!(login["mechanism"], "socket");
}

#[test]
fn mail_of_this_machine_is_signed_like_that_of_any_user() {
    let site = site("");
    let folder = site.path("data/dkim/gate.example");
    fs::create_dir_all(&folder).expect("made");
    let file = folder.join("s1.pem");
    fs::write(&file, DkimKey::new().pem()).expect("written");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("closed");
    let gateway = site.start();
    send(&gateway.site, &["user"], "Subject: s\n\nHello.\n");
    let got = gateway.site.mailbox("user").first();
    let signature = field(&got, "DKIM-Signature").remove(0);
    assert!(signature.contains("d=gate.example"), "{signature}");
}

#[test]
fn recipients_of_the_arguments_come_on_top_of_those_of_the_header() {
    let gateway = site("").start();
    let message = "To: user\n\nHello.\n";
    send(&gateway.site, &["-t", "second@gate.example"], message);
    for mailbox in ["user", "second"] {
        let got = gateway.site.mailbox(mailbox).first();
        assert_eq!(field(&got, "To"), ["user@gate.example"]);
    }
}

#[test]
fn a_message_without_a_header_gets_one_with_the_name_that_was_given() {
    let gateway = site("").start();
    let arguments = ["-F", "Änna D.", "-f", "anna@client.example", "user"];
    send(
        &gateway.site,
        &arguments,
        "Hello: world\nno field\n\u{e4}\n",
    );
    let got = gateway.site.mailbox("user").first();
    let from = "=?UTF-8?B?w4RubmEgRC4=?= <anna@client.example>";
    assert_eq!(field(&got, "From"), [from]);
    assert_eq!(field(&got, "Return-Path"), ["<anna@client.example>"]);
    assert_eq!(body(&got), "no field\n\u{e4}\n");
}

#[test]
fn a_dot_ends_the_message_unless_it_is_told_not_to() {
    let gateway = site("").start();
    let message = "Subject: dots\n\n..\n.two\n.\nbehind\n";
    send(&gateway.site, &["user"], message);
    send(&gateway.site, &["-i", "second"], message);
    send(
        &gateway.site,
        &["-oi", "postmaster"],
        &message.replace('\n', "\r\n"),
    );
    let got = |mailbox| body(&gateway.site.mailbox(mailbox).first());
    assert_eq!(got("user"), "..\n.two\n");
    assert_eq!(got("second"), "..\n.two\n.\nbehind\n");
    assert_eq!(got("postmaster"), "..\n.two\n.\nbehind\n");
}

#[test]
fn an_account_sends_as_itself_and_the_trusted_as_anybody() {
    let mut gateway = site(NOBODY_IS_TRUSTED).start();
    let own = format!("{}@gate.example", account());
    let here = format!("{}@{HOSTNAME}", account());
    for (sender, from, want) in [
        ("", "", 0),
        (own.as_str(), "", 0),
        (here.as_str(), "", 0),
        ("<>", "", 0),
        ("boss@gate.example", "", 77),
        ("", "From: boss@gate.example\n", 77),
    ] {
        let message = format!("{from}Subject: s\n\nHello.\n");
        let arguments = match sender {
            "" => vec!["user"],
            sender => vec!["-f", sender, "user"],
        };
        let output = sendmail(&gateway.site, &arguments, &message);
        let code = output.status.code();
        assert_eq!(code, Some(want), "{sender} {from}: {}", said(&output));
        if want == 77 {
            assert!(said(&output).contains("is not an address of"));
        }
    }
    gateway.process.wait_for_nth("accepted", 4);
    assert_eq!(gateway.process.events("accepted").len(), 4);

    let trusted = format!("trusted_users = [{:?}]", account());
    gateway.site.extra = gateway.site.extra.replace(NOBODY_IS_TRUSTED, &trusted);
    gateway.reload();
    gateway.process.wait_for("configuration reloaded");
    send(
        &gateway.site,
        &["-f", "boss@gate.example", "second"],
        "\nHello.\n",
    );
    let got = gateway.site.mailbox("second").first();
    assert_eq!(field(&got, "Sender"), Vec::<String>::new());
}

#[test]
fn how_it_ends_says_what_was_wrong() {
    let gateway = site(ALL_MAY).start();
    let message = "Subject: s\n\nHello.\n";
    for (arguments, input, want) in [
        (vec!["-bd"], "", 64),
        (vec!["-Z", "user"], message, 64),
        (vec![], message, 64),
        (vec!["-t"], message, 65),
        (vec!["anna doe"], message, 65),
        (vec!["user"], "From: a@b.example\nFrom: c@d.example\n\n", 65),
        (vec!["unknown"], message, 67),
        (vec!["user", "unknown"], message, 67),
        (vec!["-bi"], "", 0),
        (vec!["-q"], "", 0),
    ] {
        let output = sendmail(&gateway.site, &arguments, input);
        let code = output.status.code();
        assert_eq!(code, Some(want), "{arguments:?}: {}", said(&output));
    }
    assert_eq!(gateway.process.events("accepted").len(), 0, "all or none");
    let output = run(gatepost(&["sendmail", "-C", "/none", "x"]), message);
    assert_eq!(output.status.code(), Some(66), "{}", said(&output));

    let elsewhere = Site::new();
    elsewhere.write_config();
    let output = sendmail(&elsewhere, &["x"], message);
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
    let never_started = site("");
    never_started.write_config();
    let output = sendmail(&never_started, &["x"], message);
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
}

#[test]
fn the_dialogue_is_spoken_on_standard_input_and_output() {
    let mut gateway = site("").start();
    let dialogue = "EHLO localhost\r\nMAIL FROM:<user@gate.example>\r\nRCPT TO:<user@gate.example>\r\n\
                    RCPT TO:<unknown@gate.example>\r\nDATA\r\n";
    let rest = "From: <user@gate.example>\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
    let output = sendmail(&gateway.site, &["-bs"], &format!("{dialogue}{rest}"));
    assert!(output.status.success(), "{}", said(&output));
    let replies = said(&output);
    let codes: Vec<_> = replies.lines().map(|line| &line[..4]).collect();
    let ends: Vec<_> = codes.iter().filter(|code| code.ends_with(' ')).collect();
    let want = [
        "220 ", "250 ", "250 ", "250 ", "550 ", "354 ", "250 ", "221 ",
    ];
    assert_eq!(ends, want.iter().collect::<Vec<_>>(), "{replies}");
    assert!(!replies.contains("AUTH"), "{replies}");
    assert_eq!(body(&gateway.site.mailbox("user").first()), ".dot\n");

    gateway.process.stop();
    let output = sendmail(&gateway.site, &["-bs"], dialogue);
    assert_eq!(output.status.code(), Some(75));
    assert!(said(&output).starts_with("421 4.3.2 "), "{}", said(&output));
}

#[test]
fn it_is_known_by_the_names_of_old() {
    let gateway = site("").start();
    let called = |name: &str| {
        let link = gateway.site.path(name);
        symlink(env!("CARGO_BIN_EXE_gatepost"), &link).expect("linked");
        Command::new(link)
    };
    let config = gateway.site.path("gatepost.toml");
    let mut command = called("sendmail");
    command.arg("-C").arg(&config).args(["-oem", "-i", "user"]);
    let output = run(command, "\nHello.\n");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(body(&gateway.site.mailbox("user").first()), "Hello.\n");
    assert_eq!(run(called("newaliases"), "").status.code(), Some(0));
    let mut mailq = called("mailq");
    mailq.arg("-C").arg(&config);
    let output = run(mailq, "");
    assert!(output.status.success(), "{}", said(&output));
    let mut list = gatepost(&["queue", "list", "-c"]);
    list.arg(&config);
    assert_eq!(said(&output), said(&run(list, "")));
}

#[test]
fn what_is_sent_while_no_gateway_runs_is_taken_once_when_it_does() {
    let mut gateway = stopped(site(""));
    send(
        &gateway.site,
        &["-N", "never", "user"],
        "Subject: one\n\n\u{e4}\n",
    );
    send(&gateway.site, &["user"], "Subject: two\n\n.\nnot this\n");
    let dropped = drops(&gateway.site);
    assert_eq!(dropped.len(), 2);
    for file in &dropped {
        assert_eq!(fs::metadata(file).expect("a file").mode() & 0o7777, 0o644);
    }
    gateway.restart();
    let got = gateway.site.mailbox("user").wait_for(2);
    let mut subjects: Vec<_> = got.iter().flat_map(|got| field(got, "Subject")).collect();
    subjects.sort();
    assert_eq!(subjects, ["one", "two"]);
    let login = gateway.process.wait_for("logged in");
    assert_eq!(
        (&login["mechanism"], &login["user"]),
        (&"drop".into(), &account().into())
    );
    assert_eq!(
        gateway.process.wait_for("picked up")["login"],
        account().as_str()
    );
    wait_until(Duration::from_secs(10), "the files' end", || {
        drops(&gateway.site).is_empty().then_some(())
    });
    // What is dropped beside a gateway that runs is found, too.
    gateway.process.stop();
    send(&gateway.site, &["second"], "\nlate\n");
    let late = drops(&gateway.site).remove(0);
    let kept = gateway.site.path("kept");
    fs::rename(&late, &kept).expect("moved");
    gateway.restart();
    fs::rename(&kept, &late).expect("moved");
    assert_eq!(body(&gateway.site.mailbox("second").first()), "late\n");
    assert_eq!(gateway.site.mailbox("user").messages().len(), 2);
}

#[test]
fn each_message_is_taken_once_however_often_the_gateway_is_killed() {
    const MESSAGES: usize = 60;
    // Nothing can be delivered yet, so that what was stored is still there to be counted.
    let mut site = site("");
    let reachable = std::mem::replace(
        &mut site.deliver,
        format!(
            "smtp:{}",
            SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
        ),
    );
    let mut gateway = stopped(site);
    for number in 0..MESSAGES {
        send(
            &gateway.site,
            &["user"],
            &format!("Subject: {number}\n\nHello.\n"),
        );
    }
    for _ in 0..5 {
        if drops(&gateway.site).is_empty() {
            break;
        }
        gateway.process = Running::start(&gateway.site.write_config());
        gateway.process.wait_for("picked up");
        gateway.process.kill9();
    }
    gateway.site.deliver = reachable;
    gateway.restart();
    let mailbox = gateway.site.mailbox("user");
    wait_until(Duration::from_secs(60), "all messages", || {
        (drops(&gateway.site).is_empty() && mailbox.messages().len() >= MESSAGES).then_some(())
    });
    let mut subjects: Vec<usize> = mailbox
        .messages()
        .iter()
        .flat_map(|got| field(got, "Subject"))
        .map(|subject| subject.parse().expect("a number"))
        .collect();
    subjects.sort_unstable();
    assert_eq!(subjects, (0..MESSAGES).collect::<Vec<_>>());
}

#[test]
fn what_is_refused_when_it_is_picked_up_is_set_aside_and_what_is_put_off_stays() {
    let limits = "[submission.limits]\nmessages_per_hour = 1";
    let mut gateway = stopped(site(&format!("{NOBODY_IS_TRUSTED}\n{limits}")));
    send(
        &gateway.site,
        &["-f", "boss@gate.example", "user"],
        "\nforged\n",
    );
    send(&gateway.site, &["user", "unknown"], "\nunknown\n");
    send(&gateway.site, &["user"], "\nfirst\n");
    send(&gateway.site, &["user"], "\nsecond\n");
    gateway.restart();
    let put_off = gateway.process.wait_for("not picked up");
    let reason = put_off["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("limit of 1 messages per hour"), "{reason}");
    assert_eq!(body(&gateway.site.mailbox("user").first()), "first\n");
    let events = gateway.process.events("drop refused, set aside");
    let reasons: Vec<_> = events
        .iter()
        .map(|event| event["reason"].as_str().unwrap_or_default())
        .collect();
    assert!(
        reasons[0].contains("553 5.7.1 <boss@gate.example>"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].starts_with("<unknown@gate.example>: 550 5.1.1"),
        "{reasons:?}"
    );
    assert_eq!(refused(&gateway.site).len(), 2);
    assert_eq!(drops(&gateway.site).len(), 1);
}

#[test]
fn what_others_put_there_harms_nobody() {
    let mut gateway = stopped(site("").with("[session]\nsize = \"64KiB\""));
    send(&gateway.site, &["user"], "\nlinked twice\n");
    let drop = gateway.site.path("local/drop");
    let linked = drops(&gateway.site).remove(0);
    let target = gateway.site.path("target");
    fs::hard_link(&linked, &target).expect("linked");
    symlink(&target, drop.join("1-link")).expect("linked");
    fs::write(drop.join("2-garbage"), "no mail\n\u{0}").expect("written");
    fs::write(drop.join("3-empty"), "").expect("written");
    let giant = File::create(drop.join("4-giant")).expect("made");
    giant.set_len(1 << 40).expect("sparse");
    mkfifo(&drop.join("5-pipe"), Mode::S_IRWXU).expect("made");
    fs::create_dir_all(drop.join("6-folder/inside")).expect("made");
    let head = "gatepost drop 1 3\n{\"from\":\"<a@b.example>\",\"recipients\":[{\"address\":\"x\\r\\ny\"}]}\nabc";
    fs::write(drop.join("7-injection"), head).expect("written");
    fs::write(drop.join(".8-half"), "half").expect("written");
    gateway.restart();
    gateway.process.wait_for_nth("drop refused, set aside", 7);
    gateway.process.wait_for("drop directory out of order");
    let mut left: Vec<_> = drops(&gateway.site)
        .into_iter()
        .map(|file| file.file_name().expect("a name").to_owned())
        .collect();
    left.sort();
    assert_eq!(left, [".8-half", "6-folder"]);
    assert_eq!(refused(&gateway.site).len(), 5);
    assert!(target.exists());
    gateway.process.stop();
    send(&gateway.site, &["user"], "\nstill works\n");
    gateway.restart();
    assert_eq!(body(&gateway.site.mailbox("user").first()), "still works\n");
    gateway.process.wait_for("accepted");
    assert_eq!(gateway.process.events("accepted").len(), 1);
}

/// A program, run as the account nobody.
fn as_nobody(program: impl AsRef<Path>) -> Command {
    let nobody = User::from_name("nobody").expect("accounts can be read");
    let nobody = nobody.expect("it is there");
    let mut command = Command::new(program.as_ref());
    command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
    command.current_dir("/");
    command
}

/// Lets others come as far as the command, its configuration and the socket.
fn open_to_others(site: &Site) -> PathBuf {
    let program = site.path("sendmail");
    fs::copy(env!("CARGO_BIN_EXE_gatepost"), &program).expect("copied");
    for (path, mode) in [
        (program.as_path(), 0o755),
        (site.folder.path(), 0o711),
        (&site.path("gatepost.toml"), 0o644),
    ] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    }
    program
}

#[test]
fn another_account_is_known_by_the_kernel_and_by_its_files() {
    if !root() {
        return;
    }
    let mut gateway = site("").start();
    let program = open_to_others(&gateway.site);
    let config = gateway.site.path("gatepost.toml");
    let sendmail_as_nobody = |arguments: &[&str], input: &str| {
        let mut command = as_nobody(&program);
        command.arg("-C").arg(&config).args(arguments);
        run(command, input)
    };
    let output = sendmail_as_nobody(&["user"], "\nonline\n");
    assert!(output.status.success(), "{}", said(&output));
    let output = sendmail_as_nobody(&["-f", "root@gate.example", "user"], "\nforged\n");
    assert_eq!(output.status.code(), Some(77), "{}", said(&output));
    gateway.process.stop();

    // It can drop, but neither list nor delete.
    let output = sendmail_as_nobody(&["second"], "\ndropped\n");
    assert!(output.status.success(), "{}", said(&output));
    let root_too = sendmail(
        &gateway.site,
        &["-f", "boss@gate.example", "second"],
        "\nof root\n",
    );
    assert!(root_too.status.success());
    let nobody_may = |script: &str| {
        let mut shell = as_nobody("/bin/sh");
        shell.args(["-c", script]);
        run(shell, "").status.success()
    };
    let there = gateway.site.path("local/drop").display().to_string();
    assert!(!nobody_may(&format!("ls {there}")));
    let of_root = drops(&gateway.site)
        .into_iter()
        .find(|file| fs::metadata(file).expect("a file").uid() == 0)
        .expect("root's");
    assert!(!nobody_may(&format!("rm -f {}", of_root.display())));
    assert!(!nobody_may(&format!("echo >> {}", of_root.display())));
    // A file that others may not read is set aside and not looped on.
    assert!(nobody_may(&format!(
        "umask 077; echo secret > {there}/0-closed"
    )));

    gateway.restart();
    let got = gateway.site.mailbox("second").wait_for(2);
    let mut senders: Vec<_> = got
        .iter()
        .flat_map(|got| field(got, "Return-Path"))
        .collect();
    senders.sort();
    assert_eq!(senders, ["<boss@gate.example>", "<nobody@gate.example>"]);
    let got = gateway.site.mailbox("user").first();
    assert_eq!(field(&got, "From"), ["\"nobody\" <nobody@gate.example>"]);
}

#[test]
fn a_gateway_without_rights_takes_the_files_of_others() {
    if !root() {
        return;
    }
    let mut site = site("");
    let mailbox = site.path("data/mail");
    site.deliver = format!("maildir:{}/{{local}}", mailbox.display());
    let text = site.config().replacen('\n', "\nuser = \"nobody\"\n", 1);
    let config = site.path("gatepost.toml");
    fs::write(&config, text).expect("written");
    open_to_others(&site);
    let mut process = Running::start(&config);
    process.wait_for("started");
    send(&site, &["user"], "\nonline\n");
    assert!(process.stop().success());

    let nobody = User::from_name("nobody").expect("accounts can be read");
    let uid = nobody.expect("it is there").uid.as_raw();
    for (name, mode) in [("", 0o755), ("drop", 0o1733), ("refused", 0o700)] {
        let found = fs::metadata(site.path("local").join(name)).expect("it was made");
        assert_eq!((found.uid(), found.mode() & 0o7777), (uid, mode), "{name}");
    }
    send(&site, &["user"], "\nof root\n");
    assert_eq!(fs::metadata(&drops(&site)[0]).expect("a file").uid(), 0);
    let process = Running::start(&config);
    process.wait_for("started");
    let got = Mailbox::at(mailbox.join("user")).wait_for(2);
    assert_eq!(field(&got[1], "Return-Path"), ["<root@gate.example>"]);
    wait_until(Duration::from_secs(10), "the file's end", || {
        drops(&site).is_empty().then_some(())
    });
}
