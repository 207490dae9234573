//! The session of an office user (the first Owner), kept in a file that every process of this clone shares: a code of the
//! second factor counts once in half a minute, so each of them cannot log in for itself.
//!
//! The second factor is set up at the first log-in, and its secret kept beside the session.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret, Totp};

use crate::client::{ApiError, Client};
use crate::endpoints::{Credentials, Endpoints, write_private};

const FILE: &str = "owner-session.json";
const STEP_SECONDS: u64 = 30;
/// A token is renewed when it has less than this to live.
const MARGIN_SECONDS: i64 = 60;
/// A proof is good for five minutes; less what a request may take on its way.
const FRESH_SECONDS: i64 = 270;

/// What the file holds. Nothing of it is printed but by `./dev totp`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// Base32; empty before the second factor was set up.
    totp_secret: String,
    recovery_codes: Vec<String>,
    access_token: String,
    expires_at: DateTime<Utc>,
    refresh_token: String,
    /// How long the last proof of the second factor opens what asks for a fresh one.
    fresh_until: DateTime<Utc>,
    /// The half minute whose code was sent last: it counts no second time.
    last_step: u64,
}

/// Where the session of one login is kept.
#[derive(Debug, Clone)]
pub struct Session {
    pub who: Credentials,
    file: PathBuf,
}

impl Session {
    /// The first Owner's.
    pub fn of_owner(endpoints: &Endpoints) -> Session {
        Session { who: endpoints.owner.clone(), file: endpoints.run_dir.join(FILE) }
    }

    /// An access token with time left, and until when it is used. Processes that ask at once wait for the first.
    /// `refused`: the token that the API did not take, so that it is not handed out again.
    pub async fn token(&self, api: &Client, refused: Option<&str>) -> Result<(String, DateTime<Utc>), ApiError> {
        let _turn = self.turn().await?;
        let mut kept = self.read()?;
        let renew_at = |kept: &Kept| kept.expires_at - TimeDelta::seconds(MARGIN_SECONDS);
        if renew_at(&kept) <= Utc::now() || refused == Some(kept.access_token.as_str()) {
            if !self.refresh(api, &mut kept).await? {
                self.log_in(api, &mut kept).await?;
                kept.fresh_until = Utc::now() + TimeDelta::seconds(FRESH_SECONDS);
            }
            self.write(&kept)?;
        }
        Ok((kept.access_token.clone(), renew_at(&kept)))
    }

    /// Proves the second factor once more, for acts that ask for a fresh proof.
    pub async fn step_up(&self, api: &Client, token: &str) -> Result<(), ApiError> {
        let _turn = self.turn().await?;
        let mut kept = self.read()?;
        // Somebody else may have done it while this one waited for its turn.
        if kept.fresh_until > Utc::now() {
            return Ok(());
        }
        self.post_with_code(api, &mut kept, ("/auth/step-up", json!({})), Some(token)).await?;
        kept.fresh_until = Utc::now() + TimeDelta::seconds(FRESH_SECONDS);
        self.write(&kept)
    }

    /// The secret of the second factor, in base32, once there is one.
    pub fn secret(&self) -> anyhow::Result<Option<String>> {
        let kept = self.read().map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Some(kept.totp_secret).filter(|secret| !secret.is_empty()))
    }

    /// The code of now, and how many seconds it holds.
    pub fn code(&self) -> anyhow::Result<Option<(String, u64)>> {
        let Some(secret) = self.secret()? else { return Ok(None) };
        let (totp, now) = (authenticator(&secret)?, seconds());
        Ok(Some((totp.generate(now).to_string(), totp.next_step(now) - now)))
    }

    /// One process at a time; given back when it is dropped.
    async fn turn(&self) -> Result<File, ApiError> {
        let path = self.file.with_extension("lock");
        let wait = move || -> anyhow::Result<File> {
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            let file = File::options().create(true).append(true).open(&path)?;
            file.lock().with_context(|| format!("waiting for {}", path.display()))?;
            Ok(file)
        };
        let waited = tokio::task::spawn_blocking(wait).await.map_err(|error| ApiError::Unknown(error.to_string()))?;
        waited.map_err(|error| ApiError::Unknown(format!("{error:#}")))
    }

    fn read(&self) -> Result<Kept, ApiError> {
        let mut kept: Kept = match std::fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| ApiError::Unknown(format!("{} is damaged: {error}", self.file.display())))?,
            Err(_) => Kept::default(),
        };
        if kept.totp_secret.is_empty() {
            kept.totp_secret = self.who.totp_secret.clone();
        }
        Ok(kept)
    }

    fn write(&self, kept: &Kept) -> Result<(), ApiError> {
        let written = serde_json::to_vec_pretty(kept).context("session").and_then(|it| write_private(&self.file, &it));
        written.map_err(|error| ApiError::Unknown(format!("{error:#}")))
    }

    /// False when there is no session to go on with.
    async fn refresh(&self, api: &Client, kept: &mut Kept) -> Result<bool, ApiError> {
        if kept.refresh_token.is_empty() {
            return Ok(false);
        }
        match api.call("/auth/refresh", &json!({ "refresh_token": kept.refresh_token }), None).await {
            Ok((_, body)) => take(kept, &body).map(|()| true),
            Err(ApiError::Refused(problem)) if problem.status == 401 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn log_in(&self, api: &Client, kept: &mut Kept) -> Result<(), ApiError> {
        let Credentials { login, password, .. } = &self.who;
        let body = json!({ "login": login, "password": password });
        match api.call("/auth/login", &body, None).await {
            Ok((202, body)) => self.enrol(api, kept, text(&body, "access_token")?).await,
            Ok((_, body)) => take(kept, &body),
            Err(error) if error.code() == "second_factor_required" && !kept.totp_secret.is_empty() => {
                let body = self.post_with_code(api, kept, ("/auth/login", body), None).await?;
                take(kept, &body)
            }
            Err(error) => Err(error),
        }
    }

    /// Sets the second factor up. Its secret is on the disk before it counts.
    async fn enrol(&self, api: &Client, kept: &mut Kept, token: String) -> Result<(), ApiError> {
        let (_, offered) = api.call("/auth/second-factor", &Value::Null, Some(&token)).await?;
        kept.totp_secret = text(&offered, "secret")?;
        self.write(kept)?;
        let path = "/auth/second-factor/confirm";
        let confirmed = self.post_with_code(api, kept, (path, json!({})), Some(&token)).await?;
        kept.recovery_codes = serde_json::from_value(confirmed["recovery_codes"].clone()).unwrap_or_default();
        take(kept, &confirmed["session"])
    }

    /// POSTs with the code of now, or of the next half minute when this one's was sent before; once more when the half
    /// minute ended on the way.
    async fn post_with_code(
        &self,
        api: &Client,
        kept: &mut Kept,
        (path, mut body): (&str, Value),
        token: Option<&str>,
    ) -> Result<Value, ApiError> {
        let totp = authenticator(&kept.totp_secret).map_err(|error| ApiError::Unknown(format!("{error:#}")))?;
        let mut attempt = 0;
        loop {
            if seconds() / STEP_SECONDS == kept.last_step {
                tokio::time::sleep(Duration::from_secs(STEP_SECONDS - seconds() % STEP_SECONDS)).await;
            }
            let now = seconds();
            kept.last_step = now / STEP_SECONDS;
            self.write(kept)?;
            attempt += 1;
            body["totp"] = json!(totp.generate(now).to_string());
            match api.call(path, &body, token).await {
                Err(ApiError::Refused(problem)) if attempt < 2 && matches!(problem.status, 401 | 422) => {}
                answer => return answer.map(|(_, body)| body),
            }
        }
    }
}

fn seconds() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or_default()
}

fn authenticator(secret: &str) -> anyhow::Result<Totp> {
    let secret =
        Secret::try_from_base32(secret).map_err(|error| anyhow::anyhow!("the second factor's secret: {error}"))?;
    let totp = Builder::new().with_secret(secret).with_skew(0).with_step_duration(STEP_SECONDS).build();
    totp.map_err(|error| anyhow::anyhow!("the second factor's secret: {error}"))
}

fn text(body: &Value, name: &str) -> Result<String, ApiError> {
    let text = body[name].as_str().map(str::to_owned);
    text.ok_or_else(|| ApiError::Unknown(format!("an answer of signing in lacks {name}")))
}

/// A session as the API answers it.
fn take(kept: &mut Kept, body: &Value) -> Result<(), ApiError> {
    kept.access_token = text(body, "access_token")?;
    kept.refresh_token = text(body, "refresh_token")?;
    kept.expires_at = Utc::now() + TimeDelta::seconds(body["expires_in"].as_i64().unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_that_of_the_secret_which_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let who = Credentials { totp_secret: "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ".into(), ..Credentials::default() };
        let session = Session { who, file: folder.path().join(FILE) };
        let (code, left) = session.code().unwrap().unwrap();
        assert_eq!(code.len(), 6);
        assert!((1..=30).contains(&left));
        let kept = Kept { totp_secret: "MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK".into(), ..Kept::default() };
        session.write(&kept).unwrap();
        assert_eq!(session.secret().unwrap().as_deref(), Some("MFRGGZDFMZTWQ2LKMFRGGZDFMZTWQ2LK"));
        assert_eq!(authenticator("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap().generate(59).to_string(), "287082");
    }
}
