//! `gatepost queue`: what it says of the queue on disk, and messages moved out of it and in.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use bytes::Bytes;
use bytesize::ByteSize;
use gatepost::mail::address::Address;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Body;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Notify;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::envelope::Ret;
use gatepost::mail::id::SpoolId;
use gatepost::spool;
use gatepost::spool::Fate;
use gatepost::spool::Mark;
use gatepost::spool::Spool;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mails::mail;
use crate::support::process::attempt;

/// What `gatepost queue` with these arguments ends with and says.
fn queue(site: &Site, arguments: &[&str]) -> (i32, String) {
    let output = queue_command(site, arguments).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().expect("a status"), text)
}

fn queue_command(site: &Site, arguments: &[&str]) -> Command {
    let config = site.write_config();
    let mut command = gatepost(&["queue"]);
    command.args(arguments).arg("--config").arg(config);
    command
}

/// The answer of `verify --json`, which must be this status.
#[track_caller]
fn verify(site: &Site, status: i32) -> Value {
    let (found, text) = queue(site, &["verify", "--json"]);
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).expect("a JSON object")
}

/// Small segments are quickly read.
fn site() -> Site {
    Site::new().with("[spool]\nsegment_size = \"8MiB\"")
}

fn directory(site: &Site) -> PathBuf {
    site.path("data").join("spool")
}

/// A spool of the site, for a while.
struct Open {
    spool: Spool,
    next: u32,
}

impl Open {
    fn at(site: &Site) -> Open {
        let config = spool::Config {
            segment_size: ByteSize::mib(8),
            ..spool::Config::default()
        };
        let (spool, _) = spool::open(&directory(site), &config).expect("a spool");
        Open { spool, next: 0 }
    }

    async fn store(&mut self, envelope: Envelope, message: &[u8], fate: Fate) -> SpoolId {
        let session = self.spool.clock().next(SystemTime::now());
        self.next += 1;
        let id = SpoolId {
            session,
            serial: self.next,
        };
        let content = Content::from(Bytes::copy_from_slice(message));
        let stored = self.spool.store(id, envelope, content, fate).await;
        stored.expect("stored");
        id
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn envelope(from: &str, to: &[&str]) -> Envelope {
    Envelope::new(
        ReversePath::parse(from).expect("a path"),
        to.iter().map(|to| Recipient::new(address(to))).collect(),
    )
}

fn message(subject: &str, size: usize) -> Vec<u8> {
    let mut message = format!("Subject: {subject}\r\n\r\n").into_bytes();
    while message.len() < size {
        message
            .extend_from_slice(b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789\r\n");
    }
    message
}

/// One message of each kind, and their ids by kind.
async fn fill(site: &Site) -> BTreeMap<&'static str, SpoolId> {
    let mut open = Open::at(site);
    let mut ids = BTreeMap::new();
    let plain = || envelope("<a@client.example>", &["user@gate.example"]);

    let id = open
        .store(plain(), &message("small", 0), Fate::Deliver)
        .await;
    ids.insert("small", id);
    let id = open
        .store(plain(), &message("large", 1_500_000), Fate::Deliver)
        .await;
    ids.insert("large", id);
    let fate = Fate::Hold("an odd \"one\"".to_owned());
    let id = open.store(plain(), &message("held", 0), fate).await;
    ids.insert("held", id);

    let id = open
        .store(plain(), &message("deferred", 0), Fate::Deliver)
        .await;
    let due = SystemTime::now() + Duration::from_secs(3);
    open.spool.defer(id, due, 2);
    ids.insert("deferred", id);

    let mut partly = envelope(
        "<a@client.example>",
        &[
            "one@gate.example",
            "second@gate.example",
            "two@gate.example",
        ],
    );
    partly.recipients[1].notify = Notify::On {
        success: false,
        failure: true,
        delay: true,
    };
    partly.recipients[1].orcpt = Some("rfc822;x+40gate.example".to_owned());
    partly.ret = Some(Ret::Full);
    partly.envid = Some("QQ".to_owned());
    partly.client = Some("192.0.2.9".parse().expect("an address"));
    let id = open
        .store(partly, &message("partly", 0), Fate::Deliver)
        .await;
    open.spool.mark(id, vec![(0, Mark::Delivered)]);
    open.spool
        .mark(id, vec![(2, Mark::Failed("550 no such user".to_owned()))]);
    ids.insert("partly", id);

    let mut eight_bit = plain();
    eight_bit.body = Body::EightBitMime;
    let id = open
        .store(
            eight_bit,
            b"Subject: 8bit\r\n\r\n\xfc\xe9\r\n.\r\n..dots\r\n",
            Fate::Deliver,
        )
        .await;
    ids.insert("8bit", id);

    let mut utf8 = envelope("<jürgen@client.example>", &["user@gate.example"]);
    utf8.smtputf8 = true;
    let id = open
        .store(utf8, "Subject: utf8 ü\r\n\r\n".as_bytes(), Fate::Deliver)
        .await;
    ids.insert("utf8", id);

    let id = open
        .store(
            envelope("<>", &["user@gate.example"]),
            &message("null", 0),
            Fate::Deliver,
        )
        .await;
    ids.insert("null", id);
    open.spool.close().await;
    ids
}

/// The JSON files of a directory by the subjects of their messages, without their ids, and these messages.
fn exported(directory: &Path) -> BTreeMap<String, (Value, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let file = entry.expect("a file").path();
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        if file.extension().is_some_and(|end| end == "json") {
            let text = fs::read(&file).expect("it can be read");
            let mut value: Value = serde_json::from_slice(&text).expect("JSON");
            value.as_object_mut().expect("an object").remove("id");
            let message = fs::read(file.with_extension("eml")).expect("it is beside");
            let subject = String::from_utf8_lossy(&message[9..])
                .lines()
                .next()
                .expect("a line")
                .to_owned();
            found.insert(subject, (value, message));
        }
    }
    found
}

#[tokio::test]
async fn a_queue_is_moved_to_another_machine_with_all_that_is_known_of_it() {
    let (old, new) = (site(), site());
    let ids = fill(&old).await;
    let before = verify(&old, 0);
    let want = json!({ "messages": 8, "octets": before["queue"]["octets"], "held": 1, "deferred": 1, "partly": 1 });
    assert_eq!(before["queue"], want);
    assert_eq!(before["large"]["files"], 1);

    let folder = TempDir::new().expect("a folder");
    let files = folder.path().join("files");
    let to = files.display().to_string();
    let (status, text) = queue(&old, &["export", "--to", &to, "--remove"]);
    assert_eq!(status, 0, "{text}");
    let moved = exported(&files);
    assert_eq!(moved.len(), 8);
    let (partly, octets) = &moved["partly"];
    assert_eq!(*octets, message("partly", 0));
    let recipients = json!([
        { "address": "one@gate.example", "state": "delivered" },
        { "address": "second@gate.example", "state": "open", "notify": ["failure", "delay"], "orcpt": "rfc822;x+40gate.example" },
        { "address": "two@gate.example", "state": "failed", "reason": "550 no such user" },
    ]);
    assert_eq!(partly["recipients"], recipients);
    assert_eq!(moved["held"].0["held"], "an odd \"one\"");
    assert_eq!(moved["deferred"].0["attempts"], 2);
    assert_eq!(moved["null"].0["from"], "");
    assert_eq!(moved["large"].1, message("large", 1_500_000));
    let after = verify(&old, 0);
    assert_eq!(after["queue"]["messages"], 0);
    assert_eq!(
        fs::read_dir(directory(&old).join("large"))
            .expect("a folder")
            .count(),
        0
    );

    let (status, text) = queue(&new, &["import", &to]);
    assert_eq!(status, 0, "{text}");
    let here = verify(&new, 0);
    for key in ["messages", "held", "deferred", "partly"] {
        assert_eq!(here["queue"][key], before["queue"][key], "{key}");
    }
    let again = folder.path().join("again");
    let (status, text) = queue(&new, &["export", "--to", &again.display().to_string()]);
    assert_eq!(status, 0, "{text}");
    assert_eq!(exported(&again), moved);
    let names = |id: &SpoolId| files.join(format!("{id}.json.imported")).exists();
    assert!(ids.values().all(names));

    let gateway = new.start();
    gateway.process.wait_for_nth("delivered", 7);
    let mut bodies: Vec<_> = gateway.site.mailbox("user").wait_for(6);
    bodies.retain(|body| !body.contains("Subject: large"));
    assert_eq!(bodies.len(), 5);
    assert!(
        gateway
            .site
            .mailbox("second")
            .first()
            .contains("Subject: partly")
    );
    assert_eq!(gateway.site.mailbox("one").messages().len(), 0);
    assert_eq!(verify(&gateway.site, 0)["queue"]["held"], 1);
}

#[tokio::test]
async fn export_copies_what_is_asked_for_and_overwrites_nothing() {
    let site = site();
    let ids = fill(&site).await;
    let folder = TempDir::new().expect("a folder");
    let to = folder.path().display().to_string();
    let id = ids["small"].to_string();
    let unknown = "01JDQ4T9X2K.7";
    let (status, text) = queue(
        &site,
        &["export", "--to", &to, "--id", &id, "--id", unknown],
    );
    assert_eq!(status, 1, "{text}");
    assert!(
        text.contains(&format!("{unknown} was not exported")),
        "{text}"
    );
    assert!(text.contains("1 message exported"), "{text}");
    let eml = folder.path().join(format!("{id}.eml"));
    fs::write(&eml, "mine").expect("written");
    let (status, text) = queue(&site, &["export", "--to", &to, "--remove"]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("is there already"), "{text}");
    assert_eq!(fs::read(&eml).expect("it is there"), b"mine");
    // What was not exported was not removed.
    assert_eq!(verify(&site, 0)["queue"]["messages"], 1);
}

#[tokio::test]
async fn a_queue_is_moved_that_has_more_files_than_a_process_is_given() {
    let site = site();
    let mut open = Open::at(&site);
    for number in 0..30 {
        let envelope = envelope("<a@client.example>", &["user@gate.example"]);
        let message = message(&format!("number {number}"), 1_000_000);
        open.store(envelope, &message, Fate::Deliver).await;
    }
    open.spool.close().await;
    let (to, from) = (site.path("out"), site.path("in"));
    fs::create_dir(&from).expect("a folder");
    let about = json!({ "from": "a@client.example", "recipients": ["user@gate.example"] });
    fs::write(from.join("one.json"), about.to_string()).expect("written");
    fs::write(from.join("one.eml"), message("one", 100)).expect("written");
    let (to, from) = (to.display().to_string(), from.display().to_string());
    for arguments in [&["import", &from][..], &["export", "--remove", "--to", &to]] {
        let asked = queue_command(&site, arguments);
        let mut few = Command::new("sh");
        few.args(["-c", "ulimit -Sn 8 && exec \"$@\"", "sh"]);
        few.arg(asked.get_program()).args(asked.get_args());
        let output = few.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn verify_names_each_damage_and_whom_it_concerns() {
    let sound = site();
    let ids = fill(&sound).await;
    let spool = directory(&sound);
    let file = spool.join("segments/0000000001");
    let bytes = fs::read(&file).expect("a segment");
    let find = |what: &[u8]| {
        bytes
            .windows(what.len())
            .position(|found| found == what)
            .expect("it is there")
    };
    let small = find(b"Subject: small");
    let meta = find(b"user@gate.example");
    let heads = [small, meta]
        .map(|at| at / 8 * 8)
        .into_iter()
        .min()
        .expect("two");
    let frame = (8192..=heads)
        .rev()
        .find(|at| bytes[*at..].starts_with(b"GPrc"))
        .expect("a frame");
    let id = ids["small"].to_string();
    let lost = format!("message {id} is lost");
    for (what, places, want) in [
        ("one copy of the head", vec![3], None),
        ("the head", vec![3, 4096 + 3], Some("head cannot be read")),
        ("a frame's magic", vec![frame], Some("cannot be told")),
        ("a frame's length", vec![frame + 40], Some(lost.as_str())),
        ("a meta", vec![meta], Some(lost.as_str())),
        ("a body", vec![small], Some(lost.as_str())),
    ] {
        let mut broken = bytes.clone();
        for place in places {
            broken[place] ^= 1;
        }
        fs::write(&file, broken).expect("written");
        let (status, text) = queue(&sound, &["verify"]);
        assert_eq!(status, i32::from(want.is_some()), "{what}: {text}");
        let want = want.unwrap_or("sound");
        assert!(text.contains(want), "{what}: {text}");
    }
    fs::write(&file, &bytes).expect("written");

    let large = spool.join("large").join(ids["large"].to_string());
    let octets = fs::read(&large).expect("a large message");
    let mut changed = octets.clone();
    changed[1_000_000] ^= 1;
    for (content, want) in [
        (
            Some(&changed[..]),
            "the file's content is not as it was written",
        ),
        (Some(&octets[1..]), "octets and was written with"),
        (None, "the file is missing"),
    ] {
        match content {
            Some(content) => fs::write(&large, content).expect("written"),
            None => fs::remove_file(&large).expect("removed"),
        }
        let answer = verify(&sound, 1);
        let finding = &answer["findings"][0];
        assert_eq!(finding["ids"], json!([ids["large"].to_string()]));
        assert!(
            finding["message"].as_str().expect("a text").contains(want),
            "{finding}"
        );
    }
    fs::write(&large, &octets).expect("written");
    let nobodys = fs::File::create(spool.join("large/01JDQ4T9X2K.7")).expect("a new file");
    nobodys
        .set_modified(SystemTime::now() - Duration::from_secs(3600))
        .expect("it can be set");
    let (status, text) = queue(&sound, &["verify"]);
    assert_eq!(status, 0, "{text}");
    assert!(
        text.contains("no message of the queue names this file"),
        "{text}"
    );
}

#[test]
fn verify_finds_nothing_wrong_beside_a_gateway_under_load() {
    let site = Site::new().with("[spool]\nsegment_size = \"8MiB\"\nlarge_message = \"64KiB\"");
    let gateway = site.start();
    let address = gateway.smtp();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for sender in 0..4 {
            let stop = &stop;
            scope.spawn(move || {
                let mut client = Client::hello(address);
                let filler = "0123456789abcdef0123456789abcdef\r\n".repeat(if sender == 0 {
                    3000
                } else {
                    600
                });
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let text = mail("a@client.example", "load") + &filler;
                    let reply = client.deliver("a@client.example", "user@gate.example", &text);
                    assert!(reply.starts_with("250"), "{reply}");
                }
            });
        }
        let checked = std::panic::catch_unwind(|| {
            for _ in 0..8 {
                let answer = verify(&gateway.site, 0);
                assert_eq!(answer["findings"], json!([]), "{answer}");
            }
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        checked.expect("nothing is wrong");
    });
}

#[test]
fn what_moves_messages_says_that_the_gateway_runs() {
    let gateway = site().start();
    let folder = TempDir::new().expect("a folder");
    let to = folder.path().display().to_string();
    for arguments in [&["export", "--to", &to][..], &["import", &to]] {
        let (status, text) = queue(&gateway.site, arguments);
        assert_eq!(status, 69, "{text}");
        let want = format!("the gateway is running (process {})", gateway.process.pid());
        assert!(text.contains(&want), "{text}");
    }
}

#[test]
fn where_there_is_nothing_to_look_at_it_is_said() {
    let site = site();
    let (status, text) = queue(&site, &["verify"]);
    assert_eq!(status, 66, "{text}");
    assert!(text.contains("there is no spool"), "{text}");
    let (status, text) = queue(&site, &["import", "/nowhere"]);
    assert_eq!(status, 66, "{text}");
    let config = site.path("gatepost.toml");
    fs::write(&config, "hostname = 3\n").expect("written");
    let config = config.display().to_string();
    let (succeeded, text) = attempt(&mut gatepost(&["queue", "verify", "--config", &config]));
    assert!(
        !succeeded && text.contains("gatepost.toml:1: hostname"),
        "{text}"
    );
}

#[test]
fn a_message_and_two_lines_of_json_are_enough_and_bad_files_stay_as_they_are() {
    let site = site();
    let folder = TempDir::new().expect("a folder");
    let write =
        |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    let good = r#"{ "from": "a@client.example", "recipients": ["user@gate.example"] }"#;
    write("good.json", good);
    write("good.eml", &mail("a@client.example", "by hand"));
    write(
        "slip.json",
        r#"{ "from": "a@client.example", "recipient": ["user@gate.example"] }"#,
    );
    write("slip.eml", "Subject: x\r\n\r\n");
    write("lf.json", good);
    write("lf.eml", "Subject: x\n\n");
    write("alone.json", good);
    write("nobody.eml", "Subject: x\r\n\r\n");
    let from = folder.path().display().to_string();
    let (status, text) = queue(&site, &["import", &from]);
    assert_eq!(status, 1, "{text}");
    for want in [
        "slip was not imported: unknown field `recipient`",
        "lf was not imported: line 1 of the message does not end in CRLF",
        "alone was not imported: alone.eml cannot be read",
        "nobody was not imported: nobody.eml has no nobody.json beside it",
        "1 message imported",
    ] {
        assert!(text.contains(want), "{want} is not in:\n{text}");
    }
    let names = || -> Vec<String> {
        let entries = fs::read_dir(folder.path()).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|entry| {
                entry
                    .expect("a file")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        names.sort();
        names
    };
    let left = [
        "alone.json",
        "good.eml",
        "good.json.imported",
        "lf.eml",
        "lf.json",
        "nobody.eml",
        "slip.eml",
        "slip.json",
    ];
    assert_eq!(names(), left);
    let (status, text) = queue(&site, &["import", &from]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("0 messages imported"), "{text}");
    assert_eq!(names(), left);
    let gateway = site.start();
    assert!(
        gateway
            .site
            .mailbox("user")
            .first()
            .contains("Subject: by hand")
    );
}

#[test]
fn a_copy_of_what_is_still_in_the_queue_is_not_taken_in_beside_it() {
    let site = site();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(fill(&site));
    let folder = TempDir::new().expect("a folder");
    let to = folder.path().display().to_string();
    assert_eq!(queue(&site, &["export", "--to", &to]).0, 0);
    let (status, text) = queue(&site, &["import", &to]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("is in this queue already"), "{text}");
    assert_eq!(verify(&site, 0)["queue"]["messages"], 8);
}

#[test]
fn an_import_that_is_killed_again_and_again_stores_each_message_once() {
    const MESSAGES: usize = 400;
    let site = site();
    let folder = TempDir::new().expect("a folder");
    for number in 0..MESSAGES {
        let name = |end: &str| folder.path().join(format!("{number:03}.{end}"));
        let json = r#"{ "from": "", "recipients": ["user@gate.example"] }"#;
        fs::write(name("json"), json).expect("written");
        fs::write(name("eml"), message(&format!("m{number}"), 20_000)).expect("written");
    }
    let from = folder.path().display().to_string();
    let imported = || {
        let entries = fs::read_dir(folder.path()).expect("a folder");
        let names = entries.map(|entry| entry.expect("a file").file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with(".imported"))
            .count()
    };
    let mut kills = 0;
    while imported() < MESSAGES {
        let before = imported();
        let mut command = queue_command(&site, &["import", &from]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let deadline = Instant::now() + SOON;
        let mut ended = None;
        while ended.is_none() && imported() <= before + 20 {
            assert!(Instant::now() < deadline, "nothing more is imported");
            thread::sleep(Duration::from_millis(1));
            ended = child.try_wait().expect("it is ours");
        }
        if ended.is_none() {
            kills += 1;
            child.kill().expect("it is ours");
        }
        child.wait().expect("it is ours");
    }
    assert!(kills > 0);
    let (status, text) = queue(&site, &["import", &from]);
    assert_eq!(status, 0, "{text}");
    assert!(!folder.path().join("import.unfinished").exists());
    assert_eq!(verify(&site, 0)["queue"]["messages"], MESSAGES);
}

#[test]
fn an_import_that_was_cut_off_too_long_ago_is_asked_about() {
    let site = site();
    let folder = TempDir::new().expect("a folder");
    let write =
        |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write(
        "one.json",
        r#"{ "from": "", "recipients": ["user@gate.example"] }"#,
    );
    write("one.eml", "Subject: x\r\n\r\n");
    let plan = json!({ "segment": 1, "salt": 7, "first": "01JDQ4T9X2K.1", "names": ["one"] });
    write("import.unfinished", &plan.to_string());
    let from = folder.path().display().to_string();
    let (status, text) = queue(&site, &["import", &from]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("it may be delivered already"), "{text}");
    fs::remove_file(folder.path().join("import.unfinished")).expect("it is there");
    let (status, text) = queue(&site, &["import", &from]);
    assert_eq!(status, 0, "{text}");
}
