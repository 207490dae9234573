//! Pure: a sale by the catalog: every figure, its settlement and its business day, or why not.

use crate::business_day::{BusinessMoment, business_moment};
use crate::pricing::snapshot::Snapshot;
use crate::pricing::tender::{Settled, TenderProblem, settle};
use crate::pricing::{Priced, Terms, price};
use crate::sales::refusal::Refusal;
use crate::sales::response::quote_body;
use crate::sales::types::ValidSale;

/// A sale with everything that follows from it and the catalog alone.
#[derive(Debug, Clone)]
pub struct PricedSale {
    pub priced: Priced,
    pub settled: Settled,
    pub moment: BusinessMoment,
}

/// What pricing says of a sale.
#[derive(Debug, Clone)]
pub struct Offered {
    pub priced: Result<PricedSale, Refusal>,
    /// Coupons, or what promotions gave so far, decide about its price: it is priced again under their locks.
    pub needs_terms: bool,
}

/// Prices and settles `sale` by `snapshot` and `terms`.
pub fn offered(snapshot: &Snapshot, sale: &ValidSale, terms: &Terms) -> Offered {
    match price(snapshot, &sale.cart, terms).map_err(Refusal::fields) {
        Err(refusal) => Offered { priced: Err(refusal), needs_terms: !sale.cart.coupons.is_empty() },
        Ok(priced) => {
            let needs_terms = priced.promotions.is_counted || !sale.cart.coupons.is_empty();
            Offered { priced: settled(priced, sale), needs_terms }
        }
    }
}

/// A total that differs is refused with the quote.
fn settled(priced: Priced, sale: &ValidSale) -> Result<PricedSale, Refusal> {
    let location = &priced.location;
    if !location.is_active {
        return Err(Refusal::field("/location_id", "inactive_location", "the location does not sell any more"));
    }
    let moment = business_moment(sale.cart.occurred_at, location.zone, location.day_cutoff);
    if moment.date < location.opened_on {
        let message = format!("the location opened on {}", location.opened_on);
        return Err(Refusal::field("/occurred_at", "before_opening", message));
    }
    if priced.total_minor != sale.total_minor {
        let detail = format!("the total is {}, not {}", priced.total_minor, sale.total_minor);
        let quote = serde_json::to_value(quote_body(&priced, sale.cart.occurred_at)).unwrap_or_default();
        return Err(Refusal::unprocessable("total_mismatch", detail).with("quote", quote));
    }
    let (cash, non_cash) = sale.tendered();
    let settled = match settle(priced.total_minor, cash, non_cash, location.cash_step, location.cash_mode) {
        Ok(settled) => settled,
        Err(TenderProblem::Short { missing_minor }) => {
            let message = format!("the tenders are {missing_minor} short");
            return Err(Refusal::field("/tenders", "tenders_do_not_add_up", message));
        }
        Err(TenderProblem::Overflow) => {
            return Err(Refusal::field("/tenders", "overflow", "the amounts are out of range"));
        }
    };
    Ok(PricedSale { priced, settled, moment })
}
