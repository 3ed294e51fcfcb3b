//! Which part of a `tokenizer.json` the library does not take, in the file's own words.

use crate::guard::guarded;
use brisk_store::shown;
use serde_json::{Value, from_value};
use tokenizers::{
    DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

/// A part of the file: its key, the key of the steps of a sequence, the types that are known, and the library's own
/// opinion of a value.
struct Part {
    key: &'static str,
    steps: &'static str,
    types: &'static [&'static str],
    read: fn(&Value) -> serde_json::Result<()>,
}

const PARTS: [Part; 5] = [
    Part {
        key: "model",
        steps: "",
        types: &["BPE", "WordPiece", "WordLevel", "Unigram"],
        read: |value| from_value::<ModelWrapper>(value.clone()).map(drop),
    },
    Part {
        key: "normalizer",
        steps: "normalizers",
        types: &[
            "BertNormalizer",
            "ByteLevel",
            "Lowercase",
            "NFC",
            "NFD",
            "NFKC",
            "NFKD",
            "Nmt",
            "Precompiled",
            "Prepend",
            "Replace",
            "Sequence",
            "Strip",
            "StripAccents",
        ],
        read: |value| from_value::<NormalizerWrapper>(value.clone()).map(drop),
    },
    Part {
        key: "pre_tokenizer",
        steps: "pretokenizers",
        types: &[
            "BertPreTokenizer",
            "ByteLevel",
            "CharDelimiterSplit",
            "Digits",
            "FixedLength",
            "Metaspace",
            "Punctuation",
            "Sequence",
            "Split",
            "UnicodeScripts",
            "Whitespace",
            "WhitespaceSplit",
        ],
        read: |value| from_value::<PreTokenizerWrapper>(value.clone()).map(drop),
    },
    Part {
        key: "post_processor",
        steps: "processors",
        types: &[
            "BertProcessing",
            "ByteLevel",
            "RobertaProcessing",
            "Sequence",
            "TemplateProcessing",
        ],
        read: |value| from_value::<PostProcessorWrapper>(value.clone()).map(drop),
    },
    Part {
        key: "decoder",
        steps: "decoders",
        types: &[
            "BPEDecoder",
            "ByteFallback",
            "ByteLevel",
            "CTC",
            "Fuse",
            "Metaspace",
            "Replace",
            "Sequence",
            "Strip",
            "WordPiece",
        ],
        read: |value| from_value::<DecoderWrapper>(value.clone()).map(drop),
    },
];

/// What is wrong with a file that the library refused; none where each part is sound by itself.
pub(crate) fn explain(json: &Value) -> Option<String> {
    let Some(file) = json.as_object() else {
        return Some("it is no JSON object".to_owned());
    };
    PARTS.iter().find_map(|part| match file.get(part.key) {
        None | Some(Value::Null) if part.key != "model" => None,
        None => Some("there is no `model`; a tokenizer.json has one".to_owned()),
        Some(value) => part.explain(value, part.key),
    })
}

impl Part {
    fn explain(&self, value: &Value, place: &str) -> Option<String> {
        let problem = match guarded(|| (self.read)(value)) {
            Ok(read) => read.err()?.to_string(),
            Err(panic) => panic,
        };
        let Value::Object(table) = value else {
            let found = shown(&value.to_string());
            return Some(format!("`{place}` is {found}, expected an object"));
        };
        let known = || self.types.join(", ");
        match table.get("type") {
            Some(Value::String(kind)) if self.types.contains(&kind.as_str()) => {
                let steps = table.get(self.steps).and_then(Value::as_array);
                let inside = steps
                    .into_iter()
                    .flatten()
                    .enumerate()
                    .find_map(|(i, step)| {
                        self.explain(step, &format!("{place}.{}[{i}]", self.steps))
                    });
                Some(
                    inside.unwrap_or_else(|| match problem.contains("untagged enum") {
                        true => format!("the keys of `{place}` are not those of a {kind}"),
                        false => format!("`{place}` ({kind}): {problem}"),
                    }),
                )
            }
            Some(other) => Some(format!(
                "`{place}.type` is {}, expected one of {}",
                shown(&other.to_string()),
                known()
            )),
            None => Some(format!(
                "`{place}` has no `type`, expected one of {}",
                known()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tokenizer, train_bpe};
    use serde_json::json;

    #[test]
    fn keys_found_and_expected_are_named() {
        let lines = ["red heart".to_owned(), "red apple".to_owned()];
        let file: Value = serde_json::from_slice(&train_bpe(&lines, 300).unwrap()).unwrap();
        let long = "x".repeat(100_000);
        for (place, value, told) in [
            (
                "/model/type",
                json!("Foo"),
                "`model.type` is \"Foo\", expected one of BPE, WordPiece",
            ),
            (
                "/model/type",
                json!(5),
                "`model.type` is 5, expected one of BPE",
            ),
            ("/model/type", json!(long), "`model.type` is \"xxx"),
            ("/model", json!(null), "`model` is null, expected an object"),
            ("/model/vocab", json!([]), "`model` (BPE): "),
            (
                "/normalizer",
                json!({"type": "Foo"}),
                "`normalizer.type` is \"Foo\", expected one of BertNormalizer",
            ),
            (
                "/normalizer",
                json!(5),
                "`normalizer` is 5, expected an object",
            ),
            ("/pre_tokenizer", json!({}), "`pre_tokenizer` has no `type`"),
            (
                "/pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Foo"}]}),
                "`pre_tokenizer.pretokenizers[0]` (Digits): missing field",
            ),
            (
                "/post_processor",
                json!({"type": "Sequence", "processors": [{"type": "Foo"}]}),
                "`post_processor.processors[0].type` is \"Foo\", expected one of BertProcessing",
            ),
            (
                "/decoder",
                json!({"type": "Foo"}),
                "`decoder.type` is \"Foo\", expected one of BPEDecoder",
            ),
            (
                "/decoder",
                json!({"type": "Replace", "pattern": {"String": "a"}}),
                "`decoder` (Replace): missing field `content`",
            ),
        ] {
            let mut file = file.clone();
            *file.pointer_mut(place).unwrap() = value;
            let refused = Tokenizer::from_bytes(file.to_string().as_bytes(), "tokenizer.json");
            let refused = refused.unwrap_err().to_string();
            assert!(
                refused.starts_with("tokenizer.json: ") && refused.contains(told),
                "{refused}"
            );
            assert!(
                !refused.contains("untagged") && refused.len() < 500,
                "{refused}"
            );
        }
    }

    #[test]
    fn all_types_are_the_librarys() {
        for part in &PARTS {
            for kind in part.types {
                let said = part
                    .explain(&json!({"type": kind}), part.key)
                    .unwrap_or_default();
                assert!(!said.contains(".type"), "{}: {said}", part.key);
            }
        }
    }

    #[test]
    fn a_file_without_model_says_so() {
        assert!(
            explain(&json!({"version": "1.0"}))
                .unwrap()
                .contains("no `model`")
        );
        assert!(explain(&json!([])).unwrap().contains("no JSON object"));
    }
}
