//! What every store holds, as bytes to be searched.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::stack::{Service, Stack, postgres_programs};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sqlx::{Connection as _, PgConnection};

use crate::DEADLINE;

fn superuser(stack: &Stack) -> String {
    let exports = stack.exports();
    exports.into_iter().find(|(name, _)| *name == "DATABASE_URL").expect("a superuser").1
}

/// What `pg_dump` writes of a database: everything of every table and nothing left out.
pub async fn dump(stack: &Stack, database: &str) -> Vec<u8> {
    let url = superuser(stack);
    let url = format!("{}/{database}", url.rsplit_once('/').expect("a database").0);
    let mut command = Command::new(postgres_programs().unwrap().join("pg_dump"));
    command.arg("--dbname").arg(url);
    let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// Has Postgres write its pages, so that its files hold what its memory holds.
pub async fn checkpoint(stack: &Stack) {
    let mut pg = PgConnection::connect(&superuser(stack)).await.unwrap();
    sqlx::query("checkpoint").execute(&mut pg).await.unwrap();
}

/// Keys, headers and payloads of every record of every topic, dead letters included.
pub async fn topics(stack: &Stack) -> Vec<u8> {
    let brokers = stack.endpoints().unwrap().kafka;
    tokio::task::spawn_blocking(move || records(&brokers)).await.unwrap()
}

fn records(brokers: &str) -> Vec<u8> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "canaries")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let wait = Duration::from_secs(60);
    let metadata = consumer.fetch_metadata(None, wait).unwrap();
    let (mut list, mut left) = (TopicPartitionList::new(), 0);
    for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with("vorca.")) {
        for partition in topic.partitions() {
            let (low, high) = consumer.fetch_watermarks(topic.name(), partition.id(), wait).unwrap();
            list.add_partition_offset(topic.name(), partition.id(), Offset::Offset(low)).unwrap();
            left += high - low;
        }
    }
    consumer.assign(&list).unwrap();
    let (mut bytes, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while left > 0 {
        assert!(Instant::now() < deadline, "{left} records cannot be read");
        // What goes wrong in between is tried again by the client.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        left -= 1;
        for part in [message.key(), message.payload()].into_iter().flatten() {
            bytes.extend_from_slice(part);
            bytes.push(b'\n');
        }
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            bytes.extend_from_slice(header.value.unwrap_or_default());
            bytes.push(b'\n');
        }
    }
    bytes
}

/// Every row of every table of ours in ClickHouse.
pub async fn clickhouse(stack: &Stack) -> Vec<u8> {
    let tables = query(stack, "select concat(database, '.', name) from system.tables where database like 'vorca%' and engine not like '%View'").await;
    let mut bytes = Vec::new();
    for table in String::from_utf8(tables).unwrap().lines() {
        bytes.extend(query(stack, &format!("select * from {table}")).await);
    }
    bytes
}

async fn query(stack: &Stack, sql: &str) -> Vec<u8> {
    let env = stack.env_for(Service::ClickHouseSink);
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    let request = client
        .post(&env["VORCA__CLICKHOUSE__URL"])
        .header("X-ClickHouse-User", &env["VORCA__CLICKHOUSE__USER"])
        .header("X-ClickHouse-Key", &env["VORCA__CLICKHOUSE__PASSWORD"]);
    let answer = request.body(sql.to_owned()).send().await.unwrap();
    assert!(answer.status().is_success(), "{sql}: {}", answer.text().await.unwrap());
    answer.bytes().await.unwrap().to_vec()
}

/// Every file below a folder: data, write-ahead log, segments, append-only files, logs, configuration.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
