//! Slices are replaced whole, the highest version wins, a changed definition replaces once.

use schemas::ids::LocationId;
use sinks::marts::{Definition, SALES, Scope, recompute, stale};
use sinks::reports::GroupBy;
use sinks::store::Store;

use crate::world::{Sale, deliver, random, report, rows, sink, slices, stale_at};

async fn slice_versions(store: &Store, location: LocationId) -> Vec<u128> {
    let sql = format!("SELECT slice_version FROM vorca_raw.mart_sales FINAL WHERE location_id = '{location}'");
    store.fetch(&sql).await.unwrap()
}

#[tokio::test]
async fn a_zombies_older_slice_loses_whenever_it_arrives() {
    let (store, location): (Store, LocationId) = (sink(), random());
    deliver(&store, &[Sale::at(location, 1)]).await;
    // What a process holds that was stopped after computing: the slice of one sale.
    let zombie: Vec<(u128, String)> = store
        .fetch(&format!(
            "SELECT slice_version, toString(figures) FROM vorca_raw.mart_sales FINAL WHERE location_id = '{location}'"
        ))
        .await
        .unwrap();
    deliver(&store, &[Sale::at(location, 2)]).await;
    let (version, figures) = &zombie[0];
    store
        .execute(&format!(
            "INSERT INTO vorca_raw.mart_sales SELECT * REPLACE (toUInt128('{version}') AS slice_version,
                 CAST('{}', toTypeName(figures)) AS figures, now64(6) AS computed_at)
             FROM vorca_raw.mart_sales FINAL WHERE location_id = '{location}'",
            figures.replace('\'', "\\'")
        ))
        .await
        .unwrap();
    let day = report(GroupBy::Day, &[location]).await;
    assert_eq!((day[0].documents, day[0].net_minor), (2, Some(2000)));
    assert!(stale_at(&store, &[location]).await.is_empty());
}

#[tokio::test]
async fn a_figure_that_vanished_from_raw_vanishes_from_the_mart() {
    let (store, location): (Store, LocationId) = (sink(), random());
    deliver(&store, &[Sale { cashier: 1, ..Sale::at(location, 1) }]).await;
    // The same document restated under another cashier.
    deliver(&store, &[Sale { cashier: 2, epoch: 2, ..Sale::at(location, 1) }]).await;
    let cashiers = report(GroupBy::Cashier, &[location]).await;
    assert_eq!(cashiers.iter().map(|row| row.cashier_id.map(|id| id.0.as_u128())).collect::<Vec<_>>(), [Some(2)]);
}

#[tokio::test]
async fn a_changed_definition_replaces_every_slice_once_and_an_older_one_never_wins() {
    let (store, location): (Store, LocationId) = (sink(), random());
    let sales: Vec<Sale> = (1..=6).map(|seq| Sale { slot: 100 + seq as i32, ..Sale::at(location, seq) }).collect();
    deliver(&store, &sales).await;
    let scope = [location.0];
    let scope = Scope::Locations(&scope);
    assert!(stale(&store, &SALES, scope).await.unwrap().is_empty());

    let next = Definition {
        version: SALES.version + 1,
        select: SALES.select.replace("toUInt64(kind IN ('sale', 'exchange'))", "toUInt64(10)"),
        ..SALES.clone()
    };
    let outdated = stale(&store, &next, scope).await.unwrap();
    assert_eq!(outdated.len(), 6, "every slice");
    recompute(&store, &next, &outdated.into_iter().collect()).await.unwrap();
    assert!(stale(&store, &next, scope).await.unwrap().is_empty(), "once");
    assert_eq!(report(GroupBy::Day, &[location]).await[0].documents, 60);

    let before = slice_versions(&store, location).await;
    recompute(&store, &SALES, &slices(&sales)).await.unwrap();
    assert_eq!(report(GroupBy::Day, &[location]).await[0].documents, 60, "a process of the release before loses");
    assert_eq!(slice_versions(&store, location).await, before);
}

#[tokio::test]
async fn the_version_of_a_slice_rises_with_its_data_and_with_nothing_else() {
    let (store, location): (Store, LocationId) = (sink(), random());
    deliver(&store, &[Sale::at(location, 1)]).await;
    let first = slice_versions(&store, location).await;
    deliver(&store, &[Sale::at(location, 1)]).await;
    assert_eq!(slice_versions(&store, location).await, first, "a replay is no new data");
    deliver(&store, &[Sale::at(location, 2)]).await;
    assert!(slice_versions(&store, location).await > first);
}

#[tokio::test]
async fn documents_whose_mart_is_missing_are_found() {
    let store = sink();
    let mut found: Vec<Vec<u16>> = Vec::new();
    // The sink of a platform on these servers may compare at this very moment and be quicker, once.
    for _ in 0..3 {
        let location: LocationId = random();
        let sales = [Sale { slot: 7, ..Sale::at(location, 1) }, Sale { slot: 9, ..Sale::at(location, 2) }];
        store.insert(&rows(&sales)).await.unwrap();
        found.push(stale_at(&store, &[location]).await.iter().map(|slice| slice.slot).collect());
    }
    let whole = found.iter().filter(|slots| **slots == [7, 9, 0]).count();
    assert!(whole >= 2, "two slots of the sales mart, one day of the products mart: {found:?}");
}
