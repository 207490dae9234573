//! Any replay, repetition or batch cut gives the same raw rows and the same KPIs.

use schemas::ids::LocationId;
use sinks::marts::Slice;
use sinks::reports::{GroupBy, KpiRow};
use sinks::rows::Rows;
use sinks::store::Store;

use crate::world::{Dice, LineOf, Sale, deliver, random, refresh, report, rows, sink, slices, stale_at};

fn sales(location: LocationId, count: i64, dice: &mut Dice) -> Vec<Sale> {
    (1..=count)
        .map(|seq| {
            let lines: Vec<LineOf> = (0..1 + dice.below(4))
                .map(|_| LineOf {
                    variant: 10 + dice.below(30) as u128,
                    qty: 1000 * (1 + dice.below(3) as i64),
                    extended: 100 + dice.below(2000) as i64,
                    discount: dice.below(90) as i64,
                    tax: dice.below(50) as i64,
                    inclusive: dice.below(2) == 0,
                })
                .collect();
            let total: i64 = lines.iter().map(|l| l.extended - l.discount + if l.inclusive { 0 } else { l.tax }).sum();
            Sale {
                slot: 100 + dice.below(12) as i32,
                cashier: 1 + dice.below(3) as u128,
                tenders: vec![("cash", total + dice.below(100) as i64)],
                lines,
                ..Sale::at(location, seq)
            }
        })
        .collect()
}

async fn everything(location: LocationId) -> Vec<Vec<KpiRow>> {
    let mut all = Vec::new();
    for group_by in [GroupBy::Day, GroupBy::Hour, GroupBy::Product, GroupBy::Cashier, GroupBy::Tender] {
        all.push(report(group_by, &[location]).await);
    }
    all
}

#[tokio::test]
async fn kpi_identical_after_triple_replay_in_any_batch_cut() {
    let (store, location) = (sink(), random());
    let mut dice = Dice(42);
    let sales = sales(location, 150, &mut dice);
    deliver(&store, &sales).await;
    let once = everything(location).await;
    let documents: u64 = once[0].iter().map(|row| row.documents).sum();
    assert_eq!(documents, 150);

    for _ in 0..3 {
        let mut again = sales.clone();
        dice.shuffle(&mut again);
        let mut rest = again.as_slice();
        while !rest.is_empty() {
            let cut = (1 + dice.below(60) as usize).min(rest.len());
            let (batch, tail) = rest.split_at(cut);
            deliver(&store, batch).await;
            rest = tail;
        }
        assert_eq!(everything(location).await, once);
    }
    let surplus: Vec<u64> = store
        .fetch(&format!(
            "SELECT toUInt64(count() - uniqExact(document_id, line_no))
             FROM vorca_raw.lines FINAL WHERE location_id = '{location}'"
        ))
        .await
        .unwrap();
    assert_eq!(surplus, [0]);
    assert!(stale_at(&store, &[location]).await.is_empty());
}

/// Sales of a process that died after the lines, then after the tenders, then after half of the documents and before
/// any mart; and what the next start finds. The sink of a platform on these servers may compare at this very moment and
/// be quicker: then others are left.
async fn left_half_way(store: &Store) -> (LocationId, Vec<Sale>, Vec<Slice>) {
    for _ in 0..3 {
        let location = random();
        let sales = sales(location, 40, &mut Dice(43));
        let whole = rows(&sales);
        let lines = Rows { lines: whole.lines.clone(), ..Rows::default() };
        let tenders = Rows { tenders: whole.tenders, lines: whole.lines, ..Rows::default() };
        for half in [lines, tenders, rows(&sales[..20])] {
            store.insert(&half).await.unwrap();
        }
        let found = stale_at(store, &[location]).await;
        if !found.is_empty() && report(GroupBy::Day, &[location]).await.is_empty() {
            return (location, sales, found);
        }
    }
    panic!("what a dead process left has to be found without memory of it, and no mart computed before");
}

#[tokio::test]
async fn a_kill_between_the_tables_of_a_batch_heals_by_replay() {
    let store = sink();
    let (location, sales, found) = left_half_way(&store).await;
    let whole = rows(&sales);
    refresh(&store, &found.into_iter().collect()).await;
    deliver(&store, &sales).await;

    let lines: i64 = whole.lines.iter().map(|line| line.net_minor).sum();
    let day = report(GroupBy::Day, &[location]).await;
    assert_eq!((day[0].documents, day[0].net_minor), (40, Some(lines)));
    let products: i64 = report(GroupBy::Product, &[location]).await.iter().filter_map(|row| row.net_minor).sum();
    assert_eq!(products, lines);
    assert!(stale_at(&store, &[location]).await.is_empty());
}

#[tokio::test]
async fn a_later_version_of_a_document_replaces_it() {
    let (store, location) = (sink(), random());
    let first = Sale::at(location, 1);
    deliver(&store, std::slice::from_ref(&first)).await;
    let mut restated = Sale { epoch: 2, ..first.clone() };
    restated.lines[0].extended = 500;
    restated.tenders = vec![("card", 690)];
    deliver(&store, std::slice::from_ref(&restated)).await;
    deliver(&store, &[first]).await;
    let day = report(GroupBy::Day, &[location]).await;
    assert_eq!((day[0].documents, day[0].net_minor, day[0].collected_minor), (1, Some(500), Some(690)));
    assert_eq!(slices(&[restated]).len(), 1);
}
