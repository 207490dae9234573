//! `relay replay`: the same records again with the ids they had, in order, and a clear no to what means nothing.

use chrono::{DateTime, Utc};
use ingest_api::db::relay::Rewound;
use ingest_api::operator::Operator;
use ingest_api::relay::replay::{From, Replay, Stream};
use runtime::lifecycle::Shutdown;
use runtime::pg::Writer;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::outbox::{Heard, TOPIC, act, acts, drained, relay, stream};

async fn replay(pool: &PgPool, from: From, stream: Option<&str>, topic: Option<&str>) -> Result<Vec<Rewound>, String> {
    let stream = stream.map(|text| text.parse::<Stream>().unwrap());
    let replay = Replay { from, stream, topic: topic.map(str::to_owned) };
    let by = Operator::here(Some("Anna".parse().unwrap()));
    let done = replay.run(&Writer::new(pool.clone(), &Shutdown::new()), by).await;
    done.map(|done| done.0).map_err(|refusal| refusal.to_string())
}

/// Rows of the audit log about replays: who, what, where and why, in order.
async fn audited(pool: &PgPool) -> Vec<(String, String, Option<Uuid>, String)> {
    let query = "select actor_role, target, location_id, reason from audit_log where action = 'records.replay'
                    and outcome = 'done' order by recorded_at, audit_id";
    sqlx::query_as(query).fetch_all(pool).await.unwrap()
}

/// When an act of a stream was recorded.
async fn recorded(pool: &PgPool, stream: Uuid, seq: i64) -> DateTime<Utc> {
    let query = "select created_at from outbox where stream_id = $1 and seq = $2";
    sqlx::query_scalar(query).bind(stream).bind(seq).fetch_one(pool).await.unwrap()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_was_published_comes_again_in_order_while_the_relay_runs(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let (here, there) = (stream(&pool).await, stream(&pool).await);
    let (heard, stop) = (Heard::default(), Shutdown::new());
    let running = tokio::spawn({
        let (relay, stop) = (relay(&options, heard.clone(), 3), stop.clone());
        async move { relay.run(stop).await }
    });
    let mut first = acts(&pool, here, 4).await;
    let second = acts(&pool, there, 2).await;
    first.extend(act(&pool, here, &[b"a".to_vec(), b"b".to_vec()]).await);
    let once: Vec<Uuid> = first[..4].iter().chain(&second).chain(&first[4..]).copied().collect();
    heard.wait(8).await;
    drained(&pool, here).await;
    assert_eq!(heard.ids(), once);

    // By number: one stream, its last three acts.
    let done = replay(&pool, From::Number(3), Some(&here.to_string()), None).await.unwrap();
    assert_eq!(done, [Rewound { stream_id: here, from_seq: 3, to_seq: 5 }]);
    heard.wait(12).await;
    drained(&pool, here).await;
    assert_eq!(heard.ids()[8..], first[2..]);

    // By time: every stream, in the order in which they were recorded.
    let since = recorded(&pool, here, 4).await;
    let done = replay(&pool, From::Time(since), None, Some(TOPIC)).await.unwrap();
    assert_eq!(done.len(), 2);
    heard.wait(17).await;
    drained(&pool, here).await;
    drained(&pool, there).await;
    stop.cancel();
    running.await.unwrap();
    let again: Vec<Uuid> = first[3..4].iter().chain(&second).chain(&first[4..]).copied().collect();
    assert_eq!(heard.ids()[12..], again);

    // Each has its row, which says who it was.
    let by = Operator::here(Some("Anna".parse().unwrap())).to_string();
    assert!(by.starts_with("operator Anna as "), "{by}");
    let rows = audited(&pool).await;
    assert_eq!(rows[0], (by.clone(), format!("stream/{here}"), Some(here), "from 3".to_owned()));
    let since = From::Time(since);
    assert_eq!(rows[1..], [(by, "streams".to_owned(), None, format!("from {since}, topic {TOPIC}"))]);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn what_means_nothing_is_refused_and_changes_nothing(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let stream = stream(&pool).await;
    let id = stream.to_string();
    acts(&pool, stream, 5).await;
    sqlx::query("update stream_progress set published_seq = 4 where stream_id = $1")
        .bind(stream)
        .execute(&pool)
        .await
        .unwrap();
    sqlx::raw_sql("alter table outbox disable trigger all; delete from outbox where seq = 1")
        .execute(&pool)
        .await
        .unwrap();
    let nowhere = Uuid::now_v7().to_string();
    let tomorrow = Utc::now() + chrono::TimeDelta::days(1);
    for (from, stream, topic, says) in [
        (From::Number(2), None, None, "--stream"),
        (From::Number(5), Some(id.as_str()), None, "published up to number 4"),
        (From::Number(1), Some(id.as_str()), None, "begins at number 2"),
        (From::Number(2), Some(nowhere.as_str()), None, "there is no stream"),
        (From::Time(tomorrow), None, None, "in the future"),
        (From::Number(2), Some(id.as_str()), Some("vorca.inventory.stock.v1"), "no topic of the outbox"),
    ] {
        let refusal = replay(&pool, from, stream, topic).await.unwrap_err();
        assert!(refusal.contains(says), "{refusal}");
    }
    let published: i64 = sqlx::query_scalar("select published_seq from stream_progress where stream_id = $1")
        .bind(stream)
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(published, 4);
    assert_eq!(audited(&pool).await, []);
    // A topic that no act wrote to: nothing to do, and it says so.
    assert_eq!(replay(&pool, From::Number(2), Some(&id), Some("vorca.loyalty.entries.v1")).await, Ok(Vec::new()));
    // What was not published yet is no replay.
    let done = replay(&pool, From::Number(2), Some(&id), None).await.unwrap();
    assert_eq!(done, [Rewound { stream_id: stream, from_seq: 2, to_seq: 4 }]);
}
