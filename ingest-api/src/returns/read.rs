//! What a return needs to know before it is computed, for a preview and for a commit alike.

use sqlx::PgConnection;

use super::body::{ActBody, PlannedBody, PointsBody, PreviewBody, ReturnFigures};
use super::judge::acts_of;
use super::origin::Origins;
use super::payout::{self, Settlement};
use super::plan::{Plan, plan};
use super::points::{self, Moment, Posted};
use super::types::ValidReturn;
use crate::app::AppState;
use crate::db::returns as db;
use crate::error::ApiError;
use crate::pricing::tender::pay_out;
use crate::sales::refusal::Refusal;
use crate::sales::response::instant;
use crate::sales::types::ValidSale;

/// The documents that a return names, each once.
pub fn named(document: &ValidReturn) -> Vec<uuid::Uuid> {
    payout::each_once(document.returned.iter().map(|line| line.origin_document_id))
}

/// What an account of the member becomes by this document.
pub fn posted(account: &points::Account, origins: &Origins, plan: &Plan, sale: &ValidSale) -> Vec<Posted> {
    let moment =
        Moment { document_id: sale.document_id, occurred_at: sale.cart.occurred_at, base_minor: plan.sold_net() };
    points::entries(account, origins, plan.returned(), moment)
}

/// The whole document as it would be, without a lock and without a trace.
pub async fn preview(app: &AppState, document: ValidReturn) -> Result<PreviewBody, ApiError> {
    let mut tx = app.snapshot().await?;
    let origins = origins(&mut tx, &document).await?;
    let mut snapshot = app.catalog.current();
    let mut planned = plan(&snapshot, &document, &origins);
    if planned.is_err() {
        // What is unknown here may have been made on another node a moment ago.
        snapshot = app.catalog.refresh().await?;
        planned = plan(&snapshot, &document, &origins);
    }
    let plan = planned?;
    let accounts = match plan.customer_id {
        Some(customer) => db::accounts(&mut tx, customer.0).await?,
        None => Vec::new(),
    };
    tx.rollback().await?;
    if document.sale.customer_id.is_some() && accounts.is_empty() {
        return Err(Refusal::field("/customer_id", "unknown_customer", "no such customer").into());
    }
    let entries: Vec<Posted> =
        accounts.iter().flat_map(|account| posted(account, &origins, &plan, &document.sale)).collect();
    let tenders = payout::payments(&plan.order, &plan.location)
        .map_err(|_| Refusal::field("/lines", "overflow", "the amounts are out of range"))?;
    let acts = acts_of(&document, &document.sale, &plan, &Settlement::default());
    Ok(PreviewBody {
        kind: document.kind.as_str(),
        location_id: document.sale.location_id().0,
        occurred_at: instant(document.sale.cart.occurred_at),
        customer_id: plan.customer_id.map(Into::into),
        rounding_minor: rounding(&plan, &tenders),
        tenders: tenders.iter().map(|planned| PlannedBody::of(planned, &origins)).collect(),
        points: PointsBody::of(&entries),
        acts: acts.into_iter().map(ActBody::of).collect(),
        figures: ReturnFigures::of(&plan),
    })
}

/// What cash rounding comes to when money goes out in the order of the house.
fn rounding(plan: &Plan, tenders: &[payout::Planned]) -> i64 {
    let cash = tenders.iter().find(|planned| planned.to.is_none()).map(|planned| planned.amount_minor);
    let other: i64 = tenders.iter().filter(|planned| planned.to.is_some()).map(|planned| planned.amount_minor).sum();
    let (step, mode) = (plan.location.cash_step, plan.location.cash_mode);
    if plan.total_minor < 0 { pay_out(plan.total_minor, cash, other, step, mode).unwrap_or_default() } else { 0 }
}

/// The origins of a document as they are in the transaction's sight.
pub async fn origins(conn: &mut PgConnection, document: &ValidReturn) -> Result<Origins, ApiError> {
    let named = named(document);
    let chains = db::chains(conn, &named).await?;
    Ok(db::origins(conn, &named, &chains).await?)
}
