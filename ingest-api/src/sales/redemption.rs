//! Pure: the points of a sale: those that its member spends, then those that it earns, each an entry of an account with
//! the lots it changes (rule T6). Both stand in one document; the accounts are locked.

use chrono::{DateTime, Utc};
use schemas::ids::{AccountId, CustomerId, LotId, ProgramId, derived_id};
use schemas::money::storable;
use uuid::Uuid;

use super::known::{Account, Known};
use super::price::PricedSale;
use super::refusal::Refusal;
use super::response::Redeemable;
use super::types::ValidSale;
use crate::loyalty::accrual::earn;
use crate::loyalty::lots::{self, Lot, LotDelta};
use crate::loyalty::program::Program;
use crate::pricing::Priced;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    Accrual,
    Redemption,
}

impl EntryKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::Accrual => "accrual",
            EntryKind::Redemption => "redemption",
        }
    }
}

/// One change of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: EntryKind,
    pub account_id: AccountId,
    pub customer_id: CustomerId,
    pub program_id: ProgramId,
    pub version: i64,
    pub delta: i64,
    pub points_after: i64,
    pub lots: Vec<LotDelta>,
    /// Nothing but one new lot: nearly every entry, written with the sales.
    pub is_plain: bool,
}

/// Accounts whose lots have to be read before these sales can be decided: of members who spend points, and those in debt,
/// which their next points pay. Nothing for nearly every batch.
pub fn wanted<'a>(known: &Known, sales: impl Iterator<Item = &'a ValidSale>) -> Vec<Uuid> {
    let mut wanted = Vec::new();
    for sale in sales {
        let Some(accounts) = sale.customer_id.and_then(|customer| known.accounts.get(&customer)) else { continue };
        let spends = |account: &Account| {
            sale.cart.redemption.is_some_and(|redemption| redemption.program_id == account.program_id)
        };
        let of_interest = accounts.iter().filter(|account| spends(account) || account.points < 0);
        wanted.extend(of_interest.map(|account| account.account_id.0));
    }
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// The lots that the sale's redemption burns, or 409 with what is available. Points count as of now, or of a till whose
/// clock runs ahead.
pub fn check(known: &Known, sale: &ValidSale) -> Result<Vec<LotDelta>, Refusal> {
    let Some(redemption) = sale.cart.redemption else { return Ok(Vec::new()) };
    let accounts = sale.customer_id.and_then(|customer| known.accounts.get(&customer));
    let account = accounts.into_iter().flatten().find(|account| account.program_id == redemption.program_id);
    let held = account.and_then(|account| known.lots.get(&account.account_id)).map_or(&[][..], Vec::as_slice);
    lots::redeem(held, redemption.points, sale.cart.occurred_at.max(known.recorded_at)).map_err(|available| {
        let detail = format!("{} points are wanted, {available} are available", redemption.points);
        let refusal = Refusal::conflict("insufficient_points", detail).at("/redemption/points");
        refusal.with("points_available", available.into())
    })
}

/// Posts what the sale spends and what it earns: the net of its lines, without tax, in each program. Programs that give
/// nothing write nothing.
pub fn post(known: &mut Known, sale: &ValidSale, priced: &PricedSale, burned: Vec<LotDelta>) -> Vec<Entry> {
    let Some(customer_id) = sale.customer_id else { return Vec::new() };
    let base = priced.priced.total_minor - priced.priced.tax_minor;
    let Known { accounts, lots: held, .. } = known;
    let mut entries = Vec::new();
    for account in accounts.get_mut(&customer_id).map_or(&mut [][..], Vec::as_mut_slice) {
        let mut lots = held.get_mut(&account.account_id);
        if !burned.is_empty() && sale.cart.redemption.is_some_and(|it| it.program_id == account.program_id) {
            entries.extend(entry(
                account,
                customer_id,
                sale,
                EntryKind::Redemption,
                burned.clone(),
                lots.as_deref_mut(),
            ));
        }
        let Some(program) = priced.priced.programs.get(&account.program_id) else { continue };
        let points = earn(base, program.rule);
        if points > 0 {
            let new = lot(sale, program, points);
            let deltas = lots::accrue(lots.as_deref().map_or(&[][..], Vec::as_slice), new);
            entries.extend(entry(account, customer_id, sale, EntryKind::Accrual, deltas, lots));
        }
    }
    entries
}

/// What a member could spend on a priced cart in each program whose points can be spent.
pub fn redeemable(
    priced: &Priced,
    balances: &[(AccountId, ProgramId, Vec<Lot>)],
    at: DateTime<Utc>,
) -> Vec<Redeemable> {
    let base = priced.lines.iter().map(|line| line.extended_minor - line.discount_minor).sum();
    let one = |(_, program_id, lots): &(AccountId, ProgramId, Vec<Lot>)| {
        let worth = priced.programs.get(program_id)?.worth?;
        let points_available = lots::available(lots, at);
        let (points_max, amount_max_minor) = worth.most(points_available, base);
        Some(Redeemable {
            program_id: program_id.0,
            redeem_points: worth.points,
            redeem_minor: worth.minor,
            points_available,
            points_max,
            amount_max_minor,
        })
    };
    balances.iter().filter_map(one).collect()
}

/// The lot of the sale.
fn lot(sale: &ValidSale, program: &Program, points: i64) -> Lot {
    let earned_at = sale.cart.occurred_at;
    Lot {
        lot_id: LotId(derived_id("lot", &format!("{}:{}", sale.document_id, program.program_id))),
        cause_id: sale.document_id.0,
        earned_at,
        available_at: program.available_at(earned_at),
        expires_at: program.expires_at(earned_at),
        points,
        remaining: points,
    }
}

/// The next entry of an account, which it changes; none where the balance would leave the range that every store holds.
fn entry(
    account: &mut Account,
    customer_id: CustomerId,
    sale: &ValidSale,
    kind: EntryKind,
    deltas: Vec<LotDelta>,
    lots: Option<&mut Vec<Lot>>,
) -> Option<Entry> {
    let delta = lots::sum(&deltas);
    account.points = account.points.checked_add(delta).filter(|points| storable(*points).is_ok())?;
    account.version += 1;
    account.is_changed = true;
    let is_plain = kind == EntryKind::Accrual && lots.is_none();
    if let Some(lots) = lots {
        lots::apply(lots, &deltas, sale.document_id.0);
    }
    Some(Entry {
        kind,
        account_id: account.account_id,
        customer_id,
        program_id: account.program_id,
        version: account.version,
        delta,
        points_after: account.points,
        lots: deltas,
        is_plain,
    })
}
