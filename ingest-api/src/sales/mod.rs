//! The path of a sale: parsed (`types`, `check`), priced (`price`), decided in its lane (`decide`), answered.

pub mod acts;
pub mod check;
pub mod coupons;
pub mod decide;
pub mod events;
pub mod explain;
pub mod hash;
pub mod known;
pub mod price;
pub mod redemption;
pub mod refusal;
pub mod response;
pub mod routes;
pub mod types;
