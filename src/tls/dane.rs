//! What TLSA records say of a server's certificate (RFC 6698, RFC 7671, RFC 7672 §3).
//!
//! Two usages count in SMTP: DANE-EE(3), where the record is of the server's own certificate, whose
//! names and dates then mean nothing; and DANE-TA(2), where it is of an authority above it, and the
//! certificate has to be valid and for one of the names that the server is known by. One record that
//! fits is enough.
//!
//! Left out: the common name in the place of missing names (RFC 7672 §3.2.2), and authorities of which
//! only the key is published and no certificate sent.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::CertificateError;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::Error;
use tokio_rustls::rustls::OtherError;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::WebPkiSupportedAlgorithms;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::server::ParsedCertificate;

use super::association::Matching;
use super::association::Selector;
use super::association::Usage;
use super::client;
use super::client::Belief;

pub use super::association::Association;
pub use super::association::strongest;

/// A client that shakes hands with a server only if one of the records fits its certificate. `names`
/// are those that the server may have in a certificate below an authority.
pub fn client_config(
    associations: Vec<Association>,
    names: Vec<ServerName<'static>>,
) -> Arc<ClientConfig> {
    client::believing(Dane {
        associations,
        names,
    })
}

/// No TLSA record fits what the server has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMatch;

impl fmt::Display for NoMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no TLSA record fits the certificate")
    }
}

impl std::error::Error for NoMatch {}

#[derive(Debug)]
struct Dane {
    associations: Vec<Association>,
    names: Vec<ServerName<'static>>,
}

impl Dane {
    fn of(&self, usage: Usage) -> impl Iterator<Item = &Association> {
        let all = self.associations.iter();
        all.filter(move |association| association.usage == usage)
    }

    /// The authorities that records name: among what the server has sent, or whole in a record.
    fn authorities(&self, sent: &[CertificateDer<'_>]) -> RootCertStore {
        let mut authorities = RootCertStore::empty();
        let fits = |der: &&CertificateDer<'_>| self.of(Usage::Authority).any(|one| one.fits(der));
        let named = sent.iter().filter(fits).cloned();
        let whole = self
            .of(Usage::Authority)
            .filter(|one| (one.selector, one.matching) == (Selector::Certificate, Matching::Whole));
        let whole = whole.map(|one| CertificateDer::from(one.data.as_slice()));
        for der in named.chain(whole) {
            // What cannot be read vouches for nobody.
            let _ = authorities.add(der.into_owned());
        }
        authorities
    }

    fn check_below_authority(
        &self,
        certificate: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let authorities = self.authorities(sent);
        if authorities.is_empty() {
            let no_match = CertificateError::Other(OtherError(Arc::new(NoMatch)));
            return Err(Error::InvalidCertificate(no_match));
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let all = algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &authorities, sent, now, all)?;
        // RFC 7672 §3.2.2: any of its names will do.
        let mut wrong = Error::InvalidCertificate(CertificateError::NotValidForName);
        for name in &self.names {
            match verify_server_name(&parsed, name) {
                Ok(()) => return Ok(()),
                Err(error) => wrong = error,
            }
        }
        Err(wrong)
    }
}

impl Belief for Dane {
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        // RFC 7672 §3.1.1: neither names nor dates matter.
        if self.of(Usage::Server).any(|one| one.fits(certificate)) {
            return Ok(());
        }
        self.check_below_authority(certificate, sent, now, algorithms)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::digest::SHA256;
    use aws_lc_rs::digest::SHA512;
    use aws_lc_rs::digest::digest;
    use rcgen::BasicConstraints;
    use rcgen::CertificateParams;
    use rcgen::CertifiedIssuer;
    use rcgen::IsCa;
    use rcgen::KeyPair;
    use rcgen::PublicKeyData;

    use super::*;

    /// An authority, and a server's certificate below it.
    struct Chain {
        authority: CertificateDer<'static>,
        server: CertificateDer<'static>,
        keys: [Vec<u8>; 2],
    }

    fn chain(name: &str, until: i32) -> Chain {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let server = params.signed_by(&key, &authority).unwrap();
        let keys = [
            authority.key().subject_public_key_info(),
            key.subject_public_key_info(),
        ];
        Chain {
            authority: authority.der().clone(),
            server: server.der().clone(),
            keys,
        }
    }

    fn hash(data: &[u8]) -> Vec<u8> {
        digest(&SHA256, data).as_ref().to_vec()
    }

    fn verdict(chain: &Chain, records: &[(u8, u8, u8, Vec<u8>)], sent: &[CertificateDer]) -> bool {
        let usable = records
            .iter()
            .filter_map(|(usage, selector, matching, data)| {
                Association::new(*usage, *selector, *matching, data)
            });
        let name = ServerName::try_from("mx.example").unwrap();
        let verifier = Dane {
            associations: strongest(usable.collect()),
            names: vec![name],
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let algorithms = super::super::policy::provider().signature_verification_algorithms;
        let verdict = verifier.check(&chain.server, sent, now, &algorithms);
        verdict.is_ok()
    }

    #[test]
    fn one_record_that_fits_is_enough_and_each_usage_has_its_rules() {
        let good = chain("mx.example", 4096);
        let wrong_name = chain("other.example", 4096);
        let expired = chain("mx.example", 2020);
        let sha512 = |data: &[u8]| digest(&SHA512, data).as_ref().to_vec();
        type Record<'a> = fn(&Chain) -> (u8, u8, u8, Vec<u8>);
        let ee_key: Record = |c| (3, 1, 1, hash(&c.keys[1]));
        let ee_whole: Record = |c| (3, 0, 0, c.server.to_vec());
        let ta_key: Record = |c| (2, 1, 1, hash(&c.keys[0]));
        let ta_certificate: Record = |c| (2, 0, 1, hash(&c.authority));
        let ta_whole: Record = |c| (2, 0, 0, c.authority.to_vec());
        let ta_of_server: Record = |c| (2, 0, 1, hash(&c.server));
        let wrong: Record = |_| (3, 1, 1, vec![7; 32]);
        let pkix: Record = |c| (1, 1, 1, hash(&c.keys[1]));
        for (what, record, on_good, on_wrong_name, on_expired) in [
            ("3 1 1", ee_key, true, true, true),
            ("3 0 0", ee_whole, true, true, true),
            ("2 1 1", ta_key, true, false, false),
            ("2 0 1", ta_certificate, true, false, false),
            ("2 0 0", ta_whole, true, false, false),
            (
                "2 0 1 of the server itself",
                ta_of_server,
                false,
                false,
                false,
            ),
            ("3 1 1 of another", wrong, false, false, false),
            ("1 1 1", pkix, false, false, false),
        ] {
            for (chain, want) in [
                (&good, on_good),
                (&wrong_name, on_wrong_name),
                (&expired, on_expired),
            ] {
                let sent = [chain.authority.clone()];
                assert_eq!(verdict(chain, &[record(chain)], &sent), want, "{what}");
                let beside = [wrong(chain), record(chain)];
                assert_eq!(
                    verdict(chain, &beside, &sent),
                    want,
                    "{what} beside another"
                );
            }
        }
        assert!(
            !verdict(&good, &[ta_key(&good)], &[]),
            "2 1 1, authority not sent"
        );
        assert!(
            verdict(&good, &[ta_whole(&good)], &[]),
            "2 0 0, authority not sent"
        );
        let weak_fits = [ee_key(&good), (3, 1, 2, sha512(b"another"))];
        assert!(
            !verdict(&good, &weak_fits, &[]),
            "the stronger digest counts"
        );
    }
}
