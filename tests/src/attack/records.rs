//! A67, A68: records and rows that come past the API: forged on a topic, and by whoever has the application's login.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::codec::{Datum as _, frame, unframe};
use schemas::topics::groups::{CLICKHOUSE_SINK, Group, STOCK_PROCESSOR};
use schemas::topics::{MOVEMENTS, PARTITIONS, dead_letter};
use sqlx::{Connection as _, PgConnection};

use super::ground::Ground;
use super::trial::Trial;
use crate::stack::{Service, Stack, resident};

/// Of every wait. Far beyond what anything here takes: it only ends a run that would never end.
const DEADLINE: Duration = Duration::from_secs(90);
/// What a process may take for other things meanwhile.
const GROWTH: u64 = 64 << 20;
const READERS: [(Service, Group); 2] = [(Service::Stock, STOCK_PROCESSOR), (Service::ClickHouseSink, CLICKHOUSE_SINK)];

/// A67
pub async fn forged_records(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let brokers = ground.stack.endpoints()?.kafka;
    let source = first_of(&brokers, MOVEMENTS.name).await?;
    let payload = source.payload().context("a movement has a payload")?;
    let (id, datum) = unframe(payload).map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let before = READERS.map(|(service, _)| memory(&ground.stack, service));
    let mut forged = vec![
        ("no frame at all", b"{\"delta\": 1000000}".to_vec()),
        ("nothing but a frame", frame(id, &[])),
        ("a schema that nobody registered", frame(2_000_000_000, datum)),
        ("half a record", frame(id, &datum[..datum.len() / 2])),
        ("a byte too many", frame(id, &[datum, &[0]].concat())),
        ("nothing but 0xff", frame(id, &[0xff; 1_000])),
        ("a megabyte of zeros", frame(id, &[0; 1_000_000])),
    ];
    let text = first_text(datum).context("a movement has an identifier")?;
    for length in [1i64 << 31, 1 << 40, i64::MAX, -1, i64::MIN] {
        let mut lying = datum[..text].to_vec();
        length.put(&mut lying);
        lying.extend_from_slice(&datum[text + 1..]);
        forged.push(("a text whose length lies", frame(id, &lying)));
    }
    produce(&brokers, &source, &forged).await?;
    for (service, group) in READERS {
        let letters = letters(&brokers, group, &forged).await?;
        for (what, payload) in &forged {
            let is_there = letters.iter().any(|letter| letter == payload);
            trial.holds(
                format!("{what}: {service}"),
                if is_there { "a dead letter" } else { "no dead letter" },
                is_there,
            );
        }
    }
    for ((service, _), before) in READERS.into_iter().zip(before) {
        let (before, after) = (before?, memory(&ground.stack, service)?);
        let (grown, crashes) = (after.0.saturating_sub(before.0), after.1 - before.1);
        trial.holds(format!("memory of {service}"), format!("{} MB more", grown >> 20), grown < GROWTH);
        trial.holds(format!("{service} goes on"), format!("{crashes} crashes"), crashes == 0);
    }
    Ok(())
}

/// Where the length of the first identifier stands: 36, and as many characters of a UUID behind it.
fn first_text(datum: &[u8]) -> Option<usize> {
    let is_uuid = |text: &[u8]| std::str::from_utf8(text).is_ok_and(|text| uuid::Uuid::try_parse(text).is_ok());
    datum.windows(37).position(|bytes| bytes[0] == 2 * 36 && is_uuid(&bytes[1..]))
}

/// Resident bytes, and how often it ended unasked.
fn memory(stack: &Stack, service: Service) -> Result<(u64, u32)> {
    let services = stack.processes()?;
    let it =
        services.into_iter().find(|it| it.service == service).with_context(|| format!("{service} does not run"))?;
    let bytes = it.process.and_then(resident).with_context(|| format!("the memory of {service}"))?;
    Ok((bytes, it.crashes))
}

async fn first_of(brokers: &str, topic: &str) -> Result<OwnedMessage> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(first) = read(brokers, topic).await?.into_iter().next() {
            return Ok(first);
        }
        ensure!(Instant::now() < deadline, "no record arrives in {topic}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Copies of a record with other bytes, each under its key and headers.
async fn produce(brokers: &str, source: &OwnedMessage, forged: &[(&str, Vec<u8>)]) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("partitioner", "murmur2_random").set("message.max.bytes", "1048576");
    let producer: FutureProducer = config.create()?;
    let key = source.key().context("a movement has a key")?;
    for (what, payload) in forged {
        let mut record = FutureRecord::to(source.topic()).key(key).payload(payload);
        if let Some(headers) = source.headers() {
            record = record.headers(headers.clone());
        }
        let sent = producer.send(record, DEADLINE).await;
        sent.map_err(|(error, _)| error).with_context(|| format!("producing {what}"))?;
    }
    Ok(())
}

/// Payloads of a group's dead letters, once each of these is among them or time is over.
async fn letters(brokers: &str, group: Group, wanted: &[(&str, Vec<u8>)]) -> Result<Vec<Vec<u8>>> {
    let (topic, deadline) = (dead_letter(MOVEMENTS.name, group.name), Instant::now() + DEADLINE);
    loop {
        let letters: Vec<Vec<u8>> =
            read(brokers, &topic).await?.iter().map(|letter| letter.payload().unwrap_or_default().to_vec()).collect();
        if wanted.iter().all(|(_, payload)| letters.contains(payload)) || Instant::now() > deadline {
            return Ok(letters);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Every record of a topic up to its present end.
async fn read(brokers: &str, topic: &str) -> Result<Vec<OwnedMessage>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || messages(&brokers, &topic)).await?
}

fn messages(brokers: &str, topic: &str) -> Result<Vec<OwnedMessage>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "attack")
        .set("enable.auto.commit", "false")
        .create()?;
    let (mut list, mut left) = (TopicPartitionList::new(), 0);
    for partition in 0..PARTITIONS {
        let (low, high) = consumer.fetch_watermarks(topic, partition, DEADLINE)?;
        list.add_partition_offset(topic, partition, Offset::Offset(low))?;
        left += high - low;
    }
    consumer.assign(&list)?;
    let (mut found, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while (found.len() as i64) < left {
        if Instant::now() > deadline {
            bail!("{topic} cannot be read");
        }
        // What goes wrong in between is tried again by the client.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            found.push(message.detach());
        }
    }
    Ok(found)
}

/// A68
pub async fn rows_changed_with_the_applications_login(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let env = ground.stack.env_for(Service::Api);
    let mut pg = PgConnection::connect(env.get("VORCA__POSTGRES__URL").context("the API's database")?).await?;
    let mut denied = async |sql: String| -> Result<()> {
        // A transaction that is given up: what is not refused does no harm.
        let mut tx = pg.begin().await?;
        let done = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).execute(&mut *tx).await;
        tx.rollback().await?;
        let state = done.err().and_then(|error| error.as_database_error()?.code().map(|code| code.into_owned()));
        let came = state.clone().unwrap_or_else(|| "done".to_owned());
        trial.holds(sql, came, state.as_deref() == Some("42501"));
        Ok(())
    };
    for table in [
        "audit_log",
        "documents",
        "document_lines",
        "document_tenders",
        "stock_movements",
        "loyalty_entries",
        "outbox",
        "audit_seals",
    ] {
        for sql in [
            format!("delete from {table}"),
            format!("truncate {table}"),
            format!("alter table {table} disable trigger all"),
            format!("drop table {table}"),
        ] {
            denied(sql).await?;
        }
    }
    for sql in [
        "update audit_log set action = 'nothing'",
        "update documents set total_minor = 0",
        "update stock_movements set delta = 0",
        "set session_replication_role = replica",
        "create table mine (it int)",
        "create function mine() returns int language sql as 'select 1'",
        "alter role vorca_app superuser",
        "copy audit_log to program 'cat'",
        "copy audit_log from '/etc/hostname'",
        "select pg_read_file('/etc/hostname')",
        "set role vorca",
    ] {
        denied(sql.to_owned()).await?;
    }
    Ok(())
}
