//! The relay: outbox rows to Kafka, by one leader (D2).
//!
//! The leader holds a session advisory lock on the very connection that reads and records progress. It reads
//! from one snapshot what lies above each stream's published number, publishes in `id` order, awaits every
//! delivery report and then records progress with one write. A crash anywhere can only duplicate. A leader
//! that freezes loses its session, and with it the lock, after `idle_session_timeout`.

mod records;
pub mod replay;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use runtime::kafka::{OutRecord, Producer, SendError};
use runtime::lifecycle::Shutdown;
use runtime::names;
use runtime::ops::Health;
use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::db::relay::{self as db, OutboxRow, Progress};
use records::{Place, size};
pub use records::{SchemaIds, Sending, records_of};

/// Advisory lock of the leader: "vorcarel" as a number.
pub const LEADER_LOCK: i64 = 0x766f_7263_6172_656c;
/// `Relay::batch_acts` of the role.
const BATCH_ACTS: i64 = 2_000;
/// Pause while there is nothing to do: doubles between these.
const POLL_MIN: Duration = Duration::from_millis(1);
const POLL_MAX: Duration = Duration::from_millis(20);
/// The next batch begins this long after the one before for each act that one held, between these bounds. Every batch
/// costs the broker an append for each partition it touches, every consumer a fetch, and Postgres a commit; an act that
/// comes alone goes out at once.
const PACE_PER_ACT: Duration = Duration::from_millis(5);
const PACE_MIN: Duration = Duration::from_millis(20);
const PACE_MAX: Duration = Duration::from_millis(100);
/// How often a follower asks for the lock, and how long a failure is paused.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);
/// A delivery that takes longer is given up and sent again by the same batch.
pub const DELIVERY_LIMIT: Duration = Duration::from_secs(30);
/// While deliveries are awaited the session is used this often: it must not look frozen.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Session settings of the leader's connection. Only index order is ever right for its one large query.
const SETTINGS: [(&str, &str); 8] = [
    ("idle_session_timeout", "5s"),
    ("statement_timeout", "10s"),
    ("lock_timeout", "2s"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_bitmapscan", "off"),
    ("application_name", "vorca-relay"),
];

/// Where records go: Kafka, or what a test puts in its place.
pub trait Publish: Send + Sync {
    /// Delivers all records in order and returns when every one is acknowledged.
    fn publish(&self, records: &[OutRecord]) -> impl Future<Output = Result<(), SendError>> + Send;
}

impl Publish for Producer {
    async fn publish(&self, records: &[OutRecord]) -> Result<(), SendError> {
        self.send_all(records).await
    }
}

/// The role: publishes until `stop`. `committed` wakes it when the API lives in the same process. Declares the
/// readiness check `relay`.
pub async fn run(
    postgres: &runtime::config::Postgres,
    kafka: &runtime::config::Kafka,
    committed: Arc<Notify>,
    stop: Shutdown,
    health: Health,
) -> anyhow::Result<()> {
    let options = postgres.url.expose_secret().parse().context("VORCA__POSTGRES__URL")?;
    let producer = Producer::with_delivery_limit(kafka, DELIVERY_LIMIT)?;
    health.set("relay", false, "starting");
    health.started();
    Relay { options, producer, wake: Some(committed), health, batch_acts: BATCH_ACTS }.run(stop).await;
    Ok(())
}

/// One relay process: follower until it gets the lock, then leader until it loses it.
pub struct Relay<P> {
    pub options: PgConnectOptions,
    pub producer: P,
    /// Notified after each commit when the API lives in the same process.
    pub wake: Option<Arc<Notify>>,
    pub health: Health,
    /// Acts read and published together.
    pub batch_acts: i64,
}

/// What a leader holds for as long as it leads.
struct Leader {
    schemas: SchemaIds,
    /// The batch after the one on its way, read already.
    ahead: Option<Vec<PgRow>>,
}

/// Why a leader stopped leading.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("schema {subject} version {version} has no pinned id: run `ingest-api migrate`")]
    UnknownSchema { subject: String, version: i16 },
}

impl<P: Publish> Relay<P> {
    /// Runs until `stop`. Database and broker failures are ridden out.
    pub async fn run(&self, stop: Shutdown) {
        self.health.set("relay", false, "starting");
        while !stop.is_cancelled() {
            match self.lead(&stop).await {
                Ok(()) => {}
                Err(error) => {
                    self.health.set("relay", false, error.to_string());
                    tracing::warn!(%error, "the relay lost its session");
                }
            }
            pause(FOLLOW_PAUSE, &stop).await;
        }
    }

    /// One session: asks for the lock, and leads as long as it holds it.
    async fn lead(&self, stop: &Shutdown) -> Result<(), Lost> {
        let options = self.options.clone().options(SETTINGS).disable_statement_logging();
        let mut conn = PgConnection::connect_with(&options).await?;
        while !try_lock(&mut conn).await? {
            self.health.set("relay", true, "follower");
            pause(FOLLOW_PAUSE, stop).await;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
        let mut leader = Leader { schemas: SchemaIds::new(db::schema_ids(&mut conn).await?), ahead: None };
        tracing::info!("this relay leads");
        self.health.set("relay", true, "leader");
        let mut idle = POLL_MIN;
        let mut measured = Instant::now() - MEASURE_EVERY;
        while !stop.is_cancelled() {
            let began = Instant::now();
            let published = self.publish_next(&mut conn, &mut leader, stop).await?;
            if measured.elapsed() >= MEASURE_EVERY {
                measured = Instant::now();
                self.measure(&mut conn).await?;
            }
            if let Some(acts) = published {
                idle = POLL_MIN;
                if leader.ahead.is_none() {
                    let pace = (PACE_PER_ACT * acts as u32).clamp(PACE_MIN, PACE_MAX);
                    pause(pace.saturating_sub(began.elapsed()), stop).await;
                }
                continue;
            }
            self.wait(idle, stop).await;
            idle = (idle * 2).min(POLL_MAX);
        }
        // Gives the lock back at once; without this the session's end would.
        conn.close().await?;
        Ok(())
    }

    /// One batch: read (unless it was read already), publish, record progress. Its acts; None when nothing waited.
    async fn publish_next(
        &self,
        conn: &mut PgConnection,
        leader: &mut Leader,
        stop: &Shutdown,
    ) -> Result<Option<usize>, Lost> {
        let rows = match leader.ahead.take() {
            Some(rows) => rows,
            None => db::unpublished(conn, self.batch_acts, &[]).await?,
        };
        if rows.is_empty() {
            return Ok(None);
        }
        let rows = rows.iter().map(OutboxRow::of).collect::<Result<Vec<_>, _>>()?;
        let mut sending = match records_of(&rows, &leader.schemas) {
            Ok(sending) => sending,
            Err(_) => {
                // A newer build has registered more since this one started.
                leader.schemas = SchemaIds::new(db::schema_ids(conn).await?);
                records_of(&rows, &leader.schemas)
                    .map_err(|(subject, version)| Lost::UnknownSchema { subject, version })?
            }
        };
        self.park_oversized(conn, &rows, &mut sending).await?;
        let progress = progress_of(&rows);
        // A full batch means a backlog: the next one is read while this one is on its way.
        let mut reads_ahead = rows.len() as i64 == self.batch_acts;
        while let Err(error) = self.publish_alive(conn, &sending, leader, &progress, reads_ahead).await? {
            tracing::warn!(records = sending.records.len(), %error, "a batch was not delivered and is sent again");
            self.health.detail("kafka", error.to_string());
            if let SendError::Refused { topic, reason } = &error {
                self.park_refused(conn, &rows, &mut sending, topic, reason).await?;
            }
            if stop.is_cancelled() {
                return Ok(Some(rows.len()));
            }
            self.keep_alive(conn, FOLLOW_PAUSE).await?;
            reads_ahead = false;
        }
        db::mark_published(conn, &progress).await?;
        metrics::counter!(names::RELAY_RECORDS).increment(sending.records.len() as u64);
        Ok(Some(rows.len()))
    }

    /// Publishes while the session is kept in use; an error of the session means that the lock is gone.
    async fn publish_alive(
        &self,
        conn: &mut PgConnection,
        sending: &Sending,
        leader: &mut Leader,
        progress: &[Progress],
        reads_ahead: bool,
    ) -> Result<Result<(), SendError>, sqlx::Error> {
        let publishing = self.producer.publish(&sending.records);
        tokio::pin!(publishing);
        if reads_ahead {
            let reading = db::unpublished(&mut *conn, self.batch_acts, progress);
            tokio::pin!(reading);
            tokio::select! {
                rows = &mut reading => leader.ahead = Some(rows?),
                result = &mut publishing => {
                    // Never dropped half-way: the connection would be in the middle of an answer.
                    leader.ahead = Some(reading.await?);
                    return Ok(result);
                }
            }
        }
        loop {
            tokio::select! {
                result = &mut publishing => return Ok(result),
                () = tokio::time::sleep(KEEP_ALIVE) => {}
            }
            sqlx::query("select 1").execute(&mut *conn).await?;
        }
    }

    async fn keep_alive(&self, conn: &mut PgConnection, pause: Duration) -> Result<(), sqlx::Error> {
        tokio::time::sleep(pause).await;
        sqlx::query("select 1").execute(conn).await?;
        Ok(())
    }

    /// A record that no broker takes is set aside with an alarm; what follows it goes on.
    async fn park_oversized(
        &self,
        conn: &mut PgConnection,
        rows: &[OutboxRow<'_>],
        sending: &mut Sending,
    ) -> Result<(), sqlx::Error> {
        let is_oversized = |record: &OutRecord| size(record) > runtime::kafka::MAX_RECORD_BYTES;
        while let Some(index) = sending.records.iter().position(is_oversized) {
            let place = sending.remove(index);
            self.park(conn, rows, place, "larger than the broker takes").await?;
        }
        Ok(())
    }

    /// The client refused a record of this topic for what it is: the largest one is set aside.
    async fn park_refused(
        &self,
        conn: &mut PgConnection,
        rows: &[OutboxRow<'_>],
        sending: &mut Sending,
        topic: &str,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        let of_topic = sending.records.iter().enumerate().filter(|(_, record)| record.topic == topic);
        let Some((largest, _)) = of_topic.max_by_key(|(_, record)| size(record)) else { return Ok(()) };
        let place = sending.remove(largest);
        self.park(conn, rows, place, reason).await
    }

    async fn park(
        &self,
        conn: &mut PgConnection,
        rows: &[OutboxRow<'_>],
        place: Place,
        reason: &str,
    ) -> Result<(), sqlx::Error> {
        let row = &rows[place.row];
        tracing::error!(stream = %row.stream_id, seq = row.seq, event = %row.event_ids[place.ordinal], reason,
            "a record cannot be published and is parked");
        metrics::counter!(names::RELAY_PARKED).increment(1);
        db::park(conn, row, place.ordinal, reason).await
    }

    async fn measure(&self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (rows, age) = db::backlog(conn).await?;
        metrics::gauge!(names::OUTBOX_ROWS).set(rows as f64);
        metrics::gauge!(names::OUTBOX_AGE_SECONDS).set(age);
        self.health.detail("outbox", format!("{rows} rows, oldest {age:.1} s"));
        Ok(())
    }

    /// Until somebody commits in this process, or the pause is over.
    async fn wait(&self, idle: Duration, stop: &Shutdown) {
        let committed = async {
            match &self.wake {
                Some(wake) => wake.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = committed => {}
            () = tokio::time::sleep(idle) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn try_lock(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(LEADER_LOCK).fetch_one(conn).await
}

async fn pause(pause: Duration, stop: &Shutdown) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = stop.cancelled() => {}
    }
}

/// The highest number of each stream in the batch.
fn progress_of(rows: &[OutboxRow<'_>]) -> Vec<Progress> {
    let mut by_stream: HashMap<Uuid, Progress> = HashMap::new();
    for row in rows {
        let progress = by_stream.entry(row.stream_id).or_insert(Progress {
            stream_id: row.stream_id,
            from_seq: row.published_seq,
            to_seq: row.seq,
        });
        progress.to_seq = progress.to_seq.max(row.seq);
    }
    by_stream.into_values().collect()
}
