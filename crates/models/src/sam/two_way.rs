//! The two-way transformer: tokens look at the picture and the picture looks at the tokens.

use brisk_nn::ops::{self, AttentionOptions};
use brisk_nn::{
    AttentionNames, AttentionProjections, AttentionWidths, Init, LayerNorm, Tensor, Weights,
};

use super::MaskDecoderConfig;
use super::config::activation;
use super::image_encoder::FeedForward;
use crate::Result;

/// How the reference names an attention's projections.
const NAMES: AttentionNames = AttentionNames {
    query: "q_proj",
    key: "k_proj",
    value: "v_proj",
    output: "out_proj",
};

/// Attention through `inner` channels.
#[derive(Debug)]
pub(super) struct Attention {
    pub projections: AttentionProjections,
    options: AttentionOptions,
}

impl Attention {
    pub(super) fn load(
        weights: &Weights,
        config: &MaskDecoderConfig,
        inner: usize,
    ) -> Result<Self> {
        let widths = AttentionWidths {
            width: config.hidden_size,
            context: config.hidden_size,
            queries: inner,
            keys: inner,
            bias: true,
            output_bias: true,
            init: Init::KaimingUniform,
        };
        let heads = config.num_attention_heads;
        Ok(Self {
            projections: AttentionProjections::load(weights, NAMES, &widths)?,
            options: AttentionOptions::new(heads, inner / heads),
        })
    }

    /// Queries, keys and values `[B,·,C]`, not yet projected, to `[B,queries,C]`.
    pub(super) fn forward(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let AttentionProjections {
            key: of_key,
            value: of_value,
            ..
        } = &self.projections;
        self.look(query, &of_key.forward(key)?, &of_value.forward(value)?)
    }

    /// The same where keys and values are projected; those of one picture `[1,·,inner]` may serve queries of
    /// several prompts.
    pub(super) fn look(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let query = self.projections.query.forward(query)?;
        let (count, tokens, inner) = query.dims3()?;
        let together = match key.dim(0)? {
            1 => query.reshape((1, count * tokens, inner))?,
            _ => query.clone(),
        };
        let seen = ops::attention(&together, key, value, &self.options)?;
        self.projections
            .output
            .forward(&seen.reshape((count, tokens, inner))?)
    }

    /// The same where queries are projected too, `[B,·,inner]` as keys and values.
    pub(super) fn seen(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let AttentionProjections {
            key: of_key,
            value: of_value,
            output,
            ..
        } = &self.projections;
        let seen = ops::attention(
            query,
            &of_key.forward(key)?,
            &of_value.forward(value)?,
            &self.options,
        )?;
        output.forward(&seen)
    }
}

/// What the first layer makes of a picture before it knows a prompt, each `[1, cells, inner]`.
#[derive(Clone, Debug)]
pub(super) struct Projected {
    key: Tensor,
    value: Tensor,
    query: Tensor,
}

/// One layer.
#[derive(Debug)]
pub(super) struct TwoWayLayer {
    self_attention: Attention,
    norm1: LayerNorm,
    to_image: Attention,
    norm2: LayerNorm,
    feed_forward: FeedForward,
    norm3: LayerNorm,
    to_tokens: Attention,
    norm4: LayerNorm,
    /// In the first layer tokens are their own positions, and nothing is carried past their attention.
    first: bool,
}

impl TwoWayLayer {
    pub(super) fn load(
        weights: &Weights,
        config: &MaskDecoderConfig,
        index: usize,
    ) -> Result<Self> {
        let width = config.hidden_size;
        let norm = |index: usize| {
            let weights = weights.pp(format!("layer_norm{index}"));
            LayerNorm::load(&weights, width, config.layer_norm_eps, true)
        };
        let across = |name: &str| Attention::load(&weights.pp(name), config, config.inner());
        let act = activation("mask_decoder_config.hidden_act", &config.hidden_act)?;
        Ok(Self {
            self_attention: Attention::load(&weights.pp("self_attn"), config, width)?,
            norm1: norm(1)?,
            to_image: across("cross_attn_token_to_image")?,
            norm2: norm(2)?,
            feed_forward: FeedForward::load(&weights.pp("mlp"), width, config.mlp_dim, act)?,
            norm3: norm(3)?,
            to_tokens: across("cross_attn_image_to_token")?,
            norm4: norm(4)?,
            first: index == 0,
        })
    }

    /// What it makes of a picture `[1, cells, C]` at these positions before it knows a prompt.
    pub(super) fn project(&self, image: &Tensor, positions: &Tensor) -> Result<Projected> {
        let placed = (image + positions)?;
        Ok(Projected {
            key: self.to_image.projections.key.forward(&placed)?,
            value: self.to_image.projections.value.forward(image)?,
            query: self.to_tokens.projections.query.forward(&placed)?,
        })
    }

    /// Tokens `[B,T,C]` and picture, `[1,cells,C]` with what was [projected](Self::project) of it or
    /// `[B,cells,C]`, to the tokens and pictures of the next layer; `prompts` are the first layer's tokens.
    pub(super) fn forward(
        &self,
        tokens: &Tensor,
        image: &Tensor,
        prompts: &Tensor,
        positions: &Tensor,
        projected: Option<&Projected>,
    ) -> Result<(Tensor, Tensor)> {
        let attended = match self.first {
            true => self.self_attention.forward(tokens, tokens, tokens)?,
            false => {
                let placed = ops::add(tokens, prompts)?;
                ops::add(
                    tokens,
                    &self.self_attention.forward(&placed, &placed, tokens)?,
                )?
            }
        };
        let tokens = self.norm1.forward(&attended)?;

        let placed = ops::add(&tokens, prompts)?;
        let looked = match projected {
            Some(Projected { key, value, .. }) => self.to_image.look(&placed, key, value)?,
            None => self
                .to_image
                .forward(&placed, &image.broadcast_add(positions)?, image)?,
        };
        let tokens = self.norm2.forward(&ops::add(&tokens, &looked)?)?;
        let tokens = self
            .norm3
            .forward(&self.feed_forward.forward(&tokens, &tokens)?)?;

        let placed = ops::add(&tokens, prompts)?;
        let count = tokens.dim(0)?;
        let repeated = |x: &Tensor| -> Result<Tensor> {
            let (_, cells, width) = x.dims3()?;
            x.broadcast_as((count, cells, width))?.contiguous()
        };
        let told = match projected {
            Some(Projected { query, .. }) => {
                self.to_tokens.seen(&repeated(query)?, &placed, &tokens)?
            }
            None => self
                .to_tokens
                .forward(&image.broadcast_add(positions)?, &placed, &tokens)?,
        };
        let image = self.norm4.forward(&told.broadcast_add(image)?)?;
        Ok((tokens, image))
    }
}
