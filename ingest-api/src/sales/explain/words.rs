//! Steps of a price as a shopkeeper says them.

use std::collections::HashMap;

use schemas::money::{Currency, QTY_SCALE};

use super::{Stored, StoredLine, TraceStep, fraction};

/// What the words need to know of the document.
pub struct Words<'a> {
    stored: &'a Stored,
    lines: HashMap<i32, &'a StoredLine>,
}

impl<'a> Words<'a> {
    pub fn new(stored: &'a Stored) -> Self {
        Words { stored, lines: stored.lines.iter().map(|line| (line.line_no, line)).collect() }
    }

    /// One line's part of a step, which is of a line that exists.
    pub fn step(&self, line_no: i32, step: &TraceStep, share: i64) -> String {
        let Some(line) = self.lines.get(&line_no) else { return String::new() };
        let text = match step.rule.as_str() {
            "price" => format!("{} x {}", self.qty(line), self.money(line.unit_price_minor)),
            "overridden_price" => format!(
                "{} x {}, a price set by hand ({}) instead of {}",
                self.qty(line),
                self.money(line.unit_price_minor),
                line.override_reason.as_deref().unwrap_or("no reason"),
                self.money(line.list_price_minor)
            ),
            "imported_amount" => format!("{} for the amount in the books of before", self.qty(line)),
            "discount_percent" | "discount_amount" => format!("less {}", self.named(line, step, "discount")),
            "promotion" => format!("less {}", self.named(line, step, "promotion")),
            "order_discount_percent" | "order_discount_amount" => {
                format!("less {}", self.named(line, step, "discount on the order"))
            }
            "redemption" => "less what points paid for".to_owned(),
            "tax_contained" => format!("contains {}", self.contained(line)),
            "tax_added" => format!("plus {}", self.added(line, step)),
            other => other.to_owned(),
        };
        format!("{text}: {}{}", self.money(share), self.how(step, share))
    }

    /// Where the part of a line comes from when it is not the whole, and what rounding did.
    fn how(&self, step: &TraceStep, share: i64) -> String {
        let mut parts = Vec::new();
        if step.line == 0 {
            parts.push(format!("its part of {} on {}", self.money(step.result), self.money(step.base)));
        } else if step.rule != "price" && step.rule != "overridden_price" && step.rule != "imported_amount" {
            parts.push(format!("on {}", self.money(step.base)));
        }
        let whole = fraction(&step.exact).filter(|(_, den)| *den != 1);
        if let Some((num, den)) = whole {
            let mode = step.mode.replace('_', " ");
            parts.push(format!("{} exactly, rounded {mode}", self.exact(num, den)));
        }
        debug_assert!(step.line == 0 || share == step.result);
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
    }

    /// A discount by its name.
    fn named(&self, line: &StoredLine, step: &TraceStep, what: &str) -> String {
        let is_of_step = |kind: &str, id| match step.rule.as_str() {
            "promotion" => kind == "promotion" && step.id == Some(id),
            rule => {
                rule.ends_with(&format!("discount_{}", kind.trim_start_matches("order_")))
                    && kind.starts_with("order_") == rule.starts_with("order_")
            }
        };
        let name = line.discounts.iter().find(|it| is_of_step(&it.kind, it.discount_id)).map(|it| it.name.as_str());
        match name {
            Some(name) => format!("the {what} {name}"),
            None => format!("a {what}"),
        }
    }

    fn contained(&self, line: &StoredLine) -> String {
        let names: Vec<String> =
            line.taxes.iter().filter(|tax| tax.inclusive).map(|tax| rate(&tax.name, &tax.rate)).collect();
        if names.is_empty() { "tax".to_owned() } else { names.join(" and ") }
    }

    fn added(&self, line: &StoredLine, step: &TraceStep) -> String {
        let tax = line.taxes.iter().find(|tax| step.id == Some(tax.tax_id));
        tax.map_or_else(|| "tax".to_owned(), |tax| rate(&tax.name, &tax.rate))
    }

    /// The sum of the lines.
    pub fn total(&self) -> String {
        let parts: Vec<String> = self.stored.lines.iter().map(|line| self.money(line.payable_minor)).collect();
        format!("{} = {} {}", parts.join(" + "), self.money(self.stored.total_minor), self.stored.currency)
    }

    fn money(&self, amount: i64) -> String {
        self.stored.currency.text(amount)
    }

    fn qty(&self, line: &StoredLine) -> String {
        if line.is_measured {
            return format!("{} {}", decimal(line.qty.into(), QTY_SCALE.into(), 3), line.unit);
        }
        (line.qty / QTY_SCALE).to_string()
    }

    /// An exact amount with four places more than the currency has, cut off.
    fn exact(&self, num: i128, den: i128) -> String {
        let exponent = Currency::exponent(&self.stored.currency);
        match den.checked_mul(10_i128.pow(exponent)) {
            Some(den) => decimal(num, den, exponent + 4),
            None => "more".to_owned(),
        }
    }
}

fn rate(name: &str, rate: &str) -> String {
    let percent =
        rate.parse::<rust_decimal::Decimal>().map(|rate| (rate * rust_decimal::Decimal::ONE_HUNDRED).normalize());
    percent.map_or_else(|_| name.to_owned(), |percent| format!("{percent} % {name}"))
}

/// `num / den` with so many places at most, cut off, without zeros at its end.
fn decimal(num: i128, den: i128, places: u32) -> String {
    let (sign, num) = (if num < 0 { "-" } else { "" }, num.unsigned_abs());
    let den = den.unsigned_abs().max(1);
    let (whole, mut rest) = (num / den, num % den);
    let mut digits = String::new();
    for _ in 0..places {
        // Below 10 * den, which fits wherever den * 10 does.
        rest = rest.saturating_mul(10);
        digits.push(char::from(b'0' + u8::try_from(rest / den).unwrap_or(9).min(9)));
        rest %= den;
    }
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{digits}") }
}
