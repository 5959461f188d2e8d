//! Our account at an authority (RFC 8555 §7.3): opened once, kept with its key.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::Account;
use instant_acme::AccountCredentials;
use instant_acme::ExternalAccountKey;
use instant_acme::NewAccount;
use tokio_rustls::TlsConnector;

use super::Error;
use super::config::Config;
use super::config::ExternalAccount;
use super::transport::Busy;
use super::transport::Transport;
use super::wanted::folder;
use crate::http::Client;
use crate::telemetry::events;
use crate::tls::client::Trust;
use crate::tls::client::client_config_verified;
use crate::tls::keep;

/// The account that is kept, or one that is opened.
pub(super) async fn account(
    config: &Config,
    data_dir: &Path,
    busy: &Busy,
) -> Result<Account, Error> {
    let path = path(config, data_dir);
    let kept = match fs::read(&path) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return open(config, &path, busy).await;
        }
        Err(source) => return Err(Error::Read { path, source }),
    };
    let credentials: AccountCredentials =
        serde_json::from_slice(&kept).map_err(|error| Error::Broken {
            path,
            reason: error.to_string(),
        })?;
    let builder = Account::builder_with_http(Box::new(transport(config, busy)?));
    Ok(builder.from_credentials(credentials).await?)
}

/// Opens another account in the place of one that the authority does not take any more.
pub(super) async fn reopen(
    config: &Config,
    data_dir: &Path,
    busy: &Busy,
) -> Result<Account, Error> {
    open(config, &path(config, data_dir), busy).await
}

async fn open(config: &Config, path: &Path, busy: &Busy) -> Result<Account, Error> {
    let contact: Vec<_> = config
        .contact
        .iter()
        .map(|to| format!("mailto:{to}"))
        .collect();
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    let asked = NewAccount {
        contact: &contact,
        terms_of_service_agreed: config.terms_agreed,
        only_return_existing: false,
    };
    let external = config.external_account.as_ref().map(external_key);
    let directory = config.directory.as_str();
    let builder = Account::builder_with_http(Box::new(transport(config, busy)?));
    let (account, credentials) = builder
        .create(&asked, directory.to_owned(), external.transpose()?.as_ref())
        .await?;
    let text = serde_json::to_string(&credentials).map_err(|error| Error::Broken {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    keep(path, &text)?;
    events::acme_account(directory, account.id());
    Ok(account)
}

fn transport(config: &Config, busy: &Busy) -> Result<Transport, Error> {
    let trust = config.ca_file.as_deref().map_or(Trust::System, Trust::File);
    let client = Client::new(
        TlsConnector::from(client_config_verified(trust)?),
        super::transport::ANSWER_WITHIN,
    );
    Ok(Transport::new(client, busy.clone()))
}

fn external_key(account: &ExternalAccount) -> Result<ExternalAccountKey, Error> {
    let path = account.key_file.clone();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(Error::Read { path, source }),
    };
    // Authorities show it in base64url; some in plain base64.
    let text = text.trim().trim_end_matches('=');
    let key = URL_SAFE_NO_PAD.decode(text);
    let key = key.or_else(|_| STANDARD_NO_PAD.decode(text));
    let key = key.map_err(|error| Error::Broken {
        path,
        reason: format!("it is no key in base64url: {error}"),
    })?;
    Ok(ExternalAccountKey::new(account.id.clone(), &key))
}

/// One for each authority, so that trying another one does not cost the account at the first.
fn path(config: &Config, data_dir: &Path) -> PathBuf {
    let directory = config.directory.as_str().trim_start_matches("https://");
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() || c == '.' || c == '-' => c,
        _ => '_',
    };
    let name: String = directory.chars().map(plain).collect();
    folder(data_dir).join(format!("account-{name}.json"))
}
