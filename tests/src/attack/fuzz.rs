//! Requests made from the OpenAPI document by schemathesis (`tests/fuzz/`): every route, with the tokens of an owner and of
//! a till, over identifiers that exist and that do not. No answer may be a bug of ours, and each is as the document says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};
use uuid::Uuid;

use super::ask::Ask;
use super::ground::{Ground, PASSWORD, SignedIn, log_in, unique};
use crate::endpoints::write_private;

/// Requests of one round at most: its tokens live for ten minutes.
const ROUND: u64 = 12_000;
/// Most of one route in a round: beyond that, a long text of one body pays less than the next route.
const OF_ONE_ROUTE: u64 = 200;
/// The first two are those of `hooks.py`.
const CHECKS: &str = "no_bug_of_ours,refusals_have_their_form,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";
/// Rounds that make no requests would never end.
const ROUNDS_MAX: u64 = 200;

/// What was sent and answered.
#[derive(Debug, Default, Serialize)]
pub struct Fuzzed {
    pub requests: u64,
    /// By status.
    pub answers: BTreeMap<String, u64>,
    /// Seeds of the rounds; the same seed against the same platform makes the same requests.
    pub seeds: Vec<u64>,
    pub seconds: f64,
    /// What schemathesis says of rounds in which an answer was wrong.
    pub wrong: Vec<String>,
}

impl Fuzzed {
    pub fn has_held(&self) -> bool {
        self.wrong.is_empty() && self.requests > 0
    }

    pub fn print(&self) {
        let answers: Vec<String> = self.answers.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        println!("{} requests in {:.0} s, seeds {:?}; {}", self.requests, self.seconds, self.seeds, answers.join(", "));
        self.wrong.iter().for_each(|said| println!("{said}"));
        println!("{}", if self.has_held() { "no bug, and every answer as documented" } else { "FAILED" });
    }
}

/// Makes at least so many requests.
pub async fn run(ground: &Ground, requests: u64, seed: u64) -> Result<Fuzzed> {
    let begun = Instant::now();
    let routes = ground.document["paths"].as_object().context("no paths")?.values();
    let routes: usize = routes.filter_map(Value::as_object).map(|methods| methods.len()).sum();
    let mut fuzzed = Fuzzed::default();
    for round in 0..ROUNDS_MAX {
        let left = requests.saturating_sub(fuzzed.requests).min(ROUND);
        if left == 0 {
            break;
        }
        let of_one_route = left.div_ceil(routes as u64).clamp(1, OF_ONE_ROUTE);
        fuzzed.seeds.push(seed + round);
        one_round(ground, seed + round, of_one_route, &mut fuzzed).await?;
    }
    fuzzed.seconds = begun.elapsed().as_secs_f64();
    Ok(fuzzed)
}

async fn one_round(ground: &Ground, seed: u64, of_one_route: u64, fuzzed: &mut Fuzzed) -> Result<()> {
    let layout = ground.stack.layout();
    let folder = layout.service("fuzz")?;
    let till = ground.till(&ground.here).await?;
    let tokens = json!({
        "owner": owner(ground).await?.access,
        "spare": owner(ground).await?.access,
        "till": ground.token_of_till(&till).await?,
    });
    write_private(&folder.join("tokens.json"), tokens.to_string().as_bytes())?;
    fs::write(folder.join("known.json"), known(ground).await?.to_string())?;
    fs::remove_file(folder.join("answers.json")).ok();
    let scripts = layout.checkout.join("tests/fuzz");
    let mut command = Command::new("python3");
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(scripts.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("{}/api/v1/openapi.json", ground.api))
        .args(["--phases", "fuzzing", "--mode", "all", "--workers", "1", "--continue-on-failure", "--no-color"])
        .args(["--seed", &seed.to_string(), "--max-examples", &of_one_route.to_string(), "--checks", CHECKS])
        .args(["--suppress-health-check", "all", "--generation-database", "none", "--warnings", "off"])
        .args(["--generation-with-security-parameters", "false", "--request-timeout", "60"])
        .env("PYTHONPATH", &layout.fuzzer_home)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", scripts.join("hooks.py"))
        .env("VORCA_FUZZ_FOLDER", &folder)
        .env("VORCA_FUZZ_SEED", seed.to_string())
        .current_dir(&folder)
        .stdin(Stdio::null());
    let done = tokio::task::spawn_blocking(move || command.output()).await?.context("starting schemathesis")?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    fs::write(folder.join("log"), &said)?;
    let made = answers(&folder).with_context(|| format!("schemathesis made no requests:\n{said}"))?;
    ensure!(made.values().sum::<u64>() > 0, "schemathesis made no requests:\n{said}");
    for (status, count) in made {
        fuzzed.requests += count;
        *fuzzed.answers.entry(status).or_default() += count;
    }
    if !done.status.success() {
        fuzzed.wrong.push(said);
    }
    Ok(())
}

fn answers(folder: &Path) -> Result<BTreeMap<String, u64>> {
    Ok(serde_json::from_slice(&fs::read(folder.join("answers.json"))?)?)
}

/// Identifiers that exist, by the name of the field or parameter they belong in. None of them is needed by what asks.
async fn known(ground: &Ground) -> Result<Value> {
    let (here, there) = (&ground.here, &ground.there);
    let mut members = Vec::new();
    for _ in 0..4 {
        let member = ground.as_owner(Ask::post("/members", &json!({"external_id": unique("fuzzed")}))).await?;
        members.push(member.succeeded()?.field("customer_id")?);
    }
    let first = async |path: &str, name: &str| -> Result<String> {
        let items = ground.as_owner(Ask::get(path)).await?.succeeded()?.json();
        Ok(items["items"][0][name].as_str().unwrap_or_default().to_owned())
    };
    let (product, profile) =
        (first("/products?limit=1", "product_id"), first("/tax-profiles?limit=1", "tax_profile_id"));
    let fuzzed: [Uuid; 2] = [ground.till(there).await?.terminal_id, there.terminal_id];
    Ok(json!({
        "location_id": [here.location_id, there.location_id],
        "location": [here.location_id, there.location_id],
        "terminal_id": fuzzed,
        "user_id": [there.cashier.user_id, there.manager.user_id],
        "cashier_id": [here.cashier.user_id, here.manager.user_id],
        "sale_id": [here.sale_id, there.sale_id],
        "variant_id": [ground.variant, ground.counted, ground.dear],
        "customer_id": members,
        "absorbed_id": members,
        "product_id": [product.await?],
        "tax_profile_id": [profile.await?],
        "currency": ["EUR"],
        "time_zone": ["Europe/Berlin", "America/New_York"],
    }))
}

/// Another owner, with a second factor of its own and a session that has just begun.
async fn owner(ground: &Ground) -> Result<SignedIn> {
    let (who, from) = (ground.person("owner", None).await?, ground.stranger()?);
    let pending = log_in(&who.login, PASSWORD).send(&from).await?.succeeded()?.field("access_token")?;
    let offered = Ask::new("POST", "/auth/second-factor").bearer(&pending).send(&from).await?.succeeded()?;
    let secret = Secret::try_from_base32(&offered.field("secret")?).map_err(|error| anyhow::anyhow!("{error}"))?;
    let totp = Builder::new().with_secret(secret).with_skew(0).with_step_duration(30).build();
    let totp = totp.map_err(|error| anyhow::anyhow!("{error}"))?;
    // A code whose half minute ends on the way is one of before.
    while chrono::Utc::now().timestamp() % 30 > 26 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let now = u64::try_from(chrono::Utc::now().timestamp())?;
    let confirm = Ask::post("/auth/second-factor/confirm", &json!({"totp": totp.generate(now).to_string()}));
    SignedIn::of(&confirm.bearer(&pending).send(&from).await?.succeeded()?.json()["session"])
}
