//! What listeners want of TLS, held against `[tls]` and `[internal]`.

use super::Config;
use crate::session::ClientCertificates;
use crate::session::TlsMode;
use crate::tls;

impl Config {
    /// Listeners with whom no handshake could come off, or that ask for certificates to no end.
    pub(super) fn listener_tls_faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (index, listen) in self.listen.iter().enumerate() {
            let mut fault = |key: &str, right: &str| {
                faults.push((format!("{index}.{key}"), right.to_owned()));
            };
            let asks = listen.client_certificates == ClientCertificates::Ask;
            if asks && listen.tls == TlsMode::Off {
                fault(
                    "client_certificates",
                    "certificates are shown within TLS, which this listener does not offer",
                );
            } else if asks && !self.internal.has_certificates() {
                fault(
                    "client_certificates",
                    "nobody is known by a certificate; list some with the keys certificates or \
                     authorities of [internal]",
                );
            }
            let terms = listen.terms();
            let has_own = terms.minimum_version.is_some() || terms.ciphers.is_some();
            if has_own && !self.tls.policy(&terms).can_agree() {
                let key = match terms.ciphers {
                    Some(_) => "tls_ciphers",
                    None => "tls_minimum_version",
                };
                fault(key, tls::NO_SUITE);
            }
        }
        faults
    }

    /// Certificates that no listener asks for.
    pub(super) fn unasked_certificates(&self) -> Vec<(String, String)> {
        let mut listeners = self.listen.iter();
        let is_asked =
            listeners.any(|listen| listen.client_certificates == ClientCertificates::Ask);
        if is_asked || !self.internal.has_certificates() {
            return Vec::new();
        }
        let key = match self.internal.certificates.is_empty() {
            true => "authorities",
            false => "certificates",
        };
        let right = "no listener asks clients for a certificate; say client_certificates = \"ask\" in a \
                     section [[listen]]";
        vec![(key.to_owned(), right.to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn listeners_and_sections_have_to_fit_each_other() {
        const LISTEN: &str = "[[listen]]\nservice = 'mx'\naddress = '127.0.0.1:25'\n";
        const ASK: &str = "client_certificates = 'ask'\n";
        const OLD: &str = "['TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256']";
        let known = format!("[internal]\ncertificates = ['{}']\n", "0f".repeat(32));
        let authority = "[internal]\nauthorities = ['/etc/ca.pem']\n";
        for (text, want) in [
            (format!("{LISTEN}{ASK}{known}"), ""),
            (format!("{LISTEN}{ASK}{authority}"), ""),
            (
                format!("{LISTEN}{ASK}"),
                "6: listen[1].client_certificates: nobody",
            ),
            (
                format!("{LISTEN}{ASK}tls = 'off'\n{known}"),
                "6: listen[1].client_certificates: certificates are shown",
            ),
            (
                format!("{LISTEN}{known}"),
                "7: internal.certificates: no listener",
            ),
            (authority.to_owned(), "4: internal.authorities: no listener"),
            (format!("[tls]\nciphers = {OLD}\n"), ""),
            (
                format!("[tls]\nminimum_version = '1.3'\nciphers = {OLD}\n"),
                "5: tls.ciphers: none of these",
            ),
            (
                format!("{LISTEN}tls_minimum_version = '1.3'\ntls_ciphers = {OLD}\n"),
                "7: listen[1].tls_ciphers: none of these",
            ),
            (
                format!("{LISTEN}tls_minimum_version = '1.3'\n[tls]\nciphers = {OLD}\n"),
                "6: listen[1].tls_minimum_version: none of these",
            ),
            (
                "[tls]\nciphers = ['AES128-SHA']\n".to_owned(),
                "4: tls.ciphers[1]: \"AES128-SHA\" is no cipher suite that is spoken here",
            ),
            (
                "[internal]\ncertificates = ['ab:cd']\n".to_owned(),
                "4: internal.certificates[1]: \"ab:cd\" is no SHA-256",
            ),
        ] {
            let top = "hostname = 'mx.example.com'\n[domains.'example.com']\n";
            let faults = Config::parse(&format!("{top}{text}"))
                .err()
                .unwrap_or_default();
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            match (&faults[..], want) {
                ([], "") => {}
                ([fault], want) if !want.is_empty() && fault.starts_with(want) => {}
                _ => panic!("{text}: {faults:?}, wanted {want:?}"),
            }
        }
    }
}
