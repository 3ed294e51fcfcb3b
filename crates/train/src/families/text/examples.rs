//! Problems as token sequences.

use std::ops::{Range, RangeInclusive};

use brisk_models::language_model::LanguageModelConfig;
use brisk_text::{ChatMessage, ChatTemplate, Tokenizer, word_tokenizer};

use crate::data::arithmetic::{Split, problem, problem_of, words};
use crate::error::{Error, Result};
use crate::recipe::TextRecipe;

/// Fills up an answer, and ends a text.
pub(super) const END: &str = "<|endoftext|>";
pub(super) const START: &str = "<|startoftext|>";
pub(super) const MASK: &str = "<|mdm_mask|>";
/// Ends a turn.
pub(super) const TURN_END: &str = "<|eot_id|>";
const UNKNOWN: &str = "<|unknown|>";

/// Special tokens as LLaDA spells them, in the order of their ids.
const SPECIALS: [&str; 7] = [
    END,
    START,
    MASK,
    "<|start_header_id|>",
    "<|end_header_id|>",
    TURN_END,
    UNKNOWN,
];

/// Words of the chat template.
const ROLES: [&str; 3] = ["assistant", "system", "user"];

/// LLaDA's chat template: headers around each turn, and the assistant's header at the end.
pub(super) const TEMPLATE: &str = "{% for message in messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}\
{% if loop.first %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";

/// A question and its solution in tokens.
pub(super) struct Example {
    pub prompt: Vec<u32>,
    /// The solution with the token that ends the turn.
    pub answer: Vec<u32>,
}

/// Where examples come from.
pub(super) struct Examples {
    seed: u64,
    pub tokenizer: Tokenizer,
    /// The `tokenizer.json`.
    pub tokenizer_file: Vec<u8>,
    template: ChatTemplate,
    turn_end: u32,
    /// One digit, or two.
    numbers: Vec<u32>,
    /// What results follow.
    equals: u32,
    /// What the colon before the answer's number follows.
    answer: u32,
    /// Ends a line's key.
    colon: u32,
    line_feed: u32,
    /// Fills up answers.
    pub end: u32,
    pub mask: u32,
}

impl Examples {
    pub fn new(recipe: &TextRecipe) -> Result<Examples> {
        let mut listed = words();
        for role in ROLES {
            if let Err(at) = listed.binary_search(&role.to_owned()) {
                listed.insert(at, role.to_owned());
            }
        }
        let tokenizer_file = word_tokenizer(&SPECIALS, UNKNOWN, &listed)?;
        let tokenizer = Tokenizer::from_bytes(&tokenizer_file, "made tokenizer")?;
        let specials = vec![("bos_token".to_owned(), START.to_owned())];
        let id = |token: &str| {
            tokenizer
                .token_id(token)
                .ok_or_else(|| Error::Data(format!("the tokenizer lacks {token}")))
        };
        Ok(Examples {
            seed: recipe.training.seed,
            turn_end: id(TURN_END)?,
            numbers: (0..10)
                .map(|digit| format!("{digit}"))
                .chain((0..100).map(|pair| format!("{pair:02}")))
                .map(|number| id(&number))
                .collect::<Result<_>>()?,
            equals: id("=")?,
            answer: id("Answer")?,
            colon: id(":")?,
            line_feed: id("\n")?,
            end: id(END)?,
            mask: id(MASK)?,
            template: ChatTemplate::new(TEMPLATE.to_owned(), specials, "chat template")?,
            tokenizer,
            tokenizer_file,
        })
    }

    /// Training problem number `index`, with so many events.
    pub fn get(&self, index: u64, events: RangeInclusive<usize>) -> Result<Example> {
        let problem = problem_of(events, self.seed, index, Split::Training);
        let turn = [ChatMessage {
            role: "user".to_owned(),
            content: problem.question,
        }];
        let prompt = self.template.render(&turn, None)?;
        let mut answer = self.tokenizer.encode_plain(&problem.solution)?;
        answer.push(self.turn_end);
        Ok(Example {
            prompt: self.tokenizer.encode_plain(&prompt)?,
            answer,
        })
    }

    /// The solution of training problem number `index` without its question.
    pub fn drill(&self, index: u64) -> Result<Example> {
        let problem = problem(self.seed, index, Split::Training);
        Ok(Example {
            prompt: self.tokenizer.encode_plain(START)?,
            answer: self.tokenizer.encode_plain(&problem.solution)?,
        })
    }

    /// Where the results of an answer's calculations stand, and the answer's own number.
    pub fn results(&self, answer: &[u32]) -> Vec<Range<usize>> {
        let is_number = |id: &u32| self.numbers.contains(id);
        let mut found = Vec::new();
        for (at, token) in answer.iter().enumerate() {
            let stated = at > 0 && answer[at - 1] == self.answer;
            if *token == self.equals || stated {
                let count = answer[at + 1..]
                    .iter()
                    .take_while(|id| is_number(id))
                    .count();
                found.push(at + 1..at + 1 + count);
            }
        }
        found
    }

    /// What stands between the key of each of an answer's lines and the line's end.
    pub fn lines(&self, answer: &[u32]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut start = 0;
        for line in answer.split(|id| *id == self.line_feed) {
            let end = start + line.len();
            let turn_end = usize::from(line.last() == Some(&self.turn_end));
            if let Some(key) = line.iter().position(|id| *id == self.colon) {
                found.push(start + key + 1..end - turn_end);
            }
            start = end + 1;
        }
        found
    }

    /// Whether sequences of the recipe's lengths fit the model.
    pub fn check(&self, recipe: &TextRecipe, config: &LanguageModelConfig) -> Result<()> {
        let longest = recipe.lengths.iter().map(|(length, _)| *length).max();
        let needed = longest.unwrap_or(0) + 160;
        if needed > config.context {
            return Err(Error::Recipe(format!(
                "model.max_sequence_length is {}, but answers of up to {} tokens after questions of up to 160 \
                 need {needed}",
                config.context,
                longest.unwrap_or(0)
            )));
        }
        Ok(())
    }
}
