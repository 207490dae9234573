//! What I17 and I18 look at: for each table and mart, the rows that both sides have to give. The first column is the key,
//! everything else is compared as text.

use std::fmt;

use schemas::ids::COMPANY_STREAM;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

/// A slice of the business that is compared as one.
pub enum Part {
    Location(Uuid),
    /// Loyalty accounts whose id begins with this hexadecimal digit: entries of the company have no location.
    Accounts(u8),
}

impl Part {
    /// With the bounds of the part.
    pub fn bound<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        match self {
            Part::Location(location) => query.bind(*location),
            Part::Accounts(digit) => {
                let (mut low, mut high) = ([0; 16], [0xff; 16]);
                (low[0], high[0]) = (digit << 4, (digit << 4) | 0x0f);
                query.bind(Uuid::from_bytes(low)).bind(Uuid::from_bytes(high))
            }
        }
    }

    /// The same as a condition of ClickHouse.
    fn condition(&self) -> String {
        match self {
            Part::Location(location) => format!("location_id = '{location}'"),
            Part::Accounts(digit) => format!("startsWith(toString(account_id), '{digit:x}')"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Location(location) => write!(f, "location {location}"),
            Part::Accounts(_) => f.write_str("account"),
        }
    }
}

/// Where the expected rows come from.
pub enum Source {
    Postgres(&'static str),
    ClickHouse(String),
    /// The topic of alerts: the ledger has none.
    Alerts(Uuid),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Documents,
    Lines,
    Tenders,
    Movements,
    Entries,
    Alerts,
    SalesMart,
    TendersMart,
    ProductsMart,
}

impl Look {
    pub const ALL: [Look; 9] = [
        Look::Documents,
        Look::Lines,
        Look::Tenders,
        Look::Movements,
        Look::Entries,
        Look::Alerts,
        Look::SalesMart,
        Look::TendersMart,
        Look::ProductsMart,
    ];

    pub fn claim(self) -> (&'static str, &'static str) {
        match self {
            Look::Documents => ("I17", "documents in ClickHouse = documents in Postgres"),
            Look::Lines => ("I17", "lines in ClickHouse = lines in Postgres"),
            Look::Tenders => ("I17", "tenders in ClickHouse = tenders in Postgres, change on cash"),
            Look::Movements => ("I17", "movements in ClickHouse = movements in Postgres"),
            Look::Entries => ("I17", "loyalty entries in ClickHouse = loyalty entries in Postgres"),
            Look::Alerts => ("I17", "alerts in ClickHouse = alerts on the topic"),
            Look::SalesMart => ("I18", "sales mart = documents and lines, by slot and cashier"),
            Look::TendersMart => ("I18", "tenders in the sales mart = tenders, by slot, cashier and kind"),
            Look::ProductsMart => ("I18", "products mart = lines, by day, product and variant"),
        }
    }

    pub fn is_alerts(self) -> bool {
        self == Look::Alerts
    }

    pub fn parts(self, locations: &[Uuid]) -> Vec<Part> {
        match self {
            Look::Entries => (0..16).map(Part::Accounts).collect(),
            _ => locations.iter().copied().map(Part::Location).collect(),
        }
    }

    pub fn expected(self, part: &Part) -> Source {
        let here = part.condition();
        match self {
            Look::Documents => Source::Postgres(
                "select document_id::text, concat_ws(E'\\t', epoch, location_seq, business_date, slot, kind, currency,
                        terminal_id, terminal_seq, cashier_id, subtotal_minor, discount_minor, tax_minor, total_minor,
                        rounding_minor, change_minor, encode(document_digest, 'hex'))
                   from documents where location_id = $1",
            ),
            Look::Lines => Source::Postgres(
                "select document_id::text || '/' || line_no, concat_ws(E'\\t', business_date, slot, variant_id, l.qty,
                        extended_minor, l.discount_minor, l.tax_minor, net_minor, payable_minor)
                   from document_lines l join documents d using (document_id) where l.location_id = $1",
            ),
            // Change is cash that goes out: on the first cash tender, without one on a tender 0.
            Look::Tenders => Source::Postgres(
                "select d.document_id::text || '/' || t.tender_no, concat_ws(E'\\t', d.business_date, d.slot, d.cashier_id,
                        t.kind, t.amount_minor, t.tip_minor, t.state,
                        case when t.kind = 'cash' and not exists (
                            select from document_tenders e where e.document_id = t.document_id and e.kind = 'cash' and e.tender_no < t.tender_no)
                        then d.change_minor else 0 end)
                   from documents d join document_tenders t using (document_id) where d.location_id = $1
                 union all
                 select d.document_id::text || '/0', concat_ws(E'\\t', d.business_date, d.slot, d.cashier_id,
                        'cash', 0, 0, 'captured', d.change_minor)
                   from documents d
                  where d.location_id = $1 and d.change_minor <> 0 and not exists (
                        select from document_tenders e where e.document_id = d.document_id and e.kind = 'cash')",
            ),
            Look::Movements => Source::Postgres(
                "select variant_id::text || ' version ' || version, concat_ws(E'\\t', epoch, location_seq, delta, qty_after, reason, cause_id)
                   from stock_movements where location_id = $1",
            ),
            Look::Entries => Source::Postgres(
                "select account_id::text || ' version ' || version, concat_ws(E'\\t', epoch, location_seq, kind, delta, points_after, cause_id)
                   from loyalty_entries where account_id between $1 and $2",
            ),
            Look::Alerts => Source::Alerts(match part {
                Part::Location(location) => *location,
                Part::Accounts(_) => COMPANY_STREAM.0,
            }),
            // Straight from raw; that it equals Postgres is I17. Figures of lines from lines, not from the sums on documents.
            Look::SalesMart => Source::ClickHouse(format!(
                "select concat(toString(business_date), ' slot ', toString(slot), ' ', currency, ' cashier ', toString(cashier_id)) as k,
                        sum(documents), sum(gross), sum(discounts), sum(returns), sum(net), sum(tax), sum(collected), sum(units)
                   from (select business_date, slot, currency, cashier_id, toUInt64(kind in ('sale', 'exchange')) as documents, 0 as gross,
                                0 as discounts, 0 as returns, 0 as net, tax_minor as tax, total_minor + rounding_minor + tip_minor as collected, 0 as units
                           from vorca_raw.documents final where {here}
                         union all
                         select business_date, slot, currency, cashier_id, 0, if(leg = 'sale', net_minor + discount_net_minor, 0),
                                if(leg = 'sale', discount_net_minor, 0), if(leg = 'return', -net_minor, 0), net_minor, 0, 0, if(leg = 'sale', qty, 0)
                           from vorca_raw.lines final where {here})
                  group by k"
            )),
            Look::TendersMart => Source::ClickHouse(format!(
                "select concat(toString(business_date), ' slot ', toString(slot), ' ', currency, ' cashier ', toString(cashier_id), ' ', tender_kind) as k,
                        uniqExact(document_id), sum(amount_minor + tip_minor - change_minor)
                   from vorca_raw.tenders final where {here} group by k"
            )),
            Look::ProductsMart => Source::ClickHouse(format!(
                "select concat(toString(business_date), ' ', currency, ' product ', toString(product_id), ' variant ',
                               arrayJoin([toString(variant_id), 'all'])) as k,
                        uniqExactIf(document_id, leg = 'sale'), sumIf(net_minor + discount_net_minor, leg = 'sale'),
                        sumIf(discount_net_minor, leg = 'sale'), -sumIf(net_minor, leg = 'return'), sum(net_minor), sum(tax_minor),
                        sumIf(qty, leg = 'sale')
                   from vorca_raw.lines final where {here} group by k"
            )),
        }
    }

    pub fn actual(self, part: &Part) -> String {
        let here = part.condition();
        match self {
            Look::Documents => format!(
                "select toString(document_id), epoch, location_seq, business_date, slot, kind, currency, terminal_id, terminal_seq,
                        cashier_id, subtotal_minor, discount_minor, tax_minor, total_minor, rounding_minor, change_minor, document_digest
                   from vorca_raw.documents final where {here}"
            ),
            Look::Lines => format!(
                "select concat(toString(document_id), '/', toString(line_no)), business_date, slot, variant_id, qty, extended_minor,
                        discount_minor, tax_minor, net_minor, payable_minor
                   from vorca_raw.lines final where {here}"
            ),
            Look::Tenders => format!(
                "select concat(toString(document_id), '/', toString(tender_no)), business_date, slot, cashier_id, tender_kind, amount_minor,
                        tip_minor, state, change_minor
                   from vorca_raw.tenders final where {here}"
            ),
            Look::Movements => format!(
                "select concat(toString(variant_id), ' version ', toString(entity_version)), epoch, location_seq, delta, qty_after, reason, cause_id
                   from vorca_raw.movements final where {here}"
            ),
            Look::Entries => format!(
                "select concat(toString(account_id), ' version ', toString(entity_version)), epoch, location_seq, kind, delta, points_after, cause_id
                   from vorca_raw.loyalty_entries final where {here}"
            ),
            Look::Alerts => format!(
                "select toString(alert_id), variant_id, epoch, location_seq, entity_version, qty, threshold, hysteresis
                   from vorca_raw.alerts final where {here}"
            ),
            Look::SalesMart => format!(
                "select concat(toString(business_date), ' slot ', toString(slot), ' ', f.currency, ' cashier ', toString(f.cashier_id)) as k,
                        sum(f.documents), sum(f.gross_minor), sum(f.discounts_minor), sum(f.returns_minor), sum(f.net_minor), sum(f.tax_minor),
                        sum(f.collected_minor), sum(f.units)
                   from vorca_raw.mart_sales final array join figures as f where {here} and f.tender = '' group by k"
            ),
            Look::TendersMart => format!(
                "select concat(toString(business_date), ' slot ', toString(slot), ' ', f.currency, ' cashier ', toString(f.cashier_id), ' ', f.tender) as k,
                        sum(f.documents), sum(f.collected_minor)
                   from vorca_raw.mart_sales final array join figures as f where {here} and f.tender != '' group by k"
            ),
            Look::ProductsMart => format!(
                "select concat(toString(business_date), ' ', f.currency, ' product ', toString(f.product_id), ' variant ',
                               if(f.variant_id = toUUID('00000000-0000-0000-0000-000000000000'), 'all', toString(f.variant_id))) as k,
                        sum(f.documents), sum(f.gross_minor), sum(f.discounts_minor), sum(f.returns_minor), sum(f.net_minor), sum(f.tax_minor),
                        sum(f.units)
                   from vorca_raw.mart_products final array join figures as f where {here} group by k"
            ),
        }
    }
}
