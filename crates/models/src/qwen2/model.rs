//! The forward pass.

use brisk_nn::{KeyValueCache, Tensor, Trace, Weights};

use crate::buffers::ROTARY;
use crate::language_model::{LanguageModel, LanguageModelConfig, Rows, Span};
use crate::{Error, Result};

/// Where the body stands in files: of the causal language model, of Qwen2-VL, of the body alone.
const PATHS: [&str; 2] = ["model", "model.language_model"];

/// What the files of whole models hold besides.
const OTHERS: [&str; 3] = ["lm_head.weight", "visual.", "model.visual."];

/// Qwen2 without its head.
#[derive(Debug)]
pub struct Qwen2Encoder {
    body: LanguageModel,
}

/// Keys and values of tokens that several texts begin with, and room for the rest of one.
#[derive(Debug)]
pub struct Prefix {
    length: usize,
    cache: KeyValueCache,
}

impl Qwen2Encoder {
    /// Loads the body, whichever way the file names it.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of another
    /// shape.
    pub fn load(config: &LanguageModelConfig, weights: &Weights) -> Result<Self> {
        let found = PATHS
            .iter()
            .find(|path| weights.contains(&format!("{path}.embed_tokens.weight")));
        let inner = match found {
            Some(path) => weights.pp(*path),
            None => weights.clone(),
        };
        let body = LanguageModel::load_body(config, &inner)?;
        let mut ignored = ROTARY.to_vec();
        ignored.extend(OTHERS);
        weights.finish(&ignored)?;
        Ok(Self { body })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &LanguageModelConfig {
        self.body.config()
    }

    /// Encodes texts to `[T,D]`, the rows of one after those of the other. Of each, `seen` says which tokens
    /// are no padding; padding gets rows, too. `trace` sees what [`LanguageModel::hidden_traced`] shows.
    ///
    /// # Errors
    /// Ids outside the vocabulary, no tokens or more than the model knows, or a non-finite activation.
    pub fn encode(&self, texts: &[(&[u32], &[bool])], trace: &mut Trace) -> Result<Tensor> {
        let spans = texts
            .iter()
            .map(|(ids, seen)| Span::whole(ids).seeing(seen));
        let spans: Vec<Span> = spans.collect();
        let mut caches: Vec<Option<&mut KeyValueCache>> = spans.iter().map(|_| None).collect();
        self.body
            .hidden_traced(&spans, &mut caches, Rows::All, trace)
    }

    /// Computes the keys and values of tokens that texts begin with, with room for `more` behind them.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn prefix(&self, ids: &[u32], more: usize) -> Result<Prefix> {
        let length = ids.len();
        let mut cache = self.body.cache(length.saturating_add(more))?;
        if length > 0 {
            let caches = &mut [Some(&mut cache)];
            let spans = [Span::whole(ids)];
            self.body.hidden(&spans, caches, Rows::None)?;
        }
        Ok(Prefix { length, cache })
    }

    /// Encodes what stands behind a prefix to `[T,D]`; equals the last rows of both encoded together.
    ///
    /// # Errors
    /// As [`Self::encode`]; more tokens than the prefix has room for.
    pub fn encode_behind(
        &self,
        prefix: &mut Prefix,
        (ids, seen): (&[u32], &[bool]),
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let room = prefix.cache.capacity() - prefix.length;
        if ids.len() > room {
            return Err(Error::Shape(format!(
                "{} tokens behind a prefix with room for {room}",
                ids.len()
            )));
        }
        let span = Span::from(ids, prefix.length).seeing(seen);
        let caches = &mut [Some(&mut prefix.cache)];
        self.body.hidden_traced(&[span], caches, Rows::All, trace)
    }
}
