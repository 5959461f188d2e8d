//! Which keys sign for whom, and what their fields say.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;

/// Keeps an Ed25519 key where it is found without being named.
fn keep(folder: &TempDir, name: &str) {
    let name = KeyName::try_from(name.to_owned()).unwrap();
    let path = default_path(folder.path(), &name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, make(Algorithm::Ed25519, 256).unwrap()).unwrap();
    close(&path, 0o600);
}

fn close(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn domains(names: &[&str]) -> Domains {
    let domain = |name: &&str| (Domain::parse(name).unwrap(), None);
    names.iter().map(domain).collect()
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// The values of a tag in the fields for this author.
fn tags(signing: &Signing, author: &str, tag: &str) -> Vec<String> {
    let message = format!("From: {author}\r\nSubject: x\r\n\r\nbody\r\n");
    let message = Content::from(Bytes::from(message.into_bytes()));
    let now = UNIX_EPOCH + Duration::from_secs(1_000);
    let fields = signing.fields(&address(author), &message, now).unwrap();
    let fields = fields.unwrap_or_default();
    let values = fields.split([';', ' ', '\t', '\r', '\n']);
    values
        .filter_map(|word| word.strip_prefix(&format!("{tag}=")))
        .map(str::to_owned)
        .collect()
}

fn rule(from: &str, keys: &[&str], identity: Option<&str>) -> Rule {
    let name = |name: &&str| KeyName::try_from((*name).to_owned()).unwrap();
    Rule {
        from: from.to_owned().try_into().unwrap(),
        keys: keys.iter().map(name).collect(),
        identity: identity.map(|text| text.to_owned().try_into().unwrap()),
    }
}

#[test]
fn each_key_in_the_folder_of_a_domain_signs_for_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "a.example/s2",
        "a.example/s1",
        "b.example/s3",
        "c.example/s4",
    ] {
        keep(&folder, name);
    }
    fs::write(folder.path().join("dkim/a.example/s1.txt"), "").unwrap();
    let ours = domains(&["a.example", "b.example", "none.example"]);
    let signing = Signing::open(&Config::default(), &ours, folder.path()).unwrap();
    assert_eq!(tags(&signing, "u@a.example", "s"), ["s1", "s2"]);
    assert_eq!(tags(&signing, "u@b.example", "d"), ["b.example"]);
    for author in [
        "u@none.example",
        "u@c.example",
        "u@sub.a.example",
        "u@[192.0.2.1]",
    ] {
        assert_eq!(tags(&signing, author, "s"), [""; 0], "{author}");
    }
}

#[test]
fn the_keys_of_a_domain_sign_for_its_subdomains_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.example/s1", "own.a.example/s2"] {
        keep(&folder, name);
    }
    let mut ours = domains(&["a.example", "own.a.example", "keyless.a.example"]);
    ours.insert(Domain::parse("never.a.example").unwrap(), Some(Vec::new()));
    let config = Config {
        subdomains: true,
        ..Config::default()
    };
    let signing = Signing::open(&config, &ours, folder.path()).unwrap();
    for (author, want) in [
        ("u@x.y.a.example", &["a.example"][..]),
        ("u@keyless.a.example", &["a.example"]),
        ("u@own.a.example", &["own.a.example"]),
        ("u@x.own.a.example", &["own.a.example"]),
        ("u@never.a.example", &[]),
        ("u@bada.example", &[]),
    ] {
        assert_eq!(tags(&signing, author, "d"), want, "{author}");
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.example/s1", "a.example/news", "esp.example/s9"] {
        keep(&folder, name);
    }
    let key = default_path(
        folder.path(),
        &KeyName::try_from("a.example/s1".to_owned()).unwrap(),
    );
    let list = Some(vec![KeyFile {
        selector: "listed".parse().unwrap(),
        key,
    }]);
    let ours = Domains::from([(Domain::parse("a.example").unwrap(), list)]);
    let config = Config {
        identity: Identity::Author,
        rule: vec![
            rule(
                "*@news.a.example",
                &["a.example/news", "esp.example/s9"],
                None,
            ),
            rule("nobody@*", &[], None),
            rule(
                "robot@a.example",
                &["a.example/listed"],
                Some("@robots.a.example"),
            ),
            rule("robot@*", &["a.example/news"], None),
        ],
        ..Config::default()
    };
    let signing = Signing::open(&config, &ours, folder.path()).unwrap();
    for (author, selectors, identities) in [
        (
            "u@news.a.example",
            &["news", "s9"][..],
            &["u@news.a.example"][..],
        ),
        ("nobody@a.example", &[], &[]),
        ("robot@a.example", &["listed"], &["@robots.a.example"]),
        ("robot@far.example", &["news"], &[]),
        ("u@a.example", &["listed"], &["u@a.example"]),
    ] {
        assert_eq!(tags(&signing, author, "s"), selectors, "{author}");
        assert_eq!(tags(&signing, author, "i"), identities, "{author}");
    }
}

#[test]
fn a_signature_ends_when_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    keep(&folder, "a.example/s1");
    let ours = domains(&["a.example"]);
    let mut config = Config::default();
    let signing = Signing::open(&config, &ours, folder.path()).unwrap();
    assert_eq!(tags(&signing, "u@a.example", "t"), ["1000"]);
    assert_eq!(tags(&signing, "u@a.example", "x"), [""; 0]);
    config.expire = Some(Duration::from_secs(86_400));
    let other = Signing::open(&config, &ours, folder.path()).unwrap();
    let shared = signing.clone();
    signing.replace(&other);
    assert_eq!(tags(&shared, "u@a.example", "x"), ["87400"]);
}

#[test]
fn a_key_that_cannot_be_read_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    keep(&folder, "a.example/s1");
    let path = folder.path().join("dkim/a.example/s1.pem");
    let open = |config: &Config| Signing::open(config, &domains(&["a.example"]), folder.path());
    let error = |config: &Config| open(config).err().map(|error| error.to_string());
    close(&path, 0o644);
    let shown = path.display();
    assert_eq!(
        error(&Config::default()).unwrap(),
        format!(
            "the private key {shown} is open to others than its owner; `chmod 600 {shown}` closes it"
        )
    );
    close(&path, 0o600);
    fs::write(&path, "nonsense").unwrap();
    let told = error(&Config::default()).unwrap();
    assert_eq!(told, format!("cannot use the key in {shown}"));
    fs::remove_file(&path).unwrap();
    assert_eq!(error(&Config::default()), None);
    let config = Config {
        rule: vec![rule("*", &["a.example/s1"], None)],
        ..Config::default()
    };
    assert_eq!(error(&config).unwrap(), format!("cannot read {shown}"));
}

#[test]
fn a_message_without_an_author_cannot_be_signed() {
    let folder = tempfile::tempdir().unwrap();
    keep(&folder, "a.example/s1");
    let ours = domains(&["a.example"]);
    let signing = Signing::open(&Config::default(), &ours, folder.path()).unwrap();
    let message = Content::from(Bytes::from_static(
        b"Subject: x\r\n\r\nFrom: u@a.example\r\n",
    ));
    let error = signing.fields(&address("u@a.example"), &message, UNIX_EPOCH);
    assert!(matches!(error, Err(Error::Message(_))));
}

/// The private key that RFC 8463 §A.1 publishes, so that what it signs can be written down.
const KNOWN: &str = "-----BEGIN PRIVATE KEY-----\n\
                     MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                     -----END PRIVATE KEY-----\n";

#[test]
fn a_field_is_written_so() {
    let folder = tempfile::tempdir().unwrap();
    keep(&folder, "a.example/s1");
    fs::write(folder.path().join("dkim/a.example/s1.pem"), KNOWN).unwrap();
    let config = Config {
        identity: Identity::Author,
        expire: Some(Duration::from_secs(604_800)),
        ..Config::default()
    };
    let signing = Signing::open(&config, &domains(&["a.example"]), folder.path()).unwrap();
    let message = Content::from(Bytes::from_static(
        b"From: u@a.example\r\nTo: v@b.example\r\nSubject: x\r\nList-Id: l\r\n\r\nbody\r\n",
    ));
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let fields = signing.fields(&address("u@a.example"), &message, now);
    let want = "DKIM-Signature: v=1; a=ed25519-sha256; s=s1; d=a.example; c=relaxed/relaxed;\r\n\
                \th=From:From:Reply-To:Subject:Subject:Date:To:To:Cc:Message-ID:In-Reply-To\r\n\
                \t:References:MIME-Version:Content-Type:Content-Transfer-Encoding:List-Id;\r\n\
                \ti=u@a.example; t=1800000000; x=1800604800; bh=Ck5SoRNWUpSR4X0COv7R5ub2pUTtl\r\n\
                \t6xz4dTFz++ji4M=; b=XRD8512xOzqgJthOMgPRWiWn3r+iGzYHNbUl5OHpqDg+GLnEWoZbGcRF\r\n\
                \teUk79riu0x87uXomJ+TII/8kzGPdAw==;\r\n";
    assert_eq!(fields.unwrap().unwrap(), want);
}
