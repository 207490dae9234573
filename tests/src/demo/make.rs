//! Makes the demonstration business through the public API. Every call may be repeated: ids and
//! Idempotency-Keys derive from the seed, so a second run finds what the first one made.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use futures::stream::{self, StreamExt, TryStreamExt};
use schemas::ids::derived_id;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::business::{Business, Market, Place, TAX_PROFILES, VALID_FROM};
use super::planner::Issued;
use crate::client::{ApiError, Client};
use crate::wire::{
    CatalogUpsert, CatalogUpserted, Grant, MembersUpsert, MembersUpserted, NewLocation, NewMember, NewPrice,
    NewProduct, NewTaxProfile, NewTaxRate, NewTerminal, NewUser, NewVariant, ReceiptLine, StockReceipt, ThresholdLine,
    Thresholds,
};

/// Calls under way at once.
const AT_ONCE: usize = 8;

/// Makes what is missing; `say` is told each step. Returns the ids the API gave out.
pub async fn business(owner: &Client, business: &Business, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Issued> {
    locations(owner, business).await.context("locations")?;
    say(&format!("{} locations", business.places.len()));
    tax_profiles(owner).await.context("tax profiles")?;
    let variants = catalog(owner, business).await.context("catalog")?;
    say(&format!("{} products, {} variants with prices", business.products.len(), variants.len()));
    staff(owner, business).await.context("staff")?;
    terminals(owner, business).await.context("terminals")?;
    let tills: usize = business.places.iter().map(|place| place.tills.len()).sum();
    say(&format!("{tills} tills and their staff"));
    let members = members(owner, business).await.context("members")?;
    say(&format!("{} loyalty members", members.len()));
    stock(owner, business, &variants).await.context("opening stock")?;
    say("opening stock and thresholds");
    Ok(Issued { variants, members })
}

/// One field of every object of a list that exists.
async fn known<T: std::hash::Hash + Eq + serde::de::DeserializeOwned>(
    owner: &Client,
    path: &str,
    field: &str,
) -> anyhow::Result<HashSet<T>> {
    let items: Vec<Value> = owner.list(path).await?;
    items
        .into_iter()
        .map(|item| serde_json::from_value(item[field].clone()).with_context(|| format!("{path} has no {field}")))
        .collect()
}

/// Sends what is missing, several calls at once.
async fn send_all<B: serde::Serialize + Sync>(owner: &Client, path: &str, bodies: Vec<B>) -> anyhow::Result<()> {
    stream::iter(bodies)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |body| async move { owner.post::<Value>(path, &body).await.map(|_| ()) })
        .await
        .with_context(|| format!("POST {path}"))
}

async fn locations(owner: &Client, business: &Business) -> anyhow::Result<()> {
    let there: HashSet<Uuid> = known(owner, "/locations", "location_id").await?;
    let missing = business.places.iter().filter(|place| !there.contains(&place.location_id));
    let bodies = missing.map(|place| NewLocation {
        location_id: place.location_id,
        external_id: place.external_id.clone(),
        name: place.name.clone(),
        currency: place.market.currency().to_owned(),
        time_zone: place.zone.name().to_owned(),
        day_cutoff: None,
        opened_on: Business::opened_on(),
    });
    send_all(owner, "/locations", bodies.collect()).await
}

async fn tax_profiles(owner: &Client) -> anyhow::Result<()> {
    let there: HashSet<String> = known(owner, "/tax-profiles", "external_id").await?;
    let missing = TAX_PROFILES.iter().filter(|profile| !there.contains(profile.external_id));
    let bodies = missing.map(|profile| NewTaxProfile {
        external_id: profile.external_id.to_owned(),
        name: profile.name.to_owned(),
        valid_from: VALID_FROM.to_owned(),
        rates: profile
            .rates
            .iter()
            .map(|(name, rate, inclusive)| NewTaxRate {
                name: (*name).to_owned(),
                rate: (*rate).to_owned(),
                inclusive: *inclusive,
            })
            .collect(),
    });
    send_all(owner, "/tax-profiles", bodies.collect()).await
}

async fn catalog(owner: &Client, business: &Business) -> anyhow::Result<Vec<Uuid>> {
    let products = business.products.iter().map(|product| NewProduct {
        external_id: product.external_id.clone(),
        name: product.name.clone(),
        category: product.category.to_owned(),
    });
    let variants = business.variants.iter().map(|variant| NewVariant {
        external_id: variant.external_id.clone(),
        product_external_id: business.products[variant.product].external_id.clone(),
        sku: variant.sku.clone(),
        name: variant.name.clone(),
        barcodes: vec![variant.barcode.clone()],
        unit: if variant.is_measured { "kg" } else { "piece" }.to_owned(),
        is_measured: variant.is_measured,
        tracks_stock: true,
        tax_profile_external_id: TAX_PROFILES[variant.tax_profile].external_id.to_owned(),
        unit_cost_minor: Some(variant.unit_cost_minor),
    });
    let prices = business.variants.iter().map(|variant| NewPrice {
        variant_external_id: variant.external_id.clone(),
        currency: variant.market.currency().to_owned(),
        amount_minor: variant.price_minor,
        tax_inclusive: variant.market.is_tax_inclusive(),
        valid_from: VALID_FROM.to_owned(),
    });
    let body = CatalogUpsert { products: products.collect(), variants: variants.collect(), prices: prices.collect() };
    let answer: CatalogUpserted = owner.post("/catalog/upsert", &body).await?;
    let ids: HashMap<String, Uuid> =
        answer.variants.into_iter().map(|variant| (variant.external_id, variant.variant_id)).collect();
    let id = |variant: &super::business::Variant| {
        ids.get(&variant.external_id).copied().with_context(|| format!("{} got no id", variant.external_id))
    };
    business.variants.iter().map(id).collect()
}

async fn staff(owner: &Client, business: &Business) -> anyhow::Result<()> {
    let there: HashSet<Uuid> = known(owner, "/users", "user_id").await?;
    let grant = |role: &str, location_id| vec![Grant { role: role.to_owned(), location_id }];
    let user = |user_id, login: String, code: String, grants| NewUser { user_id, login, code, password: None, grants };
    let mut users =
        vec![user(business.it_admin, format!("it@{}", business.seed), "IT-1".to_owned(), grant("it_admin", None))];
    for (n, place) in business.places.iter().enumerate() {
        let here = Some(place.location_id);
        let login = |kind: &str, i: usize| format!("{kind}{}@{}", i + 1, place.external_id);
        users.push(user(place.manager, login("manager", 0), format!("M-{:03}", n + 1), grant("manager", here)));
        for (i, cashier) in place.cashiers.iter().enumerate() {
            let code = format!("C-{:03}-{}", n + 1, i + 1);
            users.push(user(*cashier, login("cashier", i), code, grant("cashier", here)));
        }
    }
    users.retain(|user| !there.contains(&user.user_id));
    send_all(owner, "/users", users).await
}

async fn terminals(owner: &Client, business: &Business) -> anyhow::Result<()> {
    let there: HashSet<Uuid> = known(owner, "/terminals", "terminal_id").await?;
    let mut bodies = Vec::new();
    for place in &business.places {
        for (i, till) in place.tills.iter().enumerate().filter(|(_, till)| !there.contains(till)) {
            bodies.push(NewTerminal {
                terminal_id: *till,
                location_id: place.location_id,
                register_id: format!("{:02}", i + 1),
                name: format!("Till {} {}", i + 1, place.name),
            });
        }
    }
    send_all(owner, "/terminals", bodies).await
}

async fn members(owner: &Client, business: &Business) -> anyhow::Result<Vec<Uuid>> {
    let external_id = |n: usize| format!("demo-{}-m{n:05}", business.seed);
    let members = (0..business.members).map(|n| NewMember { external_id: external_id(n) }).collect();
    let answer: MembersUpserted = owner.post("/members/upsert", &MembersUpsert { members }).await?;
    let ids: HashMap<String, Uuid> =
        answer.members.into_iter().map(|member| (member.external_id, member.customer_id)).collect();
    (0..business.members)
        .map(|n| ids.get(&external_id(n)).copied().with_context(|| format!("member {n} got no id")))
        .collect()
}

async fn stock(owner: &Client, business: &Business, variants: &[Uuid]) -> anyhow::Result<()> {
    stream::iter(business.places.iter().enumerate())
        .map(Ok)
        .try_for_each_concurrent(4, |(n, place)| stock_of(owner, business, n, place, variants))
        .await
}

async fn stock_of(
    owner: &Client,
    business: &Business,
    n: usize,
    place: &Place,
    variants: &[Uuid],
) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Done {}
    let market: Market = place.market;
    let levels: Vec<(usize, i64, i64)> = business
        .ranked(market)
        .iter()
        .enumerate()
        .map(|(rank, index)| {
            let (qty, threshold) = business.opening_stock(n, rank);
            (*index, qty, threshold)
        })
        .collect();
    let act = |kind: &str| derived_id(kind, &format!("{}/{n}", business.seed));
    let receipt = StockReceipt {
        act_id: act("demo.receipt"),
        location_id: place.location_id,
        reason: "receipt".to_owned(),
        effective_at: None,
        lines: levels
            .iter()
            .map(|(index, qty, _)| ReceiptLine {
                variant_id: variants[*index],
                qty: *qty,
                unit_cost_minor: Some(business.variants[*index].unit_cost_minor),
            })
            .collect(),
    };
    keyed::<Done>(owner, "/stock/receipts", receipt.act_id, &receipt).await?;
    let thresholds = Thresholds {
        act_id: act("demo.thresholds"),
        location_id: place.location_id,
        lines: levels
            .iter()
            .map(|(index, _, threshold)| ThresholdLine { variant_id: variants[*index], threshold: Some(*threshold) })
            .collect(),
    };
    keyed::<Done>(owner, "/stock/thresholds", thresholds.act_id, &thresholds).await.map(|_| ())
}

/// POST under the act's own id as key.
async fn keyed<T: serde::de::DeserializeOwned>(
    owner: &Client,
    path: &str,
    act_id: Uuid,
    body: &impl serde::Serialize,
) -> anyhow::Result<T> {
    let answer: Result<T, ApiError> = owner.post_keyed(path, Some(&act_id.to_string()), body).await;
    answer.with_context(|| format!("POST {path}"))
}
