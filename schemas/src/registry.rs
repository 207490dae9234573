//! The schema registry (Confluent's REST interface): registers the contract, finds schemas by id.
//!
//! Only `ingest-api migrate` registers. Everybody else asks, and caches what it was told in
//! [`crate::codec::Codec`]; nothing here caches, so an error is never remembered.

use std::error::Error as _;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use schema_registry_converter::schema_registry_common::{RawError, SchemaType};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::codec::{DecodeError, SUBJECTS, subject};

/// Every reader can read every writer, in both directions and over all versions.
pub const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// Time one call may take, connecting included.
const CALL_LIMIT: Duration = Duration::from_secs(30);
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// What went wrong with the registry, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("the schema registry at {url} did not answer: {cause}; check VORCA__REGISTRY__URL and that it runs")]
    Unavailable { url: String, cause: String },
    #[error(
        "the schema registry refused {subject}: the schema is not {COMPATIBILITY} compatible with a registered one \
         ({cause}); never rename, retype or remove a field: add one with a default, or make a new topic version"
    )]
    Incompatible { subject: String, cause: String },
    #[error("{subject} does not hold the schema this build was compiled with: run `ingest-api migrate`")]
    NotRegistered { subject: String },
    #[error("the schema registry answered {status} to {call}: {cause}")]
    Refused { call: String, status: u16, cause: String },
}

/// A registered schema: what the relay frames records with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedSchema {
    /// `<topic>-value`.
    pub subject: String,
    /// Version of the record's schema file, as stored in the outbox.
    pub schema_version: i16,
    /// Id in the registry, as framed.
    pub schema_id: i32,
}

/// Sets [`COMPATIBILITY`] and registers every version of every subject, oldest first. Running it again
/// changes nothing and returns the same ids.
pub async fn register_all(url: &str) -> Result<Vec<PinnedSchema>, RegistryError> {
    let registry = Registry::new(url);
    registry.call(Method::PUT, "/config", Some(json!({ "compatibility": COMPATIBILITY }))).await?;
    let mut pinned = Vec::new();
    for one in SUBJECTS {
        let subject = subject(&one.topic);
        for schema in one.versions {
            let schema_id = registry.register(&subject, schema.json).await?;
            pinned.push(PinnedSchema { subject: subject.clone(), schema_version: schema.version, schema_id });
        }
    }
    Ok(pinned)
}

/// A client of one registry.
#[derive(Clone)]
pub struct Registry {
    url: String,
    /// None: there is no registry to ask (a codec with known ids).
    http: Option<(reqwest::Client, SrSettings)>,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: i32,
}

#[derive(Deserialize)]
struct CompatibleAnswer {
    is_compatible: bool,
}

impl Registry {
    /// A client for the registry at this base URL, for instance `http://127.0.0.1:8081/apis/ccompat/v7`.
    pub fn new(url: &str) -> Registry {
        let url = url.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder().timeout(CALL_LIMIT).build().ok();
        let settings = SrSettings::new_builder(url.clone()).set_timeout(CALL_LIMIT).build().ok();
        Registry { http: http.zip(settings), url }
    }

    pub(crate) fn offline() -> Registry {
        Registry { url: "(none)".to_owned(), http: None }
    }

    /// Registers a schema under a subject, or finds it there; returns its id.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<i32, RegistryError> {
        let path = format!("/subjects/{subject}/versions");
        match self.call(Method::POST, &path, Some(json!({ "schema": schema }))).await {
            Ok(answer) => self.parse::<IdAnswer>(&path, answer).map(|answer| answer.id),
            Err(RegistryError::Refused { status: 409, cause, .. }) => {
                Err(RegistryError::Incompatible { subject: subject.to_owned(), cause })
            }
            Err(other) => Err(other),
        }
    }

    /// Whether the schema could be registered under the subject beside all versions it holds. A subject
    /// that holds none takes anything.
    pub async fn compatible(&self, subject: &str, schema: &str) -> Result<bool, RegistryError> {
        let path = format!("/compatibility/subjects/{subject}/versions");
        match self.call(Method::POST, &path, Some(json!({ "schema": schema }))).await {
            Ok(answer) => self.parse::<CompatibleAnswer>(&path, answer).map(|answer| answer.is_compatible),
            Err(RegistryError::Refused { status: 404, .. }) => Ok(true),
            Err(other) => Err(other),
        }
    }

    /// Id of exactly this schema under the subject; never registers.
    pub async fn id_of(&self, subject: &str, schema: &str) -> Result<i32, RegistryError> {
        let path = format!("/subjects/{subject}");
        match self.call(Method::POST, &path, Some(json!({ "schema": schema }))).await {
            Ok(answer) => self.parse::<IdAnswer>(&path, answer).map(|answer| answer.id),
            Err(RegistryError::Refused { status: 404, .. }) => {
                Err(RegistryError::NotRegistered { subject: subject.to_owned() })
            }
            Err(other) => Err(other),
        }
    }

    /// Text of the schema with this id. An id the registry does not know makes the record malformed.
    pub(crate) async fn schema_by_id(&self, id: i32) -> Result<String, DecodeError> {
        let unknown = || DecodeError::Malformed(format!("unknown schema id {id}"));
        let Ok(number) = u32::try_from(id) else { return Err(unknown()) };
        let Some((_, settings)) = &self.http else {
            return Err(DecodeError::Unavailable(format!(
                "schema id {id} is not known and there is no registry to ask"
            )));
        };
        match get_schema_by_id(number, settings).await {
            Ok(found) if found.schema_type == SchemaType::Avro => Ok(found.schema),
            Ok(found) => Err(DecodeError::Malformed(format!("schema id {id} is no Avro but {:?}", found.schema_type))),
            // 404nn is the registry's own "no such schema"; a bare 404 is some other server
            Err(error) => match error.source().and_then(|source| source.downcast_ref::<RawError>()) {
                Some(raw) if raw.error_code / 100 == 404 => Err(unknown()),
                _ => Err(DecodeError::Unavailable(error.to_string())),
            },
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, RegistryError> {
        let unavailable = |cause: String| RegistryError::Unavailable { url: self.url.clone(), cause };
        let Some((http, _)) = &self.http else { return Err(unavailable("no registry is configured".to_owned())) };
        let call = format!("{method} {path}");
        let mut request = http.request(method, format!("{}{path}", self.url)).header("accept", MEDIA_TYPE);
        if let Some(body) = body {
            request = request.header("content-type", MEDIA_TYPE).body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| unavailable(chain(&error)))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| unavailable(chain(&error)))?;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(unavailable(format!("{status} to {call}: {}", message(&text))));
        }
        if !status.is_success() {
            return Err(RegistryError::Refused { call, status: status.as_u16(), cause: message(&text) });
        }
        serde_json::from_str(&text).map_err(|error| unavailable(format!("{call} answered no JSON: {error}")))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, path: &str, answer: Value) -> Result<T, RegistryError> {
        serde_json::from_value(answer).map_err(|error| RegistryError::Unavailable {
            url: self.url.clone(),
            cause: format!("unexpected answer to {path}: {error}"),
        })
    }
}

/// The registry's own message, shortened, or what came instead of one.
fn message(text: &str) -> String {
    let message = serde_json::from_str::<Value>(text)
        .ok()
        .and_then(|body| body.get("message").and_then(Value::as_str).map(str::to_owned));
    message.unwrap_or_else(|| text.to_owned()).chars().take(500).collect()
}

/// An error with its causes: reqwest's outermost one only says that sending failed.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
