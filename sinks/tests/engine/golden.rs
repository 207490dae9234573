//! Golden data: few documents, every KPI in every grouping worked out by hand.

use schemas::ids::LocationId;
use sinks::marts::{Definition, PRODUCTS, SALES, Touched, recompute};
use sinks::reports::{GroupBy, KpiRow, freshness, kpis};

use crate::world::{Dice, LineOf, Sale, api, deliver, question, random, report, sink, slices};

fn line(variant: u128, qty: i64, extended: i64, discount: i64, tax: i64, inclusive: bool) -> LineOf {
    LineOf { variant, qty, extended, discount, tax, inclusive }
}

/// Two locations, three currencies, four documents:
/// 1. EUR, exclusive tax, two products, a discount, cash 50.00 with change.
/// 2. EUR, inclusive tax, card plus cash, cash rounded down by 0.01.
/// 3. JPY, no minor unit. 4. KWD, three decimals, the product of (1) again.
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
            "2026-03-02 | EUR | 2 | 4685 400 0 4285 814 | 5098 | 5500 | 2143",
            "2026-03-02 | JPY | 1 | 900 0 0 900 90 | 990 | 3000 | 900",
            "2026-03-02 | KWD | 1 | 1250 0 0 1250 0 | 1250 | 1000 | 1250",
        ]
    );
    assert_eq!(
        figures(GroupBy::Hour, &both).await,
        [
            "2026-03-02 h9 | EUR | 1 | 3500 300 0 3200 608 | 3808 | 3500 | 3200",
            "2026-03-02 h10 | EUR | 1 | 1185 100 0 1085 206 | 1290 | 2000 | 1085",
            "2026-03-02 h10 | JPY | 1 | 900 0 0 900 90 | 990 | 3000 | 900",
            "2026-03-02 h25 | KWD | 1 | 1250 0 0 1250 0 | 1250 | 1000 | 1250",
        ]
    );
    assert_eq!(
        figures(GroupBy::Product, &both).await,
        [
            "p1 | EUR | 2 | 3185 400 0 2785 529 | - | 4000 | 1393",
            "p2 | EUR | 1 | 1500 0 0 1500 285 | - | 1500 | 1500",
            "p3 | JPY | 1 | 900 0 0 900 90 | - | 3000 | 900",
            "p1 | KWD | 1 | 1250 0 0 1250 0 | - | 1000 | 1250",
        ],
        "product 1 has two variants on one document, which counts once"
    );
    assert_eq!(
        figures(GroupBy::Cashier, &both).await,
        [
            "c1 | EUR | 1 | 3500 300 0 3200 608 | 3808 | 3500 | 3200",
            "c2 | EUR | 1 | 1185 100 0 1085 206 | 1290 | 2000 | 1085",
            "c1 | JPY | 1 | 900 0 0 900 90 | 990 | 3000 | 900",
            "c1 | KWD | 1 | 1250 0 0 1250 0 | 1250 | 1000 | 1250",
        ]
    );
    assert_eq!(
        figures(GroupBy::Tender, &both).await,
        [
            "cash | EUR | 2 | - - - - - | 4098 | - | -",
            "card | EUR | 1 | - - - - - | 1000 | - | -",
            "card | JPY | 1 | - - - - - | 990 | - | -",
            "other | KWD | 1 | - - - - - | 1250 | - | -",
        ],
        "cash is net of change"
    );
    let by_location = report(GroupBy::Location, &both).await;
    let at = |location, currency: &str| {
        let found = by_location.iter().find(|row| row.location_id == Some(location) && row.currency == currency);
        text(found.expect("a row"))
    };
    assert_eq!(by_location.len(), 3);
    assert_eq!(at(north, "EUR"), " | EUR | 2 | 4685 400 0 4285 814 | 5098 | 5500 | 2143");
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
        (sales_kpi, "sumIf(sold_net_minor + sold_discount_minor", "sumIf(sold_net_minor".to_owned()),
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
    for (version, (kpi, right, wrong)) in (2..).step_by(2).zip(plants) {
        assert!(kpi.select.contains(right), "the plant does not fit {}: {right}", kpi.name);
        let planted = Definition { version, select: kpi.select.replace(right, &wrong), ..kpi.clone() };
        let touched: Touched = slices(&sales).into_iter().map(|slice| planted.slice(slice)).collect();
        recompute(&store, &planted, &touched).await.unwrap();
        assert_ne!(everything().await, golden, "not caught: {wrong}");
        // The right definition under the next version: the plant after it must win over both.
        let healed = Definition { version: version + 1, ..kpi.clone() };
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
            let tenders = if seq % 3 == 0 { vec![("card", 700), ("cash", given - 700)] } else { vec![("cash", given)] };
            Sale { slot: dice.below(300) as i32, tenders, ..Sale::at(location, seq) }
        })
        .collect();
    deliver(&sink(), &sales).await;
    let collected = |rows: Vec<KpiRow>| rows.iter().filter_map(|row| row.collected_minor).sum::<i64>();
    let by_tender = collected(report(GroupBy::Tender, &[location]).await);
    assert_eq!(by_tender, collected(report(GroupBy::Day, &[location]).await));
    assert_eq!(by_tender, 60 * 1190);
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
    let fresh_as_of = answer.fresh_as_of.expect("documents are there");
    assert!(fresh_as_of >= sales[1].recorded_at().to_utc());
    assert_eq!(answer.lag_ms, Some((now - fresh_as_of).num_milliseconds().max(0)));
    assert!(freshness(&api(), GroupBy::Product).await.unwrap().is_some());

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
