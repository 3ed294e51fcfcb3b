//! Diffusion language models from outside.

use std::collections::BTreeMap;

use brisk_nn::Tensor;
use brisk_nn::{KeyValueCache, Trace, Weights, WeightsBuilder};
use brisk_store::TensorSource;
use serde_json::{Map, Value, json};

use super::{LanguageModel, LanguageModelConfig, Rows, Span};
use crate::component::{
    Component, ComponentConfig, ComponentWeights, Dimension, Entry, Examples, LoadSettings,
    NamedTensors, Port, PrepareError, PrepareResult, Prepared, Recognised, Runnable, Setting, Size,
    SizeError, SizeName, Sizes, Work, floats, not_run,
};
use crate::{Error, Result};

/// Every family of diffusion language models.
pub static COMPONENT: Component = Component {
    name: "diffusion language model",
    classes: &LanguageModelConfig::CLASSES,
    keys: super::published::KEYS,
    folders: &["language_model"],
    beside: &[],
    entries: &[LANGUAGE_MODEL],
    recognise,
    open: |bytes, label| Ok(Box::new(LanguageModelConfig::from_json(bytes, label)?)),
};

const IDS: Port = Port::ids("input_ids", &["B", "T"], "V");
const MASK: Port = Port::mask("attention_mask", &["B", "T"]).optional();
const LOGITS: Port = Port::float("logits", &["B", "T", "V"]);

const LANGUAGE_MODEL: Entry = Entry {
    name: "language_model",
    about: "Compute one block of a language model over its cache",
    inputs: &[IDS, MASK],
    outputs: &[LOGITS],
    sizes: &[
        SizeName {
            name: "context",
            unit: "N",
            about: "Tokens in all (default: 512)",
            usual: Some(512),
            smallest: 1,
            largest: 65_536,
            of_inputs: true,
        },
        BLOCK,
    ],
    settings: &[Setting::Quantization, Setting::Device],
};

const BLOCK: SizeName = SizeName {
    name: "block",
    unit: "N",
    about: "Tokens of the block, the last ones, over the cache of those before (default: 32)",
    usual: Some(32),
    smallest: 1,
    largest: 65_536,
    of_inputs: false,
};

fn recognise(
    source: &dyn TensorSource,
    _metadata: &BTreeMap<String, String>,
) -> Result<Option<Recognised>> {
    let has = |name: &str| source.info(name).is_some();
    let llada = ["", "model."].iter().any(|outer| {
        has(&format!("{outer}transformer.wte.weight"))
            && has(&format!("{outer}transformer.ln_f.weight"))
    });
    Ok(llada.then(|| Recognised::new("LLaDA language model")))
}

impl ComponentConfig for LanguageModelConfig {
    fn description(&self) -> String {
        format!(
            "{}: width {}, {} layers, vocabulary {}, context {}",
            self.family.name(),
            self.hidden_size,
            self.num_layers,
            self.vocab_size,
            self.context
        )
    }

    fn facts(&self) -> Map<String, Value> {
        let facts = json!({
            "family": self.family.name(), "width": self.hidden_size, "layers": self.num_layers,
            "vocabulary": self.vocab_size, "context": self.context, "heads": self.num_heads,
            "key_value_heads": self.num_key_value_heads,
            "experts": self.experts.as_ref().map(|experts| experts.count),
            "parameters_of_embedding": self.vocab_size as u64 * self.hidden_size as u64,
        });
        Recognised::with("", facts).details
    }

    fn parameters(&self) -> u64 {
        self.parameters()
    }

    fn weights(
        &self,
        weights: &ComponentWeights,
        settings: &LoadSettings,
    ) -> Result<WeightsBuilder> {
        Ok(weights
            .plain()
            .quantize(settings.quantization, None)
            .at(&settings.location))
    }

    fn build(&self, weights: &Weights) -> Result<()> {
        LanguageModel::load(self, weights).map(drop)
    }

    fn dimension(&self, word: &str) -> Option<Dimension> {
        (word == "V").then_some(Dimension::Exactly(self.vocab_size))
    }

    fn sizes(&self, entry: &Entry, _beside: &Sizes) -> Vec<Size> {
        entry.sizes.iter().map(|size| size.with(0, 1)).collect()
    }

    fn example_inputs(
        &self,
        _entry: &Entry,
        sizes: &Sizes,
        _beside: &Sizes,
        made: &mut Examples,
    ) -> Result<NamedTensors> {
        made.text(sizes.or_zero("context"), self.vocab_size)?;
        Ok(made.take())
    }

    fn work(&self, _entry: &Entry, inputs: &NamedTensors, sizes: &Sizes) -> Result<Work> {
        let ([_, context], _) = inputs.ids(IDS.name)?;
        let block = sizes.get(BLOCK.name).unwrap_or(context);
        Ok(Work {
            sizes: vec![("context", context), ("block", block)],
            costs: self.pass_cost(block, context, block),
            preparation: None,
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
        Ok(Box::new(LanguageModel::load(self, &weights)?))
    }
}

impl Runnable for LanguageModel {
    /// With a `block`, the keys and values of the tokens before it are computed here and a run gives
    /// the block's logits; else all of them.
    fn prepare<'a>(&'a self, inputs: &NamedTensors, sizes: &Sizes) -> PrepareResult<'a> {
        let ([batch, tokens], ids) = inputs.ids(IDS.name)?;
        if let Some(block) = sizes.get(BLOCK.name) {
            if batch != 1 || block > tokens {
                let problem = format!(
                    "expected one row of at least a block, this is {batch} of {tokens} tokens"
                );
                return Err(SizeError::new(BLOCK.name, block, problem).into());
            }
            let mut cache = self.cache(tokens)?;
            let first = tokens - block;
            if first > 0 {
                let before = Span::whole(&ids[..first]);
                self.hidden(&[before], &mut [Some(&mut cache)], Rows::None)?;
            }
            return Ok(Box::new(Block {
                model: self,
                ids,
                first,
                cache,
                logits: None,
            }));
        }
        let whole = || vec![vec![true; tokens]; batch];
        let mask = inputs.mask(MASK.name)?.unwrap_or_else(whole);
        if let Some(row) = mask.iter().position(|row| !row.contains(&true)) {
            return Err(PrepareError::Failed(Error::Shape(format!(
                "{} hides every token of row {row}; expected at least one to keep",
                MASK.name
            ))));
        }
        Ok(Box::new(Whole {
            model: self,
            ids,
            mask,
            logits: None,
        }))
    }

    fn part<'a>(&self, traced: &'a str) -> &'a str {
        part(traced)
    }
}

/// The part that a value of this name ends.
pub(crate) fn part(traced: &str) -> &'static str {
    match traced.rsplit_once('.').map_or(traced, |(_, inner)| inner) {
        "embedding" => "embedding",
        "keys" => "qkv",
        "attention" => "attention",
        "mlp" => "mlp",
        HEAD => HEAD,
        _ => "between",
    }
}

/// What traces call the logits.
const HEAD: &str = "head";

/// A step of block-wise decoding.
struct Block<'a> {
    model: &'a LanguageModel,
    ids: Vec<u32>,
    /// Where the block starts.
    first: usize,
    cache: KeyValueCache,
    /// `[block,V]`
    logits: Option<Tensor>,
}

impl Prepared for Block<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let span = Span::from(&self.ids[self.first..], self.first);
        let caches = &mut [Some(&mut self.cache)];
        let hidden = self
            .model
            .hidden_traced(&[span], caches, Rows::All, trace)?;
        let logits = self.model.logits(&hidden)?;
        trace.see(HEAD, &logits);
        self.logits = Some(logits);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let logits = self.logits.as_ref().ok_or_else(not_run)?.unsqueeze(0)?;
        Ok([(LOGITS.name.to_owned(), logits)].into_iter().collect())
    }
}

/// Whole rows. Tokens that the mask hides are left out, and their logits are zero.
struct Whole<'a> {
    model: &'a LanguageModel,
    ids: Vec<u32>,
    mask: Vec<Vec<bool>>,
    /// Of the kept tokens.
    logits: Option<Tensor>,
}

impl Prepared for Whole<'_> {
    fn run(&mut self, trace: &mut Trace) -> Result<()> {
        let tokens = self.mask.first().map_or(0, Vec::len);
        let rows = self.ids.chunks(tokens.max(1)).zip(&self.mask);
        let kept: Vec<Vec<u32>> = rows
            .map(|(row, mask)| {
                let pairs = row.iter().zip(mask).filter(|(_, keep)| **keep);
                pairs.map(|(id, _)| *id).collect()
            })
            .collect();
        let spans: Vec<Span> = kept.iter().map(|row| Span::whole(row)).collect();
        let mut caches: Vec<Option<&mut KeyValueCache>> = spans.iter().map(|_| None).collect();
        let hidden = self
            .model
            .hidden_traced(&spans, &mut caches, Rows::All, trace)?;
        let logits = self.model.logits(&hidden)?;
        trace.see(HEAD, &logits);
        self.logits = Some(logits);
        Ok(())
    }

    fn outputs(&self) -> Result<NamedTensors> {
        let found = self.logits.as_ref().ok_or_else(not_run)?;
        let mut found = found.to_vec2::<f32>()?.into_iter();
        let (batch, tokens) = (self.mask.len(), self.mask.first().map_or(0, Vec::len));
        let width = self.model.config().vocab_size;
        let mut logits = Vec::with_capacity(batch * tokens * width);
        for keep in self.mask.iter().flatten() {
            let row = if *keep { found.next() } else { None };
            logits.extend(row.unwrap_or_else(|| vec![0.0; width]));
        }
        let logits = floats(logits, &[batch, tokens, width])?;
        Ok([(LOGITS.name.to_owned(), logits)].into_iter().collect())
    }
}
