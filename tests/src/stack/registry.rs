//! The schema registry: Apicurio under its Confluent-compatible path, stored in a database of its own.

use std::process::Command;

use anyhow::Result;

use super::http;
use super::jvm;
use super::layout::{Identity, Layout};

pub fn prepare(layout: &Layout) -> Result<()> {
    layout.service("registry").map(drop)
}

pub fn command(layout: &Layout, identity: &Identity) -> Result<Command> {
    let mut command = Command::new(layout.java());
    command
        .args(["-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(jvm::aot(layout, &layout.registry_home))
        .arg("-Djava.util.logging.manager=org.jboss.logmanager.LogManager")
        .args(["-Dquarkus.http.host=127.0.0.1", "-Dquarkus.management.host=127.0.0.1"])
        .arg(format!("-Dquarkus.http.port={}", identity.port("registry")))
        .arg(format!("-Dquarkus.management.port={}", identity.port("registry-management")))
        .args(["-Dapicurio.storage.kind=sql", "-Dapicurio.storage.sql.kind=postgresql"])
        .args(["-Dapicurio.datasource.jdbc.initial-size=1", "-Dapicurio.datasource.jdbc.min-size=1"])
        .arg("-Dapicurio.datasource.jdbc.max-size=8")
        .arg("-jar")
        .arg(layout.registry_home.join("quarkus-run.jar"))
        .current_dir(layout.service("registry")?)
        // By environment rather than argument: arguments are visible to every user of the machine.
        .env("APICURIO_DATASOURCE_URL", format!("jdbc:postgresql://127.0.0.1:{}/registry", identity.port("postgres")))
        .env("APICURIO_DATASOURCE_USERNAME", "registry")
        .env("APICURIO_DATASOURCE_PASSWORD", identity.password("registry"));
    Ok(command)
}

pub fn is_ready(identity: &Identity) -> bool {
    http::get(identity.port("registry"), "/apis/ccompat/v7/subjects").is_some_and(|answer| answer.status == 200)
}

pub fn url(identity: &Identity) -> String {
    format!("http://127.0.0.1:{}/apis/ccompat/v7", identity.port("registry"))
}
