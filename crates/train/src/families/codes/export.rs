//! The trained model as a folder in the authors' layout.

use std::path::Path;

use brisk_pipelines::{EvaluationPictures, KnownPrompts};
use brisk_store::{OutTensor, write_atomic, write_safetensors};
use serde_json::json;

use super::TokenizerFiles;
use super::networks::{Configs, PADDING};
use crate::error::{FileContext, Result};
use crate::families::image::{ImageReport, MODEL, TEXT_ENCODER, TRANSFORMER, export};
use crate::log::mean_of_last_tenth;
use crate::session::{LOG, REPORT, Session, write_json};

/// The transformer's folder, and that of the tokenizer of pictures.
const LLM: &str = "llm";
const TOKENIZER: &str = "tokenizer";

/// What goes into the folder.
pub(super) struct Pieces<'a> {
    pub configs: &'a Configs,
    /// `tokenizer.json` of texts.
    pub text_file: &'a [u8],
    pub files: &'a TokenizerFiles,
    /// Guidance that the model is drawn with by default.
    pub guidance: f64,
    /// What it knows.
    pub known_prompts: KnownPrompts,
    /// What it can be measured by.
    pub evaluation: EvaluationPictures,
}

pub(super) fn write(
    pieces: &Pieces,
    session: &Session,
    pictures: usize,
    out: &Path,
) -> Result<ImageReport> {
    let model = out.join(MODEL);
    for part in [LLM, TEXT_ENCODER, TOKENIZER] {
        let folder = model.join(part);
        std::fs::create_dir_all(&folder).at(&folder)?;
    }
    let arrays = session.ema.arrays();
    let configs = pieces.configs;
    let llm = model.join(LLM);
    let weights = |part: &str| model.join(part).join("model.safetensors");
    let transformer_parameters = export::write_part(arrays, TRANSFORMER, &weights(LLM))?;
    write_json(&llm.join("config.json"), &configs.transformer)?;
    let text = model.join(TEXT_ENCODER);
    let text_encoder_parameters = export::write_part(arrays, TEXT_ENCODER, &weights(TEXT_ENCODER))?;
    write_json(&text.join("config.json"), &configs.text)?;
    write_atomic(&text.join("tokenizer.json"), pieces.text_file)?;
    write_json(
        &text.join("tokenizer_config.json"),
        &json!({
            "bos_token": "<bos>", "clean_up_tokenization_spaces": false, "eos_token": "<eos>",
            "pad_token": PADDING, "padding_side": "right",
            "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>",
        }),
    )?;
    let stored = &*pieces.files.stored;
    let names = stored.names().into_iter();
    let tensors = names.filter_map(|name| OutTensor::stored(stored, name).transpose());
    let tensors: Vec<OutTensor> = tensors.collect::<std::result::Result<_, _>>()?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(&weights(TOKENIZER), &tensors, &metadata)?;
    let tokenizer = model.join(TOKENIZER);
    write_json(&tokenizer.join("config.json"), &pieces.files.document)?;
    write_json(
        &model.join("generation_config.json"),
        &json!({ "guidance_scale": pieces.guidance }),
    )?;
    let known = pieces.known_prompts.to_json();
    write_json(&model.join(KnownPrompts::FILE), &known)?;
    for (name, bytes) in pieces.evaluation.to_files()? {
        write_atomic(&model.join(name), &bytes)?;
    }
    // Empty: this model was trained without a text before every prompt.
    write_atomic(&model.join("system_prompt.txt"), b"")?;
    std::fs::copy(out.join(LOG), model.join(LOG)).at(&out.join(LOG))?;
    let report = ImageReport {
        steps: session.step,
        seconds: session.seconds(),
        transformer_parameters,
        text_encoder_parameters,
        optimiser_bytes: session.optimiser_bytes(),
        pictures,
        vocabulary: configs.text_model.0.vocab_size,
        loss: mean_of_last_tenth(&out.join(LOG))?,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}
