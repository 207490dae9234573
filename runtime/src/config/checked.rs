//! Addresses that are looked at when they are read: one that could never work stops the start, instead of being tried
//! for ever. The messages do not repeat the value, which may hold a password.

use axum::http::Uri;
use secrecy::SecretString;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use sqlx::postgres::PgConnectOptions;

pub(super) fn postgres_url<'de, D: Deserializer<'de>>(reader: D) -> Result<SecretString, D::Error> {
    let text = String::deserialize(reader)?;
    let has_scheme = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if !has_scheme || text.parse::<PgConnectOptions>().is_err() {
        return Err(D::Error::custom("expected postgres://user:password@host:port/database"));
    }
    Ok(text.into())
}

pub(super) fn redis_url<'de, D: Deserializer<'de>>(reader: D) -> Result<SecretString, D::Error> {
    let text = String::deserialize(reader)?;
    if redis::Client::open(text.as_str()).is_err() {
        return Err(D::Error::custom("expected redis://[:password@]host:port/0"));
    }
    Ok(text.into())
}

pub(super) fn http_url<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    let text = String::deserialize(reader)?;
    let is_usable = text.parse::<Uri>().is_ok_and(|uri| {
        let port = uri.authority().and_then(|authority| authority.as_str().rsplit_once(':'));
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && (port.is_none() || uri.port_u16().is_some() || uri.host().is_some_and(|host| host.ends_with(']')))
    });
    if is_usable { Ok(text) } else { Err(D::Error::custom("expected http://host:port")) }
}

pub(super) fn brokers<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    let text = String::deserialize(reader)?;
    let is_name = |host: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        !host.is_empty() && host.bytes().all(plain) || host.starts_with('[') && host.ends_with(']')
    };
    let is_broker = |broker: &str| {
        let place = broker.trim().rsplit_once(':');
        place.is_some_and(|(host, port)| is_name(host) && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if text.split(',').all(is_broker) { Ok(text) } else { Err(D::Error::custom("expected host:port[,host:port]")) }
}
