//! Configuration from the environment: `VORCA__<SECTION>__<KEY>`, or `VORCA__<SECTION>__<KEY>_FILE` naming a
//! file that holds the value (for secrets). Typed, read once at start; every error names the variable.
//!
//! A binary declares a struct with one field per section it reads; `Option<Section>` makes a section
//! optional. A section or key the struct does not know stops the start: a misspelt variable must not be
//! ignored in silence.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;

mod budgets;
mod checked;
mod de;
mod origins;
pub use budgets::{Quota, Quotas};
pub use de::ConfigError;
pub use origins::Origins;

const PREFIX: &str = "VORCA__";

/// The truth store.
#[derive(Debug, Clone, Deserialize)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database`
    #[serde(deserialize_with = "checked::postgres_url")]
    pub url: SecretString,
}

/// The event log.
#[derive(Debug, Clone, Deserialize)]
pub struct Kafka {
    /// `host:port[,host:port]`
    #[serde(deserialize_with = "checked::brokers")]
    pub brokers: String,
    /// Copies of each topic that `migrate` makes; 1 on one machine, 3 in production.
    #[serde(default = "one")]
    pub replication_factor: i32,
}

impl Kafka {
    /// Settings for one broker list, everything else by default.
    pub fn at(brokers: impl Into<String>) -> Self {
        Kafka { brokers: brokers.into(), replication_factor: one() }
    }
}

/// The schema registry (Confluent API).
#[derive(Debug, Clone, Deserialize)]
pub struct Registry {
    /// Base URL, for example `http://127.0.0.1:8081/apis/ccompat/v7`.
    #[serde(deserialize_with = "checked::http_url")]
    pub url: String,
}

/// The serving view and rate limits; nothing that cannot be rebuilt.
#[derive(Debug, Clone, Deserialize)]
pub struct Redis {
    /// `redis://[:password@]host:port/0`
    #[serde(deserialize_with = "checked::redis_url")]
    pub url: SecretString,
}

/// The analytics store, over HTTP.
#[derive(Debug, Clone, Deserialize)]
pub struct ClickHouse {
    /// `http://host:port`
    #[serde(deserialize_with = "checked::http_url")]
    pub url: String,
    pub user: String,
    pub password: SecretString,
}

/// The public API.
#[derive(Debug, Clone, Deserialize)]
pub struct Http {
    pub listen: SocketAddr,
    /// Clients connected at a time; one more is answered 503.
    #[serde(default = "connections_max")]
    pub connections_max: NonZeroU32,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is believed, separated by commas; none by default.
    #[serde(default)]
    pub trusted_proxies: TrustedProxies,
    /// Web pages whose scripts may call the API, separated by commas; none by default.
    #[serde(default)]
    pub cors_origins: Origins,
    /// Clients reach it over TLS alone, which a proxy ends: browsers are told to stay with it.
    #[serde(default)]
    pub behind_tls: bool,
}

impl Http {
    /// This address, everything else by default.
    pub fn at(listen: SocketAddr) -> Self {
        Http {
            listen,
            connections_max: connections_max(),
            trusted_proxies: TrustedProxies::default(),
            cors_origins: Origins::default(),
            behind_tls: false,
        }
    }
}

/// Proxies that may say on whose behalf a request comes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }
}

impl std::str::FromStr for TrustedProxies {
    type Err = AddrParseError;
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)))
            .collect::<Result<_, _>>()
            .map(TrustedProxies)
    }
}

impl<'de> Deserialize<'de> for TrustedProxies {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom("expected addresses or networks, separated by commas"))
    }
}

/// The admin port: health and metrics, never public.
#[derive(Debug, Clone, Deserialize)]
pub struct Admin {
    pub listen: SocketAddr,
}

/// Access tokens.
#[derive(Debug, Clone, Deserialize)]
pub struct Auth {
    /// Ed25519 private key, PKCS#8 PEM; normally given as `VORCA__AUTH__SIGNING_KEY_FILE`.
    pub signing_key: SecretString,
    #[serde(default = "issuer")]
    pub issuer: String,
}

/// Personal data: where its keys lie, and what they are wrapped with.
#[derive(Debug, Clone, Deserialize)]
pub struct Privacy {
    /// The key store, a Postgres database of its own: `postgres://user:password@host:port/database`
    #[serde(deserialize_with = "checked::postgres_url")]
    pub vault_url: SecretString,
    /// 32 random bytes in Base64 (`ingest-api new-key`), normally given as `VORCA__PRIVACY__MASTER_KEYS_FILE`; more
    /// than one while they change: the first wraps, the others still unwrap.
    pub master_keys: SecretString,
    /// 32 random bytes in Base64: what members are looked up by. Never changes.
    pub lookup_key: SecretString,
}

/// The worker's key for heads and roots of the audit log.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditSigner {
    /// Ed25519 private key, PKCS#8 PEM; normally given as `VORCA__AUDIT__SIGNING_KEY_FILE`.
    pub signing_key: SecretString,
}

/// Keys whose signatures under heads and roots of the audit log are believed.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditKeys {
    /// Ed25519 public keys, 32 bytes each in base64, between commas.
    pub public_keys: String,
}

/// Logging.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Log {
    #[serde(default)]
    pub level: Level,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

fn one() -> i32 {
    1
}

fn connections_max() -> NonZeroU32 {
    const { NonZeroU32::new(2_048).unwrap() }
}

fn issuer() -> String {
    "vorca".to_owned()
}

/// Reads the environment of this process into `T`. Errors name the variable.
#[expect(clippy::disallowed_methods, reason = "this is where configuration is read")]
pub fn load<T: DeserializeOwned>() -> Result<T, ConfigError> {
    from_vars(std::env::vars_os())
}

/// Like [`load`], from given variables; those without the prefix are ignored.
pub fn from_vars<T: DeserializeOwned>(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<T, ConfigError> {
    T::deserialize(de::Root { sections: sections(vars)? })
}

/// One value and the variable it came from.
#[derive(Debug, Clone)]
struct Value {
    variable: String,
    text: String,
}

type Section = BTreeMap<String, Value>;

fn sections(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<BTreeMap<String, Section>, ConfigError> {
    let mut sections: BTreeMap<String, Section> = BTreeMap::new();
    for (name, value) in vars {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)).map(str::to_owned) else { continue };
        let problem = |text: &str| ConfigError::new(format!("{name} {text}"));
        let Some((section, key)) = name[PREFIX.len()..].split_once("__") else {
            return Err(problem("is not of the form VORCA__SECTION__KEY"));
        };
        let text = value.into_string().map_err(|_| problem("is not valid UTF-8"))?;
        let (key, text) = match key.strip_suffix("_FILE") {
            None => (key, text),
            Some(key) => {
                let read = std::fs::read_to_string(&text)
                    // What it says is not repeated: some give the secret itself instead of a file.
                    .map_err(|e| problem(&format!("does not name a file that can be read: {e}")))?;
                (key, read.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        if section.is_empty() || key.is_empty() || key.contains("__") {
            return Err(problem("is not of the form VORCA__SECTION__KEY"));
        }
        let value = Value { variable: name.clone(), text };
        if let Some(other) =
            sections.entry(section.to_ascii_lowercase()).or_default().insert(key.to_ascii_lowercase(), value)
        {
            return Err(problem(&format!("and {} both give the same value: keep one", other.variable)));
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[derive(Debug, Deserialize)]
    struct Sample {
        postgres: Postgres,
        kafka: Kafka,
        http: Http,
        redis: Option<Redis>,
        registry: Option<Registry>,
        #[expect(dead_code, reason = "read, not looked at")]
        clickhouse: Option<ClickHouse>,
        #[serde(default)]
        budgets: Quotas,
        #[serde(default)]
        log: Log,
    }

    const GOOD: &[(&str, &str)] = &[
        ("VORCA__POSTGRES__URL", "postgres://u:p@h/d"),
        ("VORCA__KAFKA__BROKERS", "k:9092"),
        ("VORCA__HTTP__LISTEN", "127.0.0.1:0"),
        ("PATH", "/bin"),
        ("VORCA_HOME", "ignored"),
    ];

    fn read(changes: &[(&str, Option<&str>)]) -> Result<Sample, ConfigError> {
        let mut vars: BTreeMap<OsString, OsString> = GOOD.iter().map(|(k, v)| (k.into(), v.into())).collect();
        for (key, value) in changes {
            match value {
                Some(value) => vars.insert(key.into(), value.into()),
                None => vars.remove(&OsString::from(key)),
            };
        }
        from_vars(vars)
    }

    fn refused(changes: &[(&str, Option<&str>)]) -> String {
        read(changes).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_good_environment_is_read_with_defaults() {
        let sample = read(&[("VORCA__KAFKA__REPLICATION_FACTOR", Some("3"))]).unwrap();
        assert_eq!(sample.postgres.url.expose_secret(), "postgres://u:p@h/d");
        assert_eq!((sample.kafka.brokers.as_str(), sample.kafka.replication_factor), ("k:9092", 3));
        assert_eq!(read(&[]).unwrap().kafka.replication_factor, 1);
        assert_eq!((sample.http.listen.port(), sample.http.connections_max.get()), (0, 2_048));
        let more = read(&[("VORCA__HTTP__CONNECTIONS_MAX", Some("9"))]).unwrap();
        assert_eq!(more.http.connections_max.get(), 9);
        assert!(sample.redis.is_none());
        assert_eq!(sample.log.level, Level::Info);
        assert!(!format!("{sample:?}").contains("u:p@h"), "secrets must not be printed");
    }

    #[test]
    fn trusted_proxies_are_addresses_and_networks() {
        let proxies = |text| read(&[("VORCA__HTTP__TRUSTED_PROXIES", Some(text))]).unwrap().http.trusted_proxies;
        let some = proxies("10.1.0.0/16, 192.0.2.7,2001:db8::/32");
        for (address, is_trusted) in
            [("10.1.2.3", true), ("10.2.0.1", false), ("192.0.2.7", true), ("192.0.2.8", false), ("2001:db8::7", true)]
        {
            assert_eq!(some.contains(address.parse().unwrap()), is_trusted, "{address}");
        }
        assert_eq!(proxies(""), TrustedProxies::default());
        let text = refused(&[("VORCA__HTTP__TRUSTED_PROXIES", Some("10.0.0.0/8, proxy.example"))]);
        assert!(text.starts_with("VORCA__HTTP__TRUSTED_PROXIES"), "{text}");
    }

    #[test]
    fn a_missing_value_names_its_variable() {
        assert!(refused(&[("VORCA__KAFKA__BROKERS", None)]).starts_with("VORCA__KAFKA__BROKERS is missing"));
        assert!(refused(&[("VORCA__POSTGRES__URL", None)]).starts_with("VORCA__POSTGRES__URL is missing"));
    }

    #[test]
    fn a_value_of_the_wrong_kind_names_its_variable() {
        let text = refused(&[("VORCA__KAFKA__REPLICATION_FACTOR", Some("many"))]);
        assert!(text.starts_with("VORCA__KAFKA__REPLICATION_FACTOR"), "{text}");
        let text = refused(&[("VORCA__HTTP__LISTEN", Some("8080"))]);
        assert!(text.starts_with("VORCA__HTTP__LISTEN"), "{text}");
        let text = refused(&[("VORCA__HTTP__CONNECTIONS_MAX", Some("0"))]);
        assert!(text.starts_with("VORCA__HTTP__CONNECTIONS_MAX"), "{text}");
        let text = refused(&[("VORCA__LOG__LEVEL", Some("loud"))]);
        assert!(text.starts_with("VORCA__LOG__LEVEL") && text.contains("debug"), "{text}");
    }

    #[test]
    fn an_address_that_could_never_be_reached_names_its_variable() {
        for (variable, bad) in [
            ("VORCA__POSTGRES__URL", &["", "db:5432", "mysql://u:secret@h/d", "postgres://u:secret@h:x/d"][..]),
            ("VORCA__REDIS__URL", &["h:6379", "http://secret@h", "redis://:secret@h:x"]),
            ("VORCA__CLICKHOUSE__URL", &["", "h:8123", "http://", "tcp://h:9000", "http://h:x", "http://a b"]),
            ("VORCA__REGISTRY__URL", &["", "localhost:8081", "https//h", "/apis"]),
            ("VORCA__KAFKA__BROKERS", &["", "k", "k:", ":9092", "k:9092,", "k:9092;l:9092", "k:99999"]),
        ] {
            for bad in bad {
                let text = refused(&[
                    ("VORCA__CLICKHOUSE__USER", Some("u")),
                    ("VORCA__CLICKHOUSE__PASSWORD", Some("p")),
                    (variable, Some(bad)),
                ]);
                assert!(text.starts_with(&format!("{variable} is not usable: expected")), "{bad}: {text}");
                assert!(!text.contains("secret"), "{text}");
            }
        }
        let good = [
            ("VORCA__KAFKA__BROKERS", Some("a:9092, [::1]:9093")),
            ("VORCA__REGISTRY__URL", Some("https://registry/apis/ccompat/v7")),
        ];
        assert_eq!(read(&good).unwrap().registry.unwrap().url, "https://registry/apis/ccompat/v7");
    }

    #[test]
    fn unknown_keys_sections_and_shapes_are_refused() {
        let text = refused(&[("VORCA__KAFKA__BROKER", Some("k"))]);
        assert!(text.starts_with("VORCA__KAFKA__BROKER is not known") && text.contains("BROKERS"), "{text}");
        let text = refused(&[("VORCA__KAFAK__BROKERS", Some("k"))]);
        assert!(text.starts_with("VORCA__KAFAK__BROKERS is not known"), "{text}");
        assert!(refused(&[("VORCA__KAFKA", Some("k"))]).starts_with("VORCA__KAFKA is not of the form"));
        assert!(refused(&[("VORCA__KAFKA__A__B", Some("k"))]).starts_with("VORCA__KAFKA__A__B is not of the form"));
    }

    #[test]
    fn budgets_and_origins_are_looked_at_when_they_are_read() {
        let sample = read(&[("VORCA__BUDGETS__TILL", Some("350/300"))]).unwrap();
        assert_eq!((sample.budgets.till.requests(), sample.budgets.office), (350, Quotas::default().office));
        for (variable, bad) in [
            ("VORCA__BUDGETS__TILL", "350"),
            ("VORCA__BUDGETS__SIGN_IN", "0/60"),
            ("VORCA__HTTP__CORS_ORIGINS", "*"),
            ("VORCA__HTTP__BEHIND_TLS", "perhaps"),
        ] {
            let text = refused(&[(variable, Some(bad))]);
            assert!(text.starts_with(&format!("{variable} is not usable: expected")), "{text}");
        }
    }

    #[test]
    fn an_optional_section_is_whole_or_absent() {
        assert!(read(&[("VORCA__REDIS__URL", Some("redis://h"))]).unwrap().redis.is_some());
        assert!(refused(&[("VORCA__REDIS__URI", Some("x"))]).starts_with("VORCA__REDIS__URI is not known"));
    }

    #[test]
    fn a_secret_may_come_from_a_file() {
        let path = std::env::temp_dir().join(format!("vorca-config-{}", std::process::id()));
        std::fs::write(&path, "postgres://from-file\n").unwrap();
        let file = path.to_str().unwrap();
        let sample = read(&[("VORCA__POSTGRES__URL", None), ("VORCA__POSTGRES__URL_FILE", Some(file))]).unwrap();
        assert_eq!(sample.postgres.url.expose_secret(), "postgres://from-file");
        assert!(refused(&[("VORCA__POSTGRES__URL_FILE", Some(file))]).contains("both give the same value"));
        std::fs::remove_file(&path).unwrap();
        assert!(refused(&[("VORCA__POSTGRES__URL_FILE", Some(file))]).starts_with("VORCA__POSTGRES__URL_FILE"));
        let text = refused(&[("VORCA__POSTGRES__URL_FILE", Some("postgres://u:secret@h/d"))]);
        assert!(
            text.starts_with("VORCA__POSTGRES__URL_FILE does not name a file") && !text.contains("secret"),
            "{text}"
        );
    }
}
