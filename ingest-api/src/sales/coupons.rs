//! Pure: coupons of a cart, and promotions whose budget or uses are counted: what of them holds for a sale, and what is left
//! for the sales after it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::refusal::Refusal;
use crate::pricing::promotions::{Given, Usage};
use crate::pricing::{Cart, Terms};

/// A coupon as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Coupon {
    pub code: String,
    pub promotion_id: Uuid,
    pub uses_max: i64,
    pub uses: i64,
    /// Whose it is; None: whoever shows it.
    pub customer_id: Option<Uuid>,
    pub expires_at: Option<DateTime<Utc>>,
    pub is_active: bool,
}

/// What is known of the coupons and counted promotions that carts name.
#[derive(Debug, Clone, Default)]
pub struct Promoted {
    pub coupons: HashMap<String, Coupon>,
    pub usage: HashMap<Uuid, Usage>,
}

impl Promoted {
    /// What pricing needs to know for `cart`, or which of its coupons does not hold.
    pub fn terms(&self, cart: &Cart) -> Result<Terms, Refusal> {
        let mut coupons = HashMap::with_capacity(cart.coupons.len());
        for (index, code) in cart.coupons.iter().enumerate() {
            let pointer = format!("/coupons/{index}");
            let coupon = self.coupons.get(code).filter(|coupon| coupon.is_active);
            let Some(coupon) = coupon else {
                return Err(Refusal::field(&pointer, "unknown_coupon", "no such coupon"));
            };
            if coupon.expires_at.is_some_and(|end| end <= cart.occurred_at) {
                return Err(Refusal::field(&pointer, "coupon_expired", "the coupon has expired"));
            }
            let customer = cart.customer_id.map(Into::into);
            if coupon.customer_id.is_some() && coupon.customer_id != customer {
                return Err(Refusal::field(&pointer, "coupon_of_other_member", "the coupon is another member's"));
            }
            if coupon.uses >= coupon.uses_max {
                return Err(Refusal::conflict("coupon_used", "the coupon has been used").at(&pointer));
            }
            if coupons.insert(coupon.promotion_id, code.clone()).is_some() {
                let message = "another coupon of the cart opens the same promotion";
                return Err(Refusal::field(&pointer, "invalid_value", message));
            }
        }
        Ok(Terms { coupons, usage: self.usage.clone() })
    }

    /// Counts what a sale was given, for the sales after it.
    pub fn count(&mut self, given: &[Given]) {
        for given in given.iter().filter(|given| given.is_counted || given.coupon.is_some()) {
            let used = self.usage.entry(given.promotion_id).or_default();
            used.given_minor = used.given_minor.saturating_add(given.amount_minor);
            used.uses += 1;
            if let Some(coupon) = given.coupon.as_ref().and_then(|code| self.coupons.get_mut(code)) {
                coupon.uses += 1;
            }
        }
    }
}
