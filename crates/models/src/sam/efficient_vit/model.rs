//! The network.

use brisk_nn::ops::{self, Epilogue};
use brisk_nn::{Conv2d, Init, LayerNorm, Linear, Tensor, Trace, Weights, check_finite};

use super::EfficientVitConfig;
use super::blocks::{ACTIVATION, Attending, FOLDING, Local, LocalShape};
use super::config::SUMMED;
use crate::Result;
use crate::sam::folding::{End, Folding};
use crate::sam::mb_conv::MbConvShape;

/// Epsilon of every norm, which the reference sets when it opens a file.
pub(super) const EPS: f64 = 1e-6;

/// Backbone and neck.
#[derive(Debug)]
pub(in crate::sam) struct EfficientVit {
    stem: Conv2d,
    /// Blocks of each stage, without the stem.
    stages: Vec<Vec<Block>>,
    /// From the last stages to the neck, the last one first.
    narrow: Vec<Linear>,
    middle: Vec<Local>,
    output: Linear,
    norm: LayerNorm,
    grid: usize,
}

#[derive(Debug)]
enum Block {
    /// One that halves the map, to which nothing is added.
    Halving(Local),
    Local(Local),
    Attending(Box<Attending>),
}

impl EfficientVitConfig {
    /// The first block of a stage but the first.
    pub(super) fn halving(&self, stage: usize) -> LocalShape {
        LocalShape {
            kind: self.block_list[stage].halving(),
            widths: MbConvShape {
                from: self.width_list[stage - 1],
                inner: self.inner(stage, true),
                to: self.width_list[stage],
                stride: 2,
            },
            ends: self.ends(stage),
        }
    }

    /// The other blocks of a stage of convolutions.
    pub(super) fn local(&self, stage: usize) -> LocalShape {
        let width = self.width_list[stage];
        LocalShape {
            kind: self.block_list[stage],
            widths: MbConvShape {
                from: width,
                inner: self.inner(stage, false),
                to: width,
                stride: 1,
            },
            ends: self.ends(stage),
        }
    }

    /// The blocks of the neck.
    pub(super) fn middle(&self) -> LocalShape {
        LocalShape {
            kind: self.middle_op,
            widths: MbConvShape {
                from: self.head_width,
                inner: self.head_inner(),
                to: self.head_width,
                stride: 1,
            },
            ends: End::Norm,
        }
    }

    /// The stages whose maps the neck sums, the last one first.
    pub(super) fn summed(&self) -> impl Iterator<Item = usize> + use<> {
        let stages = self.stages();
        (stages - SUMMED..stages).rev()
    }

    fn ends(&self, stage: usize) -> End {
        match self.fewer_norm_list[stage] {
            true => End::Bias,
            false => End::Norm,
        }
    }
}

impl EfficientVit {
    /// Reads `backbone`, `neck` and `norm`; embeddings have `grid`² cells.
    pub(in crate::sam) fn load(
        config: &EfficientVitConfig,
        grid: usize,
        weights: &Weights,
    ) -> Result<Self> {
        Folding::check(weights, "EfficientViT")?;
        let backbone = weights.pp("backbone").pp("stages");
        let stages = (0..config.stages())
            .map(|stage| load_stage(&backbone.pp(stage).pp("op_list"), config, stage));
        let neck = weights.pp("neck");
        let narrow = config.summed().enumerate().map(|(index, stage)| {
            let weights = neck.pp("input_ops").pp(index).pp("op_list").pp(0);
            let widths = [config.width_list[stage], config.head_width];
            FOLDING.pointwise(&weights, widths, End::Norm)
        });
        let middle = (0..config.head_depth).map(|block| {
            let weights = neck.pp("middle").pp("op_list").pp(block).pp("main");
            Local::load(&weights, config.middle())
        });
        let output = neck.pp("output_ops").pp(0).pp("op_list").pp(0).pp("conv");
        let (width, to) = (config.head_width, config.output_channels);
        Ok(Self {
            stem: FOLDING.conv(
                &backbone.pp(0).pp("op_list").pp(0),
                [3, config.width_list[0]],
                2,
                End::Norm,
            )?,
            stages: stages.collect::<Result<_>>()?,
            narrow: narrow.collect::<Result<_>>()?,
            middle: middle.collect::<Result<_>>()?,
            output: Linear::load_pointwise(&output, width, to, true, Init::KaimingUniform)?,
            norm: LayerNorm::load(&weights.pp("norm"), to, EPS, true)?,
            grid,
        })
    }

    /// `[B,S,S,3]` to `[B,grid,grid,C]`.
    pub(in crate::sam) fn forward(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let mut x = self
            .stem
            .forward_with(pictures, &Epilogue::activation(ACTIVATION))?;
        trace.see("stages.0.op_list.0", &x);
        let mut last = Vec::with_capacity(SUMMED);
        for (stage, blocks) in self.stages.iter().enumerate() {
            let first = usize::from(stage == 0);
            for (block, layer) in (first..).zip(blocks) {
                x = layer.forward(&x)?;
                let name = format!("stages.{stage}.op_list.{block}");
                check_finite(&x, "image encoder", &name)?;
                trace.see(&name, &x);
            }
            if stage + SUMMED >= self.stages.len() {
                last.push(x.clone());
            }
        }
        let mut sum: Option<Tensor> = None;
        for (index, (narrow, map)) in self.narrow.iter().zip(last.into_iter().rev()).enumerate() {
            let map = ops::resize_bicubic(&narrow.forward(&map)?, [self.grid; 2])?;
            trace.see(&format!("neck.input_ops.{index}"), &map);
            sum = Some(match sum {
                Some(sum) => (sum + map)?,
                None => map,
            });
        }
        let mut x = sum.unwrap_or(x);
        for (index, block) in self.middle.iter().enumerate() {
            x = block.forward(&x, Some(&x))?;
            let name = format!("neck.middle.op_list.{index}");
            check_finite(&x, "image encoder", &name)?;
            trace.see(&name, &x);
        }
        let x = self.norm.forward(&self.output.forward(&x)?)?;
        check_finite(&x, "image encoder", "neck")?;
        trace.see("neck", &x);
        Ok(x)
    }
}

impl EfficientVit {
    /// The part of the costs that a traced value belongs to: the maps' sum goes with what follows it.
    pub(in crate::sam) fn costed<'a>(&self, traced: &'a str) -> &'a str {
        match traced.starts_with("neck.input_ops.") {
            true if self.middle.is_empty() => "neck",
            true => "neck.middle.op_list.0",
            false => traced,
        }
    }
}

/// The blocks of a stage, without the stem.
fn load_stage(weights: &Weights, config: &EfficientVitConfig, stage: usize) -> Result<Vec<Block>> {
    let mut blocks = Vec::with_capacity(config.depth_list[stage] + 1);
    if stage > 0 {
        let first = Local::load(&weights.pp(0).pp("main"), config.halving(stage))?;
        blocks.push(Block::Halving(first));
    }
    for block in 1..=config.depth_list[stage] {
        let weights = weights.pp(block);
        blocks.push(match config.block_list[stage].neighbours() {
            None => Block::Local(Local::load(&weights.pp("main"), config.local(stage))?),
            Some(neighbours) => {
                let widths = [config.width_list[stage], config.inner(stage, false)];
                let block = Attending::load(&weights, widths, config.qkv_dim, neighbours)?;
                Block::Attending(Box::new(block))
            }
        });
    }
    Ok(blocks)
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Halving(block) => block.forward(x, None),
            Self::Local(block) => block.forward(x, Some(x)),
            Self::Attending(block) => block.forward(x),
        }
    }
}
