//! A restore of the ledger: what the lost time line wrote disappears, what is sent again comes back.

use schemas::ids::LocationId;
use sinks::reports::GroupBy;
use sinks::store::Store;
use sinks::withdraw::{Cut, cuts, unlisted, withdraw};

use crate::world::{Sale, deliver, random, refresh, report, sink, stale_at};

async fn visible(store: &Store, location: LocationId) -> Vec<(i64, i64)> {
    let sql = format!(
        "SELECT epoch, location_seq FROM vorca_raw.documents FINAL WHERE location_id = '{location}' ORDER BY location_seq"
    );
    store.fetch(&sql).await.unwrap()
}

#[tokio::test]
async fn a_lost_time_line_is_withdrawn_from_raw_and_marts_and_sold_again() {
    let (store, location): (Store, LocationId) = (sink(), random());
    let sales: Vec<Sale> = (1..=4).map(|seq| Sale { slot: 100 + seq as i32, ..Sale::at(location, seq) }).collect();
    deliver(&store, &sales).await;

    // Restored to the state after number 2.
    let cut = Cut { epoch: 2, location_id: location.0, kept_seq: 2 };
    let touched = withdraw(&store, &[cut]).await.unwrap();
    assert_eq!(touched.iter().map(|slice| slice.slot).collect::<Vec<_>>(), [103, 104]);
    assert_eq!(visible(&store, location).await, [(1, 1), (1, 2)]);
    assert_eq!(stale_at(&store, &[location]).await.len(), 3, "two slots and the day, found by comparison alone");
    refresh(&store, &touched).await;
    let day = report(GroupBy::Day, &[location]).await;
    assert_eq!((day[0].documents, day[0].net_minor), (2, Some(2000)), "an emptied slice is empty");
    assert_eq!(report(GroupBy::Product, &[location]).await[0].net_minor, Some(2000));
    assert!(stale_at(&store, &[location]).await.is_empty());
    assert!(cuts(&store).await.unwrap().lost(location, 1, 3));

    // The lost records come once more out of the topic: still withdrawn.
    deliver(&store, &sales).await;
    assert_eq!(visible(&store, location).await, [(1, 1), (1, 2)]);

    // A till sends its sale again; it gets the next number of the new epoch.
    let mut again = Sale { epoch: 2, ..sales[3].clone() };
    again.seq = 4;
    deliver(&store, &[again]).await;
    assert_eq!(visible(&store, location).await, [(1, 1), (1, 2), (2, 4)]);
    let day = report(GroupBy::Day, &[location]).await;
    assert_eq!((day[0].documents, day[0].net_minor), (3, Some(3000)));

    // Repeating the withdrawal changes nothing.
    let touched = withdraw(&store, &[cut]).await.unwrap();
    refresh(&store, &touched).await;
    assert_eq!(visible(&store, location).await, [(1, 1), (1, 2), (2, 4)]);
    assert_eq!(report(GroupBy::Day, &[location]).await, day);
    assert!(stale_at(&store, &[location]).await.is_empty());
}

#[tokio::test]
async fn a_location_that_the_restored_ledger_never_had_loses_everything() {
    let (store, kept, lost): (Store, LocationId, LocationId) = (sink(), random(), random());
    deliver(&store, &[Sale::at(kept, 1), Sale::at(lost, 1), Sale::at(lost, 2)]).await;
    let listed = [Cut { epoch: 2, location_id: kept.0, kept_seq: 1 }];
    let found = unlisted(&store, 2, &listed).await.unwrap();
    assert!(found.iter().all(|cut| cut.location_id != kept.0));
    // Other tests' locations are not listed either: only the one of this test is withdrawn.
    let mine: Vec<Cut> = found.into_iter().filter(|cut| cut.location_id == lost.0).collect();
    assert_eq!(mine, [Cut { epoch: 2, location_id: lost.0, kept_seq: 0 }]);
    withdraw(&store, &mine).await.unwrap();
    assert_eq!((visible(&store, lost).await.len(), visible(&store, kept).await.len()), (0, 1));
}
