//! Access to the engine and builders of documents with sane defaults.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use chrono::NaiveDate;
use schemas::events::{DocumentCommitted, DocumentKind, DocumentLine, DocumentTender, LineTax};
use schemas::ids::{LocationId, ProductId, UserId, VariantId};
use schemas::time::{Day, Timestamp};
use sinks::marts::{PRODUCTS, SALES, Scope, Slice, Touched, recompute, stale};
use sinks::reports::{GroupBy, KpiQuery, KpiRow, kpis};
use sinks::rows::{Origin, Rows};
use sinks::store::Store;
use uuid::Uuid;

/// 2026-03-02, the business day of all documents here.
pub const DAY: i32 = 20_514;

pub fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run ./dev test, or ./dev services and eval \"$(./dev env)\""))
}

pub fn login(user: &str, password_variable: &str) -> Store {
    Store::new(&variable("VORCA__CLICKHOUSE__URL"), user, &variable(password_variable))
}

/// The sink's login, after the migrations have run once.
pub fn sink() -> Store {
    static MIGRATED: OnceLock<()> = OnceLock::new();
    MIGRATED.get_or_init(|| {
        let migrated = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(sinks::migrate::migrate(&login("vorca_migrate", "VORCA_CLICKHOUSE_MIGRATE_PASSWORD")))
        });
        migrated.join().expect("no panic").expect("migrated");
    });
    login("vorca_sink", "VORCA_CLICKHOUSE_SINK_PASSWORD")
}

pub fn api() -> Store {
    sink();
    login("vorca_api", "VORCA_CLICKHOUSE_API_PASSWORD")
}

pub fn analyst() -> Store {
    sink();
    login("analyst_ro", "VORCA_CLICKHOUSE_ANALYST_PASSWORD")
}

pub fn id<T: From<Uuid>>(n: u128) -> T {
    Uuid::from_u128(n).into()
}

pub fn random<T: From<Uuid>>() -> T {
    Uuid::new_v4().into()
}

/// A line of a sale.
#[derive(Clone)]
pub struct LineOf {
    pub variant: u128,
    pub qty: i64,
    pub extended: i64,
    pub discount: i64,
    pub tax: i64,
    /// The price includes the tax.
    pub inclusive: bool,
}

/// What differs between the documents of a test.
#[derive(Clone)]
pub struct Sale {
    pub location: LocationId,
    pub seq: i64,
    pub epoch: i64,
    pub slot: i32,
    pub cashier: u128,
    pub currency: &'static str,
    pub lines: Vec<LineOf>,
    /// Kind and amount given.
    pub tenders: Vec<(&'static str, i64)>,
    pub rounding: i64,
}

impl Sale {
    pub fn at(location: LocationId, seq: i64) -> Self {
        let line = LineOf { variant: 1, qty: 1000, extended: 1000, discount: 0, tax: 190, inclusive: false };
        Sale {
            location,
            seq,
            epoch: 1,
            slot: 120,
            cashier: 1,
            currency: "EUR",
            lines: vec![line],
            tenders: vec![("card", 1190)],
            rounding: 0,
        }
    }

    /// The document; its identity follows from location and number, so building it again gives the same.
    pub fn event(&self) -> DocumentCommitted {
        let document_id = Uuid::new_v5(&self.location.0, self.seq.to_string().as_bytes());
        let lines: Vec<DocumentLine> = self.lines.iter().zip(1..).map(|(line, line_no)| line.event(line_no)).collect();
        let sum = |of: fn(&DocumentLine) -> i64| lines.iter().map(of).sum::<i64>();
        let total: i64 = sum(|line| line.payable_minor);
        let given: i64 = self.tenders.iter().map(|(_, amount)| amount).sum();
        DocumentCommitted {
            epoch: self.epoch,
            document_id: document_id.into(),
            kind: DocumentKind::Sale,
            location_id: self.location,
            location_seq: self.seq,
            origin_location_id: None,
            terminal_id: id(3),
            terminal_seq: self.seq,
            register_id: "01".to_owned(),
            series_epoch: 1,
            receipt_number: self.seq,
            cashier_id: UserId(Uuid::from_u128(self.cashier)),
            drawer_session_id: None,
            lease_id: None,
            approval_id: None,
            customer_id: None,
            occurred_at_raw: self.recorded_at(),
            sent_at: None,
            occurred_at: self.recorded_at(),
            recorded_at: self.recorded_at(),
            business_date: Day(DAY),
            slot: self.slot,
            currency: self.currency.to_owned(),
            rounding_mode: "half_even".to_owned(),
            cash_step: 1,
            subtotal_minor: sum(|line| line.extended_minor),
            discount_minor: sum(|line| line.discount_minor),
            tax_minor: sum(|line| line.tax_minor),
            tip_minor: 0,
            total_minor: total,
            rounding_minor: self.rounding,
            change_minor: given - total - self.rounding,
            flags: Vec::new(),
            content_hash: "00".to_owned(),
            hash_version: 1,
            document_digest: "00".to_owned(),
            pricing_version: 1,
            lines,
            tenders: self.tenders.iter().zip(1..).map(|((kind, amount), no)| tender(no, kind, *amount)).collect(),
            cause_type: "sale".to_owned(),
            cause_id: document_id,
            cause_line: 0,
            actor: UserId(Uuid::from_u128(self.cashier)),
            reason: None,
        }
    }

    /// A second per number, from 10:00 of the day.
    pub fn recorded_at(&self) -> Timestamp {
        Timestamp((i64::from(DAY) * 86_400 + 36_000 + self.seq) * 1_000_000)
    }

    pub fn slice(&self) -> Slice {
        Slice { location_id: self.location.0, business_date: DAY, slot: self.slot as u16 }
    }
}

impl LineOf {
    fn event(&self, line_no: i32) -> DocumentLine {
        let added_tax_minor = if self.inclusive { 0 } else { self.tax };
        let included = self.tax - added_tax_minor;
        DocumentLine {
            line_no,
            leg: "sale".to_owned(),
            variant_id: VariantId(Uuid::from_u128(self.variant)),
            product_id: ProductId(Uuid::from_u128(self.variant / 10)),
            sku: format!("SKU-{}", self.variant),
            name: "Tea".to_owned(),
            origin_document_id: None,
            origin_line_no: None,
            origin_location_id: None,
            first_unit: None,
            last_unit: None,
            qty: self.qty,
            unit: "piece".to_owned(),
            is_measured: false,
            tracks_stock: true,
            disposition: None,
            list_price_minor: self.extended,
            unit_price_minor: self.extended,
            override_reason: None,
            extended_minor: self.extended,
            discounts: Vec::new(),
            discount_minor: self.discount,
            redemption_minor: 0,
            taxes: vec![LineTax {
                tax_id: Uuid::from_u128(9),
                name: "VAT".to_owned(),
                rate: "0.19".to_owned(),
                base_minor: self.extended - self.discount,
                inclusive: self.inclusive,
                scope: "line".to_owned(),
                amount_minor: self.tax,
            }],
            tax_minor: self.tax,
            added_tax_minor,
            net_minor: self.extended - self.discount - included,
            payable_minor: self.extended - self.discount + added_tax_minor,
            unit_cost: None,
            redemption_points: 0,
            liability_account_id: None,
        }
    }
}

fn tender(tender_no: i32, kind: &str, amount_minor: i64) -> DocumentTender {
    DocumentTender {
        tender_no,
        kind: kind.to_owned(),
        amount_minor,
        tip_minor: 0,
        state: "captured".to_owned(),
        intent_id: None,
        psp_reference: None,
        card_brand: None,
        card_last_four: None,
        card_expiry: None,
        liability_account_id: None,
    }
}

/// Rows of the sales, as the sink makes them.
pub fn rows(sales: &[Sale]) -> Rows {
    let origin = Origin {
        topic: "vorca.sales.v1",
        partition: 0,
        offset: 0,
        trace_id: String::new(),
        ingested_at: Timestamp(1_700_000_000_000_000),
    };
    let mut rows = Rows::default();
    for sale in sales {
        rows.document(sale.event(), &origin).expect("a sane document");
    }
    rows
}

pub fn slices(sales: &[Sale]) -> Touched {
    sales.iter().map(Sale::slice).collect()
}

/// What the sink and its keeper do with a batch.
pub async fn deliver(store: &Store, sales: &[Sale]) {
    store.insert(&rows(sales)).await.expect("inserted");
    refresh(store, &slices(sales)).await;
}

/// Recomputes the slots and their days.
pub async fn refresh(store: &Store, touched: &Touched) {
    recompute(store, &SALES, touched).await.expect("sales");
    let days: BTreeSet<Slice> = touched.iter().map(|slice| PRODUCTS.slice(*slice)).collect();
    recompute(store, &PRODUCTS, &days).await.expect("products");
}

/// Stale slices of both marts at these locations.
pub async fn stale_at(store: &Store, locations: &[LocationId]) -> Vec<Slice> {
    let ids: Vec<Uuid> = locations.iter().map(|location| location.0).collect();
    let mut all = stale(store, &SALES, Scope::Locations(&ids)).await.expect("compared");
    all.extend(stale(store, &PRODUCTS, Scope::Locations(&ids)).await.expect("compared"));
    all
}

/// KPI rows of the day at these locations.
pub async fn report(group_by: GroupBy, locations: &[LocationId]) -> Vec<KpiRow> {
    let query = question(group_by, locations);
    kpis(&api(), &query, chrono::Utc::now()).await.expect("answered").rows
}

pub fn question(group_by: GroupBy, locations: &[LocationId]) -> KpiQuery {
    let day: NaiveDate = Day(DAY).to_date();
    KpiQuery { group_by, from: day, to: day, locations: Some(locations.to_vec()), currency: None }
}

/// Repeatable dice.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// A new order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
