//! One Kafka node (KRaft: broker and controller in one), on the pinned Java.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::jvm;
use super::layout::{Identity, Layout};

const LOGGING: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="%d{ISO8601} %p %m (%c)%n"/></Console></Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="out"/></Root>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
  </Loggers>
</Configuration>
"#;

/// Settings that do not depend on the checkout. The group ones make a rebalance take about one second instead of five.
pub const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
group.consumer.heartbeat.interval.ms=1000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=8388608
log.segment.bytes=67108864
num.network.threads=2
num.io.threads=4
";

/// Every jar by name, in a stable order: an AOT cache refuses a directory wildcard.
fn class_path(layout: &Layout) -> Result<String> {
    let libs = layout.kafka_home.join("libs");
    let entries = fs::read_dir(&libs).with_context(|| format!("Kafka is not in {}", libs.display()))?;
    let mut jars: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.ends_with(".jar"))
        .collect();
    jars.sort();
    Ok(jars.join(":"))
}

fn properties(layout: &Layout) -> PathBuf {
    layout.run.join("kafka/node.properties")
}

/// Writes the configuration and formats the log folder, once.
pub fn prepare(layout: &Layout, identity: &Identity) -> Result<()> {
    let folder = layout.service("kafka")?;
    let (client, controller) = (identity.port("kafka"), identity.port("kafka-controller"));
    let own = format!(
        "{SETTINGS}controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{client}\nlog.dirs={}\n",
        folder.join("data").display()
    );
    fs::write(properties(layout), own)?;
    fs::write(folder.join("log4j2.xml"), LOGGING)?;
    if folder.join("data/meta.properties").exists() {
        return Ok(());
    }
    let formatted = Command::new(layout.java())
        .args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &class_path(layout)?])
        .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", identity.kafka_cluster(), "-c"])
        .arg(properties(layout))
        .stdin(Stdio::null())
        .output()
        .context("starting Kafka's format tool")?;
    if !formatted.status.success() {
        let said = [formatted.stdout, formatted.stderr].concat();
        bail!("formatting Kafka's log folder failed: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}

pub fn command(layout: &Layout) -> Result<Command> {
    let mut command = Command::new(layout.java());
    command
        .args([
            "-Xms128m",
            "-Xmx384m",
            "-XX:MaxDirectMemorySize=128m",
            "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError",
        ])
        .args(["-Djava.awt.headless=true"])
        .args(jvm::compiler(layout))
        .arg(format!("-Dlog4j2.configurationFile=file:{}", layout.run.join("kafka/log4j2.xml").display()))
        .args(jvm::aot(layout, &layout.kafka_home))
        .args(["-cp", &class_path(layout)?, "kafka.Kafka"])
        .arg(properties(layout));
    Ok(command)
}

/// Says so itself: a port that accepts does not yet mean that the broker serves. `from` is the log's length at the start.
pub fn is_ready(layout: &Layout, from: u64) -> bool {
    let said = || -> std::io::Result<bool> {
        let mut log = fs::File::open(layout.log("kafka"))?;
        log.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        log.take(4 << 20).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).contains("Kafka Server started"))
    };
    said().unwrap_or(false)
}

pub fn brokers(identity: &Identity) -> String {
    format!("127.0.0.1:{}", identity.port("kafka"))
}
