//! The tree of a [`crate::config::document::Document`] as serde reads it: a deserializer that knows
//! where it is, and passes over what has been struck out.
//!
//! Each error leaves with the place where it arose; nothing is judged here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde::Deserializer;
use serde::de;
use serde::de::IntoDeserializer;
use serde::de::Unexpected;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::value::MapAccessDeserializer;
use toml::de::DeArray;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::document::KeyPath;
use crate::config::reader::Error;
use crate::config::reader::Problem;

/// One value of the tree, as serde reads it.
pub(super) struct Node<'d, 'i> {
    pub(super) value: &'d DeValue<'i>,
    pub(super) path: KeyPath,
    pub(super) struck: &'d BTreeSet<KeyPath>,
    /// Takes the keys of each section that is read.
    pub(super) sections: &'d RefCell<BTreeMap<KeyPath, &'static [&'static str]>>,
}

impl<'d, 'i> Node<'d, 'i> {
    fn inner(&self, path: KeyPath, value: &'d DeValue<'i>) -> Node<'d, 'i> {
        Node {
            value,
            path,
            struck: self.struck,
            sections: self.sections,
        }
    }
}

impl<'d> Deserializer<'d> for Node<'d, '_> {
    type Error = Error;

    fn deserialize_any<V: de::Visitor<'d>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            DeValue::String(text) => visitor.visit_borrowed_str(text),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => visitor.visit_i64(number),
                    Err(_) => Err(Problem::Said("the number is too large".to_owned()).into()),
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(Problem::Said("the number cannot be read".to_owned()).into()),
            },
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Datetime(_) => Err(de::Error::invalid_type(
                Unexpected::Other("a date"),
                &visitor,
            )),
            DeValue::Array(array) => visitor.visit_seq(Elements::new(self, array)),
            DeValue::Table(table) => visitor.visit_map(Entries::new(self, table)),
        }
    }

    fn deserialize_option<V: de::Visitor<'d>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: de::Visitor<'d>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: de::Visitor<'d>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if matches!(self.value, DeValue::Table(_)) {
            self.sections.borrow_mut().insert(self.path.clone(), fields);
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: de::Visitor<'d>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            DeValue::String(text) => visitor.visit_enum(text.as_ref().into_deserializer()),
            DeValue::Table(table) => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries::new(self, table)))
            }
            DeValue::Integer(number) => Err(not_one_of(number.to_string(), variants)),
            DeValue::Float(number) => Err(not_one_of(number.to_string(), variants)),
            DeValue::Boolean(value) => Err(not_one_of(value.to_string(), variants)),
            DeValue::Datetime(value) => Err(not_one_of(value.to_string(), variants)),
            DeValue::Array(_) => Err(not_one_of("a list".to_owned(), variants)),
        }
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'d>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

fn not_one_of(given: String, allowed: &'static [&'static str]) -> Error {
    Problem::UnknownWord { given, allowed }.into()
}

/// The entries of a table that are not struck out.
struct Entries<'d, 'i> {
    table: Node<'d, 'i>,
    rest: Box<dyn Iterator<Item = (&'d str, &'d DeValue<'i>)> + 'd>,
    value: Option<Node<'d, 'i>>,
}

impl<'d, 'i> Entries<'d, 'i> {
    fn new(table: Node<'d, 'i>, entries: &'d DeTable<'i>) -> Entries<'d, 'i> {
        let rest = entries
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), value.get_ref()));
        Entries {
            table,
            rest: Box::new(rest),
            value: None,
        }
    }
}

impl<'d> de::MapAccess<'d> for Entries<'d, '_> {
    type Error = Error;

    fn next_key_seed<K: de::DeserializeSeed<'d>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        for (key, value) in self.rest.by_ref() {
            let path = self.table.path.key(key);
            if self.table.struck.contains(&path) {
                continue;
            }
            let read = seed.deserialize(BorrowedStrDeserializer::new(key));
            let read = read.map_err(|error: Error| error.at(&path))?;
            self.value = Some(self.table.inner(path, value));
            return Ok(Some(read));
        }
        Ok(None)
    }

    fn next_value_seed<S: de::DeserializeSeed<'d>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some(node) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let path = node.path.clone();
        seed.deserialize(node).map_err(|error| error.at(&path))
    }
}

/// The elements of a list that are not struck out.
struct Elements<'d, 'i> {
    list: Node<'d, 'i>,
    rest: std::iter::Enumerate<std::slice::Iter<'d, toml::Spanned<DeValue<'i>>>>,
}

impl<'d, 'i> Elements<'d, 'i> {
    fn new(list: Node<'d, 'i>, elements: &'d DeArray<'i>) -> Elements<'d, 'i> {
        Elements {
            list,
            rest: elements.iter().enumerate(),
        }
    }
}

impl<'d> de::SeqAccess<'d> for Elements<'d, '_> {
    type Error = Error;

    fn next_element_seed<S: de::DeserializeSeed<'d>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        for (index, value) in self.rest.by_ref() {
            let path = self.list.path.index(index);
            if self.list.struck.contains(&path) {
                continue;
            }
            let node = self.list.inner(path.clone(), value.get_ref());
            let read = seed.deserialize(node);
            return read.map(Some).map_err(|error| error.at(&path));
        }
        Ok(None)
    }
}
