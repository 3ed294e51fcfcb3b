//! The two-way transformer: tokens look at the picture and the picture looks at the tokens.

use brisk_nn::ops::{self, AttentionOptions};
use brisk_nn::{
    AttentionNames, AttentionProjections, AttentionWidths, Init, LayerNorm, Tensor, Weights,
    logits::MOST_HEADS,
};

use super::MaskDecoderConfig;
use super::config::activation;
use super::feed_forward::FeedForward;
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
    /// The projections head by head, where few tokens may take them on themselves.
    by_head: Option<ByHead>,
}

/// Weights `[heads, dim, C]` of the projections, and what is added by two of them.
///
/// A product of a token's query with a cell's key is one of the query, taken back through the projection of keys,
/// with the cell itself: a few tokens are projected in place of thousands of cells.
#[derive(Debug)]
pub(super) struct ByHead {
    pub query: Tensor,
    pub key: Tensor,
    /// `[heads, C, dim]`.
    pub value: Tensor,
    pub output: Tensor,
    /// `[heads·dim, 1]`.
    pub query_bias: Tensor,
    /// `[heads·dim]`.
    pub value_bias: Tensor,
    /// `[C]`.
    pub output_bias: Tensor,
    /// `[1, 1, heads, heads·dim]`: 1 in the channels of a head.
    own: Tensor,
}

impl ByHead {
    fn load(weights: &Weights, widths: &AttentionWidths, heads: usize) -> Result<Self> {
        let (width, inner) = (widths.width, widths.queries);
        let dim = inner / heads;
        let weight = |name: &str| -> Result<Tensor> {
            let weight = weights
                .pp(name)
                .get("weight", &[inner, width], widths.init)?;
            weight.reshape((heads, dim, width))?.contiguous()
        };
        let bias = |name: &str, side: usize| weights.pp(name).get("bias", &[side], Init::Zeros);
        let output = weights
            .pp(NAMES.output)
            .get("weight", &[width, inner], widths.init)?;
        let own = (0..heads * inner).map(|at| f32::from(at / inner == at % inner / dim));
        Ok(Self {
            query: weight(NAMES.query)?,
            key: weight(NAMES.key)?,
            value: weight(NAMES.value)?.transpose(1, 2)?.contiguous()?,
            output: output
                .transpose(0, 1)?
                .contiguous()?
                .reshape((heads, dim, width))?,
            query_bias: bias(NAMES.query, inner)?.reshape((inner, 1))?,
            value_bias: bias(NAMES.value, inner)?,
            output_bias: bias(NAMES.output, width)?,
            own: Tensor::from_vec(own.collect(), vec![1, 1, heads, inner])?,
        })
    }
}

/// An attention of which the tokens take the projections of cells on themselves.
#[derive(Clone, Copy)]
pub(super) struct Contracted<'a> {
    pub attention: &'a Attention,
    pub weights: &'a ByHead,
}

impl Contracted<'_> {
    pub(super) fn heads(&self) -> usize {
        self.attention.options.heads
    }

    pub(super) fn scale(&self) -> f64 {
        f64::from(self.attention.options.scale)
    }
}

/// Weights `[heads, dim, C]` as those of a linear layer, `[heads·dim, C]`.
pub(super) fn rows(weights: &Tensor) -> Result<Tensor> {
    let (heads, dim, width) = weights.dims3()?;
    weights.reshape((heads * dim, width))
}

/// Each head of `x` `[B, T, heads·from]` through its own of `weights` `[heads, from, to]`, `[B, T, heads·to]`.
pub(super) fn through(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let (batch, tokens, _) = x.dims3()?;
    let (heads, from, to) = weights.dims3()?;
    let x = x
        .reshape((batch * tokens, heads, from))?
        .transpose(0, 1)?
        .contiguous()?;
    let y = x.matmul(weights)?.transpose(0, 1)?.contiguous()?;
    y.reshape((batch, tokens, heads * to))
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
        let projections = AttentionProjections::load(weights, NAMES, &widths)?;
        let by_head = match weights.is_trainable() || heads > MOST_HEADS {
            true => None,
            false => Some(ByHead::load(weights, &widths, heads)?),
        };
        Ok(Self {
            projections,
            options: AttentionOptions::new(heads, inner / heads),
            by_head,
        })
    }

    /// What is needed where it costs less to project the tokens than the cells of a picture.
    pub(super) fn contracted(&self, tokens: usize) -> Option<Contracted<'_>> {
        let fits = |of: &&ByHead| of.query.dim(1).is_ok_and(|dim| contracts(tokens, dim));
        let weights = self.by_head.as_ref().filter(fits)?;
        Some(Contracted {
            attention: self,
            weights,
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

    /// The same of tokens `[B,T,C]` that look at the cells of pictures.
    pub(super) fn of_tokens(
        &self,
        tokens: &Tensor,
        placed: &Tensor,
        image: &Tensor,
    ) -> Result<Tensor> {
        let (batch, count, width) = tokens.dims3()?;
        let Some(Contracted {
            weights: by_head, ..
        }) = self.contracted(count)
        else {
            return self.forward(tokens, placed, image);
        };
        let heads = self.options.heads;
        let queries = through(&self.projections.query.forward(tokens)?, &by_head.key)?;
        // What the keys' bias adds is the same for all cells, and nothing to their shares.
        let options = AttentionOptions {
            scale: self.options.scale,
            ..AttentionOptions::new(1, width)
        };
        let rows = queries.reshape((batch, count * heads, width))?;
        let seen = ops::attention(&rows, placed, image, &options)?;
        let seen = through(
            &seen.reshape((batch, count, heads * width))?,
            &by_head.value,
        )?;
        // Shares sum to one.
        let seen = seen.broadcast_add(&by_head.value_bias)?;
        self.projections.output.forward(&seen)
    }

    /// The same of cells that look at tokens: `placed` `[B,cells,C]`, or `query`, the projected queries `[1,cells,inner]`
    /// of one picture; `keys` and `values` `[B,T,C]`. To `[B,cells,C]`.
    pub(super) fn of_cells(&self, cells: Cells, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let (batch, count, width) = keys.dims3()?;
        let (heads, cell_count) = (self.options.heads, cells.count()?);
        let Some(Contracted {
            weights: by_head, ..
        }) = self.contracted(count)
        else {
            return match cells {
                Cells::Placed(placed) => self.forward(placed, keys, values),
                Cells::Projected(query) => {
                    let inner = query.dim(2)?;
                    let all = query
                        .broadcast_as((batch, cell_count, inner))?
                        .contiguous()?;
                    self.seen(&all, keys, values)
                }
            };
        };
        let keys = (self.projections.key.forward(keys)? * f64::from(self.options.scale))?;
        let inner = keys.dim(2)?;
        let of_head = |keys: &Tensor| -> Result<Tensor> {
            let keys = keys
                .reshape((batch, count, 1, inner))?
                .broadcast_mul(&by_head.own)?;
            keys.reshape((batch, count * heads, inner))
        };
        let (keys, biases) = match cells {
            Cells::Projected(_) => (of_head(&keys)?, None),
            Cells::Placed(_) => {
                let biases = of_head(&keys)?
                    .reshape((batch * count * heads, inner))?
                    .matmul(&by_head.query_bias)?
                    .reshape((batch, count * heads))?;
                let keys = through(&keys, &by_head.query)?;
                (keys.reshape((batch, count * heads, width))?, Some(biases))
            }
        };
        let values = through(&self.projections.value.forward(values)?, &by_head.output)?;
        let values = values
            .reshape((batch, count * heads, width))?
            .transpose(1, 2)?
            .contiguous()?;
        let mut told = Vec::with_capacity(batch);
        for index in 0..batch {
            let of = |x: &Tensor| x.narrow(0, index, 1)?.squeeze(0)?.contiguous();
            let rows = match cells {
                Cells::Placed(placed) => of(placed)?,
                Cells::Projected(query) => query.squeeze(0)?,
            };
            let bias = biases.as_ref().map(of).transpose()?;
            let scores = ops::linear(&rows, &of(&keys)?, bias.as_ref())?;
            let shares = ops::softmax_by_head(&scores, heads)?;
            told.push(
                ops::linear(&shares, &of(&values)?, Some(&by_head.output_bias))?.unsqueeze(0)?,
            );
        }
        Tensor::cat(&told, 0)
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
    fn seen(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
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

/// Whether so many tokens are cheaper to project than a picture, by heads of `dim` channels.
pub(super) fn contracts(tokens: usize, dim: usize) -> bool {
    tokens < dim
}

/// Cells of pictures, as queries.
#[derive(Clone, Copy)]
pub(super) enum Cells<'a> {
    /// With their positions, `[B,cells,C]`.
    Placed(&'a Tensor),
    /// Of one picture, projected, `[1,cells,inner]`.
    Projected(&'a Tensor),
}

impl Cells<'_> {
    fn count(&self) -> Result<usize> {
        match self {
            Self::Placed(cells) | Self::Projected(cells) => cells.dim(1),
        }
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
    pub to_image: Attention,
    norm2: LayerNorm,
    feed_forward: FeedForward,
    norm3: LayerNorm,
    pub to_tokens: Attention,
    pub norm4: LayerNorm,
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

    /// Tokens `[B,T,C]` behind their attention to each other; `prompts` are the first layer's tokens.
    pub(super) fn attend(&self, tokens: &Tensor, prompts: &Tensor) -> Result<Tensor> {
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
        self.norm1.forward(&attended)
    }

    /// Tokens behind the feed-forward network, with what they saw of the picture.
    pub(super) fn think(&self, tokens: &Tensor, looked: &Tensor) -> Result<Tensor> {
        let tokens = self.norm2.forward(&ops::add(tokens, looked)?)?;
        self.norm3
            .forward(&self.feed_forward.forward(&tokens, &tokens)?)
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
        let tokens = self.attend(tokens, prompts)?;
        let placed_image;
        let placed = ops::add(&tokens, prompts)?;
        let (looked, cells) = match projected {
            Some(Projected { key, value, query }) => (
                self.to_image.look(&placed, key, value)?,
                Cells::Projected(query),
            ),
            None => {
                placed_image = image.broadcast_add(positions)?;
                let looked = self.to_image.of_tokens(&placed, &placed_image, image)?;
                (looked, Cells::Placed(&placed_image))
            }
        };
        let tokens = self.think(&tokens, &looked)?;
        let placed = ops::add(&tokens, prompts)?;
        let told = self.to_tokens.of_cells(cells, &placed, &tokens)?;
        let image = self.norm4.forward(&told.broadcast_add(image)?)?;
        Ok((tokens, image))
    }
}

#[cfg(test)]
mod tests {
    use brisk_nn::Storage;

    use super::*;

    #[test]
    fn few_tokens_take_the_projections_on_themselves() {
        let config = MaskDecoderConfig {
            hidden_size: 32,
            num_attention_heads: 2,
            ..MaskDecoderConfig::default()
        };
        let weights = Weights::random(3, Storage::F32);
        let short = Attention::load(&weights.pp("a"), &config, 16).unwrap();
        let long = Attention {
            by_head: None,
            ..Attention::load(&weights.pp("a"), &config, 16).unwrap()
        };
        let made = |rows: usize, seed: usize| {
            let value = |at: usize| (((at + seed) * 7919 % 997) as f32 / 300.0) - 1.6;
            Tensor::from_vec((0..2 * rows * 32).map(value).collect(), (2, rows, 32)).unwrap()
        };
        let (tokens, placed, image) = (made(7, 1), made(40, 2), made(40, 3));
        assert!(short.contracted(7).is_some() && short.contracted(8).is_none());
        let same = |a: Tensor, b: Tensor| {
            let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(a.dims(), b.dims());
            for (a, b) in values(&a).iter().zip(values(&b)) {
                assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} {b}");
            }
        };
        let looked = |of: &Attention| of.of_tokens(&tokens, &placed, &image).unwrap();
        same(looked(&short), looked(&long));
        let told = |of: &Attention| {
            of.of_cells(Cells::Placed(&placed), &made(7, 4), &tokens)
                .unwrap()
        };
        same(told(&short), told(&long));
        let query = long
            .projections
            .query
            .forward(&image.narrow(0, 0, 1).unwrap())
            .unwrap();
        let told = |of: &Attention| {
            of.of_cells(Cells::Projected(&query), &made(7, 4), &tokens)
                .unwrap()
        };
        same(told(&short), told(&long));
    }
}
