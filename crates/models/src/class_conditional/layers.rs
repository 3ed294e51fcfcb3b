//! What the blocks of both networks are made of.

use brisk_nn::ops::{self, Activation, AttentionOptions, Epilogue, Residual};
use brisk_nn::{Init, Linear, Tensor, Trace, Weights};

use super::ClassConditionalConfig;
use crate::Result;

/// Attention of all tokens to all; queries, keys and values are one product.
#[derive(Debug)]
pub(super) struct SelfAttention {
    all: Linear,
    output: Linear,
    options: AttentionOptions,
}

impl SelfAttention {
    /// Reads `qkv` and `proj`.
    pub fn load(config: &ClassConditionalConfig, weights: &Weights, init: Init) -> Result<Self> {
        let width = config.hidden_size;
        let all = weights.pp("qkv");
        Ok(Self {
            all: Linear::load(&all, width, 3 * width, config.qkv_bias, init)?,
            output: Linear::load(&weights.pp("proj"), width, width, true, init)?,
            options: AttentionOptions::new(config.num_heads, config.head_dim()),
        })
    }

    /// `[B,N,d]` to the same shape, and `residual` of it; `trace` sees `attn`, where that is wanted.
    pub fn forward(&self, x: &Tensor, residual: Residual, trace: &mut Trace) -> Result<Tensor> {
        let (_, _, width) = x.dims3()?;
        let all = self.all.forward(x)?;
        let third = |index: usize| all.narrow(2, index * width, width);
        let attended = ops::attention(&third(0)?, &third(1)?, &third(2)?, &self.options)?;
        last_layer(&self.output, &attended, residual, "attn", trace)
    }
}

/// Two layers with an activation between.
#[derive(Debug)]
pub(super) struct FeedForward {
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl FeedForward {
    /// Reads `fc1` and `fc2`.
    pub fn load(
        config: &ClassConditionalConfig,
        weights: &Weights,
        activation: Activation,
        init: Init,
    ) -> Result<Self> {
        let (width, inner) = (config.hidden_size, config.inner());
        Ok(Self {
            first: Linear::load(&weights.pp("fc1"), width, inner, true, init)?,
            second: Linear::load(&weights.pp("fc2"), inner, width, true, init)?,
            activation,
        })
    }

    /// `[B,N,d]` to the same shape, and `residual` of it; `trace` sees `mlp`, where that is wanted.
    pub fn forward(&self, x: &Tensor, residual: Residual, trace: &mut Trace) -> Result<Tensor> {
        let activation = Epilogue::activation(self.activation);
        let inner = self.first.forward_with(x, &activation)?;
        last_layer(&self.second, &inner, residual, "mlp", trace)
    }
}

/// A branch's last layer with what follows it, in one pass unless its own result is wanted.
fn last_layer(
    layer: &Linear,
    x: &Tensor,
    residual: Residual,
    name: &str,
    trace: &mut Trace,
) -> Result<Tensor> {
    let steps = Epilogue {
        residual: Some(residual),
        ..Epilogue::default()
    };
    if !trace.is_detailed() {
        return layer.forward_with(x, &steps);
    }
    let branch = layer.forward(x)?;
    trace.detail(name, &branch);
    steps.apply(branch)
}
