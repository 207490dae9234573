//! Redis: one shared connection that reconnects by itself, with explicit time limits. Nothing in Redis is
//! truth, so callers bypass it when it is slow or away.

use std::time::Duration;

use redis::Client;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use secrecy::ExposeSecret as _;

use crate::config::{ConfigError, Redis};

/// An answer takes at most this long; request paths give it less of their own.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);

/// A connection that is made at first use and again after each loss; a command in flight at a loss fails.
/// No blocking commands on it: others wait behind them. Only an unusable URL is an error.
pub fn connect(config: &Redis) -> Result<ConnectionManager, ConfigError> {
    let unusable = |error: redis::RedisError| ConfigError::new(format!("VORCA__REDIS__URL is not usable: {error}"));
    let client = Client::open(config.url.expose_secret()).map_err(unusable)?;
    let settings = ConnectionManagerConfig::new()
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_connection_timeout(Some(CONNECTION_TIMEOUT))
        .set_max_delay(RECONNECT_DELAY_MAX)
        .set_number_of_retries(2);
    ConnectionManager::new_lazy_with_config(client, settings).map_err(unusable)
}
