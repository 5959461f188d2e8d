//! The parts list: builds each part once, joins them, reloads, drains, stops. Holds no logic.
//!
//! Start: log, data directory, ports, privileges; then, with threads, what is needed to take mail,
//! and last the listeners. Stop, in the order in which mail flows: no more connections, sessions
//! finished, no more attempts, attempts finished, spool closed.
//!
//! A reload takes a new file as a whole or not at all. Sessions go on with what they began with.

use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use anyhow::Context;
use anyhow::anyhow;
use arc_swap::ArcSwap;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::accept::Sockets;
use crate::accept::local;
use crate::accept::local::pickup;
use crate::accept::local::pickup::Pickup;
use crate::accept::privileges;
use crate::accept::readiness;
use crate::acme;
use crate::acme::Acme;
use crate::acme::Tokens;
use crate::admin;
use crate::admin::health::Health;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::delivery::outcome::Answer;
use crate::delivery::outcome::Fate;
use crate::delivery::routing::Routing;
use crate::directory::Ask;
use crate::directory::Directory;
use crate::directory::Probe;
use crate::directory::users::Users;
use crate::dns::Dns;
use crate::dns::Dnssec;
use crate::http;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Recipient;
use crate::pipeline;
use crate::pipeline::Pipeline;
use crate::report::Reporter;
use crate::scheduler::Route;
use crate::scheduler::Scheduler;
use crate::session::Bans;
use crate::session::Lasting;
use crate::session::Logins;
use crate::session::Onward;
use crate::session::Shared;
use crate::session::handshakes::Handshakes;
use crate::session::through;
use crate::session::through::Through;
use crate::session::through::Verdict;
use crate::sign::Signing;
use crate::spool;
use crate::spool::Arrivals;
use crate::spool::Spool;
use crate::telemetry::events;
use crate::telemetry::log;
use crate::telemetry::log::Log;
use crate::telemetry::metrics;
use crate::telemetry::metrics::Metrics;
use crate::tls;
use crate::verify::Verifier;

/// How long deliveries under way may take to end when the gateway stops.
const LAST_ATTEMPTS: Duration = Duration::from_secs(30);
/// How long an order that is being carried out may take then.
const LAST_ORDERS: Duration = Duration::from_secs(10);

/// Runs the gateway until SIGTERM or SIGINT. `path` is where a reload reads the configuration.
///
/// Errors are those of the start; once it runs, trouble goes to the log.
pub fn serve(path: &Path, config: Config) -> anyhow::Result<()> {
    let log = log::start(&config.log)?;
    let metrics = metrics::install()?;
    let user = config.user.as_deref();
    privileges::make_data_dir(&config.data_dir, user)?;
    let local = config.sendmail.directory.clone();
    if let Some(directory) = &local {
        privileges::make_dir(directory, 0o755, user)?;
    }
    let sockets = Sockets::bind(&config.listen, config.default_listeners())?;
    let web = Web::bind(&config)?;
    match user {
        Some(user) => privileges::drop_to(user)?,
        None if privileges::is_root() => events::runs_as_root(),
        None => {}
    }
    let door = local.as_deref().map(local::Door::open).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let (gateway, arrivals) = Gateway::build(path.to_owned(), config, log)?;
        let running = gateway.run(sockets, door, web, arrivals, metrics, signals);
        running.await
    })
}

/// What lives as long as the process.
struct Gateway {
    path: PathBuf,
    config: Config,
    log: Log,
    parts: Parts,
    /// How the scheduler learns of new routes.
    route: watch::Sender<Route>,
    /// How those who get certificates learn of a reload.
    acme: watch::Sender<acme::Config>,
    shared: Arc<ArcSwap<Shared>>,
    health: Health,
}

/// What sessions lean on, whatever the configuration they began under.
struct Parts {
    certificates: tls::Store,
    signing: Signing,
    dns: Dns,
    spool: Spool,
    /// What is known of clients.
    lasting: Lasting,
    delivery: Arc<Delivery>,
}

impl Gateway {
    fn build(path: PathBuf, config: Config, log: Log) -> anyhow::Result<(Gateway, Arrivals)> {
        let hostname = config.hostname.clone();
        let dns = Dns::new(&config.dns)?;
        if !dns.proves() && config.dns.dnssec != Dnssec::Off {
            events::nothing_proven();
        }
        let delivery = Delivery::new(&config.delivery, hostname.clone(), dns.clone())?;
        let delivery = delivery
            .listening_on(accept::Listen::ports(&config.listen))
            .keeping_in(&config.data_dir);
        let routing = Arc::new(config.routing()?);
        let certificates = tls::Store::open(&config.certificates(), &hostname, &config.data_dir)?;
        let signing = signing(&config)?;
        let (spool, arrivals) = spool::open(&config.data_dir.join("spool"), &config.spool)?;
        let asked = spool.clone();
        let parts = Parts {
            certificates,
            signing,
            dns,
            spool,
            lasting: Lasting::default(),
            delivery: Arc::new(delivery),
        };
        let shared = shared(&config, &parts, &routing)?;
        let gateway = Gateway {
            path,
            log,
            parts,
            route: watch::Sender::new(route(&routing)),
            acme: watch::Sender::new(config.acme.clone()),
            shared: Arc::new(ArcSwap::from_pointee(shared)),
            health: Health::new().asking("spool", move || asked.trouble()),
            config,
        };
        Ok((gateway, arrivals))
    }

    async fn run(
        mut self,
        sockets: Sockets,
        local_door: Option<local::Door>,
        web: Web,
        arrivals: Arrivals,
        metrics: Metrics,
        mut signals: Signals,
    ) -> anyhow::Result<()> {
        let door = admin::bind(&self.config.admin).await?;
        let control = self.config.admin.control_socket(&self.config.data_dir);
        let control = admin::control::bind(&control)?;
        let (no_more_mail, no_more_attempts) = (CancellationToken::new(), CancellationToken::new());

        let mut beside = JoinSet::new();
        let certificates = self.parts.certificates.clone();
        beside.spawn(async move { certificates.watch().await });
        let tokens = Tokens::default();
        web.serve(&mut beside, &tokens, &self.parts.certificates)?;
        beside.spawn(self.acme(tokens).run());
        if let Some(door) = door {
            let health = self.health.clone();
            beside.spawn(admin::serve(
                door,
                metrics.clone(),
                health,
                CancellationToken::new(),
            ));
        }

        let mut outlet = JoinSet::new();
        let scheduler = self.scheduler();
        let (mut desk, no_more_orders) = (JoinSet::new(), CancellationToken::new());
        desk.spawn(admin::control::serve(
            control,
            scheduler.orders(),
            self.health.clone(),
            metrics,
            no_more_orders.clone(),
        ));
        outlet.spawn(scheduler.run(arrivals, no_more_attempts.clone(), LAST_ATTEMPTS));

        // One reload at a time; the next waits in the signal.
        let (reloads, reloading) = mpsc::channel(1);
        let clock = self.parts.spool.clock();
        let ids: accept::Ids = Arc::new(move || clock.next(SystemTime::now()));
        let mut dropped = JoinSet::new();
        if let Some(directory) = &self.config.sendmail.directory {
            let pickup = Pickup::new(
                directory.clone(),
                self.shared.clone(),
                ids.clone(),
                stored(self.parts.spool.clone()),
                no_more_mail.clone(),
            );
            dropped.spawn(pickup.run());
        }
        let mut intake = JoinSet::new();
        intake.spawn(accept::run(
            sockets,
            local_door,
            self.config.limits.clone(),
            self.shared.clone(),
            ids,
            reloading,
            no_more_mail.clone(),
        ));

        events::started(self.config.hostname.as_str(), &self.config.data_dir);
        readiness::ready();
        let lost = loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => break None,
                    Told::Reload => self.reload(&reloads).await,
                },
                ended = intake.join_next() => {
                    events::part_ended("accept");
                    break Some(match ended {
                        Some(Ok(Err(error))) => error.into(),
                        _ => anyhow!("no more connections are taken"),
                    });
                }
                Some(_) = dropped.join_next() => {
                    events::part_ended("pickup");
                    break Some(anyhow!("nothing that was dropped is taken any more"));
                }
                _ = outlet.join_next() => {
                    events::part_ended("scheduler");
                    break Some(anyhow!("nothing is delivered any more"));
                }
            }
        };
        readiness::stopping();
        self.health.trouble("draining", "the gateway is going down");
        no_more_mail.cancel();
        if let Some(Ok(Ok(drained))) = intake.join_next().await
            && drained.aborted > 0
        {
            events::cut_off(drained.aborted);
        }
        let patience = self.config.limits.drain_timeout;
        let _ = tokio::time::timeout(patience, dropped.join_next()).await;
        dropped.shutdown().await;
        no_more_attempts.cancel();
        outlet.join_next().await;
        no_more_orders.cancel();
        let _ = timeout(LAST_ORDERS, desk.join_next()).await;
        self.parts.delivery.close().await;
        self.parts.spool.close().await;
        beside.shutdown().await;
        events::stopped();
        // An error, so that the service manager starts us again.
        lost.map_or(Ok(()), Err)
    }

    fn scheduler(&self) -> Scheduler {
        Scheduler::new(
            self.config.queue.clone(),
            self.parts.spool.clone(),
            self.parts.delivery.clone(),
            self.reporter(),
            self.route.subscribe(),
        )
    }

    fn acme(&self, tokens: Tokens) -> Acme {
        Acme::new(
            self.acme.subscribe(),
            self.config.hostname.clone(),
            &self.config.data_dir,
            self.parts.dns.clone(),
            self.parts.certificates.clone(),
            tokens,
        )
    }

    fn reporter(&self) -> Reporter {
        Reporter::new(
            self.config.bounces.clone(),
            self.config.hostname.clone(),
            self.parts.spool.clone(),
            self.parts.signing.clone(),
        )
    }

    async fn reload(&mut self, reloads: &mpsc::Sender<accept::Reload>) {
        readiness::reloading();
        match self.take_new_file(reloads).await {
            Ok(()) => events::reloaded(),
            Err(error) => events::reload_refused(&format!("{error:#}")),
        }
        readiness::ready();
    }

    /// Reads the file and puts it in force. After an error nothing has changed but, where a listener
    /// could not be had, the certificates.
    async fn take_new_file(
        &mut self,
        reloads: &mpsc::Sender<accept::Reload>,
    ) -> anyhow::Result<()> {
        let mut config = Config::read(&self.path)?;
        self.keep_what_needs_a_restart(&mut config);
        let routing = Arc::new(config.routing()?);
        let signing = signing(&config)?;
        self.parts.certificates.replace(&config.certificates())?;
        let shared = shared(&config, &self.parts, &routing)?;
        let (done, outcome) = oneshot::channel();
        let reload = accept::Reload {
            listen: config.listen.clone(),
            defaults: config.default_listeners(),
            limits: config.limits.clone(),
            done,
        };
        reloads
            .send(reload)
            .await
            .context("the gateway is going down")?;
        outcome.await.context("the gateway is going down")??;
        self.shared.store(Arc::new(shared));
        self.parts.signing.replace(&signing);
        self.route.send_replace(route(&routing));
        self.acme.send_replace(config.acme.clone());
        self.log.apply(&config.log);
        self.config = config;
        Ok(())
    }

    /// What was built once stays as it is; the operator is told where the file says otherwise.
    fn keep_what_needs_a_restart(&self, new: &mut Config) {
        fn keep<T: Clone + PartialEq>(key: &str, old: &T, new: &mut T) {
            if old != new {
                events::needs_restart(key);
                new.clone_from(old);
            }
        }
        let old = &self.config;
        let ports = |config: &Config| {
            let (acme, hostname) = (&config.acme, &config.hostname);
            (acme.listens(hostname), acme.listens_for_tls(hostname))
        };
        if ports(old) != ports(new) {
            // Its listeners are opened while there are privileges.
            keep("acme", &old.acme, &mut new.acme);
        }
        keep("hostname", &old.hostname, &mut new.hostname);
        keep("data_dir", &old.data_dir, &mut new.data_dir);
        keep("user", &old.user, &mut new.user);
        keep("http", &old.http, &mut new.http);
        keep("dns", &old.dns, &mut new.dns);
        keep("spool", &old.spool, &mut new.spool);
        keep("delivery", &old.delivery, &mut new.delivery);
        keep("queue", &old.queue, &mut new.queue);
        keep("bounces", &old.bounces, &mut new.bounces);
        keep("admin", &old.admin, &mut new.admin);
        let (kept, asked) = (&old.sendmail.directory, &mut new.sendmail.directory);
        keep("sendmail.directory", kept, asked);
        keep("log.target", &old.log.target, &mut new.log.target);
    }
}

/// The listeners for the Web: by them an authority sees that a name is ours.
struct Web {
    plain: Vec<TcpListener>,
    tls: Vec<TcpListener>,
}

impl Web {
    /// As privileges may be needed, before they are given up; none where nothing is to be served.
    fn bind(config: &Config) -> anyhow::Result<Web> {
        let (acme, hostname) = (&config.acme, &config.hostname);
        let mut web = Web {
            plain: Vec::new(),
            tls: Vec::new(),
        };
        if acme.listens(hostname) {
            web.plain = accept::bind_others(&config.http.listen, 80)?;
        }
        if acme.listens_for_tls(hostname) {
            web.tls = accept::bind_others(&config.http.tls_listen, 443)?;
        }
        Ok(web)
    }

    fn serve(
        self,
        tasks: &mut JoinSet<()>,
        tokens: &Tokens,
        certificates: &tls::Store,
    ) -> anyhow::Result<()> {
        let tls = TlsAcceptor::from(certificates.web_config()?);
        let plain = self.plain.into_iter().map(|socket| (socket, None));
        let secured = self
            .tls
            .into_iter()
            .map(|socket| (socket, Some(tls.clone())));
        for (socket, tls) in plain.chain(secured) {
            let listener = tokio::net::TcpListener::from_std(socket);
            let listener = listener.context("cannot watch a socket for HTTP")?;
            tasks.spawn(http::serve_pages(listener, tls, tokens.pages()));
        }
        Ok(())
    }
}

/// What an operator wants of the process.
enum Told {
    Stop,
    Reload,
}

/// The signals that we act on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Cancel safe.
    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }
}

/// Where the scheduler sends mail.
fn route(routing: &Arc<Routing>) -> Route {
    let routing = routing.clone();
    Arc::new(move |from, to| Some(routing.target(from, to)))
}

/// The keys of this configuration, which are all to be had.
fn signing(config: &Config) -> anyhow::Result<Signing> {
    let domains = config.signing_domains();
    Ok(Signing::open(&config.signing, &domains, &config.data_dir)?)
}

/// What sessions share under this configuration.
fn shared(config: &Config, parts: &Parts, routing: &Arc<Routing>) -> anyhow::Result<Shared> {
    let hostname = &config.hostname;
    let logins = logins(config, &parts.lasting.bans)?;
    let recipients = config.ours()?.into_iter();
    let recipients = recipients.map(|(name, domain)| (name, domain.recipients));
    let directory = Directory::open(
        config.directory.clone(),
        hostname,
        recipients.collect(),
        ask(parts.delivery.clone(), routing.clone()),
        logins.as_ref().map(|logins| logins.users.clone()),
    )?;
    let decisions = pipeline::Config {
        spf: config.spf.clone(),
        structure: config.structure.clone(),
        dmarc: config.dmarc.clone(),
        submission: config.submission_stages(),
        internal: config.internal.clone(),
    };
    let verifier = Verifier::new(parts.dns.clone(), hostname, &config.verify);
    let pipeline = Pipeline::new(
        hostname.clone(),
        decisions,
        verifier,
        directory,
        parts.signing.clone(),
        parts.lasting.quotas.clone(),
    );
    let session = config.session.clone();
    let onward = Onward {
        spool: parts.spool.clone(),
        through: through(parts.delivery.clone(), routing.clone()),
    };
    let handshakes = Handshakes {
        certificates: parts.certificates.clone(),
        config: config.tls.clone(),
        authorities: tls::Authorities::open(&config.internal.authorities)?,
        pace: parts.lasting.pace.clone(),
    };
    Ok(Shared::new(
        hostname.clone(),
        session,
        pipeline,
        onward,
        handshakes,
        parts.lasting.budget.clone(),
        logins,
    ))
}

/// Who may log in under this configuration. None where nobody can.
fn logins(config: &Config, bans: &Bans) -> anyhow::Result<Option<Logins>> {
    let Some(lookup) = config.submission.lookup() else {
        return Ok(None);
    };
    Ok(Some(Logins {
        users: Arc::new(Users::open(&lookup, &config.data_dir)?),
        mechanisms: config.submission.mechanisms.clone(),
        config: config.submission.logins.clone(),
        bans: bans.clone(),
    }))
}

/// How it is found out whether the spool has a message already.
fn stored(spool: Spool) -> pickup::Stored {
    Box::new(move |id| {
        let spool = spool.clone();
        Box::pin(async move {
            spool.loaded().await.ok()?;
            let found = spool.load(id).await.ok()?;
            Some(found.envelope.recipients.len())
        })
    })
}

/// How the next hop of a domain is asked whether it knows a recipient. Who delivers and who decides
/// do not know each other; this is where they meet.
fn ask(delivery: Arc<Delivery>, routing: Arc<Routing>) -> Ask {
    Box::new(move |address| {
        let delivery = delivery.clone();
        let target = routing.target(None, address.host());
        Box::pin(async move {
            match delivery.probe(&target, &Recipient::new(address)).await {
                Answer::Exists => Probe::Exists,
                Answer::Unknown(_) => Probe::Unknown,
                Answer::Unsure(_) => Probe::Unsure,
            }
        })
    })
}

/// How a session hands on what goes through; here, too, two meet who do not know each other.
fn through(delivery: Arc<Delivery>, routing: Arc<Routing>) -> Through {
    let target = move |from: &ReversePath, to: &Address| {
        let from = from.address().and_then(Address::domain);
        routing.target(from, to.host())
    };
    let way = target.clone();
    Through {
        goes: Box::new(move |from, to| way(from, to).route().through),
        hand_on: Box::new(move |id, to, envelope, content| {
            let delivery = delivery.clone();
            let target = target(&envelope.from, &to);
            Box::pin(async move {
                let outcome = delivery.hand_on(&target, id, &envelope, &content).await;
                through::Answer {
                    verdict: match outcome.fate {
                        Fate::Delivered(_) => Verdict::Taken,
                        Fate::Deferred(_) => Verdict::Later,
                        Fate::Failed => Verdict::Never,
                    },
                    host: match &outcome.peer {
                        Some(peer) => peer.to_string(),
                        None => target.to_string(),
                    },
                    tls: outcome
                        .peer
                        .and_then(|peer| peer.tls.as_deref().map(str::to_owned)),
                    reply: outcome.reply,
                }
            })
        }),
    }
}
