//! What a benchmark may switch off to see what it costs. Only a build with the feature `switches` can: in every other
//! one nothing is ever off, and the question costs nothing. `./dev bench security` makes that build for itself.

/// A part of the path of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The proof of who asks: terminals name themselves in a header.
    Authentication,
    /// The search for card data in bodies, headers, path and query.
    CardFilter,
    /// The audit row of a sale.
    Audit,
}

#[cfg(not(feature = "switches"))]
pub const fn is_off(_: Part) -> bool {
    false
}

#[cfg(feature = "switches")]
pub use on::*;

#[cfg(feature = "switches")]
mod on {
    use std::sync::LazyLock;

    use axum::http::HeaderMap;
    use schemas::ids::{LocationId, TerminalId};

    use super::Part;
    use crate::access::Principal;
    use crate::error::ApiError;

    #[expect(clippy::disallowed_methods, reason = "no setting: no build that is deployed has it")]
    static OFF: LazyLock<Option<Part>> = LazyLock::new(|| {
        let off = match std::env::var("VORCA_SWITCHED_OFF").ok()?.as_str() {
            "authentication" => Part::Authentication,
            "card_filter" => Part::CardFilter,
            "audit" => Part::Audit,
            _ => return None,
        };
        tracing::error!(?off, "a build for benchmarks with a part switched off: never serve tills with it");
        Some(off)
    });

    /// Whether the part is switched off in this process.
    pub fn is_off(part: Part) -> bool {
        *OFF == Some(part)
    }

    /// The terminal that a request says it is: `X-Terminal: <terminal_id> <location_id>`.
    pub fn unproven(headers: &HeaderMap) -> Result<Principal, ApiError> {
        let named = headers.get("x-terminal").and_then(|value| value.to_str().ok()?.split_once(' '));
        let (terminal, location) = named.ok_or_else(ApiError::unauthenticated)?;
        let parsed = |id: &str| uuid::Uuid::parse_str(id).map_err(|_| ApiError::unauthenticated());
        Ok(Principal::Terminal {
            terminal_id: TerminalId(parsed(terminal)?),
            location_id: LocationId(parsed(location)?),
        })
    }
}
