//! Approvals: somebody else's signed word that one document may go beyond the limits of whoever makes it.
//!
//! An approval is a token of ours (EdDSA JWS, `typ` `approval+jwt`), good for five minutes, for one document (by its
//! digest), one requester, one location, and once. It is not stored when it is given; spending it is a unique row in the
//! transaction of the act. [`settle`] is pure and the same for every act: sales, adjustments, later refunds and voids.

pub mod routes;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use schemas::ids::LocationId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Granted, Permission};
use crate::auth::tokens::Tokens;
use crate::limits::{Extent, Rule, Verdict, judge};
use crate::sales::hash::hex;
use crate::sales::refusal::Refusal;

/// How long an approval can be spent.
pub const LIFETIME_SECONDS: i64 = 300;
/// Longest approval in a body.
pub const TOKEN_CHARS_MAX: usize = 2_048;
const TYPE: &str = "approval+jwt";
const AUDIENCE: &str = "vorca-approval";

/// An act that is approved, and up to which amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovedAct {
    pub act: Permission,
    /// Minor units of the approval's currency; null: whatever it is worth.
    pub ceiling_minor: Option<i64>,
}

/// What an approval says. The names of RFC 7519 where there are any: `sub` asks, `jti` is the approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub iss: String,
    pub aud: String,
    pub jti: Uuid,
    pub sub: Uuid,
    pub approver: Uuid,
    pub location_id: Uuid,
    /// Of the document, lower-case hex.
    pub digest: String,
    pub currency: String,
    pub acts: Vec<ApprovedAct>,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
}

/// What came with a request in the place of an approval.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Presented {
    #[default]
    Nothing,
    /// A text that we did not sign.
    Forged,
    Signed(Box<Approval>),
}

impl Presented {
    /// What this text is. Whether it is good for the document is for [`settle`] to say.
    pub fn read(tokens: &Tokens, text: Option<&str>) -> Presented {
        let Some(text) = text else { return Presented::Nothing };
        tokens.open_as(TYPE, AUDIENCE, text).map_or(Presented::Forged, |approval| Presented::Signed(Box::new(approval)))
    }
    pub fn signed(&self) -> Option<&Approval> {
        match self {
            Presented::Signed(approval) => Some(approval),
            Presented::Nothing | Presented::Forged => None,
        }
    }
}

/// One kind of act in a document, to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub act: Permission,
    pub extent: Extent,
    /// Of everything that lets the requester do it.
    pub rules: Vec<Rule>,
    /// Documents with this act that the requester has made on the business day.
    pub used: i64,
    /// Made where nobody could be asked and within the limits that were known there: it happened, whatever the count.
    pub is_fact: bool,
}

/// How an act came to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Allowed,
    Approved,
    OverLimit,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Allowed => "allowed",
            Standing::Approved => "approved",
            Standing::OverLimit => "over_limit",
        }
    }
}

/// An act that may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub asked: Asked,
    pub standing: Standing,
}

impl Settled {
    /// Number of this act among those of the requester's day.
    pub fn ordinal(&self) -> i64 {
        self.asked.used + 1
    }
}

/// The approver as Postgres knows them now: what they are granted at the location, nothing when they are not active.
pub type Approver<'a> = &'a [Granted];

/// A document with acts in it.
pub struct Case<'a> {
    pub requester: Uuid,
    pub location: LocationId,
    pub currency: &'a str,
    pub digest: &'a [u8; 32],
    pub now: DateTime<Utc>,
    pub presented: &'a Presented,
    pub approver: Approver<'a>,
    pub is_spent: bool,
}

/// Whether a role lets its holder approve this.
pub fn may_approve(granted: &[Granted], act: Permission, extent: &Extent) -> bool {
    let rules: Vec<Rule> = granted.iter().map(|it| it.rule(act)).collect();
    granted.iter().any(|it| it.holds(Permission::ApproveActs)) && judge(&rules, 0, extent) == Verdict::Allowed
}

/// Judges every act of a document: all of them may be done, with the approval where one needs it, or none.
pub fn settle(case: &Case<'_>, asked: Vec<Asked>) -> Result<Vec<Settled>, Refusal> {
    let verdict = |it: &Asked| judge(&it.rules, it.used, &it.extent);
    if let Some(denied) = asked.iter().find(|it| verdict(it) == Verdict::Denied) {
        let refusal = Refusal::forbidden("", "the roles of this person do not permit such an act at this location");
        return Err(refusal.audited(note(case, std::slice::from_ref(denied))));
    }
    let beyond: Vec<Asked> =
        asked.iter().filter(|it| verdict(it) == Verdict::NeedsApproval && !it.is_fact).cloned().collect();
    if !beyond.is_empty() {
        spend(case, &beyond)?;
    }
    let standing = |it: &Asked| match verdict(it) {
        Verdict::Allowed => Standing::Allowed,
        _ if it.is_fact => Standing::OverLimit,
        _ => Standing::Approved,
    };
    Ok(asked.into_iter().map(|asked| Settled { standing: standing(&asked), asked }).collect())
}

/// Whether what was presented is good for these acts.
fn spend(case: &Case<'_>, beyond: &[Asked]) -> Result<(), Refusal> {
    let approval = match case.presented {
        Presented::Nothing => return Err(required(case, beyond)),
        Presented::Forged => return Err(invalid(case, beyond, "this is no approval of this platform")),
        Presented::Signed(approval) => approval,
    };
    if case.is_spent {
        let refusal = Refusal::conflict("approval_used", "this approval has been spent: ask for another one");
        return Err(refusal.audited(note(case, beyond)));
    }
    let flaw = if approval.location_id != case.location.0 {
        Some("the approval is for another location")
    } else if approval.sub != case.requester {
        Some("the approval is for another person")
    } else if approval.approver == case.requester {
        Some("nobody approves acts of their own")
    } else if approval.digest != hex(case.digest) {
        Some("the approval is for another document")
    } else if approval.exp <= case.now.timestamp() {
        Some("the approval has expired")
    } else {
        beyond.iter().find_map(|it| uncovered(case, approval, it))
    };
    flaw.map_or(Ok(()), |flaw| Err(invalid(case, beyond, flaw)))
}

/// Why an approval does not cover an act, if it does not.
fn uncovered(case: &Case<'_>, approval: &Approval, asked: &Asked) -> Option<&'static str> {
    let Some(approved) = approval.acts.iter().find(|it| it.act == asked.act) else {
        return Some("the approval is for another act");
    };
    let is_enough = match (approved.ceiling_minor, asked.extent.amount_minor) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(ceiling), Some(amount)) => approval.currency == asked.extent.currency && amount <= ceiling,
    };
    if !is_enough {
        return Some("the ceiling of the approval is too low");
    }
    let may = may_approve(case.approver, asked.act, &asked.extent);
    (!may).then_some("whoever approved this may not do so any more")
}

/// 403 with the body that `POST /approvals` takes, so that a till has nothing to compute.
fn required(case: &Case<'_>, beyond: &[Asked]) -> Refusal {
    let acts: Vec<ApprovedAct> =
        beyond.iter().map(|it| ApprovedAct { act: it.act, ceiling_minor: it.extent.amount_minor }).collect();
    let names: Vec<String> = beyond.iter().map(|it| it.act.name()).collect();
    let detail = format!("{} beyond the limit: somebody else has to approve it", names.join(" and "));
    let approval = json!({
        "location_id": case.location.0,
        "requester": case.requester,
        "digest": hex(case.digest),
        "currency": case.currency,
        "acts": acts,
    });
    Refusal::denied("approval_required", detail).with("approval", approval).audited(note(case, beyond))
}

fn invalid(case: &Case<'_>, beyond: &[Asked], flaw: &'static str) -> Refusal {
    Refusal::denied("approval_invalid", flaw).at("/approval").audited(note(case, beyond))
}

/// For the audit row of a refusal: acts, amounts and limits, by whom.
fn note(case: &Case<'_>, acts: &[Asked]) -> String {
    let one = |it: &Asked| {
        let amount = it.extent.amount_minor.map_or("an unknown amount".to_owned(), |minor| minor.to_string());
        let rules: Vec<String> = it.rules.iter().map(limit_text).collect();
        let limits = if rules.is_empty() { "none may".to_owned() } else { rules.join(" or ") };
        format!("{} of {amount} {}, number {} of the day, limit: {limits}", it.act.name(), case.currency, it.used + 1)
    };
    format!("user/{}: {}", case.requester, acts.iter().map(one).collect::<Vec<_>>().join("; "))
}

fn limit_text(rule: &Rule) -> String {
    // A rule is numbers and codes only.
    serde_json::to_string(rule).unwrap_or_default()
}
