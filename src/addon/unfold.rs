//! A YAML document as plain data, with a bound on what its aliases unfold to.
//!
//! The parser bounds how often aliases are followed, not how much each of them stands for: one
//! large anchor and many aliases of it in a file of a few MiB would fill any memory. So what comes
//! out is counted while it comes, and a document that says a key twice is refused.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How much may still come out.
#[derive(Debug)]
pub struct Budget {
    values: usize,
    bytes: usize,
}

impl Budget {
    /// Of a whole addon. The largest CRDs that upstreams publish have some 20 000 values.
    pub const fn of_addon() -> Self {
        Self { values: 500_000, bytes: 32 << 20 }
    }

    fn take<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        let left = self.values.checked_sub(1).zip(self.bytes.checked_sub(bytes));
        (self.values, self.bytes) = left.ok_or_else(|| E::custom("it unfolds to too much"))?;
        Ok(())
    }
}

/// Reads one document and takes what it holds from the budget.
pub fn unfold<'de, D: Deserializer<'de>>(
    document: D,
    budget: &mut Budget,
) -> Result<Value, D::Error> {
    Unfold(budget).deserialize(document)
}

/// Reads a text of one document.
pub fn plain_data(text: &str) -> Result<Value, String> {
    unfold(serde_yaml::Deserializer::from_str(text), &mut Budget::of_addon())
        .map_err(|error| error.to_string())
}

struct Unfold<'a>(&'a mut Budget);

impl<'de> DeserializeSeed<'de> for Unfold<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, document: D) -> Result<Value, D::Error> {
        document.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unfold<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain data")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.0.take(1).map(|()| Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.0.take(8).map(|()| Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.0.take(8).map(|()| Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.0.take(8)?;
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom(format!("{value} is not a number")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.0.take(value.len()).map(|()| Value::String(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.0.take(1).map(|()| Value::Null)
    }

    /// A text without a document.
    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.0.take(1)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Unfold(self.0))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.0.take(1)?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            self.0.take(key.len())?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key} is there twice")));
            }
            let value = entries.next_value_seed(Unfold(self.0))?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key is a text; its length is bounded by the file's.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<String, D::Error> {
        String::deserialize(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_is_what_the_library_says() {
        let text =
            "a: [1, -1, 1.5, 'x', true, ~, {}]\nb: &b {c: d}\ne: *b\n0x1f: 0o17\n? |\n  k\n: v\n";
        let expected: Value = serde_yaml::from_str(text).unwrap();
        assert_eq!(plain_data(text).unwrap(), expected);
    }

    /// Half a MiB that would be 10^10 values: the parser alone would let it pass.
    #[test]
    fn one_large_anchor_and_many_aliases_are_refused() {
        let anchor = "x,".repeat(100_000);
        let aliases = "*a,".repeat(100_000);
        let problem = plain_data(&format!("a: &a [{anchor}]\nb: [{aliases}]\n")).unwrap_err();
        assert!(problem.contains("it unfolds to too much"), "{problem}");
        let text = "y".repeat(1 << 20);
        let problem =
            plain_data(&format!("a: &a {text}\nb: [{}]\n", "*a,".repeat(64))).unwrap_err();
        assert!(problem.contains("it unfolds to too much"), "{problem}");
    }

    #[test]
    fn a_key_that_is_there_twice_and_what_is_no_number_are_refused() {
        assert!(plain_data("a: 1\na: 2\n").unwrap_err().contains("the key a is there twice"));
        assert!(plain_data("a: .nan\n").unwrap_err().contains("is not a number"));
        assert!(plain_data("a: !run x\n").is_err(), "a tag is not plain data");
    }
}
