//! Framed bytes -> record, whatever version of the schema they were written with.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{PoisonError, RwLock};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::{Schema, from_value};

use super::record::{Record, subject};
use crate::registry::{self, Registry};

/// Why bytes did not become a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// These bytes will never decode: reject them.
    #[error("malformed record: {0}")]
    Malformed(String),
    /// The registry could not be asked: try again.
    #[error("schema registry unavailable: {0}")]
    Unavailable(String),
}

impl DecodeError {
    /// Stable code for dead-letter headers and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            DecodeError::Malformed(_) => "malformed_record",
            DecodeError::Unavailable(_) => "registry_unavailable",
        }
    }
}

/// Splits a Confluent frame into schema id and datum.
pub fn unframe(framed: &[u8]) -> Result<(i32, &[u8]), DecodeError> {
    match framed {
        [0, a, b, c, d, datum @ ..] => Ok((i32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [magic, _, _, _, _, ..] => Err(malformed(format!("magic byte {magic:#04x} instead of 0x00"))),
        short => Err(malformed(format!("a frame of {} bytes is shorter than its five-byte head", short.len()))),
    }
}

fn malformed(why: impl Into<String>) -> DecodeError {
    DecodeError::Malformed(why.into())
}

/// How records of one writer schema are read. Made once per schema id and kept for ever.
struct Reader {
    datum: GenericDatumReader<'static>,
    /// Written with another schema than ours, so every value is resolved to ours.
    resolves: bool,
}

impl Reader {
    fn new<E: Record>(writer: &'static Schema) -> Result<Reader, DecodeError> {
        let (ours, resolves) = (E::schema(), writer != E::schema());
        let writer_name = writer.name().map(|name| name.to_string());
        if writer_name != ours.name().map(|name| name.to_string()) {
            return Err(malformed(format!(
                "written as {}, expected {}",
                writer_name.unwrap_or_else(|| "no record".to_owned()),
                E::TOPIC.record
            )));
        }
        let datum = GenericDatumReader::builder(writer)
            .maybe_reader_schema(resolves.then_some(ours))
            .human_readable(true)
            .build()
            .map_err(|error| malformed(format!("the writer's schema does not resolve: {error}")))?;
        Ok(Reader { datum, resolves })
    }

    fn read<E: Record>(&self, datum: &[u8]) -> Result<E, DecodeError> {
        let mut bytes = Bytes { rest: datum, ran_out: false };
        let event = if self.resolves {
            self.datum.read_value(&mut bytes).and_then(|value| from_value::<E>(&value))
        } else {
            self.datum.read_deser(&mut bytes)
        }
        .map_err(|error| malformed(format!("{}: {error}", E::TOPIC.record)))?;
        match bytes {
            Bytes { ran_out: true, .. } => Err(malformed(format!("{}: truncated", E::TOPIC.record))),
            Bytes { rest: [], .. } => Ok(event),
            Bytes { rest, .. } => Err(malformed(format!("{}: {} bytes are left over", E::TOPIC.record, rest.len()))),
        }
    }
}

/// A datum being read, which knows when more was wanted than there is. apache-avro takes the end of the bytes
/// for a null in nullable fields, texts and booleans, so a truncated record could pass for a complete one.
struct Bytes<'a> {
    rest: &'a [u8],
    ran_out: bool,
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ran_out |= self.rest.len() < buffer.len();
        self.rest.read(buffer)
    }
}

/// A reader, or why no record of that id can become the asked one.
type Entry = Result<&'static Reader, DecodeError>;

/// Decodes records and finds schema ids. One per process; cheap to share behind an `Arc`.
pub struct Codec {
    registry: Registry,
    /// Per (schema id, record). Bounded by the number of registered schemas: an unknown id is not kept.
    readers: RwLock<HashMap<(i32, &'static str), Entry>>,
    /// Ids of the compiled schemas, per subject.
    ids: RwLock<HashMap<&'static str, i32>>,
}

impl Codec {
    /// A codec that asks the registry at this base URL.
    pub fn new(registry_url: &str) -> Codec {
        Codec { registry: Registry::new(registry_url), readers: RwLock::default(), ids: RwLock::default() }
    }

    /// A codec that knows these ids of the compiled schemas, given as (topic name, schema id), and has no
    /// registry: any other id is [`DecodeError::Unavailable`].
    pub fn with_known<'a>(ids: impl IntoIterator<Item = (&'a str, i32)>) -> Codec {
        let codec = Codec { registry: Registry::offline(), readers: RwLock::default(), ids: RwLock::default() };
        for (topic, id) in ids {
            if let Some(topic) = crate::topics::by_name(topic) {
                codec.ids.write().unwrap_or_else(PoisonError::into_inner).insert(topic.name, id);
            }
        }
        codec
    }

    /// Teaches the codec what a schema id was written with, so that it need not ask. An id that is known
    /// already keeps what it was first told.
    pub fn know<E: Record>(&self, id: i32, writer_schema: &str) -> Result<(), DecodeError> {
        self.keep::<E>(id, Some(writer_schema)).map(drop)
    }

    /// The record in a framed message. Any version of the schema that the registry holds can be read.
    pub async fn decode<E: Record>(&self, framed: &[u8]) -> Result<E, DecodeError> {
        let (id, datum) = unframe(framed)?;
        let known = self.readers.read().unwrap_or_else(PoisonError::into_inner).get(&(id, E::TOPIC.record)).cloned();
        let reader = match known {
            Some(entry) => entry?,
            None => self.learn::<E>(id).await?,
        };
        reader.read(datum)
    }

    /// Makes and keeps the reader of a schema id that was not met before.
    async fn learn<E: Record>(&self, id: i32) -> Entry {
        let is_ours = self.ids.read().unwrap_or_else(PoisonError::into_inner).get(E::TOPIC.name) == Some(&id);
        let text = if is_ours { None } else { Some(self.registry.schema_by_id(id).await?) };
        self.keep::<E>(id, text.as_deref())
    }

    /// The reader of a schema id, made from the writer's schema (none: the compiled one) unless it is known.
    fn keep<E: Record>(&self, id: i32, writer_schema: Option<&str>) -> Entry {
        let mut readers = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that what two tasks asked for at once is leaked once.
        readers.entry((id, E::TOPIC.record)).or_insert_with(|| reader_of::<E>(writer_schema)).clone()
    }

    /// Id of the compiled schema, for a producer that frames its own records. Asked once, then kept.
    /// It never registers: `ingest-api migrate` does.
    pub async fn schema_id<E: Record>(&self) -> Result<i32, registry::RegistryError> {
        let known = self.ids.read().unwrap_or_else(PoisonError::into_inner).get(E::TOPIC.name).copied();
        if let Some(id) = known {
            return Ok(id);
        }
        let text = E::VERSIONS.last().map_or("", |newest| newest.json);
        let id = self.registry.id_of(&subject(&E::TOPIC), text).await?;
        self.ids.write().unwrap_or_else(PoisonError::into_inner).insert(E::TOPIC.name, id);
        Ok(id)
    }
}

fn reader_of<E: Record>(writer: Option<&str>) -> Entry {
    let writer: &'static Schema = match writer {
        None => E::schema(),
        Some(text) => {
            let parsed = Schema::parse_str(text)
                .map_err(|error| malformed(format!("the writer's schema does not parse: {error}")))?;
            if parsed == *E::schema() { E::schema() } else { Box::leak(Box::new(parsed)) }
        }
    };
    Ok(Box::leak(Box::new(Reader::new::<E>(writer)?)))
}
