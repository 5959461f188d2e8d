//! Deliveries to the real Dovecot (LMTP by unix socket and TCP) and to Postfix's smtp-sink.
//!
//! A missing peer is a loud skip, and a failure where `REQUIRE_PEERS=1`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use gatepost::delivery::Answer;
use gatepost::delivery::Config;
use gatepost::delivery::Delivery;
use gatepost::delivery::Outcome;
use gatepost::delivery::Target;
use gatepost::dns;
use gatepost::dns::Dns;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Body;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;
use tempfile::TempDir;

const ID: SpoolId = SpoolId {
    session: SessionId(1),
    serial: 1,
};

const MESSAGE: &[u8] = b"Return-Path: <forged@x.example>\r\nReceived: from here\r\n\
Subject: dots\r\n\r\n.first line\r\n..two\r\n.\r\nlast: \xc3\xb6\r\n";

fn delivery() -> Delivery {
    let hostname = Domain::parse("mx.example").unwrap();
    let dns = Dns::new(&dns::Config::default()).unwrap();
    Delivery::new(&Config::default(), hostname, dns).unwrap()
}

fn envelope(to: &[&str]) -> Envelope {
    let recipient = |text: &&str| Recipient::new(Address::parse(text).unwrap());
    Envelope {
        from: ReversePath::parse("<sender@x.example>").unwrap(),
        recipients: to.iter().map(recipient).collect(),
        body: Body::EightBitMime,
        smtputf8: false,
        ret: None,
        envid: None,
        client: None,
    }
}

fn content() -> Content {
    // In two chunks, as the pipeline makes it.
    let prefix = Bytes::from_static(b"X-First: ours\r\n");
    Content::assemble(prefix, &Bytes::from_static(MESSAGE), &[])
}

async fn attempt(delivery: &Delivery, target: &Target, to: &[&str]) -> Vec<Outcome> {
    let envelope = envelope(to);
    let which: Vec<usize> = (0..to.len()).collect();
    delivery
        .attempt(target, ID, &envelope, &which, &content())
        .await
}

/// The program's path, or None after a loud skip.
fn installed(program: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists());
    if found.is_none() {
        assert!(
            std::env::var_os("REQUIRE_PEERS").is_none(),
            "{program} is not installed and REQUIRE_PEERS is set"
        );
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Asked first, so that a master takes its children along.
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Dovecot {
    folder: TempDir,
    program: PathBuf,
    port: u16,
    running: Option<Running>,
}

impl Dovecot {
    fn start() -> Option<Dovecot> {
        let program = installed("dovecot")?;
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut dovecot = Dovecot {
            folder,
            program,
            port,
            running: None,
        };
        dovecot.configure();
        dovecot.run();
        Some(dovecot)
    }

    fn configure(&self) {
        let root = self.folder.path();
        // Dovecot's processes drop to other users and have to come through.
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(root.join("mail")).unwrap();
        if is_root() {
            let mut chown = Command::new("chown");
            let status = chown.arg("nobody:nogroup").arg(root.join("mail")).status();
            assert!(status.unwrap().success());
        }
        let users = "joe@y.example:::::::\nsue@y.example:::::::\n\
                     full@y.example:::::::userdb_quota_rule=*:storage=1B\n";
        fs::write(root.join("users"), users).unwrap();
        let config = format!(
            "base_dir = {root}/run\nstate_dir = {root}/state\nlog_path = {root}/log\n\
             protocols = lmtp\nssl = no\ndefault_internal_user = dovecot\n\
             first_valid_uid = 1\nmail_location = maildir:~/Maildir\n\
             mail_plugins = quota\n\
             passdb {{\n driver = passwd-file\n args = {root}/users\n}}\n\
             userdb {{\n driver = passwd-file\n args = {root}/users\n\
             override_fields = uid=nobody gid=nogroup home={root}/mail/%u\n}}\n\
             plugin {{\n quota = count:User quota\n quota_vsizes = yes\n}}\n\
             service lmtp {{\n unix_listener lmtp {{\n mode = 0666\n }}\n\
             inet_listener lmtp {{\n address = 127.0.0.1\n port = {port}\n }}\n}}\n",
            root = root.display(),
            port = self.port,
        );
        fs::write(root.join("dovecot.conf"), config).unwrap();
    }

    fn run(&mut self) {
        let child = Command::new(&self.program)
            .arg("-F")
            .arg("-c")
            .arg(self.folder.path().join("dovecot.conf"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.running = Some(Running(child));
        let (socket, port) = (self.folder.path().join("run/lmtp"), self.port);
        wait_for("dovecot", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
                && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    fn unix(&self) -> Target {
        let path = self.folder.path().join("run/lmtp");
        Target::parse(&format!("lmtp:unix:{}", path.display())).unwrap()
    }

    fn tcp(&self) -> Target {
        Target::parse(&format!("lmtp:localhost:{}", self.port)).unwrap()
    }

    /// The messages of a user, each as Dovecot wrote it.
    fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        let new = self
            .folder
            .path()
            .join("mail")
            .join(user)
            .join("Maildir/new");
        let Ok(entries) = fs::read_dir(new) else {
            return Vec::new();
        };
        entries
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect()
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

/// A Postfix smtp-sink on a free port.
fn sink(arguments: &[&str]) -> Option<(Running, u16)> {
    let program = installed("smtp-sink")?;
    let port = free_port();
    // As root it insists on becoming someone else.
    let user: &[&str] = if is_root() { &["-u", "nobody"] } else { &[] };
    let child = Command::new(program)
        .args(user)
        .args(arguments)
        .arg(format!("127.0.0.1:{port}"))
        .arg("100")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    wait_for("smtp-sink", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Some((running, port))
}

/// A Postfix of our own, with STARTTLS, whose mail goes nowhere.
struct Postfix {
    folder: TempDir,
    program: PathBuf,
    port: u16,
}

impl Postfix {
    fn start() -> Option<Postfix> {
        let program = installed("postfix")?;
        if !is_root() {
            eprintln!("SKIPPED: postfix can be started by root only");
            return None;
        }
        let postfix = Postfix {
            folder: tempfile::tempdir().unwrap(),
            program,
            port: free_port(),
        };
        postfix.configure();
        assert!(postfix.tell("start"), "postfix does not start");
        let port = postfix.port;
        wait_for("postfix", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(postfix)
    }

    fn configure(&self) {
        let root = self.folder.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["conf", "queue", "data"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        let mut chown = Command::new("chown");
        let status = chown.arg("postfix").arg(root.join("data")).status();
        assert!(status.unwrap().success());
        let made = rcgen::generate_simple_self_signed(["pf.example".to_owned()]).unwrap();
        let pem = made.signing_key.serialize_pem() + &made.cert.pem();
        fs::write(root.join("conf/tls.pem"), pem).unwrap();
        fs::set_permissions(root.join("conf/tls.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(root.join("conf/recipients"), "joe@y.example x\n").unwrap();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {root}/queue\n\
             data_directory = {root}/data\ncommand_directory = /usr/sbin\n\
             daemon_directory = /usr/lib/postfix/sbin\nmyhostname = pf.example\n\
             mydestination = y.example\ninet_interfaces = 127.0.0.1\n\
             local_recipient_maps = texthash:{root}/conf/recipients\n\
             local_transport = discard:\ndefault_transport = error:nowhere\n\
             smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {root}/conf/tls.pem\n\
             smtpd_recipient_restrictions = reject_unlisted_recipient, permit_mynetworks, reject\n\
             maillog_file = {root}/log\nmaillog_file_prefixes = {root}\n",
            root = root.display(),
        );
        fs::write(root.join("conf/main.cf"), main).unwrap();
        let mut master = format!("127.0.0.1:{} inet n - n - - smtpd\n", self.port);
        // Private, name, how many at once, program.
        for service in [
            "n cleanup 0 cleanup",
            "y rewrite - trivial-rewrite",
            "y bounce 0 bounce",
            "y defer 0 bounce",
            "y discard - discard",
            "y error - error",
            "y anvil 1 anvil",
            "y tlsmgr 1 tlsmgr",
            "y proxymap - proxymap",
        ] {
            let [private, name, limit, program] = service.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{service}");
            };
            master.push_str(&format!("{name} unix {private} - n - {limit} {program}\n"));
        }
        master.push_str("qmgr unix n - n 300 1 qmgr\npostlog unix-dgram n - n - 1 postlogd\n");
        fs::write(root.join("conf/master.cf"), master).unwrap();
    }

    fn tell(&self, word: &str) -> bool {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.path().join("conf"));
        // No pipes: the daemon would keep them open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.arg(word).status().unwrap().success()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.tell("stop");
    }
}

fn is_delivered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Delivered { .. })
}

#[tokio::test]
async fn dovecot_gets_the_message_byte_for_byte_by_unix_socket_and_tcp() {
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    let delivery = delivery();
    for (target, user) in [
        (dovecot.unix(), "joe@y.example"),
        (dovecot.tcp(), "sue@y.example"),
    ] {
        let outcomes = attempt(&delivery, &target, &[user]).await;
        assert!(is_delivered(&outcomes[0]), "{target}: {outcomes:?}");
        let mailbox = dovecot.mailbox(user);
        assert_eq!(mailbox.len(), 1);
        let text = String::from_utf8(mailbox[0].clone()).unwrap();
        let (trace, ours) = text.split_once("X-First: ours\n").expect("our first line");
        let sent = String::from_utf8(MESSAGE.to_vec()).unwrap();
        let sent = sent.replace("\r\n", "\n");
        let want = sent
            .strip_prefix("Return-Path: <forged@x.example>\n")
            .unwrap();
        assert_eq!(ours, want);
        let return_paths = text.matches("Return-Path:").count();
        assert_eq!(return_paths, 1, "{text}");
        assert!(
            trace.contains("Return-Path: <sender@x.example>\n"),
            "{trace}"
        );
    }
}

#[tokio::test]
async fn each_recipient_of_dovecot_has_its_own_outcome() {
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    let delivery = delivery();
    let to = [
        "joe@y.example",
        "nobody@y.example",
        "full@y.example",
        "sue@y.example",
    ];
    for target in [dovecot.unix(), dovecot.tcp()] {
        let outcomes = attempt(&delivery, &target, &to).await;
        assert!(is_delivered(&outcomes[0]), "{outcomes:?}");
        assert!(
            matches!(&outcomes[1], Outcome::Failed { reason } if reason.enhanced == Some((5, 1, 1))),
            "{outcomes:?}"
        );
        let full = match &outcomes[2] {
            Outcome::Failed { reason } | Outcome::Deferred { reason, .. } => reason.enhanced,
            Outcome::Delivered { .. } => None,
        };
        assert_eq!(
            full.map(|code| (code.1, code.2)),
            Some((2, 2)),
            "{outcomes:?}"
        );
        assert!(is_delivered(&outcomes[3]), "{outcomes:?}");
    }
    // All refused, then again over the same connection.
    let outcomes = attempt(&delivery, &dovecot.unix(), &["nobody@y.example"]).await;
    assert!(
        matches!(&outcomes[0], Outcome::Failed { .. }),
        "{outcomes:?}"
    );
    let outcomes = attempt(&delivery, &dovecot.unix(), &["joe@y.example"]).await;
    assert!(is_delivered(&outcomes[0]), "{outcomes:?}");
}

#[tokio::test]
async fn dovecot_is_asked_who_exists() {
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    let delivery = delivery();
    let target = dovecot.tcp();
    let recipient = |text| Recipient::new(Address::parse(text).unwrap());
    for _ in 0..2 {
        let joe = delivery.probe(&target, &recipient("joe@y.example")).await;
        assert_eq!(joe, Answer::Exists);
        let nobody = delivery
            .probe(&target, &recipient("nobody@y.example"))
            .await;
        assert!(matches!(nobody, Answer::Unknown(_)), "{nobody:?}");
    }
    assert_eq!(dovecot.mailbox("joe@y.example").len(), 0);
}

#[tokio::test]
async fn dovecot_killed_and_back_gets_each_message_once() {
    let Some(mut dovecot) = Dovecot::start() else {
        return;
    };
    let delivery = delivery();
    let target = dovecot.tcp();
    let to = ["joe@y.example"];
    assert!(is_delivered(&attempt(&delivery, &target, &to).await[0]));
    dovecot.running = None;
    let outcomes = attempt(&delivery, &target, &to).await;
    assert!(
        matches!(&outcomes[0], Outcome::Deferred { .. }),
        "{outcomes:?}"
    );
    dovecot.run();
    let outcomes = attempt(&delivery, &target, &to).await;
    assert!(is_delivered(&outcomes[0]), "{outcomes:?}");
    assert_eq!(dovecot.mailbox("joe@y.example").len(), 2);
}

#[tokio::test]
async fn smtp_sink_takes_many_messages_over_one_connection() {
    for (arguments, scheme) in [
        (&["-8"] as &[&str], "smtp"),
        (&[], "smtp"),
        (&["-p"], "smtp"),
        (&["-L"], "lmtp"),
        (&["-L", "-p"], "lmtp"),
    ] {
        let Some((_running, port)) = sink(arguments) else {
            return;
        };
        let target = Target::parse(&format!("{scheme}:127.0.0.1:{port}")).unwrap();
        let delivery = delivery();
        for _ in 0..50 {
            let to = ["a@y.example", "b@y.example"];
            let outcomes = attempt(&delivery, &target, &to).await;
            let no_eight_bit = arguments.contains(&"-8");
            for outcome in &outcomes {
                match outcome {
                    Outcome::Failed { reason } if no_eight_bit => {
                        assert_eq!(reason.enhanced, Some((5, 6, 3)));
                    }
                    outcome => assert!(is_delivered(outcome), "{arguments:?}: {outcome:?}"),
                }
            }
            assert_eq!(outcomes.len(), 2);
        }
        delivery.close().await;
    }
}

#[tokio::test]
async fn refusals_of_smtp_sink_defer_or_fail() {
    for (arguments, permanent) in [(["-r", "rcpt"], false), (["-f", "rcpt"], true)] {
        let Some((_running, port)) = sink(&arguments) else {
            return;
        };
        let target = Target::parse(&format!("smtp:127.0.0.1:{port}")).unwrap();
        let delivery = delivery();
        for _ in 0..3 {
            let outcomes = attempt(&delivery, &target, &["a@y.example"]).await;
            let failed = matches!(&outcomes[0], Outcome::Failed { .. });
            assert!(!is_delivered(&outcomes[0]));
            assert_eq!(failed, permanent, "{arguments:?}: {outcomes:?}");
        }
    }
}

#[tokio::test]
async fn postfix_takes_all_over_one_tls_connection() {
    let Some(postfix) = Postfix::start() else {
        return;
    };
    let delivery = delivery();
    let target = Target::parse(&format!("smtp:127.0.0.1:{}", postfix.port)).unwrap();
    let (joe, no) = ("joe@y.example", "no@y.example");
    for to in [&[joe] as &[&str], &[no], &[no, joe], &[no, no], &[joe]] {
        let outcomes = attempt(&delivery, &target, to).await;
        for (recipient, outcome) in to.iter().zip(&outcomes) {
            assert_eq!(
                is_delivered(outcome),
                *recipient == joe,
                "{to:?}: {outcomes:?}"
            );
            let failed = matches!(outcome, Outcome::Failed { .. });
            assert_eq!(failed, *recipient == no, "{to:?}: {outcomes:?}");
        }
    }
    let recipient = |text| Recipient::new(Address::parse(text).unwrap());
    let exists = delivery.probe(&target, &recipient(joe)).await;
    assert_eq!(exists, Answer::Exists);
    let unknown = delivery.probe(&target, &recipient(no)).await;
    assert!(matches!(unknown, Answer::Unknown(_)), "{unknown:?}");
    delivery.close().await;
    wait_for("the log", || postfix.log().contains("quit=1"));
    let log = postfix.log();
    assert!(log.contains("ehlo=2 starttls=1 mail=7 rcpt=4/9"), "{log}");
}
