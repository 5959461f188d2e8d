//! Certificates that the gateway gets for itself, and renews (ACME, RFC 8555).
//!
//! [`Acme::run`] does one thing at a time: it asks the authority for the certificate that is due, or
//! waits until one is. What is obtained lies in the data directory, where [`crate::tls::Store`] finds it
//! within seconds; until then the store shows another. A failure is tried again later and later, and
//! never before the authority wants to hear of us again.
//!
//! # Limits
//!
//! An account's key and contact do not change; certificates are not revoked.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::CertificateIdentifier;
use jiff::Timestamp;
use rand::Rng;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::dns::Dns;
use crate::dns::update::Updates;
use crate::mail::address::Domain;
use crate::telemetry::events;
use crate::tls;
use crate::tls::Inspected;
use crate::tls::Requested;

mod account;
mod answers;
mod config;
mod error;
mod order;
mod renewal;
mod state;
mod transport;
mod wanted;

pub use self::answers::Tokens;
pub use self::config::Challenge;
pub use self::config::Config;
pub use self::error::Error;
pub use self::state::State;
pub use self::state::ask_for_renewal;
pub use self::wanted::Wanted;

use self::answers::Answers;
use self::renewal::Window;
use self::transport::Busy;

/// How often it is looked whether one is due, or asked for.
const LOOK: Duration = Duration::from_secs(2);

/// Gets certificates.
pub struct Acme {
    config: watch::Receiver<Config>,
    hostname: Domain,
    data_dir: PathBuf,
    dns: Dns,
    certificates: tls::Store,
    tokens: Tokens,
}

impl Acme {
    /// Asks nobody yet. Another `config` is taken while it runs, and is a reason to try at once what
    /// has failed. `tokens` is what the listener of HTTP-01 shows.
    pub fn new(
        config: watch::Receiver<Config>,
        hostname: Domain,
        data_dir: &Path,
        dns: Dns,
        certificates: tls::Store,
        tokens: Tokens,
    ) -> Acme {
        Acme {
            config,
            hostname,
            data_dir: data_dir.to_owned(),
            dns,
            certificates,
            tokens,
        }
    }

    /// Gets what is wanted and renews it. Never returns.
    ///
    /// Cancel safe: an attempt that is broken off counts as one that failed.
    pub async fn run(mut self) {
        loop {
            let config = self.config.borrow_and_update().clone();
            for wanted in config.wanted(&self.hostname) {
                self.attend(&config, &wanted).await;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                Ok(()) = self.config.changed() => self.lift_waits(),
            }
        }
    }

    /// Tries what has failed at once, for what was wrong may have been put right.
    fn lift_waits(&self) {
        let now = Timestamp::now();
        for wanted in self.config.borrow().wanted(&self.hostname) {
            if let Ok(mut state) = State::load(&wanted, &self.data_dir, now)
                && state.failures > 0
            {
                state.next = now;
                self.keep(&wanted, &state);
            }
        }
    }

    /// Does what is due for one certificate.
    async fn attend(&self, config: &Config, wanted: &Wanted) {
        let now = Timestamp::now();
        let mut state = match State::load(wanted, &self.data_dir, now) {
            Ok(state) => state,
            // What is not known any more is found out anew.
            Err(_) => State::fresh(wanted, now),
        };
        let is_busy = state.busy_until.is_some_and(|until| until > now);
        if !is_busy && state::is_renewal_asked_for(wanted, &self.data_dir) {
            state.next = now;
        }
        if state.next <= now && !is_busy {
            self.attempt(config, wanted, state).await;
        } else if state.obtained.is_some() && state.ask_window.is_none_or(|at| at <= now) {
            self.ask_window(config, wanted, state).await;
        }
    }

    /// Asks for a certificate, and notes what came of it.
    async fn attempt(&self, config: &Config, wanted: &Wanted, mut state: State) {
        let failures = state.failures.saturating_add(1);
        let wait = renewal::after_failures(
            failures,
            config.retry_first,
            config.retry_max,
            rand::rng().random(),
        );
        // Kept before it begins, so that who crashes over it does not try again at once.
        state.next = Timestamp::now() + wait;
        state.failures = failures;
        self.keep(wanted, &state);
        let busy = Busy::default();
        let names = wanted.names.join(" ");
        match self.obtain(config, wanted, &busy).await {
            Ok(found) => {
                let now = Timestamp::now();
                state = State::fresh(wanted, now);
                state.obtained = Some(now);
                let renewal = renewal::two_thirds(found.begins, found.expires);
                // One that is old when it comes must not be renewed again and again.
                state.next = renewal.max(now + config.retry_first);
                events::certificate_obtained(&names, found.expires, state.next);
            }
            Err(error) => {
                let reason = events::in_full(&error);
                state.busy_until = busy.until();
                state.next = state.next.max(busy.until().unwrap_or(state.next));
                events::certificate_not_obtained(&names, failures, state.next, &reason);
                state.last_error = Some(reason);
            }
        }
        self.keep(wanted, &state);
    }

    async fn obtain(
        &self,
        config: &Config,
        wanted: &Wanted,
        busy: &Busy,
    ) -> Result<Inspected, Error> {
        let answers = self.answers(config);
        let account = account::account(config, &self.data_dir, busy).await?;
        let replaces = self.identifier(wanted);
        let ordered = order::authorized(&account, wanted, replaces.clone(), &answers).await;
        let mut order = match ordered {
            Err(error) if error.is_about_the_account() => {
                events::acme_account_lost(&wanted.directory, &error);
                let account = account::reopen(config, &self.data_dir, busy).await?;
                order::authorized(&account, wanted, None, &answers).await?
            }
            ordered => ordered?,
        };
        let requested = self.requested(wanted).await?;
        let chain = order::signed(&mut order, &requested.der).await?;
        let path = wanted.files(&self.data_dir).chain;
        let found = requested.keep(&chain, &path)?;
        let missing = wanted.names.iter().find(|name| !found.names.contains(name));
        match missing {
            Some(name) => Err(Error::OtherNames { name: name.clone() }),
            None => Ok(found),
        }
    }

    /// A key and the request to certify it. Making one takes time, so it is done aside.
    async fn requested(&self, wanted: &Wanted) -> Result<Requested, Error> {
        let (names, kind) = (wanted.names.clone(), wanted.key);
        let kept = wanted.files(&self.data_dir).chain;
        let old = Some(kept).filter(|kept| wanted.reuse_key && kept.exists());
        let made = spawn_blocking(move || match old {
            Some(old) => Requested::with_key_of(&names, &old),
            None => Requested::new(&names, kind),
        });
        let made = made.await.map_err(|_| Error::Late)?;
        Ok(made?)
    }

    /// Asks when the authority would like its certificate to be renewed (RFC 9773), which is at once
    /// where it is to be revoked. Who does not say gets two thirds of its life.
    async fn ask_window(&self, config: &Config, wanted: &Wanted, mut state: State) {
        let busy = Busy::default();
        let asked = async {
            let id = self.identifier(wanted)?;
            let account = account::account(config, &self.data_dir, &busy).await.ok()?;
            account.renewal_info(&id).await.ok()
        };
        let (window, again) = match asked.await {
            Some((info, again)) => {
                let moment = |seconds| Timestamp::from_second(seconds).ok();
                let window = info.suggested_window;
                let start = moment(window.start.unix_timestamp());
                let end = moment(window.end.unix_timestamp());
                let window = start.zip(end).map(|(start, end)| Window { start, end });
                (window, renewal::ask_again(again))
            }
            None => (state.window, renewal::ask_again(Duration::MAX)),
        };
        if let Some(fresh) = window
            && state.window != window
        {
            let soonest = state.obtained.map(|at| at + config.retry_first);
            let moment = fresh.moment(rand::rng().random());
            state.next = soonest.map_or(moment, |soonest| moment.max(soonest));
        }
        state.window = window;
        state.ask_window = Some(Timestamp::now() + again);
        self.keep(wanted, &state);
    }

    /// How the authority names the certificate that we have. None where it is not from there.
    fn identifier(&self, wanted: &Wanted) -> Option<CertificateIdentifier<'static>> {
        let state = State::read(wanted, &self.data_dir).ok().flatten()?;
        state.obtained?;
        let found = tls::inspect(&wanted.files(&self.data_dir)).ok()?;
        let id = CertificateIdentifier::try_from(&found.der).ok()?;
        Some(id.into_owned())
    }

    fn answers(&self, config: &Config) -> Answers {
        Answers {
            tokens: self.tokens.clone(),
            webroot: config.webroot.clone(),
            certificates: self.certificates.clone(),
            updates: Updates::new(&config.dns, self.dns.clone()),
        }
    }

    fn keep(&self, wanted: &Wanted, state: &State) {
        if let Err(error) = state.keep(wanted, &self.data_dir) {
            let file = wanted.files(&self.data_dir).chain;
            events::certificate_doubtful(&file, &events::in_full(&error));
        }
    }
}
