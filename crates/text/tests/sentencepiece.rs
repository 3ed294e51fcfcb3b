//! Ids and texts of a SentencePiece tokenizer against those of the slow tokenizer of transformers.

use brisk_testkit::{check_seeds, fixtures_dir};
use brisk_text::Tokenizer;
use serde_json::{Value, json};

fn folder() -> std::path::PathBuf {
    fixtures_dir().join("vila_u/base/llm")
}

fn model() -> Vec<u8> {
    std::fs::read(folder().join("tokenizer.model")).unwrap()
}

fn read_json(path: std::path::PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn settings() -> Value {
    read_json(folder().join("tokenizer_config.json"))
}

fn tokenizer() -> Tokenizer {
    let added = read_json(folder().join("added_tokens.json"));
    Tokenizer::from_sentencepiece(&model(), &settings(), &added, "tokenizer.model").unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap().iter();
    list.map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn ids_and_texts_are_those_of_the_slow_tokenizer() {
    let cases = read_json(fixtures_dir().join("vila_u/texts/tokenizer.json"));
    let tokenizer = tokenizer();
    for case in cases["texts"].as_array().unwrap() {
        let (text, wanted) = (case["text"].as_str().unwrap(), ids(&case["ids"]));
        assert_eq!(tokenizer.encode(text).unwrap(), wanted, "{text:?}");
        assert_eq!(
            tokenizer.encode_plain(text).unwrap(),
            wanted[1..],
            "{text:?}"
        );
        let decoded = tokenizer.decode(&wanted).unwrap();
        assert_eq!(decoded, case["decoded"].as_str().unwrap(), "{text:?}");
    }
    for case in cases["decoded"].as_array().unwrap() {
        let found = tokenizer.decode(&ids(&case["ids"])).unwrap();
        assert_eq!(found, case["text"].as_str().unwrap(), "{case}");
    }
    assert_eq!(tokenizer.vocabulary_size(), 404);
    assert_eq!(tokenizer.highest_id(), Some(403));
    assert_eq!(tokenizer.token_id("<im_start>"), Some(400));
    assert_eq!(tokenizer.token_id("</s>"), Some(2));
    assert!(
        tokenizer.decode(&[404]).is_err() && tokenizer.decode_known(&[404]).unwrap().is_empty()
    );
    let (cut, truncated) = tokenizer.encode_truncated("a red heart", 3).unwrap();
    assert_eq!((cut, truncated), (vec![1, 259, 350], true));
}

#[test]
fn what_the_settings_say_of_a_beginning_is_honoured() {
    let read = |key: &str, value: bool| {
        let settings = json!({ key: value });
        Tokenizer::from_sentencepiece(&model(), &settings, &Value::Null, "tokenizer.model")
    };
    let encoded = |key: &str, value: bool| read(key, value).unwrap().encode("a red").unwrap();
    let usual = encoded("add_bos_token", true);
    assert_eq!(usual[..2], [1, 259]);
    assert_eq!(encoded("add_bos_token", false), usual[1..]);
    let bare = read("add_prefix_space", false).unwrap();
    let ids = bare.encode("a red").unwrap();
    assert_eq!(ids[..2], [1, 352]);
    assert_eq!(bare.decode(&ids).unwrap(), "a red");
    assert_eq!(bare.decode(&bare.encode(" a").unwrap()).unwrap(), " a");
    let error = read("add_eos_token", true).unwrap_err().to_string();
    assert!(error.contains("add_eos_token"), "{error}");
}

#[test]
fn tokens_that_contradict_the_model_are_refused_with_both() {
    let refused = |settings: Value, added: Value| {
        Tokenizer::from_sentencepiece(&model(), &settings, &added, "tokenizer.model")
            .unwrap_err()
            .to_string()
    };
    let entry = |content: &str| json!({"content": content, "special": true});
    for (settings, added, words) in [
        (
            json!({"added_tokens_decoder": {"5": entry("<x>")}}),
            Value::Null,
            ["<x>", "5"],
        ),
        (
            json!({"added_tokens_decoder": {"400": {}}}),
            Value::Null,
            ["400", "content"],
        ),
        (Value::Null, json!({"<x>": 99_999_999}), ["99999999", "400"]),
        (Value::Null, json!({"<x>": -1}), ["-1", "<x>"]),
        (
            json!({"added_tokens_decoder": {"400": entry("<x>")}}),
            json!({"<y>": 400}),
            ["<x>", "<y>"],
        ),
        (Value::Null, json!({"": 400}), ["400", "0 bytes"]),
    ] {
        let message = refused(settings, added);
        assert!(message.starts_with("tokenizer.model: "), "{message}");
        for word in words {
            assert!(message.contains(word), "no {word} in {message}");
        }
    }
}

/// A message of protocol buffers, field by field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2, bytes.len() as u8];
    message.extend(bytes);
    message
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let mut message = field(1, text.as_bytes());
    message.push(0x15);
    message.extend(score.to_le_bytes());
    message.extend([0x18, kind]);
    field(1, &message)
}

const BPE: [u8; 2] = [0x18, 2];
/// Extra white space is kept.
const KEPT: [u8; 2] = [0x20, 0];

fn small(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = pieces.concat();
    bytes.extend(field(2, &BPE));
    bytes.extend(field(3, &KEPT));
    bytes
}

#[test]
fn pieces_of_every_kind_are_honoured() {
    let unknown = piece("<unk>", 0.0, 2);
    let pieces = [
        unknown.clone(),
        piece("\u{2581}", -9.0, 1),
        piece("a", -9.0, 1),
        piece("aa", -1.0, 1),
        piece("aaa", -0.5, 1),
        piece("b", -9.0, 1),
        piece("ab", -2.0, 1),
        piece("ba", -2.0, 4),
    ];
    let read = |bytes: &[u8]| {
        Tokenizer::from_sentencepiece(bytes, &Value::Null, &Value::Null, "small.model")
    };
    let tokenizer = read(&small(&pieces)).unwrap();
    for (text, wanted) in [
        // Of equals the leftmost first; the highest score before it.
        ("aaaa", &[1, 4, 2][..]),
        ("aab", &[1, 3, 5]),
        // What is user-defined is cut out and stays whole.
        ("aba", &[1, 2, 7]),
        // Unknown characters in a row are one, as no bytes stand for them.
        ("axya", &[1, 2, 0, 2]),
    ] {
        assert_eq!(tokenizer.encode_plain(text).unwrap(), wanted, "{text}");
    }
    let byte = |text: &str| [unknown.clone(), piece(text, 0.0, 6)];
    let mut fallback = small(&pieces);
    fallback.extend(field(2, &[0x98, 0x02, 1]));
    let mut folded = small(&pieces);
    folded.extend(field(3, &[0x0a, 1, b'n', 0x12, 1, 0]));
    for (bytes, word) in [
        (small(&[]), "unknown"),
        (
            small(&[unknown.clone(), unknown.clone()]),
            "both the unknown",
        ),
        (small(&[unknown.clone(), piece("a", f32::NAN, 1)]), "score"),
        (
            small(&[unknown.clone(), piece("a", 0.0, 1), piece("a", 0.0, 1)]),
            "\"a\"",
        ),
        (small(&[unknown.clone(), piece("", 0.0, 1)]), "0 bytes"),
        (small(&[unknown.clone(), piece("a", 0.0, 5)]), "type 5"),
        (small(&byte("<0xZZ>")), "<0xZZ>"),
        (small(&byte("<0x\u{e9}>")), "<0x\u{e9}>"),
        (fallback, "byte 0"),
        (folded, "identity"),
        (pieces.concat(), "remove_extra_whitespaces"),
        ([pieces.concat(), field(3, &KEPT)].concat(), "model_type"),
        (vec![0xff; 3], "no model of SentencePiece"),
        (b"not a model".to_vec(), "no model of SentencePiece"),
    ] {
        let message = read(&bytes).unwrap_err().to_string();
        assert!(message.starts_with("small.model: "), "{message}");
        assert!(message.contains(word), "no {word} in {message}");
    }
}

#[test]
fn known_bad_files_are_errors() {
    check_seeds("sentencepiece", true, |label, bytes| {
        Tokenizer::from_sentencepiece(bytes, &Value::Null, &Value::Null, label)
    });
}

/// Whatever a file says, it is read or refused, and what is read tokenises.
#[test]
fn damaged_files_never_panic() {
    let whole = model();
    let texts = ["", "a red  heart, 42\n", "\u{1f600}<im_start>e\u{301}"];
    let added = json!({"<im_start>": 400});
    let mut read = 0;
    let mut try_one = |bytes: &[u8]| {
        let found = Tokenizer::from_sentencepiece(bytes, &Value::Null, &added, "damaged");
        let Ok(tokenizer) = found else {
            return;
        };
        read += 1;
        for text in texts {
            let ids = tokenizer.encode(text).unwrap();
            tokenizer.decode(&ids).unwrap();
        }
    };
    for end in (0..whole.len()).step_by(61) {
        try_one(&whole[..end]);
    }
    for at in (0..whole.len()).step_by(23) {
        for flip in [0x01, 0x08, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            try_one(&bytes);
        }
    }
    assert!(read > 100, "only {read} were read");
}
