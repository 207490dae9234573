//! The error body of the public API (RFC 9457) and the one catalogue of codes. A code is a promise to
//! clients: what it means and whether to try again never changes.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

macro_rules! codes {
    ($($variant:ident = $code:literal, $status:literal, $retryable:literal, $title:literal;)*) => {
        /// Every code a client can meet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $title] $variant),* }

        impl Code {
            /// All of them, for the OpenAPI document and its test.
            pub const ALL: &[Code] = &[$(Code::$variant),*];

            /// The stable word clients compare.
            pub const fn code(self) -> &'static str { match self { $(Code::$variant => $code),* } }
            /// The HTTP status.
            pub const fn status(self) -> u16 { match self { $(Code::$variant => $status),* } }
            /// Whether the same request may succeed later without being changed.
            pub const fn retryable(self) -> bool { match self { $(Code::$variant => $retryable),* } }
            /// One sentence for people, always the same.
            pub const fn title(self) -> &'static str { match self { $(Code::$variant => $title),* } }
        }
    };
}

codes! {
    Malformed = "malformed", 400, false, "The request cannot be read.";
    IdempotencyKeyRequired = "idempotency_key_required", 400, false, "This request needs an Idempotency-Key header.";
    IdempotencyKeyInvalid = "idempotency_key_invalid", 400, false, "The Idempotency-Key header is not usable.";
    Unauthenticated = "unauthenticated", 401, false, "A valid access token is required.";
    SecondFactorRequired = "second_factor_required", 401, false, "This log-in needs a code of the second factor too.";
    Forbidden = "forbidden", 403, false, "This is not permitted.";
    ApprovalRequired = "approval_required", 403, false, "This needs the approval of another person.";
    ApprovalInvalid = "approval_invalid", 403, false, "The approval is not good for this act.";
    ReauthRequired = "reauth_required", 403, false, "This needs a fresh log-in.";
    NotFound = "not_found", 404, false, "There is no such object.";
    MethodNotAllowed = "method_not_allowed", 405, false, "This method is not supported here.";
    NotAcceptable = "not_acceptable", 406, false, "The answer cannot be given in the wanted form.";
    RequestTimeout = "request_timeout", 408, true, "The request did not arrive in time.";
    InProgress = "in_progress", 409, true, "The same request is still being handled.";
    InsufficientStock = "insufficient_stock", 409, false, "There is not enough stock.";
    InsufficientPoints = "insufficient_points", 409, false, "There are not enough points.";
    SequenceReuse = "sequence_reuse", 409, false, "The terminal sequence number was used by another document.";
    IdConflict = "id_conflict", 409, false, "The identifier belongs to something else.";
    ReceiptConflict = "receipt_conflict", 409, false, "The receipt number was used by another document.";
    AlreadyRefunded = "already_refunded", 409, false, "Nothing is left to refund.";
    OverReceipt = "over_receipt", 409, false, "More was received than is on its way.";
    IllegalTransition = "illegal_transition", 409, false, "The object is in a state that does not allow this.";
    NotRooted = "not_rooted", 409, false, "The proof exists once the business day is closed.";
    CouponUsed = "coupon_used", 409, false, "The coupon was used before.";
    ApprovalUsed = "approval_used", 409, false, "The approval was used before.";
    SessionOpen = "session_open", 409, false, "A session is still open.";
    AlreadyExists = "already_exists", 409, false, "An object with this name or number exists already.";
    CursorExpired = "cursor_expired", 410, false, "The cursor is from before a restore: begin again.";
    LinkExpired = "link_expired", 410, false, "The link has expired.";
    Erased = "erased", 410, false, "The personal data has been erased.";
    StaleVersion = "stale_version", 412, false, "The object has changed since it was read.";
    PayloadTooLarge = "payload_too_large", 413, false, "The request body is too large.";
    UriTooLong = "uri_too_long", 414, false, "The address is too long.";
    UnsupportedMediaType = "unsupported_media_type", 415, false, "The body must be application/json.";
    InvalidValue = "invalid_value", 422, false, "A value is not allowed.";
    UnknownField = "unknown_field", 422, false, "A field is not known here.";
    UnknownLocation = "unknown_location", 422, false, "There is no such location.";
    InactiveLocation = "inactive_location", 422, false, "The location does not sell any more.";
    BeforeOpening = "before_opening", 422, false, "The time lies before the location's opening date.";
    UnknownCashier = "unknown_cashier", 422, false, "There is no such cashier.";
    UnknownCustomer = "unknown_customer", 422, false, "There is no such customer.";
    CustomerRequired = "customer_required", 422, false, "The customer has to be named.";
    UnknownProgram = "unknown_program", 422, false, "There is no such loyalty program.";
    NotRedeemable = "not_redeemable", 422, false, "Points of this program cannot be spent.";
    RedemptionExceedsBase = "redemption_exceeds_base", 422, false, "The points are worth more than the lines.";
    UnknownVariant = "unknown_variant", 422, false, "There is no such variant.";
    InactiveVariant = "inactive_variant", 422, false, "The variant is not sold any more.";
    FractionalPiece = "fractional_piece", 422, false, "The variant is sold by the piece.";
    NoPrice = "no_price", 422, false, "The variant has no price there at that time.";
    NoTaxRate = "no_tax_rate", 422, false, "The variant has no tax rate at that time.";
    WrongCurrency = "wrong_currency", 422, false, "The location sells in another currency.";
    UnknownCoupon = "unknown_coupon", 422, false, "No such coupon.";
    CouponExpired = "coupon_expired", 422, false, "The coupon has expired.";
    CouponOfOtherMember = "coupon_of_other_member", 422, false, "The coupon is another member's.";
    DiscountExceedsOrder = "discount_exceeds_order", 422, false, "The discount is more than the order is worth.";
    DiscountExceedsLine = "discount_exceeds_line", 422, false, "The discount is more than the line is worth.";
    Overflow = "overflow", 422, false, "An amount or quantity is out of range.";
    TendersDoNotAddUp = "tenders_do_not_add_up", 422, false, "The tenders do not cover the total.";
    TotalMismatch = "total_mismatch", 422, false, "The total differs from the computed one.";
    QuantityExceedsDocument = "quantity_exceeds_document", 422, false, "More than the document holds.";
    IdempotencyKeyReuse = "idempotency_key_reuse", 422, false, "The Idempotency-Key was used with another body.";
    CardDataRefused = "card_data_refused", 422, false, "Card data must never be sent here.";
    PreconditionRequired = "precondition_required", 428, false, "This request needs an If-Match header.";
    RateLimited = "rate_limited", 429, true, "Too many requests.";
    Locked = "locked", 429, true, "Too many failed attempts: locked for a while.";
    HeadersTooLarge = "headers_too_large", 431, false, "The request headers are too large.";
    Internal = "internal", 500, true, "A mistake of ours; it has been recorded.";
    Unavailable = "unavailable", 503, true, "Not available at the moment.";
    StorageFull = "storage_full", 503, true, "Storage is full.";
    Overloaded = "overloaded", 503, true, "Too much to do at the moment.";
}

/// One finding about one place in the request body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// JSON Pointer into the body, for example `/lines/0/qty`.
    pub pointer: String,
    pub code: String,
    pub message: String,
}

/// The error body. Nothing internal belongs in it: no SQL, no source error.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    pub type_uri: String,
    pub title: &'static str,
    pub status: u16,
    pub detail: String,
    pub code: &'static str,
    pub retryable: bool,
    pub request_id: String,
    pub errors: Vec<Finding>,
    /// Further members of this code (the quote of `total_mismatch`, `next_seq`, ...).
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// Becomes the `Retry-After` header.
    #[serde(skip)]
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with the catalogue's texts; `detail` says what this time was wrong, for people.
    /// Statuses 429 and 503 get a `Retry-After` of one second unless told otherwise.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem {
            type_uri: format!("urn:vorca:problem:{}", code.code()),
            title: code.title(),
            status: code.status(),
            detail: detail.into(),
            code: code.code(),
            retryable: code.retryable(),
            request_id: String::new(),
            errors: Vec::new(),
            extra: serde_json::Map::new(),
            retry_after_s: (code.retryable() && code.status() != 500).then_some(1),
        }
    }

    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = request_id.into();
        self
    }

    pub fn with_errors(mut self, errors: Vec<Finding>) -> Self {
        self.errors = errors;
        self
    }

    pub fn with_extra(mut self, name: &str, value: serde_json::Value) -> Self {
        self.extra.insert(name.to_owned(), value);
        self
    }

    pub fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after_s.map(HeaderValue::from);
        let mut response = (status, axum::Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_catalogue_is_consistent() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.code()), "{} twice", code.code());
            assert!(StatusCode::from_u16(code.status()).is_ok_and(|s| s.is_client_error() || s.is_server_error()));
            // What tills repeat by themselves: 408, 409 in_progress, 429, 5xx. Nothing else.
            let repeated = matches!(code.status(), 408 | 429 | 500 | 503) || *code == Code::InProgress;
            assert_eq!(code.retryable(), repeated, "{}", code.code());
        }
        assert_eq!(Code::ALL.iter().filter(|c| c.status() == 500).count(), 1);
    }

    #[test]
    fn the_body_has_every_member_and_nothing_else() {
        let finding = Finding { pointer: "/lines/0/qty".into(), code: "invalid_value".into(), message: "0".into() };
        let problem =
            Problem::new(Code::InvalidValue, "a quantity is 0").with_request_id("r-1").with_errors(vec![finding]);
        let body = serde_json::to_value(&problem).unwrap();
        let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["type", "title", "status", "detail", "code", "retryable", "request_id", "errors"]);
        assert_eq!(body["errors"][0]["pointer"], "/lines/0/qty");
        let body = serde_json::to_value(problem.with_extra("quote", serde_json::json!({"total_minor": 5}))).unwrap();
        assert_eq!(body["quote"]["total_minor"], 5);
    }

    #[test]
    fn refusals_for_load_say_when_to_come_back() {
        let response = Problem::new(Code::Unavailable, "no connection").with_retry_after(7).into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(Problem::new(Code::Malformed, "").into_response().headers().get("retry-after").is_none());
        assert!(Problem::new(Code::Unauthenticated, "").into_response().headers().contains_key("www-authenticate"));
    }
}
