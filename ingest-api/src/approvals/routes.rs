//! `POST /approvals`: somebody approves with their own token or, at a till, with a PIN inside the device.

use std::fmt;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use runtime::pg::PgTx;
use schemas::ids::LocationId;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AUDIENCE, Approval, ApprovedAct, LIFETIME_SECONDS, TYPE, may_approve};
use crate::access::{Access, Permission, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::attempts::Locked;
use crate::auth::pin::{PinSignIn, Proof, Shown};
use crate::auth::principals;
use crate::checks::{AMOUNT_MAX, Checks};
use crate::context::Context;
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, Valid};
use crate::limits::Extent;
use crate::sales::hash::hex;
use crate::sales::refusal::Refusal;

/// SHA-256 of a document. Read as an identifier is: digits in it are nobody's card number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Hex;
        impl Visitor<'_> for Hex {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("64 digits of lower-case hex")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Digest, E> {
                read_hex(text).ok_or_else(|| E::invalid_value(Unexpected::Other("another text"), &self))
            }
        }
        reader.deserialize_str(Hex)
    }
}

fn read_hex(text: &str) -> Option<Digest> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let pairs = (is_hex && text.len() == 64).then(|| text.as_bytes().chunks_exact(2))?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Digest(bytes))
}

/// What is to be approved: the member `approval` of an `approval_required` problem, as it is.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApproval {
    pub location_id: Uuid,
    /// Who makes the document.
    pub requester: Uuid,
    /// SHA-256 of the document without its approval, lower-case hex.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    pub digest: Digest,
    pub currency: String,
    pub acts: Vec<ApprovedAct>,
    /// At a till, and only there: the approver's code and PIN, signed by the device as for `POST /auth/pin`.
    pub approver: Option<PinSignIn>,
}

impl Body for NewApproval {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.currency("/currency", &self.currency);
        checks.rows("/acts", self.acts.len(), Permission::ACTS.len());
        for (i, it) in self.acts.iter().enumerate() {
            checks.that(it.act.is_act(), format_args!("/acts/{i}/act"), "is no act that approvals are for");
            let is_first = self.acts.iter().position(|other| other.act == it.act) == Some(i);
            checks.that(is_first, format_args!("/acts/{i}/act"), "stands twice");
            checks.range(format_args!("/acts/{i}/ceiling_minor"), it.ceiling_minor.unwrap_or(0), 0..=AMOUNT_MAX);
        }
        if let Some(approver) = &mut self.approver {
            approver.check(checks);
        }
    }
}

/// An approval as it is handed out.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedApproval {
    pub approval_id: Uuid,
    /// Goes into the member `approval` of the document.
    pub approval: String,
    pub location_id: Uuid,
    pub requester: Uuid,
    pub approver: Uuid,
    pub digest: String,
    pub currency: String,
    pub acts: Vec<ApprovedAct>,
    pub issued_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

struct Input {
    app: AppState,
    access: Access,
    context: Context,
    new: NewApproval,
    shown: Option<Shown>,
    now: DateTime<Utc>,
}

/// What has left its traces (a counted failure, an audit row) is an outcome, not an error: it has to be committed.
enum Outcome {
    Issued(Box<IssuedApproval>),
    MayNot(String),
    Wrong,
    Locked(Locked),
}

/// `POST /approvals`. At a till a wrong PIN, an unknown code, somebody of another location and a signature that is not the
/// device's are 401, whichever it is; five of them lock the PIN.
pub async fn create_approval(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(mut new): Valid<NewApproval>,
) -> Result<Response, ApiError> {
    access.require_named(LocationId(new.location_id))?;
    let shown = match (access.principal.terminal(), new.approver.take()) {
        (Some(_), Some(pin)) => Some(Shown::compare(&app, &access, pin).await?),
        (None, None) => None,
        (Some(_), None) => return Err(ApiError::invalid_value("/approver", "a till sends the PIN of who approves")),
        (None, Some(_)) => return Err(ApiError::invalid_value("/approver", "for tills only: who asks approves")),
    };
    let now = Utc::now();
    let input = Input { app: app.clone(), access, context, new, shown, now };
    match app.writer.write(input, |tx, input| Box::pin(approve(tx, input))).await? {
        Outcome::Issued(issued) => json_response(StatusCode::CREATED, &issued),
        Outcome::MayNot(note) => Err(Refusal::denied("forbidden", "you may not approve this").audited(note).into()),
        Outcome::Wrong => Err(ApiError::unauthenticated()),
        Outcome::Locked(locked) => Err(locked.problem(now)),
    }
}

async fn approve(tx: &mut PgTx, input: &Input) -> Result<Outcome, ApiError> {
    let Input { access, context, new, shown, .. } = input;
    let location = LocationId(new.location_id);
    let approver = match shown {
        None => principals::user(tx, access.require_user()?.0).await?.ok_or_else(ApiError::unauthenticated)?,
        Some(shown) => {
            let entry = Entry::done(&access.principal, "auth.pin", shown.target()).at(location);
            // Whoever is nobody at this location learns nothing of their PIN here.
            let is_of_here = |principal: &Principal| !principal.granted(location).is_empty();
            match shown.prove(tx, context, entry, is_of_here).await? {
                Proof::Given(given) => given.1,
                Proof::Wrong => return Ok(Outcome::Wrong),
                Proof::Locked(locked) => return Ok(Outcome::Locked(locked)),
            }
        }
    };
    let granted = approver.granted(location);
    // What share of a line it is, is judged when the approval is spent.
    let extent = |it: &ApprovedAct| Extent {
        currency: new.currency.clone(),
        amount_minor: it.ceiling_minor,
        share_ppm: Some(0),
    };
    let may = new.acts.iter().all(|it| may_approve(&granted, it.act, &extent(it)));
    let by = approver.actor().0;
    if by == new.requester || !may {
        let why = if may { "nobody approves acts of their own" } else { "beyond what they may do themselves" };
        return Ok(Outcome::MayNot(format!("approval by user/{by} of {}: {why}", described(new))));
    }
    let issued = issue(input, by)?;
    let reason = described(new);
    let mut entry = Entry::done(&approver, "approval.issue", format!("approval/{}", issued.approval_id)).at(location);
    entry.terminal = access.principal.terminal().map(|(terminal, _)| terminal.0);
    audit::record(tx, context, entry.because(&reason).states(None, &issued.digest)).await?;
    Ok(Outcome::Issued(Box::new(issued)))
}

fn issue(input: &Input, approver: Uuid) -> Result<IssuedApproval, ApiError> {
    let Input { app, new, now, .. } = input;
    let approval_id = Uuid::now_v7();
    let approval = Approval {
        iss: app.auth.tokens.issuer().to_owned(),
        aud: AUDIENCE.to_owned(),
        jti: approval_id,
        sub: new.requester,
        approver,
        location_id: new.location_id,
        digest: hex(&new.digest.0),
        currency: new.currency.clone(),
        acts: new.acts.clone(),
        iat: now.timestamp(),
        nbf: now.timestamp(),
        exp: now.timestamp() + LIFETIME_SECONDS,
    };
    let issued_at = DateTime::from_timestamp(approval.iat, 0).unwrap_or(*now);
    Ok(IssuedApproval {
        approval_id,
        approval: app.auth.tokens.sign_as(TYPE, &approval).map_err(ApiError::internal)?,
        location_id: approval.location_id,
        requester: approval.sub,
        approver,
        digest: approval.digest,
        currency: approval.currency,
        acts: approval.acts,
        issued_at,
        expires_at: issued_at + TimeDelta::seconds(LIFETIME_SECONDS),
    })
}

/// For the audit row.
fn described(new: &NewApproval) -> String {
    let amount = |it: &ApprovedAct| it.ceiling_minor.map_or("any amount".to_owned(), |minor| minor.to_string());
    let acts: Vec<String> =
        new.acts.iter().map(|it| format!("{} up to {} {}", it.act.name(), amount(it), new.currency)).collect();
    format!("{} for user/{}, document {}", acts.join(" and "), new.requester, hex(&new.digest.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_one_spelling() {
        let text = hex(&[0xa7; 32]);
        assert_eq!(read_hex(&text), Some(Digest([0xa7; 32])));
        for bad in ["", "a7", &text.to_uppercase(), &format!("{text}0"), &text.replace('a', "g"), &"\u{e9}".repeat(32)]
        {
            assert_eq!(read_hex(bad), None, "{bad}");
        }
    }
}
