//! Attention within windows, with a number for each distance in rows and columns, whatever the direction.

use brisk_nn::ops::{self, Epilogue, Residual};
use brisk_nn::{DType, Init, LayerNorm, Linear, Tensor, Weights};

use super::model::LAYER_NORM_EPS;
use crate::Result;

/// Norm and attention of one block.
#[derive(Debug)]
pub(super) struct WindowAttention {
    norm: LayerNorm,
    /// Head by head as (query, key, value).
    qkv: Linear,
    proj: Linear,
    /// `[heads, side², side²]`
    table: Tensor,
    side: usize,
    heads: usize,
    width: usize,
}

impl WindowAttention {
    /// Reads `norm`, `qkv`, `proj` and `attention_biases`.
    pub fn load(weights: &Weights, width: usize, heads: usize, side: usize) -> Result<Self> {
        let linear = |name: &str, outputs: usize| {
            Linear::load(
                &weights.pp(name),
                width,
                outputs,
                true,
                Init::KaimingUniform,
            )
        };
        let biases = weights.get("attention_biases", &[heads, side * side], Init::Zeros)?;
        let pairs = Tensor::from_vec(distances(side), side.pow(4))?;
        let table = biases.contiguous()?.index_select(&pairs, 1)?;
        Ok(Self {
            norm: LayerNorm::load(&weights.pp("norm"), width, LAYER_NORM_EPS, true)?,
            qkv: linear("qkv", 3 * width)?,
            proj: linear("proj", width)?,
            table: table.reshape((heads, side * side, side * side))?,
            side,
            heads,
            width,
        })
    }

    /// `x + attention(norm(x))`, `[B,H,W,C]`.
    pub fn forward_residual(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?;
        // The reference puts zeros in before the norm, and nothing masks them.
        let zeros = Tensor::zeros((1, self.width), DType::F32)?;
        let beyond = self.qkv.forward(&self.norm.forward(&zeros)?)?;
        let places = self.side * self.side;
        let dim = channels / self.heads;
        let windows = ops::windows(&qkv, self.side, 0..3 * channels, Some(&beyond))?;
        let count = windows.dim(0)?;
        let tokens = windows.reshape(vec![count, places, self.heads, 3, dim])?;
        let part = |index: usize| -> Result<Tensor> {
            let part = tokens.narrow(3, index, 1)?.contiguous()?;
            part.reshape((count, places, channels))
        };
        let scale = 1.0 / (dim as f64).sqrt();
        let attended = ops::window_attention(
            [&part(0)?, &part(1)?, &part(2)?],
            self.heads,
            scale,
            &self.table,
        )?;
        let attended = ops::from_windows(&attended, self.side, [batch, height, width])?;
        let steps = Epilogue {
            residual: Some(Residual::Same(x)),
            ..Epilogue::default()
        };
        self.proj.forward_with(&attended, &steps)
    }
}

/// The number of each pair's distance, in the order in which the reference meets them: pairs row by row, distances
/// (rows, columns) of the first place to all others, which are all that there are.
fn distances(side: usize) -> Vec<u32> {
    let places = side * side;
    let pairs = (0..places).flat_map(|from| (0..places).map(move |to| (from, to)));
    pairs
        .map(|(from, to)| {
            let rows = (from / side).abs_diff(to / side);
            let columns = (from % side).abs_diff(to % side);
            (rows * side + columns) as u32
        })
        .collect()
}
