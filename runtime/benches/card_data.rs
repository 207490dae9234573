//! What the search for card data costs a sale: every text of a usual one, identifiers included (the API spares those).
//! `cargo bench -p runtime --bench card_data`; compared with the CPU that a whole sale costs the API.

#![expect(clippy::print_stdout, reason = "the result is the output")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use runtime::card_data;

/// CPU of the API for one sale (docs/benchmarks.md).
const SALE_NS: f64 = 150_000.0;
const ROUND: Duration = Duration::from_millis(50);
const ROUNDS: usize = 40;

/// The texts of a sale of three lines with a discount and a card tender.
const SALE: &[&str] = &[
    "01990a5e-5f4c-7c3e-9d0c-2b8f6a1d4e77",
    "01990a5e-0000-7000-8000-2b8f6a1d4e78",
    "01990a5e-0000-7000-8000-2b8f6a1d4e79",
    "2026-03-01T10:15:00.123Z",
    "2026-03-01T10:15:01.456Z",
    "EUR",
    "01990a5e-0000-7000-8000-2b8f6a1d4e7a",
    "01990a5e-0000-7000-8000-2b8f6a1d4e7b",
    "01990a5e-0000-7000-8000-2b8f6a1d4e7c",
    "percent",
    "10",
    "happy_hour",
    "card",
    "psp-token-3MtwBwLkdIwHu7ix28a3tJ3z",
    "visa",
    "4242",
    "09/28",
    "cash",
];
/// The ones the API keeps as text.
const KEPT: &[&str] = &["EUR", "10", "happy_hour", "psp-token-3MtwBwLkdIwHu7ix28a3tJ3z", "visa", "4242", "09/28"];
/// The slowest that a text of this length can be: one digit after the other, never a card number.
const WORST: &str = "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1";

fn main() {
    for (what, texts) in [("texts kept of a sale", KEPT), ("all texts of a sale", SALE), ("a hostile text", &[WORST])] {
        let ns = measure(texts);
        println!("{what:<22} {:>3} texts {ns:>9.1} ns  {:>6.3} % of a sale", texts.len(), ns / SALE_NS * 100.0);
    }
}

/// Nanoseconds for all of the texts: the median of many rounds.
fn measure(texts: &[&str]) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (begun, mut passes) = (Instant::now(), 0u32);
            while begun.elapsed() < ROUND {
                for _ in 0..100 {
                    black_box(black_box(texts).iter().any(|text| card_data::is_in(text)));
                }
                passes += 100;
            }
            begun.elapsed().as_nanos() as f64 / f64::from(passes)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
