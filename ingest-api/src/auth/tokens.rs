//! Access tokens: EdDSA JWT of ten minutes, the only algorithm there is.
//!
//! The audience says what a token is for (`vorca-api`, or `vorca-till:<location>`); what its holder may
//! do is read from Postgres on every request.

use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use moka::sync::Cache;
use schemas::ids::{LocationId, TerminalId, UserId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// How long an access token lasts.
pub const LIFETIME_SECONDS: i64 = 600;
/// Clock error allowed between nodes.
const LEEWAY_SECONDS: i64 = 30;
const TOKEN_TYPE: &str = "at+jwt";
const TOKEN_BYTES_MAX: usize = 2_048;
const API_AUDIENCE: &str = "vorca-api";
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
    /// Session family.
    pub sid: Uuid,
    /// Session version: a token with an older one than Postgres holds is worth nothing.
    pub sv: i32,
}

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    User(UserId),
    Terminal(TerminalId, LocationId),
}

impl Claims {
    /// None when the audience is not one of ours.
    pub fn subject(&self) -> Option<Subject> {
        if self.aud == API_AUDIENCE {
            return Some(Subject::User(UserId(self.sub)));
        }
        let location = self.aud.strip_prefix(TILL_AUDIENCE)?.parse().ok()?;
        Some(Subject::Terminal(TerminalId(self.sub), location))
    }
}

/// A token as it is handed out.
#[derive(Debug, Clone, Serialize, ToSchema)]
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
}

/// Signs and verifies.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    kid: String,
    issuer: String,
    verified: Cache<String, Claims>,
}

impl Tokens {
    /// From an Ed25519 private key in PKCS#8 PEM.
    pub fn from_pem(pem: &str, issuer: &str) -> anyhow::Result<Self> {
        // A provider set earlier in this process is the same one.
        let _already_set = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let der = STANDARD
            .decode(pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect::<String>())
            .map_err(|_| anyhow::anyhow!("it is not PEM"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|error| anyhow::anyhow!("it is not an Ed25519 key in PKCS#8: {error}"))?;
        let public = pair.public_key().as_ref().to_vec();
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_SECONDS as u64;
        validation.validate_nbf = true;
        // Audiences of tills are many: checked below, with the subject.
        validation.validate_aud = false;
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        let kid = URL_SAFE_NO_PAD.encode(&Sha256::digest(&public)[..12]);
        Ok(Tokens {
            encoding: EncodingKey::from_ed_pem(pem.as_bytes()).context("it is not an Ed25519 key")?,
            decoding: DecodingKey::from_ed_der(&public),
            validation,
            kid,
            issuer: issuer.to_owned(),
            verified: Cache::builder()
                .max_capacity(VERIFIED_MAX)
                .time_to_live(Duration::from_secs((LIFETIME_SECONDS + LEEWAY_SECONDS) as u64))
                .build(),
        })
    }

    /// A token of ten minutes for this subject at its present session version.
    pub fn issue(&self, subject: Subject, session_version: i32) -> anyhow::Result<IssuedToken> {
        let now = chrono::Utc::now().timestamp();
        let (aud, sub) = match subject {
            Subject::User(user) => (API_AUDIENCE.to_owned(), user.0),
            Subject::Terminal(terminal, location) => (format!("{TILL_AUDIENCE}{location}"), terminal.0),
        };
        let claims = Claims {
            iss: self.issuer.clone(),
            aud,
            sub,
            jti: Uuid::new_v4(),
            iat: now,
            nbf: now,
            exp: now + LIFETIME_SECONDS,
            sid: Uuid::new_v4(),
            sv: session_version,
        };
        let is_user = matches!(subject, Subject::User(_));
        Ok(IssuedToken {
            access_token: self.sign(&claims)?,
            token_type: "Bearer",
            expires_in: LIFETIME_SECONDS,
            user_id: is_user.then_some(sub),
            terminal_id: (!is_user).then_some(sub),
        })
    }

    /// The token text of these claims.
    pub fn sign(&self, claims: &Claims) -> anyhow::Result<String> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid = Some(self.kid.clone());
        Ok(jsonwebtoken::encode(&header, claims, &self.encoding)?)
    }

    /// The claims of a genuine token that is in force; nothing about why not.
    pub fn verify(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let claims = match self.verified.get(token) {
            Some(claims) => claims,
            None => {
                let claims = self.check(token)?;
                self.verified.insert(token.to_owned(), claims.clone());
                claims
            }
        };
        let now = chrono::Utc::now().timestamp();
        (claims.exp.saturating_add(LEEWAY_SECONDS) > now).then_some(claims)
    }

    fn check(&self, token: &str) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let points_elsewhere = header.jku.is_some()
            || header.jwk.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some()
            || header.crit.is_some();
        if header.alg != Algorithm::EdDSA
            || header.typ.as_deref() != Some(TOKEN_TYPE)
            || header.kid.as_deref() != Some(&self.kid)
            || points_elsewhere
        {
            return None;
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation).ok()?.claims;
        let now = chrono::Utc::now().timestamp();
        let is_plausible = claims.iat <= now + LEEWAY_SECONDS
            && claims.exp > claims.nbf
            && claims.exp.saturating_sub(claims.iat) <= LIFETIME_SECONDS;
        (is_plausible && claims.subject().is_some()).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    fn tokens() -> Tokens {
        Tokens::from_pem(PEM, "vorca").unwrap()
    }

    fn claims() -> Value {
        let now = chrono::Utc::now().timestamp();
        json!({"iss": "vorca", "aud": "vorca-api", "sub": Uuid::new_v4(), "jti": Uuid::new_v4(), "iat": now,
               "nbf": now, "exp": now + 600, "sid": Uuid::new_v4(), "sv": 1})
    }

    /// A token with any header and claims, signed by our own key.
    fn forged(header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let der = STANDARD.decode(PEM.lines().nth(1).unwrap()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())))
    }

    fn header(tokens: &Tokens) -> Value {
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": tokens.kid})
    }

    #[test]
    fn a_token_comes_back_as_it_was_issued() {
        let tokens = tokens();
        let (terminal, location) = (TerminalId(Uuid::new_v4()), LocationId(Uuid::new_v4()));
        let issued = tokens.issue(Subject::Terminal(terminal, location), 3).unwrap();
        let claims = tokens.verify(&issued.access_token).unwrap();
        assert_eq!((claims.subject(), claims.sv), (Some(Subject::Terminal(terminal, location)), 3));
        assert!(tokens.verify(&forged(&header(&tokens), &self::claims().to_string())).is_some(), "the forge works");
    }

    #[test]
    fn jwt_rejects_wrong_alg_expired_wrong_aud() {
        let tokens = tokens();
        let good = header(&tokens);
        let changed = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            claims.to_string()
        };
        let now = chrono::Utc::now().timestamp();
        let mut refused: Vec<String> = vec![String::new(), "a.b.c".into(), "x".repeat(5_000)];
        for (name, value) in [
            ("exp", json!(now - 31)),
            ("exp", json!((now + 600).to_string())),
            ("exp", json!([now + 600])),
            ("exp", json!(-1)),
            ("exp", json!(now + 100_000)),
            ("nbf", json!(now + 60)),
            ("nbf", json!(now.to_string())),
            ("iat", json!(now + 60)),
            ("iss", json!("other")),
            ("aud", json!("other")),
            ("aud", json!("vorca-till:")),
            ("aud", json!(["vorca-api"])),
            ("sub", json!("root")),
        ] {
            refused.push(forged(&good, &changed(name, value)));
        }
        refused.push(forged(&good, &claims().to_string().replace("\"sv\"", "\"exp\":1e400,\"sv\"")));
        for name in ["iss", "aud", "sub", "jti", "iat", "nbf", "exp", "sid", "sv"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            refused.push(forged(&good, &claims.to_string()));
        }
        for (name, value) in [
            ("alg", json!("none")),
            ("alg", json!("nOnE")),
            ("alg", json!("HS256")),
            ("typ", json!("JWT")),
            ("kid", json!("../../etc/passwd")),
            ("kid", json!("' or 1=1 --")),
            ("kid", Value::Null),
            ("jku", json!("https://example.org/keys")),
            ("x5u", json!("https://example.org/cert")),
        ] {
            let mut header = good.clone();
            header[name] = value;
            refused.push(forged(&header, &claims().to_string()));
        }
        let unsigned = forged(&json!({"alg": "none", "typ": "at+jwt", "kid": tokens.kid}), &claims().to_string());
        refused.push(format!("{}.", unsigned.rsplit_once('.').unwrap().0));
        refused.push(hs256_with_the_public_key(&tokens));
        for token in refused {
            assert_eq!(tokens.verify(&token), None, "{token}");
        }
    }

    fn hs256_with_the_public_key(tokens: &Tokens) -> String {
        let der = STANDARD.decode(PEM.lines().nth(1).unwrap()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
        let head = json!({"alg": "HS256", "typ": "at+jwt", "kid": tokens.kid}).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims().to_string()));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, pair.public_key().as_ref());
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    #[test]
    fn a_verified_token_still_expires() {
        let tokens = tokens();
        let now = chrono::Utc::now().timestamp();
        let mut old: Claims = serde_json::from_value(claims()).unwrap();
        let token = tokens.sign(&old).unwrap();
        assert!(tokens.verify(&token).is_some());
        old.exp = now - 31;
        tokens.verified.insert(token.clone(), old);
        assert_eq!(tokens.verify(&token), None);
    }
}
