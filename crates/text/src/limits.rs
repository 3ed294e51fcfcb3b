//! Bounds on what a `tokenizer.json` may ask for, checked before the library does it.

use crate::guard::guarded;
use brisk_store::shown;
use serde_json::Value;
use tokenizers::normalizers::{NormalizerWrapper, Replace};
use tokenizers::{NormalizedString, Normalizer};

/// Bytes of a text that is tokenised.
pub(crate) const TEXT: usize = 4 << 20;
/// Bytes of a text while it is normalised, and of a decoded one. The library keeps sixteen more for each.
const GROWN: usize = 16 << 20;
/// Steps of a normalizer, pre-tokenizer, post-processor or decoder.
const STEPS: usize = 64;
/// Bytes of a text within a step.
const PIECE: usize = 8192;
/// Bytes of what stands before or after every part of a word.
const AFFIX: usize = 64;
/// Letters of a word for WordPiece, whose search takes their number to the third power.
const WORD: u64 = 1000;
/// Tokens that a post-processor adds.
const ADDED: usize = 256;

/// Refuses a file whose claims are beyond those bounds.
pub(crate) fn check(json: &Value) -> Result<(), String> {
    for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        let Some(value) = json.get(part) else {
            continue;
        };
        let mut seen = Seen::default();
        walk(value, part, &mut seen, 0)?;
        if seen.steps > STEPS {
            return Err(format!(
                "{part} has {} steps; at most {STEPS} are run",
                seen.steps
            ));
        }
        // Each of these may double the text.
        if part == "pre_tokenizer" && seen.lengthening > 2 {
            return Err(format!(
                "pre_tokenizer has {} steps ByteLevel or Metaspace, each of which lengthens the text; at most 2 are run",
                seen.lengthening
            ));
        }
    }
    if let Some(problem) = json.get("normalizer").and_then(false_claim) {
        return Err(problem);
    }
    if let Some(value) = json.get("post_processor") {
        check_templates(value)?;
    }
    let Some(model) = json.get("model") else {
        return Ok(());
    };
    for key in [
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "unk_token",
    ] {
        let found = model.get(key).and_then(Value::as_str).map_or(0, str::len);
        if found > AFFIX {
            return Err(format!(
                "model.{key} has {found} bytes; at most {AFFIX} are allowed"
            ));
        }
    }
    if let Some(found) = model.get("max_input_chars_per_word")
        && found.as_u64().is_none_or(|found| found > WORD)
    {
        return Err(format!(
            "model.max_input_chars_per_word is {found}; at most {WORD} is allowed, since the search takes its third power"
        ));
    }
    if let Some(dropout) = model.get("dropout").filter(|value| !value.is_null())
        && dropout.as_f64() != Some(0.0)
    {
        return Err(format!(
            "model.dropout is {}: it leaves out merges at random, so a text would have other tokens each time; \
             expected null",
            shown(&dropout.to_string())
        ));
    }
    check_added_tokens(json)
}

#[derive(Default)]
struct Seen {
    steps: usize,
    lengthening: usize,
}

/// Counts the steps below a value and measures their texts.
fn walk(value: &Value, place: &str, seen: &mut Seen, depth: usize) -> Result<(), String> {
    if depth > STEPS {
        return Err(format!("{place} nests deeper than {STEPS} levels"));
    }
    match value {
        Value::String(text) if text.len() > PIECE => Err(format!(
            "{place} holds a text of {} bytes; at most {PIECE} are allowed",
            text.len()
        )),
        Value::Array(list) => list
            .iter()
            .try_for_each(|value| walk(value, place, seen, depth + 1)),
        Value::Object(table) => {
            if let Some(kind) = table.get("type").and_then(Value::as_str) {
                seen.steps += usize::from(kind != "Sequence");
                seen.lengthening += usize::from(matches!(kind, "ByteLevel" | "Metaspace"));
                if kind == "FixedLength"
                    && table
                        .get("length")
                        .is_some_and(|length| length.as_u64() == Some(0))
                {
                    return Err(format!(
                        "{place}: FixedLength of length 0; expected at least 1"
                    ));
                }
            }
            table
                .iter()
                .filter(|(key, _)| *key != "precompiled_charsmap")
                .try_for_each(|(_, value)| walk(value, place, seen, depth + 1))
        }
        _ => Ok(()),
    }
}

/// A template may hold the text once, and so many tokens.
fn check_templates(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(list) => list.iter().try_for_each(check_templates),
        Value::Object(table) => {
            for key in ["single", "pair"] {
                let Some(pieces) = table.get(key).and_then(Value::as_array) else {
                    continue;
                };
                let texts = |name: &str| {
                    let id = |piece: &&Value| match piece {
                        Value::String(spelt) => {
                            spelt.trim_start_matches('$').split(':').next() == Some(name)
                        }
                        piece => {
                            piece.pointer("/Sequence/id").and_then(Value::as_str) == Some(name)
                        }
                    };
                    pieces.iter().filter(id).count()
                };
                if pieces.len() > ADDED || texts("A") > 1 || texts("B") > 1 {
                    return Err(format!(
                        "post_processor.{key} has {} pieces, {} of them the text; expected at most {ADDED}, and the text once",
                        pieces.len(),
                        texts("A").max(texts("B"))
                    ));
                }
            }
            let tokens = table.get("special_tokens").and_then(Value::as_object);
            for (name, token) in tokens.into_iter().flatten() {
                let ids = token
                    .get("ids")
                    .and_then(Value::as_array)
                    .map_or(0, Vec::len);
                if ids > ADDED {
                    return Err(format!(
                        "post_processor: {name:.80?} stands for {ids} ids; at most {ADDED} are allowed"
                    ));
                }
            }
            table.get("processors").map_or(Ok(()), check_templates)
        }
        _ => Ok(()),
    }
}

/// Added tokens are normalised when the file is read.
fn check_added_tokens(json: &Value) -> Result<(), String> {
    let Some(normalizer) = json.get("normalizer").filter(|value| !value.is_null()) else {
        return Ok(());
    };
    // What this cannot read, the library refuses with a better message.
    let read = || serde_json::from_value::<NormalizerWrapper>(normalizer.clone());
    let Ok(Ok(normalizer)) = guarded(read) else {
        return Ok(());
    };
    let steps = flattened(&normalizer)
        .into_iter()
        .map(Step::new)
        .collect::<Vec<_>>();
    let tokens = json.get("added_tokens").and_then(Value::as_array);
    let contents = tokens
        .into_iter()
        .flatten()
        .filter_map(|token| token.get("content")?.as_str());
    let longest = contents.max_by_key(|content| content.len());
    longest.map_or(Ok(()), |content| check_growth(&normalizer, &steps, content))
}

/// What one step of a normalizer may make of a text.
#[derive(Clone, Debug)]
enum Step {
    /// So many bytes for each one.
    Times(usize),
    /// So many bytes in front.
    Prepend(usize),
    /// A text, or anything where it is none, by so many bytes.
    Replace(Option<String>, usize),
}

impl Step {
    fn new(step: &NormalizerWrapper) -> Self {
        match step {
            NormalizerWrapper::Replace(step) => Self::replace(step),
            NormalizerWrapper::Prepend(step) => Self::Prepend(step.prepend.len()),
            NormalizerWrapper::StripNormalizer(_)
            | NormalizerWrapper::StripAccents(_)
            | NormalizerWrapper::Nmt(_) => Self::Times(1),
            NormalizerWrapper::ByteLevel(_) => Self::Times(2),
            NormalizerWrapper::Lowercase(_) | NormalizerWrapper::NFC(_) => Self::Times(3),
            NormalizerWrapper::NFD(_) => Self::Times(4),
            // One character of three bytes becomes eighteen of two.
            NormalizerWrapper::NFKC(_)
            | NormalizerWrapper::NFKD(_)
            | NormalizerWrapper::BertNormalizer(_) => Self::Times(12),
            NormalizerWrapper::Precompiled(_) => Self::Times(64),
            NormalizerWrapper::Sequence(_) => Self::Times(1),
        }
    }

    fn replace(step: &Replace) -> Self {
        let literal = serde_json::to_value(step).ok().and_then(|value| {
            let text = value.pointer("/pattern/String")?.as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        });
        Self::Replace(literal, step.content.len())
    }

    /// Bytes at most of what becomes of `text`, or of any text of `length` bytes.
    fn most(&self, length: usize, text: Option<&str>) -> usize {
        match self {
            Self::Times(factor) => length.saturating_mul(*factor),
            Self::Prepend(more) => length.saturating_add(*more),
            Self::Replace(pattern, content) => {
                let found = match (pattern, text) {
                    (Some(pattern), Some(text)) => text.matches(pattern.as_str()).count(),
                    (Some(pattern), None) => length / pattern.len(),
                    (None, _) => length.saturating_add(1),
                };
                length.saturating_add(found.saturating_mul(*content))
            }
        }
    }
}

fn flattened(normalizer: &NormalizerWrapper) -> Vec<&NormalizerWrapper> {
    match normalizer {
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().flat_map(flattened).collect(),
        step => vec![step],
    }
}

fn too_long(what: &str, length: usize) -> String {
    format!("{what} makes a text of {length} bytes or more; at most {GROWN} are allowed")
}

/// Refuses a text that a normalizer would make too long. Texts that cannot become so in the worst case are not looked
/// at; others go through it step by step.
fn check_growth(normalizer: &NormalizerWrapper, steps: &[Step], text: &str) -> Result<(), String> {
    let most = steps
        .iter()
        .fold(text.len(), |length, step| step.most(length, None));
    if most <= GROWN {
        return Ok(());
    }
    let mut grown = text.to_owned();
    for (step, wrapper) in steps.iter().zip(flattened(normalizer)) {
        let next = step.most(grown.len(), Some(&grown));
        if next > GROWN {
            return Err(too_long("the normalizer", next));
        }
        grown = match (step, wrapper) {
            // The library's own way takes the square of the number of places.
            (Step::Replace(Some(pattern), _), NormalizerWrapper::Replace(replace)) => {
                grown.replace(pattern.as_str(), &replace.content)
            }
            _ => {
                let mut normalized = NormalizedString::from(grown);
                wrapper
                    .normalize(&mut normalized)
                    .map_err(|error| error.to_string())?;
                normalized.get().to_owned()
            }
        };
    }
    Ok(())
}

/// How long a tokenizer may make what it is given.
#[derive(Clone, Debug)]
pub(crate) struct Growth {
    steps: Vec<Step>,
    /// Bytes of the longest token.
    longest: usize,
    /// Bytes that decoders make of one, at most.
    decoding: usize,
    /// Whether a decoder searches by a regular expression.
    searching: bool,
}

impl Growth {
    pub(crate) fn new(tokenizer: &tokenizers::Tokenizer) -> Self {
        let steps = tokenizer
            .get_normalizer()
            .map(flattened)
            .unwrap_or_default();
        let decoder = tokenizer
            .get_decoder()
            .and_then(|decoder| serde_json::to_value(decoder).ok());
        Self {
            steps: steps.into_iter().map(Step::new).collect(),
            longest: tokenizer
                .get_vocab(true)
                .keys()
                .map(String::len)
                .max()
                .unwrap_or(0),
            decoding: decoder.as_ref().map_or(1, decoding_factor),
            searching: decoder.is_some_and(|decoder| decoder.to_string().contains("\"Regex\"")),
        }
    }

    /// Refuses a text that would become too long.
    pub(crate) fn check(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &str,
    ) -> tokenizers::Result<()> {
        match tokenizer.get_normalizer() {
            Some(normalizer) => check_growth(normalizer, &self.steps, text).map_err(Into::into),
            None => Ok(()),
        }
    }

    /// Whether decoding may take long.
    pub(crate) fn may_search(&self) -> bool {
        self.searching
    }

    /// Refuses ids whose text would become too long.
    pub(crate) fn check_decoding(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        ids: &[u32],
    ) -> Result<(), String> {
        if ids
            .len()
            .saturating_mul(self.longest)
            .saturating_mul(self.decoding)
            <= GROWN
        {
            return Ok(());
        }
        let lengths = ids
            .iter()
            .map(|id| tokenizer.id_to_token(*id).map_or(0, |token| token.len()));
        let length = lengths.sum::<usize>().saturating_mul(self.decoding);
        if length > GROWN {
            return Err(too_long("the decoder", length));
        }
        Ok(())
    }
}

/// Bytes that the steps of a decoder make of one, at most.
fn decoding_factor(decoder: &Value) -> usize {
    if let Some(steps) = decoder.get("decoders").and_then(Value::as_array) {
        let factors = steps.iter().map(decoding_factor);
        return factors.fold(1, usize::saturating_mul);
    }
    let content = decoder
        .get("content")
        .and_then(Value::as_str)
        .map_or(0, str::len);
    match decoder.pointer("/pattern/String").and_then(Value::as_str) {
        Some(pattern) if !pattern.is_empty() => content.div_ceil(pattern.len()).max(1),
        _ if decoder.get("pattern").is_some() => content + 1,
        _ => 1,
    }
}

/// A `precompiled_charsmap` that claims more bytes than it has, which the library would allocate.
fn false_claim(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Array(list) => list.iter().find_map(false_claim),
        serde_json::Value::Object(table) => {
            let map = table
                .get("precompiled_charsmap")
                .and_then(|map| map.as_str());
            let found = map.and_then(|map| {
                // Base64; the first four bytes are the length of what follows.
                let claimed = first_word(map)? as usize;
                let there = (map.len() / 4 * 3).saturating_sub(4);
                (claimed > there).then(|| {
                    format!("`precompiled_charsmap` claims {claimed} bytes and has at most {there}")
                })
            });
            found.or_else(|| table.values().find_map(false_claim))
        }
        _ => None,
    }
}

/// The first four bytes of a text in base64, little endian; none where they are no such text.
fn first_word(text: &str) -> Option<u32> {
    let mut bits = 0u64;
    for digit in text.bytes().take(6) {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u64::from(value);
    }
    (text.len() >= 6).then(|| ((bits >> 4) as u32).swap_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tokenizer, train_bpe};
    use serde_json::json;

    #[test]
    fn a_charsmap_is_read_as_long_as_it_is() {
        assert_eq!(first_word("AQAAAAAA"), Some(1));
        assert_eq!(first_word("/////w=="), Some(u32::MAX));
        assert_eq!(first_word("AAA"), None);
        let claim = serde_json::json!([{"x": {"precompiled_charsmap": "/////wAA"}}]);
        assert!(false_claim(&claim).unwrap().contains("4294967295"));
        let fits = serde_json::json!({"precompiled_charsmap": "AQAAAAAA"});
        assert_eq!(false_claim(&fits), None);
    }

    /// A small tokenizer after `change`, and what it says to a text.
    fn says(change: impl Fn(&mut Value), text: &str) -> String {
        let lines: Vec<String> = ["red heart", "red apple"].map(String::from).to_vec();
        let mut file: Value = serde_json::from_slice(&train_bpe(&lines, 300).unwrap()).unwrap();
        change(&mut file);
        let tokenizer = Tokenizer::from_bytes(file.to_string().as_bytes(), "tokenizer.json");
        let ids = tokenizer.and_then(|tokenizer| {
            let ids = tokenizer.encode(text)?;
            tokenizer.decode_known(&ids)
        });
        match ids {
            Ok(text) => text,
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn what_would_grow_or_last_is_refused() {
        let many = |step: Value, count: usize| -> Value {
            json!({"type": "Sequence", "normalizers": vec![step; count]})
        };
        let grow = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"});
        let any = json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "aaaa"});
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false});
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        type Change = Box<dyn Fn(&mut Value)>;
        let changes: Vec<(&str, Change)> = vec![
            (
                "normalizer",
                Box::new({
                    let v = many(grow.clone(), 40);
                    move |f| f["normalizer"] = v.clone()
                }),
            ),
            (
                "normalizer",
                Box::new({
                    let v = many(any.clone(), 40);
                    move |f| f["normalizer"] = v.clone()
                }),
            ),
            (
                "normalizer",
                Box::new({
                    let v = many(grow.clone(), 500);
                    move |f| f["normalizer"] = v.clone()
                }),
            ),
            (
                "normalizer",
                Box::new(|f| {
                    f["normalizer"] = json!({"type": "Prepend", "prepend": "x".repeat(1 << 20)})
                }),
            ),
            (
                "normalizer",
                Box::new({
                    let v = many(grow, 40);
                    move |f| {
                        f["normalizer"] = v.clone();
                        f["added_tokens"][0]["normalized"] = true.into();
                        f["added_tokens"][0]["content"] = "<a>".into();
                    }
                }),
            ),
            (
                "pre_tokenizer",
                Box::new({
                    let v = vec![byte_level; 500];
                    move |f| {
                        f["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": v});
                    }
                }),
            ),
            (
                "pre_tokenizer",
                Box::new(|f| f["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0})),
            ),
            (
                "post_processor",
                Box::new({
                    let text = text.clone();
                    move |f| f["post_processor"]["single"] = json!(vec![text.clone(); 1000])
                }),
            ),
            (
                "post_processor",
                Box::new(|f| {
                    f["post_processor"]["special_tokens"]["<bos>"]["ids"] = json!(vec![2; 100_000])
                }),
            ),
            (
                "decoder",
                Box::new({
                    let v = vec![
                        json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"});
                        40
                    ];
                    move |f| {
                        f["decoder"] = json!({"type": "Sequence", "decoders": v});
                    }
                }),
            ),
            (
                "continuing_subword_prefix",
                Box::new(|f| f["model"]["continuing_subword_prefix"] = "x".repeat(1 << 20).into()),
            ),
            ("dropout", Box::new(|f| f["model"]["dropout"] = 0.1.into())),
            ("dropout", Box::new(|f| f["model"]["dropout"] = "no".into())),
            (
                "max_input_chars_per_word",
                Box::new(|f| {
                    f["model"] = json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 1u64 << 63, "vocab": f["model"]["vocab"]});
                }),
            ),
        ];
        for (word, change) in changes {
            let said = says(change, "a b apple");
            assert!(said.starts_with("! tokenizer.json: "), "{word}: {said}");
            assert!(said.contains(word), "{word}: {said}");
            assert!(said.len() < 300, "{word}: {} bytes", said.len());
        }
    }

    #[test]
    fn regular_expressions_that_search_without_end_are_given_up() {
        let slow = |file: &mut Value| {
            file["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "(?=(a+)+b)c|(a|a)*?(?!a)z"}, "behavior": "Isolated", "invert": false});
        };
        let began = std::time::Instant::now();
        let said = says(slow, &"a".repeat(20_000));
        assert!(began.elapsed().as_secs() < 20, "{said:.100}");
    }

    #[test]
    fn ordinary_steps_are_taken() {
        let said = says(
            |file| {
                file["normalizer"] = json!({"type": "Sequence", "normalizers": [
                    {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "\u{2581}"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]});
            },
            &"Red Heart ".repeat(20_000),
        );
        assert!(said.ends_with("red heart "), "{said:.100}");
        assert!(says(|_| {}, &"x".repeat(TEXT + 1)).contains("4194304"));
    }
}
