//! The way from the spool to a next hop: handed over, put off, reported, taken up again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use bytes::Bytes;
use gatepost::delivery;
use gatepost::delivery::Delivery;
use gatepost::delivery::Target;
use gatepost::dns;
use gatepost::dns::Dns;
use gatepost::mail::address::Address;
use gatepost::mail::address::Domain;
use gatepost::mail::address::ReversePath;
use gatepost::mail::content::Content;
use gatepost::mail::envelope::Envelope;
use gatepost::mail::envelope::Recipient;
use gatepost::mail::id::SessionId;
use gatepost::mail::id::SpoolId;
use gatepost::report;
use gatepost::report::Reporter;
use gatepost::scheduler::Config;
use gatepost::scheduler::Route;
use gatepost::scheduler::Scheduler;
use gatepost::sign;
use gatepost::sign::Signing;
use gatepost::spool;
use gatepost::spool::Arrivals;
use gatepost::spool::Fate;
use gatepost::spool::Spool;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::SOON;
use crate::support::wait_until;

/// What a server has taken: recipient and body, one entry each.
type Taken = Arc<Mutex<Vec<(String, String)>>>;

/// An LMTP server that knows no `unknown@`, puts off `later@` the first time, and keeps the rest.
struct Server {
    address: String,
    taken: Taken,
    connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Server {
        Server::on(
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            Duration::ZERO,
        )
    }

    /// `slow` passes before each message is answered.
    fn on(listener: TcpListener, slow: Duration) -> Server {
        let address = listener.local_addr().unwrap().to_string();
        let taken = Taken::default();
        let connections = Arc::new(Mutex::new(0));
        let mut tasks = JoinSet::new();
        let (for_task, counted) = (Arc::clone(&taken), Arc::clone(&connections));
        let put_off = Arc::new(Mutex::new(HashSet::new()));
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                let (taken, put_off) = (Arc::clone(&for_task), Arc::clone(&put_off));
                sessions.spawn(async move {
                    let _ = session(stream, taken, put_off, slow).await;
                });
            }
        });
        Server {
            address,
            taken,
            connections,
            _tasks: tasks,
        }
    }

    fn target(&self) -> Target {
        Target::parse(&format!("lmtp:{}", self.address)).unwrap()
    }

    fn recipients(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let mut recipients: Vec<String> = taken.iter().map(|taken| taken.0.clone()).collect();
        recipients.sort();
        recipients
    }
}

async fn session(
    mut stream: TcpStream,
    taken: Taken,
    put_off: Arc<Mutex<HashSet<String>>>,
    slow: Duration,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 hello\r\n").await?;
    let mut accepted = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let reply = match line.split([' ', ':']).next().unwrap() {
            "LHLO" => "250-server\r\n250-PIPELINING\r\n250 8BITMIME\r\n".to_owned(),
            "RCPT" => {
                let recipient = line[9..line.len() - 1].to_owned();
                match recipient.split('@').next().unwrap() {
                    "unknown" => "550 5.1.1 unknown\r\n".to_owned(),
                    "later" if put_off.lock().unwrap().insert(recipient.clone()) => {
                        "450 4.2.0 later\r\n".to_owned()
                    }
                    _ => {
                        accepted.push(recipient);
                        "250 2.1.5 fine\r\n".to_owned()
                    }
                }
            }
            "DATA" if accepted.is_empty() => "503 5.5.1 no recipients\r\n".to_owned(),
            "DATA" => {
                writer.write_all(b"354 go\r\n").await?;
                let mut body = String::new();
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    body.push_str(&line);
                    body.push('\n');
                }
                tokio::time::sleep(slow).await;
                let mut replies = String::new();
                for recipient in accepted.drain(..) {
                    replies.push_str("250 2.0.0 taken\r\n");
                    taken.lock().unwrap().push((recipient, body.clone()));
                }
                replies
            }
            "RSET" => {
                accepted.clear();
                "250 reset\r\n".to_owned()
            }
            _ => "250 fine\r\n".to_owned(),
        };
        writer.write_all(reply.as_bytes()).await?;
    }
    Ok(())
}

/// Retries and pauses so short that a test need not wait.
fn quick() -> Config {
    let short = Duration::from_millis(50);
    Config {
        retry_first: short,
        retry_max: short,
        pause_first: short,
        pause_max: short,
        ..Config::default()
    }
}

/// A scheduler at work on a spool.
struct Queue {
    spool: Spool,
    routes: watch::Sender<Route>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Queue {
    fn open(folder: &Path, config: Config, route: Route) -> Queue {
        let (spool, arrivals) = spool::open(folder, &spool::Config::default()).unwrap();
        Queue::start(spool, arrivals, config, route)
    }

    #[expect(clippy::disallowed_methods, reason = "the handle is kept and awaited")]
    fn start(spool: Spool, arrivals: Arrivals, config: Config, route: Route) -> Queue {
        let dns = Dns::new(&dns::Config::default()).unwrap();
        let hostname = Domain::parse("mx.example").unwrap();
        let delivery = delivery::Config::default();
        let delivery = Delivery::new(&delivery, hostname.clone(), dns).unwrap();
        let (routes, receiver) = watch::channel(route);
        let nowhere = Path::new("/nonexistent");
        let domains = sign::Domains::new();
        let unsigned = Signing::open(&sign::Config::default(), &domains, nowhere).unwrap();
        let bounces = report::Config::default();
        let reporter = Reporter::new(bounces, hostname, spool.clone(), unsigned);
        let scheduler = Scheduler::new(
            config,
            spool.clone(),
            Arc::new(delivery),
            reporter,
            receiver,
        );
        let stop = CancellationToken::new();
        let run = scheduler.run(arrivals, stop.clone(), Duration::from_secs(10));
        Queue {
            spool,
            routes,
            stop,
            running: tokio::spawn(run),
        }
    }

    async fn store(&self, number: u64, to: &[&str]) {
        self.store_by(number, envelope(to)).await;
    }

    async fn store_by(&self, number: u64, envelope: Envelope) {
        let content = Content::from(Bytes::from(format!("Subject: {number}\r\n\r\nbody\r\n")));
        let stored = self
            .spool
            .store(id(number), envelope, content, Fate::Deliver);
        stored.await.unwrap();
    }

    async fn close(self) {
        self.stop.cancel();
        self.running.await.unwrap();
        self.spool.close().await;
    }
}

fn envelope(to: &[&str]) -> Envelope {
    let recipient = |text: &&str| Recipient::new(Address::parse(text).unwrap());
    Envelope::new(
        ReversePath::parse("<sender@x.example>").unwrap(),
        to.iter().map(recipient).collect(),
    )
}

/// Whether a message is in the spool no more.
async fn is_finished(spool: &Spool, number: u64) -> bool {
    matches!(
        spool.load(id(number)).await,
        Err(spool::Error::Unknown { .. })
    )
}

fn id(number: u64) -> SpoolId {
    SpoolId {
        session: SessionId(number),
        serial: 1,
    }
}

fn to(target: &Target) -> Route {
    let target = target.clone();
    Arc::new(move |_, _| Some(target.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_goes_out_once_over_few_connections() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let queue = Queue::open(folder.path(), quick(), to(&server.target()));
    for number in 1..=500 {
        queue.store(number, &["a@y.example", "b@y.example"]).await;
    }
    wait_until(SOON, "all messages", || {
        (server.taken.lock().unwrap().len() == 1000).then_some(())
    });
    let taken: HashSet<_> = server.taken.lock().unwrap().iter().cloned().collect();
    assert_eq!(taken.len(), 1000);
    assert!(*server.connections.lock().unwrap() <= 21);
    queue.close().await;
    // Nothing is left for the next start.
    let queue = Queue::open(folder.path(), quick(), to(&server.target()));
    queue.store(501, &["last@y.example"]).await;
    wait_until(SOON, "the last", || {
        (server.taken.lock().unwrap().len() == 1001).then_some(())
    });
    queue.close().await;
    assert_eq!(server.taken.lock().unwrap().len(), 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_put_off_is_tried_again_and_one_that_failed_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let queue = Queue::open(folder.path(), quick(), to(&server.target()));
    let recipients = ["now@y.example", "unknown@y.example", "later@y.example"];
    queue.store(1, &recipients).await;
    wait_until(SOON, "the second attempt and the report", || {
        (server.recipients().len() == 3).then_some(())
    });
    let want = ["later@y.example", "now@y.example", "sender@x.example"];
    assert_eq!(server.recipients(), want);
    let taken = server.taken.lock().unwrap().clone();
    let report = taken.iter().find(|taken| taken.0 == "sender@x.example");
    let report = &report.unwrap().1;
    for words in [
        "550 5.1.1 unknown",
        "Final-Recipient: rfc822; unknown@y.example",
    ] {
        assert!(report.contains(words), "{report}");
    }
    assert!(!report.contains("later@y.example"), "{report}");
    assert!(is_finished(&queue.spool, 1).await);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_likely_forged_hears_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let queue = Queue::open(folder.path(), quick(), to(&server.target()));
    let forged = Envelope {
        forged: true,
        ..envelope(&["unknown@y.example"])
    };
    queue.store_by(1, forged).await;
    let deadline = Instant::now() + SOON;
    while !is_finished(&queue.spool, 1).await {
        assert!(Instant::now() < deadline, "the message is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What comes after it is delivered; a bounce would have been before that.
    queue.store(2, &["last@y.example"]).await;
    wait_until(SOON, "the last", || {
        (server.recipients() == ["last@y.example"]).then_some(())
    });
    queue.close().await;
    assert_eq!(server.recipients(), ["last@y.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_destination_pauses_its_lane_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let target = Target::parse(&format!("lmtp:{address}")).unwrap();
    let other = Server::start().await;
    let other_target = other.target();
    let route: Route = Arc::new(move |_, host| match host.to_string().as_str() {
        "dead.example" => Some(target.clone()),
        _ => Some(other_target.clone()),
    });
    let queue = Queue::open(folder.path(), quick(), route);
    for number in 1..=100 {
        queue
            .store(number, &["a@dead.example", "b@y.example"])
            .await;
    }
    wait_until(SOON, "the other lane", || {
        (other.recipients().len() == 100).then_some(())
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let server = Server::on(TcpListener::bind(address).await.unwrap(), Duration::ZERO);
    wait_until(SOON, "the lane that was down", || {
        (server.recipients().len() == 100).then_some(())
    });
    queue.close().await;
    assert_eq!(
        (server.recipients().len(), other.recipients().len()),
        (100, 100)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn new_routes_count_for_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let target = server.target();
    let nowhere: Route =
        Arc::new(move |_, host| (host.to_string() == "y.example").then(|| target.clone()));
    let queue = Queue::open(folder.path(), quick(), nowhere);
    queue.store(1, &["a@y.example", "b@gone.example"]).await;
    wait_until(SOON, "the routed one", || {
        (server.recipients() == ["a@y.example"]).then_some(())
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(server.recipients(), ["a@y.example"]);
    queue.routes.send(to(&server.target())).unwrap();
    wait_until(SOON, "the other", || {
        (server.recipients().len() == 2).then_some(())
    });
    queue.close().await;
}

/// Only the sender's domain has a way that is open.
fn back_to_the_sender(server: &Server, else_to: Option<Target>) -> Route {
    let target = server.target();
    Arc::new(move |_, host| match host.to_string().as_str() {
        "x.example" => Some(target.clone()),
        _ => else_to.clone(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        give_up_after: Duration::from_millis(1),
        ..quick()
    };
    let server = Server::start().await;
    let queue = Queue::open(folder.path(), config, back_to_the_sender(&server, None));
    queue.store(1, &["a@gone.example"]).await;
    wait_until(SOON, "the report", || {
        (server.recipients() == ["sender@x.example"]).then_some(())
    });
    let report = server.taken.lock().unwrap()[0].1.clone();
    for words in [
        "It was tried for 1 second.",
        "no route for gone.example",
        "Status: 4.4.7",
    ] {
        assert!(report.contains(words), "{report}");
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_too_old_is_reported_at_once_where_its_destination_stays_down() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        give_up_after: Duration::from_millis(700),
        pause_first: Duration::from_secs(1),
        pause_max: Duration::from_secs(1),
        ..quick()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::parse(&format!("lmtp:{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let server = Server::start().await;
    let route = back_to_the_sender(&server, Some(target));
    let queue = Queue::open(folder.path(), config, route);
    for number in 1..=100 {
        queue.store(number, &["a@dead.example"]).await;
    }
    wait_until(SOON, "a report of each", || {
        (server.recipients().len() == 100).then_some(())
    });
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_makes_no_message_wait_for_years() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let queue = Queue::open(folder.path(), quick(), Arc::new(|_, _| None));
    queue.store(1, &["a@y.example"]).await;
    queue.stop.cancel();
    queue.running.await.unwrap();
    let years = Duration::from_secs(10 * 365 * 24 * 3600);
    queue.spool.defer(id(1), SystemTime::now() + years, 1);
    queue.spool.close().await;
    let queue = Queue::open(folder.path(), quick(), to(&server.target()));
    wait_until(SOON, "the message", || {
        (server.recipients().len() == 1).then_some(())
    });
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_spool_the_scheduler_ends() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path(), quick(), Arc::new(|_, _| None));
    queue.spool.close().await;
    let ended = tokio::time::timeout(Duration::from_secs(10), queue.running);
    ended.await.expect("in time").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_attempts_end_and_leaves_the_rest_to_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::on(listener, Duration::from_millis(300));
    let config = Config {
        attempts_per_destination: 2,
        ..quick()
    };
    let queue = Queue::open(folder.path(), config.clone(), to(&server.target()));
    for number in 1..=6 {
        queue.store(number, &["a@y.example"]).await;
    }
    wait_until(SOON, "two sessions", || {
        (*server.connections.lock().unwrap() == 2).then_some(())
    });
    queue.close().await;
    assert_eq!(server.recipients().len(), 2);
    let began = SystemTime::now();
    let queue = Queue::open(folder.path(), config, to(&server.target()));
    wait_until(SOON, "the rest", || {
        (server.recipients().len() == 6).then_some(())
    });
    assert!(began.elapsed().unwrap() < Duration::from_secs(10));
    queue.close().await;
    assert_eq!(server.recipients().len(), 6);
}
