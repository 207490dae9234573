//! Makes the locations, products, members and tills an import needs, through the API. Repeatable: every
//! id derives from the name of the import.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use chrono::{Days, NaiveDate};
use schemas::ids::derived_id;
use serde_json::Value;
use uuid::Uuid;

use super::map::Map;
use super::plan::{Files, Lines, Plan, Variant, id};
use crate::client::{ApiError, Client};
use crate::wire::{
    CatalogUpsert, CatalogUpserted, Grant, MembersUpsert, MembersUpserted, NewLocation, NewMember, NewPrice,
    NewProduct, NewTaxProfile, NewTaxRate, NewTerminal, NewUser, NewVariant,
};

/// Variants of one upsert; with their products and prices it has three times as many rows.
const VARIANTS_AT_ONCE: usize = 3_000;
const MEMBERS_AT_ONCE: usize = 10_000;

/// External id of something of the import.
fn external(map: &Map, key: &str) -> String {
    format!("{}/{key}", map.name)
}

/// Who is named as cashier on imported documents: may set line amounts by hand.
pub fn cashier(map: &Map) -> Uuid {
    id(map, "cashier", "")
}

/// Till `n` of a location.
pub fn terminal(map: &Map, location: &str, n: usize) -> Uuid {
    id(map, "terminal", &format!("{location}/{n}"))
}

/// SKUs and customers to the ids the API gave out. Grows with the assortment, not with the history: 32 bytes each.
#[derive(Default)]
pub struct Ids(HashMap<Uuid, Uuid>);

impl Ids {
    pub(super) fn put(&mut self, kind: &str, key: &str, id: Uuid) {
        self.0.insert(derived_id(kind, key), id);
    }
    /// Id of a SKU; None when the API has no such variant.
    pub fn variant(&self, sku: &str) -> Option<Uuid> {
        self.0.get(&derived_id("sku", sku)).copied()
    }
    /// Id of a customer.
    pub fn member(&self, customer: &str) -> Option<Uuid> {
        self.0.get(&derived_id("customer", customer)).copied()
    }
}

/// Makes everything; `say` is told each step.
pub async fn make(
    owner: &Client,
    map: &Map,
    plan: &Plan,
    files: &Files,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Ids> {
    let opened_on = plan.locations.iter().map(|location| location.opened_on).min().unwrap_or_default();
    let valid_from = opened_on.checked_sub_days(Days::new(2)).unwrap_or(opened_on);
    locations(owner, map, plan).await.context("locations")?;
    say(&format!("{} locations", plan.locations.len()));
    tax_profile(owner, map, valid_from).await.context("tax profile")?;
    let mut ids = Ids::default();
    variants(owner, map, files, valid_from, &mut ids).await.context("products")?;
    say(&format!("{} products", plan.variants));
    members(owner, map, files, &mut ids).await.context("members")?;
    say(&format!("{} members", plan.members));
    tills(owner, map, plan).await.context("tills")?;
    say(&format!("{} tills", plan.locations.len() * map.constants.tills_per_location));
    Ok(ids)
}

async fn known(owner: &Client, path: &str, field: &str) -> anyhow::Result<HashSet<String>> {
    let items: Vec<Value> = owner.list(path).await?;
    Ok(items.iter().filter_map(|item| item[field].as_str().map(str::to_owned)).collect())
}

async fn locations(owner: &Client, map: &Map, plan: &Plan) -> anyhow::Result<()> {
    let there = known(owner, "/locations", "location_id").await?;
    for location in &plan.locations {
        let location_id = id(map, "location", &location.external_id);
        if there.contains(&location_id.to_string()) {
            continue;
        }
        let body = NewLocation {
            location_id,
            external_id: external(map, &location.external_id),
            name: location.name.clone(),
            currency: map.constants.currency.to_string(),
            time_zone: map.constants.zone.name().to_owned(),
            day_cutoff: None,
            opened_on: location.opened_on,
        };
        owner.post::<Value>("/locations", &body).await.with_context(|| location.external_id.clone())?;
    }
    Ok(())
}

async fn tax_profile(owner: &Client, map: &Map, valid_from: NaiveDate) -> anyhow::Result<()> {
    let external_id = external(map, &map.constants.tax.profile);
    if known(owner, "/tax-profiles", "external_id").await?.contains(&external_id) {
        return Ok(());
    }
    let tax = &map.constants.tax;
    let body = NewTaxProfile {
        external_id,
        name: tax.profile.clone(),
        valid_from: midnight(valid_from),
        rates: vec![NewTaxRate { name: tax.profile.clone(), rate: tax.rate.clone(), inclusive: true }],
    };
    owner.post::<Value>("/tax-profiles", &body).await?;
    Ok(())
}

fn midnight(day: NaiveDate) -> String {
    format!("{day}T00:00:00Z")
}

async fn variants(
    owner: &Client,
    map: &Map,
    files: &Files,
    valid_from: NaiveDate,
    ids: &mut Ids,
) -> anyhow::Result<()> {
    let mut lines: Lines<Variant> = Lines::open(&files.variants(), 0)?;
    loop {
        let chunk: Vec<Variant> = lines.by_ref().take(VARIANTS_AT_ONCE).collect::<anyhow::Result<_>>()?;
        if chunk.is_empty() {
            return Ok(());
        }
        let answer: CatalogUpserted = owner.post("/catalog/upsert", &upsert(map, &chunk, valid_from)).await?;
        for variant in answer.variants {
            ids.put("sku", strip(map, &variant.external_id), variant.variant_id);
        }
    }
}

fn strip<'a>(map: &Map, external_id: &'a str) -> &'a str {
    external_id.strip_prefix(&map.name).and_then(|rest| rest.strip_prefix('/')).unwrap_or(external_id)
}

fn upsert(map: &Map, variants: &[Variant], valid_from: NaiveDate) -> CatalogUpsert {
    let products = variants.iter().map(|variant| NewProduct {
        external_id: external(map, &variant.sku),
        name: variant.name.clone(),
        category: variant.category.clone(),
    });
    let prices = variants.iter().map(|variant| NewPrice {
        variant_external_id: external(map, &variant.sku),
        currency: map.constants.currency.to_string(),
        amount_minor: variant.price_minor,
        tax_inclusive: true,
        valid_from: midnight(valid_from),
    });
    let rows = variants.iter().map(|variant| NewVariant {
        external_id: external(map, &variant.sku),
        product_external_id: external(map, &variant.sku),
        sku: external(map, &variant.sku),
        name: variant.name.clone(),
        barcodes: Vec::new(),
        unit: if variant.is_measured { "unit" } else { "piece" }.to_owned(),
        is_measured: variant.is_measured,
        tracks_stock: true,
        tax_profile_external_id: external(map, &map.constants.tax.profile),
        unit_cost_minor: None,
    });
    CatalogUpsert { products: products.collect(), variants: rows.collect(), prices: prices.collect() }
}

async fn members(owner: &Client, map: &Map, files: &Files, ids: &mut Ids) -> anyhow::Result<()> {
    let mut lines: Lines<String> = Lines::open(&files.members(), 0)?;
    loop {
        let chunk: Vec<String> = lines.by_ref().take(MEMBERS_AT_ONCE).collect::<anyhow::Result<_>>()?;
        if chunk.is_empty() {
            return Ok(());
        }
        let members = chunk.iter().map(|member| NewMember { external_id: external(map, member) }).collect();
        let answer: MembersUpserted = owner.post("/members/upsert", &MembersUpsert { members }).await?;
        for member in answer.members {
            ids.put("customer", strip(map, &member.external_id), member.customer_id);
        }
    }
}

async fn tills(owner: &Client, map: &Map, plan: &Plan) -> anyhow::Result<()> {
    let grants = vec![Grant { role: "manager".to_owned(), location_id: None }];
    let (user_id, login) = (cashier(map), format!("import-{}", map.name));
    // short and unique, as codes are
    let code = format!("IMP-{}", &user_id.simple().to_string()[..8]);
    let user = NewUser { user_id, code, login, password: None, grants };
    if !known(owner, "/users", "user_id").await?.contains(&user_id.to_string()) {
        owner.post::<Value>("/users", &user).await.context("the importing cashier")?;
    }
    let there = known(owner, "/terminals", "terminal_id").await?;
    for location in &plan.locations {
        for n in 0..map.constants.tills_per_location {
            let terminal_id = terminal(map, &location.external_id, n);
            if there.contains(&terminal_id.to_string()) {
                continue;
            }
            let body = NewTerminal {
                terminal_id,
                location_id: id(map, "location", &location.external_id),
                register_id: format!("{:02}", n + 1),
                name: format!("Import {} {}", location.external_id, n + 1),
            };
            let made: Result<Value, ApiError> = owner.post("/terminals", &body).await;
            made.with_context(|| location.external_id.clone())?;
        }
    }
    Ok(())
}
