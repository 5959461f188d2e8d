//! The certificates in use: read at the start, watched, exchanged when their files change.
//!
//! The only reader of PEM. A change is taken when chain and key belong together again, which may be a
//! moment after the first of them was written; until then, and where it never happens, what was in use
//! stays in use. Sessions are not disturbed: their handshake is done.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::task::spawn_blocking;
use tokio::time;
use tokio::time::MissedTickBehavior;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::mail::address::Domain;
use crate::telemetry::events;

use super::CertificateFiles;
use super::Config;
use super::Error;
use super::Policy;
use super::alpn;
use super::alpn::Challenges;
use super::certificate::Certificate;
use super::made;
use super::policy::Tickets;
use super::resolver::Resolver;
use super::watched::News;
use super::watched::Watched;

/// The certificates in use. Clones share them.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    hostname: String,
    /// Where the certificate is kept that we make if none is configured.
    made: CertificateFiles,
    resolver: Arc<Resolver>,
    challenges: Arc<Challenges>,
    /// Kept for good: a reload must not make the tickets worthless that clients hold.
    tickets: Tickets,
    /// As many as listeners have policies; a reload begins anew.
    servers: ArcSwap<Vec<(Policy, Arc<ServerConfig>)>>,
    /// Held while files are read, never across an await.
    watched: Mutex<Vec<Watched>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Loads all certificates; makes one for `hostname` in `data_dir` where none is configured. Reads
    /// and writes files, so to be called by the user that the gateway runs as.
    pub fn open(config: &Config, hostname: &Domain, data_dir: &Path) -> Result<Store, Error> {
        let hostname = hostname.as_str();
        let made = made::files(data_dir);
        let watched = load(config, &made, hostname)?;
        let resolver = Arc::new(Resolver::new(certificates(&watched), hostname));
        let shared = Shared {
            hostname: hostname.to_owned(),
            made,
            challenges: Arc::new(Challenges::before(&resolver)),
            resolver,
            tickets: Tickets::new()?,
            servers: ArcSwap::default(),
            watched: Mutex::new(watched),
        };
        Ok(Store {
            shared: Arc::new(shared),
        })
    }

    /// What a listener with this policy shakes hands with. Certificates behind it change without it
    /// changing.
    pub fn server_config(&self, policy: &Policy) -> Result<Arc<ServerConfig>, Error> {
        let shared = &self.shared;
        let known = shared.servers.load();
        if let Some((_, server)) = known.iter().find(|(of, _)| of == policy) {
            return Ok(Arc::clone(server));
        }
        let server = policy.server_config(shared.resolver.clone(), &shared.tickets)?;
        let server = Arc::new(server);
        shared.servers.rcu(|known| {
            let mut more = Vec::clone(known);
            more.push((policy.clone(), Arc::clone(&server)));
            more
        });
        Ok(server)
    }

    /// What a listener for the Web shakes hands with: an authority may see there that a name is ours
    /// (TLS-ALPN-01, RFC 8737). Made anew for each listener.
    pub fn web_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let challenges = Arc::clone(&self.shared.challenges);
        let mut config = Policy::default().server_config(challenges, &self.shared.tickets)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec(), alpn::PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }

    /// Shows this digest to an authority that asks for `name`, until it is taken away.
    pub fn answer_challenge(&self, name: &str, digest: &[u8]) -> Result<(), Error> {
        self.shared.challenges.answer(name, digest)
    }

    /// Takes the answer for `name` away, if there is one.
    pub fn withdraw_challenge(&self, name: &str) {
        self.shared.challenges.withdraw(name);
    }

    /// What binds an exchange to the certificate that a client was shown: `tls-server-end-point` (RFC 5929
    /// §4.1). None where it is not sure which one that was. `connection` has shaken hands; a certificate
    /// that was exchanged since is taken for the old one, and the client has to connect again.
    pub fn end_point(&self, connection: &ServerConnection) -> Option<Vec<u8>> {
        self.shared.resolver.end_point(connection.server_name())
    }

    /// Takes another configuration; after an error all is as it was.
    pub fn replace(&self, config: &Config) -> Result<(), Error> {
        let shared = &self.shared;
        let mut watched = shared.watched();
        let fresh = load(config, &shared.made, &shared.hostname)?;
        shared.resolver.set(certificates(&fresh));
        shared.servers.store(Arc::default());
        *watched = fresh;
        Ok(())
    }

    /// Watches the files: what changes is taken within seconds. Never returns. Cancel safe.
    pub async fn watch(&self) {
        let mut tick = time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let shared = Arc::clone(&self.shared);
            // A look that could not be finished is followed by the next.
            let _ = spawn_blocking(move || shared.look(Timestamp::now())).await;
        }
    }
}

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

impl Shared {
    /// Nothing is left half done under the lock, so that poison means nothing here.
    fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One look at all files.
    fn look(&self, now: Timestamp) {
        let mut watched = self.watched();
        let mut news = News::None;
        for one in watched.iter_mut() {
            if one.files == self.made {
                one.remake_if_due(&self.hostname, now);
            }
            if one.look(now) == News::Taken {
                news = News::Taken;
            }
        }
        if news == News::Taken {
            // What was made only stood in for another.
            if watched.iter().any(|one| self.is_real(one)) {
                watched.retain(|one| one.files != self.made);
            }
            self.resolver.set(certificates(&watched));
            report_coverage(&watched, &self.hostname);
        }
    }

    /// Whether it holds a certificate that we did not have to make.
    fn is_real(&self, one: &Watched) -> bool {
        one.certificate.is_some() && one.files != self.made
    }
}

/// All certificates of a configuration, at least one that can be shown.
fn load(config: &Config, made: &CertificateFiles, hostname: &str) -> Result<Vec<Watched>, Error> {
    let load = |files: &CertificateFiles| Watched::load(files.clone());
    let given = config.certificates.iter().map(load);
    let mut watched = given.collect::<Result<Vec<_>, _>>()?;
    watched.extend(config.obtained.iter().cloned().map(Watched::expect));
    if watched.iter().all(|one| one.certificate.is_none()) {
        let now = Timestamp::now();
        let is_good =
            read(made).is_ok_and(|found| found.covers(hostname) && !made::is_due(&found, now));
        if !is_good {
            made::make(made, hostname, now)?;
        }
        events::certificate_made(&made.chain, hostname);
        watched.push(Watched::load(made.clone())?);
    }
    report_coverage(&watched, hostname);
    Ok(watched)
}

fn certificates(watched: &[Watched]) -> Vec<Certificate> {
    let shown = watched.iter().filter_map(|one| one.certificate.clone());
    shown.collect()
}

fn report_coverage(watched: &[Watched], hostname: &str) {
    let mut shown = watched.iter().filter_map(|one| one.certificate.as_ref());
    let is_covered = shown.any(|certificate| certificate.covers(hostname));
    if let Some(first) = watched.first()
        && !is_covered
    {
        let reason = format!("no certificate names our hostname {hostname}");
        events::certificate_doubtful(&first.files.chain, &reason);
    }
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The names that it is for, in lower case.
    pub names: Vec<String>,
    /// The first moment at which it is valid (RFC 5280 §4.1.2.5).
    pub begins: Timestamp,
    /// The last one.
    pub expires: Timestamp,
    /// The certificate itself.
    pub der: CertificateDer<'static>,
}

/// Loads a certificate as the start would, and says what it is for. Changes nothing.
pub fn inspect(files: &CertificateFiles) -> Result<Inspected, Error> {
    let certificate = read(files)?;
    Ok(Inspected {
        der: certificate.key.end_entity_cert()?.clone().into_owned(),
        names: certificate.names,
        begins: certificate.begins,
        expires: certificate.expires,
    })
}

/// Reads both files and makes sure that they belong together.
pub(super) fn read(files: &CertificateFiles) -> Result<Certificate, Error> {
    Certificate::new(chain(&files.chain)?, &private_key(&files.key)?, files)
}

pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = contents(path)?;
    let chain = rustls_pemfile::certs(&mut &text[..])
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::Certificate {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    match chain.is_empty() {
        true => Err(Error::NoCertificate {
            path: path.to_owned(),
        }),
        false => Ok(chain),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = contents(path)?;
    let missing = || Error::NoKey {
        path: path.to_owned(),
    };
    rustls_pemfile::private_key(&mut &text[..])
        .ok()
        .flatten()
        .ok_or_else(missing)
}

fn contents(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::time::Instant;

    use rcgen::CertificateParams;
    use rcgen::KeyPair;
    use rcgen::PKCS_ECDSA_P256_SHA256;
    use rcgen::PKCS_ED25519;
    use rcgen::PKCS_RSA_SHA256;
    use rcgen::SignatureAlgorithm;
    use tempfile::TempDir;
    use tokio::net::TcpListener;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::SupportedProtocolVersion;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::version::TLS12;
    use tokio_rustls::rustls::version::TLS13;

    use super::super::Cipher;
    use super::super::MinimumVersion;
    use super::super::client;
    use super::super::facts;
    use super::super::facts::Facts;
    use super::*;

    const HOSTNAME: &str = "mx.example.com";
    const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

    /// A folder for certificates, and one for data beside it.
    struct Home(TempDir);

    impl Home {
        fn new() -> Home {
            Home(tempfile::tempdir().unwrap())
        }

        fn files(&self, name: &str) -> CertificateFiles {
            CertificateFiles {
                chain: self.0.path().join(format!("{name}.pem")),
                key: self.0.path().join(format!("{name}.key")),
            }
        }

        /// Writes a certificate with these names; returns the files and the certificate.
        fn make(
            &self,
            file: &str,
            names: &[&str],
            algorithm: &'static SignatureAlgorithm,
        ) -> (CertificateFiles, Vec<u8>) {
            let (chain, key, der) = certificate(names, algorithm);
            let files = self.files(file);
            fs::write(&files.chain, chain).unwrap();
            fs::write(&files.key, key).unwrap();
            (files, der)
        }

        fn open(&self, files: &[&CertificateFiles]) -> Result<Store, Error> {
            let hostname = Domain::parse(HOSTNAME).unwrap();
            Store::open(&config(files), &hostname, &self.0.path().join("data"))
        }
    }

    fn config(files: &[&CertificateFiles]) -> Config {
        Config {
            certificates: files.iter().map(|files| (*files).clone()).collect(),
            ..Config::default()
        }
    }

    /// Chain and key as PEM, and the certificate itself.
    fn certificate(
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
    ) -> (String, String, Vec<u8>) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = CertificateParams::new(names).unwrap();
        let made = made.self_signed(&key).unwrap();
        (made.pem(), key.serialize_pem(), made.der().to_vec())
    }

    async fn shake(
        store: &Store,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<(Vec<u8>, Facts)> {
        shake_by(store, &Policy::default(), name, versions).await
    }

    /// Shakes hands over loopback; returns the certificate that was shown and what was agreed on.
    async fn shake_by(
        store: &Store,
        policy: &Policy,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<(Vec<u8>, Facts)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(client::any(versions));
        let client = async {
            connector
                .connect(name, TcpStream::connect(address).await?)
                .await
        };
        let acceptor = TlsAcceptor::from(store.server_config(policy).unwrap());
        let server = async { acceptor.accept(listener.accept().await?.0).await };
        let (client, server) = tokio::join!(client, server);
        let (client, server) = (client?, server?);
        let shown = client.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let connection = server.get_ref().1;
        Ok((shown, facts(connection)))
    }

    async fn shown(store: &Store, name: &str) -> Vec<u8> {
        shake(store, name, BOTH).await.unwrap().0
    }

    #[tokio::test]
    async fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
        let home = Home::new();
        let (other, other_der) = home.make("other", &["other.example"], &PKCS_ED25519);
        let (ours, ours_der) = home.make("ours", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let (wild, wild_der) = home.make("wild", &["*.Wild.example"], &PKCS_ECDSA_P256_SHA256);
        let store = home.open(&[&other, &ours, &wild]).unwrap();
        for (name, want) in [
            ("other.example", &other_der),
            ("OTHER.example", &other_der),
            ("a.wild.example", &wild_der),
            ("a.b.wild.example", &ours_der),
            ("unknown.example", &ours_der),
            ("127.0.0.1", &ours_der), // an address is not asked for by SNI
        ] {
            assert!(shown(&store, name).await == *want, "{name}");
        }
        let store = home.open(&[&wild, &other]).unwrap();
        assert!(
            shown(&store, "unknown.example").await == wild_der,
            "the first"
        );
    }

    #[tokio::test]
    async fn versions_and_ciphers_are_as_configured_and_named_as_by_iana() {
        let home = Home::new();
        let (ec, _) = home.make("ec", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let (rsa, _) = home.make("rsa", &["rsa.example"], &PKCS_RSA_SHA256);
        let store = home.open(&[&ec, &rsa]).unwrap();
        let (_, new) = shake(&store, HOSTNAME, BOTH).await.unwrap();
        let want = Facts {
            version: "TLS1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            bits: 256,
            key_exchange: "X25519MLKEM768",
            resumed: false,
        };
        assert_eq!(new, want);
        let (_, old) = shake(&store, "rsa.example", &[&TLS12]).await.unwrap();
        let want = Facts {
            version: "TLS1.2",
            cipher: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            key_exchange: "X25519",
            ..want
        };
        assert_eq!(old, want);
        let newest = Policy {
            minimum_version: MinimumVersion::Tls13,
            ..Policy::default()
        };
        for (versions, want) in [(&[&TLS12][..], false), (BOTH, true)] {
            let shaken = shake_by(&store, &newest, HOSTNAME, versions).await;
            assert_eq!(shaken.is_ok(), want, "{versions:?}");
        }
        let cipher = |name: &str| Cipher::try_from(name.to_owned()).unwrap();
        let listed = Policy {
            ciphers: vec![
                cipher("TLS_CHACHA20_POLY1305_SHA256"),
                cipher("TLS_AES_128_GCM_SHA256"),
            ],
            ..Policy::default()
        };
        let (_, facts) = shake_by(&store, &listed, HOSTNAME, BOTH).await.unwrap();
        assert_eq!(facts.cipher, "TLS_CHACHA20_POLY1305_SHA256", "the first");
        assert!(
            shake_by(&store, &listed, HOSTNAME, &[&TLS12])
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn changed_files_are_taken_within_seconds() {
        let home = Home::new();
        let (files, old) = home.make("mx", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let store = home.open(&[&files]).unwrap();
        assert!(shown(&store, HOSTNAME).await == old);
        let (_, new) = home.make("mx", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let start = Instant::now();
        let taken = async {
            while shown(&store, HOSTNAME).await != new {
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = store.watch() => {}
            () = taken => {}
            () = time::sleep(Duration::from_secs(20)) => panic!("not taken"),
        }
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn certbots_symbolic_links_are_followed_one_after_the_other() {
        let home = Home::new();
        let (first, old) = home.make("archive1", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let (second, new) = home.make("archive2", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let live = home.files("live");
        let point = |link: &PathBuf, to: &PathBuf| {
            let _ = fs::remove_file(link);
            std::os::unix::fs::symlink(to, link).unwrap();
        };
        point(&live.chain, &first.chain);
        point(&live.key, &first.key);
        let store = home.open(&[&live]).unwrap();
        let look = || store.shared.look(Timestamp::now());
        point(&live.key, &second.key);
        look();
        assert!(shown(&store, HOSTNAME).await == old, "key and chain differ");
        point(&live.chain, &second.chain);
        look();
        assert!(shown(&store, HOSTNAME).await == new);
    }

    #[tokio::test]
    async fn what_does_not_load_leaves_the_old_in_use_until_it_does() {
        let home = Home::new();
        let (files, old) = home.make("mx", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let store = home.open(&[&files]).unwrap();
        let (_, other_key, _) = certificate(&[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let look = || store.shared.watched()[0].look(Timestamp::now());
        for (what, key) in [
            ("a key of another", Some(other_key.as_str())),
            ("no key", Some("nonsense")),
            ("an empty file", Some("")),
            ("no file", None),
        ] {
            match key {
                Some(key) => fs::write(&files.key, key).unwrap(),
                None => fs::remove_file(&files.key).unwrap(),
            }
            assert_eq!(look(), News::Unsettled, "{what}");
            assert_eq!(look(), News::Broken, "{what}");
            assert_eq!(look(), News::None, "{what}: reported once");
            assert!(shown(&store, HOSTNAME).await == old, "{what}");
        }
        let (_, new) = home.make("mx", &[HOSTNAME], &PKCS_RSA_SHA256);
        store.shared.look(Timestamp::now());
        assert!(shown(&store, HOSTNAME).await == new);
    }

    #[tokio::test]
    async fn a_configuration_that_does_not_load_leaves_the_old_in_force() {
        let home = Home::new();
        let (ours, old) = home.make("mx", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let (next, new) = home.make("next", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let store = home.open(&[&ours]).unwrap();
        let missing = config(&[&next, &home.files("missing")]);
        assert!(store.replace(&missing).is_err());
        assert!(shown(&store, HOSTNAME).await == old);
        store.replace(&config(&[&next])).unwrap();
        assert!(shown(&store, HOSTNAME).await == new);
    }

    #[test]
    fn an_error_names_the_file_and_what_would_be_right() {
        let home = Home::new();
        let (good, _) = home.make("good", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let (other, _) = home.make("other", &[HOSTNAME], &PKCS_ECDSA_P256_SHA256);
        let with = |chain: &PathBuf, key: &PathBuf| CertificateFiles {
            chain: chain.clone(),
            key: key.clone(),
        };
        let broken = home.files("broken");
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&broken.chain, pem).unwrap();
        let pem =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        fs::write(&broken.key, pem).unwrap();
        for (files, want) in [
            (home.files("none"), "none.pem; a certificate's files"),
            (with(&good.key, &good.key), "good.key; it should begin with"),
            (with(&good.chain, &good.chain), "good.pem; it should hold"),
            (with(&good.chain, &broken.key), "not encrypted"),
            (with(&broken.chain, &good.key), "broken.pem is broken"),
            (with(&good.chain, &other.key), "other.key does not belong"),
        ] {
            let error = home.open(&[&files]).unwrap_err().to_string();
            assert!(error.contains(want), "{error}, wanted {want}");
        }
    }

    #[tokio::test]
    async fn without_a_certificate_one_is_made_once() {
        let home = Home::new();
        let store = home.open(&[]).unwrap();
        let made = shown(&store, HOSTNAME).await;
        let store = home.open(&[]).unwrap();
        assert!(
            shown(&store, HOSTNAME).await == made,
            "kept across restarts"
        );
        let later = Timestamp::now() + Duration::from_secs(336 * 24 * 60 * 60);
        store.shared.look(later);
        let remade = shown(&store, HOSTNAME).await;
        assert!(remade != made, "made anew before its end");
        store.shared.look(later);
        assert!(
            shown(&store, HOSTNAME).await == remade,
            "but not at each look"
        );
        let renamed = Domain::parse("mail.example.com").unwrap();
        let data_dir = home.0.path().join("data");
        let store = Store::open(&Config::default(), &renamed, &data_dir).unwrap();
        assert!(shown(&store, HOSTNAME).await != remade, "another name");
    }

    #[test]
    fn the_configuration_reads_as_an_operator_writes_it() {
        let text = "minimum_version = \"1.3\"\n\
                    certificates = [{ chain = \"/a/fullchain.pem\", key = \"/a/privkey.pem\" }]";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.minimum_version, MinimumVersion::Tls13);
        assert_eq!(config.certificates.len(), 1);
        let error = toml::from_str::<Config>("minimum_version = \"1.1\"").unwrap_err();
        assert!(error.to_string().contains("1.2"), "{error}");
    }
}
