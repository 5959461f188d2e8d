//! A client that logs in: its messages go to the mechanism, and what the mechanism asks to whoever knows
//! the users. Who failed too often is told so before anything is looked up.
//!
//! All is within TLS; the protocol sees to that.

use std::sync::Arc;
use std::time::Instant;

use tokio_rustls::rustls::ProtocolVersion;

use super::Session;
use super::TlsMode;
use super::bans;
use super::bans::Ban;
use super::bans::Bans;
use crate::directory::users;
use crate::directory::users::Dialogue;
use crate::directory::users::Users;
use crate::directory::users::Verdict;
use crate::smtp::reply::Refusal;
use crate::smtp::sasl;
use crate::smtp::sasl::Exchange;
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::Secret;
use crate::smtp::sasl::Turn;
use crate::smtp::sasl::scram::Bindings;
use crate::smtp::server::Login;
use crate::telemetry::events;

/// Who may log in, how, and what becomes of those who fail.
pub struct Logins {
    /// Who knows the users.
    pub users: Arc<Users>,
    /// The mechanisms that may be offered.
    pub mechanisms: Vec<Mechanism>,
    /// What becomes of those who fail.
    pub config: bans::Config,
    /// Outlives a reload.
    pub bans: Bans,
}

/// One login on its way.
pub(super) struct Attempt {
    mechanism: Mechanism,
    /// Whom the client claims to be, once it has said so.
    user: Option<String>,
    how: How,
}

enum How {
    Ours(Exchange),
    Passed(Dialogue),
}

impl Logins {
    /// What is offered on a connection, the strongest first.
    fn offer(&self, bindings: &Bindings) -> Vec<Mechanism> {
        let is_offered = |mechanism: &Mechanism| {
            let can_be_bound = *mechanism != Mechanism::ScramSha256Plus || bindings.are_there();
            can_be_bound && self.mechanisms.contains(mechanism) && self.users.offer(*mechanism)
        };
        Mechanism::ALL.into_iter().filter(is_offered).collect()
    }
}

impl Session<'_> {
    /// Tells the protocol by what a client may log in, where it has to: before TLS, by nothing.
    pub(super) fn offer_login(&mut self) {
        if self.connection.service != super::Service::Submission {
            return;
        }
        let offered = match &self.shared.logins {
            Some(logins) if self.is_secure() => logins.offer(&self.bindings()),
            Some(_) | None => Vec::new(),
        };
        self.server.require_login(offered);
        let certificate = self.certificate.as_ref();
        if certificate.is_some_and(|shown| self.shared.pipeline.knows_certificate(shown)) {
            self.server.excuse_from_login();
        }
    }

    fn is_secure(&self) -> bool {
        self.stream.tls().is_some() && self.connection.tls != TlsMode::Off
    }

    /// The client begins to log in.
    pub(super) async fn ask_login(
        &mut self,
        mechanism: Mechanism,
        initial: Option<Secret>,
    ) -> Login {
        let Some(logins) = &self.shared.logins else {
            return Login::Refused(Refusal::login_unsure());
        };
        if let Some(refusal) = self.banned(logins, None) {
            return Login::Refused(refusal);
        }
        let how = if logins.users.passes_on(mechanism) {
            How::Passed(Dialogue::new(mechanism, self.users_client()))
        } else {
            let mut bindings = self.bindings();
            bindings.offered = logins
                .offer(&bindings)
                .contains(&Mechanism::ScramSha256Plus);
            match Exchange::begin(mechanism, bindings, nonce()) {
                Some(exchange) => How::Ours(exchange),
                None => return Login::Refused(Refusal::login_malformed()),
            }
        };
        self.attempt = Some(Box::new(Attempt {
            mechanism,
            user: None,
            how,
        }));
        self.ask_response(initial).await
    }

    /// The client's next message, where it has one.
    pub(super) async fn ask_response(&mut self, message: Option<Secret>) -> Login {
        let (Some(logins), Some(mut attempt)) = (&self.shared.logins, self.attempt.take()) else {
            return Login::Refused(Refusal::login_malformed());
        };
        let step = match &mut attempt.how {
            How::Ours(exchange) => {
                let turn = exchange.take(message.as_ref().map(Secret::expose));
                self.take_turn(logins, &mut attempt, turn).await
            }
            How::Passed(dialogue) => {
                if let (None, Some(message)) = (&attempt.user, &message) {
                    attempt.user = sasl::claimed_user(attempt.mechanism, message.expose());
                }
                match self.banned(logins, attempt.user.as_deref()) {
                    Some(refusal) => Outcome::Refused(refusal),
                    None => match logins.users.pass_on(dialogue, message).await {
                        users::Turn::Challenge(octets) => Outcome::Challenge(octets),
                        users::Turn::Verdict(verdict) => Outcome::Verdict(verdict),
                    },
                }
            }
        };
        match step {
            Outcome::Challenge(octets) => {
                self.attempt = Some(attempt);
                Login::Challenge(octets)
            }
            Outcome::Refused(refusal) => Login::Refused(refusal),
            Outcome::Verdict(verdict) => self.conclude(logins, &attempt, verdict).await,
        }
    }

    /// Does what the mechanism says, until it wants the client's next message or is through.
    async fn take_turn(&self, logins: &Logins, attempt: &mut Attempt, mut turn: Turn) -> Outcome {
        loop {
            let user = match &turn {
                Turn::Password(credentials) => &credentials.name,
                Turn::Keys(user) | Turn::Proved(user) | Turn::Disproved(user) => user,
                Turn::Challenge(_) | Turn::Malformed => &String::new(),
            };
            if !user.is_empty() {
                attempt.user = Some(user.clone());
                if let Some(refusal) = self.banned(logins, Some(user)) {
                    return Outcome::Refused(refusal);
                }
            }
            turn = match (turn, &mut attempt.how) {
                (Turn::Challenge(octets), _) => return Outcome::Challenge(octets),
                (Turn::Malformed, _) | (_, How::Passed(_)) => {
                    return Outcome::Refused(Refusal::login_malformed());
                }
                (Turn::Password(credentials), _) => {
                    let client = self.users_client();
                    return Outcome::Verdict(logins.users.verify(&credentials, &client).await);
                }
                (Turn::Keys(user), How::Ours(exchange)) => {
                    exchange.keys_found(logins.users.scram_keys(&user))
                }
                (Turn::Proved(user), _) => {
                    let user = logins.users.user(&user).filter(|user| !user.is_disabled);
                    return Outcome::Verdict(match user {
                        Some(user) => Verdict::Granted(user.name.clone()),
                        None => Verdict::Refused {
                            user: attempt.user.clone(),
                            reason: "the user is disabled".to_owned(),
                        },
                    });
                }
                (Turn::Disproved(user), _) => {
                    return Outcome::Verdict(Verdict::Refused {
                        user: Some(user),
                        reason: "wrong password, no such user, or another connection".to_owned(),
                    });
                }
            };
        }
    }

    /// Counts what became of a login, and gives the answer to the client.
    async fn conclude(&mut self, logins: &Logins, attempt: &Attempt, verdict: Verdict) -> Login {
        let (session, peer) = (self.connection.id, self.connection.peer.ip());
        let mechanism = attempt.mechanism;
        let claimed = attempt.user.clone();
        // Dovecot may know the user by another name than the client gave.
        let user = match &verdict {
            Verdict::Granted(user) => Some(user.clone()),
            Verdict::Refused { user, .. } => user.clone().or_else(|| claimed.clone()),
            Verdict::Unsure { .. } => claimed.clone(),
        };
        // Who tries many passwords at once learns of no more of them than one after the other.
        if let Some(refusal) = self.banned(logins, user.as_deref()) {
            return Login::Refused(refusal);
        }
        match verdict {
            Verdict::Granted(user) => {
                for name in [Some(&user), claimed.as_ref()].into_iter().flatten() {
                    logins.bans.succeeded(peer, name, Instant::now());
                }
                events::logged_in(session, peer, &user, &mechanism);
                Login::Granted(user)
            }
            Verdict::Unsure { reason } => {
                let user = user.unwrap_or_default();
                events::login_unsure(session, peer, &user, &reason);
                Login::Refused(Refusal::login_unsure())
            }
            Verdict::Refused { reason, .. } => {
                let shown = user.as_deref().unwrap_or_default();
                events::login_failed(session, peer, shown, &mechanism, &reason);
                let config = &logins.config;
                let bans = logins
                    .bans
                    .failed(config, peer, user.as_deref(), Instant::now());
                for ban in bans {
                    events::banned(ban.of, &ban.whom, ban.failures, ban.lasts);
                }
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => {}
                    () = tokio::time::sleep(config.delay) => {}
                }
                Login::Refused(Refusal::login_failed())
            }
        }
    }

    /// What is said where the client, or the user whom it names, is banned.
    fn banned(&self, logins: &Logins, user: Option<&str>) -> Option<Refusal> {
        let (session, peer) = (self.connection.id, self.connection.peer.ip());
        let ban = logins
            .bans
            .find(&logins.config, peer, user, Instant::now())?;
        let (of, left, refusal) = match ban {
            Ban::Address(left) => ("address", left, Refusal::login_banned_address(left)),
            Ban::User(left) => ("user", left, Refusal::login_banned_user(left)),
        };
        events::login_banned(session, peer, of, left);
        Some(refusal)
    }

    fn users_client(&self) -> users::Client {
        users::Client {
            peer: self.connection.peer,
            local: self.connection.local,
        }
    }

    /// What an exchange on this connection can be bound to.
    fn bindings(&self) -> Bindings {
        let Some(connection) = self.stream.tls() else {
            return Bindings::default();
        };
        let mut bindings = Bindings {
            end_point: self.shared.handshakes.certificates.end_point(connection),
            ..Bindings::default()
        };
        // RFC 9266 §4.2: with older versions it is unique only under conditions.
        if connection.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            let label = b"EXPORTER-Channel-Binding";
            let exported = connection.export_keying_material(vec![0; 32], label, Some(b""));
            bindings.exporter = exported.ok();
        }
        bindings
    }
}

/// What a message of the client's leads to.
enum Outcome {
    Challenge(Vec<u8>),
    Verdict(Verdict),
    Refused(Refusal),
}

/// 144 bits, in letters, digits and two signs.
fn nonce() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |octet: u8| char::from(LETTERS[usize::from(octet & 63)]);
    rand::random::<[u8; 24]>().into_iter().map(letter).collect()
}
