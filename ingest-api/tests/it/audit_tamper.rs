//! Whoever can write to the database past every trigger changes, removes, inserts or swaps something: the verification
//! names it, each of a thousand times.

use chrono::{TimeDelta, Utc};
use ingest_api::audit::roots::close_days;
use ingest_api::verify::published::Published;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::audit_chain::{differences, seal_all, signer};
use crate::rig::{Rig, Size, code, eventually};

const ATTACKS: usize = 1_000;
/// What is sealed or signed.
const TABLES: [&str; 7] =
    ["audit_log", "audit_seals", "audit_heads", "audit_roots", "documents", "document_lines", "document_tenders"];
/// Columns that nobody sealed: the moment of sealing, the transaction, and where a root begins, which follows from the
/// root before it. None of them says anything of an act.
const UNSEALED: [&str; 3] = ["sealed_at", "xid", "audit_roots.after_seq"];

struct Column {
    table: &'static str,
    name: String,
    kind: String,
}

async fn columns(conn: &mut PgConnection) -> Vec<Column> {
    let mut columns = Vec::new();
    for table in TABLES {
        let rows = sqlx::query(
            "select column_name::text, udt_name::text from information_schema.columns where table_name = $1",
        )
        .bind(table)
        .fetch_all(&mut *conn)
        .await
        .unwrap();
        columns.extend(rows.iter().map(|row| Column { table, name: row.get(0), kind: row.get(1) }));
    }
    columns.retain(|column| {
        !UNSEALED.contains(&column.name.as_str()) && !UNSEALED.contains(&&*format!("{}.{}", column.table, column.name))
    });
    columns
}

/// Another value of this type.
fn other(column: &Column) -> String {
    let name = &column.name;
    match column.kind.as_str() {
        "uuid" => "gen_random_uuid()".into(),
        "int8" | "int4" | "int2" => format!("coalesce({name}, 0) + 1"),
        "bool" => format!("not {name}"),
        "text" => format!("coalesce({name}, '') || 'x'"),
        "_text" => format!("{name} || 'x'::text"),
        "bytea" => format!(
            "set_byte(coalesce({name}, decode(repeat('00', 32), 'hex')), 0, (get_byte(coalesce({name}, decode(repeat('00', 32), 'hex')), 0) + 1) % 256)"
        ),
        "timestamptz" => format!("coalesce({name}, now()) + interval '1 microsecond'"),
        "date" => format!("coalesce({name}, '2026-01-01'::date) + 1"),
        "jsonb" => "'{\"forged\": true}'::jsonb".into(),
        other => panic!("{}.{name} is {other}: say how to change it", column.table),
    }
}

/// One act against the books, as SQL that hits a random row.
fn attack(dice: &mut StdRng, columns: &[Column]) -> String {
    let table = TABLES[dice.random_range(0..TABLES.len())];
    let some = |offset: usize| {
        format!("(select ctid from {table} order by ctid offset {offset} % (select count(*) from {table}) limit 1)")
    };
    let row = dice.random_range(0..1_000);
    match dice.random_range(0..10) {
        // A stored head is a copy of a published one: without it nothing is lost.
        0 if table != "audit_heads" => format!("delete from {table} where ctid = {}", some(row)),
        // Inserted: a copy of a row under another identity.
        1 => {
            let bump = match table {
                "audit_seals" => "seq = (select max(seq) + 1 from audit_seals s where s.chain = f.chain), audit_id = gen_random_uuid(), document_id = null, leaf = null, business_date = null",
                "audit_heads" => "seq = seq + 1000",
                "audit_roots" => "root_no = root_no + 1",
                "document_lines" => "line_no = line_no + 1000",
                "document_tenders" => "tender_no = tender_no + 1000",
                "documents" => "document_id = gen_random_uuid(), terminal_seq = terminal_seq + 100000, receipt_number = receipt_number + 100000, location_seq = location_seq + 100000",
                _ => "audit_id = gen_random_uuid()",
            };
            format!("create temp table f on commit drop as select * from {table} where ctid = {};
                     update f set {bump}; insert into {table} select * from f; drop table f", some(row))
        }
        // Two rows of the log change their places in the chain.
        2 => format!(
            "create temp table f on commit drop as select chain, seq, audit_id, row_number() over () as n from audit_seals
               where chain = (select chain from audit_seals group by 1 having count(*) > 3 order by 1 limit 1) order by seq offset {} limit 2;
             update audit_seals set audit_id = gen_random_uuid() where audit_id in (select audit_id from f);
             update audit_seals s set audit_id = (select audit_id from f x where x.n <> f.n) from f where s.chain = f.chain and s.seq = f.seq;
             drop table f",
            row % 3
        ),
        // A document goes to another business day, or its amounts change hands with another's.
        3 => format!("update document_lines set net_minor = net_minor - 1, tax_minor = tax_minor + 1 where ctid = (select ctid from document_lines order by ctid offset {} limit 1)", row % 5),
        _ => {
            let of_table: Vec<&Column> = columns.iter().filter(|column| column.table == table).collect();
            let column = of_table[dice.random_range(0..of_table.len())];
            format!("update {table} set {} = {} where ctid = {}", column.name, other(column), some(row))
        }
    }
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_thousand_forgeries_are_found(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options.clone(), Size { shops: 2, ..Size::default() }).await;
    for n in 0..8 {
        let till = rig.till(n % 2, 0);
        assert_eq!(code(&rig.sell(till, &rig.sale(till, &[0, 1])).await), (201, ""));
    }
    let mut conn = seal_all(&options).await;
    let made = close_days(&mut conn, &signer(), Utc::now() + TimeDelta::days(3)).await.unwrap();
    assert_eq!(made, 2, "a root for each shop");
    drop(conn);
    let mut conn = PgConnection::connect_with(&options).await.unwrap();
    let published = published(&mut conn).await;
    assert_eq!(differences(&mut conn, &published).await, Vec::<String>::new(), "untouched");
    // What was written in the last five seconds may wait for its seal: a copy of it is seen afterwards.
    eventually(async || {
        let sql = "select max(recorded_at) < now() - interval '6 seconds' from audit_log";
        let is_old: bool = sqlx::query_scalar(sql).fetch_one(&rig.pool).await.map_err(|error| error.to_string())?;
        is_old.then_some(()).ok_or_else(|| "the rows are young".to_owned())
    })
    .await;

    let seed: u64 = rand::rng().random();
    let (mut dice, columns) = (StdRng::seed_from_u64(seed), columns(&mut conn).await);
    let (mut tried, mut unseen) = (0, Vec::new());
    while tried < ATTACKS {
        let sql = attack(&mut dice, &columns);
        let mut tx = conn.begin().await.unwrap();
        // Past triggers and checks, as a superuser with a plan would. A value the table cannot hold is no forgery.
        sqlx::raw_sql("set local session_replication_role = replica").execute(&mut *tx).await.unwrap();
        if let Err(error) = sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *tx).await {
            let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
            assert!(code.starts_with("23"), "{sql}: {error}");
            tx.rollback().await.unwrap();
            continue;
        }
        tried += 1;
        if differences(&mut tx, &published).await.is_empty() {
            unseen.push(sql);
        }
        tx.rollback().await.unwrap();
    }
    assert!(unseen.is_empty(), "seed {seed}: {} of {tried} unseen:\n{}", unseen.len(), unseen.join("\n"));
}

/// What left the database before anybody laid hands on it.
async fn published(conn: &mut PgConnection) -> Published {
    let heads = ingest_api::db::audit::heads(conn).await.unwrap();
    let roots = ingest_api::db::audit::roots(conn).await.unwrap();
    Published {
        heads: heads.into_iter().map(|head| ("topic", head)).collect(),
        roots: roots.into_iter().map(|(root, _)| ("topic", root)).collect(),
        unreadable: Vec::new(),
    }
}

/// A whole chain written anew, every hash right and every signature missing but the published ones: found by them alone.
#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_chain_that_was_written_anew_is_found_by_its_published_head(pool: PgPoolOptions, options: PgConnectOptions) {
    let rig = Rig::start(pool, options.clone(), Size::default()).await;
    let till = rig.till(0, 0);
    for _ in 0..4 {
        assert_eq!(code(&rig.sell(till, &rig.sale(till, &[0])).await), (201, ""));
    }
    let mut conn = seal_all(&options).await;
    let published = published(&mut conn).await;
    let forge = "set session_replication_role = replica; delete from audit_seals; delete from audit_heads;
                 update audit_progress set horizon = '0';
                 update document_tenders set card_brand = 'forged' where document_id = (select document_id from documents order by 1 limit 1);
                 set session_replication_role = origin";
    sqlx::raw_sql(forge).execute(&mut conn).await.unwrap();
    drop(conn);
    let mut conn = seal_all(&options).await;
    assert_eq!(differences(&mut conn, &Published::default()).await, Vec::<String>::new(), "right in itself");
    let named = differences(&mut conn, &published).await;
    assert!(named.iter().any(|name| name.contains("topic")), "{named:?}");
}
