//! The two block kinds and what they share: norms at the end of branches, and the trace.

use std::ops::Range;

use brisk_nn::ops::{self, Epilogue, GatheredScale, MultiScaleStates, Residual};
use brisk_nn::{
    Conv2d, ConvOptions, D, DepthwiseConv2d, Error, GluMbConv, Init, Linear, Result, RmsNorm,
    RmsNormKind, Tensor, Weights, check_finite,
};

use super::config::{Activation, BlockKind, NormKind, StageConfig};

/// Epsilon of every norm of the autoencoder.
pub(super) const NORM_EPSILON: f64 = 1e-5;
/// Added to the attention's divisor.
const ATTENTION_EPSILON: f64 = 1e-15;

/// Receives every named intermediate result, NHWC, while a half runs.
pub type TraceSink<'a> = &'a mut dyn FnMut(&str, &Tensor);

/// Where a forward pass reports its intermediate results.
pub(super) struct Trace<'a> {
    sink: Option<TraceSink<'a>>,
    /// Whether values inside blocks are wanted too, which then run step by step.
    details: bool,
    /// Bytes of a map above which local operations run on parts of it.
    whole_map: usize,
}

/// [`Trace::whole_map`] unless asked otherwise: maps of up to 512² pixels of the published models stay
/// whole.
const WHOLE_MAP: usize = 128 << 20;

impl<'a> Trace<'a> {
    pub(super) fn none() -> Self {
        Trace {
            sink: None,
            details: false,
            whole_map: WHOLE_MAP,
        }
    }

    pub(super) fn to(sink: TraceSink<'a>, details: bool) -> Self {
        Trace {
            sink: Some(sink),
            details,
            whole_map: WHOLE_MAP,
        }
    }

    /// No trace of a pass that keeps larger maps whole only where a block sees all of them.
    pub(super) fn none_within(whole_map: usize) -> Self {
        Trace {
            whole_map,
            ..Trace::none()
        }
    }

    /// Rows of the parts that a map is worked in, if it is large, neither trained through nor traced in
    /// detail: few maps as large are then held at once.
    pub(super) fn part_rows(&self, x: &Tensor) -> Result<Option<usize>> {
        let bytes = x.elem_count() * size_of::<f32>();
        let details = self.sink.is_some() && self.details;
        if bytes <= self.whole_map || x.track_op() || details {
            return Ok(None);
        }
        Ok(Some(x.dim(1)? * self.whole_map / bytes))
    }

    /// The output of a whole block: checked for NaN and infinity, then reported.
    pub(super) fn block(&mut self, name: &str, value: &Tensor) -> Result<()> {
        check_finite(value, "vae", name)?;
        if let Some(sink) = &mut self.sink {
            sink(name, value);
        }
        Ok(())
    }

    /// A value inside a block.
    pub(super) fn detail(&mut self, block: &str, name: &str, value: &Tensor) {
        if let Some(sink) = self.sink.as_mut().filter(|_| self.details) {
            sink(&format!("{block}.{name}"), value);
        }
    }
}

impl Activation {
    pub(super) fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Silu => ops::silu(x),
            Activation::Relu => ops::relu(x),
        }
    }

    fn kind(self) -> ops::Activation {
        match self {
            Activation::Silu => ops::Activation::Silu,
            Activation::Relu => ops::Activation::Relu,
        }
    }
}

/// Options of the autoencoder's 3x3 convolutions.
pub(super) fn conv3x3(stride: usize, bias: bool) -> ConvOptions {
    ConvOptions {
        kernel: 3,
        stride,
        padding: 1,
        bias,
        exact: false,
    }
}

/// A batch norm with its stored statistics: `x * scale + shift`, both `[C]`. It always follows a
/// linear map, into which it is folded.
struct BatchNorm {
    scale: Tensor,
    shift: Tensor,
}

impl BatchNorm {
    fn load(weights: &Weights, channels: usize, name: &str) -> Result<Self> {
        if weights.is_trainable() {
            return Err(Error::Config(format!(
                "{name}: batch_norm can't be trained, only run with its stored statistics; set \
                 decoder_norm_types to \"rms_norm\" in the config of a model to train"
            )));
        }
        let gamma = weights.get("weight", &[channels], Init::Ones)?;
        let beta = weights.get("bias", &[channels], Init::Zeros)?;
        let mean = weights.get("running_mean", &[channels], Init::Zeros)?;
        let variance = weights.get("running_var", &[channels], Init::Ones)?;
        let scale = (gamma / variance.affine(1.0, NORM_EPSILON)?.sqrt()?)?;
        let shift = (beta - (mean * &scale)?)?;
        Ok(BatchNorm { scale, shift })
    }
}

/// The RMS norm over channels that ends most residual branches.
fn rms_norm(weights: &Weights, channels: usize) -> Result<RmsNorm> {
    RmsNorm::load(weights, channels, NORM_EPSILON, RmsNormKind::WeightBias)
}

/// The end of a residual branch, as steps after its last layer: the norm, then the addition of `x`.
fn end_of_branch<'a>(norm: Option<&'a RmsNorm>, x: &'a Tensor) -> Epilogue<'a> {
    Epilogue {
        activation: None,
        norm: norm.map(RmsNorm::step),
        residual: Some(Residual::Same(x)),
    }
}

/// A block of a stage; `[B,H,W,C]` to the same.
pub(super) enum Block {
    Res(ResBlock),
    EfficientVit(EfficientVitBlock),
}

impl Block {
    pub(super) fn load(
        stage: &StageConfig,
        head_dim: usize,
        weights: &Weights,
        name: &str,
    ) -> Result<Self> {
        Ok(match stage.block {
            BlockKind::ResBlock => Block::Res(ResBlock::load(stage, weights, name)?),
            BlockKind::EfficientVit => {
                Block::EfficientVit(EfficientVitBlock::load(stage, head_dim, weights, name)?)
            }
        })
    }

    pub(super) fn forward(&self, x: &Tensor, name: &str, trace: &mut Trace) -> Result<Tensor> {
        match self {
            Block::Res(block) => block.forward(x),
            Block::EfficientVit(block) => block.forward(x, name, trace),
        }
    }

    /// As [`forward`](Self::forward) of a block that is not trained, `rows` rows at a time. The output
    /// takes the place of the input, so that only one map is held.
    pub(super) fn forward_strips(&self, x: Tensor, rows: usize) -> Result<Tensor> {
        match self {
            Block::Res(block) => in_place(x, rows, RES_BLOCK_HALO, |seen, inner| {
                rows_of(&block.forward(seen)?, &inner)
            }),
            Block::EfficientVit(block) => block.forward_strips(x, rows),
        }
    }

    /// Rows of input above and below that a row of output depends on, `None` for all.
    pub(super) fn halo(&self) -> Option<usize> {
        match self {
            Block::Res(_) => Some(RES_BLOCK_HALO),
            Block::EfficientVit(_) => None,
        }
    }
}

/// Rows that the two convolutions of a residual block see on either side.
const RES_BLOCK_HALO: usize = 2;
/// Rows that the depthwise convolution of a gated one sees on either side.
const FEED_FORWARD_HALO: usize = 1;

/// `height` rows in strips of `rows`.
pub(super) fn strips(height: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = (0..height).step_by(rows);
    starts.map(move |start| start..(start + rows).min(height))
}

/// A strip with `halo` rows more on either side, where the map has them.
pub(super) fn widened(strip: &Range<usize>, halo: usize, height: usize) -> Range<usize> {
    strip.start.saturating_sub(halo)..(strip.end + halo).min(height)
}

/// A copy of some rows.
pub(super) fn rows_of(x: &Tensor, rows: &Range<usize>) -> Result<Tensor> {
    x.narrow(1, rows.start, rows.len())?.contiguous()
}

/// Replaces the rows of a map, a strip at a time: `work` gets a strip with `halo` rows more on either
/// side as they were, and the strip's place among them.
fn in_place(
    x: Tensor,
    rows: usize,
    halo: usize,
    mut work: impl FnMut(&Tensor, Range<usize>) -> Result<Tensor>,
) -> Result<Tensor> {
    let height = x.dim(1)?;
    // The next strip still sees the last rows of a strip as they were, so it is written after that; no
    // strip sees further.
    let rows = rows.max(halo);
    let mut waiting: Option<(usize, Tensor)> = None;
    for strip in strips(height, rows) {
        let seen = widened(&strip, halo, height);
        let inner = strip.start - seen.start..strip.end - seen.start;
        let y = work(&rows_of(&x, &seen)?, inner)?.detach();
        if let Some((start, before)) = waiting.replace((strip.start, y)) {
            x.slice_set(&before, 1, start)?;
        }
    }
    if let Some((start, last)) = waiting {
        x.slice_set(&last, 1, start)?;
    }
    Ok(x)
}

/// `x + norm(conv2(act(conv1(x))))`
pub(super) struct ResBlock {
    conv1: Conv2d,
    /// Batch norm included, where the stage has that.
    conv2: Conv2d,
    norm: Option<RmsNorm>,
    activation: Activation,
}

impl ResBlock {
    fn load(stage: &StageConfig, weights: &Weights, name: &str) -> Result<Self> {
        let channels = stage.channels;
        let conv1 = Conv2d::load(&weights.pp("conv1"), channels, channels, conv3x3(1, true))?;
        let (second, norm) = (weights.pp("conv2"), weights.pp("norm"));
        let (conv2, norm) = match stage.norm {
            NormKind::Rms => {
                let conv = Conv2d::load(&second, channels, channels, conv3x3(1, false))?;
                (conv, Some(rms_norm(&norm, channels)?))
            }
            NormKind::Batch => {
                let norm = BatchNorm::load(&norm, channels, name)?;
                let shape = [channels, channels, 3, 3];
                let weight = second.get("weight", &shape, Init::KaimingUniform)?;
                let weight = weight.broadcast_mul(&norm.scale.reshape((channels, 1, 1, 1))?)?;
                (
                    Conv2d::new(
                        weight,
                        Some(norm.shift),
                        ConvOptions {
                            exact: second.is_exact(),
                            ..conv3x3(1, true)
                        },
                    )?,
                    None,
                )
            }
        };
        Ok(ResBlock {
            conv1,
            conv2,
            norm,
            activation: stage.activation,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let activated = Epilogue::activation(self.activation.kind());
        let branch = self.conv1.forward_with(x, &activated)?;
        self.conv2
            .forward_with(&branch, &end_of_branch(self.norm.as_ref(), x))
    }
}

/// `x + attention(x)`, then `x + norm(gated convolution(x))`
pub(super) struct EfficientVitBlock {
    attention: LiteMla,
    feed_forward: GluMbConv,
    feed_forward_norm: RmsNorm,
}

impl EfficientVitBlock {
    fn load(stage: &StageConfig, head_dim: usize, weights: &Weights, name: &str) -> Result<Self> {
        let channels = stage.channels;
        let feed_forward = weights.pp("conv_out");
        Ok(EfficientVitBlock {
            attention: LiteMla::load(stage, head_dim, &weights.pp("attn"), name)?,
            feed_forward: GluMbConv::load(&feed_forward, channels, 4 * channels)?,
            // The feed-forward's norm is RMS whatever norm the stage has.
            feed_forward_norm: rms_norm(&feed_forward.pp("norm"), channels)?,
        })
    }

    fn forward(&self, x: &Tensor, name: &str, trace: &mut Trace) -> Result<Tensor> {
        let x = self.attention.forward_residual(x, name, trace)?;
        trace.detail(name, "attn", &x);
        self.feed(&x)
    }

    /// `x + norm(gated convolution(x))`
    fn feed(&self, x: &Tensor) -> Result<Tensor> {
        let end = end_of_branch(Some(&self.feed_forward_norm), x);
        self.feed_forward.forward_with(x, &end)
    }

    /// The attention's keys and values are summed over all strips first; then every strip is attended
    /// and fed forward.
    fn forward_strips(&self, x: Tensor, rows: usize) -> Result<Tensor> {
        let height = x.dim(1)?;
        let Some(attention) = self.attention.frozen() else {
            return Err(Error::Config(
                "strips are for models that are not trained".into(),
            ));
        };
        let mut states = MultiScaleStates::default();
        for strip in strips(height, rows) {
            let seen = widened(&strip, attention.halo, height);
            let projected = attention.projection.forward(&rows_of(&x, &seen)?)?;
            let inner = strip.start - seen.start..strip.end - seen.start;
            states.add(&projected, inner, attention.heads, &attention.scales)?;
        }
        let halo = attention.halo + FEED_FORWARD_HALO;
        in_place(x, rows, halo, |seen, inner| {
            let fed = widened(&inner, FEED_FORWARD_HALO, seen.dim(1)?);
            let projected = attention.projection.forward(seen)?;
            let attended = states.attend(
                &projected,
                attention.heads,
                &attention.scales,
                ATTENTION_EPSILON,
            )?;
            let attended = rows_of(&attended, &fed)?;
            let y = self.attention.leave(&attended, &rows_of(seen, &fed)?)?;
            let y = self.feed(&y)?;
            rows_of(&y, &(inner.start - fed.start..inner.end - fed.start))
        })
    }
}

/// Multi-scale linear attention.
///
/// One projection gives `3C` channels, laid out head by head as (query, key, value). Each extra
/// scale gathers that projection's neighbourhood (depthwise, then a 1x1 convolution in groups of
/// one head's query, key or value), and attends by itself; the outputs are concatenated.
struct LiteMla {
    heads: usize,
    head_dim: usize,
    projection: Projection,
    scales: Vec<AttentionScale>,
    /// Batch norm included, where the stage has that.
    to_out: Linear,
    norm: Option<RmsNorm>,
}

/// The layer where its weights are frozen, up to the attention itself.
struct FrozenAttention<'a> {
    projection: &'a Linear,
    heads: usize,
    scales: Vec<GatheredScale<'a>>,
    /// Rows that the scales see on either side.
    halo: usize,
}

/// The `[3C, C]` projection. Files hold it in thirds whose names (`to_q`, ..) don't say what the
/// rows are used for.
enum Projection {
    Fused(Linear),
    /// Joined in every forward pass, so that gradients reach the thirds.
    Thirds([Tensor; 3]),
}

struct AttentionScale {
    gather: DepthwiseConv2d,
    kernel: usize,
    /// `[3 * heads, head_dim (out), head_dim (in)]`
    mix: Tensor,
    /// The same with its last two dimensions exchanged, where it is frozen.
    turned: Option<Tensor>,
}

impl AttentionScale {
    /// The scale as one operation takes it, where its weights are frozen.
    fn frozen(&self) -> Option<GatheredScale<'_>> {
        Some(GatheredScale {
            gather: self.gather.frozen()?,
            kernel: self.kernel,
            mix: self.turned.as_ref()?,
        })
    }
}

impl LiteMla {
    fn load(stage: &StageConfig, head_dim: usize, weights: &Weights, name: &str) -> Result<Self> {
        let channels = stage.channels;
        let heads = channels / head_dim;
        let third = |part: &str| {
            weights
                .pp(part)
                .get_stored("weight", &[channels, channels], Init::KaimingUniform)
        };
        let thirds = [third("to_q")?, third("to_k")?, third("to_v")?];
        let projection = if thirds.iter().any(Tensor::track_op) {
            Projection::Thirds(thirds)
        } else {
            Projection::Fused(Linear::new(Tensor::cat(&thirds, 0)?, None)?)
        };
        let mut scales = Vec::with_capacity(stage.scales.len());
        for (index, kernel) in stage.scales.iter().enumerate() {
            let weights = weights.pp("to_qkv_multiscale").pp(index);
            let mix = weights.pp("proj_out").get(
                "weight",
                &[3 * channels, head_dim, 1, 1],
                Init::KaimingUniform,
            )?;
            let mix = mix.reshape((3 * heads, head_dim, head_dim))?;
            scales.push(AttentionScale {
                gather: DepthwiseConv2d::load(
                    &weights.pp("proj_in"),
                    3 * channels,
                    *kernel,
                    false,
                )?,
                kernel: *kernel,
                turned: match mix.track_op() {
                    true => None,
                    false => Some(mix.transpose(1, 2)?.contiguous()?),
                },
                mix,
            });
        }
        let joined = channels * (1 + scales.len());
        let (out, norm) = (weights.pp("to_out"), weights.pp("norm_out"));
        let (to_out, norm) = match stage.norm {
            NormKind::Rms => {
                let out = Linear::load(&out, joined, channels, false, Init::KaimingUniform)?;
                (out, Some(rms_norm(&norm, channels)?))
            }
            NormKind::Batch => {
                let norm = BatchNorm::load(&norm, channels, name)?;
                let weight = out.get("weight", &[channels, joined], Init::KaimingUniform)?;
                let weight = weight.broadcast_mul(&norm.scale.reshape((channels, 1))?)?;
                (Linear::new(weight, Some(norm.shift))?, None)
            }
        };
        Ok(LiteMla {
            heads,
            head_dim,
            projection,
            scales,
            to_out,
            norm,
        })
    }

    fn frozen(&self) -> Option<FrozenAttention<'_>> {
        let Projection::Fused(projection) = &self.projection else {
            return None;
        };
        let scales: Option<Vec<_>> = self.scales.iter().map(AttentionScale::frozen).collect();
        Some(FrozenAttention {
            projection,
            heads: self.heads,
            scales: scales?,
            halo: self
                .scales
                .iter()
                .map(|scale| scale.kernel / 2)
                .max()
                .unwrap_or(0),
        })
    }

    /// `x + norm(to_out(attended))`
    fn leave(&self, attended: &Tensor, x: &Tensor) -> Result<Tensor> {
        self.to_out
            .forward_with(attended, &end_of_branch(self.norm.as_ref(), x))
    }

    /// `x + norm(attention(x))`
    fn forward_residual(&self, x: &Tensor, name: &str, trace: &mut Trace) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let (tokens, heads, head_dim) = (height * width, self.heads, self.head_dim);
        let projected = match &self.projection {
            Projection::Fused(projection) => projection.forward(x)?,
            Projection::Thirds(thirds) => ops::linear(x, &Tensor::cat(thirds, 0)?, None)?,
        };
        if let Some(frozen) = self.frozen()
            && !trace.details
            && !projected.track_op()
        {
            let attended = ops::multi_scale_linear_attention(
                &projected,
                heads,
                &frozen.scales,
                ATTENTION_EPSILON,
            )?;
            return self.leave(&attended, x);
        }
        if trace.details {
            for (index, third) in ["attn.to_q", "attn.to_k", "attn.to_v"]
                .into_iter()
                .enumerate()
            {
                let third_of = projected.narrow(3, index * channels, channels)?;
                trace.detail(name, third, &third_of);
            }
        }

        // [B,H,W,3C] with channels (head, part, dim) -> part as [B,N,C]
        let grouped = projected.reshape((batch, tokens, heads, 3, head_dim))?;
        let part = |index| -> Result<Tensor> {
            grouped
                .narrow(3, index, 1)?
                .contiguous()?
                .reshape((batch, tokens, channels))
        };
        let attend = |query: &Tensor, key: &Tensor, value: &Tensor| {
            ops::linear_attention(query, key, value, heads, ATTENTION_EPSILON)
        };
        let mut outputs = vec![attend(&part(0)?, &part(1)?, &part(2)?)?];

        for (index, scale) in self.scales.iter().enumerate() {
            let gathered = scale.gather.forward(&projected)?;
            // One matrix product for each of the 3 * heads groups.
            let groups = gathered
                .reshape((batch * tokens, 3 * heads, head_dim))?
                .transpose(0, 1)?
                .contiguous()?;
            let mixed = groups.matmul(&scale.mix.transpose(1, 2)?.contiguous()?)?;
            let mixed = mixed.reshape((heads, 3, batch * tokens, head_dim))?;
            let part = |index| -> Result<Tensor> {
                mixed
                    .narrow(1, index, 1)?
                    .squeeze(1)?
                    .transpose(0, 1)?
                    .contiguous()?
                    .reshape((batch, tokens, channels))
            };
            if trace.details {
                let value = mixed.permute((2, 0, 1, 3))?.contiguous()?;
                let value = value.reshape((batch, height, width, 3 * channels))?;
                trace.detail(name, &format!("attn.to_qkv_multiscale.{index}"), &value);
            }
            outputs.push(attend(&part(0)?, &part(1)?, &part(2)?)?);
        }

        let joined = Tensor::cat(&outputs, D::Minus1)?;
        let joined = joined.reshape((batch, height, width, channels * outputs.len()))?;
        let out = self.to_out.forward(&joined)?;
        trace.detail(name, "attn.to_out", &out);
        let out = Epilogue {
            residual: None,
            ..end_of_branch(self.norm.as_ref(), x)
        }
        .apply(out)?;
        trace.detail(name, "attn.norm_out", &out);
        x + out
    }
}
