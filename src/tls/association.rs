//! TLSA records that can be used with SMTP, and which certificates they fit (RFC 6698 §2, RFC 7671).

use std::fmt;

use aws_lc_rs::digest::SHA256;
use aws_lc_rs::digest::SHA512;
use aws_lc_rs::digest::digest;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// A TLSA record that can be used with SMTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Association {
    pub(super) usage: Usage,
    pub(super) selector: Selector,
    pub(super) matching: Matching,
    pub(super) data: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Usage {
    /// DANE-TA(2)
    Authority,
    /// DANE-EE(3)
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Selector {
    Certificate,
    Key,
}

/// The strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Matching {
    Whole,
    Sha256,
    Sha512,
}

impl Association {
    /// The numbers and the data of a record. None for one that is of no use.
    pub fn new(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Option<Association> {
        let usage = match usage {
            2 => Usage::Authority,
            3 => Usage::Server,
            _ => return None, // RFC 7672 §3.1.3: PKIX-TA(0) and PKIX-EE(1) are not for SMTP.
        };
        let selector = match selector {
            0 => Selector::Certificate,
            1 => Selector::Key,
            _ => return None,
        };
        let (matching, is_whole) = match matching {
            0 => (Matching::Whole, !data.is_empty()),
            1 => (Matching::Sha256, data.len() == 32),
            2 => (Matching::Sha512, data.len() == 64),
            _ => return None,
        };
        is_whole.then(|| Association {
            usage,
            selector,
            matching,
            data: data.to_vec(),
        })
    }

    pub(super) fn fits(&self, der: &CertificateDer<'_>) -> bool {
        let selected = match self.selector {
            Selector::Certificate => der.as_ref(),
            Selector::Key => match X509Certificate::from_der(der) {
                Ok((_, certificate)) => certificate.tbs_certificate.subject_pki.raw,
                Err(_) => return false,
            },
        };
        match self.matching {
            Matching::Whole => selected == self.data,
            Matching::Sha256 => digest(&SHA256, selected).as_ref() == self.data,
            Matching::Sha512 => digest(&SHA512, selected).as_ref() == self.data,
        }
    }
}

/// As it stands in a zone: `3 1 1 0123...`.
impl fmt::Display for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = match self.usage {
            Usage::Authority => 2,
            Usage::Server => 3,
        };
        let selector = match self.selector {
            Selector::Certificate => 0,
            Selector::Key => 1,
        };
        let matching = match self.matching {
            Matching::Whole => 0,
            Matching::Sha256 => 1,
            Matching::Sha512 => 2,
        };
        write!(f, "{usage} {selector} {matching} ")?;
        self.data
            .iter()
            .try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Of the digests of one kind the strongest alone count (RFC 7671 §9).
pub fn strongest(associations: Vec<Association>) -> Vec<Association> {
    let is_weaker = |one: &Association, other: &Association| {
        (one.usage, one.selector) == (other.usage, other.selector)
            && one.matching == Matching::Sha256
            && other.matching == Matching::Sha512
    };
    let strong = associations
        .iter()
        .filter(|one| !associations.iter().any(|other| is_weaker(one, other)));
    strong.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_makes_no_sense_is_of_no_use() {
        for (record, want) in [
            ((3, 1, 1, 32), true),
            ((2, 0, 2, 64), true),
            ((3, 0, 0, 1), true),
            ((0, 0, 1, 32), false),
            ((1, 0, 1, 32), false),
            ((4, 0, 1, 32), false),
            ((3, 2, 1, 32), false),
            ((3, 1, 3, 32), false),
            ((3, 1, 1, 31), false),
            ((3, 1, 2, 32), false),
            ((3, 0, 0, 0), false),
        ] {
            let (usage, selector, matching, length) = record;
            let made = Association::new(usage, selector, matching, &vec![1; length]);
            assert_eq!(made.is_some(), want, "{record:?}");
        }
    }
}
