//! Prompts as SANA models want them.
//!
//! The prompt is put behind a constant instruction (the "complex human instruction" of the paper); only the hidden
//! state of `<bos>` and those of the last window of positions go on to the transformer.

use brisk_text::{Error, Result, Tokenizer, is_space};

/// Text positions that the published models were trained with.
pub const MAX_TOKENS: usize = 300;

/// Tokens that an instruction may have: all are run through the text encoder, in the square of their number.
const MAX_INSTRUCTION: usize = 8192;

/// The instruction used when a model comes without its own. Same structure as the one that published models were
/// trained with, but not the same words: pass the model's own text to get the reference's pictures.
pub const DEFAULT_INSTRUCTION: &str = "\
Turn the user's prompt into an 'Enhanced prompt' that describes one picture in full, after judging how much detail it already has:
- When the prompt is short or plain, add what can be seen: colours, shapes, sizes, surfaces, light, and where things stand.
- When the prompt is already rich, keep what it says and only smooth the wording.
Two examples of short prompts and what becomes of them:
- A lighthouse -> A tall white lighthouse with a red lantern room on dark rocks, grey waves below and a pale evening sky behind.
- Fruit on a table -> Three yellow pears and a split pomegranate on a worn oak table, soft window light falling from the left.
Answer with the description only, without remarks or headings, for the following prompt:
User Prompt: ";

/// A tokenised prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Token ids to run through the text encoder, unpadded, truncated.
    pub ids: Vec<u32>,
    /// Positions in `ids` whose hidden rows go on to the transformer, ascending. Positions that the reference pads and
    /// masks are left out, so there are at most `max_tokens`, often fewer.
    pub selected: Vec<usize>,
    /// Length of the prefix of `ids` that is the same for every prompt with this instruction as far as tokenising
    /// allows; 0 without instruction. The encoder's keys and values for it can be kept.
    pub instruction_tokens: usize,
    /// True when the prompt was too long and its end was cut off.
    pub truncated: bool,
}

/// Tokenises `prompt` (made lower case and trimmed) behind `instruction`.
///
/// `max_tokens` is the window (see [`MAX_TOKENS`]), at least 2. An empty instruction counts as none. With an
/// instruction of n tokens, `<bos>` included, the sequence is cut to `n + max_tokens - 2` tokens, and position 0 and
/// the positions from `n - 1` on are selected: the text's final space merges with the prompt's first word.
///
/// Errors: a tokenizer that yields nothing for the text, or a `max_tokens` below 2.
pub fn encode(
    tokenizer: &Tokenizer,
    prompt: &str,
    instruction: Option<&str>,
    max_tokens: usize,
) -> Result<EncodedPrompt> {
    if max_tokens < 2 {
        return Err(Error::Argument(format!(
            "a window of {max_tokens} text tokens; the smallest is 2"
        )));
    }
    let prompt = normalise(prompt);
    let empty = |what| Error::Empty {
        label: tokenizer.label().to_owned(),
        what,
    };
    let Some(instruction) = instruction.filter(|text| !text.is_empty()) else {
        let (ids, truncated) = tokenizer.encode_truncated(&prompt, max_tokens)?;
        if ids.is_empty() {
            return Err(empty("the prompt"));
        }
        let selected = (0..ids.len()).collect();
        return Ok(EncodedPrompt {
            ids,
            selected,
            instruction_tokens: 0,
            truncated,
        });
    };
    let instruction_ids = tokenizer.encode(instruction)?;
    let count = instruction_ids.len();
    if count < 2 {
        return Err(empty("the instruction"));
    }
    if count > MAX_INSTRUCTION {
        return Err(Error::Argument(format!(
            "the instruction before the prompt has {count} tokens; at most {MAX_INSTRUCTION} are read: shorten \
             the model's complex_human_instruction.txt, or what the option `instruction` names"
        )));
    }
    let limit = count + max_tokens - 2;
    let (ids, truncated) = tokenizer.encode_truncated(&format!("{instruction}{prompt}"), limit)?;
    let shared = ids
        .iter()
        .zip(&instruction_ids)
        .take_while(|(a, b)| a == b)
        .count();
    let selected = std::iter::once(0).chain(count - 1..ids.len()).collect();
    Ok(EncodedPrompt {
        ids,
        selected,
        instruction_tokens: shared.min(count - 1),
        truncated,
    })
}

/// Lower case, without white space at the ends, as Python's `lower().strip()`.
fn normalise(prompt: &str) -> String {
    prompt.to_lowercase().trim_matches(is_space).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_text::train_bpe;

    fn tokenizer() -> Tokenizer {
        let lines: Vec<String> = [
            "red heart",
            "red apple",
            "green heart",
            "user prompt: red",
            "a red one",
            "in red",
        ]
        .map(String::from)
        .to_vec();
        Tokenizer::from_bytes(&train_bpe(&lines, 400).unwrap(), "test").unwrap()
    }

    /// The reference's way: pad to the full length, pick positions, drop masked ones.
    fn by_padding(
        tokenizer: &Tokenizer,
        prompt: &str,
        instruction: Option<&str>,
        window: usize,
    ) -> (Vec<u32>, Vec<usize>) {
        let total = instruction.map_or(window, |text| {
            tokenizer.encode(text).unwrap().len() + window - 2
        });
        let text = format!("{}{prompt}", instruction.unwrap_or(""));
        let mut ids: Vec<Option<u32>> = tokenizer
            .encode(&text)
            .unwrap()
            .into_iter()
            .map(Some)
            .collect();
        ids.resize(total, None);
        let mut positions = vec![0];
        positions.extend((1..window).rev().map(|back| total - back));
        positions.retain(|p| ids[*p].is_some());
        (ids.into_iter().flatten().collect(), positions)
    }

    #[test]
    fn an_instruction_without_end_is_refused() {
        let long = "red ".repeat(20_000);
        let refused = encode(&tokenizer(), "red", Some(&long), 300).unwrap_err();
        assert!(refused.to_string().contains("at most 8192"), "{refused}");
    }

    #[test]
    fn agrees_with_padding_and_selecting() {
        let tokenizer = tokenizer();
        let long = "red heart ".repeat(50);
        for prompt in ["", "red heart", "a", "green apple on a table", long.trim()] {
            for instruction in [
                None,
                Some("user prompt: "),
                Some(DEFAULT_INSTRUCTION),
                Some("say"),
            ] {
                for window in [2, 5, 300] {
                    let ours = encode(&tokenizer, prompt, instruction, window).unwrap();
                    let (ids, selected) = by_padding(&tokenizer, prompt, instruction, window);
                    assert_eq!(ours.ids, ids, "{prompt:?} {instruction:?} {window}");
                    assert_eq!(
                        ours.selected, selected,
                        "{prompt:?} {instruction:?} {window}"
                    );
                    assert!(ours.selected.len() <= window);
                }
            }
        }
    }

    #[test]
    fn the_shared_prefix_is_a_prefix_of_both() {
        let tokenizer = tokenizer();
        let instruction = "user prompt: ";
        let alone = tokenizer.encode(instruction).unwrap();
        let one = encode(&tokenizer, "red", Some(instruction), 300).unwrap();
        assert_eq!(
            one.instruction_tokens,
            alone.len() - 1,
            "the final space merges with the first word"
        );
        assert_eq!(
            one.ids[..one.instruction_tokens],
            alone[..one.instruction_tokens]
        );
        assert_eq!(one.selected, [0, alone.len() - 1]);
        let empty = encode(&tokenizer, "", Some(instruction), 300).unwrap();
        assert_eq!(
            empty.instruction_tokens,
            alone.len() - 1,
            "one row is left to run"
        );
    }

    #[test]
    fn prompts_are_lowered_and_trimmed_as_python_does() {
        assert_eq!(normalise(" \t\u{1f}\u{a0}ÄRGER Σ \u{1c}\n"), "ärger σ");
        let tokenizer = tokenizer();
        let plain = encode(&tokenizer, "red heart", None, 300).unwrap();
        assert_eq!(
            encode(&tokenizer, "\n Red HEART  ", None, 300).unwrap(),
            plain
        );
    }

    #[test]
    fn huge_prompts_are_cut_and_say_so() {
        let tokenizer = tokenizer();
        let huge = "red heart \u{1f680} ".repeat(8000);
        assert!(huge.len() > 100_000);
        let encoded = encode(&tokenizer, &huge, Some(DEFAULT_INSTRUCTION), MAX_TOKENS).unwrap();
        assert!(encoded.truncated);
        assert_eq!(encoded.selected.len(), 300);
        assert_eq!(encoded.selected.last(), Some(&(encoded.ids.len() - 1)));
        let one_word = "x".repeat(100_000);
        let encoded = encode(&tokenizer, &one_word, None, MAX_TOKENS).unwrap();
        assert_eq!((encoded.ids.len(), encoded.truncated), (300, true));
        assert!(
            !encode(&tokenizer, "red", None, MAX_TOKENS)
                .unwrap()
                .truncated
        );
    }

    #[test]
    fn a_tokenizer_that_yields_nothing_is_refused() {
        let mut json: serde_json::Value =
            serde_json::from_slice(&train_bpe(&["red heart red".into()], 300).unwrap()).unwrap();
        json["post_processor"] = serde_json::Value::Null;
        let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes(), "no bos").unwrap();
        assert!(matches!(
            encode(&tokenizer, " ", None, 300),
            Err(Error::Empty { .. })
        ));
        assert!(encode(&tokenizer, "red", None, 300).is_ok());
        assert!(encode(&tokenizer, "red", None, 1).is_err());
    }

    #[test]
    fn the_default_instruction_has_the_expected_shape() {
        let lines: Vec<&str> = DEFAULT_INSTRUCTION.split('\n').collect();
        assert_eq!((lines.len(), lines[7]), (8, "User Prompt: "));
    }
}
