//! Pure: what of a refund, exchange or void limits are about, and whether it may be done.

use super::payout::Settlement;
use super::plan::Plan;
use super::types::{Kind, ValidReturn};
use crate::access::Permission;
use crate::limits::Extent;
use crate::sales::acts;
use crate::sales::known::{Known, Lease};
use crate::sales::refusal::Refusal;
use crate::sales::types::ValidSale;

/// The acts of a document, each kind once. Money that goes out is what a refund is about, so an exchange is one where it
/// pays out, by as much.
pub fn acts_of(
    document: &ValidReturn,
    sale: &ValidSale,
    plan: &Plan,
    settlement: &Settlement,
) -> Vec<(Permission, Extent)> {
    let extent = |amount: i64| Extent {
        currency: document.sale.cart.currency.clone(),
        amount_minor: Some(amount),
        share_ppm: None,
    };
    let paid_out = plan.total_minor.saturating_neg().max(0);
    let mut acts = match document.kind {
        Kind::Refund => vec![(Permission::Refund, extent(paid_out))],
        Kind::Exchange if paid_out > 0 => vec![(Permission::Refund, extent(paid_out))],
        Kind::Exchange => Vec::new(),
        Kind::Void => vec![(Permission::Void, extent(0))],
    };
    if settlement.diverted_minor > 0 {
        acts.push((Permission::RefundToOtherTender, extent(settlement.diverted_minor)));
    }
    acts.extend(plan.sold.iter().flat_map(|sold| acts::of(sale, sold)));
    acts
}

/// An exchange that pays nothing out still takes goods back: for who may refund at all.
pub fn check_exchange(known: &Known, sale: &ValidSale, lease: Option<&Lease>) -> Result<(), Refusal> {
    if acts::rules(known, sale, Permission::Refund, lease).is_empty() {
        return Err(Refusal::forbidden("/cashier_id", "this cashier may take nothing back at that location"));
    }
    Ok(())
}
