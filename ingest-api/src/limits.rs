//! Pure: how far somebody may go. A rule says whether a permission is allowed, needs an approval or is denied, and up to
//! where; the same rules, serialised, are in a till's lease, so server and till judge alike.
//!
//! A new act (refund, void, ...) is one line in [`Permission::ACTS`] and one call of [`Limits::judge`].

use chrono::NaiveDate;
use schemas::money::Currency;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::access::Permission;

#[cfg(test)]
mod tests;

/// Form of [`Limits`] as they are in leases.
pub const VERSION: i32 = 1;
/// Millionths of a percent point.
const PPM_PER_PERCENT: i64 = 10_000;
const PPM: i128 = 1_000_000;

/// Whether a role may use a permission; the later, the more it permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Deny,
    /// Each time with the approval of somebody else.
    Approval,
    Allow,
}

/// Most of one currency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// ISO 4217.
    pub currency: String,
    pub amount_minor: i64,
}

/// What a role may do of one permission. Limits are for acts that are allowed: what exceeds one of them needs an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub permission: Permission,
    pub mode: Mode,
    /// Largest part of what the act is about, in whole percent: of a line's price for discounts and overrides. It means
    /// the same in every currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent_max: Option<i64>,
    /// Largest amount of one document, currency by currency; a currency that is missing has the ceiling 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceilings: Option<Vec<Ceiling>>,
    /// Largest amount of one document in whole units of its currency, whichever that is: 50 are 50.00 EUR, 50 JPY and
    /// 50.000 KWD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units_max: Option<i64>,
    /// Documents with such an act per person, location and business day, over all devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_shift: Option<i64>,
}

/// How far an act goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    pub currency: String,
    /// None: not known, so above every ceiling.
    pub amount_minor: Option<i64>,
    /// Millionths of what it is about, rounded up; None where there is nothing to compare with.
    pub share_ppm: Option<i64>,
}

/// The answer of a judgement; the later, the more it permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Denied,
    NeedsApproval,
    Allowed,
}

impl Rule {
    /// Without limits.
    pub fn new(permission: Permission, mode: Mode) -> Self {
        Rule { permission, mode, percent_max: None, ceilings: None, units_max: None, per_shift: None }
    }
    /// Whether it allows any extent, any number of times.
    pub fn is_unlimited(&self) -> bool {
        *self == Rule::new(self.permission, Mode::Allow)
    }
    /// What it says of one more act after `used` others of the day.
    pub fn judge(&self, used: i64, extent: &Extent) -> Verdict {
        match self.mode {
            Mode::Deny => Verdict::Denied,
            Mode::Approval => Verdict::NeedsApproval,
            Mode::Allow if self.allows(extent) && self.per_shift.is_none_or(|most| used < most) => Verdict::Allowed,
            Mode::Allow => Verdict::NeedsApproval,
        }
    }
    fn allows(&self, extent: &Extent) -> bool {
        let is_within = |most: i64, is: Option<i64>| is.is_some_and(|is| is <= most);
        let percent =
            self.percent_max.is_none_or(|most| is_within(most.saturating_mul(PPM_PER_PERCENT), extent.share_ppm));
        let ceiling =
            self.ceilings.as_ref().is_none_or(|all| is_within(ceiling(all, &extent.currency), extent.amount_minor));
        let units = self.units_max.is_none_or(|most| is_within(in_minor(most, &extent.currency), extent.amount_minor));
        percent && ceiling && units
    }
    /// Whether whoever holds this rule holds the other one too: nothing that it permits is beyond this one.
    pub fn covers(&self, other: &Rule) -> bool {
        let is_wider = |mine: Option<i64>, its: Option<i64>| match (mine, its) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(its)) => its <= mine,
        };
        let ceilings = match (&self.ceilings, &other.ceilings) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(its)) => its.iter().all(|it| it.amount_minor <= ceiling(mine, &it.currency)),
        };
        match other.mode {
            Mode::Deny => true,
            Mode::Approval => self.mode >= Mode::Approval,
            Mode::Allow => {
                self.mode == Mode::Allow
                    && is_wider(self.percent_max, other.percent_max)
                    && is_wider(self.units_max, other.units_max)
                    && is_wider(self.per_shift, other.per_shift)
                    && ceilings
            }
        }
    }
}

fn ceiling(all: &[Ceiling], currency: &str) -> i64 {
    all.iter().find(|it| it.currency == currency).map_or(0, |it| it.amount_minor)
}

/// Whole units of a currency in its minor units.
fn in_minor(units: i64, currency: &str) -> i64 {
    let exponent = currency.parse::<Currency>().map_or(2, |currency| currency.exponent());
    units.saturating_mul(10_i64.saturating_pow(exponent))
}

/// The most permitting of several rules wins: roles add up.
pub fn judge(rules: &[Rule], used: i64, extent: &Extent) -> Verdict {
    rules.iter().map(|rule| rule.judge(used, extent)).max().unwrap_or(Verdict::Denied)
}

/// `part` of `whole` in millionths, rounded up, so that a limit is never exceeded by rounding.
pub fn share_ppm(part: i128, whole: i128) -> i64 {
    match (part.max(0), whole) {
        (0, _) => 0,
        (_, ..=0) => i64::MAX,
        (part, whole) => i64::try_from((part * PPM + whole - 1) / whole).unwrap_or(i64::MAX),
    }
}

/// What somebody may do of one act, and what they did of it today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActLimits {
    pub act: Permission,
    /// One of each role that is granted; the most permitting one wins.
    #[serde(deserialize_with = "known")]
    pub rules: Vec<Rule>,
    /// Documents with this act on the business day, counted over all devices when this was made.
    pub used: i64,
}

/// All that somebody may do at a location on a business day: a till without the server judges by it as the server does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    /// 1.
    pub version: i32,
    /// `used` is of this day; on another one it is 0.
    pub business_date: NaiveDate,
    #[serde(deserialize_with = "known")]
    pub acts: Vec<ActLimits>,
}

/// What was stored by a newer version may name acts that this one does not know, and does not permit.
pub fn known<'de, D: Deserializer<'de>, T: DeserializeOwned>(reader: D) -> Result<Vec<T>, D::Error> {
    let all = Vec::<serde_json::Value>::deserialize(reader)?;
    Ok(all.into_iter().filter_map(|it| serde_json::from_value(it).ok()).collect())
}

impl Limits {
    /// What these limits say of one more such act on their day.
    pub fn judge(&self, act: Permission, extent: &Extent) -> Verdict {
        let found = self.acts.iter().find(|it| it.act == act);
        found.map_or(Verdict::Denied, |it| judge(&it.rules, it.used, extent))
    }
    /// The rules for an act.
    pub fn rules(&self, act: Permission) -> &[Rule] {
        self.acts.iter().find(|it| it.act == act).map_or(&[], |it| it.rules.as_slice())
    }
    /// The same limits on another business day, on which nothing has been done yet.
    pub fn on(mut self, business_date: NaiveDate) -> Self {
        if business_date != self.business_date {
            self.business_date = business_date;
            self.acts.iter_mut().for_each(|it| it.used = 0);
        }
        self
    }
}
