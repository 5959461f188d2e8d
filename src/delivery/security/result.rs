//! What came of TLS with one server, as it is reported to whoever runs the destination (RFC 8460 §4.3).

use std::fmt;
use std::net::IpAddr;

use tokio_rustls::rustls;
use tokio_rustls::rustls::CertificateError;

use crate::telemetry::events;

/// What is wrong, in the words of RFC 8460 §4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The server offers no TLS.
    StarttlsNotSupported,
    /// The certificate is for another name.
    CertificateHostMismatch,
    /// It is no longer valid, or not yet.
    CertificateExpired,
    /// It leads to no authority that is trusted.
    CertificateNotTrusted,
    /// Anything else about TLS.
    Validation,
    /// The TLSA records cannot be used.
    TlsaInvalid,
    /// The DNS gives no answer that can be trusted.
    DnssecInvalid,
    /// DANE is asked for here, and not published there.
    DaneRequired,
    /// The MTA-STS policy cannot be fetched.
    StsPolicyFetch,
    /// It is none.
    StsPolicyInvalid,
    /// The certificate of the web server that has it is not to be trusted.
    StsWebpkiInvalid,
}

/// By whose word TLS was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyType {
    /// DANE.
    Tlsa,
    /// MTA-STS.
    Sts,
    /// Neither.
    NoPolicyFound,
}

/// What came of TLS with one server, once a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsResult {
    /// Whose word counted.
    pub policy_type: PolicyType,
    /// What it says: the lines of a policy, or TLSA records as `3 1 1 0123...`.
    pub policy: Vec<String>,
    /// The domain of the recipients.
    pub policy_domain: String,
    /// The server.
    pub mx_host: String,
    /// Our own address, where there was a connection.
    pub sending_ip: Option<IpAddr>,
    /// The server's.
    pub receiving_ip: Option<IpAddr>,
    /// None where all is as it has to be.
    pub failure: Option<Failure>,
    /// What there is to say of a failure.
    pub reason: String,
}

impl TlsResult {
    /// Counts it, and logs what is against a policy: an operator on either side may have to mend it.
    pub(in crate::delivery) fn tell(&self) {
        let result = match &self.failure {
            None => "success".to_owned(),
            Some(failure) => failure.to_string(),
        };
        events::host_tls(self.policy_type.name(), &result);
        if self.failure.is_some() && self.policy_type != PolicyType::NoPolicyFound {
            let (domain, host) = (&self.policy_domain, &self.mx_host);
            events::host_not_safe(domain, host, self.policy_type.name(), &result, &self.reason);
        }
    }
}

impl Failure {
    /// What an error of a handshake comes to.
    pub(in crate::delivery) fn of(error: &rustls::Error) -> Failure {
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => {
                    Failure::CertificateHostMismatch
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Failure::CertificateExpired,
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Failure::CertificateNotTrusted
                }
                _ => Failure::Validation,
            },
            _ => Failure::Validation,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::StarttlsNotSupported => "starttls-not-supported",
            Failure::CertificateHostMismatch => "certificate-host-mismatch",
            Failure::CertificateExpired => "certificate-expired",
            Failure::CertificateNotTrusted => "certificate-not-trusted",
            Failure::Validation => "validation-failure",
            Failure::TlsaInvalid => "tlsa-invalid",
            Failure::DnssecInvalid => "dnssec-invalid",
            Failure::DaneRequired => "dane-required",
            Failure::StsPolicyFetch => "sts-policy-fetch-error",
            Failure::StsPolicyInvalid => "sts-policy-invalid",
            Failure::StsWebpkiInvalid => "sts-webpki-invalid",
        })
    }
}

impl PolicyType {
    /// RFC 8460 §4.2
    pub fn name(self) -> &'static str {
        match self {
            PolicyType::Tlsa => "tlsa",
            PolicyType::Sts => "sts",
            PolicyType::NoPolicyFound => "no-policy-found",
        }
    }
}
