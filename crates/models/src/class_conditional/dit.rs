//! DiT (arXiv 2212.09748): blocks whose norms and branches are modulated by time and class (adaLN-Zero).

use brisk_nn::ops::{Activation, Residual};
use brisk_nn::{
    Embedding, Init, Linear, Location, PatchEmbedding, Tensor, TimestepEmbedding, Trace, Weights,
    check_finite, from_patches, ops,
};

use super::ClassConditionalConfig;
use super::config::FREQUENCY_CHANNELS;
use super::layers::{FeedForward, SelfAttention};
use super::model::STAGE;
use crate::Result;

const EPSILON: f64 = 1e-6;
const START: Init = Init::Normal(0.02);
/// Of the slowest wave of positions, over 2π.
const LONGEST_PERIOD: f64 = 10_000.0;

#[derive(Debug)]
pub(super) struct Dit {
    patches: PatchEmbedding,
    time: TimestepEmbedding,
    classes: Embedding,
    /// `[1,N,d]`
    positions: Tensor,
    blocks: Vec<Block>,
    /// Shift and scale before the output.
    modulation: Linear,
    output: Linear,
    patch: usize,
    location: Location,
}

impl Dit {
    pub fn load(config: &ClassConditionalConfig, weights: &Weights) -> Result<Self> {
        let (width, patch) = (config.hidden_size, config.patch_size);
        let blocks = weights.pp("blocks");
        let blocks = (0..config.depth).map(|index| Block::load(config, &blocks.pp(index)));
        let time = weights.pp("t_embedder");
        let names = ["mlp.0", "mlp.2"];
        let table = weights.pp("y_embedder.embedding_table");
        let last = weights.pp("final_layer");
        let values = patch * patch * config.output_channels();
        let proj = weights.pp("x_embedder.proj");
        Ok(Self {
            patches: PatchEmbedding::load(&proj, config.in_channels, patch, width)?,
            time: TimestepEmbedding::load_named(&time, names, FREQUENCY_CHANNELS, width, START)?,
            classes: Embedding::load(&table, config.class_rows(), width, START)?,
            positions: weights.get("pos_embed", &[1, config.tokens(), width], START)?,
            blocks: blocks.collect::<Result<_>>()?,
            modulation: modulation(&last, 2, width)?,
            output: Linear::load(&last.pp("linear"), width, values, true, Init::Zeros)?,
            patch,
            location: weights.location().clone(),
        })
    }

    /// `trace` sees `x_embedder`, `t_embedder`, `tokens`, every block with its parts `attn` and `mlp`, and `final_layer`.
    pub fn forward(
        &self,
        latent: &Tensor,
        times: &Tensor,
        classes: &[u32],
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let grid = self.patches.grid(latent)?;
        let patches = self.patches.forward(&latent.to(&self.location)?)?;
        trace.see("x_embedder", &patches);
        let mut x = patches.broadcast_add(&self.positions)?;
        trace.detail("tokens", &x);
        let time = self.time.forward(times)?;
        trace.see("t_embedder", &time);
        let condition = ops::silu(&(time + self.classes.forward(classes)?)?)?;
        for (index, block) in self.blocks.iter().enumerate() {
            let name = format!("blocks.{index}");
            x = block.forward(&x, &condition, &mut trace.within(&name))?;
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }
        let [shift, scale] = parts(&self.modulation.forward(&condition)?)?;
        let x = ops::layer_norm_modulate(&x, &shift, &scale, EPSILON)?;
        let x = self.output.forward(&x)?;
        trace.see("final_layer", &x);
        check_finite(&x, STAGE, "final_layer")?;
        from_patches(&x, grid, self.patch)?.beside(latent)
    }
}

#[derive(Debug)]
struct Block {
    /// Shift, scale and gate of each branch.
    modulation: Linear,
    attention: SelfAttention,
    feed_forward: FeedForward,
}

impl Block {
    fn load(config: &ClassConditionalConfig, weights: &Weights) -> Result<Self> {
        let (attention, mlp) = (weights.pp("attn"), weights.pp("mlp"));
        let start = Init::XavierUniform;
        Ok(Self {
            modulation: modulation(weights, 6, config.hidden_size)?,
            attention: SelfAttention::load(config, &attention, start)?,
            feed_forward: FeedForward::load(config, &mlp, Activation::GeluTanh, start)?,
        })
    }

    fn forward(&self, x: &Tensor, condition: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let modulation = self.modulation.forward(condition)?;
        let [shift, scale, gate, inner_shift, inner_scale, inner_gate] = parts(&modulation)?;
        let h = ops::layer_norm_modulate(x, &shift, &scale, EPSILON)?;
        let x = self
            .attention
            .forward(&h, Residual::Gated(x, &gate), trace)?;
        let h = ops::layer_norm_modulate(&x, &inner_shift, &inner_scale, EPSILON)?;
        let residual = Residual::Gated(&x, &inner_gate);
        self.feed_forward.forward(&h, residual, trace)
    }
}

/// The layer that makes vectors of a condition; a block begins as what adds nothing.
fn modulation(weights: &Weights, vectors: usize, width: usize) -> Result<Linear> {
    let weights = weights.pp("adaLN_modulation.1");
    Linear::load(&weights, width, vectors * width, true, Init::Zeros)
}

/// Equal parts of the last dimension of `[B,n·d]`.
fn parts<const PARTS: usize>(x: &Tensor) -> Result<[Tensor; PARTS]> {
    let width = x.dim(1)? / PARTS;
    let mut parts = [(); PARTS].map(|()| x.clone());
    for (index, part) in parts.iter_mut().enumerate() {
        *part = x.narrow(1, index * width, width)?.contiguous()?;
    }
    Ok(parts)
}

/// Sines and cosines of the places of `[N,d]`, row by row: of the column in the first half of the channels, of the row in
/// the second.
pub(super) fn sine_cosine_positions(config: &ClassConditionalConfig) -> Vec<f32> {
    let (grid, quarter) = (config.grid(), config.hidden_size / 4);
    let waves = |place: usize| -> Vec<f32> {
        let angle = |k: usize| place as f64 * LONGEST_PERIOD.powf(-(k as f64) / quarter as f64);
        let sines = (0..quarter).map(|k| angle(k).sin() as f32);
        sines
            .chain((0..quarter).map(|k| angle(k).cos() as f32))
            .collect()
    };
    let places: Vec<Vec<f32>> = (0..grid).map(waves).collect();
    let rows = places.iter().flat_map(|row| {
        let columns = places.iter();
        columns.flat_map(move |column| column.iter().chain(row).copied())
    });
    rows.collect()
}
