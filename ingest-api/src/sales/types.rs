//! The wire form of a sale and of a quote, and the valid types they are parsed into.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::ids::{CustomerId, DocumentId, LocationId, TerminalId, UserId, VariantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::approvals::Presented;
use crate::pricing::redemption::Redemption;
use crate::pricing::{Cart, CartLine, Discount, Override};

/// A sale as the till sends it. Every figure is computed again by the server; `total_minor` must agree.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSale {
    /// UUIDv7 made by the till before the first send.
    pub sale_id: Uuid,
    pub location_id: Uuid,
    /// Gapless number of this terminal's documents, from 1.
    pub terminal_seq: i64,
    pub receipt: Receipt,
    pub cashier_id: Uuid,
    pub customer_id: Option<Uuid>,
    /// The lease under which the cashier was signed in at the till; what it allowed holds for the sale, although it may have
    /// expired or been revoked meanwhile (flag `stale_lease`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<Uuid>,
    /// When the goods were sold, by the till's clock: prices and taxes of that instant apply.
    pub occurred_at: DateTime<Utc>,
    /// When this request left the till; no part of the document.
    pub sent_at: Option<DateTime<Utc>>,
    pub currency: String,
    pub lines: Vec<NewLine>,
    /// On what promotions leave of all lines together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_discount: Option<NewDiscount>,
    /// Codes of coupons; upper or lower case, with or without spaces and dashes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coupons: Vec<String>,
    pub tenders: Vec<NewTender>,
    /// Points of the member that pay for a part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redemption: Option<NewRedemption>,
    pub total_minor: i64,
    /// Somebody else's approval of what goes beyond the cashier's limits (`POST /approvals`); no part of the document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
}

/// Receipt identity given by the device: numbers run from 1 in each series epoch of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    pub series_epoch: i32,
    pub number: i64,
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLine {
    pub line_no: i32,
    pub variant_id: Uuid,
    /// Thousandths: 1000 is one piece.
    pub qty: i64,
    pub discount: Option<NewDiscount>,
    #[serde(rename = "override")]
    pub override_: Option<NewOverride>,
}

/// Exactly one of `percent` and `amount_minor`, as `kind` says.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDiscount {
    pub kind: DiscountKind,
    /// Decimal as text, 0 to 100, at most four places.
    pub percent: Option<String>,
    pub amount_minor: Option<i64>,
    /// A code of the company's own: 1 to 40 of `a-z`, `0-9`, `_`, `-`. It is published, so no text of people.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$")]
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiscountKind {
    Percent,
    Amount,
}

/// Exactly one of `unit_price_minor` and `amount_minor`; the latter only with reason `imported`.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOverride {
    pub unit_price_minor: Option<i64>,
    pub amount_minor: Option<i64>,
    /// A code, as for a discount.
    #[schema(pattern = "^[a-z0-9_-]{1,40}$")]
    pub reason: String,
}

/// Points that the member spends; they are worth what the program says, in whole minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRedemption {
    pub program_id: Uuid,
    pub points: i64,
}

#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTender {
    pub kind: TenderKind,
    /// Cash: what the customer gave; change is computed.
    pub amount_minor: i64,
    pub card: Option<Card>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TenderKind {
    Cash,
    Card,
    Other,
}

impl TenderKind {
    pub fn as_str(self) -> &'static str {
        match self {
            TenderKind::Cash => "cash",
            TenderKind::Card => "card",
            TenderKind::Other => "other",
        }
    }
}

/// What may be known of a card: never its number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Reference of the payment service; no card number in any spelling.
    pub token: String,
    pub brand: String,
    /// Four digits.
    pub last_four: String,
    /// `MM/YY`.
    pub expiry: String,
}

/// A cart to be priced without selling it.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewQuote {
    pub location_id: Uuid,
    pub cashier_id: Option<Uuid>,
    pub customer_id: Option<Uuid>,
    /// Now when absent.
    pub occurred_at: Option<DateTime<Utc>>,
    /// The location's when absent.
    pub currency: Option<String>,
    pub lines: Vec<NewLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_discount: Option<NewDiscount>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coupons: Vec<String>,
    pub redemption: Option<NewRedemption>,
}

/// A sale whose every value is in range; whether it may be sold is decided in its lane.
#[derive(Debug, Clone)]
pub struct ValidSale {
    pub document_id: DocumentId,
    pub terminal_id: TerminalId,
    pub terminal_seq: i64,
    pub receipt: Receipt,
    pub cashier_id: UserId,
    pub customer_id: Option<CustomerId>,
    pub lease_id: Option<Uuid>,
    pub sent_at: Option<DateTime<Utc>>,
    pub cart: Cart,
    pub tenders: Vec<Tender>,
    pub total_minor: i64,
    /// SHA-256 of the canonical document: what makes two sends the same document.
    pub content_hash: [u8; 32],
    /// What came with it as an approval; not part of the document.
    pub presented: Presented,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tender {
    pub kind: TenderKind,
    pub amount_minor: i64,
    pub card: Option<Card>,
}

impl ValidSale {
    pub fn location_id(&self) -> LocationId {
        self.cart.location_id
    }

    /// Cash given and everything else, in minor units.
    pub fn tendered(&self) -> (i64, i64) {
        let amount = |is_cash: bool| {
            let amounts = self.tenders.iter().filter(|tender| (tender.kind == TenderKind::Cash) == is_cash);
            amounts.map(|tender| tender.amount_minor).fold(0i64, i64::saturating_add)
        };
        (amount(true), amount(false))
    }

    /// Whether a line has an amount of its own: history that is brought in, not an act at a till.
    pub fn is_import(&self) -> bool {
        self.cart.lines.iter().any(CartLine::is_imported)
    }
}

impl From<NewRedemption> for Redemption {
    fn from(given: NewRedemption) -> Self {
        Redemption { program_id: given.program_id.into(), points: given.points }
    }
}

/// A line as pricing takes it; its values have been checked.
pub(crate) fn cart_line(line: &NewLine) -> CartLine {
    CartLine {
        line_no: line.line_no,
        variant_id: VariantId(line.variant_id),
        qty: line.qty,
        discount: line.discount.as_ref().and_then(discount),
        override_: line.override_.as_ref().and_then(|given| {
            let reason = given.reason.clone();
            match (given.unit_price_minor, given.amount_minor) {
                (Some(unit_price_minor), _) => Some(Override::UnitPrice { unit_price_minor, reason }),
                (None, Some(amount_minor)) => Some(Override::LineAmount { amount_minor, reason }),
                (None, None) => None,
            }
        }),
    }
}

/// A discount as pricing takes it; its values have been checked.
pub(super) fn discount(given: &NewDiscount) -> Option<Discount> {
    let reason = given.reason.clone();
    match given.kind {
        DiscountKind::Percent => {
            let percent: Decimal = given.percent.as_deref()?.parse().ok()?;
            Some(Discount::Percent { percent: percent.normalize(), reason })
        }
        DiscountKind::Amount => given.amount_minor.map(|amount_minor| Discount::Amount { amount_minor, reason }),
    }
}
