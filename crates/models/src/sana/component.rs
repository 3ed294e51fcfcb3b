//! The transformer from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::Tensor;
use brisk_nn::{Trace, Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::native::{self, NativeLayout};
use super::{
    CaptionContext, ForwardExtras, SanaConfig, SanaTransformer, compact_text, parameters,
    with_random_low_bit,
};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Prepared, Recognised, Runnable, Setting, Size, SizeName,
    Sizes, Work, not_run,
};
use crate::{Error, Result, low_bit};

/// SANA's diffusion transformer: SANA, SANA-1.5 and SANA-Sprint.
pub static COMPONENT: Component = Component {
    name: "SANA transformer",
    classes: &["SanaTransformer2DModel"],
    keys: KEYS,
    folders: &["transformer"],
    beside: &[],
    entries: &[TRANSFORMER],
    recognise,
    open: |bytes, label| Ok(Box::new(SanaConfig::from_json(bytes, label)?)),
};

/// Of the transformer, and of the ControlNet that copies it.
pub(crate) const KEYS: &[&str] = &[
    "in_channels",
    "out_channels",
    "num_attention_heads",
    "attention_head_dim",
    "num_layers",
    "num_cross_attention_heads",
    "cross_attention_head_dim",
    "cross_attention_dim",
    "caption_channels",
    "mlp_ratio",
    "attention_bias",
    "sample_size",
    "patch_size",
    "norm_elementwise_affine",
    "norm_eps",
    "interpolation_scale",
    "guidance_embeds",
    "guidance_embeds_scale",
    "qk_norm",
    "timestep_scale",
    "dropout",
];

const RESIDUALS: &str = "controlnet_block_samples.";

const TRANSFORMER: Entry = Entry {
    name: "transformer",
    about: "Evaluate a diffusion transformer once",
    inputs: &[
        HIDDEN,
        TEXT,
        TEXT_MASK,
        TIMESTEP,
        GUIDANCE,
        Port::float(RESIDUALS, &["B", "tokens", "width"]).optional(),
    ],
    outputs: &[Port::float("sample", &["B", "C_out", "H", "W"])],
    sizes: &[SIZE, TOKENS],
    settings: &[Setting::Activations, Setting::RandomLowBit, Setting::Device],
};

pub(crate) const HIDDEN: Port = Port::float("hidden_states", &["B", "C", "H", "W"]);
pub(crate) const TEXT: Port = Port::float("encoder_hidden_states", &["B", "L", "D"]);
pub(crate) const TEXT_MASK: Port = Port::mask("encoder_attention_mask", &["B", "L"]);
pub(crate) const TIMESTEP: Port = Port::float("timestep", &["B"]);
pub(crate) const GUIDANCE: Port = Port::float("guidance", &["B"]).optional();

pub(crate) const SIZE: SizeName = SizeName {
    name: "size",
    unit: "PIXELS",
    about: "Side of the picture in pixels (default: the model's)",
    usual: None,
    smallest: 1,
    largest: 8192,
    of_inputs: true,
};
pub(crate) const TOKENS: SizeName = SizeName {
    name: "tokens",
    unit: "N",
    about: "Tokens of the caption (default: 300)",
    usual: Some(300),
    smallest: 1,
    largest: 65_536,
    of_inputs: true,
};

/// Pixels along a latent cell where no autoencoder says.
const USUAL_RATIO: usize = 32;

fn recognise(
    source: &dyn TensorSource,
    metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let has = |name: &str| source.info(name).is_some();
    let caption = ["weight", "qweight"].map(|end| format!("caption_projection.linear_1.{end}"));
    if low_bit::is_quantized(source) {
        let class = metadata.get("model_class");
        let names = source.names();
        let ours = caption.iter().any(|name| has(name))
            || names.iter().any(|name| name.contains(".ff.inverted_conv."))
            || class.is_some_and(|class| class.contains("Sana"));
        return Ok(ours.then(|| low_bit::describe(source, metadata, "SANA transformer")));
    }
    if let Some(layout) = native::detect(source)? {
        return Ok(Some(in_native_layout(&layout)));
    }
    let ours = caption.iter().any(|name| has(name)) && !has("controlnet_blocks.0.weight");
    Ok(ours.then(|| Recognised::new("SANA transformer (diffusers names)")))
}

fn in_native_layout(layout: &NativeLayout) -> Recognised {
    let name = match (layout.control_blocks, layout.guidance_embeds) {
        (0, false) => "SANA transformer (the authors' names)",
        (0, true) => "SANA-Sprint transformer (the authors' names)",
        _ => "SANA transformer with ControlNet (the authors' names)",
    };
    let details = json!({
        "width": layout.width, "blocks": layout.depth, "latent channels": layout.in_channels,
        "caption channels": layout.caption_channels, "patch size": layout.patch_size,
        "QK norm": layout.qk_norm, "guidance embedding": layout.guidance_embeds,
        "ControlNet blocks": layout.control_blocks,
    });
    Recognised::with(name, details).standing_alone()
}

/// What the configuration says, in a line.
pub(crate) fn description(config: &SanaConfig) -> String {
    let mut facts = format!(
        "width {}, {} blocks, {} latent channels, captions of {}, trained at {} x {} latent cells",
        config.width(),
        config.num_layers,
        config.in_channels,
        config.caption_channels,
        config.sample_size,
        config.sample_size
    );
    for (holds, fact) in [
        (config.qk_norm.is_some(), "QK norm"),
        (config.guidance_embeds, "guidance embedding (Sprint)"),
        (config.interpolation_scale.is_some(), "positional embedding"),
    ] {
        if holds {
            facts.push_str(", ");
            facts.push_str(fact);
        }
    }
    facts
}

/// The same by name; blocks have so many parameters each.
pub(crate) fn facts(config: &SanaConfig) -> Map<String, Value> {
    let facts = json!({
        "width": config.width(), "blocks": config.num_layers, "latent_channels": config.in_channels,
        "caption_channels": config.caption_channels, "patch_size": config.patch_size,
        "latent_side": config.sample_size, "qk_norm": config.qk_norm.is_some(),
        "guidance_embedding": config.guidance_embeds,
        "positional_embedding": config.interpolation_scale.is_some(),
        "parameters_of_embeddings": config.embedding_parameters(),
        "parameters_of_a_block": config.block_parameters(),
    });
    Recognised::with("", facts).details
}

/// Without the guidance strength where the model embeds none; else it is required.
pub(crate) fn inputs(config: &SanaConfig, entry: &Entry) -> Vec<Port> {
    let kept = |port: &&Port| port.name != GUIDANCE.name || config.guidance_embeds;
    let required = |port: &Port| Port {
        optional: port.optional && port.name != GUIDANCE.name,
        ..*port
    };
    entry.inputs.iter().filter(kept).map(required).collect()
}

pub(crate) fn dimension(config: &SanaConfig, word: &str) -> Option<Dimension> {
    Some(match word {
        "C" => Dimension::Exactly(config.in_channels),
        "C_out" => Dimension::Exactly(config.output_channels()),
        "H" | "W" => Dimension::MultipleOf(config.patch_size),
        "D" => Dimension::Exactly(config.caption_channels),
        "width" => Dimension::Exactly(config.width()),
        _ => return None,
    })
}

pub(crate) fn sizes(config: &SanaConfig, entry: &Entry, beside: &Sizes) -> Vec<Size> {
    let ratio = beside.get("pixels_per_cell").unwrap_or(USUAL_RATIO);
    let pixels = config.sample_size.saturating_mul(ratio);
    let declared = entry.sizes.iter();
    declared
        .map(|size| match size.name {
            "size" => size.with(pixels, ratio.saturating_mul(config.patch_size)),
            _ => size.with(0, 1),
        })
        .collect()
}

/// Latent, caption and time of these sizes.
pub(crate) fn examples(
    config: &SanaConfig,
    sizes: &Sizes,
    beside: &Sizes,
    examples: &mut Examples,
) -> Result<[usize; 4]> {
    let ratio = beside.get("pixels_per_cell").unwrap_or(USUAL_RATIO).max(1);
    let (side, tokens) = (sizes.or_zero("size") / ratio, sizes.or_zero("tokens"));
    let latent = [1, config.in_channels, side, side];
    examples.normal(HIDDEN.name, &latent, 1.0, false)?;
    let text = [1, tokens, config.caption_channels];
    examples.normal(TEXT.name, &text, 1.0, false)?;
    examples.constant(TEXT_MASK.name, &[1, tokens], 1.0)?;
    if config.guidance_embeds {
        examples.constant(TIMESTEP.name, &[1], 0.5)?;
        examples.constant(GUIDANCE.name, &[1], 0.45)?;
    } else {
        examples.constant(TIMESTEP.name, &[1], 500.0)?;
    }
    Ok(latent)
}

/// The tensors that transformer and ControlNet share.
pub(crate) struct Conditioning {
    /// `[B,h,w,C]`
    pub hidden: Tensor,
    /// `[B]`
    pub timestep: Tensor,
    /// `[B]`, where the model takes it.
    pub guidance: Option<Tensor>,
    /// `[B,L,D]`, without rows that the mask hides.
    pub text: Tensor,
    /// Valid rows of each caption.
    pub lengths: Vec<usize>,
}

impl Conditioning {
    /// Reads the tensors under the reference's names.
    pub(crate) fn read(inputs: &NamedTensors) -> Result<Self> {
        let text = inputs.required(TEXT.name)?;
        let mask = inputs.mask(TEXT_MASK.name)?;
        let missing = || Error::Shape(format!("there is no tensor \"{}\"", TEXT_MASK.name));
        let (text, lengths) = compact_text(text, &mask.ok_or_else(missing)?)?;
        Ok(Self {
            hidden: ops::to_nhwc(inputs.required(HIDDEN.name)?)?,
            timestep: inputs.required(TIMESTEP.name)?.clone(),
            guidance: inputs.get(GUIDANCE.name).cloned(),
            text,
            lengths,
        })
    }

    /// Sizes of a run: batch, latent rows and columns, and the longest caption's tokens.
    pub(crate) fn sizes(inputs: &NamedTensors) -> Result<[usize; 4]> {
        let (batch, _, height, width) = inputs.required(HIDDEN.name)?.dims4()?;
        let mask = inputs.mask(TEXT_MASK.name)?.unwrap_or_default();
        let kept = mask
            .iter()
            .map(|row| row.iter().filter(|keep| **keep).count());
        Ok([batch, height, width, kept.max().unwrap_or(0)])
    }
}

/// The names of [`Conditioning::sizes`] in a report.
pub(crate) fn named([batch, height, width, tokens]: [usize; 4]) -> Vec<(&'static str, usize)> {
    vec![
        ("batch", batch),
        ("latent_height", height),
        ("latent_width", width),
        ("text_tokens", tokens),
    ]
}

/// The part that a traced value of blocks ends.
pub(crate) fn part(name: &str) -> &'static str {
    let inner = name
        .strip_prefix("transformer_blocks.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(name, |(_, inner)| inner);
    match inner {
        "patch_embed" | "patch_embed.control" | "time_embed" | "time_embed.embedded" => {
            "embeddings"
        }
        "attn1" => "attn1",
        "attn2" => "attn2",
        "ff" => "ff",
        "proj_out" => "proj_out",
        _ => "between",
    }
}

impl ComponentConfig for SanaConfig {
    fn description(&self) -> String {
        description(self)
    }

    fn facts(&self) -> Map<String, Value> {
        facts(self)
    }

    fn parameters(&self) -> u64 {
        self.parameters()
    }

    fn plain_names(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        native::plain_names(source)
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        let activations = settings.activations.unwrap_or_default();
        let found = match weights {
            ComponentWeights::Stored(source) => parameters(self, source.clone(), activations)?,
            ComponentWeights::Random(random) if random.low_bit => {
                with_random_low_bit(self, weights.plain(), activations)
            }
            ComponentWeights::Random(_) => weights.plain(),
        };
        Ok(found
            .quantize(settings.quantization, None)
            .at(&settings.location))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        SanaTransformer::load(self, weights).map(drop)
    }

    fn inputs(&self, entry: &Entry) -> Vec<Port> {
        inputs(self, entry)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        dimension(self, word)
    }

    fn sizes(&self, entry: &Entry, beside: &Sizes) -> Vec<Size> {
        sizes(self, entry, beside)
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        examples(self, sizes, beside, made)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let sizes = Conditioning::sizes(inputs)?;
        let [batch, height, width, tokens] = sizes;
        Ok(Work {
            sizes: named(sizes),
            costs: self.step_cost(batch, height, width, tokens),
            preparation: Some(self.caption_cost(batch, tokens)),
            weight_bytes: None,
        })
    }

    fn load(
        &self,
        _entry: &Entry,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<Box<dyn Runnable>> {
        let weights = self.weights(weights, settings)?.build()?;
        Ok(Box::new(SanaTransformer::load(self, &weights)?))
    }
}

impl Runnable for SanaTransformer {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let given = Conditioning::read(inputs)?;
        Ok(Box::new(Step {
            caption: self.encode_caption(&given.text, &given.lengths)?,
            given,
            residuals: inputs.series(RESIDUALS),
            model: self,
            result: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

struct Step<'a> {
    model: &'a SanaTransformer,
    given: Conditioning,
    caption: CaptionContext,
    residuals: Vec<Tensor>,
    /// `[B,h,w,C]`
    result: Option<Tensor>,
}

impl Prepared for Step<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let extras = ForwardExtras {
            residuals: &self.residuals,
            ..ForwardExtras::default()
        };
        self.result = Some(self.model.forward_traced(
            &self.given.hidden,
            &self.given.timestep,
            self.given.guidance.as_ref(),
            &self.caption,
            &extras,
            trace,
        )?);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let sample = ops::to_nchw(self.result.as_ref().ok_or_else(not_run)?)?;
        Ok([("sample".to_owned(), sample)].into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn traced_names_fall_into_parts() {
        assert_eq!(part("transformer_blocks.11.attn1"), "attn1");
        assert_eq!(part("transformer_blocks.11.attn1.input"), "between");
        assert_eq!(part("transformer_blocks.11"), "between");
        assert_eq!(part("patch_embed"), "embeddings");
    }
}
