//! Pure: every cent of a stored document, computed again from its price trace, in words.
//!
//! Each step of the trace is rounded again from its exact value and handed out again to its lines; the lines and the header
//! that follow from the steps are compared with what is stored. A step that does not hold, or a stored figure that no step
//! gives, is named.

#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use schemas::money::{self, Currency, RoundingMode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use words::Words;

/// One step as it is stored, see `pricing/trace.rs`.
#[derive(Debug, Clone, Deserialize)]
pub struct TraceStep {
    pub line: i32,
    pub rule: String,
    pub id: Option<Uuid>,
    pub base: i64,
    pub exact: String,
    pub mode: String,
    pub result: i64,
    #[serde(default)]
    pub shares: Vec<(i32, i64)>,
}

/// A line as it is stored.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct StoredLine {
    pub line_no: i32,
    pub name: String,
    pub qty: i64,
    pub unit: String,
    pub is_measured: bool,
    pub list_price_minor: i64,
    pub unit_price_minor: i64,
    pub override_reason: Option<String>,
    pub extended_minor: i64,
    #[sqlx(json)]
    pub discounts: Vec<StoredDiscount>,
    pub discount_minor: i64,
    pub redemption_minor: i64,
    #[sqlx(json)]
    pub taxes: Vec<StoredTax>,
    pub tax_minor: i64,
    pub added_tax_minor: i64,
    pub payable_minor: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StoredDiscount {
    pub discount_id: Uuid,
    pub kind: String,
    pub name: String,
    pub amount_minor: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StoredTax {
    pub tax_id: Uuid,
    pub name: String,
    pub rate: String,
    pub inclusive: bool,
    pub amount_minor: i64,
}

/// A document as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub sale_id: Uuid,
    pub currency: Currency,
    pub total_minor: i64,
    pub tax_minor: i64,
    pub discount_minor: i64,
    pub lines: Vec<StoredLine>,
    pub trace: Vec<TraceStep>,
}

/// Every cent of a document.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    pub sale_id: Uuid,
    pub currency: String,
    pub lines: Vec<LineExplanation>,
    pub total_minor: i64,
    /// The sum in words.
    pub total: String,
    /// Whether the trace gives every stored figure.
    pub agrees: bool,
    /// What it does not give, or does not hold.
    pub differences: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LineExplanation {
    pub line_no: i32,
    pub name: String,
    pub steps: Vec<StepExplanation>,
    pub payable_minor: i64,
}

/// One step in words, and what it adds to the line or takes off it; a contained tax adds nothing.
#[derive(Debug, Serialize, ToSchema)]
pub struct StepExplanation {
    /// As in the trace.
    pub rule: String,
    pub text: String,
    pub amount_minor: i64,
}

/// A line as the steps give it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Computed {
    extended: i128,
    discount: i128,
    redemption: i128,
    contained: i128,
    added: i128,
}

impl Computed {
    fn payable(&self) -> i128 {
        self.extended - self.discount - self.redemption + self.added
    }
}

/// Computes the document again.
pub fn explain(stored: &Stored) -> Explanation {
    let words = Words::new(stored);
    let mut differences = Vec::new();
    let mut computed: BTreeMap<i32, Computed> =
        stored.lines.iter().map(|line| (line.line_no, <_>::default())).collect();
    let mut told: BTreeMap<i32, Vec<StepExplanation>> = BTreeMap::new();
    for (index, step) in stored.trace.iter().enumerate() {
        if let Some(wrong) = wrong(step) {
            differences.push(format!("step {} ({}): {wrong}", index + 1, step.rule));
        }
        for (line_no, share) in portions(step) {
            let Some(line) = computed.get_mut(&line_no) else {
                differences.push(format!("step {} names line {line_no}, which does not exist", index + 1));
                continue;
            };
            let Some(amount) = book(line, step, share) else {
                differences.push(format!("step {} has the unknown rule {}", index + 1, step.rule));
                continue;
            };
            let text = words.step(line_no, step, share);
            let amount_minor = i64::try_from(amount).unwrap_or(i64::MAX);
            told.entry(line_no).or_default().push(StepExplanation { rule: step.rule.clone(), text, amount_minor });
        }
    }
    compare(stored, &computed, &mut differences);
    let lines = stored.lines.iter().map(|line| LineExplanation {
        line_no: line.line_no,
        name: line.name.clone(),
        steps: told.remove(&line.line_no).unwrap_or_default(),
        payable_minor: line.payable_minor,
    });
    Explanation {
        sale_id: stored.sale_id,
        currency: stored.currency.to_string(),
        lines: lines.collect(),
        total_minor: stored.total_minor,
        total: words.total(),
        agrees: differences.is_empty(),
        differences,
    }
}

/// What a step gives to each line.
fn portions(step: &TraceStep) -> Vec<(i32, i64)> {
    if step.line == 0 { step.shares.clone() } else { vec![(step.line, step.result)] }
}

/// Why a step does not hold: its one rounding, or the sum of its shares.
fn wrong(step: &TraceStep) -> Option<String> {
    let exact = fraction(&step.exact);
    let Some(((num, den), mode)) = exact.zip(step.mode.parse::<RoundingMode>().ok()) else {
        return Some("its exact value or its rounding mode cannot be read".to_owned());
    };
    match money::round(num, den, mode) {
        Ok(result) if result != step.result => {
            Some(format!("{} rounds to {result}, not to {}", step.exact, step.result))
        }
        Ok(_)
            if step.line == 0
                && portions(step).iter().map(|(_, share)| i128::from(*share)).sum::<i128>() != step.result.into() =>
        {
            Some("its shares do not add up to it".to_owned())
        }
        Ok(_) => None,
        Err(_) => Some("its exact value is out of range".to_owned()),
    }
}

/// `num/den`, or a whole number.
fn fraction(text: &str) -> Option<(i128, i128)> {
    let (num, den) = text.split_once('/').unwrap_or((text, "1"));
    let (num, den) = (num.parse().ok()?, den.parse().ok()?);
    (den > 0).then_some((num, den))
}

/// Books a portion; the amount that it adds to what is to pay. None for a rule that is not known.
fn book(line: &mut Computed, step: &TraceStep, share: i64) -> Option<i128> {
    let share = i128::from(share);
    match step.rule.as_str() {
        "price" | "overridden_price" | "imported_amount" => {
            line.extended += share;
            Some(share)
        }
        "discount_percent" | "discount_amount" | "promotion" | "order_discount_percent" | "order_discount_amount" => {
            line.discount += share;
            Some(-share)
        }
        "redemption" => {
            line.redemption += share;
            Some(-share)
        }
        "tax_contained" => {
            line.contained += share;
            Some(0)
        }
        "tax_added" => {
            line.added += share;
            Some(share)
        }
        _ => None,
    }
}

/// Names every stored figure that the steps do not give.
fn compare(stored: &Stored, computed: &BTreeMap<i32, Computed>, differences: &mut Vec<String>) {
    let mut note = |what: String, computed: i128, stored: i64| {
        if computed != i128::from(stored) {
            differences.push(format!("{what}: the trace gives {computed}, stored is {stored}"));
        }
    };
    let mut sum = Computed::default();
    for line in &stored.lines {
        let Some(own) = computed.get(&line.line_no) else { continue };
        let name = |figure: &str| format!("line {}, {figure}", line.line_no);
        note(name("extended"), own.extended, line.extended_minor);
        note(name("discount"), own.discount, line.discount_minor);
        note(name("redemption"), own.redemption, line.redemption_minor);
        note(name("tax"), own.contained + own.added, line.tax_minor);
        note(name("added tax"), own.added, line.added_tax_minor);
        note(name("payable"), own.payable(), line.payable_minor);
        let discounts = line.discounts.iter().map(|discount| i128::from(discount.amount_minor)).sum();
        note(name("sum of discounts"), discounts, line.discount_minor);
        let taxes = line.taxes.iter().map(|tax| i128::from(tax.amount_minor)).sum();
        note(name("sum of taxes"), taxes, line.tax_minor);
        sum.extended += own.extended;
        sum.discount += own.discount;
        sum.redemption += own.redemption;
        sum.contained += own.contained;
        sum.added += own.added;
    }
    note("total".to_owned(), sum.payable(), stored.total_minor);
    note("tax".to_owned(), sum.contained + sum.added, stored.tax_minor);
    note("discount".to_owned(), sum.discount + sum.redemption, stored.discount_minor);
}
