//! Access tokens: EdDSA JWT of ten minutes, the only algorithm there is.
//!
//! The audience says whom a token is for (a user, a till of one location, an API client), and `typ` whether it opens the
//! API or only the enrolment of a second factor; what its holder may do is read from Postgres on every request.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, Header, Validation};
use moka::sync::Cache;
use schemas::ids::{LocationId, TerminalId, UserId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::keys::{Ring, SigningKey};

#[cfg(test)]
mod tests;

/// How long an access token lasts.
pub const LIFETIME_SECONDS: i64 = 600;
/// Clock error allowed between nodes.
pub const LEEWAY_SECONDS: i64 = 30;
const ACCESS_TYPE: &str = "at+jwt";
const ENROL_TYPE: &str = "enrol+jwt";
const TOKEN_BYTES_MAX: usize = 2_048;
const API_AUDIENCE: &str = "vorca-api";
const ENROL_AUDIENCE: &str = "vorca-enrol";
const CLIENT_AUDIENCE: &str = "vorca-client";
const TILL_AUDIENCE: &str = "vorca-till:";
/// Tokens whose signature has been checked; one check costs more than the rest of a request.
const VERIFIED_MAX: u64 = 20_000;

/// What an access token says. Every claim is required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    pub sub: Uuid,
    pub jti: Uuid,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    /// The session it belongs to; for who has none, a number of its own.
    pub sid: Uuid,
    /// Session version: a token with an older one than Postgres holds is worth nothing.
    pub sv: i32,
}

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    User(UserId),
    /// A user whose password was right and who has to set up a second factor before anything else.
    Enrolling(UserId),
    Terminal(TerminalId, LocationId),
    Client(Uuid),
}

impl Subject {
    fn audience(self) -> String {
        match self {
            Subject::User(_) => API_AUDIENCE.to_owned(),
            Subject::Enrolling(_) => ENROL_AUDIENCE.to_owned(),
            Subject::Client(_) => CLIENT_AUDIENCE.to_owned(),
            Subject::Terminal(_, location) => format!("{TILL_AUDIENCE}{location}"),
        }
    }

    fn id(self) -> Uuid {
        match self {
            Subject::User(user) | Subject::Enrolling(user) => user.0,
            Subject::Terminal(terminal, _) => terminal.0,
            Subject::Client(client) => client,
        }
    }

    fn token_type(self) -> &'static str {
        if matches!(self, Subject::Enrolling(_)) { ENROL_TYPE } else { ACCESS_TYPE }
    }
}

impl Claims {
    /// None when the audience is not one of ours.
    pub fn subject(&self) -> Option<Subject> {
        match self.aud.as_str() {
            API_AUDIENCE => return Some(Subject::User(UserId(self.sub))),
            ENROL_AUDIENCE => return Some(Subject::Enrolling(UserId(self.sub))),
            CLIENT_AUDIENCE => return Some(Subject::Client(self.sub)),
            _ => {}
        }
        let location = self.aud.strip_prefix(TILL_AUDIENCE)?.parse().ok()?;
        Some(Subject::Terminal(TerminalId(self.sub), location))
    }
}

/// A token as it is handed out.
#[derive(Clone, Serialize, ToSchema)]
pub struct IssuedToken {
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Uuid>,
}

/// Signs and verifies with the keys of the moment.
pub struct Tokens {
    ring: ArcSwap<Ring>,
    validation: Validation,
    issuer: String,
    /// With the key that had signed: it may be taken back.
    verified: Cache<String, (Arc<str>, Claims)>,
}

impl Tokens {
    /// With one key, which signs and is accepted.
    pub fn new(key: SigningKey, issuer: &str) -> Self {
        // A provider set earlier in this process is the same one.
        let _already_set = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_SECONDS as u64;
        validation.validate_nbf = true;
        // Audiences of tills are many: checked below, with the subject.
        validation.validate_aud = false;
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        Tokens {
            ring: ArcSwap::from_pointee(Ring::of(key)),
            validation,
            issuer: issuer.to_owned(),
            verified: Cache::builder()
                .max_capacity(VERIFIED_MAX)
                .time_to_live(Duration::from_secs((LIFETIME_SECONDS + LEEWAY_SECONDS) as u64))
                .build(),
        }
    }

    /// The keys from now on. Tokens of a key that is not among them are worth nothing, checked before or not.
    pub fn set_ring(&self, ring: Ring) {
        self.ring.store(Arc::new(ring));
    }

    /// The keys of the moment.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.load_full()
    }

    /// A token of ten minutes for this subject at its present session version; `session` is nil for who has none.
    pub fn issue(&self, subject: Subject, session: Uuid, session_version: i32) -> anyhow::Result<IssuedToken> {
        let now = chrono::Utc::now().timestamp();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: subject.audience(),
            sub: subject.id(),
            jti: Uuid::new_v4(),
            iat: now,
            nbf: now,
            exp: now + LIFETIME_SECONDS,
            sid: session,
            sv: session_version,
        };
        let id = Some(subject.id());
        Ok(IssuedToken {
            access_token: self.sign(&claims)?,
            token_type: "Bearer",
            expires_in: LIFETIME_SECONDS,
            user_id: id.filter(|_| matches!(subject, Subject::User(_) | Subject::Enrolling(_))),
            terminal_id: id.filter(|_| matches!(subject, Subject::Terminal(..))),
            client_id: id.filter(|_| matches!(subject, Subject::Client(_))),
        })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token text of these claims.
    pub fn sign(&self, claims: &Claims) -> anyhow::Result<String> {
        self.sign_as(claims.subject().map_or(ACCESS_TYPE, Subject::token_type), claims)
    }

    /// Signs something that is no access token, and says so in `typ`.
    pub fn sign_as(&self, typ: &str, claims: &impl Serialize) -> anyhow::Result<String> {
        let ring = self.ring.load();
        let key = ring.signing(chrono::Utc::now())?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        header.kid = Some(key.kid().to_owned());
        Ok(jsonwebtoken::encode(&header, claims, key.encoding())?)
    }

    /// What we signed as `typ` for this audience, whether it is over or not; None for everything else.
    pub fn open_as<C: DeserializeOwned + Clone>(&self, typ: &str, audience: &str, token: &str) -> Option<C> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (kid, found) = signed_by(token)?;
        let ring = self.ring.load();
        let key = ring.accepted(&kid, chrono::Utc::now()).filter(|_| found.as_deref() == Some(typ))?;
        let mut validation = self.validation.clone();
        validation.validate_exp = false;
        validation.validate_aud = true;
        validation.set_audience(&[audience]);
        Some(jsonwebtoken::decode::<C>(token, key.decoding(), &validation).ok()?.claims)
    }

    /// The claims of a genuine token that is in force; nothing about why not.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (kid, claims) = match self.verified.get(token) {
            Some(verified) => verified,
            None => {
                let verified = self.check(token)?;
                self.verified.insert(token.to_owned(), verified.clone());
                verified
            }
        };
        let now = chrono::Utc::now();
        let is_in_force = claims.exp.saturating_add(LEEWAY_SECONDS) > now.timestamp();
        (is_in_force && self.ring.load().accepted(&kid, now).is_some()).then_some(claims)
    }

    fn check(&self, token: &str) -> Option<(Arc<str>, Claims)> {
        let (now, (kid, typ)) = (chrono::Utc::now(), signed_by(token)?);
        let ring = self.ring.load();
        let key = ring.accepted(&kid, now)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key.decoding(), &self.validation).ok()?.claims;
        let is_plausible = claims.iat <= now.timestamp() + LEEWAY_SECONDS
            && claims.exp > claims.nbf
            && claims.exp.saturating_sub(claims.iat) <= LIFETIME_SECONDS;
        let is_ours = claims.subject().is_some_and(|subject| typ.as_deref() == Some(subject.token_type()));
        (is_plausible && is_ours).then(|| (kid.into(), claims))
    }
}

/// Key id and `typ` of a token that claims to be signed in our way and points to no key of its own.
fn signed_by(token: &str) -> Option<(String, Option<String>)> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    let points_elsewhere = header.jku.is_some()
        || header.jwk.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some();
    if header.alg != Algorithm::EdDSA || points_elsewhere {
        return None;
    }
    Some((header.kid?, header.typ))
}
