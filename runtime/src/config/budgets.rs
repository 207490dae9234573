//! How much callers may ask for.

use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

const REQUESTS_MAX: u32 = 1_000_000;
const SECONDS_MAX: u32 = 86_400;

/// So many requests in so many seconds, written `3000/300`. They may come all at once; they are given back evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    requests: u32,
    seconds: u32,
}

impl Quota {
    /// None unless there are 1 to 1,000,000 requests in 1 to 86,400 seconds.
    pub const fn new(requests: u32, seconds: u32) -> Option<Quota> {
        let is_usable = requests > 0 && requests <= REQUESTS_MAX && seconds > 0 && seconds <= SECONDS_MAX;
        if is_usable { Some(Quota { requests, seconds }) } else { None }
    }
    pub fn requests(self) -> u32 {
        self.requests
    }
    pub fn seconds(self) -> u32 {
        self.seconds
    }
}

/// No quota: not two whole numbers with a slash between them, or out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoQuota;

impl FromStr for Quota {
    type Err = NoQuota;
    fn from_str(text: &str) -> Result<Self, NoQuota> {
        let (requests, seconds) = text.split_once('/').ok_or(NoQuota)?;
        let number = |text: &str| text.trim().parse().map_err(|_| NoQuota);
        Quota::new(number(requests)?, number(seconds)?).ok_or(NoQuota)
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let text = String::deserialize(reader)?;
        text.parse().map_err(|_| {
            D::Error::custom(format!(
                "expected requests/seconds, for instance 3000/300: 1 to {REQUESTS_MAX} in 1 to {SECONDS_MAX}"
            ))
        })
    }
}

/// Quotas of the public API, each counted for every caller apart.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default)]
pub struct Quotas {
    /// Of one till.
    pub till: Quota,
    /// Of one caller for what may take its time: bulk routes, and requests that say `Priority: u=7`.
    pub replay: Quota,
    /// Of one API client.
    pub integrator: Quota,
    /// Of one user.
    pub office: Quota,
    /// Log-ins and password resets from one address; and of one account, from wherever.
    pub sign_in: Quota,
    /// Everything else that needs no token, from one address: tokens of tills and API clients, refreshes, enrolments.
    pub public: Quota,
}

impl Default for Quotas {
    fn default() -> Self {
        const fn quota(requests: u32, seconds: u32) -> Quota {
            match Quota::new(requests, seconds) {
                Some(quota) => quota,
                None => panic!("no quota"),
            }
        }
        Quotas {
            till: const { quota(3_000, 300) },
            replay: const { quota(3_000, 60) },
            integrator: const { quota(1_200, 60) },
            office: const { quota(1_200, 60) },
            sign_in: const { quota(30, 60) },
            public: const { quota(1_200, 60) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_two_numbers_within_bounds() {
        let quota = |text: &str| text.parse::<Quota>().map(|quota| (quota.requests(), quota.seconds()));
        assert_eq!(quota("3000/300"), Ok((3_000, 300)));
        assert_eq!(quota(" 1 / 86400 "), Ok((1, 86_400)));
        for bad in ["", "/", "5", "5/", "/5", "0/5", "5/0", "-1/5", "1.5/5", "1000001/5", "5/86401", "5/5/5", "5/m"] {
            assert_eq!(quota(bad), Err(NoQuota), "{bad}");
        }
    }
}
