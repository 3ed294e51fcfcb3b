//! The tokenizer of texts: a `tokenizer.model` as Llama has it, and the four tokens that frame pictures and clips.

use brisk_pipelines::families::vila_u::prompt::{FRAMES, question};
use brisk_text::Tokenizer;
use serde_json::{Map, Value, json};

use super::lessons::questions;
use crate::captions;
use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::rng::Rng;

/// A trained tokenizer, as its files say it.
pub(super) struct Vocabulary {
    /// `tokenizer.model`.
    pub model: Vec<u8>,
    /// Pieces of the model; the frames follow.
    pieces: usize,
}

impl Vocabulary {
    /// Of the captions and questions of training pictures, with at most `size` tokens.
    pub fn train(data: &PictureData, training: &[usize], size: usize, seed: u64) -> Result<Self> {
        // What stands around every text, as often as it takes to become pieces.
        let mut lines = vec![question(" "), question(" ")];
        lines.extend(captions::lines(data, training));
        let mut rng = Rng::new(seed);
        for index in training {
            for asked in questions(&data.entries()[*index], &mut rng) {
                lines.push(format!("\n{} {}", asked.question, asked.answer));
            }
        }
        let model = brisk_text::train_sentencepiece(&lines, size.saturating_sub(FRAMES.len()))?;
        Self::of(model)
    }

    /// As a finished model has it.
    pub fn of(model: Vec<u8>) -> Result<Self> {
        let label = "tokenizer.model";
        let plain = Tokenizer::from_sentencepiece(&model, &Value::Null, &Value::Null, label)?;
        Ok(Self {
            pieces: plain.vocabulary_size(),
            model,
        })
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        self.pieces + FRAMES.len()
    }

    /// `added_tokens.json`.
    pub fn added(&self) -> Value {
        let frames = FRAMES.iter().zip(self.pieces..);
        let frames = frames.map(|(frame, id)| ((*frame).to_owned(), id.into()));
        Value::Object(frames.collect())
    }

    /// `tokenizer_config.json`.
    pub fn settings(&self, context: usize) -> Value {
        let reserved = ["<unk>", "<s>", "</s>"].into_iter().zip(0..);
        let tokens = reserved.chain(FRAMES.into_iter().zip(self.pieces..));
        let decoder: Map<String, Value> = tokens
            .map(|(content, id)| {
                let entry = json!({
                    "content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
                    "special": true,
                });
                (id.to_string(), entry)
            })
            .collect();
        json!({
            "add_bos_token": true, "add_eos_token": false, "added_tokens_decoder": decoder, "bos_token": "<s>",
            "eos_token": "</s>", "legacy": false, "model_max_length": context, "pad_token": "<unk>",
            "padding_side": "right", "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
        })
    }

    /// Ready to use.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let (settings, added) = (self.settings(0), self.added());
        let label = "tokenizer.model";
        Ok(Tokenizer::from_sentencepiece(
            &self.model,
            &settings,
            &added,
            label,
        )?)
    }
}
