//! The forward pass, scale by scale.

use brisk_nn::ops::RotaryAngles;
use brisk_nn::{
    Init, KeyValueCache, KeyValueType, Linear, RmsNorm, RmsNormKind, Tensor, Trace, Weights,
    check_finite, ops,
};

use super::super::Scales;
use super::block::{Block, Keep, Part, Seen};
use super::embeddings::LevelEmbedding;
use super::{DiffusionHead, TransformerConfig, positions};
use crate::{Error, Result};

pub(super) const STAGE: &str = "transformer";

/// What training and attention masks left in files, which the configuration implies.
const IGNORED: [&str; 3] = ["lvl_1L", "attn_bias_for_masking", ".attn.zero_k_bias"];

/// Number and width of the codewords, which the tokenizer's configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codewords {
    /// How many.
    pub count: usize,
    /// Channels of one.
    pub width: usize,
}

/// HART's transformer with its heads.
#[derive(Debug)]
pub struct Transformer {
    pub(super) config: TransformerConfig,
    codewords: Codewords,
    pub(super) scales: Scales,
    context_norm: Option<RmsNorm>,
    context_embed: Linear,
    pub(super) word_embed: Linear,
    pub(super) levels: LevelEmbedding,
    pub(super) blocks: Vec<Block>,
    head_norm: RmsNorm,
    head_modulation: Linear,
    head: Linear,
    decoder_norm: RmsNorm,
    diffusion: DiffusionHead,
}

/// How far some pictures are: keys and values of what was computed, and where the next scale stands.
#[derive(Debug)]
pub struct Progress {
    /// One for each row: those with the text, and behind them those without it.
    caches: Vec<KeyValueCache>,
    /// Positions at which each row's text ends.
    ends: Vec<f32>,
    /// Factor less one, and addend, of the last norm `[rows, 2C]`.
    modulation: Tensor,
    kept_as: KeyValueType,
    filled: usize,
    scale: usize,
}

impl Progress {
    /// The scale that comes next.
    pub fn scale(&self) -> usize {
        self.scale
    }

    /// Rows that are computed, those without the text included.
    pub fn rows(&self) -> usize {
        self.caches.len()
    }
}

impl Transformer {
    /// Reads the published names.
    ///
    /// # Errors
    /// An invalid configuration, or one report of every tensor that is missing, unexpected or of another
    /// shape.
    pub fn load(
        config: &TransformerConfig,
        codewords: Codewords,
        weights: &Weights,
    ) -> Result<Self> {
        config.validate()?;
        let width = config.embed_dim;
        let start = Init::Normal(0.02);
        let norm = |name: &str, width: usize| {
            RmsNorm::load(
                &weights.pp(name),
                width,
                config.norm_eps,
                RmsNormKind::Weight,
            )
        };
        let linear = |name: &str, from: usize, to: usize, init: Init| {
            Linear::load(&weights.pp(name), from, to, true, init)
        };
        let context_norm = match config.use_context_norm {
            true => Some(norm("context_norm", config.context_dim)?),
            false => None,
        };
        let blocks = (0..config.depth).map(|index| {
            let weights = weights.pp("blocks").pp(index);
            Block::load(config, &weights)
        });
        let diffusion = weights.pp("diffloss.net");
        let model = Self {
            codewords,
            scales: config.scales()?,
            context_norm,
            context_embed: linear("context_embed", config.context_dim, width, start)?,
            word_embed: linear("word_embed", codewords.width, width, start)?,
            levels: LevelEmbedding::load(config, &weights.pp("lvl_embed"))?,
            blocks: blocks.collect::<Result<_>>()?,
            head_norm: norm("head_nm.ln_wo_grad", width)?,
            head_modulation: linear("head_nm.ada_lin.1", width, 2 * width, Init::Normal(0.01))?,
            head: linear("head", width, codewords.count, Init::Normal(0.0004))?,
            decoder_norm: norm("decoder_norm", width)?,
            diffusion: DiffusionHead::load(config, codewords.width, &diffusion)?,
            config: config.clone(),
        };
        weights.finish(&IGNORED)?;
        Ok(model)
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// The codewords that it was made for.
    pub fn codewords(&self) -> Codewords {
        self.codewords
    }

    /// The grids of codes.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The diffusion head.
    pub fn diffusion(&self) -> &DiffusionHead {
        &self.diffusion
    }

    /// Takes in texts `[B,L,D]` whose real rows `masks` say; padding is computed with all the same, as the
    /// weights were trained. `guided` adds B rows without a text behind them; keys and values are kept as
    /// `kept_as`. Gives the hidden states
    /// `[rows,1,C]` that the first scale's logits come from. `trace` sees `context_embed` and every
    /// `blocks.{i}` with its parts.
    ///
    /// # Errors
    /// Sizes other than the configuration's, or a non-finite activation.
    pub fn begin(
        &self,
        context: &Tensor,
        masks: &[Vec<bool>],
        guided: bool,
        kept_as: KeyValueType,
        trace: &mut Trace,
    ) -> Result<(Progress, Tensor)> {
        let config = &self.config;
        let [batch, length] = self.check_context(context, masks)?;
        let rows = if guided { 2 * batch } else { batch };
        let kept: usize = self.scales.sides()[1..self.scales.count() - 1]
            .iter()
            .map(|side| side * side)
            .sum();
        let cache = || self.cache(kept_as, config.depth, length + kept);
        let mut caches: Vec<KeyValueCache> = (0..rows).map(|_| cache()).collect();

        let embedded = self.embed_context(context)?;
        trace.see("context_embed", &embedded);
        let mut pooled = embedded.max_keepdim(1)?;
        let mut places: Vec<f32> = Vec::new();
        let mut ends = Vec::with_capacity(rows);
        for mask in masks {
            let positions = positions::of_context(mask);
            ends.push(positions.last().copied().unwrap_or(-1.0));
            places.extend(positions);
        }
        let mut x = embedded.reshape((1, batch * length, config.embed_dim))?;
        let mut tokens = vec![length; batch];
        if guided {
            // All rows of an absent text are zero and stand at position 0, so one is computed for all.
            let nothing = context.narrow(0, 0, 1)?.narrow(1, 0, 1)? * 0.0;
            let absent = self.embed_context(&nothing?)?;
            let repeated = vec![&absent; batch];
            pooled = Tensor::cat(&[&pooled, &Tensor::cat(&repeated, 0)?], 0)?;
            x = Tensor::cat(&[x, absent], 1)?;
            tokens.push(1);
            places.push(0.0);
            ends.extend(vec![0.0; batch]);
        }
        x = x.broadcast_add(&self.levels.forward(&[0])?)?;
        let angles = positions::context_angles(config.head_dim(), &places);
        let mut seen = Seen::Kept(Part {
            tokens: &tokens,
            filled: 0,
            caches: &mut caches,
            keep: match guided {
                true => Keep::Repeated(length),
                false => Keep::Behind,
            },
        });
        x = self.through_blocks(x, &angles, &mut seen, trace)?;
        let last = |row: usize| {
            (row.min(batch) * length + if row < batch { length - 1 } else { 0 }) as u32
        };
        let lasts: Vec<u32> = (0..rows).map(last).collect();
        let hidden = x.index_select(&Tensor::from_vec(lasts, rows)?, 1)?;
        let progress = Progress {
            caches,
            ends,
            modulation: self.modulation(&pooled.reshape((rows, config.embed_dim))?)?,
            kept_as,
            filled: length,
            scale: 1,
        };
        Ok((progress, hidden.reshape((rows, 1, config.embed_dim))?))
    }

    /// The next scale: `input` `[B,side,side,z]` is the sum of all codewords so far on its grid, the same with
    /// and without the text. Gives hidden states `[rows,side²,C]`. `trace` sees `word_embed` and every
    /// `blocks.{i}` with its parts.
    ///
    /// # Errors
    /// A grid of another size, a scale too many, or a non-finite activation.
    pub fn next(
        &self,
        progress: &mut Progress,
        input: &Tensor,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let (scale, rows) = (progress.scale, progress.rows());
        let (batch, height, breadth, channels) = input.dims4()?;
        let side = self.scales.sides().get(scale).copied().unwrap_or(0);
        if [height, breadth] != [side, side] || (batch != rows && 2 * batch != rows) {
            return Err(Error::Shape(format!(
                "an input {:?} for scale {scale} of sides {:?} and {rows} rows",
                input.dims(),
                self.scales.sides()
            )));
        }
        let (count, width) = (side * side, self.config.embed_dim);
        let words = self
            .word_embed
            .forward(&input.reshape((batch, count, channels))?)?;
        trace.see("word_embed", &words);
        let words = words.broadcast_add(&self.levels.forward(&[scale])?)?;
        let words = match batch == rows {
            true => words,
            false => Tensor::cat(&[&words, &words], 0)?,
        };
        let mut x = words.reshape((1, rows * count, width))?;
        let head_dim = self.config.head_dim();
        let angles = positions::grid_angles(head_dim, &self.scales, scale, &progress.ends);
        let last = self.scales.is_last(scale);
        let mut room = last.then(|| self.cache(progress.kept_as, 1, progress.filled + count));
        let tokens = vec![count; rows];
        let mut seen = Seen::Kept(Part {
            tokens: &tokens,
            filled: progress.filled,
            caches: &mut progress.caches,
            keep: match &mut room {
                Some(room) => Keep::Nowhere(room),
                None => Keep::Behind,
            },
        });
        x = self.through_blocks(x, &angles, &mut seen, trace)?;
        progress.scale += 1;
        if !last {
            progress.filled += count;
        }
        x.reshape((rows, count, width))
    }

    /// Logits `[rows,n,V]` of hidden states `[rows,n,C]`; `trace` sees `head_nm` and `head`.
    ///
    /// # Errors
    /// Another number of rows.
    pub fn logits(
        &self,
        progress: &Progress,
        hidden: &Tensor,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        self.modulated_logits(&progress.modulation, hidden, trace)
    }

    /// Factor less one, and addend, of the last norm `[rows,2C]`, by the largest of each channel of a text
    /// `[rows,C]`.
    pub(super) fn modulation(&self, pooled: &Tensor) -> Result<Tensor> {
        self.head_modulation.forward(&ops::silu(pooled)?)
    }

    /// As [`Self::logits`], of rows with this [`Self::modulation`].
    pub(super) fn modulated_logits(
        &self,
        modulation: &Tensor,
        hidden: &Tensor,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let width = self.config.embed_dim;
        let part = |index: usize| {
            let part = modulation.narrow(1, index * width, width)?;
            part.unsqueeze(1)
        };
        let x = self.head_norm.forward(hidden)?;
        let x = x
            .broadcast_mul(&(part(0)? + 1.0)?)?
            .broadcast_add(&part(1)?)?;
        trace.see("head_nm", &x);
        let logits = self.head.forward(&x)?;
        trace.see("head", &logits);
        check_finite(&logits, STAGE, "head")?;
        Ok(logits)
    }

    /// What the diffusion head is told of places with hidden states `[n,C]` and codewords `[n,z]`: `[n,C]`.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn condition(&self, hidden: &Tensor, codewords: &Tensor) -> Result<Tensor> {
        let words = self.word_embed.forward(codewords)?;
        self.decoder_norm.forward(&(hidden + words)?)
    }

    fn through_blocks(
        &self,
        mut x: Tensor,
        angles: &RotaryAngles,
        seen: &mut Seen,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        for (index, block) in self.blocks.iter().enumerate() {
            let name = format!("blocks.{index}");
            x = block.forward(&x, index, angles, seen, &mut trace.within(&name))?;
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }
        Ok(x)
    }

    /// Rows and length of texts `[B,L,D]` with a mask for each.
    pub(super) fn check_context(
        &self,
        context: &Tensor,
        masks: &[Vec<bool>],
    ) -> Result<[usize; 2]> {
        let config = &self.config;
        let (batch, length, channels) = context.dims3()?;
        if [length, channels] == [config.context_token, config.context_dim]
            && masks.len() == batch
            && masks.iter().all(|mask| mask.len() == length)
        {
            return Ok([batch, length]);
        }
        Err(Error::Shape(format!(
            "a context {:?} with {} masks; expected rows of `context_token` = {} by `context_dim` = {}, and a \
             mask for each",
            context.dims(),
            masks.len(),
            config.context_token,
            config.context_dim
        )))
    }

    pub(super) fn embed_context(&self, context: &Tensor) -> Result<Tensor> {
        match &self.context_norm {
            Some(norm) => self.context_embed.forward(&norm.forward(context)?),
            None => self.context_embed.forward(context),
        }
    }

    fn cache(&self, kind: KeyValueType, layers: usize, positions: usize) -> KeyValueCache {
        let config = &self.config;
        let (heads, dim) = (config.num_heads, config.head_dim());
        KeyValueCache::kept_as(kind, layers, positions, heads, dim)
    }
}
