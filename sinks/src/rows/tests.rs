use chrono::NaiveDate;
use schemas::events::{
    Cashier, DocumentCommitted, DocumentKind, DocumentLine, DocumentTender, LineDiscount, LineTax, LotChange,
    LoyaltyPosted, StockMoved,
};
use schemas::ids::{AccountId, CustomerId, LocationId, ProgramId, UserId, VariantId};
use schemas::time::Day;
use uuid::Uuid;

use super::checks::{DAYS, MICROS_OF_DAY, instant};
use super::documents::scale;
use super::*;

fn id<T: From<Uuid>>(n: u128) -> T {
    Uuid::from_u128(n).into()
}

fn origin() -> Origin {
    Origin {
        topic: "vorca.sales.v1",
        partition: 3,
        offset: 77,
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        ingested_at: Timestamp(5_000_000),
    }
}

/// Two tills' worth of oddities: an inclusive tax, a discount, card plus cash with change, no customer.
fn sale() -> DocumentCommitted {
    DocumentCommitted {
        epoch: 2,
        document_id: id(1),
        kind: DocumentKind::Sale,
        location_id: id(2),
        location_seq: 9,
        origin_location_id: None,
        terminal_id: id(3),
        terminal_seq: 4,
        register_id: "01".to_owned(),
        series_epoch: 1,
        receipt_number: 4,
        cashier_id: id(5),
        drawer_session_id: None,
        lease_id: None,
        approval_id: None,
        customer_id: None,
        occurred_at_raw: Timestamp(1_000_000),
        sent_at: None,
        occurred_at: Timestamp(1_000_000),
        recorded_at: Timestamp(2_000_000),
        business_date: Day(19_000),
        slot: 130,
        currency: "EUR".to_owned(),
        rounding_mode: "half_even".to_owned(),
        cash_step: 5,
        subtotal_minor: 1300,
        discount_minor: 100,
        tax_minor: 192,
        tip_minor: 0,
        total_minor: 1200,
        rounding_minor: 0,
        change_minor: 300,
        flags: vec!["oversold".to_owned()],
        content_hash: "aa".to_owned(),
        hash_version: 1,
        document_digest: "bb".to_owned(),
        pricing_version: 12,
        lines: vec![line(1, 1000, 100, 144), line(2, 300, 0, 48)],
        tenders: vec![tender(1, "card", 500), tender(2, "cash", 1000)],
        cause_type: "sale".to_owned(),
        cause_id: id(1),
        cause_line: 0,
        actor: id(5),
        reason: None,
    }
}

pub(super) fn line(line_no: i32, extended: i64, discount: i64, tax: i64) -> DocumentLine {
    let payable = extended - discount;
    DocumentLine {
        line_no,
        leg: "sale".to_owned(),
        variant_id: id(100 + line_no as u128),
        product_id: id(200),
        sku: format!("SKU-{line_no}"),
        name: "Tea".to_owned(),
        origin_document_id: None,
        origin_line_no: None,
        origin_location_id: None,
        first_unit: None,
        last_unit: None,
        qty: 2000,
        unit: "piece".to_owned(),
        is_measured: false,
        tracks_stock: true,
        disposition: None,
        list_price_minor: extended / 2,
        unit_price_minor: extended / 2,
        override_reason: None,
        extended_minor: extended,
        discounts: vec![LineDiscount {
            discount_id: "d".to_owned(),
            kind: "amount".to_owned(),
            name: "shelf wear".to_owned(),
            amount_minor: discount,
        }],
        discount_minor: discount,
        redemption_minor: 0,
        taxes: vec![LineTax {
            tax_id: Uuid::from_u128(9),
            name: "VAT".to_owned(),
            rate: "0.19".to_owned(),
            base_minor: payable - tax,
            inclusive: true,
            scope: "line".to_owned(),
            amount_minor: tax,
        }],
        tax_minor: tax,
        added_tax_minor: 0,
        net_minor: payable - tax,
        payable_minor: payable,
        unit_cost: None,
        redemption_points: 0,
        liability_account_id: None,
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

#[test]
fn a_sale_becomes_one_document_its_lines_and_its_tenders() {
    let mut rows = Rows::default();
    rows.document(sale(), &origin()).unwrap();
    assert_eq!((rows.documents.len(), rows.lines.len(), rows.tenders.len(), rows.count()), (1, 2, 2, 5));

    let document = &rows.documents[0];
    assert_eq!(document.version, (2 << 40) | 9, "epoch above, number at the location below");
    assert_eq!((document.business_date, document.slot, document.kind), (19_000, 130, "sale"));
    assert_eq!((document.currency.as_str(), document.currency_scale), ("EUR", 100));
    assert_eq!((document.sold_net_minor, document.sold_discount_net_minor, document.sold_qty), (1008, 84, 4000));
    assert_eq!((document.returned_net_minor, document.returned_qty, document.line_count), (0, 0, 2));
    assert_eq!(document.tender_kinds, ["card", "cash"]);
    assert_eq!(document.tender_amounts_minor, [500, 1000]);
    assert_eq!((document._topic, document._partition, document._offset), ("vorca.sales.v1", 3, 77));
    assert_eq!((document._ingested_at, document.is_deleted), (5_000_000, 0));
    assert_eq!(document.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");

    let line = &rows.lines[0];
    assert_eq!((line.document_id, line.line_no, line.version), (document.document_id, 1, document.version));
    assert_eq!((line.net_minor, line.tax_minor, line.payable_minor), (756, 144, 900));
    assert_eq!(
        (line.tax_rates.as_slice(), line.tax_inclusive.as_slice()),
        (["0.19".to_owned()].as_slice(), [true].as_slice())
    );
    assert_eq!(line.discount_names, ["shelf wear"]);
    assert_eq!((line.discount_minor, line.discount_net_minor), (100, 84), "16 of it is tax");
    assert_eq!(line.cashier_id, document.cashier_id, "a line joins the cashier without its document");
}

#[test]
fn what_is_absent_has_its_sentinel() {
    let mut rows = Rows::default();
    rows.document(sale(), &origin()).unwrap();
    let (document, line) = (&rows.documents[0], &rows.lines[0]);
    assert_eq!((document.customer_id, document.lease_id, document.sent_at), (Uuid::nil(), Uuid::nil(), 0));
    assert_eq!((line.origin_document_id, line.origin_line_no, line.first_unit), (Uuid::nil(), -1, -1));
    assert_eq!((line.unit_cost_minor, line.disposition.as_str(), line.override_reason.as_str()), (-1, "", ""));
    assert_eq!((rows.tenders[0].intent_id, rows.tenders[0].card_brand.as_str()), (Uuid::nil(), ""));
}

#[test]
fn change_is_cash_that_goes_out() {
    let mut rows = Rows::default();
    rows.document(sale(), &origin()).unwrap();
    assert_eq!(rows.tenders.iter().map(|tender| tender.change_minor).collect::<Vec<_>>(), [0, 300]);

    let mut card = sale();
    card.tenders = vec![tender(1, "card", 1500)];
    let mut rows = Rows::default();
    rows.document(card, &origin()).unwrap();
    let told = |row: &Tender| (row.tender_no, row.tender_kind.clone(), row.amount_minor, row.change_minor);
    let tenders: Vec<_> = rows.tenders.iter().map(told).collect();
    assert_eq!(tenders, [(0, "cash".to_owned(), 0, 300), (1, "card".to_owned(), 1500, 0)]);
}

#[test]
fn return_legs_are_summed_apart() {
    let mut exchange = sale();
    exchange.kind = DocumentKind::Exchange;
    exchange.lines[1].leg = "return".to_owned();
    exchange.lines[1].net_minor = -252;
    exchange.lines[1].qty = -2000;
    let mut rows = Rows::default();
    rows.document(exchange, &origin()).unwrap();
    let document = &rows.documents[0];
    assert_eq!((document.sold_net_minor, document.returned_net_minor), (756, -252));
    assert_eq!((document.sold_qty, document.returned_qty), (2000, -2000));
}

#[test]
fn a_rejected_document_leaves_nothing_behind() {
    let spoil: [fn(&mut DocumentCommitted); 7] = [
        |sale| sale.total_minor = i64::MAX,
        |sale| sale.lines[1].net_minor = i64::MIN,
        |sale| sale.tenders[1].amount_minor = AMOUNT_MAX + 1,
        |sale| sale.business_date = Day(i32::MAX),
        |sale| sale.recorded_at = Timestamp(i64::MIN),
        |sale| sale.slot = 312,
        |sale| sale.currency = "euro".to_owned(),
    ];
    for spoil in spoil {
        let mut spoiled = sale();
        spoil(&mut spoiled);
        let mut rows = Rows::default();
        let refused = rows.document(spoiled, &origin()).unwrap_err();
        assert_eq!(rows, Rows::default(), "{refused}");
    }
}

#[test]
fn the_ends_of_time_are_those_of_the_engine() {
    let day_of = |y, m, d| Day::from(NaiveDate::from_ymd_opt(y, m, d).unwrap()).0 as i64;
    assert_eq!(DAYS, (day_of(1900, 1, 1), day_of(2299, 12, 31)));
    assert!(instant("at", Timestamp(DAYS.0 * MICROS_OF_DAY)).is_ok());
    assert!(instant("at", Timestamp(DAYS.0 * MICROS_OF_DAY - 1)).is_err());
}

#[test]
fn scales_follow_the_currency() {
    assert_eq!((scale("EUR"), scale("JPY"), scale("KWD")), (Ok(100), Ok(1), Ok(1000)));
}

#[test]
fn a_movement_keeps_its_version_and_sign() {
    let event = StockMoved {
        epoch: 1,
        location_id: LocationId(Uuid::from_u128(2)),
        parent_location_id: None,
        location_seq: 9,
        variant_id: VariantId(Uuid::from_u128(101)),
        version: 6,
        delta: -2000,
        qty_after: 8000,
        cause_type: "sale".to_owned(),
        cause_id: Uuid::from_u128(1),
        cause_line: 1,
        transfer_id: None,
        reason: "sale".to_owned(),
        document_uri: None,
        actor: UserId(Uuid::from_u128(5)),
        approval_id: None,
        effective_at: Timestamp(1),
        recorded_at: Timestamp(2),
        business_date: Day(19_000),
        neutral: false,
        threshold: None,
        hysteresis: 1000,
        resync: false,
        unit_cost: None,
    };
    let mut rows = Rows::default();
    rows.movement(event, &origin()).unwrap();
    let row = &rows.movements[0];
    assert_eq!((row.entity_version, row.version, row.delta, row.threshold), (6, (1 << 40) | 6, -2000, -1));
}

#[test]
fn a_state_of_version_0_takes_its_object_out() {
    let cashier = |epoch, version| Cashier {
        epoch,
        cashier_id: UserId(Uuid::from_u128(5)),
        version,
        catalog_version: 9,
        code: "A".to_owned(),
        is_active: false,
        recorded_at: Timestamp(2),
    };
    let mut rows = Rows::default();
    for (epoch, version) in [(1, 3), (2, 0), (2, 1)] {
        rows.cashier(cashier(epoch, version), &origin()).unwrap();
    }
    assert_eq!(rows.dim_cashiers.iter().map(|row| row.is_deleted).collect::<Vec<_>>(), [0, 1, 0]);
    assert!(rows.dim_cashiers.is_sorted_by_key(|row| row.version));
}

#[test]
fn a_loyalty_entry_is_dated_by_its_instant_in_utc() {
    let event = LoyaltyPosted {
        epoch: 1,
        account_id: AccountId(Uuid::from_u128(7)),
        customer_id: CustomerId(Uuid::from_u128(8)),
        program_id: ProgramId(Uuid::from_u128(9)),
        location_id: None,
        location_seq: 3,
        kind: "accrual".to_owned(),
        version: 2,
        delta: 12,
        points_after: 30,
        tier_multiplier: "1".to_owned(),
        lots: vec![LotChange {
            lot_id: Uuid::from_u128(4),
            delta: 12,
            earned_at: Timestamp(0),
            available_at: Timestamp(0),
            expires_at: None,
        }],
        cause_type: "sale".to_owned(),
        cause_id: Uuid::from_u128(1),
        cause_line: 0,
        actor: UserId(Uuid::from_u128(5)),
        approval_id: None,
        effective_at: Timestamp(-1),
        recorded_at: Timestamp(2),
        resync: false,
    };
    let mut rows = Rows::default();
    rows.loyalty_entry(event, &origin()).unwrap();
    let row = &rows.loyalty_entries[0];
    assert_eq!((row.effective_date, row.location_id, row.lot_deltas.as_slice()), (-1, Uuid::nil(), [12].as_slice()));
}
