//! What each login may do. The rights stand in `migrations/clickhouse/users.xml.tmpl`.

use sinks::store::Store;

use crate::world::{analyst, api, sink};

async fn refused(store: &Store, sql: &str) {
    let error = match store.execute(sql).await {
        Ok(()) => panic!("must be refused: {sql}"),
        Err(error) => format!("{:#}", anyhow::Error::new(error)),
    };
    let is_denied = error.contains("ACCESS_DENIED") || error.contains("READONLY");
    assert!(is_denied, "refused for another reason: {sql}: {error}");
}

const FORBIDDEN: &[&str] = &[
    "INSERT INTO vorca_raw.alerts (location_id) VALUES (generateUUIDv4())",
    "INSERT INTO vorca.fct_alerts (alert_id) VALUES (generateUUIDv4())",
    "CREATE TABLE vorca.mine (a Int8) ENGINE = Memory",
    "DROP VIEW vorca.fct_lines",
    "ALTER TABLE vorca_raw.lines DELETE WHERE 1",
    "SELECT * FROM vorca_raw.lines LIMIT 1",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM system.parts LIMIT 1",
    "SELECT * FROM remote('127.0.0.1', 'vorca_raw.lines') LIMIT 1",
];

#[tokio::test]
async fn an_analyst_reads_the_views_and_nothing_else() {
    let analyst = analyst();
    analyst.fetch::<u64>("SELECT count() FROM vorca.fct_lines").await.expect("views are theirs");
    for sql in FORBIDDEN {
        refused(&analyst, sql).await;
    }
    refused(&analyst, "SELECT 1 SETTINGS readonly = 0").await;
}

#[tokio::test]
async fn the_api_reads_the_views_and_nothing_else() {
    let api = api();
    api.fetch::<u64>("SELECT count() FROM vorca.agg_slot_sales").await.expect("views are its");
    for sql in FORBIDDEN {
        refused(&api, sql).await;
    }
}

#[tokio::test]
async fn the_sink_writes_rows_but_no_schema() {
    let sink = sink();
    for sql in [
        "DROP TABLE vorca_raw.lines",
        "ALTER TABLE vorca_raw.lines DELETE WHERE 1",
        "CREATE TABLE vorca_raw.mine (a Int8) ENGINE = ReplacingMergeTree ORDER BY a",
        "TRUNCATE TABLE vorca_raw.lines",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    ] {
        refused(&sink, sql).await;
    }
}

#[tokio::test]
async fn every_column_of_every_view_says_what_it_is() {
    let silent: Vec<String> = analyst()
        .fetch("SELECT concat(table, '.', name) FROM system.columns WHERE database = 'vorca' AND comment = ''")
        .await
        .unwrap();
    assert!(silent.is_empty(), "{silent:?}");
    let views: Vec<String> = analyst()
        .fetch("SELECT name FROM system.tables WHERE database = 'vorca' AND comment != '' ORDER BY name")
        .await
        .unwrap();
    assert_eq!(
        views,
        [
            "agg_day_products",
            "agg_day_variants",
            "agg_slot_sales",
            "agg_slot_tenders",
            "dim_cashier",
            "dim_location",
            "dim_product",
            "fct_alerts",
            "fct_audit_heads",
            "fct_audit_roots",
            "fct_documents",
            "fct_lines",
            "fct_loyalty_entries",
            "fct_movements",
            "fct_tenders",
            "kpi_freshness",
        ]
    );
    let nullable: Vec<String> = sink()
        .fetch("SELECT concat(table, '.', name) FROM system.columns WHERE database IN ('vorca', 'vorca_raw') AND type LIKE '%Nullable%'")
        .await
        .unwrap();
    assert!(nullable.is_empty(), "{nullable:?}");
}
