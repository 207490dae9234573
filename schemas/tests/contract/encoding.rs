//! The hand-written encoders give the bytes apache-avro gives, and they decode to what went in.

use apache_avro::from_value;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use schemas::codec::{Record, encode, encode_reference, frame};

use crate::values::any_value;
use crate::{OURS, decode, for_every_record, offline};

for_every_record!(bytes_equal_the_reference_and_come_back, equal_bytes);

fn equal_bytes<E: Record>() {
    let codec = offline::<E>();
    let by_value = GenericDatumWriter::builder(E::schema()).build().expect("our schema can be written");
    let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&any_value(E::schema()), |value| {
        let event: E = from_value(&value).expect("a value of the schema is a record");
        let ours = encode(&event);
        // by serde, field by field as the struct says; and by value, field by field as the schema says
        prop_assert_eq!(&ours, &encode_reference(&event).expect("the reference encodes every record"));
        prop_assert_eq!(&ours, &by_value.write_value_to_vec(value).expect("the reference encodes every value"));
        prop_assert_eq!(Ok(event), decode(&codec, &frame(OURS, &ours)));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{}: {failure}", E::TOPIC.record));
}
