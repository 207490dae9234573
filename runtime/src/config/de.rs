//! Turns the two levels of variables into a struct, so that every error can name the variable.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::{PREFIX, Section, Value};

/// Why the process cannot start; the text begins with the variable's name.
#[derive(Debug)]
pub struct ConfigError {
    text: String,
    /// A key of a section that has no value; completed to a variable's name by the section.
    missing: Option<&'static str>,
}

impl ConfigError {
    pub fn new(text: impl Into<String>) -> Self {
        ConfigError { text: text.into(), missing: None }
    }

    fn in_section(self, section: &str) -> Self {
        match self.missing {
            Some(key) => ConfigError::new(format!(
                "{} is missing: set it, or {}_FILE to a file that holds it",
                variable(section, key),
                variable(section, key)
            )),
            None => self,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConfigError {}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        ConfigError::new(text.to_string())
    }
    fn missing_field(field: &'static str) -> Self {
        ConfigError { text: format!("{field} is missing"), missing: Some(field) }
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
}

fn known(section: Option<&str>, keys: &[&str]) -> String {
    let name = |key: &&str| match section {
        Some(section) => variable(section, key),
        None => format!("{PREFIX}{}__*", key.to_ascii_uppercase()),
    };
    keys.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The whole environment; deserialises into a struct whose fields are sections.
pub(super) struct Root {
    pub(super) sections: BTreeMap<String, Section>,
}

impl<'de> de::Deserializer<'de> for Root {
    type Error = ConfigError;

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        for (name, section) in &self.sections {
            if let (false, Some(value)) = (fields.contains(&name.as_str()), section.values().next()) {
                let text =
                    format!("{} is not known to this process, which reads {}", value.variable, known(None, fields));
                return Err(ConfigError::new(text));
            }
        }
        // A section without any variable is offered empty, so that the first missing key is named.
        let sections = fields.iter().map(|f| (*f, self.sections.remove(*f).unwrap_or_default())).collect::<Vec<_>>();
        visitor.visit_map(Sections { rest: sections.into_iter(), next: None })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ConfigError> {
        Err(ConfigError::new("configuration must be a struct of sections"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Sections {
    rest: std::vec::IntoIter<(&'static str, Section)>,
    next: Option<(&'static str, Section)>,
}

impl<'de> MapAccess<'de> for Sections {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        self.next = self.rest.next();
        match &self.next {
            Some((name, _)) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ConfigError> {
        let Some((name, section)) = self.next.take() else { return Err(ConfigError::new("value without a key")) };
        seed.deserialize(SectionDe { name, section }).map_err(|e| e.in_section(name))
    }
}

struct SectionDe {
    name: &'static str,
    section: Section,
}

impl<'de> de::Deserializer<'de> for SectionDe {
    type Error = ConfigError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        if let Some((_, value)) = self.section.iter().find(|(key, _)| !fields.contains(&key.as_str())) {
            let text = format!("{} is not known: did you mean {}?", value.variable, known(Some(self.name), fields));
            return Err(ConfigError::new(text));
        }
        visitor.visit_map(Values { rest: self.section.into_iter(), next: None })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        if self.section.is_empty() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ConfigError> {
        Err(ConfigError::new(format!("the section {} must be a struct", self.name)))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Values {
    rest: std::collections::btree_map::IntoIter<String, Value>,
    next: Option<Value>,
}

impl<'de> MapAccess<'de> for Values {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.next = Some(value);
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ConfigError> {
        let Some(value) = self.next.take() else { return Err(ConfigError::new("value without a key")) };
        let variable = value.variable.clone();
        // The value itself is not repeated: it may be a secret.
        seed.deserialize(ValueDe(value.text)).map_err(|e| ConfigError::new(format!("{variable} is not usable: {e}")))
    }
}

/// One text, read as whatever the field asks for.
struct ValueDe(String);

macro_rules! parsed {
    ($($method:ident $visit:ident $kind:literal),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            match self.0.trim().parse() {
                Ok(value) => visitor.$visit(value),
                Err(_) => Err(ConfigError::new(concat!("expected ", $kind))),
            }
        })*
    };
}

impl<'de> de::Deserializer<'de> for ValueDe {
    type Error = ConfigError;

    parsed! {
        deserialize_bool visit_bool "true or false",
        deserialize_i8 visit_i8 "a whole number", deserialize_i16 visit_i16 "a whole number",
        deserialize_i32 visit_i32 "a whole number", deserialize_i64 visit_i64 "a whole number",
        deserialize_u8 visit_u8 "a whole number", deserialize_u16 visit_u16 "a whole number",
        deserialize_u32 visit_u32 "a whole number", deserialize_u64 visit_u64 "a whole number"
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, v: V) -> Result<V::Value, ConfigError> {
        v.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_enum(IntoDeserializer::<ConfigError>::into_deserializer(self.0))
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}
