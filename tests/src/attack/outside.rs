//! A69, A70, A72: what stands beside the API, what may be seen of the inside, and pages of other origins.

use std::fs;

use anyhow::Result;
use serde_json::json;

use super::ask::{Ask, Caller};
use super::ground::{Ground, PASSWORD, log_in};
use super::trial::{Trial, Wanted};
use crate::session::Session;

/// Words that name what runs here.
const VERSIONS: [&str; 6] = ["postgres", "hyper/", "axum", "rustc", env!("CARGO_PKG_VERSION"), "librdkafka"];

/// A69
pub async fn secrets(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let (layout, identity) = (ground.stack.layout(), ground.stack.identity());
    let endpoints = ground.stack.endpoints()?;
    let names =
        ["postgres", "vorca", "vorca-app", "vorca-vault", "registry", "redis", "clickhouse-api", "clickhouse-sink"];
    let mut secrets: Vec<String> = names.iter().map(|name| identity.password(name).to_owned()).collect();
    secrets.extend([ground.owner_token().await?, endpoints.owner.password.clone(), PASSWORD.to_owned()]);
    secrets.extend(Session::of_owner(&endpoints).secret()?);
    for path in [layout.signing_key(), layout.audit_key()] {
        let key = fs::read_to_string(path)?;
        secrets.extend(key.lines().filter(|line| !line.starts_with("-----")).map(str::to_owned));
    }
    for (_, path) in layout.privacy_keys() {
        secrets.push(fs::read_to_string(path)?.trim().to_owned());
    }
    let mut look = |place: String, text: &str| {
        let told = secrets.iter().filter(|secret| secret.len() >= 8 && text.contains(secret.as_str())).count();
        trial.holds(place, format!("{told} secrets"), told == 0);
    };
    for (role, admin) in &endpoints.admin {
        let caller = Caller::of(admin, ground.caller.address)?;
        for path in ["/metrics", "/livez", "/readyz", "/startupz", "/debug", "/env", "/config", "/", "/debug/pprof"] {
            let answer = Ask::get(format!("!{path}")).send(&caller).await?;
            look(format!("{path} of {role}"), &format!("{:?} {}", answer.headers, answer.text()));
        }
    }
    for ask in [
        log_in(&ground.here.manager.login, "a password of somebody"),
        Ask::get("/none").bearer(&ground.owner_token().await?),
        Ask::post("/auth/login", &json!({"login": "x", "password": PASSWORD, "again": PASSWORD})),
        Ask::new("POST", "/auth/login").bytes(PASSWORD.to_owned()).header("content-type", "application/json"),
        Ask::get(format!("/variants?sku={}", "x".repeat(5_000))).bearer(&ground.owner_token().await?),
    ] {
        let answer = ask.send(&ground.stranger()?).await?;
        look(
            format!("the answer to {} {:.20}", ask.method, ask.path),
            &format!("{:?} {}", answer.headers, answer.text()),
        );
    }
    for service in crate::stack::Service::OURS {
        let log = fs::read(layout.log(service.name())).unwrap_or_default();
        look(format!("the log of {service}"), &String::from_utf8_lossy(&log));
    }
    Ok(())
}

/// A70
pub async fn doors_that_are_not_public(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let from = ground.stranger()?;
    let hidden: &[Wanted] = &[(404, "not_found"), (401, "unauthenticated")];
    for path in [
        "/metrics",
        "/admin",
        "/health",
        "/healthz",
        "/livez",
        "/readyz",
        "/startupz",
        "/status",
        "/debug",
        "/debug/pprof",
        "/env",
        "/actuator",
        "/actuator/env",
        "/server-status",
        "/.env",
        "/.git/config",
        "/config.json",
        "/phpinfo.php",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/sales",
        "/api/v1/metrics",
        "/api/v1/admin",
        "/api/v1/../../metrics",
        "/api/v1/%2e%2e/%2e%2e/metrics",
        "//metrics",
    ] {
        let answer = Ask::get(format!("!{path}")).send(&from).await?;
        trial.expect(path, &answer, hidden);
        let text = format!("{:?} {}", answer.headers, answer.text()).to_lowercase();
        let told: Vec<_> = VERSIONS.iter().filter(|word| text.contains(**word)).collect();
        trial.holds(format!("{path} names nothing that runs here"), format!("{told:?}"), told.is_empty());
    }
    for path in ["/api/v1/auth/jwks", "/docs/", "/api/v1/openapi.json"] {
        let answer = Ask::get(format!("!{path}")).send(&from).await?;
        trial.expect(format!("{path}, which is public"), &answer, &[(200, "")]);
    }
    Ok(())
}

/// A72
pub async fn pages_of_other_origins(ground: &Ground, trial: &mut Trial) -> Result<()> {
    let from = ground.stranger()?;
    let token = ground.token_of(&ground.here.manager).await?;
    for origin in ["https://evil.example", "null", "http://localhost", "https://vorca.example.evil.example", "file://"]
    {
        let asks = [
            ("reading", Ask::get("/locations").bearer(&token)),
            ("signing in", log_in(&ground.here.manager.login, PASSWORD)),
            (
                "asking first",
                Ask::new("OPTIONS", "/sales")
                    .header("access-control-request-method", "POST")
                    .header("access-control-request-headers", "authorization,idempotency-key"),
            ),
        ];
        for (what, ask) in asks {
            let answer = ask.header("origin", origin).header("cookie", "session=1").send(&from).await?;
            let allowed: Vec<&str> = answer
                .headers
                .keys()
                .map(|name| name.as_str())
                .filter(|name| {
                    matches!(*name, "access-control-allow-origin" | "access-control-allow-credentials" | "set-cookie")
                })
                .collect();
            trial.expect(
                format!("{what} from a page of {origin}"),
                &answer,
                &[(200, ""), (204, ""), (401, ""), (403, ""), (405, "")],
            );
            trial.holds(format!("{what}: no page of {origin} may see it"), format!("{allowed:?}"), allowed.is_empty());
        }
    }
    Ok(())
}
