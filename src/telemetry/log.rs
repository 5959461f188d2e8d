//! Where events become lines, and where the lines go.
//!
//! A line is made in the task where the event happens, and handed to the thread that writes (`writer`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::Deserialize;
use tracing::Event;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;

use crate::telemetry::line;
use crate::telemetry::line::Fields;
use crate::telemetry::writer::Queue;

/// `[log]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How a line looks.
    pub format: Format,
    /// What is written: this level and those above it.
    pub level: Level,
    /// Where lines go.
    pub target: Target,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `TIME LEVEL MESSAGE name=value ...`
    #[default]
    Text,
    /// One flat JSON object a line.
    Json,
}

/// How much is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// An operator must act.
    Error,
    /// It works, but worse.
    Warn,
    /// One line an event in a message's life.
    #[default]
    Info,
    /// The dialogue.
    Debug,
    /// Everything.
    Trace,
}

/// Where lines go. Under systemd both end in the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The standard error output.
    #[default]
    Stderr,
    /// The standard output.
    Stdout,
}

/// The log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system would not make one, and why.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// A process has one log for all of its life.
    #[error("a log was started before in this process")]
    Twice,
}

/// How long the end of the process waits for what is still in the queue.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The log of this process. When it is dropped, it waits a moment for what is still to be written.
#[derive(Debug)]
pub struct Log {
    config: Arc<ArcSwap<Config>>,
    filter: reload::Handle<Targets, Registry>,
    queue: Queue,
}

/// Starts the log: from here on every event of this process goes through it. Once a process.
pub fn start(config: &Config) -> Result<Log, Error> {
    let queue = match config.target {
        Target::Stderr => Queue::start(io::stderr()),
        Target::Stdout => Queue::start(io::stdout()),
    };
    let (log, subscriber) = assemble(config, queue.map_err(Error::Thread)?);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Twice)?;
    Ok(log)
}

fn assemble(config: &Config, queue: Queue) -> (Log, impl Subscriber + Send + Sync) {
    let (filter, handle) = reload::Layer::new(targets(config.level));
    let config = Arc::new(ArcSwap::from_pointee(*config));
    let lines = Lines {
        config: Arc::clone(&config),
        queue: queue.clone(),
    };
    let log = Log {
        config,
        filter: handle,
        queue,
    };
    (log, Registry::default().with(lines.with_filter(filter)))
}

impl Log {
    /// Takes another format and level. Another target needs a restart.
    pub fn apply(&self, config: &Config) {
        self.config.store(Arc::new(*config));
        // This fails only when the subscriber is gone, and with it every reader of the level.
        let _ = self.filter.reload(targets(config.level));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush(FLUSH_WITHIN);
    }
}

/// Our own events from `level` on; of the libraries only what goes wrong.
fn targets(level: Level) -> Targets {
    let (ours, theirs) = match level {
        Level::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        Level::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        Level::Info => (LevelFilter::INFO, LevelFilter::ERROR),
        Level::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        Level::Trace => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    Targets::new()
        .with_default(theirs)
        .with_target("gatepost", ours)
}

/// The layer that makes lines.
struct Lines {
    config: Arc<ArcSwap<Config>>,
    queue: Queue,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(known) = span.extensions().get::<Fields>() {
                fields.inherit(known);
            }
        }
        let target = event.metadata().target();
        let target = (!target.starts_with("gatepost")).then_some(target);
        let level = *event.metadata().level();
        let format = self.config.load().format;
        self.queue.push(&line::line(
            format,
            Timestamp::now(),
            level,
            target,
            &fields,
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::writer::Sink;

    #[test]
    fn an_event_says_what_its_spans_know_unless_it_says_it_itself() {
        let sink = Sink::default();
        let queue = Queue::start(sink.clone()).unwrap();
        let (log, subscriber) = assemble(&Config::default(), queue);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("session", session = "s1", peer = "192.0.2.1");
            let _inside = span.enter();
            tracing::info!(peer = "other", "accepted");
            tracing::debug!("not said");
            tracing::warn!(target: "foreign", "not said");
        });
        drop(log);
        let text = sink.text();
        assert!(
            text.ends_with(" INFO accepted peer=other session=s1\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn level_and_format_change_while_it_runs() {
        let sink = Sink::default();
        let queue = Queue::start(sink.clone()).unwrap();
        let (log, subscriber) = assemble(&Config::default(), queue);
        tracing::subscriber::with_default(subscriber, || {
            let say = || tracing::debug!(line = 1, "said");
            say();
            log.apply(&Config {
                level: Level::Debug,
                format: Format::Json,
                ..Config::default()
            });
            say();
            log.apply(&Config::default());
            say();
        });
        drop(log);
        let text = sink.text();
        assert!(
            text.ends_with("\"level\":\"debug\",\"message\":\"said\",\"line\":1}\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
