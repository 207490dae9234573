//! One request and its answer, as an attacker sees them: nothing is renewed or repaired.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method};
use serde_json::Value;

/// Of one answer. Far beyond what any takes: it only ends a run that would never end.
const LIMIT: Duration = Duration::from_secs(120);
/// An honest 503 says when to come again: after a second.
pub const AGAIN_AFTER: Duration = Duration::from_secs(1);
pub const AGAIN_MAX: usize = 20;
/// A body above this may be refused while it is sent.
const LARGE: usize = 64 << 10;

/// What is sent.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    /// Below `/api/v1`; a leading `!` names a path below the root.
    pub path: String,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Ask {
    pub fn new(method: &str, path: impl Into<String>) -> Ask {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        Ask { method, path: path.into(), headers: HeaderMap::new(), body: None }
    }

    pub fn get(path: impl Into<String>) -> Ask {
        Ask::new("GET", path)
    }

    /// POST of a JSON body.
    pub fn post(path: impl Into<String>, body: &Value) -> Ask {
        Ask::new("POST", path).json(body)
    }

    pub fn json(self, body: &Value) -> Ask {
        self.bytes(body.to_string().into_bytes()).header("content-type", "application/json")
    }

    /// A body as it stands, without a content type.
    pub fn bytes(mut self, body: impl Into<Bytes>) -> Ask {
        self.body = Some(body.into());
        self
    }

    /// The body, compressed.
    pub fn gzipped(self, body: &[u8]) -> Result<Ask> {
        use std::io::Write as _;
        let mut coder = GzEncoder::new(Vec::new(), Compression::fast());
        coder.write_all(body)?;
        Ok(self.bytes(coder.finish()?).header("content-encoding", "gzip"))
    }

    pub fn bearer(self, token: &str) -> Ask {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub fn key(self, key: &str) -> Ask {
        self.header("idempotency-key", key)
    }

    pub fn if_match(self, version: i64) -> Ask {
        self.header("if-match", format!("\"{version}\""))
    }

    /// One more header; a value that HTTP cannot carry is left out, and the raw sockets of `sockets.rs` send it.
    pub fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Ask {
        if let Ok(value) = HeaderValue::from_bytes(value.as_ref()) {
            self.headers.append(HeaderName::from_static(name), value);
        }
        self
    }

    /// The answer; whoever is told to come again does, for rows run beside others that flood the platform.
    pub async fn send(&self, from: &Caller) -> Result<Answer> {
        let mut answer = self.send_whole(from).await?;
        for _ in 0..AGAIN_MAX {
            if answer.status != 503 || answer.header("retry-after").is_empty() {
                break;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            answer = self.send_whole(from).await?;
        }
        Ok(answer)
    }

    /// A body that is refused before it is read may cost its sender the answer: TCP forgets what lies unread at a reset.
    async fn send_whole(&self, from: &Caller) -> Result<Answer> {
        let is_large = self.body.as_ref().is_some_and(|body| body.len() > LARGE);
        for _ in 0..AGAIN_MAX {
            match self.send_once(from).await {
                Err(_) if is_large => tokio::time::sleep(AGAIN_AFTER).await,
                answered => return answered,
            }
        }
        self.send_once(from).await
    }

    /// The first answer, whatever it is.
    pub async fn send_once(&self, from: &Caller) -> Result<Answer> {
        let url = match self.path.strip_prefix('!') {
            Some(path) => format!("{}{path}", from.api),
            None => format!("{}/api/v1{}", from.api, self.path),
        };
        let mut request = from.http.request(self.method.clone(), url).headers(self.headers.clone());
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let answer = request.send().await.with_context(|| format!("{} {}", self.method, self.path))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.with_context(|| format!("the answer to {} {}", self.method, self.path))?;
        Ok(Answer { status, headers, body })
    }
}

/// An address to call from. The whole of 127.0.0.0/8 is this machine, so each attacker gets an address of its own, and
/// what one of them is locked out for, no other is.
#[derive(Debug, Clone)]
pub struct Caller {
    http: Client,
    api: String,
    pub address: IpAddr,
}

impl Caller {
    pub fn of(api: &str, address: IpAddr) -> Result<Caller> {
        // A connection each: one that the API has just ended, as it does after a body it refused to read, is none to reuse.
        let http =
            Client::builder().timeout(LIMIT).pool_max_idle_per_host(0).local_address(address).no_proxy().build()?;
        Ok(Caller { http, api: api.to_owned(), address })
    }

    /// From an address that nobody has called from.
    pub fn stranger(api: &str) -> Result<Caller> {
        let [a, b, c]: [u8; 3] = rand::random();
        // Ending in neither 0 nor 255; 127.0.0.x belongs to those who mean well.
        Caller::of(api, IpAddr::V4(Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))))
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Stable code of a problem; empty for anything else.
    pub fn code(&self) -> String {
        if self.status < 400 {
            return String::new();
        }
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A text of the body, which has to be there.
    pub fn field(&self, name: &str) -> Result<String> {
        let text = self.json()[name].as_str().map(str::to_owned);
        text.with_context(|| format!("no {name} in {}", self.brief()))
    }

    /// The answer, or an error when it is no success: for steps that prepare an attack.
    pub fn succeeded(self) -> Result<Answer> {
        anyhow::ensure!((200..300).contains(&self.status), "{}", self.brief());
        Ok(self)
    }

    /// `401 unauthenticated`
    pub fn brief(&self) -> String {
        let code = self.code();
        match (code.is_empty(), self.status) {
            (false, status) => format!("{status} {code}"),
            (true, status @ 200..300) => status.to_string(),
            (true, status) => format!("{status} {}", self.text().chars().take(80).collect::<String>()),
        }
    }
}
