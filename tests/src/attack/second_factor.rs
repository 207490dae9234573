//! A16, A17, A19: codes of the second factor, and acts that ask for a fresh one.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use futures::future::try_join_all;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use totp_rs::{Builder, Secret, Totp};

use super::ask::{Answer, Ask};
use super::ground::{Ground, PASSWORD, Person, SignedIn};
use super::trial::{Trial, Wanted};

const STEP: u64 = 30;
const WRONG: &[Wanted] = &[(401, "unauthenticated"), (429, "rate_limited")];
const LOCKED: &[Wanted] = &[(429, "locked"), (429, "rate_limited")];
/// The API hashes a few passwords at a time and says so to the rest.
const BUSY: Wanted = (503, "");

/// A user with a second factor.
struct Guarded {
    who: Person,
    totp: Totp,
    recovery_codes: Vec<String>,
    session: SignedIn,
}

impl Guarded {
    async fn make(ground: &Ground) -> Result<Guarded> {
        let who = ground.person("manager", Some(ground.here.location_id)).await?;
        let (session, from) = (ground.sign_in(&who).await?, ground.stranger()?);
        let offered = Ask::post("/auth/second-factor", &json!({"password": PASSWORD}));
        let offered = offered.bearer(&session.access).send(&from).await?.succeeded()?;
        let secret = Secret::try_from_base32(&offered.field("secret")?);
        let secret = secret.map_err(|error| anyhow::anyhow!("the secret: {error}"))?;
        let totp = Builder::new().with_secret(secret).with_skew(0).with_step_duration(STEP).build();
        let totp = totp.map_err(|error| anyhow::anyhow!("the secret: {error}"))?;
        let code = totp.generate(now()).to_string();
        let ask = Ask::post("/auth/second-factor/confirm", &json!({"totp": code, "password": PASSWORD}))
            .bearer(&session.access);
        let confirmed = ask.send(&from).await?.succeeded()?.json();
        let recovery_codes = serde_json::from_value(confirmed["recovery_codes"].clone()).context("recovery codes")?;
        Ok(Guarded { who, totp, recovery_codes, session })
    }

    fn code_of(&self, seconds: u64) -> String {
        self.totp.generate(seconds).to_string()
    }

    fn log_in(&self, name: &str, code: &str) -> Ask {
        Ask::post("/auth/login", &json!({"login": self.who.login, "password": PASSWORD, name: code}))
    }

    /// A code whose half minute has begun and whose end is not near.
    async fn fresh_code(&self, after: u64) -> String {
        while now() / STEP == after / STEP || STEP - now() % STEP < 5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.code_of(now())
    }
}

fn now() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or_default()
}

/// A16
pub async fn codes_used_twice_old_and_guessed(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let made_at = now();
    let user = Guarded::make(ground).await?;
    let bare = super::ground::log_in(&user.who.login, PASSWORD).send(&ground.stranger()?).await?;
    trial.expect("the password alone", &bare, &[(401, "second_factor_required")]);
    let code = user.fresh_code(made_at).await;
    let first = user.log_in("totp", &code).send(&ground.stranger()?).await?;
    trial.expect("a code of now", &first, &[(200, "")]);
    let again = user.log_in("totp", &code).send(&ground.stranger()?).await?;
    trial.expect("the same code again", &again, WRONG);
    for (what, at) in [("two half minutes ago", now() - 2 * STEP), ("half a minute ahead", now() + STEP)] {
        let answer = user.log_in("totp", &user.code_of(at)).send(&ground.stranger()?).await?;
        trial.expect(format!("a code of {what}"), &answer, WRONG);
    }
    let other = Guarded::make(ground).await?;
    let mut last = 0;
    for n in 0..=10 {
        let guess = format!("{:06}", (other.code_of(now()).parse::<u32>()? + 1 + n) % 1_000_000);
        let answer = other.log_in("totp", &guess).send(&ground.stranger()?).await?;
        trial.expect(format!("guess {}", n + 1), &answer, if n < 10 { WRONG } else { LOCKED });
        last = answer.status;
    }
    trial.holds("ten guesses lock", last.to_string(), last == 429);
    Ok(())
}

/// A17
pub async fn one_code_fifty_times_at_once(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let made_at = now();
    let user = Guarded::make(ground).await?;
    let recovery = user.recovery_codes.first().context("no recovery code")?.clone();
    let answers = at_once(ground, &user.log_in("recovery_code", &recovery)).await?;
    exactly_one(trial, "a recovery code", &answers);
    let other = Guarded::make(ground).await?;
    let code = other.fresh_code(made_at.max(now())).await;
    let answers = at_once(ground, &other.log_in("totp", &code)).await?;
    exactly_one(trial, "a code of the authenticator", &answers);
    Ok(())
}

async fn at_once(ground: &Ground, ask: &Ask) -> Result<Vec<Answer>> {
    let from = (0..50).map(|_| ground.stranger()).collect::<Result<Vec<_>>>()?;
    try_join_all(from.iter().map(|caller| ask.send_once(caller))).await
}

fn exactly_one(trial: &mut Trial, what: &str, answers: &[Answer]) {
    let wanted = [&[(200, ""), BUSY], WRONG, LOCKED].concat();
    answers.iter().for_each(|answer| trial.expect(format!("one of fifty: {what}"), answer, &wanted));
    let opened = answers.iter().filter(|answer| answer.status == 200).count();
    trial.holds(format!("sessions that {what} opened"), opened.to_string(), opened == 1);
}

/// A19
pub async fn without_a_fresh_proof(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let user = Guarded::make(ground).await?;
    // Time passes: nobody waits for five minutes here.
    let mut pg = PgConnection::connect(&ground.stack.endpoints()?.postgres).await?;
    let sql = "update sessions set proved_at = proved_at - interval '6 minutes' where session_id = $1";
    let aged = sqlx::query(sql).bind(user.session.session_id).execute(&mut pg).await?.rows_affected();
    anyhow::ensure!(aged == 1, "{aged} sessions were aged");
    let from = ground.stranger()?;
    let nothing = Value::Null;
    for (path, body) in [
        ("/auth/second-factor", &nothing),
        ("/auth/recovery-codes", &nothing),
        ("/auth/second-factor/remove", &nothing),
    ] {
        let ask = if body.is_null() { Ask::new("POST", path) } else { Ask::post(path, body) };
        let answer = ask.bearer(&user.session.access).send(&from).await?;
        trial.expect(format!("{path} six minutes after the log-in"), &answer, &[(403, "reauth_required")]);
    }
    let rows = ground.refusals_of(user.who.user_id).await?;
    trial.holds("the audit log says so", format!("{rows} rows"), rows >= 3);
    Ok(())
}
