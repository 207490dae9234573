//! Slices are replaced whole, the highest version wins, a changed definition replaces once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::lifecycle::Shutdown;
use schemas::ids::LocationId;
use sinks::marts::{Days, Definition, Keeper, PRODUCTS, SALES, Scope, Slice, pieces, recompute, stale, stale_after};
use sinks::reports::GroupBy;
use sinks::store::Store;

use crate::world::{DAY, Sale, deliver, random, report, rows, sink, slices, stale_at};

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

#[tokio::test]
async fn what_is_stale_is_found_page_by_page_and_piece_by_piece() {
    let (store, north, south): (Store, LocationId, LocationId) = (sink(), random(), random());
    let sales: Vec<Sale> = (1..=9)
        .map(|seq| Sale { slot: 40 + seq as i32, ..Sale::at(if seq % 2 == 0 { north } else { south }, seq) })
        .collect();
    store.insert(&rows(&sales)).await.unwrap();
    // A definition of its own: no platform on these servers computes its slices meanwhile.
    let next = Definition { version: SALES.version + 1, ..SALES.clone() };
    let both = [north.0, south.0];
    let scope = Scope::Locations(&both);
    let whole = stale(&store, &next, scope).await.unwrap();
    assert_eq!(whole.len(), 9);
    let (mut paged, mut after): (Vec<Slice>, Option<Slice>) = (Vec::new(), None);
    loop {
        let page = stale_after(&store, &next, scope, after, 2).await.unwrap();
        paged.extend(&page);
        after = page.last().copied();
        if page.len() < 2 {
            break;
        }
    }
    assert_eq!(paged, whole);

    let pieces = pieces(&store, &PRODUCTS).await.unwrap();
    let covers = |day: i32| pieces.iter().filter(|days| (days.first..=days.last).contains(&day)).count();
    assert_eq!(covers(DAY), 1);
    assert!(pieces.windows(2).all(|two| two[0].last < two[1].first), "{pieces:?}");
    let found = |days: Days| stale(&store, &next, Scope::Days(days));
    let piece = pieces.iter().find(|days| (days.first..=days.last).contains(&DAY)).expect("a piece with the day");
    let found = found(*piece).await.unwrap();
    assert!(whole.iter().all(|slice| found.contains(slice)));
}

/// A comparison that takes for ever, here: one that always fails.
#[tokio::test]
async fn what_was_touched_never_waits_for_the_comparison() {
    let (store, location): (Store, LocationId) = (sink(), random());
    let sales = [Sale::at(location, 1)];
    store.insert(&rows(&sales)).await.unwrap();
    let incomparable = |kpi: &Definition| Definition { raw: "no_such_table", ..kpi.clone() };
    let keeper = Arc::new(Keeper::of(store.clone(), incomparable(&SALES), incomparable(&PRODUCTS)));
    let stop = Shutdown::new();
    keeper.touch(&slices(&sales));
    let running = tokio::spawn({
        let (keeper, stop) = (Arc::clone(&keeper), stop.clone());
        async move { keeper.run(stop).await }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    for group_by in [GroupBy::Day, GroupBy::Product] {
        while report(group_by, &[location]).await.is_empty() {
            assert!(Instant::now() < deadline, "{group_by:?}: what was touched is not computed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    stop.cancel();
    running.await.unwrap();
}
