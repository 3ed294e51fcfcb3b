//! Blocks: picture and text as two streams that attend together, and as one.

use brisk_nn::ops::RotaryAngles;
use brisk_nn::ops::{self, Activation, AttentionOptions, Epilogue};
use brisk_nn::{Init, Linear, LinearGroup, QueryKeyNorms, Tensor, Trace, Weights};

use super::VideoTransformerConfig;
use super::modulation::{Modulated, Modulation, NORM_EPS, Times};
use super::refiner::Mlp;
use crate::Result;

/// Names of a stream's parameters.
struct StreamNames {
    modulation: &'static str,
    projections: [&'static str; 3],
    norms: [&'static str; 2],
    output: &'static str,
    mlp: &'static str,
}

const PICTURE: StreamNames = StreamNames {
    modulation: "norm1",
    projections: ["to_q", "to_k", "to_v"],
    norms: ["norm_q", "norm_k"],
    output: "to_out.0",
    mlp: "ff",
};

const TEXT: StreamNames = StreamNames {
    modulation: "norm1_context",
    projections: ["add_q_proj", "add_k_proj", "add_v_proj"],
    norms: ["norm_added_q", "norm_added_k"],
    output: "to_add_out",
    mlp: "ff_context",
};

/// What one of the two streams has for itself.
#[derive(Debug)]
struct Stream {
    modulation: Modulation<6>,
    projections: LinearGroup<3>,
    norms: QueryKeyNorms,
    output: Linear,
    mlp: Mlp,
}

impl Stream {
    fn load(
        config: &VideoTransformerConfig,
        weights: &Weights,
        names: &StreamNames,
    ) -> Result<Self> {
        let (width, init) = (config.width(), Init::XavierUniform);
        let attention = weights.pp("attn");
        let head = config.attention_head_dim;
        Ok(Self {
            modulation: Modulation::load(&weights.pp(names.modulation), width)?,
            projections: LinearGroup::load(
                &attention,
                names.projections,
                width,
                [width; 3],
                true,
                init,
            )?,
            norms: QueryKeyNorms::load_by_head(&attention, names.norms, head, NORM_EPS)?,
            output: Linear::load(&attention.pp(names.output), width, width, true, init)?,
            mlp: Mlp::load(
                &weights.pp(names.mlp),
                width,
                config.hidden(),
                Activation::GeluTanh,
            )?,
        })
    }

    /// Queries, keys and values of the modulated tokens.
    fn projected(&self, x: &Tensor, modulated: &Modulated<6>) -> Result<[Tensor; 3]> {
        let [q, k, v] = self.projections.forward(&modulated.norm(x, 0, 1)?)?;
        Ok([self.norms.query(&q)?, self.norms.key(&k)?, v])
    }

    /// The tokens with what they attended to, through the MLP.
    fn finished(&self, x: &Tensor, attended: &Tensor, modulated: &Modulated<6>) -> Result<Tensor> {
        let x = modulated.gated(x, 2, &self.output.forward(attended)?)?;
        let b = modulated.norm(&x, 3, 4)?;
        let fed = self.mlp.forward_with(&b, &Epilogue::default())?;
        modulated.gated(&x, 5, &fed)
    }
}

/// A block in which picture and text have layers of their own.
#[derive(Debug)]
pub(super) struct DoubleBlock {
    picture: Stream,
    text: Stream,
    options: AttentionOptions,
}

impl DoubleBlock {
    pub fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        Ok(Self {
            picture: Stream::load(config, weights, &PICTURE)?,
            text: Stream::load(config, weights, &TEXT)?,
            options: AttentionOptions::new(config.num_attention_heads, config.attention_head_dim),
        })
    }

    /// Tokens of picture and text, each `[1,tokens,width]`, to the same.
    pub fn forward(
        &self,
        [picture, text]: [&Tensor; 2],
        times: &Times,
        angles: &RotaryAngles,
    ) -> Result<[Tensor; 2]> {
        let heads = self.options.heads;
        let of_picture = Modulated::of_picture(&self.picture.modulation, times)?;
        let of_text = Modulated::of_text(&self.text.modulation, times)?;
        let [q, k, v] = self.picture.projected(picture, &of_picture)?;
        let (q, k) = (
            ops::rotary_at(&q, heads, angles)?,
            ops::rotary_at(&k, heads, angles)?,
        );
        let [text_q, text_k, text_v] = self.text.projected(text, &of_text)?;
        let both = |picture: Tensor, text: Tensor| Tensor::cat(&[picture, text], 1);
        let attended = ops::attention(
            &both(q, text_q)?,
            &both(k, text_k)?,
            &both(v, text_v)?,
            &self.options,
        )?;
        let (first, second) = (picture.dim(1)?, text.dim(1)?);
        let of = |start: usize, count: usize| attended.narrow(1, start, count)?.contiguous();
        Ok([
            self.picture
                .finished(picture, &of(0, first)?, &of_picture)?,
            self.text.finished(text, &of(first, second)?, &of_text)?,
        ])
    }
}

/// A block over picture and text as one sequence, attention and MLP side by side.
#[derive(Debug)]
pub(super) struct SingleBlock {
    modulation: Modulation<3>,
    projections: LinearGroup<3>,
    norms: QueryKeyNorms,
    mlp: Linear,
    output: Linear,
    options: AttentionOptions,
}

impl SingleBlock {
    pub fn load(config: &VideoTransformerConfig, weights: &Weights) -> Result<Self> {
        let (width, hidden, init) = (config.width(), config.hidden(), Init::XavierUniform);
        let attention = weights.pp("attn");
        let names = PICTURE.projections;
        Ok(Self {
            modulation: Modulation::load(&weights.pp("norm"), width)?,
            projections: LinearGroup::load(&attention, names, width, [width; 3], true, init)?,
            norms: QueryKeyNorms::load_by_head(
                &attention,
                PICTURE.norms,
                config.attention_head_dim,
                NORM_EPS,
            )?,
            mlp: Linear::load(&weights.pp("proj_mlp"), width, hidden, true, init)?,
            output: Linear::load(&weights.pp("proj_out"), width + hidden, width, true, init)?,
            options: AttentionOptions::new(config.num_attention_heads, config.attention_head_dim),
        })
    }

    /// Tokens of the picture, then of the text, `[1,tokens,width]`, to the same.
    pub fn forward(
        &self,
        x: &Tensor,
        times: &Times,
        angles: &RotaryAngles,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let heads = self.options.heads;
        let modulated = Modulated::of_picture(&self.modulation, times)?;
        let a = modulated.norm(x, 0, 1)?;
        let [q, k, v] = self.projections.forward(&a)?;
        let q = ops::rotary_at(&self.norms.query(&q)?, heads, angles)?;
        let k = ops::rotary_at(&self.norms.key(&k)?, heads, angles)?;
        let attended = ops::attention(&q, &k, &v, &self.options)?;
        trace.detail("attn", &attended);
        let hidden = self
            .mlp
            .forward_with(&a, &Epilogue::activation(Activation::GeluTanh))?;
        let both = Tensor::cat(&[attended, hidden], 2)?;
        modulated.gated(x, 2, &self.output.forward(&both)?)
    }
}
