//! The sink's handler: what it makes of a batch, what it refuses, and what it asks to see again.

use std::sync::Arc;

use runtime::consumer::{Batch, Failure, Handler as _, Record, Reject, Trigger};
use runtime::kafka::Headers;
use schemas::codec::{self, Codec};
use schemas::events::{
    AuditHeadSigned, AuditRootSigned, Cashier, Location, LoyaltyPosted, StockFellLow, StockMoved, Variant,
};
use schemas::ids::{LocationId, ProgramId, UserId};
use schemas::time::{Day, Timestamp};
use schemas::topics;
use sinks::marts::Keeper;
use sinks::sink::ClickHouseSink;
use sinks::store::Store;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::world::{DAY, Sale, login, random, sink, variable};

/// The handler, its keeper (which nobody runs), and what frames are made with.
struct Rig {
    store: Store,
    codec: Codec,
    keeper: Arc<Keeper>,
    sink: ClickHouseSink,
}

async fn rig() -> Rig {
    static REGISTERED: OnceCell<()> = OnceCell::const_new();
    let registry = variable("VORCA__REGISTRY__URL");
    codec::init();
    let register = async || drop(schemas::registry::register_all(&registry).await.expect("schemas registered"));
    REGISTERED.get_or_init(register).await;
    rig_with(sink(), &registry)
}

fn rig_with(store: Store, registry: &str) -> Rig {
    let keeper = Arc::new(Keeper::new(store.clone()));
    let sink = ClickHouseSink::new(store.clone(), Codec::new(registry), Arc::clone(&keeper));
    Rig { store, codec: Codec::new(registry), keeper, sink }
}

impl Rig {
    async fn record<E: codec::Record>(&self, event: &E) -> Record {
        let id = self.codec.schema_id::<E>().await.expect("a schema id");
        raw(E::TOPIC.name, codec::frame(id, &codec::encode(event)))
    }

    async fn handle(&mut self, records: Vec<Record>) -> Result<Vec<Reject>, Failure> {
        self.sink.handle(&batch(records)).await
    }

    /// Rows of a raw table, deduplicated, under this condition.
    async fn count(&self, table: &str, condition: &str) -> u64 {
        let sql = format!("SELECT count() FROM vorca_raw.{table} FINAL WHERE {condition}");
        self.store.fetch(&sql).await.unwrap()[0]
    }
}

fn raw(topic: &str, payload: Vec<u8>) -> Record {
    Record {
        topic: topic.into(),
        partition: 0,
        offset: 0,
        timestamp_ms: 1,
        key: Some("key".into()),
        payload: Some(payload.into()),
        headers: Headers::default(),
    }
}

fn batch(mut records: Vec<Record>) -> Batch {
    for (record, offset) in records.iter_mut().zip(0..) {
        record.offset = offset;
    }
    Batch { records, revoked: Vec::new(), assigned: Vec::new(), attempt: 1, trigger: Trigger::Count }
}

fn movement(location: LocationId) -> StockMoved {
    StockMoved {
        epoch: 1,
        location_id: location,
        parent_location_id: None,
        location_seq: 1,
        variant_id: random(),
        version: 1,
        delta: -1_000,
        qty_after: -1_000,
        cause_type: "document".to_owned(),
        cause_id: Uuid::now_v7(),
        cause_line: 1,
        transfer_id: None,
        reason: "sale".to_owned(),
        document_uri: None,
        actor: UserId::NIL,
        approval_id: None,
        effective_at: Timestamp(1_000_000),
        recorded_at: Timestamp(1_000_000),
        business_date: Day(DAY),
        neutral: false,
        threshold: None,
        hysteresis: 1_000,
        resync: false,
        unit_cost: None,
    }
}

fn entry(location: LocationId) -> LoyaltyPosted {
    LoyaltyPosted {
        epoch: 1,
        account_id: random(),
        customer_id: random(),
        program_id: ProgramId::NIL,
        location_id: Some(location),
        location_seq: 1,
        kind: "accrual".to_owned(),
        version: 1,
        delta: 10,
        points_after: 10,
        tier_multiplier: "1".to_owned(),
        lots: Vec::new(),
        cause_type: "document".to_owned(),
        cause_id: Uuid::now_v7(),
        cause_line: 0,
        actor: UserId::NIL,
        approval_id: None,
        effective_at: Timestamp(1_000_000),
        recorded_at: Timestamp(1_000_000),
        resync: false,
    }
}

fn alert(location: LocationId) -> StockFellLow {
    StockFellLow {
        epoch: 1,
        alert_id: Uuid::now_v7(),
        location_id: location,
        location_seq: 1,
        variant_id: random(),
        version: 1,
        qty: 500,
        threshold: 1_000,
        hysteresis: 1_000,
        days_of_cover: None,
        daily_sales: 0,
        cause_id: Uuid::nil(),
        effective_at: Timestamp(1_000_000),
        recorded_at: Timestamp(1_000_000),
    }
}

fn variant() -> Variant {
    Variant {
        epoch: 1,
        variant_id: random(),
        version: 1,
        catalog_version: 1,
        external_id: "v".to_owned(),
        product_id: random(),
        product_name: "Tea".to_owned(),
        category: "Drinks".to_owned(),
        sku: "TEA".to_owned(),
        name: "Green".to_owned(),
        barcodes: Vec::new(),
        unit: "piece".to_owned(),
        is_measured: false,
        tracks_stock: true,
        tax_profile_id: random(),
        is_active: true,
        recorded_at: Timestamp(1_000_000),
    }
}

fn location(location: LocationId) -> Location {
    Location {
        epoch: 1,
        location_id: location,
        version: 1,
        catalog_version: 1,
        external_id: "l".to_owned(),
        name: "Shop".to_owned(),
        currency: "EUR".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        day_cutoff: "00:00".to_owned(),
        opened_on: Day(DAY),
        is_active: true,
        recorded_at: Timestamp(1_000_000),
    }
}

fn head(here: LocationId) -> AuditHeadSigned {
    AuditHeadSigned {
        epoch: 1,
        chain_id: here.0,
        seq: 7,
        hash: "aa".to_owned(),
        key_id: "k".to_owned(),
        signature: "bb".to_owned(),
        signed_at: Timestamp(1_000_000),
    }
}

fn root(here: LocationId) -> AuditRootSigned {
    AuditRootSigned {
        epoch: 1,
        location_id: here,
        business_date: Day(DAY),
        root_no: 2,
        through_seq: 9,
        leaf_count: 3,
        root: "aa".to_owned(),
        key_id: "k".to_owned(),
        signature: "bb".to_owned(),
        signed_at: Timestamp(1_000_000),
    }
}

#[tokio::test]
async fn a_record_of_each_topic_becomes_rows_once_however_often_it_comes() {
    let mut rig = rig().await;
    let here: LocationId = random();
    let variant = variant();
    let cashier = Cashier {
        epoch: 1,
        cashier_id: random(),
        version: 1,
        catalog_version: 1,
        code: "c1".to_owned(),
        is_active: true,
        recorded_at: Timestamp(1_000_000),
    };
    let records = vec![
        rig.record(&Sale::at(here, 1).event()).await,
        rig.record(&movement(here)).await,
        rig.record(&entry(here)).await,
        rig.record(&alert(here)).await,
        rig.record(&variant).await,
        rig.record(&location(here)).await,
        rig.record(&cashier).await,
        rig.record(&head(here)).await,
        rig.record(&root(here)).await,
    ];
    assert_eq!(records.len(), topics::groups::CLICKHOUSE_SINK.topics.len(), "one of each topic");
    for _ in 0..2 {
        assert_eq!(rig.handle(records.clone()).await.unwrap(), []);
    }
    let here = format!("location_id = '{here}'");
    for table in ["documents", "lines", "tenders", "movements", "loyalty_entries", "alerts", "dim_locations"] {
        assert_eq!(rig.count(table, &here).await, 1, "{table}");
    }
    assert_eq!(rig.count("dim_variants", &format!("variant_id = '{}'", variant.variant_id)).await, 1);
    let signed =
        format!("{} and seq = 7 and hash = 'aa' and signature = 'bb'", here.replace("location_id", "chain_id"));
    assert_eq!(rig.count("audit_heads", &signed).await, 1);
    let signed = format!("{here} and business_date = '2026-03-02' and root_no = 2 and leaf_count = 3 and root = 'aa'");
    assert_eq!(rig.count("audit_roots", &signed).await, 1);
    assert_eq!(rig.count("dim_cashiers", &format!("cashier_id = '{}'", cashier.cashier_id)).await, 1);
    assert_eq!(rig.keeper.waiting(), 1, "the slice of the sale has to be computed");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_alone() {
    let mut rig = rig().await;
    let here: LocationId = random();
    let good = rig.record(&Sale::at(here, 1).event()).await;
    let id = rig.codec.schema_id::<StockMoved>().await.unwrap();
    let datum = codec::encode(&movement(here));
    let mut out_of_range = Sale::at(here, 2).event();
    out_of_range.slot = 400;
    let mut tombstone = rig.record(&movement(here)).await;
    tombstone.payload = None;
    let moved = topics::MOVEMENTS.name;
    let records = vec![
        raw(moved, b"no frame at all".to_vec()),
        good,
        raw(moved, codec::frame(2_000_000_000, &datum)),
        raw(moved, codec::frame(id, &datum[..datum.len() / 2])),
        tombstone,
        rig.record(&out_of_range).await,
        raw("somebody.elses.topic", b"x".to_vec()),
        rig.record(&movement(here)).await,
    ];
    let rejects = rig.handle(records).await.unwrap();
    let said: Vec<_> = rejects.iter().map(|reject| (reject.index, reject.code, reject.own_schema)).collect();
    let expected = [
        (0, "malformed_record", false),
        (2, "malformed_record", false),
        (3, "malformed_record", true),
        (5, "out_of_range", false),
        (6, "unknown_topic", false),
    ];
    assert_eq!(said, expected, "only bytes under our own schema id speak against us");
    let here = format!("location_id = '{here}'");
    assert_eq!((rig.count("documents", &here).await, rig.count("movements", &here).await), (1, 1));
}

#[tokio::test]
async fn what_the_store_refuses_is_found_and_the_rest_is_written() {
    let mut rig = rig().await;
    let (here, refused): (LocationId, LocationId) = (random(), random());
    // A rule that only the store knows, for a location that only this test has.
    let migrate = login("vorca_migrate", "VORCA_CLICKHOUSE_MIGRATE_PASSWORD");
    let name = format!("refuse_{}", refused.0.simple());
    let rule = format!("ALTER TABLE vorca_raw.alerts ADD CONSTRAINT {name} CHECK location_id != '{refused}'");
    migrate.execute(&rule).await.unwrap();
    let mut records = Vec::new();
    for index in 0..7 {
        records.push(rig.record(&alert(if index == 4 { refused } else { here })).await);
    }
    let rejects = rig.handle(records).await;
    migrate.execute(&format!("ALTER TABLE vorca_raw.alerts DROP CONSTRAINT {name}")).await.unwrap();
    let rejects = rejects.unwrap();
    let said: Vec<_> = rejects.iter().map(|reject| (reject.index, reject.code)).collect();
    assert_eq!(said, [(4, "refused_by_store")], "{rejects:?}");
    assert_eq!(rig.count("alerts", &format!("location_id = '{here}'")).await, 6);
    assert_eq!(rig.count("alerts", &format!("location_id = '{refused}'")).await, 0);
}

#[tokio::test]
async fn what_is_away_is_waited_for_and_blamed_on_no_record() {
    let mut rig = rig().await;
    let here: LocationId = random();
    let record = rig.record(&Sale::at(here, 1).event()).await;
    let nobody = "http://127.0.0.1:1";
    let without_registry = rig_with(sink(), nobody).handle(vec![record.clone()]).await;
    assert!(matches!(without_registry, Err(Failure::Retry(_))), "{without_registry:?}");
    let away = Store::new(nobody, "vorca_sink", "");
    let without_store = rig_with(away, &variable("VORCA__REGISTRY__URL")).handle(vec![record.clone()]).await;
    assert!(matches!(without_store, Err(Failure::Retry(_))), "{without_store:?}");

    let condition = format!("location_id = '{here}'");
    assert_eq!(rig.count("documents", &condition).await, 0);
    assert_eq!(rig.handle(vec![record]).await.unwrap(), []);
    assert_eq!(rig.count("documents", &condition).await, 1);
}
