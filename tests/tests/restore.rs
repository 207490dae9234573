//! The database goes back to a backup, on a platform of its own: what was made and sold after the backup is given up
//! everywhere, and all stores agree again.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::Utc;
use e2e::client::Client;
use e2e::demo::{self, business::FEW_VARIANTS};
use e2e::endpoints::Endpoints;
use e2e::launcher::{start_servers, up::start_platform};
use e2e::stack::{Job, Layout, Service, Stack};
use e2e::steps::step;
use e2e::terminal::Outcome;
use e2e::till;
use e2e::wire::{Line, Receipt, Sale, Tender, TenderKind};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

const LEDGER: [Service; 3] = [Service::Api, Service::Relay, Service::Worker];
/// The loyalty program of every database.
const PROGRAM: &str = "6c6f7961-6c74-5900-8000-000000000001";
/// How long everything may be on its way: it only ends a test that would never end.
const DRAIN: Duration = Duration::from_secs(240);

fn platform() -> Stack {
    let bin = Path::new(env!("CARGO_BIN_EXE_vorca-dev")).parent().expect("folder of vorca-dev");
    let layout = Layout { bin: bin.to_path_buf(), ..Layout::throwaway("restore").unwrap() };
    let stack = start_servers(layout).unwrap();
    start_platform(&stack).unwrap();
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_all_stores_agree_and_nothing_of_the_lost_time_line_is_left() {
    let stack = step("restore: start", tokio::task::spawn_blocking(platform)).await.unwrap();
    let endpoints = stack.endpoints().unwrap();
    step("restore: first sales", sell(&stack, 60)).await;
    step("restore: verify", agree(&stack, "before the backup")).await;

    let backing_up = async {
        pause(&stack, false).await;
        back_up(&stack).await;
        pause(&stack, true).await;
    };
    step("restore: back up", backing_up).await;
    let lost = Made::after_the_backup(&endpoints).await;
    step("restore: sales that get lost", sell(&stack, 60)).await;
    step("restore: verify again", agree(&stack, "before the restore")).await;
    assert_eq!(lost.seen(&endpoints).await, [1, 1, 2, 1, 3], "what is about to be lost has reached every store");

    let restoring = async {
        pause(&stack, false).await;
        restore(&stack).await;
        pause(&stack, true).await;
    };
    step("restore: restore", restoring).await;
    let retired = step("restore: retire", retire_until_all_agree(&stack)).await;
    assert_eq!((retired["variants"], retired["locations"]), (1, 1), "{retired:?}");
    assert!(retired["stock_levels"] >= 2 && retired["balances"] >= 1, "{retired:?}");
    assert_eq!(lost.seen(&endpoints).await, [0, 0, 0, 0, 0], "nothing of it is left");

    step("restore: sales afterwards", sell(&stack, 60)).await;
    let again = Made::after_the_backup(&endpoints).await;
    step("restore: verify at the end", agree(&stack, "after selling on")).await;
    assert_eq!(again.seen(&endpoints).await, [1, 1, 2, 1, 3]);
    let retired = retire(&stack).await;
    assert!(retired.values().all(|count| *count == 0), "nothing is retired twice: {retired:?}");
    assert_retiring_is_audited(&stack).await;
    step("restore: stop", tokio::task::spawn_blocking(move || stack.shutdown())).await.unwrap().unwrap();
}

/// A variant, a location, a member, stock of the variant and sales, all made after the backup.
struct Made {
    variant: Uuid,
    location: Uuid,
    member: Uuid,
    place: Uuid,
}

impl Made {
    async fn after_the_backup(endpoints: &Endpoints) -> Made {
        let owner = demo::owner(endpoints).unwrap();
        let mut till = till::make(endpoints, None).await.unwrap();
        let place = till.location.location_id;
        let name = format!("lost-{}", Uuid::now_v7());
        let variant = variant(&owner, &name, &till.location.currency).await;
        let location = Uuid::now_v7();
        let body = json!({"location_id": location, "external_id": name, "name": name, "currency": till.location.currency,
                          "time_zone": "Europe/Berlin", "opened_on": "2020-01-01"});
        let _: Value = owner.post("/locations", &body).await.unwrap();
        let members = json!({"members": [{"external_id": name}]});
        let members: Value = owner.post("/members/upsert", &members).await.unwrap();
        let member = members["members"][0]["customer_id"].as_str().unwrap().parse().unwrap();
        for location in [location, place] {
            let act = Uuid::now_v7();
            let lines = json!([{"variant_id": variant, "qty": 5000}]);
            let body = json!({"act_id": act, "location_id": location, "reason": "receipt", "lines": lines});
            let _: Value = owner.post_keyed("/stock/receipts", Some(&act.to_string()), &body).await.unwrap();
        }
        let sale = Sale {
            sale_id: Uuid::now_v7(),
            location_id: place,
            terminal_seq: 0,
            receipt: Receipt { series_epoch: 0, number: 0 },
            cashier_id: till.cashier_id,
            customer_id: Some(member),
            occurred_at: Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            currency: till.location.currency.clone(),
            lines: vec![Line { line_no: 1, variant_id: variant, qty: 1000, discount: None, override_: None }],
            tenders: vec![Tender { kind: TenderKind::Cash, amount_minor: 20_000, card: None }],
            total_minor: 11_900,
            approval: None,
        };
        let outcome = till.terminal.sell(sale).await.unwrap();
        assert!(matches!(outcome, Outcome::Sold(_)), "{outcome:?}");
        Made { variant, location, member, place }
    }

    /// How often ClickHouse shows the variant, the location, receipts and sale lines of the variant, and how many of its
    /// stock levels and of the member's accounts in Redis hold anything.
    async fn seen(&self, endpoints: &Endpoints) -> [u64; 5] {
        let Made { variant, location, member, place } = self;
        let redis = redis::Client::open(endpoints.redis.as_str()).unwrap();
        let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
        let mut held = 0;
        for (key, field) in [
            (format!("vorca:stock:{location}:{variant}"), "qty"),
            (format!("vorca:stock:{place}:{variant}"), "qty"),
            (format!("vorca:loyalty:{member}:{PROGRAM}"), "points"),
        ] {
            let figure: Option<i64> = redis::cmd("HGET").arg(key).arg(field).query_async(&mut redis).await.unwrap();
            held += u64::from(figure.is_some_and(|figure| figure != 0));
        }
        [
            count(endpoints, &format!("dim_product where variant_id = '{variant}'")).await,
            count(endpoints, &format!("dim_location where location_id = '{location}'")).await,
            count(endpoints, &format!("fct_movements where variant_id = '{variant}' and reason = 'receipt'")).await,
            count(endpoints, &format!("fct_lines where variant_id = '{variant}'")).await,
            held,
        ]
    }
}

/// Rows of a view, as an analyst sees them.
async fn count(endpoints: &Endpoints, rows: &str) -> u64 {
    let (login, password) = (&endpoints.analyst.login, &endpoints.analyst.password);
    let sql = format!("select count() from vorca.{rows}");
    let request = reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
        .post(&endpoints.clickhouse)
        .header("X-ClickHouse-User", login);
    let answer = request.header("X-ClickHouse-Key", password).body(sql).send().await.unwrap();
    answer.text().await.unwrap().trim().parse().unwrap()
}

/// A variant of 119.00 with 19 % in it.
async fn variant(owner: &Client, name: &str, currency: &str) -> Uuid {
    let rates = json!([{"name": "VAT", "rate": "0.19", "inclusive": true}]);
    let taxes = json!({"external_id": name, "name": name, "valid_from": "2020-01-01T00:00:00Z", "rates": rates});
    let _: Value = owner.post("/tax-profiles", &taxes).await.unwrap();
    let body = json!({
        "products": [{"external_id": name, "name": name, "category": "lost"}],
        "variants": [{"external_id": name, "product_external_id": name, "sku": name, "name": name, "unit": "piece",
                      "is_measured": false, "tracks_stock": true, "tax_profile_external_id": name}],
        "prices": [{"variant_external_id": name, "currency": currency, "amount_minor": 11_900, "tax_inclusive": true,
                    "valid_from": "2020-01-01T00:00:00Z"}],
    });
    let answer: Value = owner.post("/catalog/upsert", &body).await.unwrap();
    answer["variants"][0]["variant_id"].as_str().unwrap().parse().unwrap()
}

async fn sell(stack: &Stack, sales: u64) {
    let run = &stack.layout().run;
    let known = demo::Options::of_run(run).unwrap();
    let options = demo::Options { sales, locations: 3, variants: FEW_VARIANTS, patience: DRAIN, ..known };
    let sold = demo::run(&stack.endpoints().unwrap(), &options).await.unwrap();
    assert_eq!(sold.counts.unexpected, 0, "{:?}", sold.counts.surprises);
}

/// Starts or stops what writes the ledger.
async fn pause(stack: &Stack, runs: bool) {
    let stack = stack.clone();
    let done = tokio::task::spawn_blocking(move || {
        if runs {
            stack.start(&LEDGER).and_then(|()| stack.wait_ready(&LEDGER))
        } else {
            stack.stop(&LEDGER).and_then(|()| stack.wait_stopped(&LEDGER))
        }
    });
    done.await.unwrap().unwrap();
}

async fn superuser(stack: &Stack) -> PgConnection {
    let exports = stack.exports();
    let url = exports.iter().find(|(name, _)| *name == "DATABASE_URL").expect("a superuser");
    PgConnection::connect(&url.1).await.unwrap()
}

fn database(stack: &Stack) -> String {
    let url = reqwest::Url::parse(&stack.endpoints().unwrap().postgres).unwrap();
    url.path().trim_start_matches('/').to_owned()
}

/// A copy of the database, for which nobody may be connected to it.
async fn back_up(stack: &Stack) {
    let (mut pg, name) = (superuser(stack).await, database(stack));
    let deadline = Instant::now() + Duration::from_secs(60);
    let sql = format!("create database backup template {name} owner {name}");
    while let Err(error) = sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut pg).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// As the runbook says: the backup takes the place of the database, a new epoch begins, ClickHouse withdraws.
async fn restore(stack: &Stack) {
    let (mut pg, name) = (superuser(stack).await, database(stack));
    for sql in [format!("drop database {name} with (force)"), format!("alter database backup rename to {name}")] {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut pg).await.unwrap();
    }
    let (kept, said) = job(stack, "ingest-api", Job::CreateOwner, &["raise-epoch", "--reason", "restored"], "").await;
    assert!(said.contains("epoch 2 began"), "{said}");
    job(stack, "sinks", Job::MigrateClickHouse, &["withdraw", "--epoch", "2"], &kept).await;
}

/// Runs a one-shot job that has to succeed; both of its outputs.
async fn job(stack: &Stack, binary: &str, job: Job, arguments: &[&str], input: &str) -> (String, String) {
    let mut command: Command = stack.job(binary, job);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        child.stdin.take().expect("piped").write_all(input.as_bytes())?;
        child.wait_with_output()
    });
    let output = run.await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said:?}");
    said
}

async fn retire(stack: &Stack) -> BTreeMap<String, u64> {
    let (printed, _) = job(stack, "ingest-api", Job::Migrate, &["worker", "retire"], "").await;
    serde_json::from_str(&printed).unwrap()
}

/// Each time something was retired there is one row, which names the account; none for nothing.
async fn assert_retiring_is_audited(stack: &Stack) {
    let mut pg = PgConnection::connect(&stack.endpoints().unwrap().postgres).await.unwrap();
    let rows: Vec<(String, String)> =
        sqlx::query_as("select actor_role, reason from audit_log where action = 'records.retire' order by recorded_at")
            .fetch_all(&mut pg)
            .await
            .unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|(by, _)| by.starts_with("operator ")), "{rows:?}");
    let counts = rows.iter().map(|(_, reason)| serde_json::from_str::<BTreeMap<String, u64>>(reason).unwrap());
    assert!(counts.into_iter().all(|counts| counts.values().any(|count| *count > 0)), "{rows:?}");
}

/// Whether all stores agree within `drain`, and what `verify` found.
async fn verify(stack: &Stack, drain: Duration) -> (bool, String) {
    let mut command = stack.job("ingest-api", Job::Verify);
    command.args(["worker", "verify", "--restored-epochs", "2", "--drain", &drain.as_secs().to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.join("\n"))
}

async fn agree(stack: &Stack, when: &str) {
    let (agrees, report) = verify(stack, DRAIN).await;
    assert!(agrees, "{when}: {report}");
}

/// What the lost time line left in the topics of state shows when its readers have caught up; all that was retired.
async fn retire_until_all_agree(stack: &Stack) -> BTreeMap<String, u64> {
    let deadline = Instant::now() + DRAIN;
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        for (kind, count) in retire(stack).await {
            *all.entry(kind).or_default() += count;
        }
        let (agrees, report) = verify(stack, Duration::from_secs(20)).await;
        if agrees {
            return all;
        }
        assert!(Instant::now() < deadline, "after the restore, retired {all:?}: {report}");
    }
}
