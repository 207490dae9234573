//! Nobody can run containers on the development machines, so what can be known without is tested: the compose file
//! parses, gives every process the variables `./dev` gives it, and repeats the servers' settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_yaml_ng::Value;

use super::layout::Layout;
use super::{Identity, Job, Service, kafka, postgres, vorca};
use crate::launcher::external;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn compose() -> Value {
    let text = fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    let mut file: Value = serde_yaml_ng::from_str(&text).unwrap();
    file.apply_merge().unwrap();
    file
}

fn services(file: &Value) -> Vec<(String, Value)> {
    let services = file["services"].as_mapping().unwrap();
    services.iter().map(|(name, service)| (name.as_str().unwrap().to_owned(), service.clone())).collect()
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    let Some(values) = service["environment"].as_mapping() else { return BTreeMap::new() };
    values.iter().map(|(name, value)| (name.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned())).collect()
}

fn words(value: &Value) -> Vec<String> {
    value.as_sequence().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// Every `${NAME` in a text.
fn interpolated(text: &str) -> BTreeSet<String> {
    let after = text.split("${").skip(1);
    after.map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn each_process_gets_the_variables_the_supervisor_gives_it() {
    let layout = Layout::example();
    let identity = Identity::example();
    let file = compose();
    let known: BTreeMap<_, _> = services(&file).into_iter().collect();
    for service in Service::OURS {
        let theirs: Vec<_> = environment(&known[service.name()]).into_keys().collect();
        let ours: Vec<_> = vorca::env_for(&layout, &identity, service).into_keys().collect();
        assert_eq!(theirs, ours, "{service}");
        let (binary, role) = vorca::role(service).unwrap();
        assert_eq!(words(&known[service.name()]["command"]), [binary, role]);
    }
    for (name, job) in [
        ("migrate", Job::Migrate),
        ("migrate-clickhouse", Job::MigrateClickHouse),
        ("create-owner", Job::CreateOwner),
        ("verify", Job::Verify),
    ] {
        let theirs: Vec<_> = environment(&known[name]).into_keys().collect();
        let ours: Vec<_> = vorca::env_for_job(&layout, &identity, job).into_keys().collect();
        assert_eq!(theirs, ours, "{name}");
    }
}

#[test]
fn the_budgets_are_the_same_everywhere() {
    let compose = fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    let example = fs::read_to_string(repository().join(".env.example")).unwrap();
    for (name, usual) in vorca::BUDGETS {
        assert!(compose.contains(&format!("VORCA__BUDGETS__{name}: \"${{VORCA_BUDGETS_{name}:-{usual}}}\"")), "{name}");
        for variable in [format!("VORCA_BUDGETS_{name}"), format!("VORCA__BUDGETS__{name}")] {
            assert!(example.contains(&format!("\n#{variable}={usual}\n")), "{variable}");
        }
    }
}

#[test]
fn the_servers_have_the_settings_of_the_native_ones() {
    let file = compose();
    let postgres_words = words(&file["services"]["postgres"]["command"]);
    for setting in postgres::SETTINGS.iter().filter(|it| !it.starts_with("listen_addresses")) {
        assert!(postgres_words.contains(&(*setting).to_owned()), "postgres: {setting}");
    }
    let kafka_environment = environment(&file["services"]["kafka"]);
    for setting in kafka::SETTINGS.lines() {
        let (name, value) = setting.split_once('=').unwrap();
        let variable = format!("KAFKA_{}", name.to_uppercase().replace('.', "_"));
        // Containers have one listener more: this machine's.
        if name != "listener.security.protocol.map" {
            assert_eq!(kafka_environment.get(&variable).map(String::as_str), Some(value), "{variable}");
        }
    }
}

#[test]
fn every_service_has_a_limit_and_those_that_stay_have_a_health_check() {
    for (name, service) in services(&compose()) {
        assert!(service["deploy"]["resources"]["limits"]["memory"].is_string(), "{name}: memory limit");
        assert!(!words(&service["profiles"]).is_empty(), "{name}: profile");
        assert!(service["container_name"].is_null(), "{name}: container_name");
        let stays = service["restart"].as_str() == Some("unless-stopped");
        assert_eq!(stays, service["healthcheck"]["test"].is_sequence(), "{name}: health check");
        for port in words(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port} is open to the network");
        }
        for volume in words(&service["volumes"]).iter().filter(|it| it.starts_with("./")) {
            let path = volume.split(':').next().unwrap();
            assert!(repository().join(path).is_file(), "{name}: {path} is missing");
        }
    }
}

#[test]
fn the_example_environment_lists_every_variable() {
    let example = fs::read_to_string(repository().join(".env.example")).unwrap();
    let listed: BTreeSet<&str> =
        example.lines().filter_map(|line| line.trim_start_matches('#').split_once('=').map(|(name, _)| name)).collect();
    let text = fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    for name in interpolated(&text) {
        assert!(listed.contains(name.as_str()), "{name} of docker-compose.yml is not in .env.example");
    }
    let (layout, identity) = (Layout::example(), Identity::example());
    for service in Service::OURS {
        for name in vorca::env_for(&layout, &identity, service).into_keys() {
            assert!(listed.contains(name.as_str()), "{name} of {service} is not in .env.example");
        }
    }
}

#[test]
fn the_example_environment_names_a_platform_once_an_owner_is_filled_in() {
    let example = fs::read_to_string(repository().join(".env.example")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout { run: folder.path().to_path_buf(), ..Layout::example() };
    let file = folder.path().join("env");
    fs::write(&file, &example).unwrap();
    assert!(external::endpoints(&file, &layout).unwrap_err().to_string().contains("VORCA_OWNER_PASSWORD is missing"));
    fs::write(&file, example.replace("VORCA_OWNER_PASSWORD=", "VORCA_OWNER_PASSWORD=secret")).unwrap();
    let endpoints = external::endpoints(&file, &layout).unwrap();
    assert_eq!(endpoints.api, "http://127.0.0.1:8080");
    assert_eq!(endpoints.admin["clickhouse-sink"], "http://127.0.0.1:9469");
    assert_eq!(endpoints.owner.password, "secret");
}
