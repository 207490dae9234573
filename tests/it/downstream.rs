//! The first ten minutes of a downstream team: `./dev tail`, and the committed Python consumer.

use std::path::PathBuf;
use std::process::Command;

use e2e::tail;
use serde_json::Value;

use crate::world::{root, run, said, world};

/// What the consumer of the docs needs, as its first lines say.
const PACKAGE: &str = "confluent-kafka[avro]==2.16.0";

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_decoded_records_with_key_and_headers() {
    let world = world().await;
    let options = tail::Options { topic: "sales".to_owned(), from_beginning: true, limit: Some(20) };
    let mut out: Vec<u8> = Vec::new();
    assert_eq!(tail::run(&world.endpoints, &options, &mut out).await.unwrap(), 20);
    for line in String::from_utf8(out).unwrap().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["topic"], "vorca.sales.v1");
        assert_eq!(record["key"], record["value"]["location_id"], "{line}");
        assert_eq!(record["headers"]["ce_type"], "vorca.document.committed.v1", "{line}");
        assert!(record["value"]["lines"].as_array().is_some_and(|lines| !lines.is_empty()), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_names_the_topics_when_there_is_no_such_one() {
    let world = world().await;
    let options = tail::Options { topic: "nonsense".to_owned(), from_beginning: true, limit: Some(1) };
    let error = tail::run(&world.endpoints, &options, &mut Vec::<u8>::new()).await.unwrap_err().to_string();
    assert!(error.contains("vorca.sales.v1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_consumer_of_the_docs_reads_every_topic() {
    let world = world().await;
    let mut command = Command::new("python3");
    command
        .arg("docs/consumer.py")
        .current_dir(root())
        .env("PYTHONPATH", python_packages().await)
        .env("KAFKA", &world.endpoints.kafka)
        .env("REGISTRY", &world.endpoints.registry);
    let done = run(command).await;
    assert!(done.status.success(), "{}", said(&done));
    let text = String::from_utf8_lossy(&done.stdout);
    // every topic that a quiet, healthy platform writes to on the first day of its business
    let silent = [schemas::topics::RESYNC.name, schemas::topics::AUDIT_ROOTS.name];
    for topic in schemas::topics::ALL.iter().filter(|topic| !silent.contains(&topic.name)) {
        assert!(text.lines().any(|line| line.starts_with(topic.name)), "nothing of {}", topic.name);
    }
}

/// The packages of the example, installed once into the cache beside the servers.
async fn python_packages() -> PathBuf {
    let cache = std::env::var_os("VORCA_CACHE_DIR").map_or_else(|| PathBuf::from("/var/cache/vorca"), PathBuf::from);
    let cache = if std::fs::create_dir_all(&cache).is_ok() { cache } else { std::env::temp_dir() };
    let place = cache.join("python-confluent-kafka-2.16.0");
    if place.join("confluent_kafka").is_dir() {
        return place;
    }
    let fresh = tempfile::tempdir_in(&cache).expect("a folder in the cache");
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--target"]);
    command.arg(fresh.path().join("packages")).arg(PACKAGE);
    let done = run(command).await;
    assert!(done.status.success(), "{}", said(&done));
    match std::fs::rename(fresh.path().join("packages"), &place) {
        // another run on this machine was first
        Err(_) if place.is_dir() => {}
        other => other.expect("the packages move into the cache"),
    }
    place
}
