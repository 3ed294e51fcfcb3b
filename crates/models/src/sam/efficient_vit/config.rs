//! Settings of EfficientViT-SAM's image encoder.

use brisk_store::TensorSource;
use serde::Deserialize;

use crate::config::check_count;
use crate::sam::config::{LARGEST_SIDE, LARGEST_WIDTH, MOST_LAYERS, check_multiple};
use crate::sam::shapes::Shapes;
use crate::{Error, Result};

/// Most stages, which keep a corrupt file from asking for all memory.
const MOST_STAGES: usize = 8;
/// Stages whose maps the neck sums.
pub(super) const SUMMED: usize = 3;
/// By how much more the first block of a stage widens, which halves the map.
const HALVING: f64 = 4.0;
/// Stages of the models that see pictures at 512 pixels; those of one more see them at 1024.
const SMALL_STAGES: usize = 5;

/// Kinds of blocks, as the reference calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum EfficientVitBlock {
    /// Two convolutions of 3×3.
    #[serde(rename = "res")]
    Res,
    /// One of 3×3, one of 1×1.
    #[serde(rename = "fmb")]
    FusedMb,
    /// 1×1, 3×3 of every channel by itself, 1×1.
    #[serde(rename = "mb")]
    Mb,
    /// Linear attention that sees also neighbourhoods of 5×5, then an inverted bottleneck.
    #[serde(rename = "att")]
    Attention5,
    /// The same with neighbourhoods of 3×3.
    #[serde(rename = "att@3")]
    Attention3,
}

/// Settings, named as the arguments of the reference's classes; where a key is missing, those of EfficientViT-SAM-L0.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct EfficientVitConfig {
    /// Side in pixels at which the encoder sees the frame.
    pub image_size: usize,
    /// Channels of the stages, each half as large as the one before.
    pub width_list: Vec<usize>,
    /// Their blocks behind the first one.
    pub depth_list: Vec<usize>,
    /// Kinds of these.
    pub block_list: Vec<EfficientVitBlock>,
    /// Inner width of these, in units of the stage's channels.
    pub expand_list: Vec<f64>,
    /// Whether only the last convolution of a block has a norm.
    pub fewer_norm_list: Vec<bool>,
    /// Channels of a head.
    pub qkv_dim: usize,
    /// Channels of the neck.
    pub head_width: usize,
    /// Its blocks.
    pub head_depth: usize,
    /// Inner width of these, in units of the neck's channels.
    pub expand_ratio: f64,
    /// Kind of these.
    pub middle_op: EfficientVitBlock,
    /// Channels of the embedding of a picture.
    pub output_channels: usize,
}

impl Default for EfficientVitConfig {
    fn default() -> Self {
        Self::small([1, 1, 1, 4, 4], 4)
    }
}

impl EfficientVitConfig {
    /// One of the models that see pictures at 512 pixels.
    fn small(depths: [usize; 5], head_depth: usize) -> Self {
        use EfficientVitBlock::{Attention5, FusedMb, Mb, Res};
        Self {
            image_size: 512,
            width_list: vec![32, 64, 128, 256, 512],
            depth_list: depths.to_vec(),
            block_list: vec![Res, FusedMb, FusedMb, Mb, Attention5],
            expand_list: vec![1.0, 4.0, 4.0, 4.0, 6.0],
            fewer_norm_list: vec![false, false, false, true, true],
            qkv_dim: 32,
            head_width: 256,
            head_depth,
            expand_ratio: 1.0,
            middle_op: FusedMb,
            output_channels: 256,
        }
    }

    /// One of those that see them at 1024 pixels.
    fn large(depths: [usize; 6], head_depth: usize) -> Self {
        use EfficientVitBlock::{Attention3, FusedMb, Res};
        Self {
            image_size: 1024,
            width_list: vec![32, 64, 128, 256, 512, 1024],
            depth_list: depths.to_vec(),
            block_list: vec![Res, FusedMb, FusedMb, FusedMb, Attention3, Attention3],
            expand_list: vec![1.0, 4.0, 4.0, 4.0, 4.0, 6.0],
            fewer_norm_list: vec![false, false, false, false, true, true],
            expand_ratio: 4.0,
            ..Self::small([0; 5], head_depth)
        }
    }

    /// The name under which it was published.
    pub fn published(&self) -> Option<&'static str> {
        let all = [
            ("EfficientViT-SAM-L0", Self::small([1, 1, 1, 4, 4], 4)),
            ("EfficientViT-SAM-L1", Self::small([1, 1, 1, 6, 6], 8)),
            ("EfficientViT-SAM-L2", Self::small([1, 2, 2, 8, 8], 12)),
            ("EfficientViT-SAM-XL0", Self::large([0, 1, 1, 2, 3, 3], 6)),
            ("EfficientViT-SAM-XL1", Self::large([1, 2, 2, 4, 6, 6], 12)),
        ];
        let found = all.into_iter().find(|(_, config)| config == self);
        found.map(|(name, _)| name)
    }

    /// Stages.
    pub fn stages(&self) -> usize {
        self.width_list.len()
    }

    /// Inner width of a block of a stage; `first` is the one that halves the map.
    pub(super) fn inner(&self, stage: usize, first: bool) -> usize {
        let (from, factor) = match first {
            true => (self.width_list[stage - 1], HALVING),
            false => (self.width_list[stage], 1.0),
        };
        (from as f64 * factor * self.expand_list[stage]).round() as usize
    }

    /// Inner width of the neck's blocks.
    pub(super) fn head_inner(&self) -> usize {
        (self.head_width as f64 * self.expand_ratio).round() as usize
    }

    /// Checks the values by themselves.
    ///
    /// # Errors
    /// Names the first key that cannot be honoured.
    pub(in crate::sam) fn validate(&self) -> Result<()> {
        let stages = self.stages();
        let fail = |message: String| Err(Error::Config(message));
        if !(SUMMED..=MOST_STAGES).contains(&stages) {
            return fail(format!(
                "`vision_config.width_list` has {stages} stages; expected {SUMMED} to {MOST_STAGES}"
            ));
        }
        for (key, found) in [
            ("depth_list", self.depth_list.len()),
            ("block_list", self.block_list.len()),
            ("expand_list", self.expand_list.len()),
            ("fewer_norm_list", self.fewer_norm_list.len()),
        ] {
            if found != stages {
                return fail(format!(
                    "`vision_config.{key}` is of {found} stages; expected {stages} stages, as `width_list`"
                ));
            }
        }
        let count = |key: &str, value: usize, limit: usize| {
            check_count(&format!("vision_config.{key}"), value, limit)
        };
        count("image_size", self.image_size, LARGEST_SIDE)?;
        check_multiple(
            "vision_config.image_size",
            self.image_size,
            "2^stages",
            1 << stages,
        )?;
        count("qkv_dim", self.qkv_dim, LARGEST_WIDTH)?;
        count("head_width", self.head_width, LARGEST_WIDTH)?;
        count(
            "expand_ratio · head_width",
            self.head_inner(),
            LARGEST_WIDTH,
        )?;
        count("output_channels", self.output_channels, LARGEST_WIDTH)?;
        if self.head_depth > MOST_LAYERS {
            return fail(format!(
                "`vision_config.head_depth` is {}; expected 0 to {MOST_LAYERS}",
                self.head_depth
            ));
        }
        if self.middle_op.attends() || self.block_list[0].attends() {
            return fail(
                "`vision_config.middle_op` and `block_list[0]` are of convolutions: expected \"res\", \"fmb\" or \"mb\""
                    .to_owned(),
            );
        }
        for stage in 0..stages {
            let width = self.width_list[stage];
            count(&format!("width_list[{stage}]"), width, LARGEST_WIDTH)?;
            if self.depth_list[stage] > MOST_LAYERS {
                return fail(format!(
                    "`vision_config.depth_list[{stage}]` is {}; expected 0 to {MOST_LAYERS}",
                    self.depth_list[stage]
                ));
            }
            let key = format!("expand_list[{stage}] · width_list[{stage}]");
            count(&key, self.inner(stage, false), LARGEST_WIDTH)?;
            if stage > 0 {
                count(&key, self.inner(stage, true), LARGEST_WIDTH)?;
            }
            if self.block_list[stage].attends() {
                check_multiple(
                    &format!("vision_config.width_list[{stage}]"),
                    width,
                    "qkv_dim",
                    self.qkv_dim,
                )?;
            }
        }
        Ok(())
    }

    /// The settings of a file, by the names and shapes of its tensors; what has no tensor is as in
    /// EfficientViT-SAM-L0, and loading reports it.
    ///
    /// # Errors
    /// Fewer or more stages than can be.
    pub(in crate::sam) fn of_tensors(source: &dyn TensorSource) -> Result<Self> {
        let shapes = Shapes::new(source, "image_encoder.");
        let mut config = Self {
            width_list: Vec::new(),
            depth_list: Vec::new(),
            block_list: Vec::new(),
            expand_list: Vec::new(),
            fewer_norm_list: Vec::new(),
            ..Self::default()
        };
        let first = "backbone.stages.0.op_list.0.conv.weight";
        config.width_list.extend(shapes.side(first, 0));
        while config.block_list.len() < config.width_list.len() {
            let stage = config.block_list.len();
            if stage == MOST_STAGES {
                return Err(Error::Config(format!(
                    "an EfficientViT of more than {MOST_STAGES} stages"
                )));
            }
            config.push_stage(&shapes, stage);
        }
        if config.stages() > SMALL_STAGES {
            config.image_size = 1024;
        }
        shapes.set(
            &mut config.head_width,
            "neck.input_ops.0.op_list.0.conv.weight",
            0,
        );
        let middle = |block: usize| format!("neck.middle.op_list.{block}.main");
        config.head_depth = shapes
            .count(|block| format!("{}.{POINT}", middle(block)))
            .max(shapes.count(|block| format!("{}.{SECOND}", middle(block))));
        if let Some(kind) = Kind::of(&shapes, &middle(0)) {
            config.middle_op = kind.block;
            config.expand_ratio = kind.inner as f64 / kind.from.max(1) as f64;
        }
        shapes.set(
            &mut config.output_channels,
            "neck.output_ops.0.op_list.0.conv.weight",
            0,
        );
        Ok(config)
    }

    /// Adds what the tensors say of a stage whose width is known, and the next one's width.
    fn push_stage(&mut self, shapes: &Shapes, stage: usize) {
        let place = |block: usize| format!("backbone.stages.{stage}.op_list.{block}");
        let halving = Kind::of(shapes, &format!("{}.main", place(0)));
        let block = Kind::of(shapes, &format!("{}.main", place(1)));
        let attention = format!("{}.context_module.main", place(1));
        let neighbours = shapes.side(&format!("{attention}.aggreg.0.0.weight"), 2);
        shapes.set(
            &mut self.qkv_dim,
            &format!("{attention}.aggreg.0.1.weight"),
            1,
        );
        self.block_list.push(match (neighbours, block, halving) {
            (Some(3), ..) => EfficientVitBlock::Attention3,
            (Some(_), ..) => EfficientVitBlock::Attention5,
            (None, Some(kind), _) | (None, None, Some(kind)) => kind.block,
            (None, None, None) => EfficientVitBlock::Res,
        });
        self.expand_list.push(match (halving, block) {
            (Some(kind), _) => kind.inner as f64 / (HALVING * kind.from.max(1) as f64),
            (None, Some(kind)) => kind.inner as f64 / kind.from.max(1) as f64,
            (None, None) => 1.0,
        });
        let kind = halving.or(block);
        self.fewer_norm_list
            .push(kind.is_some_and(|kind| kind.biased));
        let is_block = |block: usize| {
            let main = format!("{}.main", place(block));
            let attention = format!("{}.context_module.main.qkv.conv.weight", place(block));
            Kind::of(shapes, &main).is_some() || shapes.of(&attention).is_some()
        };
        self.depth_list
            .push((1..).take_while(|block| is_block(*block)).count());
        let next = format!("backbone.stages.{}.op_list.0.main", stage + 1);
        if let Some(kind) = Kind::of(shapes, &next) {
            self.width_list.push(kind.to);
        }
    }
}

/// Last layers of blocks of convolutions.
const POINT: &str = "point_conv.conv.weight";
const SECOND: &str = "conv2.conv.weight";

/// A block of convolutions, by its tensors.
#[derive(Clone, Copy)]
struct Kind {
    block: EfficientVitBlock,
    from: usize,
    inner: usize,
    to: usize,
    biased: bool,
}

impl Kind {
    fn of(shapes: &Shapes, main: &str) -> Option<Self> {
        let all = [
            (EfficientVitBlock::FusedMb, "spatial_conv", POINT),
            (EfficientVitBlock::Mb, "inverted_conv", POINT),
            (EfficientVitBlock::Res, "conv1", SECOND),
        ];
        all.into_iter().find_map(|(block, first, last)| {
            let shape = shapes.of(&format!("{main}.{first}.conv.weight"))?;
            let &[inner, from, ..] = shape.as_slice() else {
                return None;
            };
            Some(Self {
                block,
                from,
                inner,
                to: shapes.side(&format!("{main}.{last}"), 0).unwrap_or(inner),
                biased: shapes.of(&format!("{main}.{first}.conv.bias")).is_some(),
            })
        })
    }
}

impl EfficientVitBlock {
    /// Whether it has an attention.
    pub fn attends(self) -> bool {
        self.neighbours().is_some()
    }

    /// Side of the neighbourhoods that its attention sees.
    pub(super) fn neighbours(self) -> Option<usize> {
        match self {
            Self::Attention5 => Some(5),
            Self::Attention3 => Some(3),
            _ => None,
        }
    }

    /// What halves the map before such blocks.
    pub(super) fn halving(self) -> Self {
        match self {
            Self::FusedMb => Self::FusedMb,
            _ => Self::Mb,
        }
    }
}
