//! The proof of a receipt, from the sale over the signed root of its day to a check that knows nothing but the key.

use std::process::Command;

use chrono::{TimeDelta, Utc};
use ingest_api::access_matrix::Caller as Column;
use ingest_api::audit::proof::{Refuted, check};
use ingest_api::audit::roots::close_days;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::audit_chain::{differences, keys, seal_all, signer};
use crate::matrix::{Matrix, send};

async fn proof(matrix: &Matrix, sale: &str) -> crate::world::Answer {
    matrix.world.owner.get(&format!("/sales/{sale}/proof")).await
}

/// Another sale at the place of the matrix; its id.
async fn sell(matrix: &Matrix) -> String {
    let route = ingest_api::router::routes()
        .into_iter()
        .find(|route| route.path == "/sales" && route.method == "POST")
        .unwrap();
    let till = matrix.caller(Column::Terminal).await;
    let ask = matrix.ask(&route, &matrix.own, &till).await;
    let answer = send(&till.caller, &route, &ask, "").await.expect(201);
    answer["sale_id"].as_str().unwrap().to_owned()
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_receipt_is_proven_by_the_key_alone_and_no_byte_of_it_can_change(
    pool: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let matrix = Matrix::new(&pool).await;
    let mut sales = vec![matrix.own.sale.clone()];
    for _ in 0..4 {
        sales.push(sell(&matrix).await);
    }
    assert_eq!(proof(&matrix, &sales[0]).await.problem(), (409, "not_rooted".into(), String::new()), "not sealed");
    let mut conn = seal_all(&options).await;
    assert_eq!(close_days(&mut conn, &signer(), Utc::now()).await.unwrap(), 0, "the day goes on");
    assert_eq!(proof(&matrix, &sales[0]).await.problem().1, "not_rooted");
    let later = Utc::now() + TimeDelta::days(3);
    assert_eq!(close_days(&mut conn, &signer(), later).await.unwrap(), 2, "each location");
    assert_eq!(close_days(&mut conn, &signer(), later).await.unwrap(), 0, "once");
    for sale in &sales {
        let answer = proof(&matrix, sale).await;
        answer.expect(200);
        let proven = check(&answer.text(), &keys()).unwrap();
        let receipt = matrix.world.owner.get(&format!("/sales/{sale}")).await.text();
        assert_eq!(proven.receipt, receipt, "the receipt is what the till was told");
        assert_eq!((proven.root.root_no, proven.root.leaf_count), (1, 7));
    }

    // A sale of the closed day that arrives late comes under a root of its own; the first one stays as it was signed.
    let first = proof(&matrix, &sales[0]).await.bytes;
    let late = sell(&matrix).await;
    assert_eq!(proof(&matrix, &late).await.problem().1, "not_rooted");
    drop(conn);
    let mut conn = seal_all(&options).await;
    assert_eq!(close_days(&mut conn, &signer(), later).await.unwrap(), 1);
    let proven = check(&proof(&matrix, &late).await.text(), &keys()).unwrap();
    assert_eq!((proven.root.root_no, proven.root.leaf_count), (2, 1));
    assert_eq!(proof(&matrix, &sales[0]).await.bytes, first);
    assert_eq!(differences(&mut conn, &Default::default()).await, Vec::<String>::new());

    let text = String::from_utf8(first).unwrap();
    for place in 0..text.len() {
        for bit in [1, 2, 16] {
            let mut bent = text.clone().into_bytes();
            bent[place] ^= bit;
            let Ok(bent) = String::from_utf8(bent) else { continue };
            assert!(check(&bent, &keys()).is_err(), "byte {place}: {bent}");
        }
    }
    check_by_command(&text);
}

/// The command: no configuration, no database, exit code 0 or 1.
fn check_by_command(proof: &str) {
    let file = std::env::temp_dir().join(format!("vorca-proof-{}.json", uuid::Uuid::now_v7()));
    let run = |text: &str, key: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingest-api"));
        let done = command.env_clear().args(["check-proof", "--proof"]).arg(&file).args(["--public-key", key]).output();
        let done = done.unwrap();
        (done.status.code(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    };
    let key = signer().public_text();
    let (code, said) = run(proof, &key);
    assert!(code == Some(0) && said.starts_with("proven: sale "), "{said}");
    let (code, said) = run(&proof.replace("\\\"total_minor\\\":250", "\\\"total_minor\\\":150"), &key);
    assert!(code == Some(1) && said.contains("altered"), "{said}");
    let (code, said) = run(proof, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    assert!(code == Some(1) && said.contains("not signed by this key"), "{said}");
    let (code, said) = run("{}", &key);
    assert!(code == Some(1) && said.contains("no proof"), "{said}");
    std::fs::remove_file(&file).unwrap();
}

#[sqlx::test(migrations = "../migrations/postgres")]
async fn a_proof_is_of_its_own_sale(pool: PgPoolOptions, options: PgConnectOptions) {
    let pool = pool.connect_with(options.clone()).await.unwrap();
    let matrix = Matrix::new(&pool).await;
    let other = sell(&matrix).await;
    let mut conn = seal_all(&options).await;
    close_days(&mut conn, &signer(), Utc::now() + TimeDelta::days(3)).await.unwrap();
    let (mine, theirs) = (proof(&matrix, &matrix.own.sale).await.json(), proof(&matrix, &other).await.json());
    let mixed = |name: &str| {
        let mut mixed = mine.clone();
        mixed[name] = theirs[name].clone();
        check(&mixed.to_string(), &keys())
    };
    assert_eq!(mixed("sale_id"), Err(Refuted::OtherSale));
    assert_eq!(mixed("receipt"), Err(Refuted::OtherSale));
    for name in ["record_hash", "leaf_index", "path"] {
        assert_eq!(mixed(name), Err(Refuted::OtherReceipt), "{name}");
    }
    let mut unsigned = mine.clone();
    unsigned["root"]["signed_at"] = Value::from(1);
    assert_eq!(check(&unsigned.to_string(), &keys()), Err(Refuted::Unsigned));
    let absent = matrix.world.owner.get("/sales/00000000-0000-0000-0000-00000000beef/proof").await;
    assert_eq!(absent.problem().0, 404);
}
