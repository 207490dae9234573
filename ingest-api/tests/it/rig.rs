//! A small business in a fresh database: one tax profile, a few shops, variants, tills, staff and members.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use ingest_api::catalog_cache::CatalogCache;
use ingest_api::db::sales::Origin;
use ingest_api::error::ApiError;
use ingest_api::lanes::{Answer, LaneHandle, LanesConfig, Offer};
use ingest_api::pricing::Terms;
use ingest_api::sales::check::valid_sale;
use ingest_api::sales::price::offered;
use ingest_api::sales::types::{NewLine, NewSale, NewTender, Receipt, TenderKind, ValidSale};
use schemas::ids::TerminalId;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// Of every wait. Far beyond what anything here takes: it only ends a test that would never end.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Looks until the look has a result; after [`DEADLINE`] the test fails with what it still missed.
pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(missing) => assert!(Instant::now() < deadline, "not within {} s: {missing}", DEADLINE.as_secs()),
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Price of every variant, 19 % contained.
pub const PRICE: i64 = 1190;

pub struct Rig {
    pub pool: PgPool,
    pub options: PgConnectOptions,
    pub catalog: Arc<CatalogCache>,
    pub lanes: LaneHandle,
    tasks: TaskTracker,
    pub shops: Vec<Shop>,
    pub variants: Vec<Uuid>,
    pub cashier: Uuid,
    pub customers: Vec<Uuid>,
}

/// A business whose database nobody is connected to.
pub struct Closed {
    shops: Vec<Shop>,
    variants: Vec<Uuid>,
    cashier: Uuid,
    customers: Vec<Uuid>,
}

impl Closed {
    /// The same business in a database that holds it, perhaps restored to an earlier state.
    pub async fn reopen(self, options: PgConnectOptions) -> Rig {
        let options = options.disable_statement_logging();
        let pool = PgPoolOptions::new().max_connections(5).connect_with(options.clone()).await.unwrap();
        let catalog = CatalogCache::load(pool.clone()).await.unwrap();
        let (lanes, tasks) = lanes(&options, &catalog, &patient_lanes());
        let Closed { shops, variants, cashier, customers } = self;
        Rig { pool, options, catalog, lanes, tasks, shops, variants, cashier, customers }
    }
}

/// A shop with its tills.
pub struct Shop {
    pub location_id: Uuid,
    pub tills: Vec<Till>,
}

pub struct Till {
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    next: AtomicI64,
}

pub struct Size {
    pub shops: usize,
    pub tills: usize,
    pub variants: usize,
    pub customers: usize,
    pub oversell: &'static str,
    pub lanes: LanesConfig,
}

impl Default for Size {
    fn default() -> Self {
        Size { shops: 1, tills: 2, variants: 5, customers: 2, oversell: "allow_and_flag", lanes: patient_lanes() }
    }
}

/// Lanes and a database with all the time a busy machine needs, so that no sale is refused for being slow: what is
/// refused all the same is a defect. Refusing in time is the subject of one test only.
pub fn patient_lanes() -> LanesConfig {
    LanesConfig { wait_max: DEADLINE, statement_max: DEADLINE, ..LanesConfig::default() }
}

impl Rig {
    /// Everything in place, lanes running.
    pub async fn start(pool: PgPoolOptions, options: PgConnectOptions, size: Size) -> Rig {
        let options = options.disable_statement_logging();
        let pool = pool.connect_with(options.clone()).await.unwrap();
        let (shops, variants, cashier, customers) = seed(&pool, &size).await;
        let catalog = CatalogCache::load(pool.clone()).await.unwrap();
        let (lanes, tasks) = lanes(&options, &catalog, &size.lanes);
        Rig { pool, options, catalog, lanes, tasks, shops, variants, cashier, customers }
    }

    /// Lanes of a second process on the same database.
    pub async fn another_node(&self) -> LaneHandle {
        let catalog = CatalogCache::load(self.pool.clone()).await.unwrap();
        lanes(&self.options, &catalog, &patient_lanes()).0
    }

    /// Lanes of a process that reaches the same database in another way.
    pub fn node(&self, options: &PgConnectOptions, config: &LanesConfig) -> LaneHandle {
        lanes(options, &self.catalog, config).0
    }

    /// Ends every connection of this rig; what it knows of the business is kept for [`Rig::reopen`].
    pub async fn close(self) -> Closed {
        let Rig { pool, lanes, tasks, shops, variants, cashier, customers, .. } = self;
        drop(lanes);
        tasks.close();
        tasks.wait().await;
        pool.close().await;
        Closed { shops, variants, cashier, customers }
    }

    pub fn till(&self, shop: usize, till: usize) -> &Till {
        &self.shops[shop].tills[till]
    }

    /// A sale of one piece of each of `variants`, paid in cash.
    pub fn sale(&self, till: &Till, variants: &[usize]) -> NewSale {
        let number = till.next.fetch_add(1, Ordering::SeqCst) + 1;
        let lines: Vec<NewLine> = variants
            .iter()
            .enumerate()
            .map(|(index, variant)| NewLine {
                line_no: index as i32 + 1,
                variant_id: self.variants[*variant],
                qty: 1000,
                discount: None,
                override_: None,
            })
            .collect();
        let total_minor = PRICE * lines.len() as i64;
        NewSale {
            sale_id: Uuid::now_v7(),
            location_id: till.location_id,
            terminal_seq: number,
            receipt: Receipt { series_epoch: 1, number },
            cashier_id: self.cashier,
            customer_id: None,
            lease_id: None,
            occurred_at: Utc::now(),
            sent_at: None,
            currency: "EUR".into(),
            lines,
            order_discount: None,
            coupons: Vec::new(),
            tenders: vec![NewTender { kind: TenderKind::Cash, amount_minor: total_minor, card: None }],
            redemption: None,
            total_minor,
            approval: None,
        }
    }

    pub fn valid(&self, till: &Till, new: NewSale) -> ValidSale {
        valid_sale(new, TerminalId(till.terminal_id), Utc::now()).unwrap()
    }

    /// Sends a sale through its lane under `key`.
    pub async fn send(&self, till: &Till, new: &NewSale, key: &str) -> Result<Answer, ApiError> {
        self.send_by(&self.lanes, till, new, key).await
    }

    /// Sends a sale through the lanes of some node, once.
    pub async fn send_by(&self, lanes: &LaneHandle, till: &Till, new: &NewSale, key: &str) -> Result<Answer, ApiError> {
        let sale = self.valid(till, new.clone());
        let snapshot = self.catalog.current();
        let offered = offered(&snapshot, &sale, &Terms::default());
        let priced_at = (snapshot.version, snapshot.epoch);
        let origin = Origin { request_id: "test".into(), ..Origin::default() };
        lanes.commit(Offer { sale, key: key.into(), origin, priced_at, offered }).await
    }

    pub async fn sell(&self, till: &Till, new: &NewSale) -> Result<Answer, ApiError> {
        self.send(till, new, &new.sale_id.to_string()).await
    }

    pub async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub async fn stock(&self, shop: usize, variant: usize) -> Option<(i64, i64)> {
        sqlx::query_as("select qty, version from stock_levels where location_id = $1 and variant_id = $2")
            .bind(self.shops[shop].location_id)
            .bind(self.variants[variant])
            .fetch_optional(&self.pool)
            .await
            .unwrap()
    }

    pub async fn set_stock(&self, shop: usize, variant: usize, pieces: i64) {
        // Straight into the ledger, as a receipt would: one movement, version 1.
        let query = "with m as (insert into stock_movements (location_id, variant_id, version, epoch, location_seq, delta,
                         qty_after, cause_type, cause_id, cause_line, reason, actor, effective_at, recorded_at, hysteresis)
                     values ($1, $2, 1, 1, 0, $3, $3, 'stock_act', gen_random_uuid(), 1, 'opening', $4, now(), now(), 1000))
                     insert into stock_levels (location_id, variant_id, qty, version) values ($1, $2, $3, 1)";
        sqlx::query(query)
            .bind(self.shops[shop].location_id)
            .bind(self.variants[variant])
            .bind(pieces * 1000)
            .bind(self.cashier)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// The invariants that every state must satisfy.
    pub async fn assert_consistent(&self) {
        for (name, query) in INVARIANTS {
            let broken: Vec<(String,)> =
                sqlx::query_as(sqlx::AssertSqlSafe(*query)).fetch_all(&self.pool).await.unwrap();
            assert!(broken.is_empty(), "{name}: {broken:?}");
        }
    }
}

/// Each returns the identities that break it.
const INVARIANTS: &[(&str, &str)] = &[
    (
        "each stock line moved stock once",
        "select l.document_id::text from document_lines l
         left join stock_movements m on m.cause_id = l.document_id and m.cause_line = l.line_no
         where l.tracks_stock group by l.document_id, l.line_no having count(m.version) <> 1",
    ),
    (
        "money adds up",
        "select d.document_id::text from documents d
         where (select sum(payable_minor) from document_lines l where l.document_id = d.document_id) <> d.total_minor
            or (select coalesce(sum(amount_minor), 0) from document_tenders t where t.document_id = d.document_id)
               - d.change_minor <> d.total_minor + d.rounding_minor",
    ),
    (
        "ledger sum is the level and versions are gapless",
        "select l.variant_id::text from stock_levels l
         full join (select location_id, variant_id, sum(delta) d, count(*) n, max(version) v
                    from stock_movements group by 1, 2) m using (location_id, variant_id)
         where (l.qty, l.version, l.version) is distinct from (coalesce(m.d, 0)::bigint, coalesce(m.n, 0), coalesce(m.v, 0))",
    ),
    (
        "post-states are right",
        "select variant_id::text from (
            select *, sum(delta) over (partition by location_id, variant_id order by version) r from stock_movements) x
         where r <> qty_after",
    ),
    (
        "points are ledger, balance and lots",
        "select a.account_id::text from loyalty_accounts a
         left join (select account_id, sum(delta) d, count(*) n from loyalty_entries group by 1) e using (account_id)
         left join (select account_id, sum(remaining) r from loyalty_lots group by 1) l using (account_id)
         where a.points <> coalesce(e.d, 0) or a.version <> coalesce(e.n, 0) or a.points <> coalesce(l.r, 0)",
    ),
    (
        "location numbers are gapless and each document has its outbox row",
        "select s.stream_id::text from streams s
         left join (select stream_id, count(*) n, max(seq) m from outbox group by 1) o using (stream_id)
         where s.last_seq <> coalesce(o.n, 0) or s.last_seq <> coalesce(o.m, 0)
         union all select document_id::text from documents d
         where not exists (select 1 from outbox o where o.cause_id = d.document_id and o.seq = d.location_seq)",
    ),
    (
        "each document has its key and its audit row",
        "select document_id::text from documents d
         where not exists (select 1 from idempotency_keys k where k.fingerprint = d.content_hash)
            or (select count(*) from audit_log a where a.target = 'sale/' || d.document_id) <> 1",
    ),
];

fn lanes(options: &PgConnectOptions, catalog: &Arc<CatalogCache>, config: &LanesConfig) -> (LaneHandle, TaskTracker) {
    let (committed, tasks) = (Arc::new(Notify::new()), TaskTracker::new());
    (LaneHandle::start(options.clone(), catalog.clone(), committed, config, &tasks), tasks)
}

async fn seed(pool: &PgPool, size: &Size) -> (Vec<Shop>, Vec<Uuid>, Uuid, Vec<Uuid>) {
    let ids = |count: usize| (0..count).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    let (profile, cashier) = (Uuid::now_v7(), Uuid::now_v7());
    let (locations, variants, customers) = (ids(size.shops), ids(size.variants), ids(size.customers));
    let mut tx = pool.begin().await.unwrap();
    let mut run = async |query: &'static str, ids: &[Uuid], other: Uuid, text: &str| {
        sqlx::query(query).bind(ids).bind(other).bind(text).execute(&mut *tx).await.unwrap();
    };
    let nil = Uuid::nil();
    run(
        "with s as (insert into streams (stream_id) select unnest($1::uuid[]) where $2::uuid is not null),
              p as (insert into stream_progress (stream_id) select unnest($1::uuid[]))
         insert into locations (location_id, external_id, name, currency, time_zone, opened_on, oversell, version)
         select id, id::text, 'shop', 'EUR', 'Europe/Berlin', '2020-01-01', $3, 1 from unnest($1::uuid[]) id",
        &locations,
        nil,
        size.oversell,
    )
    .await;
    run(
        "with p as (insert into tax_profiles (tax_profile_id, external_id, name, version)
                    select $2, 'standard', 'standard', 1 where $3 = '')
         insert into tax_rates (tax_profile_id, valid_from, ordinal, tax_id, name, rate, inclusive)
         select $2, '2000-01-01', 1, $2, 'VAT', 0.19, true where cardinality($1::uuid[]) >= 0",
        &[],
        profile,
        "",
    )
    .await;
    run(
        "with p as (insert into products (product_id, external_id, name, version)
                    select id, id::text, 'thing', 1 from unnest($1::uuid[]) id where $3 = ''),
              c as (insert into prices (price_id, variant_id, currency, amount_minor, tax_inclusive, valid_from, catalog_version)
                    select gen_random_uuid(), id, 'EUR', 1190, true, '2000-01-01', 1 from unnest($1::uuid[]) id)
         insert into variants (variant_id, external_id, product_id, sku, name, tax_profile_id, version)
         select id, id::text, id, id::text, 'thing', $2, 1 from unnest($1::uuid[]) id",
        &variants,
        profile,
        "",
    )
    .await;
    run(
        "with g as (insert into grants (user_id, role) select $2, 'cashier' where $3 = '')
         insert into users (user_id, login, code, version)
         select $2, 'cashier', 'c1', 1 where cardinality($1::uuid[]) >= 0",
        &[],
        cashier,
        "",
    )
    .await;
    run(
        "with a as (insert into loyalty_accounts (account_id, customer_id, program_id)
                    select gen_random_uuid(), id, '6c6f7961-6c74-5900-8000-000000000001' from unnest($1::uuid[]) id
                    where $2::uuid is not null and $3 = '')
         insert into customers (customer_id, member_number, version) select id, id::text, 1 from unnest($1::uuid[]) id",
        &customers,
        nil,
        "",
    )
    .await;
    let mut shops = Vec::new();
    for location_id in locations {
        let tills: Vec<Till> = ids(size.tills)
            .into_iter()
            .map(|terminal_id| Till { terminal_id, location_id, next: AtomicI64::new(0) })
            .collect();
        let terminals: Vec<Uuid> = tills.iter().map(|till| till.terminal_id).collect();
        run(
            "insert into terminals (terminal_id, location_id, register_id, name, version)
             select id, $2, id::text, 'till', 1 from unnest($1::uuid[]) id where $3 = ''",
            &terminals,
            location_id,
            "",
        )
        .await;
        shops.push(Shop { location_id, tills });
    }
    sqlx::query("update catalog_counter set version = 1").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    (shops, variants, cashier, customers)
}

/// The status and code of a refusal.
pub fn code(answer: &Result<Answer, ApiError>) -> (u16, &'static str) {
    match answer {
        Ok(Answer::Created(_)) => (201, ""),
        Ok(Answer::Replayed(_)) => (200, ""),
        Err(error) => (error.status.as_u16(), error.code),
    }
}

/// The stored body of an answer.
pub fn body(answer: &Result<Answer, ApiError>) -> &str {
    match answer {
        Ok(Answer::Created(body) | Answer::Replayed(body)) => body,
        Err(error) => panic!("{error:?}"),
    }
}
