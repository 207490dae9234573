//! A retailer's dirty export, imported through the API: interrupted, resumed, run again, reconciled.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::replay;

use crate::world::world;

const MAP: &str = r#"
name = "dirty-fixture"
[columns]
document = "Bon"
location = "Filiale"
location_name = "Filialname"
time = ["Datum", "Zeit"]
sku = "Artikel"
description = "Bezeichnung"
quantity = "Menge"
amount = "Betrag"
discounts = ["Rabatt"]
customer = "Kunde"
[constants]
currency = "EUR"
zone = "Europe/Berlin"
encoding = "windows-1252"
delimiter = ";"
decimal = ","
time_formats = ["%d.%m.%Y %H:%M", "%Y-%m-%d %H:%M:%S"]
discount_sign = "negative"
documents_restart_daily = true
[constants.tax]
profile = "VAT"
rate = "0.19"
"#;

/// Documents of two days at three locations, scattered and in two date forms, with dirt between them.
fn fixture(directory: &Path) -> (PathBuf, PathBuf) {
    let mut text = String::from("Filiale;Filialname;Bon;Datum;Zeit;Artikel;Bezeichnung;Menge;Betrag;Rabatt;Kunde\r\n");
    for line in 0..4 {
        for n in 0..90 {
            let (location, day) = (n % 3, 1 + n / 45);
            let date = if n % 2 == 0 { format!("0{day}.06.2019") } else { format!("2019-06-0{day}") };
            let time = if n % 2 == 0 { format!("1{}:05", n % 8) } else { format!("1{}:05:00", n % 8) };
            let qty = if line == 3 { "0,345" } else { "2" };
            let discount = if line == 1 { "-0,25" } else { "" };
            let customer = if n % 5 == 0 { format!("K{}", n % 7) } else { String::new() };
            // one ticket number per location and day, used again the next day
            let ticket = n % 45 / 3;
            writeln!(
                text,
                "F{location};\"Köln; Straße {location}\";{ticket};{date};{time};AB-{line}{location};\"Käse \"\"{line}\"\"\";{qty};\"1.0{line}2,{n:02}\";{discount};{customer}\r"
            )
            .unwrap();
        }
    }
    for dirt in [
        "F0;x;900;01.06.2019;10:00;AB-00;Storno;-1;-3,99;;",
        "F0;x;901;01.06.2019;10:00;AB-00;Leer;0;0,00;;",
        "F0;x;902;01.06.2019;10:00;;Ohne Artikel;1;1,00;;",
        "F0;x;903;31.06.2019;10:00;AB-00;Kein Tag;1;1,00;;",
        "F0;x;904;01.06.2019;10:00;AB-00;Kein Betrag;1;;;",
        "F0;x;905;01.06.2019;10:00;AB-00;Zahl;1;eins;;",
        "F0;x;906;01.06.2019;10:00;AB-00;kurz;1",
        "F0;x;907;01.06.2019;10:00;AB-00;Bruch;1;1,005;;",
        "F0;x;908;01.06.2099;10:00;AB-00;Morgen;1;1,00;;",
        "F9;x;909;30.12.1899;00:00;AB-00;Leere Zelle;1;1,00;;",
        "F0;x;910;01.06.2019;10:00;AB-00;Zu viel;1;20000000000,00;;",
        "F0;x;911;01.06.2019;10:00;AB-00;\"12 Zoll;1;1,00;;",
        "F0;x;912;01.06.2019;10:00;AB-00;Danach;0;0,00;;",
    ] {
        writeln!(text, "{dirt}\r").unwrap();
    }
    let file = directory.join("export.csv.gz");
    let bytes = encoding_rs::WINDOWS_1252.encode(&text).0;
    let mut gzip = flate2::write::GzEncoder::new(std::fs::File::create(&file).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).unwrap();
    gzip.finish().unwrap();
    let map = directory.join("map.toml");
    std::fs::write(&map, MAP).unwrap();
    (file, map)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dirty_export_is_sold_once_however_often_it_is_run() {
    let world = world().await;
    let directory = tempfile::tempdir().unwrap();
    let (file, map) = fixture(directory.path());

    // killed while it sells
    let endpoints = world.endpoints.clone();
    let (first_file, first_map) = (file.clone(), map.clone());
    let first = tokio::spawn(async move { replay::run(&endpoints, &first_file, &first_map).await });
    let pool = sqlx::PgPool::connect(&world.endpoints.postgres).await.unwrap();
    let sold = || async {
        let count: i64 = sqlx::query_scalar(
            "select count(*) from documents d join locations l using (location_id) where l.external_id like 'dirty-fixture/%'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        count
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    while sold().await < 5 && !first.is_finished() {
        assert!(Instant::now() < deadline, "nothing was sold in two minutes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.abort();
    assert!(!first.await.is_ok_and(|done| done.is_err()), "the first run failed by itself");

    let report = replay::run(&world.endpoints, &file, &map).await.unwrap();
    let found = report.reconciliation.as_ref().unwrap();
    assert_eq!(found.differences, []);
    assert_eq!((report.plan.rows, report.plan.documents), (373, 91));
    assert_eq!((found.accepted_rows, found.days), (360, 6));
    let refused: Vec<(&str, u64)> = found.refused.iter().map(|(code, count)| (code.as_str(), *count)).collect();
    let expected = [
        ("amount_precision", 1),
        ("amount_too_large", 1),
        ("bad_number", 1),
        ("bad_time", 1),
        ("column_count", 1),
        ("invalid_value", 1),
        ("missing_amount", 1),
        ("missing_sku", 1),
        ("return_line", 1),
        ("time_out_of_range", 1),
        ("unbalanced_quote", 1),
        ("zero_quantity", 2),
    ];
    assert_eq!(refused, expected);
    let lines = std::fs::read_to_string(&report.report).unwrap();
    assert!(lines.contains("returns are not taken over yet") && lines.contains("lies in the future"), "{lines}");
    assert_eq!(sold().await, 90);

    // again, and again without what it remembered
    let again = replay::run(&world.endpoints, &file, &map).await.unwrap();
    assert!(again.is_clean());
    std::fs::remove_file(world.endpoints.run_dir.join("replay/dirty-fixture/progress.jsonl")).unwrap();
    let forgetful = replay::run(&world.endpoints, &file, &map).await.unwrap();
    assert!(forgetful.is_clean());
    assert_eq!(sold().await, 90);
    pool.close().await;
}
