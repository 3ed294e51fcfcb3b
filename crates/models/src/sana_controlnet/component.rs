//! The ControlNet from outside.

use std::collections::BTreeMap;

use brisk_nn::Tensor;
use brisk_nn::{Trace, Weights, WeightsBuilder, ops};
use brisk_store::TensorSource;
use serde_json::{Map, Value};

use super::{ControlStart, SanaControlNet, SanaControlNetConfig};
use crate::Result;
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareResult, Prepared, Recognised, Runnable, Size, Sizes, Work, not_run,
};
use crate::sana::CaptionContext;
use crate::sana::component::{
    self as shared, Conditioning, GUIDANCE, HIDDEN, SIZE, TEXT, TEXT_MASK, TIMESTEP, TOKENS,
};

/// SANA's ControlNet.
pub static COMPONENT: Component = Component {
    name: "SANA ControlNet",
    classes: &["SanaControlNetModel"],
    keys: shared::KEYS,
    folders: &["controlnet"],
    beside: &[],
    entries: &[CONTROLNET],
    recognise,
    open: |bytes, label| Ok(Box::new(SanaControlNetConfig::from_json(bytes, label)?)),
};

const CONTROL: &str = "controlnet_cond";
const SCALE: &str = "conditioning_scale";
const SAMPLES: &str = "block_samples.";

const CONTROLNET: Entry = Entry {
    name: "controlnet",
    about: "Evaluate a ControlNet once",
    inputs: &[
        HIDDEN,
        TEXT,
        TEXT_MASK,
        TIMESTEP,
        GUIDANCE,
        Port::float(CONTROL, &["B", "C", "H", "W"]),
        Port::scalar(SCALE).optional(),
    ],
    outputs: &[Port::float(SAMPLES, &["B", "tokens", "width"])],
    sizes: &[SIZE, TOKENS],
    settings: &[],
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let ours = source.info("controlnet_blocks.0.weight").is_some()
        && source.info("caption_projection.linear_1.weight").is_some();
    Ok(ours.then(|| Recognised::new("SANA ControlNet (diffusers names)")))
}

impl ComponentConfig for SanaControlNetConfig {
    fn description(&self) -> String {
        shared::description(&self.transformer)
    }

    fn facts(&self) -> Map<String, Value> {
        shared::facts(&self.transformer)
    }

    fn parameters(&self) -> u64 {
        self.parameters()
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        Ok(weights.plain().quantize(settings.quantization, None))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        SanaControlNet::load(self, weights).map(drop)
    }

    fn inputs(&self, entry: &Entry) -> Vec<Port> {
        shared::inputs(&self.transformer, entry)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        shared::dimension(&self.transformer, word)
    }

    fn sizes(&self, entry: &Entry, beside: &Sizes) -> Vec<Size> {
        shared::sizes(&self.transformer, entry, beside)
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        let latent = shared::examples(&self.transformer, sizes, beside, made)?;
        made.normal(CONTROL, &latent, 1.0, false)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, _sizes: &Sizes) -> Result<Work> {
        let sizes = Conditioning::sizes(inputs)?;
        let [batch, height, width, tokens] = sizes;
        Ok(Work {
            sizes: shared::named(sizes),
            costs: self.step_cost(batch, height, width, tokens),
            preparation: Some(self.transformer.caption_cost(batch, tokens)),
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
        Ok(Box::new(SanaControlNet::load(self, &weights)?))
    }
}

impl Runnable for SanaControlNet {
    fn prepare<'a>(&'a self, inputs: &NamedTensors, _sizes: &Sizes) -> PrepareResult<'a> {
        let given = Conditioning::read(inputs)?;
        Ok(Box::new(Step {
            caption: self.encode_caption(&given.text, &given.lengths)?,
            given,
            control: ops::to_nhwc(inputs.required(CONTROL)?)?,
            scale: f64::from(inputs.scalar(SCALE)?.unwrap_or(1.0)),
            model: self,
            samples: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        match traced.starts_with("controlnet_blocks.") {
            true => "controlnet_blocks",
            false => shared::part(traced),
        }
    }
}

struct Step<'a> {
    model: &'a SanaControlNet,
    given: Conditioning,
    caption: CaptionContext,
    /// `[B,h,w,C]`
    control: Tensor,
    scale: f64,
    samples: Option<Vec<Tensor>>,
}

impl Prepared for Step<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        self.samples = Some(self.model.forward_traced(
            ControlStart::Latent(&self.given.hidden),
            &self.control,
            &self.given.timestep,
            self.given.guidance.as_ref(),
            &self.caption,
            self.scale,
            trace,
        )?);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let samples = self.samples.as_ref().ok_or_else(not_run)?;
        let named = samples.iter().enumerate();
        Ok(named
            .map(|(index, sample)| (format!("{SAMPLES}{index}"), sample.clone()))
            .collect())
    }
}
