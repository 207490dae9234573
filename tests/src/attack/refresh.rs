//! A8-A10: refresh tokens that come twice.

use anyhow::Result;
use chrono::{SecondsFormat, Utc};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::ask::{Answer, Ask, Caller};
use super::ground::{Ground, PASSWORD, SignedIn};
use super::trial::{Trial, Wanted};
use crate::device::DeviceKey;

const OVER: &[Wanted] = &[(401, "unauthenticated")];
/// A hundred wait for one row: who waits too long is told to come again.
const ONE_OF_MANY: &[Wanted] = &[(200, ""), (401, "unauthenticated"), (503, "unavailable")];

/// A session that only this device can refresh.
async fn bound(ground: &Ground, key: &DeviceKey) -> Result<SignedIn> {
    let login = &ground.here.manager.login;
    let body = json!({"login": login, "password": PASSWORD, "device_public_key": key.public_base64()});
    SignedIn::of(&Ask::post("/auth/login", &body).send(&ground.stranger()?).await?.succeeded()?.json())
}

fn bare(token: &str) -> Ask {
    Ask::post("/auth/refresh", &json!({"refresh_token": token}))
}

fn signed(token: &str, key: &DeviceKey) -> Ask {
    let issued_at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let signature = key.sign_refresh(token, &issued_at);
    Ask::post("/auth/refresh", &json!({"refresh_token": token, "issued_at": issued_at, "signature": signature}))
}

async fn next(ask: Ask, from: &Caller) -> Result<SignedIn> {
    SignedIn::of(&ask.send(from).await?.succeeded()?.json())
}

/// Nothing of the session is worth anything, and its end is written down.
async fn is_dead(ground: &Ground, trial: &mut Trial, last: &SignedIn, refused: &Ask) -> Result<()> {
    let from = ground.stranger()?;
    trial.expect("the newest refresh token afterwards", &refused.send(&from).await?, OVER);
    // A token that was checked is remembered for a second.
    tokio::time::sleep(super::REMEMBERED).await;
    let answer = Ask::get("/auth/account").bearer(&last.access).send(&from).await?;
    trial.expect("the newest access token afterwards", &answer, OVER);
    let path = format!("/audit?action=auth.refresh&target=session/{}&outcome=refused", last.session_id);
    let rows = ground.as_owner(Ask::get(path)).await?.succeeded()?.json();
    let rows = rows["items"].as_array().map_or(0, Vec::len);
    trial.holds("the audit log says so", format!("{rows} rows"), rows > 0);
    Ok(())
}

/// A8
pub async fn spent_and_shown_again(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let from = ground.stranger()?;
    let first = ground.sign_in(&ground.here.manager).await?;
    let second = next(bare(&first.refresh), &from).await?;
    trial.expect("a refresh token that was spent", &bare(&first.refresh).send(&from).await?, OVER);
    is_dead(ground, trial, &second, &bare(&second.refresh)).await
}

/// A9
pub async fn a_hundred_at_once(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let (key, from) = (DeviceKey::generate()?, ground.stranger()?);
    let session = bound(ground, &key).await?;
    let asks: Vec<Ask> = (0..100).map(|_| signed(&session.refresh, &key)).collect();
    let answers = try_join_all(asks.iter().map(|ask| ask.send_once(&from))).await?;
    let mut successors: Vec<String> = answers.iter().filter_map(|answer| answer.field("refresh_token").ok()).collect();
    answers.iter().for_each(|answer| trial.expect("one of a hundred, signed", answer, ONE_OF_MANY));
    successors.sort_unstable();
    successors.dedup();
    trial.holds("successors of a signed token", successors.len().to_string(), successors.len() == 1);

    let session = ground.sign_in(&ground.here.manager).await?;
    let ask = bare(&session.refresh);
    let answers: Vec<Answer> = try_join_all((0..100).map(|_| ask.send_once(&from))).await?;
    let given = answers.iter().filter(|answer| answer.status == 200).count();
    answers.iter().for_each(|answer| trial.expect("one of a hundred", answer, ONE_OF_MANY));
    trial.holds("successors of a token that anyone may show", given.to_string(), given == 1);
    Ok(())
}

/// A10
pub async fn the_one_before_the_last(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let (key, from) = (DeviceKey::generate()?, ground.stranger()?);
    let first = bound(ground, &key).await?;
    let second = next(signed(&first.refresh, &key), &from).await?;
    let again: Value = signed(&first.refresh, &key).send(&from).await?.succeeded()?.json();
    let is_same = again["refresh_token"] == second.refresh.as_str();
    trial.holds("the predecessor in its ten seconds", if is_same { "the same successor" } else { "another" }, is_same);
    let third = next(signed(&second.refresh, &key), &from).await?;
    trial.expect("the one before it, in the same ten seconds", &signed(&first.refresh, &key).send(&from).await?, OVER);
    is_dead(ground, trial, &third, &signed(&third.refresh, &key)).await
}
