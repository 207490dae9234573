//! Golden data: few documents, every KPI in every grouping worked out by hand.

use schemas::ids::LocationId;
use sinks::marts::{Definition, PRODUCTS, SALES, Touched, recompute};
use sinks::reports::{GroupBy, KpiRow, kpis};

use crate::world::{Dice, LineOf, Sale, api, deliver, question, random, report, sink, slices};

fn line(variant: u128, qty: i64, extended: i64, discount: i64, tax: i64, inclusive: bool) -> LineOf {
    LineOf { variant, qty, extended, discount, tax, inclusive }
}

/// Two locations, three currencies, five documents:
/// 1. EUR, exclusive tax, two products, a discount, cash 50.00 with change.
/// 2. EUR, 19 % in the price, card plus cash, cash rounded down by 0.01. Its second line: 2.00 with 0.32 tax in it, less
///    1.00, which leaves 0.16 tax and net 0.84: 0.84 were given off, gross 1.68.
/// 3. JPY, no minor unit. 4. KWD, three decimals, the product of (1) again.
/// 5. EUR, 119.00 with 19 % in it less 10 %: gross 100.00, discounts 10.00, net 90.00. A card pays 120.00, and 12.90 go
///    out in cash.
fn documents(north: LocationId, south: LocationId) -> Vec<Sale> {
    vec![
        Sale {
            slot: 119,
            lines: vec![line(11, 2000, 2000, 300, 323, false), line(25, 1500, 1500, 0, 285, false)],
            tenders: vec![("cash", 5000)],
            ..Sale::at(north, 1)
        },
        Sale {
            slot: 120,
            cashier: 2,
            lines: vec![line(11, 1000, 1191, 0, 190, true), line(12, 1000, 200, 100, 16, true)],
            tenders: vec![("card", 1000), ("cash", 290)],
            rounding: -1,
            ..Sale::at(north, 2)
        },
        Sale {
            slot: 120,
            currency: "JPY",
            lines: vec![line(31, 3000, 900, 0, 90, false)],
            tenders: vec![("card", 990)],
            ..Sale::at(south, 1)
        },
        Sale {
            slot: 300,
            currency: "KWD",
            lines: vec![line(11, 1000, 1250, 0, 0, false)],
            tenders: vec![("other", 1250)],
            ..Sale::at(south, 2)
        },
        Sale {
            slot: 121,
            cashier: 3,
            lines: vec![line(41, 1000, 11900, 1190, 1710, true)],
            tenders: vec![("card", 12000)],
            ..Sale::at(north, 3)
        },
    ]
}

/// `key | currency | documents | gross discounts returns net tax | collected | units | average basket`
fn text(row: &KpiRow) -> String {
    let key = [
        row.business_date.map(|date| date.to_string()),
        row.hour.map(|hour| format!("h{hour}")),
        row.product_id.map(|id| format!("p{}", id.0.as_u128())),
        row.cashier_id.map(|id| format!("c{}", id.0.as_u128())),
        row.tender.clone(),
    ];
    let show = |figure: Option<i64>| figure.map_or("-".to_owned(), |figure| figure.to_string());
    format!(
        "{} | {} | {} | {} {} {} {} {} | {} | {} | {}",
        key.into_iter().flatten().collect::<Vec<_>>().join(" "),
        row.currency,
        row.documents,
        show(row.gross_minor),
        show(row.discounts_minor),
        show(row.returns_minor),
        show(row.net_minor),
        show(row.tax_minor),
        show(row.collected_minor),
        show(row.units),
        show(row.average_basket_minor),
    )
}

async fn figures(group_by: GroupBy, locations: &[LocationId]) -> Vec<String> {
    report(group_by, locations).await.iter().map(text).collect()
}

#[tokio::test]
async fn every_kpi_in_every_grouping_is_what_was_worked_out_by_hand() {
    let (north, south): (LocationId, LocationId) = (random(), random());
    let both = [north, south];
    deliver(&sink(), &documents(north, south)).await;

    assert_eq!(
        figures(GroupBy::Day, &both).await,
        [
            "2026-03-02 | EUR | 3 | 14669 1384 0 13285 2524 | 15808 | 6500 | 4428",
            "2026-03-02 | JPY | 1 | 900 0 0 900 90 | 990 | 3000 | 900",
            "2026-03-02 | KWD | 1 | 1250 0 0 1250 0 | 1250 | 1000 | 1250",
        ]
    );
    assert_eq!(
        figures(GroupBy::Hour, &both).await,
        [
            "2026-03-02 h9 | EUR | 1 | 3500 300 0 3200 608 | 3808 | 3500 | 3200",
            "2026-03-02 h10 | EUR | 2 | 11169 1084 0 10085 1916 | 12000 | 3000 | 5043",
            "2026-03-02 h10 | JPY | 1 | 900 0 0 900 90 | 990 | 3000 | 900",
            "2026-03-02 h25 | KWD | 1 | 1250 0 0 1250 0 | 1250 | 1000 | 1250",
        ]
    );
    assert_eq!(
        figures(GroupBy::Product, &both).await,
        [
            "p4 | EUR | 1 | 10000 1000 0 9000 1710 | - | 1000 | 9000",
            "p1 | EUR | 2 | 3169 384 0 2785 529 | - | 4000 | 1393",
            "p2 | EUR | 1 | 1500 0 0 1500 285 | - | 1500 | 1500",
            "p3 | JPY | 1 | 900 0 0 900 90 | - | 3000 | 900",
            "p1 | KWD | 1 | 1250 0 0 1250 0 | - | 1000 | 1250",
        ],
        "product 1 has two variants on one document, which counts once"
    );
    assert_eq!(
        figures(GroupBy::Cashier, &both).await,
        [
            "c3 | EUR | 1 | 10000 1000 0 9000 1710 | 10710 | 1000 | 9000",
            "c1 | EUR | 1 | 3500 300 0 3200 608 | 3808 | 3500 | 3200",
            "c2 | EUR | 1 | 1169 84 0 1085 206 | 1290 | 2000 | 1085",
            "c1 | JPY | 1 | 900 0 0 900 90 | 990 | 3000 | 900",
            "c1 | KWD | 1 | 1250 0 0 1250 0 | 1250 | 1000 | 1250",
        ]
    );
    assert_eq!(
        figures(GroupBy::Tender, &both).await,
        [
            "card | EUR | 2 | - - - - - | 13000 | - | -",
            "cash | EUR | 3 | - - - - - | 2808 | - | -",
            "card | JPY | 1 | - - - - - | 990 | - | -",
            "other | KWD | 1 | - - - - - | 1250 | - | -",
        ],
        "cash is net of change, also of the change that a card paid for"
    );
    let by_location = report(GroupBy::Location, &both).await;
    let at = |location, currency: &str| {
        let found = by_location.iter().find(|row| row.location_id == Some(location) && row.currency == currency);
        text(found.expect("a row"))
    };
    assert_eq!(by_location.len(), 3);
    assert_eq!(at(north, "EUR"), " | EUR | 3 | 14669 1384 0 13285 2524 | 15808 | 6500 | 4428");
    assert_eq!(at(south, "JPY"), " | JPY | 1 | 900 0 0 900 90 | 990 | 3000 | 900");
}

/// The golden data must be able to fail: each planted bug moves at least one figure.
#[tokio::test]
async fn every_planted_bug_is_caught_by_the_golden_data() {
    // Everything summed twice, as a record inserted twice would be without its identity.
    let twice = |table: &str| {
        format!("(SELECT * FROM vorca_raw.{table} FINAL UNION ALL SELECT * FROM vorca_raw.{table} FINAL) AS {table}")
    };
    let (sales_kpi, products_kpi): (&Definition, &Definition) = (&SALES, &PRODUCTS);
    let plants = [
        (sales_kpi, "vorca_raw.documents FINAL", twice("documents")),
        (sales_kpi, "sumIf(sold_net_minor + sold_discount_net_minor", "sumIf(sold_net_minor".to_owned()),
        (sales_kpi, "toUInt64(NOT has(tender_kinds, 'cash'))", "toUInt64(0)".to_owned()),
        (products_kpi, "sumIf(discount_net_minor", "sumIf(discount_minor + redemption_minor".to_owned()),
        (sales_kpi, "if(change_minor != 0,", "if(change_minor = 1,".to_owned()),
        (sales_kpi, "total_minor + rounding_minor + tip_minor", "total_minor + tip_minor".to_owned()),
        (sales_kpi, "sum(entry.2) AS documents", "count() + 1 AS documents".to_owned()),
        (products_kpi, "vorca_raw.lines FINAL", twice("lines")),
        (products_kpi, "uniqExactIf(document_id, leg = 'sale')", "countIf(leg = 'sale')".to_owned()),
        (products_kpi, "sum(lines.tax_minor)", "sum(lines.tax_minor + 1)".to_owned()),
    ];
    let store = sink();
    let locations: [LocationId; 2] = [random(), random()];
    let sales = documents(locations[0], locations[1]);
    deliver(&store, &sales).await;
    let all = [GroupBy::Day, GroupBy::Hour, GroupBy::Location, GroupBy::Product, GroupBy::Cashier, GroupBy::Tender];
    let everything = async || {
        let mut texts = Vec::new();
        for group_by in all {
            texts.push(figures(group_by, &locations).await);
        }
        texts
    };
    let golden = everything().await;
    for (raised, (kpi, right, wrong)) in (1..).step_by(2).zip(plants) {
        assert!(kpi.select.contains(right), "the plant does not fit {}: {right}", kpi.name);
        let planted =
            Definition { version: kpi.version + raised, select: kpi.select.replace(right, &wrong), ..kpi.clone() };
        let touched: Touched = slices(&sales).into_iter().map(|slice| planted.slice(slice)).collect();
        recompute(&store, &planted, &touched).await.unwrap();
        assert_ne!(everything().await, golden, "not caught: {wrong}");
        // The right definition under the next version: the plant after it must win over both.
        let healed = Definition { version: kpi.version + raised + 1, ..kpi.clone() };
        recompute(&store, &healed, &touched).await.unwrap();
        assert_eq!(everything().await, golden);
    }
}

#[tokio::test]
async fn tenders_less_change_are_what_documents_say_was_collected() {
    let location: LocationId = random();
    let mut dice = Dice(7);
    let sales: Vec<Sale> = (1..=60)
        .map(|seq| {
            let given = 1190 + dice.below(500) as i64;
            let tenders = match seq % 4 {
                0 => vec![("card", 700), ("cash", given - 700)],
                1 => vec![("card", given)],
                _ => vec![("cash", given)],
            };
            Sale { slot: dice.below(300) as i32, tenders, ..Sale::at(location, seq) }
        })
        .collect();
    deliver(&sink(), &sales).await;
    let collected = |rows: &[KpiRow]| rows.iter().filter_map(|row| row.collected_minor).sum::<i64>();
    let by_tender = report(GroupBy::Tender, &[location]).await;
    assert_eq!(collected(&by_tender), collected(&report(GroupBy::Day, &[location]).await));
    assert_eq!(collected(&by_tender), 60 * 1190);
    // What analysts see tender by tender is the same, kind by kind.
    let direct: Vec<(String, u64, i64)> = crate::world::analyst()
        .fetch(&format!(
            "SELECT toString(tender_kind), uniqExact(document_id), toInt64(sum(collected) * 100) AS minor
             FROM vorca.fct_tenders WHERE location_id = '{location}' GROUP BY tender_kind ORDER BY minor DESC"
        ))
        .await
        .unwrap();
    let told = |row: &KpiRow| (row.tender.clone().unwrap(), row.documents, row.collected_minor.unwrap());
    assert_eq!(by_tender.iter().map(told).collect::<Vec<_>>(), direct);
}

#[tokio::test]
async fn answers_respect_scope_currency_and_period_and_say_how_fresh_they_are() {
    let (north, south): (LocationId, LocationId) = (random(), random());
    let sales = documents(north, south);
    deliver(&sink(), &sales).await;
    let now = chrono::Utc::now();

    let only_south = report(GroupBy::Day, &[south]).await;
    assert_eq!(only_south.iter().map(|row| row.currency.as_str()).collect::<Vec<_>>(), ["JPY", "KWD"]);
    assert!(report(GroupBy::Day, &[]).await.is_empty(), "no location, no figures");

    let mut query = question(GroupBy::Day, &[north, south]);
    query.currency = Some("JPY".parse().unwrap());
    let answer = kpis(&api(), &query, now).await.unwrap();
    assert_eq!(answer.rows.len(), 1);
    let fresh_as_of = answer.fresh_as_of.expect("a document is there");
    assert_eq!(fresh_as_of, sales[2].recorded_at().to_utc(), "of these figures, not of others at the location");
    assert_eq!(answer.lag_ms, Some((now - fresh_as_of).num_milliseconds().max(0)));
    for (group_by, locations, newest) in [
        (GroupBy::Day, [south].as_slice(), Some(&sales[3])),
        (GroupBy::Tender, [south, north].as_slice(), Some(&sales[4])),
        (GroupBy::Product, [north].as_slice(), Some(&sales[4])),
        (GroupBy::Day, [random()].as_slice(), None),
    ] {
        let answer = kpis(&api(), &question(group_by, locations), now).await.unwrap();
        assert_eq!(answer.fresh_as_of, newest.map(|sale| sale.recorded_at().to_utc()), "{group_by:?}");
        assert_eq!(answer.lag_ms.is_some(), newest.is_some());
    }

    query.to = query.from.pred_opt().unwrap();
    assert!(kpis(&api(), &query, now).await.is_err(), "a period that ends before it starts");
}

#[tokio::test]
async fn the_report_equals_a_direct_query() {
    let location: LocationId = random();
    let mut dice = Dice(11);
    let sales: Vec<Sale> = (1..=200)
        .map(|seq| Sale { slot: dice.below(288) as i32, cashier: 1 + dice.below(4) as u128, ..Sale::at(location, seq) })
        .collect();
    deliver(&sink(), &sales).await;
    let direct: Vec<(String, u64, i64, i64)> = crate::world::analyst()
        .fetch(&format!(
            "SELECT toString(cashier_id), count(), toInt64(sum(net) * 100), toInt64(sum(collected) * 100)
             FROM vorca.fct_documents WHERE location_id = '{location}' GROUP BY cashier_id ORDER BY cashier_id"
        ))
        .await
        .unwrap();
    let mut reported: Vec<(String, u64, i64, i64)> = report(GroupBy::Cashier, &[location])
        .await
        .iter()
        .map(|row| {
            let cashier = row.cashier_id.map(|id| id.to_string()).unwrap_or_default();
            (cashier, row.documents, row.net_minor.unwrap_or(0), row.collected_minor.unwrap_or(0))
        })
        .collect();
    reported.sort();
    assert_eq!(reported, direct);
    assert_eq!(direct.iter().map(|row| row.1).sum::<u64>(), 200);
}
