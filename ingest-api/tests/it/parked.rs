//! Records that no broker takes: set aside by name, while the rest of their act and stream goes on.

use runtime::kafka::{MAX_RECORD_BYTES, OutRecord, SendError};
use runtime::lifecycle::Shutdown;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use crate::outbox::{Heard, TOPIC, act, acts, drained, relay, stream};

fn small() -> Vec<u8> {
    b"small".to_vec()
}

/// Event id, number and reason of what was set aside, oldest first.
async fn parked(pool: &PgPool, stream: Uuid) -> Vec<(Uuid, i64, String)> {
    let query = "select event_id, seq, reason, topic from outbox_parked where stream_id = $1 order by seq, parked_at";
    let rows = sqlx::query(query).bind(stream).fetch_all(pool).await.unwrap();
    assert!(rows.iter().all(|row| row.get::<String, _>(3) == TOPIC));
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn an_oversized_record_is_parked_and_everything_else_goes_on(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let stream = stream(&pool).await;
    let before = acts(&pool, stream, 2).await;
    let with_it = act(&pool, stream, &[small(), vec![7; MAX_RECORD_BYTES], small()]).await;
    let after = acts(&pool, stream, 2).await;

    let (heard, stop) = (Heard::default(), Shutdown::new());
    let running = tokio::spawn({
        let (relay, stop) = (relay(&options, heard.clone(), 2), stop.clone());
        async move { relay.run(stop).await }
    });
    drained(&pool, stream).await;
    stop.cancel();
    running.await.unwrap();

    let expected: Vec<Uuid> = before.into_iter().chain([with_it[0], with_it[2]]).chain(after).collect();
    assert_eq!(heard.ids(), expected);
    assert_eq!(parked(&pool, stream).await, [(with_it[1], 3, "larger than the broker takes".to_owned())]);
}

/// A broker with a lower limit than ours, which it tells of one record at a time.
struct Strict(Heard);

impl ingest_api::relay::Publish for Strict {
    async fn publish(&self, records: &[OutRecord]) -> Result<(), SendError> {
        if records.iter().any(|record| record.payload.as_ref().is_some_and(|bytes| bytes.len() > 10_000)) {
            return Err(SendError::Refused { topic: TOPIC.to_owned(), reason: "too large for me".to_owned() });
        }
        self.0.take(records);
        Ok(())
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_only_the_broker_finds_too_large_is_parked_one_by_one(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let stream = stream(&pool).await;
    let ids = act(&pool, stream, &[small(), vec![7; 20_000], small(), vec![7; 30_000]]).await;
    let after = acts(&pool, stream, 1).await;

    let (heard, stop) = (Heard::default(), Shutdown::new());
    let running = tokio::spawn({
        let (relay, stop) = (relay(&options, Strict(heard.clone()), 10), stop.clone());
        async move { relay.run(stop).await }
    });
    drained(&pool, stream).await;
    stop.cancel();
    running.await.unwrap();

    assert_eq!(heard.ids(), [ids[0], ids[2], after[0]]);
    let reason = || "too large for me".to_owned();
    assert_eq!(parked(&pool, stream).await, [(ids[3], 1, reason()), (ids[1], 1, reason())]);
}
