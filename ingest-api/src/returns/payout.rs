//! Pure: where money goes back to. First to the tenders other than cash that paid, the latest first, each up to what it
//! still holds; the rest in cash. Money of one origin goes to the tenders of its own chain only.

use schemas::ids::DocumentId;
use uuid::Uuid;

use super::origin::{Held, Origins};
use super::types::{Payment, TenderRef};
use crate::pricing::snapshot::Location;
use crate::pricing::tender::{PayOutProblem, TenderProblem, cash_of, pay_out, settle};
use crate::sales::refusal::Refusal;
use crate::sales::types::TenderKind;
use schemas::money::Overflow;

/// Money that one tender gets back, positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub to: TenderRef,
    pub amount_minor: i64,
}

/// The order of the guide: what each tender gets, and what remains for cash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    pub shares: Vec<Share>,
    /// Before rounding.
    pub cash_minor: i64,
}

/// Hands `amount` (positive) out over the origins in their order, each up to what came back of it.
pub fn order(origins: &Origins, returned: &[(DocumentId, i64)], amount: i64) -> Order {
    let mut left: Vec<i64> = origins.held.iter().map(|held| held.held_minor.max(0)).collect();
    let (mut shares, mut open) = (Vec::<Share>::new(), amount);
    for (document, returned) in returned {
        let chain = origins.find(document.0).map(|origin| origin.chain.as_slice()).unwrap_or_default();
        let mut due = (*returned).min(open);
        for (held, left) in origins.held.iter().zip(&mut left).filter(|(held, _)| chain.contains(&held.at.document_id))
        {
            let part = due.min(*left);
            if part <= 0 {
                continue;
            }
            (*left, due, open) = (*left - part, due - part, open - part);
            match shares.iter_mut().find(|share| share.to == held.at) {
                Some(share) => share.amount_minor += part,
                None => shares.push(Share { to: held.at, amount_minor: part }),
            }
        }
    }
    Order { shares, cash_minor: open }
}

/// How a document is settled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settlement {
    pub rounding_minor: i64,
    pub change_minor: i64,
    /// What goes elsewhere than the order says, positive.
    pub diverted_minor: i64,
}

/// The payments that the order comes to, cash rounded.
pub fn payments(order: &Order, location: &Location) -> Result<Vec<Planned>, Overflow> {
    let back = |share: &Share| Planned { to: Some(share.to), amount_minor: -share.amount_minor };
    let mut all: Vec<Planned> = order.shares.iter().map(back).collect();
    if order.cash_minor > 0 {
        let amount_minor = cash_of(-order.cash_minor, location.cash_step, location.cash_mode)?;
        all.push(Planned { to: None, amount_minor });
    }
    Ok(all)
}

/// One payment of the order; none: cash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    pub to: Option<TenderRef>,
    pub amount_minor: i64,
}

/// Settles a total with the payments given. Where money is paid out, each tender gets at most what it holds.
pub fn settled(
    total: i64,
    payments: &[Payment],
    order: &Order,
    origins: &Origins,
    location: &Location,
) -> Result<Settlement, Refusal> {
    let overflow = || Refusal::field("/tenders", "overflow", "the amounts are out of range");
    let sum = |of: &dyn Fn(&&Payment) -> bool| {
        payments.iter().filter(of).try_fold(0i64, |sum, it| sum.checked_add(it.amount_minor)).ok_or_else(overflow)
    };
    let is_cash = |it: &&Payment| it.kind == TenderKind::Cash;
    let (cash, other) = (sum(&is_cash)?, sum(&|it| !is_cash(it))?);
    let (step, mode) = (location.cash_step, location.cash_mode);
    if total == 0 {
        return if payments.is_empty() {
            Ok(Settlement::default())
        } else {
            Err(Refusal::field("/tenders", "tenders_do_not_add_up", "nothing is owed, so no money moves"))
        };
    }
    if total > 0 {
        positive(payments)?;
        let settled = settle(total, cash, other, step, mode).map_err(|problem| match problem {
            TenderProblem::Short { missing_minor } => short(missing_minor),
            TenderProblem::Overflow => overflow(),
        })?;
        return Ok(Settlement {
            rounding_minor: settled.rounding_minor,
            change_minor: settled.change_minor,
            diverted_minor: 0,
        });
    }
    negative(payments, origins)?;
    let cash = payments.iter().any(|it| is_cash(&it)).then_some(cash);
    let rounding_minor = pay_out(total, cash, other, step, mode).map_err(|problem| match problem {
        PayOutProblem::Short { missing_minor } => short(missing_minor),
        PayOutProblem::Over { excess_minor } => {
            let message = format!("the tenders are {excess_minor} more than is owed");
            Refusal::field("/tenders", "tenders_do_not_add_up", message)
        }
        PayOutProblem::Overflow => overflow(),
    })?;
    let diverted_minor = diverted(payments, order, total.saturating_sub(other).saturating_neg());
    Ok(Settlement { rounding_minor, change_minor: 0, diverted_minor })
}

fn short(missing_minor: i64) -> Refusal {
    Refusal::field("/tenders", "tenders_do_not_add_up", format!("the tenders are {missing_minor} short"))
}

fn positive(payments: &[Payment]) -> Result<(), Refusal> {
    for (index, payment) in payments.iter().enumerate() {
        let at = |field: &str| format!("/tenders/{index}/{field}");
        if payment.amount_minor <= 0 {
            return Err(Refusal::field(&at("amount_minor"), "invalid_value", "the customer pays here: above 0"));
        }
        if payment.origin.is_some() {
            return Err(Refusal::field(&at("origin"), "invalid_value", "belongs to money that is paid out"));
        }
    }
    Ok(())
}

/// Signs are right, tenders that are named belong to the documents that come back, and none gets more than it holds.
fn negative(payments: &[Payment], origins: &Origins) -> Result<(), Refusal> {
    let mut given: Vec<(TenderRef, i64)> = Vec::new();
    for (index, payment) in payments.iter().enumerate() {
        let at = |field: &str| format!("/tenders/{index}/{field}");
        let is_cash = payment.kind == TenderKind::Cash;
        // Rounding may leave nothing of what is owed in cash; everything else is some money.
        if payment.amount_minor > 0 || (payment.amount_minor == 0 && !is_cash) {
            return Err(Refusal::field(&at("amount_minor"), "invalid_value", "money is paid out here: below 0"));
        }
        let Some(origin) = payment.origin else { continue };
        let Some(held) = origins.held.iter().find(|held| held.at == origin) else {
            return Err(Refusal::field(
                &at("origin"),
                "invalid_value",
                "no such tender, other than cash, paid for these goods",
            ));
        };
        if held.kind != payment.kind.as_str() {
            return Err(Refusal::field(&at("kind"), "invalid_value", format!("that tender is {}", held.kind)));
        }
        if held.liability_account_id.is_some() {
            return Err(Refusal::field(&at("origin"), "invalid_value", "money does not go back to this account here"));
        }
        let so_far = match given.iter_mut().find(|(to, _)| *to == origin) {
            Some((_, so_far)) => {
                *so_far = so_far.saturating_sub(payment.amount_minor);
                *so_far
            }
            None => {
                given.push((origin, payment.amount_minor.saturating_neg()));
                payment.amount_minor.saturating_neg()
            }
        };
        if so_far > held.amount_minor {
            let message = format!("that tender paid {}", held.amount_minor);
            return Err(Refusal::field(&at("amount_minor"), "quantity_exceeds_document", message));
        }
        if so_far > held.held_minor {
            let refusal = Refusal::conflict("already_refunded", format!("that tender holds {}", held.held_minor));
            return Err(refusal.at(&at("amount_minor")).with("left", held.held_minor.into()));
        }
    }
    Ok(())
}

/// What the tenders of the order, and cash, get less than the order gives them: as much goes elsewhere.
fn diverted(payments: &[Payment], order: &Order, cash_due: i64) -> i64 {
    let given = |to: TenderRef| {
        let amounts = payments.iter().filter(|it| it.origin == Some(to)).map(|it| it.amount_minor.saturating_neg());
        amounts.fold(0i64, i64::saturating_add)
    };
    let missing = order.shares.iter().map(|share| share.amount_minor.saturating_sub(given(share.to)).max(0));
    missing.fold(order.cash_minor.saturating_sub(cash_due).max(0), i64::saturating_add)
}

/// The tender that a payment goes back to.
pub fn held_of<'a>(origins: &'a Origins, payment: &Payment) -> Option<&'a Held> {
    let origin = payment.origin?;
    origins.held.iter().find(|held| held.at == origin)
}

/// Ids of documents, each once, in the order in which they appear.
pub fn each_once(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let mut seen = Vec::new();
    for id in ids {
        if !seen.contains(&id) {
            seen.push(id);
        }
    }
    seen
}
