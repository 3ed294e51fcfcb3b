//! Keys that a JSON document says twice.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Tables of words, where the last of two counts for every reader.
const WORDS: [&str; 1] = ["vocab"];

/// Refuses a document in which a key stands twice in one object: readers differ in which they take, so that
/// what was checked need not be what is run.
pub(crate) fn check(bytes: &[u8]) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Unique.deserialize(&mut reader)
}

/// A value whose objects have each key once.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            match WORDS.contains(&key.as_str()) {
                true => drop(map.next_value::<IgnoredAny>()?),
                false => map.next_value_seed(Unique)?,
            }
            if seen.contains(&key) {
                return Err(A::Error::custom(format!(
                    "the key {key:?} stands twice in one object; expected once"
                )));
            }
            seen.insert(key);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Unique)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_named() {
        for text in [
            r#"{"a": 1, "b": [null, {"x": 1.5, "y": "x", "x": true}]}"#,
            r#"{"model": {"x": 1, "x": 1}}"#,
            r#"{"vocab": {}, "x": 1, "x": 2}"#,
        ] {
            let error = check(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("\"x\" stands twice"), "{text}: {error}");
        }
        let fits = r#"{"a": {"x": -1}, "b": [{"x": 2}, {"x": 3}], "vocab": {"w": 1, "w": 1}}"#;
        check(fits.as_bytes()).unwrap();
    }
}
