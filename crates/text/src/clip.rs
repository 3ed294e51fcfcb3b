//! CLIP's tokenizer from `vocab.json` and `merges.txt`, as it is published.

use serde_json::{Value, json};

use crate::{Error, Result, Tokenizer};

/// Where CLIP cuts text before merging; what lies between is dropped.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// What a text begins and ends with, where the settings say nothing else.
const ENDS: [(&str, &str); 2] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
];

impl Tokenizer {
    /// CLIP's tokenizer from the contents of `vocab.json` and `merges.txt`: lower case, ends of words marked, a token in
    /// front and one behind. `settings` is `tokenizer_config.json`, which may name those two; `label` names the files in
    /// messages.
    ///
    /// # Errors
    /// Files of another form, or without the tokens at the ends.
    pub fn from_clip_vocabulary(
        vocabulary: &[u8],
        merges: &[u8],
        settings: &Value,
        label: &str,
    ) -> Result<Self> {
        let bad = |reason: String| Error::Load {
            label: label.to_owned(),
            reason,
        };
        let vocabulary: Value =
            serde_json::from_slice(vocabulary).map_err(|error| bad(error.to_string()))?;
        let merges =
            std::str::from_utf8(merges).map_err(|error| bad(format!("merges.txt: {error}")))?;
        let merges = merges
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("#version"));
        let mut ends = Vec::new();
        for (key, usual) in ENDS {
            let given = settings.get(key);
            let given =
                given.and_then(|found| found.as_str().or_else(|| found.get("content")?.as_str()));
            let name = given.unwrap_or(usual);
            let id = vocabulary
                .get(name)
                .and_then(Value::as_u64)
                .ok_or_else(|| bad(format!("vocab.json has no {name:?}, the `{key}`")))?;
            ends.push((name.to_owned(), id));
        }
        let added = ends.iter().map(|(name, id)| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        });
        let document = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
                {"type": "Lowercase"},
            ]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": true},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            ]},
            "post_processor": {"type": "RobertaProcessing", "sep": ends[1], "cls": ends[0],
                "trim_offsets": false, "add_prefix_space": false},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": ends[1].0, "continuing_subword_prefix": "",
                "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
                "merges": merges.collect::<Vec<_>>()},
        });
        Self::from_bytes(document.to_string().as_bytes(), label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vocabulary: &str) -> Result<Tokenizer> {
        Tokenizer::from_clip_vocabulary(
            vocabulary.as_bytes(),
            b"#version: 0.2\nh e\nhe y</w>\n",
            &Value::Null,
            "vocab.json",
        )
    }

    #[test]
    fn words_end_and_case_is_dropped() {
        let vocabulary = r#"{"h": 0, "e": 1, "y": 2, "h</w>": 3, "e</w>": 4, "y</w>": 5, "he": 6, "hey</w>": 7,
            "!</w>": 8, "<|startoftext|>": 9, "<|endoftext|>": 10}"#;
        let tokenizer = read(vocabulary).unwrap();
        assert_eq!(tokenizer.encode("HEY  he!").unwrap(), [9, 7, 0, 4, 8, 10]);
        assert_eq!(tokenizer.encode("").unwrap(), [9, 10]);
        let (cut, truncated) = tokenizer.encode_truncated("hey hey hey", 3).unwrap();
        assert_eq!((cut, truncated), (vec![9, 7, 10], true));
    }

    #[test]
    fn missing_ends_are_named() {
        let error = read(r#"{"h": 0, "e": 1, "he": 2, "y</w>": 3, "hey</w>": 4}"#).unwrap_err();
        assert!(error.to_string().contains("<|startoftext|>"), "{error}");
        assert!(read("[").is_err());
    }
}
