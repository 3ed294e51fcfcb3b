//! The caption's way into the transformer, computed once a prompt.

use std::ops::Range;

use brisk_nn::{Init, Linear, RmsNorm, RmsNormKind, Tensor, Trace, Weights, check_finite, ops};

use super::block::{BlockInput, SanaBlock};
use super::config::SanaConfig;
use crate::{Error, Result};

/// Epsilon of the caption's RMSNorm.
const CAPTION_NORM_EPS: f64 = 1e-5;

/// A caption, ready for cross attention in every block of one model.
#[derive(Debug, Clone)]
pub struct CaptionContext {
    /// Per block: keys and values, both `[B,L,c]`.
    keys_values: Vec<(Tensor, Tensor)>,
    lengths: Vec<usize>,
}

impl CaptionContext {
    /// Number of captions.
    pub fn batch(&self) -> usize {
        self.lengths.len()
    }

    /// Valid rows of each caption.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Joins captions of one model along the batch, padding to the longest.
    ///
    /// # Errors
    /// Nothing to join, or captions of different models.
    pub fn concat(contexts: &[&CaptionContext]) -> Result<CaptionContext> {
        let Some(first) = contexts.first() else {
            return Err(Error::Shape("no captions to join".into()));
        };
        let blocks = first.keys_values.len();
        if contexts.iter().any(|c| c.keys_values.len() != blocks) {
            return Err(Error::Shape(
                "cannot join captions encoded by different models".into(),
            ));
        }
        let lengths: Vec<usize> = contexts.iter().flat_map(|c| c.lengths.clone()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let join = |pick: &dyn Fn(&CaptionContext) -> Tensor| -> Result<Tensor> {
            let parts = contexts
                .iter()
                .map(|c| fit_rows(&pick(c), longest))
                .collect::<Result<Vec<_>>>()?;
            Tensor::cat(&parts, 0)
        };
        let keys_values = (0..blocks)
            .map(|i| {
                Ok((
                    join(&|c| c.keys_values[i].0.clone())?,
                    join(&|c| c.keys_values[i].1.clone())?,
                ))
            })
            .collect::<Result<_>>()?;
        Ok(CaptionContext {
            keys_values,
            lengths,
        })
    }

    /// Repeats every caption `times` times in place: a, a, b, b.
    ///
    /// # Errors
    /// `times` is 0.
    pub fn repeat(&self, times: usize) -> Result<CaptionContext> {
        let rows: Vec<u32> = (0..self.batch() as u32)
            .flat_map(|row| std::iter::repeat_n(row, times))
            .collect();
        if rows.is_empty() {
            return Err(Error::Shape("a caption cannot be repeated 0 times".into()));
        }
        let keys_values = self
            .keys_values
            .iter()
            .map(|(k, v)| {
                let index = Tensor::new(rows.as_slice())?;
                Ok((k.index_select(&index, 0)?, v.index_select(&index, 0)?))
            })
            .collect::<Result<_>>()?;
        let lengths = rows.iter().map(|r| self.lengths[*r as usize]).collect();
        Ok(CaptionContext {
            keys_values,
            lengths,
        })
    }

    /// The input of block `index`, for pictures on `grid`.
    pub(crate) fn block_input<'a>(
        &'a self,
        index: usize,
        modulation: &'a Tensor,
        grid: (usize, usize),
        perturbed: Option<Range<usize>>,
    ) -> BlockInput<'a> {
        let (keys, values) = &self.keys_values[index];
        BlockInput {
            modulation,
            keys,
            values,
            lengths: &self.lengths,
            grid,
            perturbed,
        }
    }

    /// Refuses a caption of another batch size or another model.
    pub(crate) fn check(&self, batch: usize, blocks: usize) -> Result<()> {
        if self.batch() != batch {
            return Err(Error::Shape(format!(
                "{} captions for {batch} latents",
                self.batch()
            )));
        }
        if self.keys_values.len() != blocks {
            return Err(Error::Shape(format!(
                "the caption was encoded by a model of {} blocks, this one has {blocks}",
                self.keys_values.len()
            )));
        }
        Ok(())
    }
}

/// Text embeddings to the blocks' keys and values.
#[derive(Debug)]
pub(crate) struct CaptionEncoder {
    linear_1: Linear,
    linear_2: Linear,
    norm: RmsNorm,
    channels: usize,
}

impl CaptionEncoder {
    /// `weights` is the model's root.
    pub(crate) fn load(config: &SanaConfig, weights: &Weights) -> Result<Self> {
        let (channels, width) = (config.caption_channels, config.width());
        let projection = weights.pp("caption_projection");
        let linear = |name: &str, from: usize| {
            Linear::load(&projection.pp(name), from, width, true, Init::Normal(0.02))
        };
        Ok(Self {
            linear_1: linear("linear_1", channels)?,
            linear_2: linear("linear_2", width)?,
            norm: RmsNorm::load_from(
                &weights.pp("caption_norm"),
                width,
                CAPTION_NORM_EPS,
                RmsNormKind::Weight,
                0.01,
            )?,
            channels,
        })
    }

    pub(crate) fn encode(
        &self,
        text: &Tensor,
        lengths: &[usize],
        blocks: &[SanaBlock],
        stage: &str,
        trace: &mut Trace,
    ) -> Result<CaptionContext> {
        let (batch, rows, channels) = text.dims3()?;
        if channels != self.channels || lengths.len() != batch {
            return Err(Error::Shape(format!(
                "text {:?} with {} lengths: expected [{}, tokens, {}]",
                text.dims(),
                lengths.len(),
                lengths.len(),
                self.channels
            )));
        }
        if let Some(length) = lengths.iter().find(|l| **l == 0 || **l > rows) {
            return Err(Error::Shape(format!(
                "a caption has {length} valid rows; expected 1 to {rows}"
            )));
        }
        let longest = lengths.iter().copied().max().unwrap_or(rows);
        let text = fit_rows(text, longest)?;
        let x = ops::gelu_tanh(&self.linear_1.forward(&text)?)?;
        let x = self.linear_2.forward(&x)?;
        trace.see("caption_projection", &x);
        let x = self.norm.forward(&x)?;
        trace.see("caption_norm", &x);
        check_finite(&x, stage, "caption_norm")?;
        Ok(CaptionContext {
            keys_values: blocks
                .iter()
                .map(|block| block.keys_values(&x))
                .collect::<Result<_>>()?,
            lengths: lengths.to_vec(),
        })
    }
}

/// Moves the rows of `text` `[B,L,D]` that `mask` keeps to the front, in order, and cuts what no
/// caption needs. Returns the text and each caption's number of rows; masked rows have no
/// influence on cross attention, so nothing is lost.
///
/// # Errors
/// A mask of another shape, or one that keeps no row of a caption.
pub fn compact_text(text: &Tensor, mask: &[Vec<bool>]) -> Result<(Tensor, Vec<usize>)> {
    let (batch, rows, channels) = text.dims3()?;
    if mask.len() != batch || mask.iter().any(|row| row.len() != rows) {
        return Err(Error::Shape(format!(
            "attention mask of {} x {} for text {:?}",
            mask.len(),
            mask.first().map_or(0, Vec::len),
            text.dims()
        )));
    }
    let kept: Vec<Vec<usize>> = mask
        .iter()
        .map(|row| (0..rows).filter(|i| row[*i]).collect())
        .collect();
    if let Some(empty) = kept.iter().position(Vec::is_empty) {
        return Err(Error::Shape(format!(
            "the attention mask hides every token of caption {empty}"
        )));
    }
    let lengths: Vec<usize> = kept.iter().map(Vec::len).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    if mask.iter().all(|row| row.is_sorted_by(|a, b| a >= b)) {
        return Ok((fit_rows(text, longest)?, lengths));
    }
    let mut index = Vec::with_capacity(batch * longest);
    for (row, kept) in kept.iter().enumerate() {
        // Padding repeats the first row; its length says that it does not count.
        let padding = std::iter::repeat(kept[0]);
        let places = kept.iter().copied().chain(padding).take(longest);
        index.extend(places.map(|place| (row * rows + place) as u32));
    }
    let index = Tensor::new(index)?;
    let compact = text
        .contiguous()?
        .reshape((batch * rows, channels))?
        .index_select(&index, 0)?
        .reshape((batch, longest, channels))?;
    Ok((compact, lengths))
}

/// Cuts or zero-pads `[B,L,C]` to `rows` rows.
fn fit_rows(x: &Tensor, rows: usize) -> Result<Tensor> {
    let found = x.dim(1)?;
    Ok(match found.cmp(&rows) {
        std::cmp::Ordering::Equal => x.clone(),
        std::cmp::Ordering::Greater => x.narrow(1, 0, rows)?.contiguous()?,
        std::cmp::Ordering::Less => x.pad_with_zeros(1, 0, rows - found)?,
    })
}
