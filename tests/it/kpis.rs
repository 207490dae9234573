//! Figures through the one public door: every figure of `GET /reports/kpis` against a question of its own to the raw
//! rows, which knows no mart, no view and no query of the product.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use e2e::client::{Client, Identity};
use e2e::demo;
use e2e::endpoints::{Credentials, Endpoints};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, world};

/// Marts may be a refresh behind the sale that was just answered.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
struct Report {
    fresh_as_of: Option<DateTime<Utc>>,
    lag_ms: Option<i64>,
    is_truncated: bool,
    items: Vec<Value>,
}

/// One question to the route.
#[derive(Debug, Clone)]
struct Question {
    group_by: &'static str,
    from: NaiveDate,
    to: NaiveDate,
    location: Option<Uuid>,
    currency: Option<&'static str>,
}

/// Figures of a group by their name in the route's answer; absent where the group does not define one.
type Figures = BTreeMap<&'static str, Option<i64>>;
/// By what the group is told apart by, then currency.
type Groups = BTreeMap<(String, String), Figures>;

const FIGURES: [&str; 9] = [
    "documents",
    "gross_minor",
    "discounts_minor",
    "returns_minor",
    "net_minor",
    "tax_minor",
    "collected_minor",
    "units",
    "average_basket_minor",
];

/// Discounts of a raw line without the tax in them, from what the document stored: `round(extended * R / (1 + R))` is the
/// tax without them, in whole numbers, halves to even; the tax with them is the stored one.
const GIVEN_WITHOUT_TAX: &str = "(
    arraySum(arrayMap((rate, inside) -> if(inside, toInt128(toDecimal64(rate, 6) * 1000000), 0), tax_rates, tax_inclusive)) as millionths,
    arraySum(arrayMap((tax, inside) -> if(inside, tax, 0), tax_amounts_minor, tax_inclusive)) as inside_tax,
    intDiv(extended_minor * millionths, 1000000 + millionths) as floored,
    2 * (extended_minor * millionths - floored * (1000000 + millionths)) as twice_the_rest,
    floored + if(twice_the_rest > 1000000 + millionths or (twice_the_rest = 1000000 + millionths and floored % 2 = 1), 1, 0) as full_tax,
    if(discount_minor + redemption_minor = 0 or millionths = 0, toInt128(discount_minor + redemption_minor),
       toInt128(discount_minor + redemption_minor) - greatest(0, least(discount_minor + redemption_minor, full_tax - inside_tax)))
).6";

impl Question {
    fn path(&self) -> String {
        let mut path = format!("/reports/kpis?group_by={}&from={}&to={}", self.group_by, self.from, self.to);
        if let Some(location) = self.location {
            path.push_str(&format!("&location_id={location}"));
        }
        if let Some(currency) = self.currency {
            path.push_str(&format!("&currency={currency}"));
        }
        path
    }

    /// Rows of a raw table that the question is about, each identity once: by hand instead of with `FINAL`.
    fn rows(&self, table: &str, identity: &str) -> String {
        let mut conditions = format!("is_deleted = 0 and business_date between '{}' and '{}'", self.from, self.to);
        if let Some(location) = self.location {
            conditions.push_str(&format!(" and location_id = '{location}'"));
        }
        if let Some(currency) = self.currency {
            conditions.push_str(&format!(" and currency = '{currency}'"));
        }
        format!(
            "(select * from (select * from vorca_raw.{table} order by version desc limit 1 by {identity}) where {conditions})"
        )
    }

    /// The text by which a raw row belongs to a group, and that of an item of the answer.
    fn key(&self) -> &'static str {
        match self.group_by {
            "day" => "toString(business_date)",
            "hour" => "concat(toString(business_date), ' ', toString(floor(slot * 5 / 60)))",
            "location" => "toString(location_id)",
            "product" => "toString(product_id)",
            "cashier" => "toString(cashier_id)",
            "tender" => "toString(tender_kind)",
            other => panic!("{other}"),
        }
    }

    fn item_key(&self, item: &Value) -> String {
        let text = |name: &str| item[name].as_str().unwrap_or_else(|| panic!("{name} missing in {item}")).to_owned();
        match self.group_by {
            "day" => text("business_date"),
            "hour" => format!("{} {}", text("business_date"), item["hour"]),
            "tender" => text("tender"),
            group => text(&format!("{group}_id")),
        }
    }

    /// The answer of the route.
    fn groups(&self, report: &Report) -> Groups {
        let mut groups = Groups::new();
        for item in &report.items {
            let key = (self.item_key(item), item["currency"].as_str().unwrap().to_owned());
            let figures = FIGURES.iter().map(|name| (*name, item[name].as_i64())).collect();
            assert!(groups.insert(key, figures).is_none(), "a group stands twice: {item}");
            if ["location", "product", "cashier"].contains(&self.group_by) {
                assert!(item["name"].as_str().is_some_and(|name| !name.is_empty()), "no name: {item}");
            }
        }
        groups
    }

    /// The same from raw rows.
    async fn direct(&self, endpoints: &Endpoints) -> Groups {
        let mut groups = Groups::new();
        let mut put = |rows: Vec<Vec<String>>, names: &[&'static str]| {
            for row in rows {
                let empty = || FIGURES.iter().map(|name| (*name, None)).collect();
                let figures = groups.entry((row[0].clone(), row[1].clone())).or_insert_with(empty);
                for (name, text) in names.iter().zip(&row[2..]) {
                    figures.insert(*name, Some(text.parse().unwrap()));
                }
            }
        };
        let key = self.key();
        if self.group_by == "tender" {
            let from = self.rows("tenders", "document_id, tender_no");
            let sql = format!(
                "select {key} as k, toString(currency) as c, uniqExact(document_id), sum(amount_minor) + sum(tip_minor) - sum(change_minor)
                   from {from} group by k, c"
            );
            put(raw(endpoints, &sql).await, &["documents", "collected_minor"]);
            return groups;
        }
        let lines = self.rows("lines", "document_id, line_no");
        let off = GIVEN_WITHOUT_TAX;
        let sql = format!(
            "select {key} as k, toString(currency) as c, uniqExactIf(document_id, leg = 'sale'),
                    toInt64(sumIf(net_minor + {off}, leg = 'sale')), toInt64(sumIf({off}, leg = 'sale')),
                    0 - sumIf(net_minor, leg = 'return'), sum(net_minor), sum(tax_minor), sumIf(qty, leg = 'sale')
               from {lines} group by k, c"
        );
        put(
            raw(endpoints, &sql).await,
            &["documents", "gross_minor", "discounts_minor", "returns_minor", "net_minor", "tax_minor", "units"],
        );
        if self.group_by != "product" {
            let documents = self.rows("documents", "document_id");
            let sql = format!(
                "select {key} as k, toString(currency) as c, countIf(kind = 'sale' or kind = 'exchange'),
                        sum(total_minor) + sum(rounding_minor) + sum(tip_minor)
                   from {documents} group by k, c"
            );
            put(raw(endpoints, &sql).await, &["documents", "collected_minor"]);
        }
        for figures in groups.values_mut() {
            let average = average(figures["net_minor"], figures["documents"]);
            figures.insert("average_basket_minor", average);
        }
        groups
    }
}

/// net / documents, halves away from zero: long division, then the remainder decides.
fn average(net: Option<i64>, documents: Option<i64>) -> Option<i64> {
    let (net, documents) = (net?, documents.filter(|count| *count > 0)?);
    let (whole, rest) = (net.abs() / documents, net.abs() % documents);
    Some(net.signum() * (whole + i64::from(rest * 2 >= documents)))
}

/// Rows of a query with the rights of the platform's own migrations: analysts do not read raw tables.
async fn raw(endpoints: &Endpoints, sql: &str) -> Vec<Vec<String>> {
    let password = std::env::var("VORCA_CLICKHOUSE_MIGRATE_PASSWORD").expect("run ./dev test");
    let request = reqwest::Client::new()
        .post(&endpoints.clickhouse)
        .header("X-ClickHouse-User", "vorca_migrate")
        .header("X-ClickHouse-Key", password)
        .body(format!("{sql} format TabSeparated"));
    let answer = request.send().await.expect("ClickHouse answers");
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{sql}\n{text}");
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Asks both until they agree; the report that did.
async fn agree(client: &Client, endpoints: &Endpoints, question: &Question) -> Report {
    agree_with(client, endpoints, question, question).await
}

async fn agree_with(client: &Client, endpoints: &Endpoints, asked: &Question, expected: &Question) -> Report {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report: Report = client.get(&asked.path()).await.expect("a report");
        let (answered, direct) = (asked.groups(&report), expected.direct(endpoints).await);
        if answered == direct || Instant::now() >= deadline {
            assert_eq!(answered, direct, "{}", asked.path());
            assert!(!report.is_truncated);
            return report;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn question(world: &World, group_by: &'static str) -> Question {
    let from = world.demo.sold_from.expect("something was sold").date_naive() - TimeDelta::days(2);
    let to = Utc::now().date_naive() + TimeDelta::days(1);
    Question { group_by, from, to, location: None, currency: None }
}

/// Where the business sold, the busiest first: told from Postgres, since other programs write rows of places that no
/// business has into the same ClickHouse.
async fn sold_at(endpoints: &Endpoints) -> Vec<Uuid> {
    let pool = sqlx::PgPool::connect(&endpoints.postgres).await.unwrap();
    let sql = "select location_id from documents where business_date > current_date - 300
               group by location_id order by count(*) desc, location_id";
    sqlx::query_scalar(sql).fetch_all(&pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_of_the_route_is_what_the_raw_rows_say() {
    let world = world().await;
    let owner = demo::owner(&world.endpoints).unwrap();
    let place = sold_at(&world.endpoints).await[0];
    for group_by in ["day", "hour", "location", "product", "cashier", "tender"] {
        let all = question(&world, group_by);
        let report = agree(&owner, &world.endpoints, &all).await;
        let currencies: BTreeSet<&str> = report.items.iter().filter_map(|item| item["currency"].as_str()).collect();
        assert!(currencies.len() > 1, "the demonstration sells in two currencies: {currencies:?}");
        let at_one = Question { location: Some(place), ..all.clone() };
        assert!(!agree(&owner, &world.endpoints, &at_one).await.items.is_empty());
        let in_one = Question { currency: Some("EUR"), ..all.clone() };
        let euros = agree(&owner, &world.endpoints, &in_one).await;
        assert!(euros.items.len() < report.items.len());
        // One day of it, since days are told apart at their edges.
        let today = Question { from: all.to - TimeDelta::days(1), to: all.to - TimeDelta::days(1), ..all };
        agree(&owner, &world.endpoints, &today).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_as_fresh_as_the_newest_commit() {
    let world = world().await;
    let owner = demo::owner(&world.endpoints).unwrap();
    let pool = sqlx::PgPool::connect(&world.endpoints.postgres).await.unwrap();
    for group_by in ["day", "product"] {
        let asked = question(&world, group_by);
        // Others sell on meanwhile, also what lies outside the question. A void has no product.
        let newest = async || -> DateTime<Utc> {
            let sql = "select max(recorded_at) from documents where business_date between $1 and $2
                       and ($3 <> 'product' or kind <> 'void')";
            sqlx::query_scalar(sql).bind(asked.from).bind(asked.to).bind(group_by).fetch_one(&pool).await.unwrap()
        };
        let wanted = newest().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = Utc::now();
            let report: Report = owner.get(&asked.path()).await.unwrap();
            let after = Utc::now();
            let fresh = report.fresh_as_of.expect("documents are in the marts");
            let lag = TimeDelta::milliseconds(report.lag_ms.expect("so there is a lag"));
            let newest = newest().await;
            assert!(fresh <= newest, "fresher than what was committed: {fresh} {newest}");
            // Told from the clock of the API, which is this machine's.
            let slack = TimeDelta::milliseconds(1);
            assert!(lag >= before - fresh - slack && lag <= after - fresh + slack, "{lag} since {fresh} at {after}");
            if fresh >= wanted {
                break;
            }
            assert!(Instant::now() < deadline, "{group_by}: figures stay at {fresh}, a commit of {wanted} is missing");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_sees_the_figures_of_the_own_location_and_no_other() {
    let world = world().await;
    let owner = demo::owner(&world.endpoints).unwrap();
    let places = sold_at(&world.endpoints).await;
    let login = format!("kpis-{}", Uuid::now_v7());
    let who =
        Credentials { login: login.clone(), password: "a long enough password".to_owned(), ..Credentials::default() };
    let code = login[login.len() - 12..].to_owned();
    let grants = json!([{"role": "manager", "location_id": places[0]}]);
    let body = json!({"login": login, "code": code, "password": who.password, "grants": grants});
    let _: Value = owner.post("/users", &body).await.unwrap();
    let manager = Client::new(&world.endpoints.api, Identity::User(who)).unwrap();
    for group_by in ["day", "hour", "location", "product", "cashier", "tender"] {
        let unnamed = question(&world, group_by);
        let own = Question { location: Some(places[0]), ..unnamed.clone() };
        let report = agree_with(&manager, &world.endpoints, &unnamed, &own).await;
        assert!(!report.items.is_empty());
        let other = Question { location: Some(places[1]), ..unnamed };
        let refused = manager.get::<Value>(&other.path()).await.unwrap_err();
        assert_eq!(refused.code(), "forbidden");
    }
}
