//! Lock and read for a batch of sales: one call of `lane_lock`, in the total lock order, each statement of it
//! on a fresh snapshot.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemas::ids::{CustomerId, LocationId, TerminalId, VariantId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::sales::known::{Account, Documents, Known, KnownDocument, Lease, Rights, StockRow, Terminal};
use crate::sales::types::ValidSale;

/// Route under which the idempotency keys of sales are kept.
pub const SALES_ROUTE: &str = "POST /sales";

#[derive(Debug, sqlx::FromRow)]
struct Row {
    locked: Vec<Uuid>,
    last_seqs: Vec<i64>,
    stock_locations: Vec<Uuid>,
    stock_variants: Vec<Uuid>,
    stock_qtys: Vec<i64>,
    stock_versions: Vec<i64>,
    stock_thresholds: Vec<Option<i64>>,
    stock_hystereses: Vec<i64>,
    accounts: Option<Vec<Uuid>>,
    account_customers: Option<Vec<Uuid>>,
    account_programs: Option<Vec<Uuid>>,
    account_points: Option<Vec<i64>>,
    account_versions: Option<Vec<i64>>,
    document_ids: Option<Vec<Uuid>>,
    document_terminals: Option<Vec<Uuid>>,
    document_seqs: Option<Vec<i64>>,
    document_locations: Option<Vec<Uuid>>,
    document_registers: Option<Vec<String>>,
    document_series: Option<Vec<i32>>,
    document_receipts: Option<Vec<i64>>,
    document_hashes: Option<Vec<Vec<u8>>>,
    document_responses: Option<Vec<String>>,
    key_principals: Option<Vec<String>>,
    keys: Option<Vec<String>>,
    key_fingerprints: Option<Vec<Vec<u8>>>,
    terminals: Option<Vec<Uuid>>,
    terminal_locations: Option<Vec<Uuid>>,
    terminal_registers: Option<Vec<String>>,
    terminal_series: Option<Vec<i32>>,
    terminal_actives: Option<Vec<bool>>,
    /// Null for a person who does not exist.
    may_sell: Option<Vec<Option<bool>>>,
    roles: Option<Vec<String>>,
    epoch: i64,
    catalog_version: i64,
    recorded_at: DateTime<Utc>,
}

/// Locks and reads everything the sales of a batch need to be decided. Locations held by somebody else are missing from
/// `Known::last_seq`, and their stock rows are neither locked nor read; loyalty accounts, identities and rights are
/// those of all sales of the batch, so an account may be locked for a sale that is put back.
pub async fn lock_and_read(
    conn: &mut PgConnection,
    route: &str,
    sales: &[(&ValidSale, &str)],
) -> Result<Known, sqlx::Error> {
    let mut locations = BTreeSet::new();
    let mut stock = BTreeSet::new();
    let mut customers = BTreeSet::new();
    let mut cashiers = BTreeSet::new();
    for (sale, _) in sales {
        let location = sale.location_id().0;
        locations.insert(location);
        cashiers.insert((sale.cashier_id.0, location));
        customers.extend(sale.customer_id.map(|customer| customer.0));
        stock.extend(sale.cart.lines.iter().map(|line| (location, line.variant_id.0)));
    }
    let (stock_locations, stock_variants): (Vec<Uuid>, Vec<Uuid>) = stock.into_iter().unzip();
    let (cashier_ids, cashier_locations): (Vec<Uuid>, Vec<Uuid>) = cashiers.iter().copied().unzip();
    let column = |of: fn(&ValidSale) -> Uuid| sales.iter().map(|(sale, _)| of(sale)).collect::<Vec<_>>();
    let leases = leases(&mut *conn, sales).await?;
    let row: Row =
        sqlx::query_as("select * from lane_lock($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)")
            .bind(Vec::from_iter(locations))
            .bind(stock_locations)
            .bind(stock_variants)
            .bind(Vec::from_iter(customers))
            .bind(column(|sale| sale.document_id.0))
            .bind(column(|sale| sale.terminal_id.0))
            .bind(sales.iter().map(|(sale, _)| sale.terminal_seq).collect::<Vec<_>>())
            .bind(sales.iter().map(|(sale, _)| sale.receipt.series_epoch).collect::<Vec<_>>())
            .bind(sales.iter().map(|(sale, _)| sale.receipt.number).collect::<Vec<_>>())
            .bind(route)
            .bind(sales.iter().map(|(sale, _)| sale.terminal_id.to_string()).collect::<Vec<_>>())
            .bind(sales.iter().map(|(_, key)| *key).collect::<Vec<_>>())
            .bind(cashier_ids)
            .bind(cashier_locations)
            .fetch_one(conn)
            .await?;
    Ok(Known { leases, ..known(row, Vec::from_iter(cashiers)) })
}

/// One more round trip, for batches alone that name a lease.
async fn leases(conn: &mut PgConnection, sales: &[(&ValidSale, &str)]) -> Result<HashMap<Uuid, Lease>, sqlx::Error> {
    let named: Vec<Uuid> = sales.iter().filter_map(|(sale, _)| sale.lease_id).collect();
    if named.is_empty() {
        return Ok(HashMap::new());
    }
    let leases: Vec<Lease> = sqlx::query_as(
        "select lease_id, terminal_id, cashier_id, permissions, expires_at, revoked_at is not null is_revoked,
                coalesce(limits, '{\"version\": 1, \"business_date\": \"1970-01-01\", \"acts\": []}') limits
         from leases where lease_id = any($1)",
    )
    .bind(named)
    .fetch_all(conn)
    .await?;
    Ok(leases.into_iter().map(|lease| (lease.lease_id, lease)).collect())
}

fn known(row: Row, cashiers: Vec<(Uuid, Uuid)>) -> Known {
    Known {
        epoch: row.epoch,
        catalog_version: row.catalog_version,
        recorded_at: row.recorded_at,
        last_seq: row.locked.iter().map(|id| LocationId(*id)).zip(row.last_seqs.iter().copied()).collect(),
        stock: stock(&row),
        accounts: accounts(&row),
        lots: HashMap::new(),
        terminals: terminals(&row),
        rights: rights(&row, cashiers),
        leases: HashMap::new(),
        documents: documents(&row),
        keys: keys(&row),
        limits: Default::default(),
        promoted: Default::default(),
    }
}

fn stock(row: &Row) -> HashMap<(LocationId, VariantId), StockRow> {
    (0..row.stock_qtys.len())
        .map(|i| {
            let key = (LocationId(row.stock_locations[i]), VariantId(row.stock_variants[i]));
            let level = StockRow {
                qty: row.stock_qtys[i],
                version: row.stock_versions[i],
                threshold: row.stock_thresholds[i],
                hysteresis: row.stock_hystereses[i],
                exists: true,
                is_changed: false,
            };
            (key, level)
        })
        .collect()
}

/// The columns of one relation are aggregated together, so they are equally long or all null.
fn col<T>(column: &Option<Vec<T>>) -> &[T] {
    column.as_deref().unwrap_or_default()
}

fn accounts(row: &Row) -> HashMap<CustomerId, Vec<Account>> {
    let mut by_customer: HashMap<CustomerId, Vec<Account>> = HashMap::new();
    for (i, account) in col(&row.accounts).iter().enumerate() {
        by_customer.entry(CustomerId(col(&row.account_customers)[i])).or_default().push(Account {
            account_id: (*account).into(),
            program_id: col(&row.account_programs)[i].into(),
            points: col(&row.account_points)[i],
            version: col(&row.account_versions)[i],
            is_changed: false,
        });
    }
    by_customer
}

fn terminals(row: &Row) -> HashMap<TerminalId, Terminal> {
    let terminal = |i: usize| Terminal {
        location_id: LocationId(col(&row.terminal_locations)[i]),
        register_id: col(&row.terminal_registers)[i].as_str().into(),
        series_epoch: col(&row.terminal_series)[i],
        is_active: col(&row.terminal_actives)[i],
    };
    col(&row.terminals).iter().enumerate().map(|(i, id)| (TerminalId(*id), terminal(i))).collect()
}

fn rights(row: &Row, cashiers: Vec<(Uuid, Uuid)>) -> HashMap<(schemas::ids::UserId, LocationId), Rights> {
    let (sell, roles) = (col(&row.may_sell), col(&row.roles));
    cashiers
        .into_iter()
        .enumerate()
        .filter_map(|(i, (user, location))| {
            let rights = Rights::new(sell.get(i).copied()??, roles.get(i)?);
            Some(((user.into(), LocationId(location)), rights))
        })
        .collect()
}

fn documents(row: &Row) -> Documents {
    let mut documents = Documents::default();
    for (i, id) in col(&row.document_ids).iter().enumerate() {
        let register: Arc<str> = col(&row.document_registers)[i].as_str().into();
        let location = LocationId(col(&row.document_locations)[i]);
        documents.insert(KnownDocument {
            document_id: (*id).into(),
            terminal_id: TerminalId(col(&row.document_terminals)[i]),
            terminal_seq: col(&row.document_seqs)[i],
            receipt: (location, register, col(&row.document_series)[i], col(&row.document_receipts)[i]),
            content_hash: digest(&col(&row.document_hashes)[i]),
            response: col(&row.document_responses)[i].as_str().into(),
        });
    }
    documents
}

fn keys(row: &Row) -> HashMap<(TerminalId, String), [u8; 32]> {
    let principals = col(&row.key_principals).iter().zip(col(&row.keys)).zip(col(&row.key_fingerprints));
    principals
        .filter_map(|((principal, key), fingerprint)| {
            Some(((principal.parse().ok()?, key.clone()), digest(fingerprint)))
        })
        .collect()
}

/// What is no SHA-256 equals no hash.
fn digest(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or_default()
}
