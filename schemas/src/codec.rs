//! Record <-> Avro datum <-> framed bytes.
//!
//! Encoding needs no registry: the schema is compiled in, and selling must not wait for a network.
//! Decoding asks the registry once per schema id and tells apart what is *malformed* (a reject: these
//! bytes will never decode) from what is *unavailable* (a retry: the registry could not be asked).

mod decode;
mod encode;
mod record;

pub use decode::{Codec, DecodeError, unframe};
pub use encode::Datum;
pub use record::{Record, SUBJECTS, SchemaText, Subject, stock_key, subject};

use apache_avro::writer::datum::GenericDatumWriter;

/// Largest allocation a decoder makes for one value. The broker takes no message above 1 MiB.
pub const MAX_ALLOCATION_BYTES: usize = 1 << 20;

/// Sets what apache-avro keeps per process: UUIDs as text, and [`MAX_ALLOCATION_BYTES`]. The first caller
/// wins there, so this is the first line of every `main` and of every test that touches the codec.
///
/// # Panics
/// When the library was used before and holds other settings: then no UUID would decode.
pub fn init() {
    let human_readable = apache_avro::util::set_serde_human_readable(true);
    let limit = apache_avro::util::max_allocation_bytes(MAX_ALLOCATION_BYTES);
    assert!(
        human_readable && limit == MAX_ALLOCATION_BYTES,
        "codec::init() must run before anything else uses Avro (found human_readable={human_readable}, limit={limit})"
    );
}

/// The bare Avro datum of the record, in the schema of [`Record::SCHEMA_VERSION`]: what the outbox stores.
pub fn encode<E: Record>(event: &E) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    event.put(&mut out);
    out
}

/// The same bytes made by apache-avro: the reference [`encode`] is proven against.
pub fn encode_reference<E: Record>(event: &E) -> Result<Vec<u8>, apache_avro::Error> {
    GenericDatumWriter::builder(E::schema()).human_readable(true).build()?.write_ser_to_vec(event)
}

/// The Confluent frame: a zero byte, the schema id (four bytes, big-endian), the datum.
pub fn frame(schema_id: i32, datum: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(5 + datum.len());
    framed.push(0);
    framed.extend_from_slice(&schema_id.to_be_bytes());
    framed.extend_from_slice(datum);
    framed
}
