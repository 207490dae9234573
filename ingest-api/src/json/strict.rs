//! A reader around another that takes an object only where an object is meant, a word where a word is meant, and card
//! data nowhere.
//!
//! What serde derives also reads a struct from an array of its fields in order, and a plain enum from an object: such
//! a body would be understood by position, and by a later version of its type in another way.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

use crate::card_filter::{Field, REFUSED, refuses_number};

/// Reads as the reader inside, except that a struct must be an object, an enum (none carries data) a text, and that no
/// text or number may hold card data. What asks for a text of its own (`String`) keeps it; what asks for a borrowed one
/// (`Uuid`, a time) parses it.
pub struct Strict<D> {
    inside: D,
    field: Field,
}

impl<D> Strict<D> {
    pub fn new(inside: D) -> Self {
        Strict { inside, field: Field::Text }
    }
}

macro_rules! as_inside {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inside.$method(Inside(visitor, self.field))
        })*
    };
}

macro_rules! as_typed {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inside.$method(Inside(visitor, Field::Typed))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    as_inside! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_option deserialize_unit deserialize_seq deserialize_map deserialize_ignored_any
    }

    as_typed! { deserialize_str deserialize_identifier }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inside.deserialize_map(Inside(visitor, Field::Text))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inside.deserialize_str(Word(visitor))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inside.deserialize_unit_struct(name, Inside(visitor, self.field))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inside.deserialize_newtype_struct(name, Inside(visitor, Field::of_type(name).unwrap_or(self.field)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.inside.deserialize_tuple(len, Inside(visitor, self.field))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inside.deserialize_tuple_struct(name, len, Inside(visitor, self.field))
    }

    fn is_human_readable(&self) -> bool {
        self.inside.is_human_readable()
    }
}

/// Makes everything that is read inside strict too, as a field of this kind.
struct Inside<T>(T, Field);

impl<T> Inside<T> {
    fn admit<E: Error>(&self, text: &str) -> Result<(), E> {
        if self.1.refuses(text) { Err(E::custom(REFUSED)) } else { Ok(()) }
    }
    fn admit_number<E: Error>(number: u64) -> Result<(), E> {
        if refuses_number(number) { Err(E::custom(REFUSED)) } else { Ok(()) }
    }
}

macro_rules! as_given {
    ($($method:ident($type:ty))*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Inside<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    as_given! {
        visit_bool(bool) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i128(i128) visit_u8(u8) visit_u16(u16)
        visit_u32(u32) visit_u128(u128) visit_f32(f32) visit_f64(f64) visit_char(char) visit_bytes(&[u8])
        visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<V::Value, E> {
        Self::admit_number(number.unsigned_abs())?;
        self.0.visit_i64(number)
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<V::Value, E> {
        Self::admit_number(number)?;
        self.0.visit_u64(number)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        self.admit(text)?;
        self.0.visit_str(text)
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<V::Value, E> {
        self.admit(text)?;
        self.0.visit_borrowed_str(text)
    }
    fn visit_string<E: Error>(self, text: String) -> Result<V::Value, E> {
        self.admit(&text)?;
        self.0.visit_string(text)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }
    fn visit_some<D: Deserializer<'de>>(self, inside: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Strict { inside, field: self.1 })
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inside: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Strict { inside, field: self.1 })
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Inside(items, self.1))
    }
    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Inside(members, Field::Text))
    }
    fn visit_enum<A: EnumAccess<'de>>(self, word: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(word)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Inside<A> {
    type Error = A::Error;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Inside(seed, self.1))
    }
    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Inside<A> {
    type Error = A::Error;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Inside(seed, self.1))
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Inside(seed, self.1))
    }
    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Inside<S> {
    type Value = S::Value;
    fn deserialize<D: Deserializer<'de>>(self, inside: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict { inside, field: self.1 })
    }
}

/// Reads a variant's name.
struct Word<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Word<V> {
    type Value = V::Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
    fn visit_str<E: Error>(self, word: &str) -> Result<V::Value, E> {
        self.0.visit_enum(StrDeserializer::new(word))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde::de::value::{Error, StringDeserializer};

    use super::*;

    /// No reader of JSON hands out a text of its own; one that did would be judged too.
    #[test]
    fn a_text_that_the_reader_gives_away_is_judged_too() {
        let read = |text: &str| String::deserialize(Strict::new(StringDeserializer::<Error>::new(text.to_owned())));
        assert_eq!(read("oat milk").unwrap(), "oat milk");
        assert_eq!(read("4111 1111 1111 1111").unwrap_err().to_string(), REFUSED);
    }
}
