//! REST client as a till or an office program would write it: tokens renewed by themselves,
//! problem+json as typed errors, retries with full jitter where the contract allows them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::device::DeviceKey;
use crate::endpoints::Credentials;
use crate::session::Session;

/// First pause of a retry; doubles up to [`PAUSE_MAX`], and each is drawn from zero to itself.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a request is sent again before its outcome is left unknown.
const PATIENCE: Duration = Duration::from_secs(180);
/// A token is renewed when it has less than this to live.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// RFC 9457 body of a refusal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub status: u16,
    pub title: String,
    pub detail: String,
    pub code: String,
    pub retryable: bool,
    pub request_id: String,
    pub errors: Vec<FieldError>,
    /// Of `approval_required`: what to ask an approval for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Value>,
}

/// One wrong field of a refused body.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldError {
    pub pointer: String,
    pub code: String,
    pub message: String,
}

/// Why a call gave no result.
#[derive(Debug)]
pub enum ApiError {
    /// The API answered with a problem.
    Refused(Box<Problem>),
    /// No answer, or one that is not from the API; whether the call had an effect is unknown.
    Unknown(String),
}

impl ApiError {
    /// Stable code of the refusal, or `""` when there was no answer.
    pub fn code(&self) -> &str {
        match self {
            ApiError::Refused(problem) => &problem.code,
            ApiError::Unknown(_) => "",
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApiError::Refused(problem) => {
                write!(f, "{} {}: {}", problem.status, problem.code, problem.detail)?;
                for error in problem.errors.iter().take(5) {
                    write!(f, "; {} {} {}", error.pointer, error.code, error.message)?;
                }
                Ok(())
            }
            ApiError::Unknown(what) => write!(f, "no answer: {what}"),
        }
    }
}
impl std::error::Error for ApiError {}

/// An answer as it came: status, the headers that matter, the exact bytes.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub etag: Option<String>,
    /// `Idempotency-Replayed: true`: the stored answer of an earlier call.
    pub replayed: bool,
    pub body: Bytes,
}

impl Answer {
    /// The problem in the body; one made from the status where the body is none.
    pub fn problem(&self) -> Problem {
        let mut problem: Problem = serde_json::from_slice(&self.body).unwrap_or_default();
        problem.status = self.status.as_u16();
        if problem.detail.is_empty() {
            problem.detail = String::from_utf8_lossy(&self.body).chars().take(300).collect();
        }
        problem
    }

    /// Whether a till sends the same request again: 408, 429, 503, and 409 `in_progress`.
    pub fn is_retryable(&self) -> bool {
        match self.status.as_u16() {
            408 | 429 | 503 => true,
            409 => self.problem().code == "in_progress",
            _ => false,
        }
    }
}

/// Who calls.
pub enum Identity {
    Anonymous,
    /// Logs in with the password alone.
    User(Credentials),
    /// Has a second factor, and a session that processes share.
    Office(Session),
    Terminal {
        terminal_id: Uuid,
        key: DeviceKey,
    },
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    expires_in: u64,
}

struct Token {
    text: String,
    renew_at: Instant,
}

struct Inner {
    base: String,
    http: reqwest::Client,
    identity: Identity,
    token: Mutex<Option<Token>>,
    /// The last token that the API did not take.
    refused: Mutex<Option<String>>,
    /// How long retries may go on before the outcome is left unknown.
    patience: Duration,
    /// Says that its requests may take their time.
    is_background: bool,
}

/// A client of the public API for one identity; clones share its token and connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

/// One call, sent again where the contract allows it.
pub struct Call<'a> {
    pub method: Method,
    pub path: &'a str,
    pub body: Option<Bytes>,
    pub idempotency_key: Option<&'a str>,
    pub if_match: Option<&'a str>,
    /// Given only to calls that may be repeated without doubling anything.
    pub repeat: bool,
}

impl Client {
    /// A client for `api` (without `/api/v1`) acting as `identity`.
    pub fn new(api: &str, identity: Identity) -> anyhow::Result<Client> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(120))
            .pool_idle_timeout(Duration::from_secs(20))
            .build()?;
        Ok(Client::over(http, api, identity, PATIENCE))
    }

    /// The same over a shared connection pool, with its own patience for retries.
    pub fn over(http: reqwest::Client, api: &str, identity: Identity, patience: Duration) -> Client {
        let base = format!("{}/api/v1", api.trim_end_matches('/'));
        let (token, refused) = (Mutex::new(None), Mutex::new(None));
        Client(Arc::new(Inner { base, http, identity, token, refused, patience, is_background: false }))
    }

    /// Another identity over the same connections.
    pub fn with(&self, identity: Identity) -> Client {
        self.another(identity, self.0.is_background)
    }

    /// Another identity whose requests, and those of who comes from it, are `Priority: u=7`: imports.
    pub fn in_background(&self, identity: Identity) -> Client {
        self.another(identity, true)
    }

    fn another(&self, identity: Identity, is_background: bool) -> Client {
        let (base, http, patience) = (self.0.base.clone(), self.0.http.clone(), self.0.patience);
        let (token, refused) = (Mutex::new(None), Mutex::new(None));
        Client(Arc::new(Inner { base, http, identity, token, refused, patience, is_background }))
    }

    /// A valid access token, asked for when there is none with enough time left.
    pub async fn token(&self) -> Result<Option<String>, ApiError> {
        if matches!(self.0.identity, Identity::Anonymous) {
            return Ok(None);
        }
        let mut held = self.0.token.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.renew_at > Instant::now()) {
            return Ok(Some(token.text.clone()));
        }
        if let Identity::Office(session) = &self.0.identity {
            let refused = self.0.refused.lock().await.take();
            let (text, until) = Box::pin(session.token(&self.with(Identity::Anonymous), refused.as_deref())).await?;
            let left = (until - chrono::Utc::now()).to_std().unwrap_or_default();
            *held = Some(Token { text: text.clone(), renew_at: Instant::now() + left });
            return Ok(Some(text));
        }
        let body = self.token_request().await?;
        let life = Duration::from_secs(body.expires_in);
        let renew_at = Instant::now() + life.saturating_sub(TOKEN_MARGIN.min(life / 4));
        *held = Some(Token { text: body.access_token.clone(), renew_at });
        Ok(Some(body.access_token))
    }

    async fn token_request(&self) -> Result<TokenBody, ApiError> {
        let (path, body) = match &self.0.identity {
            Identity::Anonymous | Identity::Office(_) => {
                return Err(ApiError::Unknown("this caller asks for no token".to_owned()));
            }
            Identity::User(who) => ("/auth/login", serde_json::json!({ "login": who.login, "password": who.password })),
            Identity::Terminal { terminal_id, key } => {
                let issued_at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                let nonce = Uuid::new_v4().to_string();
                let signature = key.sign_token_request(*terminal_id, &issued_at, &nonce);
                (
                    "/auth/terminal-token",
                    serde_json::json!({
                        "terminal_id": terminal_id, "issued_at": issued_at, "nonce": nonce, "signature": signature,
                    }),
                )
            }
        };
        let call = Call {
            method: Method::POST,
            path,
            body: Some(json_bytes(&body)?),
            idempotency_key: None,
            if_match: None,
            repeat: false,
        };
        decode(self.send_once(&call, None).await?)
    }

    /// Sends a call and repeats it with full jitter while it is retryable and patience lasts; an
    /// expired token is renewed once. Any status is an answer.
    pub async fn send(&self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let deadline = Instant::now() + self.0.patience;
        let mut pause = PAUSE_FIRST;
        let (mut renewed, mut stepped_up) = (false, false);
        loop {
            let (token, result) = match self.token().await {
                Ok(token) => {
                    let result = self.send_once(call, token.as_deref()).await;
                    (token, result)
                }
                Err(error) => (None, Err(error)),
            };
            let again = match &result {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    *self.0.refused.lock().await = token;
                    *self.0.token.lock().await = None;
                    continue;
                }
                Ok(answer) if answer.status == StatusCode::FORBIDDEN && !stepped_up => {
                    stepped_up = true;
                    if self.step_up(answer, token.as_deref()).await? {
                        continue;
                    }
                    false
                }
                Ok(answer) => answer.is_retryable(),
                Err(ApiError::Unknown(_)) => true,
                Err(ApiError::Refused(problem)) => matches!(problem.status, 408 | 429 | 503),
            };
            if !again || !call.repeat || Instant::now() + pause > deadline {
                return result;
            }
            tokio::time::sleep(pause.mul_f64(rand::random::<f64>())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Proves the second factor where that is what an answer asks for; false where it is not.
    async fn step_up(&self, answer: &Answer, token: Option<&str>) -> Result<bool, ApiError> {
        let (Identity::Office(session), Some(token)) = (&self.0.identity, token) else { return Ok(false) };
        if answer.problem().code != "reauth_required" {
            return Ok(false);
        }
        Box::pin(session.step_up(&self.with(Identity::Anonymous), token)).await.map(|()| true)
    }

    /// One POST, not repeated: status and body of a 2xx answer. `Value::Null` sends no body.
    pub async fn call(&self, path: &str, body: &Value, token: Option<&str>) -> Result<(u16, Value), ApiError> {
        let body = if body.is_null() { None } else { Some(json_bytes(body)?) };
        let call = Call { method: Method::POST, path, body, idempotency_key: None, if_match: None, repeat: false };
        let answer = self.send_once(&call, token).await?;
        let status = answer.status.as_u16();
        decode(answer).map(|body| (status, body))
    }

    async fn send_once(&self, call: &Call<'_>, token: Option<&str>) -> Result<Answer, ApiError> {
        let mut request = self.0.http.request(call.method.clone(), format!("{}{}", self.0.base, call.path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if self.0.is_background {
            request = request.header("Priority", "u=7");
        }
        if let Some(etag) = call.if_match {
            request = request.header("If-Match", etag);
        }
        if let Some(body) = &call.body {
            request = request.header("Content-Type", "application/json").body(body.clone());
        }
        let unknown =
            |error: reqwest::Error| ApiError::Unknown(format!("{} {}: {}", call.method, call.path, chain(&error)));
        let response = request.send().await.map_err(unknown)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (status, etag) = (response.status(), header("etag"));
        let replayed = header("idempotency-replayed").as_deref() == Some("true");
        let body = response.bytes().await.map_err(unknown)?;
        Ok(Answer { status, etag, replayed, body })
    }

    /// GET of a typed body.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let call = Call { method: Method::GET, path, body: None, idempotency_key: None, if_match: None, repeat: true };
        decode(self.send(&call).await?)
    }

    /// POST that is safe to repeat because the caller gives every identity in the body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ApiError> {
        self.post_keyed(path, None, body).await
    }

    /// POST under an Idempotency-Key.
    pub async fn post_keyed<T: DeserializeOwned>(
        &self,
        path: &str,
        key: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let body = Some(json_bytes(body)?);
        let call = Call { method: Method::POST, path, body, idempotency_key: key, if_match: None, repeat: true };
        decode(self.send(&call).await?)
    }

    /// Every item of a paged list; `path` may carry filters.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ApiError> {
        #[derive(Deserialize)]
        struct Page<T> {
            items: Vec<T>,
            next_cursor: Option<String>,
        }
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page: Page<T> = self.get(&format!("{path}{joint}limit=200{after}")).await?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(items),
            }
        }
    }
}

/// The typed body of a 2xx answer, else the refusal.
pub fn decode<T: DeserializeOwned>(answer: Answer) -> Result<T, ApiError> {
    if !answer.status.is_success() {
        return Err(ApiError::Refused(Box::new(answer.problem())));
    }
    serde_json::from_slice(&answer.body).map_err(|error| {
        let body: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
        ApiError::Unknown(format!("unexpected body ({error}): {body}"))
    })
}

fn json_bytes(body: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|error| ApiError::Unknown(error.to_string()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}
