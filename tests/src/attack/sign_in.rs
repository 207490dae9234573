//! A11-A13, A15, A61: passwords that are guessed, and what is worth nothing any more.

use anyhow::Result;
use serde_json::{Value, json};

use super::REMEMBERED;
use super::ask::{Answer, Ask, Caller};
use super::ground::{Ground, PASSWORD, Person, log_in, unique};
use super::trial::{Trial, Wanted};

const OVER: &[Wanted] = &[(401, "unauthenticated")];
const LOCKED: &[Wanted] = &[(429, "locked"), (429, "rate_limited")];
/// A guess before the lock, which a limit may precede.
const GUESSED: &[Wanted] = &[(401, "unauthenticated"), (429, "rate_limited")];
/// Wrong guesses that lock.
const GUESSES: usize = 10;

/// A11
pub async fn after_it_was_taken_away(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let here = ground.here.location_id;
    for what in ["log-out", "log-out everywhere", "a role was cut", "the user was disabled", "sessions ended"] {
        let who = ground.person("cashier", Some(here)).await?;
        let (session, from) = (ground.sign_in(&who).await?, ground.stranger()?);
        let reading = Ask::get("/auth/account").bearer(&session.access);
        trial.expect(format!("before: {what}"), &reading.send(&from).await?, &[(200, "")]);
        take_away(ground, &who, &session.access, what).await?;
        tokio::time::sleep(REMEMBERED).await;
        trial.expect(format!("access token after: {what}"), &reading.send(&from).await?, OVER);
        let refresh = Ask::post("/auth/refresh", &json!({"refresh_token": session.refresh}));
        trial.expect(format!("refresh token after: {what}"), &refresh.send(&from).await?, OVER);
    }
    Ok(())
}

async fn take_away(ground: &Ground, who: &Person, token: &str, what: &str) -> Result<()> {
    let user = format!("/users/{}", who.user_id);
    let ask = match what {
        "log-out" => return own(ground, "/auth/logout", token).await,
        "log-out everywhere" => return own(ground, "/auth/logout-everywhere", token).await,
        "a role was cut" => Ask::new("PATCH", user).if_match(1).json(&json!({"grants": []})),
        "the user was disabled" => Ask::new("PATCH", user).if_match(1).json(&json!({"is_active": false})),
        _ => Ask::new("POST", format!("{user}/sessions/end")),
    };
    ground.as_owner(ask).await?.succeeded().map(drop)
}

async fn own(ground: &Ground, path: &str, token: &str) -> Result<()> {
    Ask::new("POST", path).bearer(token).send(&ground.stranger()?).await?.succeeded().map(drop)
}

/// A12
pub async fn guessed_until_locked(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let who = ground.person("cashier", Some(ground.here.location_id)).await?;
    let known = guesses(ground, &who.login).await?;
    let unknown = guesses(ground, &unique("nobody")).await?;
    for (n, (of_known, of_unknown)) in known.iter().zip(&unknown).enumerate() {
        let wanted = if n < GUESSES { GUESSED } else { LOCKED };
        trial.expect(format!("guess {} at a known name", n + 1), of_known, wanted);
        trial.alike(
            format!("guess {} at a known and at an unknown name", n + 1),
            &timeless(of_known),
            &timeless(of_unknown),
        );
    }
    let waits = known.last().map(|answer| answer.header("retry-after").to_owned()).unwrap_or_default();
    trial.holds("it says when to come again", waits.clone(), waits.parse::<u64>().is_ok_and(|seconds| seconds > 0));
    let right = log_in(&who.login, PASSWORD).send(&ground.stranger()?).await?;
    trial.expect("the right password while locked, from elsewhere", &right, LOCKED);
    Ok(())
}

/// Guesses at one name until it is locked, from one address.
async fn guesses(ground: &Ground, login: &str) -> Result<Vec<Answer>> {
    let from = ground.stranger()?;
    let mut answers = Vec::new();
    for n in 0..=GUESSES {
        answers.push(log_in(login, &format!("a wrong guess, number {n}")).send(&from).await?);
    }
    Ok(answers)
}

/// The answer with the seconds to wait made equal: the two series do not begin at the same instant.
fn timeless(answer: &Answer) -> Answer {
    let mut answer = answer.clone();
    if let Some(value) = answer.headers.get_mut("retry-after") {
        *value = reqwest::header::HeaderValue::from_static("1");
    }
    answer
}

/// A13
pub async fn many_names_from_one_address(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let from = ground.stranger()?;
    let mut victims = Vec::new();
    for _ in 0..3 {
        victims.push(ground.person("cashier", Some(ground.here.location_id)).await?);
    }
    let names = victims.iter().map(|it| it.login.clone());
    let spray: Vec<String> =
        names.chain((0..).map(|_| unique("sprayed"))).take(if ground.is_full() { 10_000 } else { 60 }).collect();
    for (n, login) in spray.iter().enumerate() {
        let answer = log_in(login, "Summer2026!").send(&from).await?;
        trial.expect(format!("name {}", n + 1), &answer, if n < GUESSES { GUESSED } else { LOCKED });
    }
    for who in &victims {
        let answer = log_in(&who.login, PASSWORD).send(&ground.stranger()?).await?;
        trial.expect("one of the names, by its user from elsewhere", &answer, &[(200, "")]);
    }
    Ok(())
}

/// A61
pub async fn forged_addresses(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let from = ground.stranger()?;
    let mut last = None;
    for n in 0..=GUESSES + 1 {
        let forged = format!("203.0.113.{n}");
        let ask = log_in(&unique("forged"), "Summer2026!")
            .header("x-forwarded-for", format!("{forged}, 198.51.100.7"))
            .header("x-real-ip", &forged)
            .header("forwarded", format!("for={forged}"))
            .header("cf-connecting-ip", &forged)
            .header("true-client-ip", &forged);
        last = Some(guess(&ask, &from, trial, n).await?);
    }
    trial.holds("another address in each header is no other address", format!("{last:?}"), last == Some(429));
    Ok(())
}

async fn guess(ask: &Ask, from: &Caller, trial: &mut Trial, n: usize) -> Result<u16> {
    let answer = ask.send(from).await?;
    trial.expect(format!("guess {}", n + 1), &answer, if n < GUESSES { GUESSED } else { LOCKED });
    Ok(answer.status)
}

/// A15
pub async fn odd_passwords(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let (login, from) = (&ground.here.cashier.login, ground.stranger()?);
    let unreadable: &[Wanted] = &[(400, ""), (422, "")];
    trial.expect(
        "a password of 1 MB",
        &log_in(login, &"x".repeat(1 << 20)).send(&from).await?,
        &[(413, "payload_too_large")],
    );
    let raw = |text: &str| {
        let body = format!(r#"{{"login":"{login}","password":"{text}"}}"#);
        Ask::new("POST", "/auth/login").bytes(body).header("content-type", "application/json")
    };
    trial.expect("a password with a NUL", &raw(r"quiet\u0000lanterns").send(&from).await?, unreadable);
    trial.expect("an unpaired surrogate", &raw(r"quiet\ud800lanterns").send(&from).await?, unreadable);
    trial.expect(
        "a password of 2,000 characters",
        &raw(&"x".repeat(2_000)).send(&from).await?,
        &[(401, ""), (413, ""), (422, "")],
    );
    let passphrase = "sixty-five characters: harbour lanterns, quiet rain, and no more ";
    let (user, code) = (unique("long"), unique("l"));
    let grant: Value = json!({"role": "cashier", "location_id": ground.here.location_id});
    let body = json!({"login": user, "code": code, "password": passphrase, "grants": [grant]});
    trial.expect("a passphrase of 65 characters", &ground.as_owner(Ask::post("/users", &body)).await?, &[(201, "")]);
    let answer = log_in(&user, passphrase).send(&ground.stranger()?).await?;
    trial.expect("it signs in, whole", &answer, &[(200, "")]);
    let cut = log_in(&user, &passphrase[..64]).send(&ground.stranger()?).await?;
    trial.expect("and not without its last character", &cut, OVER);
    Ok(())
}
