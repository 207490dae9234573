//! The only arithmetic on amounts: money in minor units, quantities in thousandths, `round` and `alloc`.
