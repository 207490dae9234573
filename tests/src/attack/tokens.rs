//! A1-A7, A18: tokens that are none of ours, or not for this. The signing key of the platform lies in its run folder, so
//! that what is forged here differs from a good token in the one thing that is tried.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::ask::Ask;
use super::ground::{Ground, PASSWORD, log_in};
use super::trial::{Trial, Wanted};

const UNKNOWN: &[Wanted] = &[(401, "unauthenticated")];
/// A route that everybody with a good token may read.
const OPEN_TO_ALL: &str = "/auth/account";

/// Signs what nobody else would.
struct Forge {
    key: Ed25519KeyPair,
    public: Vec<u8>,
    /// Of a token that is good.
    header: Value,
    claims: Value,
}

impl Forge {
    async fn open(ground: &Ground) -> Result<Forge> {
        let pem = fs::read_to_string(ground.stack.layout().signing_key())?;
        let der = STANDARD.decode(pem.lines().filter(|line| !line.starts_with("-----")).collect::<String>())?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok().context("the signing key")?;
        let token = ground.token_of(&ground.here.manager).await?;
        let part = |n: usize| -> Result<Value> {
            let part = token.split('.').nth(n).context("a token has three parts")?;
            Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
        };
        let keys = Ask::get("/auth/jwks").send(&ground.caller).await?.succeeded()?.json();
        let public = URL_SAFE_NO_PAD.decode(keys["keys"][0]["x"].as_str().context("no public key")?)?;
        Ok(Forge { key, public, header: part(0)?, claims: part(1)? })
    }

    fn head_with(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[name] = value;
        header.to_string()
    }

    fn claims_with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        claims.to_string()
    }

    /// The claims with one of them written as no JSON library would write it.
    fn claims_with_text(&self, name: &str, raw: &str) -> String {
        self.claims_with(name, json!("HERE")).replace("\"HERE\"", raw)
    }

    /// A token with our signature over whatever is given.
    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = body(header, claims);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref()))
    }

    fn good(&self) -> String {
        self.sign(&self.header.to_string(), &self.claims.to_string())
    }
}

fn body(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

async fn show(ground: &Ground, trial: &mut Trial, what: &str, token: &str) -> Result<()> {
    let answer = Ask::get(OPEN_TO_ALL).bearer(token).send(&ground.stranger()?).await?;
    trial.expect(what, &answer, UNKNOWN);
    Ok(())
}

/// What this forge signs is taken, so that a refusal is for what was changed.
async fn show_good(ground: &Ground, trial: &mut Trial, forge: &Forge) -> Result<()> {
    let answer = Ask::get(OPEN_TO_ALL).bearer(&forge.good()).send(&ground.stranger()?).await?;
    trial.expect("a token signed here that is right in all", &answer, &[(200, "")]);
    Ok(())
}

/// A1
pub async fn missing_or_garbage(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let good = ground.token_of(&ground.here.manager).await?;
    let from = ground.stranger()?;
    for (what, value) in [
        ("no token", None),
        ("an empty header", Some(String::new())),
        ("garbage", Some("Bearer garbage".to_owned())),
        ("no scheme", Some(good.clone())),
        ("another scheme", Some(format!("Basic {good}"))),
        ("a token cut short", Some(format!("Bearer {}", &good[..good.len() - 3]))),
        ("10 KB of dots", Some(format!("Bearer {}", ".".repeat(10_000)))),
        ("two tokens in one", Some(format!("Bearer {good},Bearer {good}"))),
    ] {
        let ask = Ask::get(OPEN_TO_ALL);
        let ask = if let Some(value) = value { ask.header("authorization", value) } else { ask };
        let answer = ask.send(&from).await?;
        trial.expect(what, &answer, UNKNOWN);
        let asks = answer.header("www-authenticate").to_owned();
        trial.holds("it asks for a token and says no more", asks.clone(), asks == "Bearer");
    }
    let twice = Ask::get(OPEN_TO_ALL).bearer(&good).bearer(&good).send(&from).await?;
    trial.expect("two headers", &twice, UNKNOWN);
    Ok(())
}

/// A2
pub async fn unsigned(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let forge = Forge::open(ground).await?;
    show_good(ground, trial, &forge).await?;
    for name in ["none", "nOnE", "NONE", "", "EdDSA "] {
        let header = forge.head_with("alg", json!(name));
        show(ground, trial, &format!("alg {name:?}"), &format!("{}.", body(&header, &forge.claims.to_string())))
            .await?;
        show(ground, trial, &format!("alg {name:?}, signed"), &forge.sign(&header, &forge.claims.to_string())).await?;
    }
    let bare = body(&forge.header.to_string(), &forge.claims.to_string());
    show(ground, trial, "the right alg and no signature", &format!("{bare}.")).await
}

/// A3
pub async fn signed_with_the_public_key(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let forge = Forge::open(ground).await?;
    let der = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &forge.public].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    let spellings = [
        ("its bytes", forge.public.clone()),
        ("its base64url", URL_SAFE_NO_PAD.encode(&forge.public).into_bytes()),
        ("its DER", der),
        ("its PEM", pem.into_bytes()),
    ];
    for (what, secret) in spellings {
        for (alg, kind) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
            let signed = body(&forge.head_with("alg", json!(alg)), &forge.claims.to_string());
            let tag = hmac::sign(&hmac::Key::new(kind, &secret), signed.as_bytes());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
            show(ground, trial, &format!("{alg} with the public key as {what}"), &token).await?;
        }
    }
    Ok(())
}

/// A4
pub async fn times_of_other_kinds(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let forge = Forge::open(ground).await?;
    let header = forge.header.to_string();
    for claim in ["exp", "nbf", "iat"] {
        for raw in ["\"9999999999\"", "[9999999999]", "1e400", "-1", "9223372036854775808", "null", "{}", "true"] {
            // Beginning long ago is no harm.
            if raw == "-1" && claim == "nbf" {
                continue;
            }
            let token = forge.sign(&header, &forge.claims_with_text(claim, raw));
            show(ground, trial, &format!("{claim} = {raw}"), &token).await?;
        }
    }
    Ok(())
}

/// A5
pub async fn outside_their_time_or_incomplete(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let forge = Forge::open(ground).await?;
    show_good(ground, trial, &forge).await?;
    let (header, now) = (forge.header.to_string(), chrono::Utc::now().timestamp());
    for (what, claims) in [
        ("expired a minute ago", json!({"exp": now - 60, "nbf": now - 600, "iat": now - 600})),
        ("not valid for a minute yet", json!({"nbf": now + 60, "iat": now, "exp": now + 600})),
        ("issued in the future", json!({"iat": now + 3_600, "nbf": now, "exp": now + 3_700})),
        ("good for a year", json!({"iat": now, "nbf": now, "exp": now + 31_536_000})),
        ("for another audience", json!({"aud": "another-api"})),
        ("for two audiences", json!({"aud": ["vorca-api", "another-api"]})),
        ("of another issuer", json!({"iss": "https://elsewhere.example"})),
        ("of another session version", json!({"sv": 1_000})),
        ("of a session that never was", json!({"sid": Uuid::now_v7()})),
        ("of a user who never was", json!({"sub": Uuid::now_v7()})),
    ] {
        let mut altered = forge.claims.clone();
        for (name, value) in claims.as_object().into_iter().flatten() {
            altered[name] = value.clone();
        }
        show(ground, trial, what, &forge.sign(&header, &altered.to_string())).await?;
    }
    for claim in ["aud", "iss", "jti", "sub", "exp", "nbf", "iat", "sid", "sv"] {
        let mut altered = forge.claims.clone();
        altered.as_object_mut().context("claims")?.remove(claim);
        show(ground, trial, &format!("without {claim}"), &forge.sign(&header, &altered.to_string())).await?;
    }
    Ok(())
}

/// A6
pub async fn keys_from_elsewhere(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let forge = Forge::open(ground).await?;
    let listening = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/keys", listening.local_addr()?);
    let claims = forge.claims.to_string();
    for kid in ["../../../../dev/null", "' OR 1=1--", url.as_str(), "", "\u{0}", "x".repeat(4_000).as_str()] {
        let token = forge.sign(&forge.head_with("kid", json!(kid)), &claims);
        show(ground, trial, &format!("kid {:?}", kid.chars().take(30).collect::<String>()), &token).await?;
    }
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&forge.public)});
    for (name, value) in [
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("jwk", jwk),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("kid", Value::Null),
        ("typ", json!("JWT")),
        ("typ", json!("enrol+jwt")),
    ] {
        show(ground, trial, &format!("{name} = {value}"), &forge.sign(&forge.head_with(name, value.clone()), &claims))
            .await?;
    }
    let called = tokio::time::timeout(Duration::from_millis(500), listening.accept()).await.is_ok();
    trial.holds("no call to the address in a token", if called { "called" } else { "silence" }, !called);
    Ok(())
}

/// A7
pub async fn tokens_in_the_place_of_others(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let from = ground.stranger()?;
    let session = ground.sign_in(&ground.here.manager).await?;
    show(ground, trial, "a refresh token as access token", &session.refresh).await?;
    let as_refresh = Ask::post("/auth/refresh", &json!({"refresh_token": session.access})).send(&from).await?;
    // Longer than any refresh token, so it is refused before it is looked up.
    trial.expect("an access token as refresh token", &as_refresh, &[(401, "unauthenticated"), (422, "invalid_value")]);
    let pending = pending_token(ground).await?;
    for path in [OPEN_TO_ALL, "/users", "/auth/sessions", "/locations"] {
        let answer = Ask::get(path).bearer(&pending).send(&from).await?;
        trial.expect(format!("a token for setting up a second factor on {path}"), &answer, UNKNOWN);
    }
    let till = ground.till(&ground.here).await?;
    let token = ground.token_of_till(&till).await?;
    let answer = Ask::get(OPEN_TO_ALL).bearer(&token).send(&from).await?;
    trial.expect("a till's token on what is a user's", &answer, &[(403, "forbidden")]);
    Ok(())
}

/// A18
pub async fn after_the_first_step_only(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let from = ground.stranger()?;
    let pending = pending_token(ground).await?;
    for ask in [
        Ask::get("/terminals"),
        Ask::get("/audit"),
        Ask::post("/locations", &json!({})),
        Ask::post("/api-clients", &json!({})),
        Ask::post("/auth/step-up", &json!({})),
    ] {
        let what = format!("{} {} with a password alone", ask.method, ask.path);
        trial.expect(what, &ask.bearer(&pending).send(&from).await?, UNKNOWN);
    }
    Ok(())
}

/// What the right password of an administrator without a second factor is answered with.
async fn pending_token(ground: &Ground) -> Result<String> {
    let admin = ground.person("it_admin", None).await?;
    let answer = log_in(&admin.login, PASSWORD).send(&ground.stranger()?).await?;
    anyhow::ensure!(answer.status == 202, "an administrator without a second factor: {}", answer.brief());
    answer.field("access_token")
}
