//! Others on our signatures and keys: dkimpy and OpenDKIM verify what we sign, the tools of OpenDKIM and
//! ours take each other's keys, and BIND reads what we print for its zones.
//!
//! OpenDKIM verifies in the test mode of its daemon: `opendkim-testmsg` of Debian 12 answers a syntax
//! error to every message. Its `opendkim-testkey` cannot read Ed25519 keys.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::content::Content;
use gatepost::sign;
use gatepost::sign::Algorithm;
use gatepost::sign::Canonicalization;
use gatepost::sign::Domains;
use gatepost::sign::Identity;
use gatepost::sign::KeyName;
use gatepost::sign::Signer;
use gatepost::sign::Signing;
use gatepost::verify;
use gatepost::verify::DkimResult;
use gatepost::verify::Verifier;
use tempfile::TempDir;

use crate::support::dns::Nameserver;
use crate::support::gateway::gatepost;
use crate::support::process::attempt;
use crate::support::process::command;
use crate::support::process::present;
use crate::support::process::run;

/// Where keys of gate.example are kept, and published.
struct Keys {
    folder: TempDir,
    dns: Nameserver,
}

impl Keys {
    fn new() -> Keys {
        Keys {
            folder: TempDir::new().expect("a temporary folder"),
            dns: Nameserver::start(),
        }
    }

    fn make(&self, selector: &str, algorithm: Algorithm) -> &Keys {
        let name = key_name(selector);
        let path = sign::default_path(self.folder.path(), &name);
        let pem = sign::make(algorithm, 2048).expect("a key");
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, pem).expect("written");
        run(Command::new("chmod").arg("600").arg(&path));
        let signer = Signer::from_file(&path, &name).expect("a key");
        self.dns.txt(signer.dns_name(), &signer.dns_record());
        self
    }

    fn signing(&self, config: &sign::Config) -> Signing {
        let ours = Domains::from([(Domain::parse("gate.example").expect("a name"), None)]);
        Signing::open(config, &ours, self.folder.path()).expect("good keys")
    }

    /// The file for a tool of OpenDKIM that makes it ask our server.
    fn opendkim(&self) -> String {
        let path = self.folder.path().join("opendkim.conf");
        let (ip, port) = (self.dns.address.ip(), self.dns.address.port());
        let text = format!("Mode v\nSyslog no\nNameservers {ip}@{port}\nInternalHosts 192.0.2.1\n");
        fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    /// The file that makes us ask our server.
    fn gatepost(&self, sections: &str) -> String {
        let path = self.folder.path().join("gatepost.toml");
        let text = format!(
            "hostname = 'mx.gate.example'\ndata_dir = {:?}\n[dns]\nservers = ['{}']\n\
             [domains.'gate.example']\n{sections}\n",
            self.folder.path(),
            self.dns.address
        );
        fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

fn key_name(selector: &str) -> KeyName {
    KeyName::try_from(format!("gate.example/{selector}")).expect("a name")
}

/// What a signature may be broken by: a name and a message.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let head = "From: Ann <a@gate.example>\r\nTo: b@far.example\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n\
                Message-ID: <1@gate.example>\r\n";
    let with = |fields: &str, body: &str| format!("{head}{fields}\r\n{body}").into_bytes();
    let long = format!("{}\r\n{} \r\n", "x".repeat(990), "y z ".repeat(4000));
    vec![
        ("plain", with("Subject: x\r\n", "Hello.\r\n")),
        (
            "folded",
            with(
                "Subject: one\r\n two\r\n\t three  four \r\nReferences: <1@a.example>\r\n <2@a.example>\r\n",
                "Hello.\r\n",
            ),
        ),
        (
            "8-bit",
            [
                with(
                    "Subject: B\u{fc}cher \u{2013} x\r\nMIME-Version: 1.0\r\n",
                    "",
                )
                .as_slice(),
                b"Gr\xfc\xdfe \xff\xfe\r\nz\xc3\xbc\r\n",
            ]
            .concat(),
        ),
        ("long lines", with("Subject: x\r\n", &long)),
        ("empty body", with("Subject: x\r\n", "")),
        ("empty lines", with("Subject: x\r\n", "\r\n\r\n\r\n")),
        ("no end of line", with("Subject: x\r\n", "one\r\n\r\ntwo")),
        (
            "repeated fields",
            with(
                "Subject: x\r\nReceived: a\r\nSubject: y\r\nCc: c@far.example\r\nCc: d@far.example\r\n",
                "z\r\n",
            ),
        ),
        (
            "white space",
            with(
                "Subject:  x \t y  \r\nKeywords:\r\nReply-To:\r\n",
                " a \t b \r\n\r\n \r\n\t\r\n",
            ),
        ),
        ("blank body", with("Subject: x\r\n", " \t\r\n \r\n")),
        (
            "mailing list",
            with(
                "Subject: x\r\nList-Id: <l.gate.example>\r\nSender: l@gate.example\r\nResent-From: r@gate.example\r\n",
                "z\r\n",
            ),
        ),
    ]
}

const FORMS: [Canonicalization; 4] = [
    Canonicalization::RelaxedRelaxed,
    Canonicalization::RelaxedSimple,
    Canonicalization::SimpleRelaxed,
    Canonicalization::SimpleSimple,
];

/// Writes each message, signed in each form, as a file of its own; the paths.
fn sign_all(keys: &Keys) -> Vec<String> {
    let author = Address::parse("a@gate.example").expect("an address");
    let mut files = Vec::new();
    for form in FORMS {
        let config = sign::Config {
            canonicalization: form,
            identity: Identity::Author,
            expire: Some(Duration::from_secs(7 * 86_400)),
            ..sign::Config::default()
        };
        let signing = keys.signing(&config);
        for (name, message) in messages() {
            let content = Content::from(Bytes::from(message.clone()));
            let fields = signing.fields(&author, &content, SystemTime::now());
            let fields = fields.expect("it can be signed").expect("there is a key");
            let name = format!("{name}-{form:?}.eml").replace(' ', "-");
            let path = keys.folder.path().join(name);
            fs::write(&path, [fields.as_bytes(), &message].concat()).expect("written");
            files.push(path.display().to_string());
        }
    }
    files
}

#[tokio::test]
async fn we_verify_what_we_sign_and_nothing_can_be_added() {
    let keys = Keys::new();
    keys.make("r", Algorithm::Rsa).make("e", Algorithm::Ed25519);
    let hostname = Domain::parse("mx.far.example").expect("a name");
    let verifier = Verifier::new(keys.dns.dns(), &hostname, &verify::Config::default());
    for file in sign_all(&keys) {
        let message = fs::read(&file).expect("it is there");
        let results: Vec<_> = verifier.message(&message, &[]).await.dkim;
        assert_eq!(results.len(), 2, "{file}");
        for signature in results {
            assert_eq!(signature.result, DkimResult::Pass, "{file}: {signature:?}");
        }
        for added in [
            "From: b@gate.example",
            "Subject: z",
            "Reply-To: z@far.example",
            "Content-Type: text/html",
        ] {
            let message = [added.as_bytes(), b"\r\n", &message].concat();
            for signature in verifier.message(&message, &[]).await.dkim {
                assert_eq!(signature.result, DkimResult::Fail, "{file}: {added}");
            }
        }
    }
}

#[test]
fn dkimpy_verifies_rsa_and_ed25519_in_every_form() {
    if !Path::new("/usr/lib/python3/dist-packages/dkim").is_dir() {
        present(&["python3-dkim"]);
        return;
    }
    let keys = Keys::new();
    keys.make("r", Algorithm::Rsa).make("e", Algorithm::Ed25519);
    let code = "
import dkim, sys
keys = dict(pair.split('=', 1) for pair in sys.argv[1].split('|'))
for path in sys.argv[2:]:
    text = open(path, 'rb').read()
    for index in range(2):
        found = dkim.DKIM(text)
        answer = found.verify(index, dnsfunc=lambda name, timeout=5: keys[name.decode()].encode())
        domain = (found.domain, found.selector)
        print(path, index, answer, domain)
";
    let record = |selector: &str| {
        let name = key_name(selector);
        let path = sign::default_path(keys.folder.path(), &name);
        let signer = Signer::from_file(&path, &name).expect("a key");
        format!("{}.={}", signer.dns_name(), signer.dns_record())
    };
    let records = [record("e"), record("r")].join("|");
    let files = sign_all(&keys);
    let mut python = Command::new("/usr/bin/python3");
    let said = run(python.args(["-c", code, &records]).args(&files));
    let right = said.lines().filter(|line| line.contains(" True ")).count();
    let wrong: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains(" True "))
        .collect();
    assert_eq!(wrong, [""; 0]);
    assert_eq!(right, files.len() * 2);
}

#[test]
fn opendkim_verifies_rsa_and_ed25519_in_every_form() {
    if !present(&["opendkim"]) {
        return;
    }
    for algorithm in [Algorithm::Rsa, Algorithm::Ed25519] {
        let keys = Keys::new();
        keys.make("s1", algorithm);
        let mut files = sign_all(&keys);
        // It hands values on without the white space at their start, which simple keeps.
        files.retain(|file| !file.contains("white-space-Simple"));
        for file in &files {
            let mut message = fs::read(file).expect("it is there");
            if !message.ends_with(b"\r\n") {
                // As the server in front of it would.
                message.extend(b"\r\n");
                fs::write(file, message).expect("written");
            }
        }
        let mut opendkim = command("opendkim");
        opendkim.args(["-f", "-x", &keys.opendkim(), "-t", &files.join(",")]);
        let said = run(&mut opendkim);
        for file in files {
            let passed = format!("{file}: verification (s=s1, d=gate.example");
            let line = said.lines().find(|line| line.contains(&passed));
            let line = line.unwrap_or_else(|| panic!("{file}\n{said}"));
            assert!(line.ends_with("succeeded"), "{line}");
        }
    }
}

#[test]
fn the_tools_of_opendkim_and_ours_take_each_others_keys() {
    if !present(&["opendkim-genkey", "opendkim-testkey"]) {
        return;
    }
    let keys = Keys::new();
    keys.make("ours", Algorithm::Rsa);
    let ours = sign::default_path(keys.folder.path(), &key_name("ours"));
    let testkey = |selector: &str, path: &Path| {
        let mut tool = command("opendkim-testkey");
        tool.args([
            "-vvv",
            "-d",
            "gate.example",
            "-s",
            selector,
            "-x",
            &keys.opendkim(),
        ]);
        attempt(tool.arg("-k").arg(path))
    };
    let (good, said) = testkey("ours", &ours);
    assert!(good && said.contains("key OK"), "{said}");

    let theirs = |selector: &str, bits: &str| {
        let mut tool = command("opendkim-genkey");
        let folder = keys.folder.path().display().to_string();
        run(tool.args([
            "-D",
            &folder,
            "-d",
            "gate.example",
            "-s",
            selector,
            "-b",
            bits,
        ]));
        let zone = fs::read_to_string(keys.folder.path().join(format!("{selector}.txt")));
        let zone = zone.expect("it was made");
        let strings: String = zone.split('"').skip(1).step_by(2).collect();
        keys.dns
            .txt(&format!("{selector}._domainkey.gate.example"), &strings);
        keys.folder.path().join(format!("{selector}.private"))
    };
    let path = theirs("theirs", "2048");
    let config = keys.gatepost(&format!(
        "dkim = [{{ selector = 'theirs', key = {path:?} }}]"
    ));
    let said = run(&mut gatepost(&[
        "dkim",
        "testkey",
        "gate.example",
        "--config",
        &config,
    ]));
    assert_eq!(said, "theirs._domainkey.gate.example: key OK\n");
    let (good, said) = testkey("theirs", &path);
    assert!(good, "{said}");
    // Both see that a key is not the published one.
    assert!(!testkey("theirs", &ours).0);

    let path = theirs("short", "1024");
    let config = keys.gatepost(&format!(
        "dkim = [{{ selector = 'short', key = {path:?} }}]"
    ));
    let (good, said) = attempt(&mut gatepost(&["check", "--config", &config]));
    assert!(
        !good && said.contains("RSA keys need 2048 bits or more"),
        "{said}"
    );
}

#[test]
fn bind_reads_what_we_print_for_its_zones() {
    if !present(&["named-checkzone"]) {
        return;
    }
    let keys = Keys::new();
    keys.make("r", Algorithm::Rsa).make("e", Algorithm::Ed25519);
    let config = keys.gatepost("");
    let printed = run(&mut gatepost(&["dns", "gate.example", "--config", &config]));
    let zone = format!(
        "$TTL 60\n@ SOA ns hostmaster 1 60 60 60 1\n@ NS ns\nns A 192.0.2.1\nmx A 192.0.2.1\n{printed}"
    );
    let file = keys.folder.path().join("zone");
    fs::write(&file, zone).expect("written");
    let mut check = command("named-checkzone");
    let said = run(check.args(["-D", "gate.example"]).arg(&file));
    for selector in ["r", "e"] {
        let name = key_name(selector);
        let path = sign::default_path(keys.folder.path(), &name);
        let record = Signer::from_file(&path, &name).expect("a key").dns_record();
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("{selector}._domainkey")));
        let strings: String = line
            .unwrap_or_default()
            .split('"')
            .skip(1)
            .step_by(2)
            .collect();
        assert_eq!(strings, record, "{said}");
    }
}
