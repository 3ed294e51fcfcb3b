//! What attentions have around them: projections, and norms of queries and keys.

use super::{Linear, RmsNorm, RmsNormKind};
use crate::error::Result;
use crate::ops;
use crate::tensor::Tensor;
use crate::weights::{Init, Weights};

/// How a checkpoint names an attention's projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionNames {
    /// To queries.
    pub query: &'static str,
    /// To keys.
    pub key: &'static str,
    /// To values.
    pub value: &'static str,
    /// Back to the residual width.
    pub output: &'static str,
}

impl AttentionNames {
    /// `to_q`, `to_k`, `to_v`, `to_out.0`.
    pub const DIFFUSERS: Self = Self {
        query: "to_q",
        key: "to_k",
        value: "to_v",
        output: "to_out.0",
    };

    /// `q_proj`, `k_proj`, `v_proj`, `o_proj`.
    pub const LLAMA: Self = Self {
        query: "q_proj",
        key: "k_proj",
        value: "v_proj",
        output: "o_proj",
    };
}

/// Widths, biases and starting values of an attention's projections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionWidths {
    /// Of what queries come from, and of the result.
    pub width: usize,
    /// Of what keys and values come from.
    pub context: usize,
    /// Of the queries: all heads.
    pub queries: usize,
    /// Of keys and of values: all their heads.
    pub keys: usize,
    /// Whether queries, keys and values have a bias.
    pub bias: bool,
    /// Whether the result has one.
    pub output_bias: bool,
    /// How weights start when they are trained.
    pub init: Init,
}

/// The four linear maps of an attention; what lies between them is the model's. Where queries, keys and
/// values are quantized together, [`super::LinearGroup`] reads them as one.
#[derive(Clone, Debug)]
pub struct AttentionProjections {
    /// `[.., width]` to `[.., queries]`.
    pub query: Linear,
    /// `[.., context]` to `[.., keys]`.
    pub key: Linear,
    /// `[.., context]` to `[.., keys]`.
    pub value: Linear,
    /// `[.., queries]` to `[.., width]`.
    pub output: Linear,
}

impl AttentionProjections {
    /// Reads the four.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(
        weights: &Weights,
        names: AttentionNames,
        widths: &AttentionWidths,
    ) -> Result<Self> {
        let linear = |name: &str, from: usize, to: usize, bias: bool| {
            Linear::load(&weights.pp(name), from, to, bias, widths.init)
        };
        let AttentionWidths {
            width,
            context,
            queries,
            keys,
            bias,
            output_bias,
            ..
        } = *widths;
        Ok(Self {
            query: linear(names.query, width, queries, bias)?,
            key: linear(names.key, context, keys, bias)?,
            value: linear(names.value, context, keys, bias)?,
            output: linear(names.output, queries, width, output_bias)?,
        })
    }
}

/// RMS norms of queries and keys before they meet: over all heads together, or head by head.
#[derive(Clone, Debug)]
pub struct QueryKeyNorms {
    query: RmsNorm,
    key: RmsNorm,
    head: Option<usize>,
}

impl QueryKeyNorms {
    /// Over all heads: reads the two `names`, of these widths.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(weights: &Weights, names: [&str; 2], widths: [usize; 2], eps: f64) -> Result<Self> {
        let norm = |index: usize| {
            let weights = weights.pp(names[index]);
            RmsNorm::load(&weights, widths[index], eps, RmsNormKind::Weight)
        };
        Ok(Self {
            query: norm(0)?,
            key: norm(1)?,
            head: None,
        })
    }

    /// Head by head, with one weight for all heads of `head` channels.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load_by_head(
        weights: &Weights,
        names: [&str; 2],
        head: usize,
        eps: f64,
    ) -> Result<Self> {
        Ok(Self {
            head: Some(head),
            ..Self::load(weights, names, [head; 2], eps)?
        })
    }

    /// Queries `[batch, tokens, heads·dim]`, normalised.
    ///
    /// # Errors
    /// Another width.
    pub fn query(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(&self.query, x)
    }

    /// Keys `[batch, tokens, heads·dim]`, normalised.
    ///
    /// # Errors
    /// Another width.
    pub fn key(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(&self.key, x)
    }

    /// Queries and keys of one shape, both normalised.
    ///
    /// # Errors
    /// Another width.
    pub fn both(&self, queries: &Tensor, keys: &Tensor) -> Result<(Tensor, Tensor)> {
        if self.head.is_none() {
            let pair = ops::norm_pair((queries, &self.query.step()), (keys, &self.key.step()))?;
            if let Some(pair) = pair {
                return Ok(pair);
            }
        }
        Ok((self.query(queries)?, self.key(keys)?))
    }

    fn apply(&self, norm: &RmsNorm, x: &Tensor) -> Result<Tensor> {
        let Some(head) = self.head else {
            return norm.forward(x);
        };
        let (batch, tokens, width) = x.dims3()?;
        let split = (batch, tokens * (width / head), head);
        norm.forward(&x.reshape(split)?)?
            .reshape((batch, tokens, width))
    }
}
