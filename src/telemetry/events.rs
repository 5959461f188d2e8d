//! The mail log: one function an event. This is an interface, read by people and by programs.
//!
//! A line is a constant lower-case message and fields. The same name means the same everywhere:
//! `id` (a message, `SESSION.NUMBER`), `session`, `peer`, `from`, `rcpt`, `host`, `stage`,
//! `reply`, `reason`, `size`, `attempt`, `delay`. Never a password, never content. Counters carry few
//! label values; what a stranger chose is never a label.

use std::error::Error;
use std::fmt::Display;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use metrics::counter;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::mail::address::Address;
use crate::mail::envelope::Envelope;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;

/// An error and what is behind it, in one line: a `reason`.
pub fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The gateway takes connections on this address.
pub fn listening(service: &str, address: SocketAddr, tls: &str) {
    info!(service, %address, tls, "listening");
}

/// All parts run.
pub fn started(hostname: &str, data_dir: &Path) {
    info!(hostname, data_dir = %data_dir.display(), "started");
}

/// Told to stop; no new connections from here on.
pub fn draining(sessions: usize) {
    info!(sessions, "draining");
}

/// Everything is closed.
pub fn stopped() {
    info!("stopped");
}

/// A new configuration is in force.
pub fn reloaded() {
    info!("configuration reloaded");
}

/// A new configuration was refused; the old one stays in force.
pub fn reload_refused(reason: &dyn Display) {
    error!(%reason, "configuration not reloaded, the old one stays in force");
}

/// An operator told the queue what to do with a message.
pub fn ordered(id: SpoolId, order: &str, by: &str) {
    info!(%id, order, by, "ordered");
}

/// A client has connected.
pub fn connected(session: SessionId, peer: SocketAddr, service: &str) {
    counter!("gatepost_connections_total").increment(1);
    info!(%session, %peer, service, "connected");
}

/// A connection was turned away before its session began.
pub fn turned_away(peer: IpAddr, reason: &str) {
    counter!("gatepost_turned_away_total", "reason" => reason.to_owned()).increment(1);
    info!(%peer, reason, "turned away");
}

/// A session has ended. `reason` says who ended it and why.
pub fn disconnected(
    session: SessionId,
    peer: SocketAddr,
    reason: &str,
    messages: u32,
    lasted: Duration,
) {
    info!(%session, %peer, reason, messages, lasted = ?lasted, "disconnected");
}

/// A TLS handshake with a client did not come off.
pub fn tls_failed(session: SessionId, peer: SocketAddr, reason: &dyn Display) {
    counter!("gatepost_tls_failures_total").increment(1);
    info!(%session, %peer, %reason, "tls handshake failed");
}

/// A TLS handshake with a client came off. `key_exchange` is empty where an older session was resumed with
/// its own keys.
pub fn tls_begun(
    session: SessionId,
    version: &'static str,
    cipher: &'static str,
    key_exchange: &'static str,
    resumed: bool,
) {
    counter!("gatepost_tls_handshakes_total", "version" => version).increment(1);
    info!(%session, version, cipher, key_exchange, resumed, "tls begun");
}

/// A client that was asked for a certificate has shown one, and holds its key. What `subject` and
/// `issuer` say is proven only by what is known of the fingerprints.
pub fn certificate_shown(
    session: SessionId,
    peer: SocketAddr,
    subject: &str,
    issuer: &str,
    sha256: &dyn Display,
    key_sha256: &dyn Display,
    may_relay: bool,
) {
    info!(%session, %peer, subject, issuer, %sha256, %key_sha256, may_relay, "client certificate");
}

/// A client was refused something. `stage` is the command (`connect`, `rcpt`, `data`); `rcpt` is empty
/// at the first, and names each recipient at the last.
pub fn refused(
    id: SpoolId,
    peer: IpAddr,
    stage: &'static str,
    from: &dyn Display,
    rcpt: &dyn Display,
    reply: &dyn Display,
) {
    counter!("gatepost_refused_total", "stage" => stage).increment(1);
    info!(%id, %peer, stage, %from, %rcpt, %reply, "refused");
}

/// A client has logged in.
pub fn logged_in(session: SessionId, peer: IpAddr, user: &str, mechanism: &dyn Display) {
    counter!("gatepost_logins_total").increment(1);
    info!(%session, %peer, user, %mechanism, "logged in");
}

/// A client could not log in. `user` is whom it claimed to be, empty where it did not say.
pub fn login_failed(
    session: SessionId,
    peer: IpAddr,
    user: &str,
    mechanism: &dyn Display,
    reason: &str,
) {
    counter!("gatepost_login_failures_total").increment(1);
    info!(%session, %peer, user, %mechanism, reason, "login failed");
}

/// Whether a client may log in could not be found out; it was told to try again.
pub fn login_unsure(session: SessionId, peer: IpAddr, user: &str, reason: &str) {
    counter!("gatepost_login_errors_total").increment(1);
    error!(%session, %peer, user, reason, "login not decided");
}

/// Too many logins failed: from now on, and for so long, none is tried. `whom` is a network or a user.
pub fn banned(of: &'static str, whom: &dyn Display, failures: u32, lasts: Duration) {
    counter!("gatepost_login_bans_total", "of" => of).increment(1);
    warn!(of, %whom, failures, lasts = ?lasts, "banned");
}

/// Somebody who is banned tried to log in, and was told so; nothing was looked up.
pub fn login_banned(session: SessionId, peer: IpAddr, of: &'static str, left: Duration) {
    counter!("gatepost_logins_banned_total").increment(1);
    info!(%session, %peer, of, left = ?left, "login refused, banned");
}

/// A client that is refused a lot has to wait for a refusal. `tell` is how many of its replies have
/// waited since the log named it last, where it is to be named again.
pub fn slowed_down(peer: IpAddr, tell: Option<u32>) {
    counter!("gatepost_slowed_replies_total").increment(1);
    if let Some(replies) = tell {
        info!(%peer, replies, "slowed down");
    }
}

/// A rule in observe mode would have refused.
pub fn would_refuse(
    id: SpoolId,
    peer: IpAddr,
    stage: &'static str,
    from: &dyn Display,
    reply: &dyn Display,
) {
    counter!("gatepost_would_refuse_total", "stage" => stage).increment(1);
    info!(%id, %peer, stage, %from, %reply, "would refuse");
}

/// A message was judged after its final dot. `results` is our Authentication-Results, unfolded.
pub fn judged(id: SpoolId, results: &dyn Display) {
    info!(%id, %results, "judged");
}

/// The message is on disk; the client is told so next.
pub fn accepted(id: SpoolId, envelope: &Envelope, size: usize) {
    counter!("gatepost_accepted_total").increment(1);
    counter!("gatepost_accepted_bytes_total").increment(size as u64);
    let (recipients, login) = (envelope.recipients.len(), envelope.login.as_deref());
    info!(%id, from = %envelope.from, login, recipients, size, "accepted");
}

/// A file of the drop directory was taken; what became of it is told under the session's id.
pub fn picked_up(session: SessionId, file: &Path, login: &str) {
    counter!("gatepost_drops_taken_total").increment(1);
    info!(%session, file = %file.display(), login, "picked up");
}

/// A file of the drop directory cannot be taken now; it is tried again in `next`.
pub fn drop_deferred(file: &Path, reason: &dyn Display, next: Duration) {
    warn!(file = %file.display(), %reason, next = ?next, "not picked up");
}

/// A file of the drop directory will not be taken. It was set aside as `file`, or removed where it held
/// nothing.
pub fn drop_refused(file: &Path, login: &str, reason: &dyn Display) {
    counter!("gatepost_drops_refused_total").increment(1);
    error!(file = %file.display(), login, %reason, "drop refused, set aside");
}

/// The drop directory cannot be read, or a file in it be moved or removed.
pub fn drop_failed(file: &Path, reason: &dyn Display) {
    error!(file = %file.display(), %reason, "drop directory out of order");
}

/// Mail of ours was put right before it was stored. `fields` names what was added and taken out.
pub fn repaired(id: SpoolId, fields: &str) {
    info!(%id, fields, "repaired");
}

/// Mail of ours carries the signatures of this domain.
pub fn signed(id: SpoolId, domain: &dyn Display) {
    counter!("gatepost_signed_total").increment(1);
    info!(%id, %domain, "signed");
}

/// Mail of ours could not be signed for this domain; the client was told to try again.
pub fn not_signed(id: SpoolId, domain: &dyn Display, reason: &dyn Display) {
    counter!("gatepost_sign_failures_total").increment(1);
    error!(%id, %domain, %reason, "not signed");
}

/// A user has sent so much that few messages more are taken. Once for each limit and its time.
pub fn limit_near(login: &str, limit: &str, used: u64, most: u64) {
    counter!("gatepost_limits_near_total").increment(1);
    warn!(login, limit, used, most, "limit near");
}

/// The spool could not take a message; the client was told to try again.
pub fn not_stored(id: SpoolId, reason: &dyn Display) {
    counter!("gatepost_store_failures_total").increment(1);
    error!(%id, %reason, "not stored");
}

/// One recipient has the message. `tls` says what was asked of TLS, why, and what came of it.
pub fn delivered(
    id: SpoolId,
    rcpt: &Address,
    host: &dyn Display,
    tls: Option<&str>,
    reply: &dyn Display,
    attempt: u32,
    delay: Duration,
) {
    counter!("gatepost_delivered_total").increment(1);
    info!(%id, %rcpt, %host, tls, %reply, attempt, delay = ?delay, "delivered");
}

/// One recipient will be tried again in `next`.
pub fn deferred(
    id: SpoolId,
    rcpt: &Address,
    host: &dyn Display,
    reason: &dyn Display,
    attempt: u32,
    next: Duration,
) {
    counter!("gatepost_deferred_total").increment(1);
    info!(%id, %rcpt, %host, %reason, attempt, next = ?next, "deferred");
}

/// One recipient will not be tried again; whoever was to be told is told.
pub fn failed(id: SpoolId, rcpt: &Address, host: &dyn Display, reason: &dyn Display, attempt: u32) {
    counter!("gatepost_failed_total").increment(1);
    info!(%id, %rcpt, %host, %reason, attempt, "failed");
}

/// Somebody is told what became of a message: the report is in the spool, by its own id.
pub fn reported(
    id: SpoolId,
    report: SpoolId,
    action: &'static str,
    to: &Address,
    recipients: usize,
) {
    counter!("gatepost_reports_total", "action" => action).increment(1);
    info!(%id, %report, action, %to, recipients, "reported");
}

/// One recipient has failed, and nobody is told of it.
pub fn not_reported(id: SpoolId, rcpt: &Address, reason: &str) {
    counter!("gatepost_unreported_total").increment(1);
    warn!(%id, %rcpt, reason, "failure not reported");
}

/// A report could not be stored. One of a failure is tried again with its recipients.
pub fn report_failed(id: SpoolId, action: &'static str, reason: &dyn Display) {
    counter!("gatepost_report_failures_total").increment(1);
    error!(%id, action, %reason, "report not stored");
}

/// A message is kept and not delivered until an operator releases it.
pub fn held(id: SpoolId, reason: &dyn Display) {
    counter!("gatepost_held_total").increment(1);
    warn!(%id, %reason, "held");
}

/// What the spool found from earlier, now that all of it is read. New mail was taken meanwhile.
pub fn spool_opened(messages: usize, segments: usize, torn_bytes: u64, took: Duration) {
    info!(messages, segments, torn_bytes, took = ?took, "spool opened");
}

/// Part of the spool cannot be read; it was set aside, the rest is in use.
pub fn spool_corrupt(file: &Path, offset: u64, reason: &dyn Display) {
    counter!("gatepost_spool_corrupt_total").increment(1);
    error!(file = %file.display(), offset, %reason, "spool corrupt, part set aside");
}

/// The spool could not write or sync; clients are told to try again.
pub fn spool_failed(file: &Path, reason: &dyn Display) {
    counter!("gatepost_spool_failures_total").increment(1);
    error!(file = %file.display(), %reason, "spool write failed");
}

/// A certificate is in use for these names.
pub fn certificate_loaded(file: &Path, names: &dyn Display) {
    info!(file = %file.display(), %names, "certificate loaded");
}

/// A certificate file cannot be used; the one loaded before stays in use.
pub fn certificate_broken(file: &Path, reason: &dyn Display) {
    error!(file = %file.display(), %reason, "certificate not loaded, the old one stays in use");
}

/// A certificate in use ends before long and was not renewed. Once a day.
pub fn certificate_expiring(file: &Path, names: &dyn Display, expires: Timestamp) {
    counter!("gatepost_certificate_warnings_total").increment(1);
    warn!(file = %file.display(), %names, %expires, "certificate expires soon");
}

/// An authority has given us a certificate.
pub fn certificate_obtained(names: &dyn Display, expires: Timestamp, renewal: Timestamp) {
    counter!("gatepost_certificates_obtained_total").increment(1);
    info!(%names, %expires, %renewal, "certificate obtained");
}

/// An authority has given us no certificate. It is asked again at `next`.
pub fn certificate_not_obtained(
    names: &dyn Display,
    attempt: u32,
    next: Timestamp,
    reason: &dyn Display,
) {
    counter!("gatepost_certificate_failures_total").increment(1);
    error!(%names, attempt, %next, %reason, "certificate not obtained");
}

/// The authority at `directory` has given us an account.
pub fn acme_account(directory: &str, account: &str) {
    info!(directory, account, "account opened");
}

/// The authority does not take our account any more; another one is opened.
pub fn acme_account_lost(directory: &str, reason: &dyn Display) {
    warn!(directory, %reason, "account lost");
}

/// No certificate was given, so one that nobody trusts was made.
pub fn certificate_made(file: &Path, hostname: &str) {
    warn!(file = %file.display(), hostname, "no certificate configured, self-signed one in use");
}

/// A default listener was left out, because this machine has no such network.
pub fn listener_skipped(address: SocketAddr, reason: &dyn Display) {
    warn!(%address, %reason, "not listening");
}

/// A connection could not be accepted; accepting pauses briefly.
pub fn accept_failed(address: &dyn Display, reason: &dyn Display) {
    counter!("gatepost_accept_failures_total").increment(1);
    error!(%address, %reason, "cannot accept connections");
}

/// A proxy's connection was closed for want of a PROXY header that could be believed.
pub fn proxy_refused(peer: IpAddr, reason: &dyn Display) {
    counter!("gatepost_proxy_refused_total").increment(1);
    warn!(%peer, %reason, "proxy refused");
}

/// A session ended by a fault in the program. The others go on.
pub fn session_panicked(reason: &dyn Display) {
    counter!("gatepost_session_panics_total").increment(1);
    error!(%reason, "session panicked");
}

/// The service manager could not be told how we are.
pub fn not_notified(reason: &dyn Display) {
    warn!(%reason, "service manager not notified");
}

/// A certificate is in use, but clients or the operator may have trouble with it.
pub fn certificate_doubtful(file: &Path, reason: &dyn Display) {
    warn!(file = %file.display(), %reason, "certificate doubtful");
}

/// A file of recipients cannot be used; the recipients read before stay in use.
pub fn recipients_broken(file: &Path, reason: &dyn Display) {
    error!(file = %file.display(), %reason, "recipients not loaded, the old ones stay in use");
}

/// The file of users cannot be used; the users read before stay in use.
pub fn users_broken(file: &Path, reason: &dyn Display) {
    error!(file = %file.display(), %reason, "users not loaded, the old ones stay in use");
}

/// Others than its owner may read or write the file of users.
pub fn users_open(file: &Path) {
    warn!(file = %file.display(), "users open to others; give the file mode 0600");
}

/// Whoever knows the users cannot be asked; logins are put off until that is over.
pub fn users_unreachable(host: &dyn Display, reason: &dyn Display) {
    error!(%host, %reason, "users unreachable");
}

/// The gateway keeps the rights of root, because nobody else was named.
pub fn runs_as_root() {
    warn!("running as root; name another user in the key user");
}

/// A reload changed a key that takes effect at the next start.
pub fn needs_restart(key: &str) {
    warn!(key, "changed, but needs a restart");
}

/// Sessions were cut off because they did not end in time.
pub fn cut_off(sessions: usize) {
    warn!(sessions, "sessions cut off");
}

/// A part of the gateway has ended that should not have.
pub fn part_ended(part: &str) {
    error!(part, "part of the gateway ended unexpectedly");
}

/// A destination takes nothing; what is queued for it waits for `pause`, then one message is tried.
pub fn destination_down(host: &dyn Display, reason: &dyn Display, queued: usize, pause: Duration) {
    counter!("gatepost_destination_down_total").increment(1);
    warn!(%host, %reason, queued, pause = ?pause, "destination down");
}

/// A destination that was down takes mail again.
pub fn destination_up(host: &dyn Display, queued: usize) {
    info!(%host, queued, "destination up");
}

/// The next hop did not take a message that is handed on while its client waits; the client is told so.
pub fn passed_back(id: SpoolId, rcpt: &Address, host: &dyn Display, reason: &dyn Display) {
    counter!("gatepost_passed_back_total").increment(1);
    info!(%id, %rcpt, %host, %reason, "passed back");
}

/// TLS with a next hop did not come off; mail goes there in plain text for an hour, as the route allows.
pub fn no_tls_with_host(host: &dyn Display, reason: &dyn Display) {
    counter!("gatepost_host_tls_failures_total").increment(1);
    warn!(%host, %reason, "no tls with next hop");
}

/// What came of TLS with a mail exchanger, by whose word it was asked for.
pub fn host_tls(policy: &'static str, result: &str) {
    let result = result.to_owned();
    counter!("gatepost_host_tls_total", "policy" => policy, "result" => result).increment(1);
}

/// A mail exchanger is not as safe as its domain's policy wants it, or the policy cannot be had.
/// `result` is a word of RFC 8460 §4.3.
pub fn host_not_safe(domain: &str, host: &str, policy: &str, result: &str, reason: &str) {
    warn!(domain, host, policy, result, reason, "next hop not safe");
}

/// No answer of the DNS counts as proven, so that there is no DANE: a resolver is not on this machine.
pub fn nothing_proven() {
    warn!("no DNSSEC, no DANE; see dnssec in [dns]");
}

/// A policy of MTA-STS, or the folder of them, cannot be kept on disk; it lasts until the next start.
pub fn sts_not_kept(file: &Path, reason: &dyn Display) {
    warn!(file = %file.display(), %reason, "mta-sts policy not kept");
}

/// A next hop did not let us log in. Until it does, nothing goes by this route.
pub fn login_failed_at_host(host: &dyn Display, user: &str, reason: &dyn Display) {
    counter!("gatepost_host_login_failures_total").increment(1);
    error!(%host, user, %reason, "cannot log in at next hop");
}

/// A queued message could not be read for delivery; it is tried again in `next`.
pub fn not_loaded(id: SpoolId, reason: &dyn Display, next: Duration) {
    counter!("gatepost_load_failures_total").increment(1);
    error!(%id, %reason, next = ?next, "not loaded");
}

/// A message in the spool cannot be read; it is not delivered.
pub fn spool_unreadable(id: SpoolId, reason: &dyn Display) {
    counter!("gatepost_spool_corrupt_total").increment(1);
    error!(%id, %reason, "message in the spool unreadable");
}

/// The spool ends in a batch that was not finished, so nobody was told that it is stored. Normal
/// after a power cut.
pub fn spool_torn(file: &Path, offset: u64, bytes: u64) {
    warn!(file = %file.display(), offset, bytes, "spool had a torn end, cut off");
}

/// A rule in observe mode would have kept the message for the operator.
pub fn would_hold(id: SpoolId, reason: &dyn Display) {
    info!(%id, %reason, "would hold");
}
