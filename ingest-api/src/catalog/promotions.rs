//! Promotions and their coupons. Tills get promotions through the catalog feed; coupons are asked for one by one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use runtime::pg::PgTx;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::checks::{AMOUNT_MAX, BULK_ROWS_MAX, CODE_CHARS_MAX, Checks, NAME_CHARS_MAX, QTY_MAX};
use crate::context::Context;
use crate::db::catalog_writes::{CatalogWrite, Kind};
use crate::db::promotions as db;
use crate::edits::{check_version, json_response, with_etag};
use crate::error::ApiError;
use crate::extract::{Body, IfMatch, Params, PathId, Valid};
use crate::page::{self, Page, PageParams};
use crate::pricing::promotions::Usage;
use crate::pricing::promotions::rule::{Conditions, Effect, Items, Rule};
use crate::sales::check::coupon_code;
use crate::sales::coupons::Coupon;

const LIST: &str = "promotions";
const IDS_MAX: usize = 10_000;
const PARTS_MAX: usize = 10;
const UNITS_MAX: i64 = 1_000;
const WINDOWS_MAX: usize = 20;

/// A promotion to be, or as it shall be.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPromotion {
    pub promotion_id: Option<Uuid>,
    pub external_id: String,
    /// Printed on receipts.
    pub name: String,
    /// Lower is earlier; then by id. Each works on what the earlier ones left.
    pub priority: i32,
    /// At most one promotion of a group applies to a document: the first one.
    pub exclusion_group: Option<String>,
    pub effect: Effect,
    /// Goods it is about; absent: all.
    #[serde(default)]
    pub items: Items,
    #[serde(default)]
    pub conditions: Conditions,
    /// Only for carts that name one of its coupons.
    #[serde(default)]
    pub needs_coupon: bool,
    /// ISO 4217, of every amount in it; needed as soon as there is one. It applies where that currency is sold in.
    pub currency: Option<String>,
    /// Most that it gives over all documents; it applies in full or not at all.
    pub budget_minor: Option<i64>,
    /// Most documents that it gives to.
    pub uses_max: Option<i64>,
    #[serde(default = "yes")]
    pub is_active: bool,
}

fn yes() -> bool {
    true
}

impl Body for NewPromotion {
    fn check(&mut self, checks: &mut Checks) {
        checks.new_id("/promotion_id", self.promotion_id);
        checks.text("/external_id", &mut self.external_id, CODE_CHARS_MAX);
        checks.text("/name", &mut self.name, NAME_CHARS_MAX);
        checks.text_opt("/exclusion_group", &mut self.exclusion_group, CODE_CHARS_MAX);
        if let Some(currency) = &self.currency {
            checks.currency("/currency", currency);
        }
        if let Some(budget) = self.budget_minor {
            checks.range("/budget_minor", budget, 1..=AMOUNT_MAX);
        }
        if let Some(uses) = self.uses_max {
            checks.range("/uses_max", uses, 1..=AMOUNT_MAX);
        }
        check_effect(checks, &self.effect);
        check_items(checks, "/items", &self.items);
        check_conditions(checks, &self.conditions);
        let names_amount = self.budget_minor.is_some()
            || self.conditions.min_amount_minor.is_some()
            || !matches!(self.effect, Effect::Percent { .. } | Effect::BuyGet { .. });
        checks.that(!names_amount || self.currency.is_some(), "/currency", "is needed with amounts");
    }
}

fn check_effect(checks: &mut Checks, effect: &Effect) {
    let amounts = 1..=AMOUNT_MAX;
    match effect {
        Effect::Percent { percent } => check_percent(checks, *percent),
        Effect::AmountPerUnit { amount_minor } => checks.range("/effect/amount_minor", *amount_minor, amounts),
        Effect::UnitPrice { unit_price_minor } => {
            checks.range("/effect/unit_price_minor", *unit_price_minor, 0..=AMOUNT_MAX);
        }
        Effect::BuyGet { buy, get, percent } => {
            checks.range("/effect/buy", *buy, 1..=UNITS_MAX);
            checks.range("/effect/get", *get, 1..=UNITS_MAX);
            check_percent(checks, *percent);
        }
        Effect::Bundle { parts, price_minor } => {
            checks.rows("/effect/parts", parts.len(), PARTS_MAX);
            for (i, part) in parts.iter().enumerate().take(PARTS_MAX) {
                checks.range(format_args!("/effect/parts/{i}/units"), part.units, 1..=UNITS_MAX);
                check_items(checks, &format!("/effect/parts/{i}/items"), &part.items);
            }
            checks.range("/effect/price_minor", *price_minor, 0..=AMOUNT_MAX);
        }
        Effect::BasketPercent { threshold_minor, percent } => {
            checks.range("/effect/threshold_minor", *threshold_minor, 0..=AMOUNT_MAX);
            check_percent(checks, *percent);
        }
        Effect::BasketAmount { threshold_minor, amount_minor } => {
            checks.range("/effect/threshold_minor", *threshold_minor, 0..=AMOUNT_MAX);
            checks.range("/effect/amount_minor", *amount_minor, amounts);
        }
    }
}

fn check_percent(checks: &mut Checks, percent: Decimal) {
    let holds = percent > Decimal::ZERO && percent <= Decimal::ONE_HUNDRED && percent.normalize().scale() <= 4;
    checks.that(holds, "/effect/percent", "must be above 0 to 100 with at most 4 places");
}

fn check_items(checks: &mut Checks, pointer: &str, items: &Items) {
    let ids = [&items.variant_ids, &items.product_ids, &items.excluded_variant_ids, &items.excluded_product_ids];
    let count: usize = ids.iter().map(|ids| ids.len()).sum();
    checks.that(count <= IDS_MAX, pointer, "names more than 10000 variants and products");
    let categories = items.categories.iter().chain(&items.excluded_categories);
    let is_name = |name: &String| !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX;
    checks.that(
        categories.clone().count() <= 100 && categories.into_iter().all(is_name),
        pointer,
        "has no good categories",
    );
}

fn check_conditions(checks: &mut Checks, conditions: &Conditions) {
    for (name, at) in [("starts_at", conditions.starts_at), ("ends_at", conditions.ends_at)] {
        if let Some(at) = at {
            checks.instant(format_args!("/conditions/{name}"), at);
        }
    }
    if let (Some(start), Some(end)) = (conditions.starts_at, conditions.ends_at) {
        checks.that(start < end, "/conditions/ends_at", "must lie after starts_at");
    }
    checks.that(conditions.windows.len() <= WINDOWS_MAX, "/conditions/windows", "must hold at most 20 windows");
    for (i, window) in conditions.windows.iter().enumerate().take(WINDOWS_MAX) {
        checks.that(!window.days.is_empty(), format_args!("/conditions/windows/{i}/days"), "must name a day");
    }
    let count = conditions.location_ids.len() + conditions.customer_ids.len();
    checks.that(count <= IDS_MAX, "/conditions", "names more than 10000 locations and members");
    if let Some(qty) = conditions.min_qty {
        checks.range("/conditions/min_qty", qty, 1..=QTY_MAX);
    }
    if let Some(amount) = conditions.min_amount_minor {
        checks.range("/conditions/min_amount_minor", amount, 1..=AMOUNT_MAX);
    }
}

/// A promotion as it is.
#[derive(Debug, Clone, PartialEq, Serialize, sqlx::FromRow, ToSchema)]
pub struct Promotion {
    pub promotion_id: Uuid,
    pub external_id: String,
    pub name: String,
    pub priority: i32,
    pub exclusion_group: Option<String>,
    #[serde(flatten)]
    #[sqlx(json)]
    pub rule: Rule,
    pub needs_coupon: bool,
    pub currency: Option<String>,
    pub budget_minor: Option<i64>,
    pub uses_max: Option<i64>,
    pub is_active: bool,
    pub version: i64,
}

/// A promotion with what it has given so far.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PromotionWithUsage {
    #[serde(flatten)]
    pub promotion: Promotion,
    /// Minor units of its currency; counted for promotions with a budget, a limit of uses or coupons.
    pub given_minor: i64,
    pub uses: i64,
}

impl NewPromotion {
    fn become_promotion(&self, promotion_id: Uuid, version: i64) -> Promotion {
        Promotion {
            promotion_id,
            external_id: self.external_id.clone(),
            name: self.name.clone(),
            priority: self.priority,
            exclusion_group: self.exclusion_group.clone(),
            rule: Rule { effect: self.effect.clone(), items: self.items.clone(), conditions: self.conditions.clone() },
            needs_coupon: self.needs_coupon,
            currency: self.currency.clone(),
            budget_minor: self.budget_minor,
            uses_max: self.uses_max,
            is_active: self.is_active,
            version,
        }
    }
}

/// `POST /promotions`
pub async fn create_promotion(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(new): Valid<NewPromotion>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let made = app
        .writer
        .write((new, access.principal, context), |tx, (new, who, context)| {
            Box::pin(async move {
                let write = CatalogWrite::begin(tx).await?;
                let id = new.promotion_id.unwrap_or_else(Uuid::now_v7);
                if db::find(&mut **tx, id).await?.is_some() {
                    return Err(ApiError::conflict("already_exists", "this promotion_id exists already"));
                }
                finish(tx, write, (who, context), None, new.become_promotion(id, 1)).await
            })
        })
        .await?;
    with_etag(StatusCode::CREATED, &made, made.version)
}

/// `PUT /promotions/{promotion_id}`: as a whole; documents that were priced with it keep their figures.
pub async fn replace_promotion(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    if_match: IfMatch,
    Valid(new): Valid<NewPromotion>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let made = app
        .writer
        .write((id, if_match, new, access.principal, context), |tx, (id, if_match, new, who, context)| {
            Box::pin(async move {
                let write = CatalogWrite::begin(tx).await?;
                let before = db::find(&mut **tx, *id).await?.ok_or_else(|| ApiError::not_found("promotion"))?;
                check_version(*if_match, before.version, new, &before)?;
                if new.promotion_id.is_some_and(|given| given != *id) {
                    return Err(ApiError::invalid_value("/promotion_id", "is not the one of the path"));
                }
                let after = new.become_promotion(*id, before.version + 1);
                finish(tx, write, (who, context), Some(before), after).await
            })
        })
        .await?;
    with_etag(StatusCode::OK, &made, made.version)
}

async fn finish(
    tx: &mut PgTx,
    mut write: CatalogWrite,
    (who, context): (&Principal, &Context),
    before: Option<Promotion>,
    after: Promotion,
) -> Result<Promotion, ApiError> {
    db::save(tx, &after).await?;
    let id = after.promotion_id;
    write.change(Kind::Promotion, (id, after.version), None, &after)?;
    let action = if before.is_some() { "promotion.edit" } else { "promotion.create" };
    let entry = Entry::done(who, action, format!("promotion/{id}")).states(before.as_ref(), &after);
    audit::record(tx, context, entry).await?;
    write.finish(tx, context, id).await?;
    Ok(after)
}

/// `GET /promotions/{promotion_id}`
pub async fn find_promotion(State(app): State<AppState>, PathId(id): PathId) -> Result<Response, ApiError> {
    let promotion = db::find(&app.reads, id).await?.ok_or_else(|| ApiError::not_found("promotion"))?;
    let Usage { given_minor, uses } = db::usage(&app.reads, id).await?;
    let version = promotion.version;
    with_etag(StatusCode::OK, &PromotionWithUsage { promotion, given_minor, uses }, version)
}

/// `GET /promotions`
pub async fn list_promotions(
    State(app): State<AppState>,
    Params(params): Params<PageParams>,
) -> Result<Response, ApiError> {
    let limit = page::limit(params.limit)?;
    let after: Option<Uuid> = app.auth.cursors.open(LIST, params.cursor.as_deref())?;
    let rows = db::list(&app.reads, after, limit + 1).await?;
    let page = Page::of(rows, limit, &app.auth.cursors, LIST, |row: &Promotion| row.promotion_id)?;
    json_response(StatusCode::OK, &page)
}

/// Coupons to be; all of them, or none when one of the codes is taken.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCoupons {
    pub coupons: Vec<NewCoupon>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCoupon {
    /// 4 to 40 letters and digits; upper or lower case, spaces and dashes are the same coupon.
    pub code: String,
    /// How many documents may use it (1).
    #[serde(default = "once")]
    pub uses_max: i64,
    /// Only this member's.
    pub customer_id: Option<Uuid>,
    pub expires_at: Option<DateTime<Utc>>,
}

fn once() -> i64 {
    1
}

impl Body for NewCoupons {
    fn check(&mut self, checks: &mut Checks) {
        checks.rows("/coupons", self.coupons.len(), BULK_ROWS_MAX);
        let mut seen = std::collections::HashSet::new();
        for (i, coupon) in self.coupons.iter_mut().enumerate().take(BULK_ROWS_MAX) {
            match coupon_code(&coupon.code) {
                None => checks.fail(format_args!("/coupons/{i}/code"), "must be 4 to 40 letters and digits"),
                Some(code) => {
                    checks.that(seen.insert(code.clone()), format_args!("/coupons/{i}/code"), "stands twice");
                    coupon.code = code;
                }
            }
            checks.range(format_args!("/coupons/{i}/uses_max"), coupon.uses_max, 1..=AMOUNT_MAX);
            if let Some(at) = coupon.expires_at {
                checks.instant(format_args!("/coupons/{i}/expires_at"), at);
            }
        }
    }
}

/// How many there are now.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CouponsMade {
    pub promotion_id: Uuid,
    pub made: usize,
}

/// `POST /promotions/{promotion_id}/coupons`
pub async fn create_coupons(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(id): PathId,
    Valid(new): Valid<NewCoupons>,
) -> Result<Response, ApiError> {
    access.require_everywhere()?;
    let made = app
        .writer
        .write((id, new, access.principal, context), |tx, (id, new, who, context)| {
            Box::pin(async move { make_coupons(tx, *id, new, (who, context)).await })
        })
        .await?;
    json_response(StatusCode::CREATED, &made)
}

async fn make_coupons(
    tx: &mut PgTx,
    promotion_id: Uuid,
    new: &NewCoupons,
    (who, context): (&Principal, &Context),
) -> Result<CouponsMade, ApiError> {
    let promotion = db::find(&mut **tx, promotion_id).await?.ok_or_else(|| ApiError::not_found("promotion"))?;
    if !promotion.needs_coupon {
        return Err(ApiError::conflict("illegal_transition", "this promotion needs no coupon"));
    }
    let coupons: Vec<Coupon> = new
        .coupons
        .iter()
        .map(|coupon| Coupon {
            code: coupon.code.clone(),
            promotion_id,
            uses_max: coupon.uses_max,
            uses: 0,
            customer_id: coupon.customer_id,
            expires_at: coupon.expires_at,
            is_active: true,
        })
        .collect();
    let taken = db::insert_coupons(tx, promotion_id, &coupons).await?;
    if let Some(code) = taken.first() {
        let detail = format!("{} of the codes are taken, for instance {code}", taken.len());
        return Err(ApiError::conflict("already_exists", detail));
    }
    let made = CouponsMade { promotion_id, made: coupons.len() };
    let entry = Entry::done(who, "coupons.create", format!("promotion/{promotion_id}")).states(None, &made);
    audit::record(tx, context, entry).await?;
    Ok(made)
}
