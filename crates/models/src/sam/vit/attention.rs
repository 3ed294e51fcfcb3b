//! Attention of the image encoder: within windows or over the whole frame, by distances in rows and columns.

use brisk_nn::ops::{self, AttentionOptions, Epilogue, RelativePositions, Residual};
use brisk_nn::{DType, Init, Linear, Tensor, Weights};

use super::VisionConfig;
use crate::Result;

/// Attention of one layer.
#[derive(Debug)]
pub(super) struct VisionAttention {
    qkv: Linear,
    proj: Linear,
    positions: Option<[Table; 2]>,
    window: Option<usize>,
    heads: usize,
    width: usize,
}

/// A vector for each distance along one axis.
#[derive(Debug)]
struct Table {
    /// `[2·side − 1, head]`, furthest keys before the query first.
    vectors: Tensor,
    /// The same as a layer, for the side that it was trained with.
    products: Linear,
}

impl VisionAttention {
    pub(super) fn load(weights: &Weights, config: &VisionConfig, layer: usize) -> Result<Self> {
        let (width, window) = (config.hidden_size, config.window(layer));
        let qkv = weights.pp("qkv");
        let qkv = Linear::load(
            &qkv,
            width,
            3 * width,
            config.qkv_bias,
            Init::KaimingUniform,
        )?;
        let proj = weights.pp("proj");
        let proj = Linear::load(&proj, width, width, true, Init::KaimingUniform)?;
        let side = window.unwrap_or_else(|| config.grid());
        let table = |name: &str| Table::load(weights, name, side, config.head());
        let positions = match config.use_rel_pos {
            true => Some([table("rel_pos_h")?, table("rel_pos_w")?]),
            false => None,
        };
        Ok(Self {
            qkv,
            proj,
            positions,
            window,
            heads: config.num_attention_heads,
            width,
        })
    }

    /// `[B,H,W,C]` to the same shape, with `residual` added.
    pub(super) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let (batch, height, width, _) = x.dims4()?;
        let qkv = self.qkv.forward(x)?;
        let part = |index: usize| index * self.width..(index + 1) * self.width;
        let (parts, grid) = match self.window {
            Some(side) => {
                // The reference puts zeros in after the norm, and nothing masks them.
                let zeros = Tensor::zeros((1, self.width), DType::F32)?;
                let beyond = self.qkv.forward(&zeros)?;
                let part = |index| ops::windows(&qkv, side, part(index), Some(&beyond));
                ([part(0)?, part(1)?, part(2)?], [side; 2])
            }
            None => {
                let tokens = qkv.reshape((batch, height * width, 3 * self.width))?;
                let part = |index| {
                    let part = tokens.narrow(2, part(index).start, self.width)?;
                    part.contiguous()
                };
                ([part(0)?, part(1)?, part(2)?], [height, width])
            }
        };
        let attended = self.attend([&parts[0], &parts[1], &parts[2]], grid)?;
        let attended = match self.window {
            Some(side) => ops::from_windows(&attended, side, [batch, height, width])?,
            None => attended.reshape(x.dims())?,
        };
        let steps = Epilogue {
            residual: Some(Residual::Same(residual)),
            ..Epilogue::default()
        };
        self.proj.forward_with(&attended, &steps)
    }

    fn attend(&self, [q, k, v]: [&Tensor; 3], grid: [usize; 2]) -> Result<Tensor> {
        let head = self.width / self.heads;
        let Some(tables) = &self.positions else {
            return ops::attention(q, k, v, &AttentionOptions::new(self.heads, head));
        };
        let (windows, tokens, _) = q.dims3()?;
        let queries = q.reshape((windows, tokens, self.heads, head))?;
        let [rows, columns] = [0, 1].map(|axis| tables[axis].products(&queries, grid[axis]));
        let positions = RelativePositions {
            rows: &rows?,
            columns: &columns?,
        };
        let scale = 1.0 / (head as f64).sqrt();
        ops::relative_attention([q, k, v], self.heads, scale, grid, positions)
    }
}

impl Table {
    fn load(weights: &Weights, name: &str, side: usize, head: usize) -> Result<Self> {
        let vectors = weights.get(name, &[2 * side - 1, head], Init::Zeros)?;
        // Stored are keys behind the query first.
        let turned: Vec<u32> = (0..2 * side as u32 - 1).rev().collect();
        let turned = Tensor::from_vec(turned, 2 * side - 1)?;
        let vectors = vectors.contiguous()?.index_select(&turned, 0)?;
        Ok(Self {
            products: Linear::new(vectors.clone(), None)?,
            vectors,
        })
    }

    /// Products of queries `[.., head]` with the vector of each distance, `[.., 2·side − 1]`; the table is
    /// resized where it was trained with another side.
    fn products(&self, queries: &Tensor, side: usize) -> Result<Tensor> {
        let (count, head) = self.vectors.dims2()?;
        let wanted = 2 * side - 1;
        if count == wanted {
            return self.products.forward(queries);
        }
        let map = self.vectors.reshape((1, count, 1, head))?;
        let resized = ops::resize_bilinear(&map, [wanted, 1])?;
        Linear::new(resized.reshape((wanted, head))?, None)?.forward(queries)
    }
}
