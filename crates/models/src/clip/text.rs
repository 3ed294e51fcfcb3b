//! The text encoder.

use brisk_nn::ops::AttentionOptions;
use brisk_nn::{Embedding, EncoderLayer, Init, LayerNorm, Tensor, Trace, Weights, check_finite};

use super::ClipTextConfig;
use crate::{Error, Result};

const STAGE: &str = "text encoder";
/// What stands before the names in the published files.
const PREFIX: &str = "text_model";
/// A buffer that older files hold.
pub(super) const PLACES: &str = "embeddings.position_ids";
/// `eos_token_id` of files that were written before it was right.
const OLD_END: u32 = 2;

/// CLIP's text encoder.
#[derive(Debug)]
pub struct ClipText {
    config: ClipTextConfig,
    tokens: Embedding,
    places: Tensor,
    layers: Vec<EncoderLayer>,
    norm: LayerNorm,
}

/// Texts behind the encoder.
#[derive(Debug)]
pub struct EncodedText {
    /// The state of every token, `[B,T,D]`.
    pub states: Tensor,
    /// That of each text's end, `[B,D]`.
    pub pooled: Tensor,
}

impl ClipText {
    /// Loads the encoder.
    ///
    /// # Errors
    /// One report of every tensor that is missing, unexpected or of another shape.
    pub fn load(config: &ClipTextConfig, weights: &Weights) -> Result<Self> {
        let inner = match weights.contains(&format!("{PREFIX}.final_layer_norm.weight")) {
            true => weights.pp(PREFIX),
            false => weights.clone(),
        };
        let encoder = Self::read(config, &inner)?;
        weights.finish(&[PLACES, &format!("{PREFIX}.{PLACES}")])?;
        Ok(encoder)
    }

    /// Reads it as a part of something; whoever calls finishes the weights.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn read(config: &ClipTextConfig, inner: &Weights) -> Result<Self> {
        let (width, options) = (config.hidden_size, config.layer()?);
        let embeddings = inner.pp("embeddings");
        let (start, places) = (Init::Normal(0.02), config.max_position_embeddings);
        let table = embeddings.pp("position_embedding");
        let below = inner.pp("encoder.layers");
        let layers =
            (0..config.num_hidden_layers).map(|i| EncoderLayer::load(&below.pp(i), &options));
        Ok(Self {
            tokens: Embedding::load(
                &embeddings.pp("token_embedding"),
                config.vocab_size,
                width,
                start,
            )?,
            places: table.get("weight", &[places, width], start)?,
            layers: layers.collect::<Result<_>>()?,
            norm: LayerNorm::load(
                &inner.pp("final_layer_norm"),
                width,
                config.layer_norm_eps,
                true,
            )?,
            config: config.clone(),
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Encodes texts of `tokens` ids each, row by row; a token sees itself and those before it, but none that `mask`
    /// hides. `trace` sees `embeddings`, every `layers.{i}` and `norm`.
    ///
    /// # Errors
    /// Ids outside the vocabulary, more tokens than there are places, or a non-finite activation.
    pub fn encode(
        &self,
        ids: &[u32],
        tokens: usize,
        mask: Option<Vec<Vec<bool>>>,
        trace: &mut Trace,
    ) -> Result<EncodedText> {
        let most = self.config.max_position_embeddings;
        if tokens == 0 || tokens > most || !ids.len().is_multiple_of(tokens) {
            return Err(Error::Shape(format!(
                "{} ids in texts of {tokens}; expected texts of 1 to {most}",
                ids.len()
            )));
        }
        let (batch, width) = (ids.len() / tokens, self.config.hidden_size);
        let x = self.tokens.forward(ids)?.reshape((batch, tokens, width))?;
        let places = self.places.narrow(0, 0, tokens)?.unsqueeze(0)?;
        let mut x = x.broadcast_add(&places)?;
        trace.see("embeddings", &x);
        let heads = self.config.num_attention_heads;
        let options = AttentionOptions {
            causal: Some(0),
            key_mask: mask,
            ..AttentionOptions::new(heads, width / heads)
        };
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &options)?;
            let name = format!("layers.{index}");
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }
        let states = self.norm.forward(&x)?;
        trace.see("norm", &states);
        let rows = states.reshape((batch * tokens, width))?;
        let ends = ids.chunks_exact(tokens).enumerate();
        let ends = ends.map(|(row, ids)| (row * tokens + self.end(ids)) as u32);
        let ends = Tensor::from_vec(ends.collect(), batch)?;
        Ok(EncodedText {
            pooled: rows.index_select(&ends, 0)?,
            states,
        })
    }

    /// Where a text ends: its first end, or its first token where it has none.
    fn end(&self, ids: &[u32]) -> usize {
        let end = match self.config.eos_token_id {
            OLD_END => ids.iter().copied().max().unwrap_or(0),
            end => end,
        };
        ids.iter().position(|id| *id == end).unwrap_or(0)
    }
}
