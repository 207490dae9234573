//! Web pages that may call the API from a browser.

use std::str::FromStr;
use std::sync::Arc;

use axum::http::{HeaderValue, Uri};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Origins exactly as browsers send them: scheme, host and port, in lower case, without a path. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Arc<[HeaderValue]>);

impl Origins {
    pub fn iter(&self) -> impl Iterator<Item = &HeaderValue> {
        self.0.iter()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Something among them is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoOrigin;

/// Neither a wildcard nor `null`, which any page can be.
fn origin(text: &str) -> Result<HeaderValue, NoOrigin> {
    let uri: Uri = text.parse().map_err(|_| NoOrigin)?;
    let authority = uri.authority().ok_or(NoOrigin)?.as_str();
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or(NoOrigin)?;
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let is_plain = text == format!("{scheme}://{authority}")
        && text == text.to_ascii_lowercase()
        && !authority.contains(['@', '*'])
        && !authority.ends_with(default_port)
        && !authority.ends_with(':');
    if is_plain { HeaderValue::from_str(text).map_err(|_| NoOrigin) } else { Err(NoOrigin) }
}

impl FromStr for Origins {
    type Err = NoOrigin;
    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(origin).collect::<Result<_, _>>().map(Origins)
    }
}

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        let text = String::deserialize(reader)?;
        let wanted =
            "expected origins such as https://office.example, separated by commas: no path, no *, no default port";
        text.parse().map_err(|NoOrigin| D::Error::custom(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact() {
        let some: Origins = "https://office.example, http://127.0.0.1:3000".parse().unwrap();
        assert_eq!(some.iter().collect::<Vec<_>>(), ["https://office.example", "http://127.0.0.1:3000"]);
        assert!("".parse::<Origins>().unwrap().is_empty());
        for bad in [
            "*",
            "null",
            "office.example",
            "https://",
            "https://office.example/",
            "https://office.example/app",
            "https://*.example",
            "https://Office.example",
            "https://office.example:443",
            "https://user@office.example",
            "ftp://office.example",
            "https://a.example;https://b.example",
        ] {
            assert_eq!(bad.parse::<Origins>(), Err(NoOrigin), "{bad}");
        }
    }
}
