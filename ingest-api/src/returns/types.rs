//! The wire forms of refunds, exchanges and voids, and the one valid type they are parsed into.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::sales::types::{Card, NewLine, Receipt, TenderKind, ValidSale};

/// What every document of a till begins with.
macro_rules! document {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// UUIDv7 made by the till before the first send.
            pub document_id: Uuid,
            pub location_id: Uuid,
            /// Gapless number of this terminal's documents, from 1.
            pub terminal_seq: i64,
            pub receipt: Receipt,
            pub cashier_id: Uuid,
            /// The lease under which the cashier was signed in at the till.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub lease_id: Option<Uuid>,
            /// When it happened, by the till's clock.
            pub occurred_at: DateTime<Utc>,
            /// When this request left the till; no part of the document.
            pub sent_at: Option<DateTime<Utc>>,
            pub currency: String,
            /// A code of the company's own: 1 to 40 of `a-z`, `0-9`, `_`, `-`. It is published, so no text of people.
            #[schema(pattern = "^[a-z0-9_-]{1,40}$")]
            pub reason: String,
            /// Somebody else's approval of what goes beyond the cashier's limits (`POST /approvals`); no part of the document.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub approval: Option<String>,
            $($(#[$of])* pub $field: $type,)*
        }

        impl $name {
            pub(super) fn head(&mut self) -> Head {
                Head {
                    document_id: self.document_id,
                    location_id: self.location_id,
                    terminal_seq: self.terminal_seq,
                    receipt: self.receipt,
                    cashier_id: self.cashier_id,
                    lease_id: self.lease_id,
                    occurred_at: self.occurred_at,
                    sent_at: self.sent_at,
                    currency: std::mem::take(&mut self.currency),
                    reason: std::mem::take(&mut self.reason),
                    approval: self.approval.take(),
                }
            }
        }
    };
}

/// The common part of the three.
pub(super) struct Head {
    pub document_id: Uuid,
    pub location_id: Uuid,
    pub terminal_seq: i64,
    pub receipt: Receipt,
    pub cashier_id: Uuid,
    pub lease_id: Option<Uuid>,
    pub occurred_at: DateTime<Utc>,
    pub sent_at: Option<DateTime<Utc>>,
    pub currency: String,
    pub reason: String,
    pub approval: Option<String>,
}

document! {
    /// Goods that come back for money. The server computes every figure from what is stored with the sale;
    /// `total_minor` must agree.
    NewRefund {
        /// 1 to 1,000.
        lines: Vec<NewReturnLine>,
        /// What is paid out: amounts are negative. `POST /refunds/preview` says what goes where.
        tenders: Vec<NewPayment>,
        /// What the customer gets, negative, before cash is rounded.
        total_minor: i64,
    }
}

document! {
    /// Goods that come back and goods that go, in one document with one settlement.
    NewExchange {
        /// The member who gets points for what goes; the one who bought what comes back when absent.
        customer_id: Option<Uuid>,
        /// What comes back.
        returns: Vec<NewReturnLine>,
        /// What goes, priced now. Numbers are unique over both.
        lines: Vec<NewLine>,
        /// Positive where the customer pays, negative where money is paid out; none where nothing is owed.
        tenders: Vec<NewPayment>,
        /// The new goods less the returned ones.
        total_minor: i64,
    }
}

document! {
    /// A receipt number under which nothing was sold: no goods, no money.
    NewVoid {}
}

/// Some units of one line of an earlier sale or exchange.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewReturnLine {
    pub line_no: i32,
    /// The sale or exchange that sold the goods, at whatever location.
    pub origin_document_id: Uuid,
    pub origin_line_no: i32,
    /// Thousandths: 1000 is one piece.
    pub qty: i64,
    pub disposition: Disposition,
}

/// What becomes of returned goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// Back into the stock of the location of the act.
    Resellable,
    /// Looked at first; `POST /stock/dispositions` moves them on.
    Inspect,
    Waste,
}

impl Disposition {
    pub fn as_str(self) -> &'static str {
        match self {
            Disposition::Resellable => "resellable",
            Disposition::Inspect => "inspect",
            Disposition::Waste => "waste",
        }
    }
}

/// Money that is taken or, negative, paid out.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    pub kind: TenderKind,
    pub amount_minor: i64,
    pub card: Option<Card>,
    /// The tender that money goes back to; only where it is paid out, and not for cash.
    pub origin: Option<TenderRef>,
}

/// A tender of an earlier document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenderRef {
    pub document_id: Uuid,
    pub tender_no: i32,
}

/// What a refund would be.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRefundPreview {
    pub location_id: Uuid,
    /// Now when absent.
    pub occurred_at: Option<DateTime<Utc>>,
    pub lines: Vec<NewReturnLine>,
}

/// What an exchange would be.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewExchangePreview {
    pub location_id: Uuid,
    pub customer_id: Option<Uuid>,
    /// Now when absent.
    pub occurred_at: Option<DateTime<Utc>>,
    pub returns: Vec<NewReturnLine>,
    pub lines: Vec<NewLine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Refund,
    Exchange,
    Void,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Refund => "refund",
            Kind::Exchange => "exchange",
            Kind::Void => "void",
        }
    }
    /// Route under which its idempotency keys are kept.
    pub fn route(self) -> &'static str {
        match self {
            Kind::Refund => "POST /refunds",
            Kind::Exchange => "POST /exchanges",
            Kind::Void => "POST /voids",
        }
    }
    /// Of the audit row.
    pub fn action(self) -> &'static str {
        match self {
            Kind::Refund => "refund.create",
            Kind::Exchange => "exchange.create",
            Kind::Void => "void.create",
        }
    }
    /// Where the returned lines stand in the body.
    pub fn returns_at(self) -> &'static str {
        match self {
            Kind::Refund | Kind::Void => "/lines",
            Kind::Exchange => "/returns",
        }
    }
    pub fn document_kind(self) -> schemas::events::DocumentKind {
        match self {
            Kind::Refund => schemas::events::DocumentKind::Refund,
            Kind::Exchange => schemas::events::DocumentKind::Exchange,
            Kind::Void => schemas::events::DocumentKind::Void,
        }
    }
}

/// A returned line whose every value is in range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    pub line_no: i32,
    pub origin_document_id: Uuid,
    pub origin_line_no: i32,
    pub qty: i64,
    pub disposition: Disposition,
}

/// Money in or, negative, out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub kind: TenderKind,
    pub amount_minor: i64,
    pub card: Option<Card>,
    pub origin: Option<TenderRef>,
}

/// A refund, exchange or void whose every value is in range.
#[derive(Debug, Clone)]
pub struct ValidReturn {
    pub kind: Kind,
    /// The document as far as it is one like any other, and what it sells. Its tenders are empty: see `payments`.
    pub sale: ValidSale,
    pub reason: String,
    pub returned: Vec<Returned>,
    pub payments: Vec<Payment>,
}
