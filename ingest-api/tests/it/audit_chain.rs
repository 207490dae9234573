//! The sealer against a real Postgres: many writers with random delays before COMMIT and rollbacks, two sealers that
//! lose their session now and then. Every committed row is sealed once and in one chain without a gap; a reader that
//! follows the times of the rows must miss some.

use std::collections::HashSet;
use std::time::Duration;

use ingest_api::audit::sealer::{self, Sealer};
use ingest_api::audit::signing::{PublicKeys, Signer};
use ingest_api::verify::Report;
use ingest_api::verify::chain::check;
use ingest_api::verify::published::Published;
use ingest_api::worker::epoch::raise_epoch;
use rand::Rng;
use runtime::lifecycle::Shutdown;
use runtime::ops::Health;
use runtime::pg::Writer;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::rig::{Rig, Size, code, eventually};
use crate::world::SIGNING_KEY;

const WRITERS: usize = 12;
const ACTS_PER_WRITER: usize = 80;
const LOCATIONS: usize = 4;

pub fn signer() -> Signer {
    Signer::from_pem(SIGNING_KEY).unwrap()
}

pub fn keys() -> PublicKeys {
    PublicKeys::parse(&signer().public_text()).unwrap()
}

/// Seals and signs everything there is.
pub async fn seal_all(options: &PgConnectOptions) -> PgConnection {
    let mut conn = sealer::connect(options).await.unwrap();
    while sealer::seal(&mut conn, 7).await.unwrap() > 0 {}
    sealer::sign_heads(&mut conn, &signer()).await.unwrap();
    conn
}

/// What the verification of the chains names.
pub async fn differences(conn: &mut PgConnection, published: &Published) -> Vec<String> {
    let mut report = Report::default();
    check(conn, published, &keys(), &mut report).await.unwrap();
    report.checks.into_iter().flat_map(|check| check.named).collect()
}

fn micros(from: u64, to: u64) -> Duration {
    Duration::from_micros(rand::rng().random_range(from..to))
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn no_row_is_skipped_whenever_it_becomes_visible(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.max_connections(WRITERS as u32 + 6).connect_with(options.clone()).await.unwrap();
    let locations: Vec<Uuid> = (0..LOCATIONS).map(|_| Uuid::now_v7()).collect();
    sqlx::query("insert into streams (stream_id) select unnest($1::uuid[])")
        .bind(&locations)
        .execute(&pool)
        .await
        .unwrap();
    let stop = Shutdown::new();
    let sealers: Vec<_> = (0..2)
        .map(|_| {
            let sealer = Sealer { options: options.clone(), signer: signer(), health: Health::new() };
            tokio::spawn(sealer.run(stop.clone()))
        })
        .collect();
    // Beside the pause of the role a third one that never rests, so that it looks at every moment.
    let eager = tokio::spawn(seal_eagerly(options.clone(), stop.clone()));
    let naive = tokio::spawn(follow_times(options.clone(), stop.clone()));
    let unseat = tokio::spawn(unseat_sealers(pool.clone(), stop.clone()));

    let writers = (0..WRITERS).map(|_| tokio::spawn(write_acts(pool.clone(), locations.clone())));
    let committed: HashSet<Uuid> =
        futures::future::join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    eventually(async || {
        let query = "select count(*) from audit_log a where not exists (select from audit_seals s where s.audit_id = a.audit_id)";
        match sqlx::query_scalar::<_, i64>(query).fetch_one(&pool).await.unwrap() {
            0 => Ok(()),
            waiting => Err(format!("{waiting} rows have no seal")),
        }
    })
    .await;
    stop.cancel();
    for task in sealers {
        task.await.unwrap();
    }
    eager.await.unwrap();
    unseat.await.unwrap();

    let mut conn = seal_all(&options).await;
    let sealed: Vec<Uuid> = sqlx::query_scalar("select audit_id from audit_seals").fetch_all(&mut conn).await.unwrap();
    assert_eq!(sealed.len(), committed.len(), "once each");
    assert_eq!(sealed.into_iter().collect::<HashSet<_>>(), committed);
    assert_eq!(differences(&mut conn, &Published::default()).await, Vec::<String>::new());
    let missed = committed.difference(&naive.await.unwrap()).count();
    assert!(missed > 0, "the naive reader missed nothing: this check proves nothing");
}

/// Rows of random chains; a tenth is rolled back.
async fn write_acts(pool: PgPool, locations: Vec<Uuid>) -> Vec<Uuid> {
    let mut committed = Vec::new();
    for _ in 0..ACTS_PER_WRITER {
        let place = rand::rng().random_range(0..=LOCATIONS);
        let mut tx = pool.begin().await.unwrap();
        let mut ids = Vec::new();
        let rows = rand::rng().random_range(1..4);
        for _ in 0..rows {
            let id = Uuid::now_v7();
            sqlx::query(
                "insert into audit_log (audit_id, epoch, recorded_at, location_id, actor, action, target, request_id)
                 values ($1, 1, clock_timestamp(), $2, $1, 'test', 'test', 'test')",
            )
            .bind(id)
            .bind(locations.get(place))
            .execute(&mut *tx)
            .await
            .unwrap();
            ids.push(id);
            tokio::time::sleep(micros(0, 8_000)).await;
        }
        let gives_up = rand::rng().random_bool(0.1);
        if gives_up {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
            committed.extend(ids);
        }
    }
    committed
}

/// As the role does, without its pause; a lost race for a number or a session is what it would ride out.
async fn seal_eagerly(options: PgConnectOptions, stop: Shutdown) {
    while !stop.is_cancelled() {
        let Ok(mut conn) = sealer::connect(&options).await else { continue };
        while !stop.is_cancelled() {
            if sealer::seal(&mut conn, 5).await.is_err() {
                break;
            }
        }
    }
}

/// The cursor that must not be used.
async fn follow_times(options: PgConnectOptions, stop: Shutdown) -> HashSet<Uuid> {
    let mut conn = PgConnection::connect_with(&options).await.unwrap();
    let (mut seen, mut cursor) = (HashSet::new(), chrono::DateTime::UNIX_EPOCH);
    loop {
        let is_last = stop.is_cancelled();
        let rows: Vec<(Uuid, chrono::DateTime<chrono::Utc>)> =
            sqlx::query_as("select audit_id, recorded_at from audit_log where recorded_at > $1 order by recorded_at")
                .bind(cursor)
                .fetch_all(&mut conn)
                .await
                .unwrap();
        for (id, at) in rows {
            cursor = at;
            seen.insert(id);
        }
        if is_last {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends a sealer's session now and then, in the middle of whatever it does.
async fn unseat_sealers(pool: PgPool, stop: Shutdown) {
    while !stop.is_cancelled() {
        tokio::time::sleep(micros(100_000, 400_000)).await;
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
                   where datname = current_database() and application_name = 'vorca-sealer'";
        sqlx::query(end).execute(&pool).await.unwrap();
    }
}

/// The shortest way to lose a row: it takes its number first and becomes visible last.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_row_that_became_visible_after_a_later_one_was_sealed_is_sealed_too(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let insert = "insert into audit_log (audit_id, epoch, recorded_at, actor, action, target, request_id)
                  values (gen_random_uuid(), 1, now(), gen_random_uuid(), 'test', 'test', 'test')";
    let mut late = pool.begin().await.unwrap();
    sqlx::query(insert).execute(&mut *late).await.unwrap();
    sqlx::query(insert).execute(&pool).await.unwrap();
    let mut conn = seal_all(&options).await;
    let sealed =
        async || -> i64 { sqlx::query_scalar("select count(*) from audit_seals").fetch_one(&pool).await.unwrap() };
    assert_eq!(sealed().await, 1);
    late.commit().await.unwrap();
    while sealer::seal(&mut conn, 7).await.unwrap() > 0 {}
    assert_eq!(sealed().await, 2);
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn rows_from_before_the_seals_are_sealed_too(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let insert = "insert into audit_log (audit_id, epoch, recorded_at, actor, action, target, request_id, xid)
                  select gen_random_uuid(), 1, now() - interval '1 year', gen_random_uuid(), 'old', 'old', 'old', '3'
                  from generate_series(1, 20)";
    sqlx::query(insert).execute(&pool).await.unwrap();
    let mut conn = seal_all(&options).await;
    assert_eq!(differences(&mut conn, &Published::default()).await, Vec::<String>::new());
    let sealed: i64 = sqlx::query_scalar("select count(*) from audit_seals").fetch_one(&pool).await.unwrap();
    assert_eq!(sealed, 20);
}

/// A copy of a database numbers its transactions on its own: what the horizon says of the original is worth nothing.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_horizon_of_another_database_is_forgotten(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    sqlx::query("update audit_progress set horizon = '4000000000', cluster = 1, database = 1")
        .execute(&pool)
        .await
        .unwrap();
    write_acts(pool.clone(), Vec::new()).await;
    let stop = Shutdown::new();
    let sealer = Sealer { options, signer: signer(), health: Health::new() };
    let sealing = tokio::spawn(sealer.run(stop.clone()));
    eventually(async || {
        let query = "select (select count(*) from audit_log) - (select count(*) from audit_seals)";
        match sqlx::query_scalar::<_, i64>(query).fetch_one(&pool).await.unwrap() {
            0 => Ok(()),
            waiting => Err(format!("{waiting} rows have no seal")),
        }
    })
    .await;
    stop.cancel();
    sealing.await.unwrap();
}

/// After a restore the chain goes on from what was restored; heads of the lost time line are named, and a rewrite that
/// calls itself nothing is found.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn after_a_restore_the_chain_goes_on_and_lost_heads_are_named(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options.clone(), Size::default()).await;
    let till = rig.till(0, 0);
    for _ in 0..3 {
        assert_eq!(code(&rig.sell(till, &rig.sale(till, &[0])).await), (201, ""));
    }
    let mut conn = seal_all(&options).await;
    let kept = ingest_api::db::audit::heads(&mut conn).await.unwrap();
    // The lost time line: two more sales and their head, which somebody outside has kept.
    for _ in 0..2 {
        assert_eq!(code(&rig.sell(till, &rig.sale(till, &[0])).await), (201, ""));
    }
    drop(conn);
    let mut conn = seal_all(&options).await;
    let heads = ingest_api::db::audit::heads(&mut conn).await.unwrap();
    let published =
        Published { heads: heads.iter().map(|head| ("topic", head.clone())).collect(), ..Published::default() };
    assert_eq!(differences(&mut conn, &published).await, Vec::<String>::new());
    let lost = heads.iter().find(|head| !kept.contains(head)).unwrap().what.seq;
    assert_eq!(lost, 5);
    // What a restore to the third sale leaves.
    let back = "set session_replication_role = replica;
                delete from audit_heads where seq = 5; delete from audit_seals where seq > 3 and chain <> '00000000-0000-0000-0000-000000000000';
                delete from documents where location_seq > 3; delete from document_lines l where not exists (select from documents d where d.document_id = l.document_id);
                delete from document_tenders t where not exists (select from documents d where d.document_id = t.document_id);
                delete from audit_log a where action = 'sale.create' and not exists (select from documents d where a.target = 'sale/' || d.document_id);
                set session_replication_role = origin";
    sqlx::raw_sql(back).execute(&mut conn).await.unwrap();
    let named = differences(&mut conn, &published).await;
    assert!(named.iter().any(|name| name.contains("at 5 in epoch 1")), "without a restore on record: {named:?}");

    raise_epoch(&Writer::new(rig.pool.clone(), &Shutdown::new()), "restored").await.unwrap();
    drop(conn);
    let mut conn = seal_all(&options).await;
    let mut report = Report::default();
    check(&mut conn, &published, &keys(), &mut report).await.unwrap();
    assert!(report.agrees(), "{report}");
    let is_named = |note: &String| note.contains("at 5 in epoch 1") && note.contains("given up by a restore");
    assert!(report.notes.iter().any(is_named), "{report}");
    let signed: Vec<(i64, i64)> =
        sqlx::query_as("select seq, epoch from audit_heads where chain = $1 order by epoch, seq")
            .bind(rig.shops[0].location_id)
            .fetch_all(&rig.pool)
            .await
            .unwrap();
    assert_eq!(signed, [(3, 1), (3, 2)], "the restored head is signed into the new epoch");
}
