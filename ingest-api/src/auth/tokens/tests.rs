use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

fn tokens() -> Tokens {
    Tokens::new(SigningKey::from_pem(PEM).unwrap(), "vorca")
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

fn kid(tokens: &Tokens) -> String {
    tokens.ring().signing(chrono::Utc::now()).unwrap().kid().to_owned()
}

fn header(tokens: &Tokens) -> Value {
    json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid(tokens)})
}

#[test]
fn a_token_comes_back_as_it_was_issued() {
    let tokens = tokens();
    let (terminal, location) = (TerminalId(Uuid::new_v4()), LocationId(Uuid::new_v4()));
    let issued = tokens.issue(Subject::Terminal(terminal, location), Uuid::nil(), 3).unwrap();
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
        ("typ", json!("enrol+jwt")),
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
    let unsigned = forged(&json!({"alg": "none", "typ": "at+jwt", "kid": kid(&tokens)}), &claims().to_string());
    refused.push(format!("{}.", unsigned.rsplit_once('.').unwrap().0));
    refused.push(hs256_with_the_public_key(&tokens));
    for token in refused {
        assert_eq!(tokens.verify(&token), None, "{token}");
    }
}

fn hs256_with_the_public_key(tokens: &Tokens) -> String {
    let der = STANDARD.decode(PEM.lines().nth(1).unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
    let head = json!({"alg": "HS256", "typ": "at+jwt", "kid": kid(tokens)}).to_string();
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
    tokens.verified.insert(token.clone(), (kid(&tokens).into(), old));
    assert_eq!(tokens.verify(&token), None);
}

#[test]
fn a_token_opens_what_its_type_says() {
    let tokens = tokens();
    let user = UserId(Uuid::new_v4());
    let enrolling = tokens.issue(Subject::Enrolling(user), Uuid::nil(), 1).unwrap();
    let claims = tokens.verify(&enrolling.access_token).unwrap();
    assert_eq!(claims.subject(), Some(Subject::Enrolling(user)));
    // The same claims under the type that opens the API, and the API's claims under the other.
    let text = serde_json::to_string(&claims).unwrap();
    assert_eq!(tokens.verify(&forged(&header(&tokens), &text)), None);
    let mut other = header(&tokens);
    other["typ"] = json!("enrol+jwt");
    assert_eq!(tokens.verify(&forged(&other, &self::claims().to_string())), None);
    let client = Uuid::new_v4();
    let issued = tokens.issue(Subject::Client(client), Uuid::nil(), 1).unwrap();
    assert_eq!((issued.client_id, issued.user_id), (Some(client), None));
    assert_eq!(tokens.verify(&issued.access_token).unwrap().subject(), Some(Subject::Client(client)));
}

#[test]
fn a_verified_token_ends_with_its_key() {
    let tokens = tokens();
    let token = tokens.sign(&serde_json::from_value(claims()).unwrap()).unwrap();
    assert!(tokens.verify(&token).is_some());
    tokens.set_ring(Ring::of(SigningKey::generate().unwrap()));
    assert_eq!(tokens.verify(&token), None);
}

/// Members of a header or of claims, with values of every kind.
fn members() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        any::<i64>().prop_map(|it| json!(it)),
        any::<f64>().prop_map(|it| json!(it)),
        ".{0,20}".prop_map(|it| json!(it)),
        Just(Value::Null),
        Just(json!(["EdDSA", {}])),
        Just(json!("vorca")),
        Just(json!("at+jwt")),
    ];
    let name = prop::sample::select(vec![
        "alg", "typ", "kid", "jku", "jwk", "x5u", "crit", "b64", "iss", "aud", "sub", "jti", "iat", "nbf", "exp",
        "sid", "sv",
    ]);
    prop::collection::vec((name, value), 1..4)
        .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn with(base: &Value, members: &Value) -> Value {
    let mut all = base.clone();
    for (name, value) in members.as_object().into_iter().flatten() {
        all[name] = value.clone();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_genuine_token_or_none(text in ".{0,300}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,80}", 0..5)) {
        let tokens = tokens();
        prop_assert_eq!(tokens.verify(&text), None);
        prop_assert_eq!(tokens.verify(&parts.join(".")), None);
    }

    #[test]
    fn a_token_with_another_byte_is_none(at in any::<prop::sample::Index>(), by in "[A-Za-z0-9_.-]") {
        let tokens = tokens();
        let good = tokens.issue(Subject::User(UserId(Uuid::nil())), Uuid::nil(), 1).unwrap().access_token;
        let at = at.index(good.len());
        let damaged = format!("{}{by}{}", &good[..at], &good[at + 1..]);
        // The last character of a signature has bits that mean nothing.
        prop_assume!(damaged != good && at + 1 < good.len());
        prop_assert_eq!(tokens.verify(&damaged), None);
    }

    #[test]
    fn whatever_is_signed_is_none_or_says_what_it_was_signed_with(head in members(), body in members()) {
        let tokens = tokens();
        let (header, claims) = (with(&header(&tokens), &head), with(&claims(), &body));
        if let Some(verified) = tokens.verify(&forged(&header, &claims.to_string())) {
            // Members that mean nothing to us are left out.
            for (name, value) in serde_json::to_value(&verified).unwrap().as_object().unwrap() {
                prop_assert_eq!(value, &claims[name]);
            }
            prop_assert!(verified.exp - verified.iat <= LIFETIME_SECONDS && verified.subject().is_some());
            prop_assert_eq!(&header["alg"], "EdDSA");
        }
    }

    #[test]
    fn claims_come_back_as_they_were_signed(id: u128, session: u128, version: i32, kind in 0..4) {
        let (tokens, id) = (tokens(), Uuid::from_u128(id));
        let subject = match kind {
            0 => Subject::User(UserId(id)),
            1 => Subject::Enrolling(UserId(id)),
            2 => Subject::Client(id),
            _ => Subject::Terminal(TerminalId(id), LocationId(Uuid::from_u128(session))),
        };
        let issued = tokens.issue(subject, Uuid::from_u128(session), version).unwrap();
        let claims = tokens.verify(&issued.access_token).unwrap();
        prop_assert_eq!((claims.subject(), claims.sid, claims.sv), (Some(subject), Uuid::from_u128(session), version));
    }
}
