//! The demonstration business: sold as planned, found again, and every store agrees afterwards.

use e2e::demo::{self, page};

use crate::world::{DRAIN, SALES, said, verify, world};

#[tokio::test(flavor = "multi_thread")]
async fn every_sale_is_answered_as_planned_and_all_stores_agree() {
    let world = world().await;
    let counts = &world.demo.counts;
    assert!(world.demo.is_clean(), "{:?}", counts.surprises);
    let refused: u64 = counts.refused.values().sum();
    assert_eq!(counts.sold + refused, SALES);
    assert!(counts.replayed > 0 && refused > 0, "{counts:?}");
    assert!(world.demo.drained.is_some(), "the pipeline is still behind");
    let verified = verify(&world.endpoints).await;
    assert!(verified.status.success(), "{}", said(&verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_and_start_sell_the_same_sales_again() {
    let world = world().await;
    let path = world.endpoints.run_dir.join("demo.json");
    let mut state = demo::state::State::find(&world.endpoints.run_dir).unwrap().unwrap();
    // as if the first run had been killed just before it noted its end
    state.is_complete = false;
    e2e::endpoints::write_private(&path, &serde_json::to_vec(&state).unwrap()).unwrap();
    let options = demo::Options {
        sales: 0,
        rate: None,
        locations: state.locations,
        seed: state.seed,
        patience: DRAIN,
        ..demo::Options::default()
    };
    let again = demo::run(&world.endpoints, &options).await.unwrap();
    assert!(again.is_clean(), "{:?}", again.counts.surprises);
    assert_eq!(again.counts.sold_before, again.counts.sold, "a sale was sold twice");
    assert_eq!(again.counts.sold, world.demo.counts.sold);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_each_currency_by_itself() {
    let world = world().await;
    let text = page::page(&world.endpoints, world.demo, Some("All 1 checks agree."), None).await.unwrap();
    for expected in ["Locations in EUR", "Locations in USD", "Best sellers in EUR", "Low stock", "Berlin Kreuzberg"] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert!(!text.contains("not known yet"), "a name is missing in\n{text}");
    assert!(text.contains("\x1b[1mBest sellers in EUR\x1b[0m\n"), "{text}");
    let plain = page::plain(&text);
    assert!(plain.contains("\nBest sellers in EUR\n") && !plain.contains('\x1b'), "{plain}");
    let elsewhere = page::page(&world.endpoints, world.demo, None, Some(std::path::Path::new("my.env"))).await.unwrap();
    let (_, next) = elsewhere.split_once("Try next").unwrap();
    assert!(next.contains("./dev up --external my.env") && !next.contains("./dev till"), "{next}");
}
