//! Training of a LoRA (arXiv 2106.09685): pairs of thin matrices for a trained transformer's attentions, which stays as it
//! is. Written as diffusers' scripts write it.

use std::path::Path;

use brisk_models::dcae::AutoencoderConfig;
use brisk_models::gemma2::Gemma2Model;
use brisk_models::sana::SanaTransformer;
use brisk_nn::Weights;
use brisk_pipelines::Control;
use brisk_pipelines::events::Work;
use brisk_pipelines::folder::Opened;
use brisk_store::{OutTensor, write_safetensors};
use candle_core::Var;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::lessons::{Run, Setting};
use super::{Models, Start, TEXT_ENCODER, TRANSFORMER, write_sheet};
use crate::data::pictures::PictureData;
use crate::error::{Error, FileContext, Result};
use crate::families::lora_pairs::{self, Pair, pairs};
use crate::log::mean_of_last_tenth;
use crate::optimiser::Gradients;
use crate::recipe::ImageRecipe;
use crate::session::{self, LOG, REPORT, Session, write_json};
use crate::tensors::{self, NamedArray};
use crate::terms::Terms;

/// The folder of the adapter in a run's folder, and its file as diffusers names it.
const FOLDER: &str = "lora";
const FILE: &str = "pytorch_lora_weights.safetensors";

/// A LoRA to train, by the keys of PEFT's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraOptions {
    /// Rows of each pair's first matrix.
    pub rank: usize,
    /// The product of a pair is added times this over the rank; the rank itself when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Ends of the names of the layers that get a pair; of every attention queries, keys and values when left out.
    #[serde(default = "LoraOptions::usual_targets")]
    pub targets: Vec<String>,
}

impl LoraOptions {
    /// Layers of an attention that can get a pair.
    pub(crate) const LAYERS: [&'static str; 4] = ["to_q", "to_k", "to_v", "to_out.0"];

    /// As diffusers' scripts train one.
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            alpha: None,
            targets: Self::usual_targets(),
        }
    }

    fn usual_targets() -> Vec<String> {
        ["to_k", "to_q", "to_v"].map(str::to_owned).to_vec()
    }

    fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.rank as f64)
    }

    fn scale(&self) -> f32 {
        (self.alpha() / self.rank as f64) as f32
    }
}

/// What a finished run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterReport {
    /// Finished updates.
    pub steps: u64,
    /// Seconds over all restarts.
    pub seconds: f64,
    /// Rank of the pairs.
    pub rank: usize,
    /// Layers that have one.
    pub layers: usize,
    /// Parameters of the pairs.
    pub parameters: usize,
    /// Bytes of the optimiser's state.
    pub optimiser_bytes: u64,
    /// Pictures that were trained on.
    pub pictures: usize,
    /// Mean of the last tenth of the logged losses.
    pub loss: Option<f64>,
}

/// The pairs of a model's variables.
fn pairs_of(variables: &[(String, Var)], options: &LoraOptions, seed: u64) -> Result<Vec<Pair>> {
    let chosen = |layer: &str| {
        let ends = |target: &String| layer.ends_with(&format!(".{target}"));
        let attention = layer.contains(".attn1.") || layer.contains(".attn2.");
        attention && options.targets.iter().any(ends)
    };
    let found = pairs(variables, chosen, ("lora.rank", options.rank), seed)?;
    match found.is_empty() {
        true => Err(Error::Recipe(format!(
            "lora.targets {:?} are no layers of the transformer",
            options.targets
        ))),
        false => Ok(found),
    }
}

/// Trains the recipe's LoRA for the transformer of `start`, whose tokenizer and text encoder stay as they are, into `out`:
/// `training_log.jsonl`, `samples/`, `checkpoints/`, and at the end `lora/` and `report.json`. Continues when `out` holds
/// a checkpoint of the same recipe.
///
/// # Errors
/// A recipe without a `lora`, or with layers that the model does not have; otherwise as [`super::train_image`].
pub fn train_adapter(
    recipe: &ImageRecipe,
    data: &PictureData,
    vae: &Opened<AutoencoderConfig>,
    start: &Start,
    out: &Path,
    control: &Control,
) -> Result<AdapterReport> {
    recipe.validate()?;
    let Some(lora) = &recipe.lora else {
        return Err(Error::Recipe(
            "lora is not given; it says what to train".to_owned(),
        ));
    };
    let options = &recipe.training;
    let training = recipe.pictures.training(data, control)?;
    let _lock = session::claim(out, FOLDER)?;
    let run = Run {
        recipe,
        data,
        vae,
        out,
    };
    let setting = Setting::of(&run, training, &start.tokenizer, &start.sources())?;
    setting.check_memory(0)?;
    let configs = setting.configs.clone();
    let config = &configs.transformer_model;

    let text = || -> Result<Gemma2Model> {
        let weights = Weights::from_source(start.text.clone());
        Ok(Gemma2Model::load(
            &configs.text_model,
            &weights.pp(TEXT_ENCODER),
        )?)
    };
    let weights = Weights::trainable(Some(start.transformer.clone()), options.seed);
    let models = Models {
        text: text()?,
        transformer: SanaTransformer::load(config, &weights.pp(TRANSFORMER))?,
    };
    session::check_start(&weights, Some(&*start.transformer))?;
    let variables = weights.variables();
    let pairs = pairs_of(&variables, lora, options.seed)?;
    let adapted: Vec<(String, Var)> = pairs
        .iter()
        .map(|pair| (pair.layer.clone(), pair.weight.clone()))
        .collect();
    let trained = lora_pairs::variables(&pairs);
    let lessons = setting.encoded(control)?;
    let inputs = lessons.inputs.clone();
    let mut order = lessons.order()?;
    let mut session = Session::open(options, recipe, inputs, trained.clone(), out, control)?;
    let scale = lora.scale();
    let renew = || lora_pairs::renew(&pairs, scale);
    renew()?;
    let sheet = |session: &mut Session| -> Result<()> {
        let mut arrays = tensors::copy_variables(&variables)?;
        for (pair, average) in pairs.iter().zip(session.ema.arrays().chunks_exact(2)) {
            let name = format!("{}.weight", pair.layer);
            if let Some(array) = arrays.iter_mut().find(|array| array.name == name) {
                array.values = pair.sum(&average[0].values, &average[1].values, scale);
            }
        }
        let source = tensors::memory_source(&arrays, &format!("{TRANSFORMER}."), false)?;
        let average = Models {
            text: text()?,
            transformer: SanaTransformer::load(config, &Weights::from_source(source))?,
        };
        write_sheet(session, &average, &lessons)
    };
    while !session.is_over() {
        let batch = lessons.batch(&mut order, &mut session)?;
        session.update_through(
            batch.slots.len(),
            &adapted,
            |part| Ok((models.flow_loss(&batch, part)?, Terms::new())),
            |gradients| {
                let pulled = lora_pairs::pull(&pairs, gradients.into_arrays(), scale)?;
                Ok(Gradients::of(pulled))
            },
        )?;
        renew()?;
        if session.is_due(recipe.sample_every) {
            sheet(&mut session)?;
        }
        session.settle()?;
    }
    session.finish()?;
    control.stage("writing the LoRA", Work::Run, 0);
    sheet(&mut session)?;
    write(session.ema.arrays(), lora, &out.join(FOLDER))?;
    let report = AdapterReport {
        steps: session.step,
        seconds: session.seconds(),
        rank: lora.rank,
        layers: pairs.len(),
        parameters: trained
            .iter()
            .map(|(_, variable)| variable.elem_count())
            .sum(),
        optimiser_bytes: session.optimiser_bytes(),
        pictures: lessons.training.len(),
        loss: mean_of_last_tenth(&out.join(LOG))?,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}

/// Writes the pairs under diffusers' names, which are those that they have in training.
fn write(arrays: &[NamedArray], lora: &LoraOptions, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).at(folder)?;
    let tensors: Vec<OutTensor> = arrays.iter().map(NamedArray::to_f32_tensor).collect();
    let settings = json!({
        "transformer.r": lora.rank, "transformer.lora_alpha": lora.alpha(),
        "transformer.target_modules": lora.targets, "transformer.peft_type": "LORA",
        "transformer.use_rslora": false, "transformer.use_dora": false, "transformer.lora_bias": false,
    });
    let metadata = [
        ("format".to_owned(), "pt".to_owned()),
        ("lora_adapter_metadata".to_owned(), settings.to_string()),
    ];
    Ok(write_safetensors(
        &folder.join(FILE),
        &tensors,
        &metadata.into(),
    )?)
}
