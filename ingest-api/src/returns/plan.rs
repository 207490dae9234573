//! Pure: every figure of a refund, exchange or void, from what is stored of its origins and the catalog of now. The
//! preview and the commit call the same function.

use std::collections::HashMap;

use schemas::events::DocumentLine;
use schemas::ids::{CustomerId, DocumentId, LocationId};
use schemas::money::{Overflow, storable};
use uuid::Uuid;

use super::legs;
use super::origin::{Origin, Origins};
use super::payout::{self, Order};
use super::types::{Kind, Returned, ValidReturn};
use crate::business_day::{BusinessMoment, business_moment};
use crate::pricing::snapshot::{Location, Snapshot};
use crate::pricing::tender::Settled;
use crate::pricing::{Cart, Priced, Terms, price};
use crate::sales::events::document_line;
use crate::sales::price::PricedSale;
use crate::sales::refusal::Refusal;

/// A document with everything that follows from it, its origins and the catalog.
#[derive(Debug, Clone)]
pub struct Plan {
    pub location: Location,
    pub moment: BusinessMoment,
    pub catalog_version: i64,
    /// What comes back, then what goes; each in the order of the request.
    pub lines: Vec<DocumentLine>,
    /// What goes, as a sale has it; an exchange only.
    pub sold: Option<PricedSale>,
    pub subtotal_minor: i64,
    pub discount_minor: i64,
    pub tax_minor: i64,
    pub total_minor: i64,
    /// Where money goes back to.
    pub order: Order,
    /// The location of the origins, when it is one.
    pub origin_location_id: Option<LocationId>,
    pub customer_id: Option<CustomerId>,
}

impl Plan {
    /// Lines that come back.
    pub fn returned(&self) -> &[DocumentLine] {
        let count = self.lines.iter().take_while(|line| line.leg == legs::LEG_RETURN).count();
        &self.lines[..count]
    }
    /// Net of what goes.
    pub fn sold_net(&self) -> i64 {
        self.sold.as_ref().map_or(0, |sold| sold.priced.total_minor - sold.priced.tax_minor)
    }
}

/// The whole document, or why not.
pub fn plan(snapshot: &Snapshot, document: &ValidReturn, origins: &Origins) -> Result<Plan, Refusal> {
    let sale = &document.sale;
    let Some(location) = snapshot.locations.get(&sale.location_id()) else {
        return Err(Refusal::field("/location_id", "unknown_location", "no such location"));
    };
    let moment = open_on(location, document)?;
    let returned = return_legs(document, origins)?;
    let customer_id = customer(document, origins)?;
    let sold = match document.kind {
        Kind::Exchange => {
            let cart = Cart { customer_id, ..sale.cart.clone() };
            let priced = price(snapshot, &cart, &Terms::without_counted(snapshot)).map_err(Refusal::fields)?;
            Some(PricedSale { priced, settled: Settled::default(), moment })
        }
        Kind::Refund | Kind::Void => None,
    };
    let mut lines = returned.clone();
    lines.extend(sold.iter().flat_map(|sold| sold.priced.lines.iter().map(|line| document_line(sale, line))));
    let overflow = |Overflow| Refusal::field(document.kind.returns_at(), "overflow", "the amounts are out of range");
    let total_minor = column(&lines, |line| line.payable_minor).map_err(overflow)?;
    let owed = by_origin(&returned).map_err(overflow)?;
    Ok(Plan {
        location: Location::clone(location),
        moment,
        catalog_version: snapshot.version,
        subtotal_minor: column(&lines, |line| line.extended_minor).map_err(overflow)?,
        discount_minor: column(&lines, |line| line.discount_minor.saturating_add(line.redemption_minor))
            .map_err(overflow)?,
        tax_minor: column(&lines, |line| line.tax_minor).map_err(overflow)?,
        total_minor,
        order: payout::order(origins, &owed, total_minor.saturating_neg().max(0)),
        origin_location_id: one_location(&returned),
        customer_id,
        lines,
        sold,
    })
}

/// As for a sale: an active location that had opened by then, in its own currency.
fn open_on(location: &Location, document: &ValidReturn) -> Result<BusinessMoment, Refusal> {
    let cart = &document.sale.cart;
    if *cart.currency != *location.currency {
        let message = format!("the location sells in {}", location.currency);
        return Err(Refusal::field("/currency", "wrong_currency", message));
    }
    if !location.is_active {
        return Err(Refusal::field("/location_id", "inactive_location", "the location does not sell any more"));
    }
    let moment = business_moment(cart.occurred_at, location.zone, location.day_cutoff);
    if moment.date < location.opened_on {
        let message = format!("the location opened on {}", location.opened_on);
        return Err(Refusal::field("/occurred_at", "before_opening", message));
    }
    Ok(moment)
}

/// The return legs in the order of the request. Units are counted over the whole document, so a line may come back in
/// several parts with different dispositions.
fn return_legs(document: &ValidReturn, origins: &Origins) -> Result<Vec<DocumentLine>, Refusal> {
    let root = document.kind.returns_at();
    let mut asked: HashMap<(Uuid, i32), i64> = HashMap::new();
    let mut legs = Vec::with_capacity(document.returned.len());
    for (index, wanted) in document.returned.iter().enumerate() {
        let pointer = format!("{root}/{index}");
        let origin = origin_of(document, origins, wanted, &pointer)?;
        let Some(sold) = origin.lines.iter().find(|sold| sold.line.line_no == wanted.origin_line_no) else {
            let at = format!("{pointer}/origin_line_no");
            return Err(Refusal::field(&at, "invalid_value", "the document sold nothing in this line"));
        };
        if sold.line.liability_account_id.is_some() {
            let at = format!("{pointer}/origin_line_no");
            return Err(Refusal::field(&at, "invalid_value", "a credit is no goods: it does not come back"));
        }
        let in_all = asked.entry((wanted.origin_document_id, wanted.origin_line_no)).or_default();
        let mut next = sold.clone();
        next.returned = next.returned.saturating_add(*in_all);
        *in_all = in_all.saturating_add(wanted.qty);
        legs::check(&next, wanted, *in_all, &pointer)?;
        let leg = next.leg(wanted.line_no, wanted.qty, origin.place(), origin.rounding_mode).map_err(|Overflow| {
            Refusal::field(&format!("{pointer}/qty"), "overflow", "the amounts are out of range")
        })?;
        legs.push(DocumentLine { disposition: Some(wanted.disposition.as_str().to_owned()), ..leg });
    }
    Ok(legs)
}

fn origin_of<'a>(
    document: &ValidReturn,
    origins: &'a Origins,
    wanted: &Returned,
    pointer: &str,
) -> Result<&'a Origin, Refusal> {
    let at = format!("{pointer}/origin_document_id");
    let Some(origin) = origins.find(wanted.origin_document_id) else {
        return Err(Refusal::absent(&at, "no such document"));
    };
    if !matches!(origin.kind.as_str(), "sale" | "exchange") {
        return Err(Refusal::field(&at, "invalid_value", format!("a {} sells nothing", origin.kind)));
    }
    if origin.currency != document.sale.cart.currency {
        return Err(Refusal::field(&at, "wrong_currency", format!("it was sold in {}", origin.currency)));
    }
    Ok(origin)
}

/// The member of the document: who bought the goods. A document is of one member, since its points are.
pub fn customer(document: &ValidReturn, origins: &Origins) -> Result<Option<CustomerId>, Refusal> {
    let mut customer = None;
    for (index, wanted) in document.returned.iter().enumerate() {
        let Some(buyer) = origins.find(wanted.origin_document_id).and_then(|origin| origin.customer_id) else {
            continue;
        };
        if customer.is_some_and(|known| known != buyer) {
            let at = format!("{}/{index}/origin_document_id", document.kind.returns_at());
            return Err(Refusal::field(&at, "invalid_value", "another member bought this: take it back by itself"));
        }
        customer = Some(buyer);
    }
    match (document.sale.customer_id, customer) {
        (Some(named), Some(buyer)) if named != buyer => {
            Err(Refusal::field("/customer_id", "invalid_value", "another member bought what comes back"))
        }
        (named, buyer) => Ok(named.or(buyer)),
    }
}

/// What came back of each origin, positive, in the order of the request.
fn by_origin(legs: &[DocumentLine]) -> Result<Vec<(DocumentId, i64)>, Overflow> {
    let mut owed: Vec<(DocumentId, i64)> = Vec::new();
    for leg in legs {
        let Some(origin) = leg.origin_document_id else { continue };
        let amount = leg.payable_minor.checked_neg().ok_or(Overflow)?;
        match owed.iter_mut().find(|(known, _)| *known == origin) {
            Some((_, sum)) => *sum = sum.checked_add(amount).ok_or(Overflow)?,
            None => owed.push((origin, amount)),
        }
    }
    Ok(owed)
}

fn column(lines: &[DocumentLine], figure: impl Fn(&DocumentLine) -> i64) -> Result<i64, Overflow> {
    let sum = lines.iter().map(figure).try_fold(0i64, |sum, amount| sum.checked_add(amount).ok_or(Overflow));
    sum.and_then(storable)
}

fn one_location(legs: &[DocumentLine]) -> Option<LocationId> {
    let first = legs.first()?.origin_location_id?;
    legs.iter().all(|leg| leg.origin_location_id == Some(first)).then_some(first)
}

/// The trace of the whole document: where each returned line comes from, then how the new ones were priced.
pub fn trace(plan: &Plan, priced: Option<&Priced>) -> String {
    let returned = plan.returned().iter().map(|leg| {
        let origin = leg.origin_document_id.unwrap_or_default();
        let (line, of, qty) = (leg.line_no, leg.origin_line_no.unwrap_or_default(), leg.qty);
        let units = leg.first_unit.zip(leg.last_unit).map(|(first, last)| format!(r#","units":[{first},{last}]"#));
        let (units, result) = (units.unwrap_or_default(), leg.payable_minor);
        format!(r#"{{"line":{line},"rule":"returned","id":"{origin}","origin_line":{of},"qty":{qty}{units},"result":{result}}}"#)
    });
    let mut steps: Vec<String> = returned.collect();
    let inner = priced.and_then(|priced| priced.trace.strip_prefix('[')?.strip_suffix(']'));
    steps.extend(inner.filter(|inner| !inner.is_empty()).map(str::to_owned));
    format!("[{}]", steps.join(","))
}
