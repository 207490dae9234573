//! Random values of a schema: every optional both ways, every symbol, every text.

use apache_avro::Schema;
use apache_avro::types::Value;
use proptest::prelude::*;
use uuid::Uuid;

/// Any value of the schema, for whichever schema the contract may use.
pub fn any_value(schema: &Schema) -> BoxedStrategy<Value> {
    match schema {
        Schema::Null => Just(Value::Null).boxed(),
        Schema::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Schema::Int => any::<i32>().prop_map(Value::Int).boxed(),
        Schema::Date => any::<i32>().prop_map(Value::Date).boxed(),
        Schema::Long => any::<i64>().prop_map(Value::Long).boxed(),
        Schema::TimestampMicros => any::<i64>().prop_map(Value::TimestampMicros).boxed(),
        Schema::String => ".{0,40}".prop_map(Value::String).boxed(),
        Schema::Uuid(_) => any::<u128>().prop_map(|bits| Value::Uuid(Uuid::from_u128(bits))).boxed(),
        Schema::Enum(kind) => {
            let symbols: Vec<_> = kind.symbols.iter().cloned().enumerate().collect();
            prop::sample::select(symbols).prop_map(|(index, symbol)| Value::Enum(index as u32, symbol)).boxed()
        }
        Schema::Array(array) => prop::collection::vec(any_value(&array.items), 0..4).prop_map(Value::Array).boxed(),
        Schema::Union(union) => {
            let branches: Vec<_> = (0..).zip(union.variants()).map(|(index, branch)| in_union(index, branch)).collect();
            prop::strategy::Union::new(branches).boxed()
        }
        Schema::Record(record) => {
            let names: Vec<String> = record.fields.iter().map(|field| field.name.clone()).collect();
            let fields: Vec<_> = record.fields.iter().map(|field| any_value(&field.schema)).collect();
            fields.prop_map(move |values| Value::Record(names.iter().cloned().zip(values).collect())).boxed()
        }
        other => panic!("the contract uses no {other:?}"),
    }
}

fn in_union(index: u32, branch: &Schema) -> BoxedStrategy<Value> {
    any_value(branch).prop_map(move |value| Value::Union(index, Box::new(value))).boxed()
}
