//! The peer of the ingest bench: pgbench running the textbook transaction, statement by statement,
//! over a copy of the same database. It writes the very same rows with the same bytes: the large
//! values (price trace, stored answer, Avro bodies) are taken from a sale that our own run committed.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::process::Command;
use uuid::Uuid;

/// What the script needs to know of the shop it sells in.
pub struct PeerWorld {
    pub locations: Vec<Uuid>,
    pub variants: Vec<Uuid>,
}

/// One pgbench run.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PeerResult {
    pub clients: u32,
    pub sales_per_s: f64,
    pub latency_mean_ms: f64,
}

/// Makes `<database>_peer` as a copy of `database`, with what pgbench needs to draw sales from.
/// `admin` is a superuser URL of the maintenance database; nobody may be connected to the source.
pub async fn prepare(admin: &str, database: &str, world: &PeerWorld) -> anyhow::Result<String> {
    let peer = format!("{database}_peer");
    let mut conn = PgConnection::connect(admin).await?;
    sqlx::query(AssertSqlSafe(format!("drop database if exists {peer} with (force)"))).execute(&mut conn).await?;
    sqlx::query(AssertSqlSafe(format!("create database {peer} template {database}")))
        .execute(&mut conn)
        .await
        .context("copying the database; is every Vorca process stopped?")?;
    let url = with_database(admin, &peer)?;
    let mut conn = PgConnection::connect(&url).await?;
    sqlx::raw_sql(
        "create sequence bench_seq start 1000000;
         create table bench_locations (n int primary key, location_id uuid not null);
         create table bench_variants (n int primary key, variant_id uuid not null);
         create table bench_accounts (n int primary key, account_id uuid not null, customer_id uuid not null);
         insert into bench_accounts select row_number() over (order by account_id), account_id, customer_id from loyalty_accounts;",
    )
    .execute(&mut conn)
    .await?;
    for (table, ids) in [("bench_locations", &world.locations), ("bench_variants", &world.variants)] {
        sqlx::query(AssertSqlSafe(format!(
            "insert into {table} select n, id from unnest($1::uuid[]) with ordinality t(id, n)"
        )))
        .bind(ids)
        .execute(&mut conn)
        .await?;
    }
    take_sample(&url).await?;
    sqlx::raw_sql("analyze").execute(&mut conn).await?;
    Ok(url)
}

fn with_database(url: &str, database: &str) -> anyhow::Result<String> {
    let mut url = reqwest::Url::parse(url).context("the Postgres URL")?;
    url.set_path(database);
    Ok(url.into())
}

/// Keeps the large values of one stored sale with three lines in a one-row table: pgbench reads its
/// script's colons as variables, so they cannot stand in the script.
async fn take_sample(url: &str) -> anyhow::Result<()> {
    let mut conn = PgConnection::connect(url).await?;
    let taken = sqlx::query(
        "create table bench_sample as
         select d.price_trace trace, d.response, l.taxes, l.unit_shares shares, o.topics, o.keys, o.event_ids, o.schema_versions, o.bodies
           from documents d
           join document_lines l on l.document_id = d.document_id and l.line_no = 1
           join outbox o on o.cause_id = d.document_id
          where (select count(*) from document_lines x where x.document_id = d.document_id) = 3
          order by d.recorded_at limit 1",
    )
    .execute(&mut conn)
    .await?
    .rows_affected();
    ensure!(taken == 1, "no sale with three lines to take the bytes from");
    Ok(())
}

/// The transaction a careful engineer writes first: look up, lock, read, decide in the client, write
/// each row with a statement of its own, commit.
fn script(world: &PeerWorld) -> String {
    let mut text = format!(
        "\\set l random(1, {locations})\n\\set a random(1, 5000)\n\\set member random(1, 5)\n",
        locations = world.locations.len()
    );
    for n in 1..=3 {
        text += &format!("\\set v{n} random(1, {})\n", world.variants.len());
    }
    text += "begin;\n\
        select gen_random_uuid() as doc, nextval('bench_seq') as n \\gset\n\
        select location_id as loc from bench_locations where n = :l \\gset\n\
        select status, response from idempotency_keys where principal = :loc and route = 'sales' and key = :doc;\n\
        select document_id from documents where document_id = :doc;\n\
        select last_seq + 1 as seq from streams where stream_id = :loc for no key update \\gset\n\
        select terminal_id as term, register_id as reg from terminals where location_id = :loc order by terminal_id limit 1 \\gset\n\
        select user_id as cashier from grants where role = 'cashier' and (location_id = :loc or location_id is null) limit 1 \\gset\n\
        select version as catalog from catalog_counter \\gset\n";
    for n in 1..=3 {
        text += &format!(
            "select variant_id as var{n} from bench_variants where n = :v{n} \\gset\n\
             select product_id as prod{n}, sku as sku{n}, name as name{n} from variants where variant_id = :var{n} \\gset\n\
             select amount_minor as price{n} from prices where variant_id = :var{n} order by valid_from desc limit 1 \\gset\n"
        );
    }
    text += "insert into documents (document_id, epoch, kind, location_id, location_seq, terminal_id, terminal_seq, register_id, series_epoch,\
           receipt_number, cashier_id, occurred_at_raw, occurred_at, recorded_at, business_date, slot, currency, rounding_mode, cash_step,\
           subtotal_minor, discount_minor, tax_minor, total_minor, rounding_minor, change_minor, content_hash, hash_version, document_digest,\
           pricing_version, price_trace, response, trace_id)\
         select :doc, 1, 'sale', :loc, :seq, :term, :n, :reg, 1, :n, :cashier, now(), now(), now(), current_date, 100, 'EUR',\
           'half_even', 1, 3000, 0, 479, 3000, 0, 0, sha256(:doc::text::bytea), 1, sha256(:doc::text::bytea), :catalog, trace, response, '' from bench_sample;\n";
    for n in 1..=3 {
        text += &format!(
            "insert into document_lines (document_id, line_no, location_id, leg, variant_id, product_id, sku, name, qty, unit, is_measured,\
               tracks_stock, list_price_minor, unit_price_minor, extended_minor, discount_minor, taxes, tax_minor, added_tax_minor, net_minor,\
               payable_minor, unit_shares)\
             select :doc, {n}, :loc, 'sale', :var{n}, :prod{n}, :sku{n}, :name{n}, 1000, 'piece', false, true, 1000, 1000, 1000, 0,\
               taxes, 160, 0, 840, 1000, shares from bench_sample;\n"
        );
    }
    text += "insert into document_tenders (document_id, tender_no, kind, amount_minor, state) values (:doc, 1, 'cash', 3000, 'captured');\n";
    for n in 1..=3 {
        text += &format!(
            "insert into stock_levels (location_id, variant_id) values (:loc, :var{n}) on conflict do nothing;\n\
             select qty - 1000 as qty{n}, version + 1 as ver{n} from stock_levels where location_id = :loc and variant_id = :var{n} for no key update \\gset\n\
             update stock_levels set qty = :qty{n}, version = :ver{n} where location_id = :loc and variant_id = :var{n};\n\
             insert into stock_movements (location_id, variant_id, version, epoch, location_seq, delta, qty_after, cause_type, cause_id, cause_line,\
               reason, actor, effective_at, recorded_at, hysteresis)\
             values (:loc, :var{n}, :ver{n}, 1, :seq, -1000, :qty{n}, 'document', :doc, {n}, 'sale', :cashier, now(), now(), 1000);\n"
        );
    }
    text += "\\if :member = 1\n\
        select account_id as acc from bench_accounts where n = :a \\gset\n\
        select points + 30 as pts, version + 1 as pver, program_id as prog from loyalty_accounts where account_id = :acc for no key update \\gset\n\
        update loyalty_accounts set points = :pts, version = :pver where account_id = :acc;\n\
        insert into loyalty_entries (account_id, version, epoch, location_id, location_seq, program_id, kind, delta, points_after, lots, cause_type, cause_id, actor, effective_at, recorded_at)\
          values (:acc, :pver, 1, :loc, :seq, :prog, 'accrual', 30, :pts, '[]', 'document', :doc, :cashier, now(), now());\n\
        insert into loyalty_lots (lot_id, account_id, cause_id, earned_at, available_at, points, remaining)\
          values (gen_random_uuid(), :acc, :doc, now(), now(), 30, 30);\n\
        \\endif\n";
    text += "update streams set last_seq = :seq where stream_id = :loc;\n\
         insert into idempotency_keys (principal, route, key, fingerprint, status, response) select :loc, 'sales', :doc, sha256(:doc::text::bytea), 201, response from bench_sample;\n\
         insert into audit_log (audit_id, epoch, recorded_at, location_id, actor, action, target, request_id) \
           values (gen_random_uuid(), 1, now(), :loc, :cashier, 'sale.created', :doc, :doc);\n\
         insert into outbox (stream_id, seq, epoch, cause_type, cause_id, created_at, topics, keys, event_ids, schema_versions, bodies) \
           select :loc, :seq, 1, 'document', :doc, now(), topics, keys, event_ids, schema_versions, bodies from bench_sample;\n\
         commit;\n";
    text
}

/// Runs pgbench for `seconds` with `clients` connections; `pgbench` is the binary's path.
pub async fn run(
    pgbench: &Path,
    url: &str,
    world: &PeerWorld,
    clients: u32,
    seconds: u32,
    folder: &Path,
) -> anyhow::Result<PeerResult> {
    let file = folder.join("textbook.sql");
    std::fs::write(&file, script(world))?;
    let output = Command::new(pgbench)
        .args([
            "-n",
            "-M",
            "prepared",
            "-j",
            "1",
            "-c",
            &clients.to_string(),
            "-T",
            &seconds.to_string(),
            "--max-tries=3",
            "-f",
        ])
        .arg(&file)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("running {}", pgbench.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
    let failed = field(&text, "number of failed transactions: ").unwrap_or(0.0);
    ensure!(failed == 0.0, "pgbench had {failed} failed transactions: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PeerResult {
        clients,
        sales_per_s: field(&text, "tps = ").context("pgbench printed no tps")?,
        latency_mean_ms: field(&text, "latency average = ").context("pgbench printed no latency")?,
    })
}

fn field(text: &str, name: &str) -> Option<f64> {
    let rest = &text[text.find(name)? + name.len()..];
    rest.split_whitespace().next()?.parse().ok()
}
