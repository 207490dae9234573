//! The peer of the ingest benchmark: pgbench with the transaction a careful engineer writes first. It looks up, locks,
//! decides and writes row by row, a statement each, on a copy of the same database, and writes the very same rows with
//! the same bytes: what is large in a row (price trace, answer, Avro bodies) is taken from a sale that our own run
//! committed. [`written`] proves it: rows and bytes a sale, table by table, for both sides.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::Command;

use super::shop::LOCATIONS;
use crate::stack::postgres_programs;

/// Every table a sale writes new rows to.
pub const TABLES: [&str; 9] = [
    "documents",
    "document_lines",
    "document_tenders",
    "stock_movements",
    "loyalty_entries",
    "loyalty_lots",
    "idempotency_keys",
    "audit_log",
    "outbox",
];

/// One run of pgbench.
#[derive(Debug, Clone, Serialize)]
pub struct PeerResult {
    pub clients: u32,
    pub sales_per_s: f64,
    pub mean_ms: f64,
}

/// A database of the peer.
#[derive(Debug, Clone)]
pub struct Peer {
    pub url: String,
}

/// Rows a sale and bytes a row of one table.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    pub table: &'static str,
    pub rows_per_sale: f64,
    pub bytes_per_row: f64,
}

impl Peer {
    /// Copies `database` with a few sales of three lines in it, of members and of others. Nobody may be connected.
    pub async fn copy_of(admin: &str, database: &str) -> Result<Peer> {
        let mut conn = PgConnection::connect(admin).await?;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and pid <> pg_backend_pid()",
        )
        .bind(database)
        .execute(&mut conn)
        .await?;
        let copy = format!("create database {database}_peer template {database}");
        sqlx::query(AssertSqlSafe(copy)).execute(&mut conn).await.context("copying the database")?;
        let url = with_database(admin, &format!("{database}_peer"))?;
        let mut conn = PgConnection::connect(&url).await?;
        sqlx::raw_sql(PREPARE).execute(&mut conn).await.context("preparing the peer")?;
        let samples: i64 = sqlx::query_scalar("select count(*) from bench_sample").fetch_one(&mut conn).await?;
        ensure!(samples == 2, "no sale of a member and of somebody else to take the bytes from");
        Ok(Peer { url })
    }

    /// Runs pgbench for `seconds` with `clients` connections.
    pub async fn run(&self, clients: u32, seconds: u64, folder: &Path) -> Result<PeerResult> {
        let file = folder.join("textbook.sql");
        std::fs::write(&file, script())?;
        let output = Command::new(postgres_programs()?.join("pgbench"))
            .args(["-n", "-M", "prepared", "-j", "1", "-c", &clients.to_string(), "-T", &seconds.to_string(), "-f"])
            .arg(&file)
            .arg(&self.url)
            .stdin(Stdio::null())
            .output()
            .await
            .context("running pgbench")?;
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench failed: {errors}");
        let field = |name: &str| -> Option<f64> {
            text[text.find(name)? + name.len()..].split_whitespace().next()?.parse().ok()
        };
        let failed = field("number of failed transactions: ").unwrap_or(0.0);
        ensure!(failed == 0.0, "pgbench had {failed} failed transactions: {errors}");
        Ok(PeerResult {
            clients,
            sales_per_s: field("tps = ").context("pgbench printed no tps")?,
            mean_ms: field("latency average = ").context("pgbench printed no latency")?,
        })
    }
}

pub fn with_database(url: &str, database: &str) -> Result<String> {
    let mut url = reqwest::Url::parse(url).context("the Postgres URL")?;
    url.set_path(database);
    Ok(url.into())
}

/// What the newest 5,000 sales wrote, table by table, each row as wide as it is once unpacked.
pub async fn written(url: &str) -> Result<Vec<Written>> {
    let mut conn = PgConnection::connect(url).await?;
    let since = "(select recorded_at from documents order by recorded_at desc offset 5000 limit 1)";
    let mut all = Vec::new();
    let mut sales = 1.0;
    for table in TABLES {
        let (select, recorded) = match table {
            "document_lines" | "document_tenders" => {
                ("t.* from documents d join {t} t using (document_id)", "d.recorded_at")
            }
            "loyalty_lots" => ("t.* from documents d join {t} t on t.cause_id = d.document_id", "d.recorded_at"),
            "idempotency_keys" => ("t.* from {t} t", "t.created_at"),
            "stock_movements" | "loyalty_entries" => ("t.* from {t} t", "t.cause_type = 'document' and t.recorded_at"),
            "outbox" => ("t.* from {t} t", "t.cause_type = 'document' and t.created_at"),
            _ => ("t.* from {t} t", "t.recorded_at"),
        };
        let sql = format!(
            "select count(*), coalesce(avg(pg_column_size(x)), 0)::float8 from (select {} where {recorded} > {since}) x",
            select.replace("{t}", table)
        );
        let (rows, bytes_per_row): (i64, f64) = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut conn).await?;
        if table == "documents" {
            sales = rows.max(1) as f64;
        }
        all.push(Written { table, rows_per_sale: rows as f64 / sales, bytes_per_row });
    }
    Ok(all)
}

/// pgbench reads colons as variables, so what it cannot hold stands in tables of the copy: which location, till and
/// cashier a draw means, and the large values of one sale by a member and one by somebody else.
const PREPARE: &str = "
create function bench_id() returns uuid language sql volatile as $$
    select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(r, 1, 3)
            || '8' || substr(r, 4, 15))::uuid from md5(random()::text) r $$;
create sequence bench_seq start 1000000;
create table bench_locations as
    select row_number() over (order by location_id)::int n, location_id, currency,
           (select terminal_id from terminals t where t.location_id = l.location_id order by register_id limit 1) terminal_id,
           (select register_id from terminals t where t.location_id = l.location_id order by register_id limit 1) register_id,
           (select user_id from grants g where g.location_id = l.location_id and role = 'cashier' order by user_id limit 1) cashier_id
    from locations l;
alter table bench_locations add primary key (n);
create table bench_variants as
    select location_id, row_number() over (partition by location_id order by variant_id)::int n, variant_id from stock_levels;
alter table bench_variants add primary key (location_id, n);
create table bench_members as select row_number() over (order by customer_id)::int n, customer_id from customers;
alter table bench_members add primary key (n);
create table bench_sample as
    select distinct on (d.customer_id is not null) (d.customer_id is not null)::int member, d.price_trace trace, d.response,
           l.taxes, l.unit_shares shares, o.trace_parent, o.topics, o.keys, o.event_ids, o.schema_versions, o.bodies
      from documents d
      join document_lines l on l.document_id = d.document_id and l.line_no = 1
      join outbox o on o.cause_id = d.document_id
     order by d.customer_id is not null, d.recorded_at;
analyze;";

fn script() -> String {
    let mut text = format!(
        "\\set l random(1, {LOCATIONS})\n\\set m random(1, 5000)\n\\set member case when random(1, 5) = 1 then 1 else 0 end\n\
         \\set v1 random(1, 1000)\n\\set v2 random(1, 1000)\n\\set v3 random(1, 1000)\n\
         select bench_id() as doc, nextval('bench_seq') as n, location_id as loc, terminal_id as term, \
           register_id as reg, cashier_id as cashier, currency from bench_locations where n = :l \\gset\n\
         begin;\n\
         select status, response from idempotency_keys where principal = :term::text and route = 'POST /sales' and key = :doc::text;\n\
         select last_seq + 1 as seq from streams where stream_id = :loc::uuid for no key update \\gset\n\
         select t.is_active, g.role from terminals t join grants g on g.user_id = :cashier::uuid \
           and (g.location_id = t.location_id or g.location_id is null) where t.terminal_id = :term::uuid;\n"
    );
    for n in 1..=3 {
        text += &format!(
            "select v.variant_id as var{n}, v.product_id as prod{n}, v.sku as sku{n}, v.name as name{n}, v.unit_cost as cost{n}, \
               p.amount_minor as price{n} from bench_variants b join variants v using (variant_id) \
               join prices p on p.variant_id = v.variant_id and p.location_id is null and p.currency = :currency \
               and p.valid_from <= now() and (p.valid_to is null or p.valid_to > now()) \
               where b.location_id = :loc::uuid and b.n = :v{n} \\gset\n"
        );
    }
    text += "\\set total :price1 + :price2 + :price3\n\
        insert into documents (document_id, epoch, kind, location_id, location_seq, terminal_id, terminal_seq, register_id, \
          series_epoch, receipt_number, cashier_id, customer_id, occurred_at_raw, occurred_at, recorded_at, business_date, slot, \
          currency, rounding_mode, cash_step, subtotal_minor, discount_minor, tax_minor, total_minor, rounding_minor, \
          change_minor, content_hash, hash_version, document_digest, pricing_version, price_trace, response, trace_id) \
        select :doc::uuid, 1, 'sale', :loc::uuid, :seq, :term::uuid, :n, :reg, 1, :n, :cashier::uuid, \
          (select customer_id from bench_members where n = :m and :member = 1), now(), now(), now(), current_date, 100, \
          :currency, 'half_even', 1, :total, 0, 479, :total, 0, 0, sha256(:doc::text::bytea), 1, sha256(:loc::text::bytea), 1, \
          trace, response, md5(:doc::text) from bench_sample where member = :member;\n";
    for n in 1..=3 {
        text += &format!(
            "insert into document_lines (document_id, line_no, location_id, leg, variant_id, product_id, sku, name, qty, unit, \
               is_measured, tracks_stock, list_price_minor, unit_price_minor, extended_minor, discount_minor, taxes, tax_minor, \
               added_tax_minor, net_minor, payable_minor, unit_cost, unit_shares) \
             select :doc::uuid, {n}, :loc::uuid, 'sale', :var{n}::uuid, :prod{n}::uuid, :sku{n}, :name{n}, 1000, 'piece', false, true, \
               :price{n}, :price{n}, :price{n}, 0, taxes, 160, 0, 840, :price{n}, :cost{n}, shares \
               from bench_sample where member = :member;\n"
        );
    }
    text += "insert into document_tenders (document_id, tender_no, kind, amount_minor, state) \
          values (:doc::uuid, 1, 'cash', :total, 'captured');\n";
    for n in 1..=3 {
        text += &format!(
            "select qty - 1000 as qty{n}, version + 1 as ver{n}, threshold as thr{n} from stock_levels \
               where location_id = :loc::uuid and variant_id = :var{n}::uuid for no key update \\gset\n\
             update stock_levels set qty = :qty{n}, version = :ver{n} where location_id = :loc::uuid and variant_id = :var{n}::uuid;\n\
             insert into stock_movements (location_id, variant_id, version, epoch, location_seq, delta, qty_after, cause_type, \
               cause_id, cause_line, reason, actor, effective_at, recorded_at, threshold, hysteresis, unit_cost) \
             values (:loc::uuid, :var{n}::uuid, :ver{n}, 1, :seq, -1000, :qty{n}, 'document', :doc::uuid, {n}, 'sale', \
               :cashier::uuid, now(), now(), :thr{n}, 1000, :cost{n});\n"
        );
    }
    text += "\\if :member\n\
        select account_id as acc, points + 30 as pts, version + 1 as pver, program_id as prog from loyalty_accounts \
          where customer_id = (select customer_id from bench_members where n = :m) for no key update \\gset\n\
        update loyalty_accounts set points = :pts, version = :pver where account_id = :acc::uuid;\n\
        insert into loyalty_entries (account_id, version, epoch, location_id, location_seq, program_id, kind, delta, points_after, \
          lots, cause_type, cause_id, actor, effective_at, recorded_at) \
        values (:acc::uuid, :pver, 1, :loc::uuid, :seq, :prog::uuid, 'accrual', 30, :pts, \
          jsonb_build_array(jsonb_build_object('lot_id', :doc::uuid, 'delta', 30, 'earned_at', now(), 'available_at', now(), \
          'expires_at', null)), 'document', :doc::uuid, :cashier::uuid, now(), now());\n\
        insert into loyalty_lots (lot_id, account_id, cause_id, earned_at, available_at, points, remaining) \
          values (bench_id(), :acc::uuid, :doc::uuid, now(), now(), 30, 30);\n\
        \\endif\n\
        update streams set last_seq = :seq where stream_id = :loc::uuid;\n\
        insert into idempotency_keys (principal, route, key, fingerprint, status, response) \
          values (:term::text, 'POST /sales', :doc::text, sha256(:doc::text::bytea), 201, '');\n\
        insert into audit_log (audit_id, epoch, recorded_at, location_id, actor, actor_role, action, target, after_digest, \
          request_id, terminal_id, address) \
        values (bench_id(), 1, now(), :loc::uuid, :cashier::uuid, 'cashier', 'sale.create', 'sale/' || :doc::text, \
          sha256(:doc::text::bytea), :doc::text, :term::uuid, '127.0.0.1');\n\
        insert into outbox (stream_id, seq, epoch, cause_type, cause_id, trace_parent, created_at, topics, keys, event_ids, \
          schema_versions, bodies) \
        select :loc::uuid, :seq, 1, 'document', :doc::uuid, trace_parent, now(), topics, keys, event_ids, schema_versions, bodies \
          from bench_sample where member = :member;\n\
        commit;\n";
    text
}
