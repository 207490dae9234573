//! Cashiers at a till: a PIN inside the enrolled device. Signing in online issues a lease, with which the device lets the
//! cashier in again by itself: its verifier is an argon2id hash not of the PIN but of the device's signature over it, so
//! without the key inside the device nobody can even try PINs.

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use runtime::pg::PgTx;
use schemas::ids::{LocationId, TerminalId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Permission, Principal};
use crate::app::AppState;
use crate::audit::{self, Entry};
use crate::auth::attempts::{self, Attempt, Locked, Target};
use crate::auth::{in_charge, principals, step_up};
use crate::checks::{CODE_CHARS_MAX, Checks};
use crate::context::Context;
use crate::db::credentials::{self, Credentials};
use crate::db::{leases as db, limits, sign_in_policy};
use crate::edits::json_response;
use crate::error::ApiError;
use crate::extract::{Body, PathId, Valid};
use crate::limits::{Limits, Mode, Rule};

const PIN_DIGITS_MIN: usize = 4;
const PIN_DIGITS_MAX: usize = 12;
const SIGNATURE_CHARS_MAX: usize = 128;

fn check_pin(checks: &mut Checks, pointer: &str, pin: &str) {
    let is_sized = (PIN_DIGITS_MIN..=PIN_DIGITS_MAX).contains(&pin.len());
    checks.that(is_sized && pin.bytes().all(|byte| byte.is_ascii_digit()), pointer, "must be 4 to 12 digits");
}

/// A new PIN; null takes the present one away.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPin {
    /// 4 to 12 digits: not one digit over and over, and no row of digits up or down.
    pub pin: Option<String>,
}

impl Body for NewPin {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        let Some(pin) = &self.pin else { return };
        check_pin(checks, "/pin", pin);
        let steps: Vec<i16> = pin.as_bytes().windows(2).map(|pair| i16::from(pair[1]) - i16::from(pair[0])).collect();
        let is_row = steps.iter().all(|step| *step == steps[0]) && steps.first().is_some_and(|step| step.abs() <= 1);
        checks.that(!is_row, "/pin", "is among the first that are guessed");
    }
}

/// Whether a user has a PIN.
#[derive(Debug, Serialize, ToSchema)]
pub struct PinSet {
    pub user_id: Uuid,
    pub has_pin: bool,
}

/// `POST /users/{user_id}/pin`: ends the user's leases, which carry the PIN of before.
pub async fn set_pin(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    PathId(user_id): PathId,
    Valid(NewPin { pin }): Valid<NewPin>,
) -> Result<Response, ApiError> {
    let hash = match pin {
        Some(pin) => Some(app.auth.pins.hash(pin).await?),
        None => None,
    };
    let has_pin = hash.is_some();
    app.writer
        .write((access, context, user_id, hash), |tx, (access, context, user_id, hash)| {
            Box::pin(async move {
                in_charge(tx, access, *user_id).await?;
                step_up::require(tx, access).await?;
                credentials::set_pin(tx, *user_id, hash.as_deref(), access.actor().0).await?;
                db::revoke_of_cashier(tx, *user_id, "PIN changed").await?;
                let entry = Entry::done(&access.principal, "user.pin", format!("user/{user_id}"));
                audit::record(tx, context, entry).await?;
                Ok::<_, ApiError>(())
            })
        })
        .await?;
    json_response(StatusCode::OK, &PinSet { user_id, has_pin })
}

/// A cashier at a till. The device signs the text `vorca-pin\n<terminal_id>\n<cashier_code>\n<pin>`.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinSignIn {
    /// The user's code, as on receipts.
    pub cashier_code: String,
    pub pin: String,
    /// Ed25519 with the device key, base64url without padding.
    pub signature: String,
}

impl Body for PinSignIn {
    const BYTES_MAX: usize = 16 << 10;
    fn check(&mut self, checks: &mut Checks) {
        checks.text("/cashier_code", &mut self.cashier_code, CODE_CHARS_MAX);
        check_pin(checks, "/pin", &self.pin);
        checks.that(self.signature.len() <= SIGNATURE_CHARS_MAX, "/signature", "is too long");
    }
}

/// The text that a device signs; offline it signs it again and compares the signature with the lease's verifier.
pub fn signed_text(terminal_id: Uuid, cashier_code: &str, pin: &str) -> String {
    format!("vorca-pin\n{terminal_id}\n{cashier_code}\n{pin}")
}

/// A lease as the device keeps it.
#[derive(Clone, Serialize, ToSchema)]
pub struct IssuedLease {
    pub lease_id: Uuid,
    pub terminal_id: Uuid,
    pub location_id: Uuid,
    pub cashier_id: Uuid,
    pub cashier_code: String,
    /// argon2id of the signature's text (base64url without padding). Five wrong PINs in a row lock the lease on the device.
    pub verifier: String,
    /// What the cashier may do there, as it is now.
    pub permissions: Vec<String>,
    /// How far: the till judges by them, as the server does.
    pub limits: Limits,
    pub issued_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// A PIN as it was shown at a till: compared, not yet judged.
pub struct Shown {
    terminal: (TerminalId, LocationId),
    device_key: Vec<u8>,
    code: String,
    known: Option<Credentials>,
    is_right: bool,
    signature: String,
    now: DateTime<Utc>,
}

/// What a PIN that was shown is worth. All but `Given` has left its traces: a counted failure and an audit row.
pub enum Proof {
    Given(Box<(Credentials, Principal)>),
    Wrong,
    Locked(Locked),
}

impl Shown {
    /// Compares what was typed and signed with what is stored; takes as long whoever it is. Under a lock neither is looked
    /// at: [`Shown::prove`] will say so.
    pub async fn compare(app: &AppState, access: &Access, asked: PinSignIn) -> Result<Shown, ApiError> {
        let (terminal, now) = (access.require_terminal()?, Utc::now());
        let known = credentials::of_code(&app.reads, &asked.cashier_code).await?.filter(|user| user.is_active);
        let device_key = crate::db::terminals::device_key(&app.reads, terminal.0.0).await?;
        let device_key = device_key.ok_or_else(ApiError::unauthenticated)?;
        let text = signed_text(terminal.0.0, &asked.cashier_code, &asked.pin);
        let is_signed = URL_SAFE_NO_PAD.decode(&asked.signature).is_ok_and(|signature| {
            UnparsedPublicKey::new(&ED25519, &device_key).verify(text.as_bytes(), &signature).is_ok()
        });
        let is_locked = attempts::find_lock(&app.reads, &[Target::pin(terminal.0.0, &asked.cashier_code)], now).await?;
        let is_right = match is_locked {
            Some(_) => false,
            None => {
                let stored = known.as_ref().and_then(|user| user.pin_hash.clone());
                app.auth.pins.check(asked.pin, stored).await?.is_right && is_signed
            }
        };
        Ok(Shown { terminal, device_key, code: asked.cashier_code, known, is_right, signature: asked.signature, now })
    }

    /// Judges it in the transaction of what it is for: of somebody who `may` that, on a device that is still the same.
    pub async fn prove(
        &self,
        tx: &mut PgTx,
        context: &Context,
        entry: Entry<'_>,
        may: impl Fn(&Principal) -> bool,
    ) -> Result<Proof, ApiError> {
        let (terminal, cashier) = (self.terminal.0, self.known.as_ref().map(|user| user.user_id).unwrap_or_default());
        let attempt = match Attempt::begin(tx, vec![Target::pin(terminal.0, &self.code)], self.now).await? {
            Ok(attempt) => attempt,
            Err(locked) => {
                audit::record(tx, context, entry.refused().because("locked")).await?;
                return Ok(Proof::Locked(locked));
            }
        };
        let Some(proved) = self.stands(tx, may).await? else {
            if attempt.failed(tx).await? {
                db::revoke_of_terminal(tx, terminal.0, Some(cashier), "PIN guessed at").await?;
            }
            audit::record(tx, context, entry.refused()).await?;
            return Ok(Proof::Wrong);
        };
        attempt.succeeded(tx).await?;
        Ok(Proof::Given(Box::new(proved)))
    }

    /// Who showed a right PIN and `may`, on the device that asked: as it is now, for all of it may have changed since it was
    /// looked at.
    async fn stands(
        &self,
        tx: &mut PgTx,
        may: impl Fn(&Principal) -> bool,
    ) -> Result<Option<(Credentials, Principal)>, ApiError> {
        let Some(known) = self.known.as_ref().filter(|_| self.is_right) else { return Ok(None) };
        let principal = present(tx, known).await?.filter(may);
        let device_key = crate::db::terminals::device_key(&mut **tx, self.terminal.0.0).await?;
        let is_same_device = device_key.as_ref() == Some(&self.device_key);
        Ok(principal.filter(|_| is_same_device).map(|principal| (known.clone(), principal)))
    }

    /// Whose PIN it claims to be, for the audit row.
    pub fn target(&self) -> String {
        format!("user/{}", self.known.as_ref().map(|user| user.user_id).unwrap_or_default())
    }
}

/// A user whose PIN is still the one that was compared.
async fn present(tx: &mut PgTx, known: &Credentials) -> Result<Option<Principal>, ApiError> {
    let present = credentials::lock(tx, known.user_id).await?;
    let is_same = present.is_some_and(|now| now.is_active && now.pin_hash == known.pin_hash);
    Ok(principals::user(tx, known.user_id).await?.filter(|_| is_same))
}

struct Input {
    access: Access,
    context: Context,
    shown: Shown,
}

impl Input {
    fn entry(&self) -> Entry<'static> {
        Entry::done(&self.access.principal, "auth.pin", self.shown.target()).at(self.shown.terminal.1)
    }
    fn may_sell(&self, principal: &Principal) -> bool {
        principal.may(Permission::Sell, self.shown.terminal.1)
    }
}

/// `POST /auth/pin`. A wrong PIN, an unknown cashier, one who may not sell there and a signature that is not the device's
/// are 401, whichever it is. Until the verdict a right PIN costs what a wrong one does, and under a lock neither is looked
/// at.
pub async fn sign_in(
    State(app): State<AppState>,
    access: Access,
    context: Context,
    Valid(asked): Valid<PinSignIn>,
) -> Result<Response, ApiError> {
    let shown = Shown::compare(&app, &access, asked).await?;
    let input = Arc::new(Input { access, context, shown });
    match app.writer.write(Arc::clone(&input), |tx, input| Box::pin(prove_to_sell(tx, input))).await? {
        Proof::Given(_) => {}
        Proof::Wrong => return Err(ApiError::unauthenticated()),
        Proof::Locked(locked) => return Err(locked.problem(input.shown.now)),
    }
    let verifier = app.auth.pins.hash(input.shown.signature.clone()).await?;
    let lease = app
        .writer
        .write((input, verifier), |tx, (input, verifier)| {
            Box::pin(async move {
                let stands = input.shown.stands(tx, |principal| input.may_sell(principal)).await?;
                let Some((user, principal)) = stands else {
                    audit::record(tx, &input.context, input.entry().refused()).await?;
                    return Ok(None);
                };
                let lease = issue(tx, input, &user, &principal, verifier).await?;
                audit::record(tx, &input.context, input.entry()).await?;
                Ok::<_, ApiError>(Some(lease))
            })
        })
        .await?;
    json_response(StatusCode::CREATED, &lease.ok_or_else(ApiError::unauthenticated)?)
}

async fn prove_to_sell(tx: &mut PgTx, input: &Input) -> Result<Proof, ApiError> {
    input.shown.prove(tx, &input.context, input.entry(), |principal| input.may_sell(principal)).await
}

async fn issue(
    tx: &mut PgTx,
    input: &Input,
    user: &Credentials,
    principal: &Principal,
    verifier: &str,
) -> Result<IssuedLease, ApiError> {
    let Shown { terminal: (terminal, location), device_key, now, .. } = &input.shown;
    let hours = sign_in_policy::find(&mut **tx).await?.lease_hours;
    // An act that needs an approval each time is in the limits alone.
    let allows = |rule: &Rule| rule.mode == Mode::Allow;
    let is_free = |it: Permission| !it.is_act() || principal.rules(it, *location).iter().any(allows);
    let held = |it: &&Permission| **it != Permission::Public && principal.may(**it, *location) && is_free(**it);
    let permissions: Vec<String> = Permission::ALL.iter().filter(held).map(|permission| permission.name()).collect();
    let limits = limits::of(tx, principal, *location, *now).await?;
    let (lease_id, expires_at) = (Uuid::now_v7(), *now + TimeDelta::hours(hours.into()));
    let new = db::NewLease {
        lease_id,
        terminal_id: terminal.0,
        location_id: location.0,
        cashier_id: user.user_id,
        device_public_key: device_key,
        verifier,
        permissions: &permissions,
        limits: &limits,
        issued_at: *now,
        expires_at,
    };
    db::insert(tx, &new).await?;
    Ok(IssuedLease {
        lease_id,
        terminal_id: terminal.0,
        location_id: location.0,
        cashier_id: user.user_id,
        cashier_code: user.code.clone(),
        verifier: verifier.to_owned(),
        permissions,
        limits,
        issued_at: *now,
        expires_at,
    })
}
