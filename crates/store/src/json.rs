//! JSON as Python writes it.

use crate::read::without_mark;
use crate::{Error, Result};
use serde_json::Value;

/// Parses JSON that may begin with a byte order mark and may hold `NaN`, `Infinity` and `-Infinity`, which Python's encoder writes and
/// the standard does not know (diffusers' scheduler files do); they become null.
///
/// # Errors
/// When the bytes are not JSON otherwise; the message starts with `label`.
pub fn parse_json(bytes: &[u8], label: &str) -> Result<Value> {
    let bytes = without_mark(bytes);
    serde_json::from_slice(bytes)
        .or_else(|error| match without_special_numbers(bytes) {
            Some(cleaned) => serde_json::from_slice(&cleaned),
            None => Err(error),
        })
        .map_err(|error| Error::malformed(label, format!("not valid JSON: {error}")))
}

/// The text with Python's special numbers replaced by null outside strings, if there were any.
fn without_special_numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut cleaned = Vec::with_capacity(bytes.len());
    let (mut in_string, mut replaced, mut at) = (false, false, 0);
    while let Some(&byte) = bytes.get(at) {
        let word = WORDS
            .iter()
            .find(|word| !in_string && bytes[at..].starts_with(word));
        if let Some(word) = word {
            cleaned.extend_from_slice(b"null");
            replaced = true;
            at += word.len();
            continue;
        }
        cleaned.push(byte);
        at += 1;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                cleaned.extend(bytes.get(at));
                at += 1;
            }
            _ => {}
        }
    }
    replaced.then_some(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_numbers_become_null_outside_strings() {
        let text = br#"{"a": -Infinity, "b": [NaN, 1], "c": "NaN \" Infinity", "d": Infinity}"#;
        let value = parse_json(text, "x.json").unwrap();
        assert!(value["a"].is_null() && value["b"][0].is_null() && value["d"].is_null());
        assert_eq!(value["b"][1], 1);
        assert_eq!(value["c"], "NaN \" Infinity");
    }

    #[test]
    fn other_damage_is_named() {
        for text in [&b"{"[..], b"{\"a\": NaNs}", b"", b"\"\\"] {
            let error = parse_json(text, "x.json").unwrap_err().to_string();
            assert!(error.starts_with("x.json: not valid JSON"), "{error}");
        }
    }
}
