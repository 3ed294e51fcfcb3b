//! The trained model as a folder in the layout of LLaDA's published checkpoints.

use std::path::Path;

use brisk_pipelines::KnownPrompts;
use brisk_store::{OutTensor, write_atomic, write_safetensors};
use serde_json::{Value, json};

use super::TextReport;
use super::examples::{END, Examples, MASK, START, TEMPLATE};
use crate::data::arithmetic;
use crate::error::{FileContext, Result};
use crate::families::autoencoder::config_with;
use crate::log::read_log;
use crate::recipe::TextRecipe;
use crate::session::{LOG, REPORT, Session, write_json};
use crate::tensors::NamedArray;

/// What is trained where a recipe's model says nothing: the published models' architecture, which is not
/// that of their class's defaults.
fn architecture() -> Value {
    json!({
        "activation_type": "silu", "alibi": false, "attention_layer_norm": false,
        "bias_for_layer_norm": false, "block_type": "llama", "include_bias": false,
        "include_qkv_bias": false, "input_emb_norm": false, "layer_norm_type": "rms",
        "layer_norm_with_affine": true, "rope": true, "scale_logits": false, "weight_tying": false,
    })
}

/// The `config.json`: the recipe's keys, and those that the vocabulary decides.
pub(super) fn config(recipe: &TextRecipe, examples: &Examples) -> Result<Value> {
    let vocabulary = examples.tokenizer.vocabulary_size();
    // Whole vectors of the head.
    let rows = vocabulary.next_multiple_of(16);
    let model = match (architecture(), &recipe.model) {
        (Value::Object(mut model), Value::Object(asked)) => {
            model.extend(asked.clone());
            Value::Object(model)
        }
        (_, other) => other.clone(),
    };
    config_with(
        &model,
        None,
        &[
            ("architectures", json!(["LLaDAModelLM"])),
            ("model_type", "llada".into()),
            ("vocab_size", vocabulary.into()),
            ("embedding_size", rows.into()),
            ("mask_token_id", examples.mask.into()),
            ("eos_token_id", examples.end.into()),
            ("pad_token_id", examples.end.into()),
            ("torch_dtype", "bfloat16".into()),
        ],
    )
}

/// Writes the model folder from the moving average of the weights.
pub(super) fn write(
    recipe: &TextRecipe,
    config: &Value,
    examples: &Examples,
    arrays: &[NamedArray],
    folder: &Path,
) -> Result<()> {
    std::fs::create_dir_all(folder).at(folder)?;
    let tensors: Vec<OutTensor> = arrays.iter().map(NamedArray::to_bf16_tensor).collect();
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(&folder.join("model.safetensors"), &tensors, &metadata)?;
    write_json(&folder.join("config.json"), config)?;
    let end = examples.end;
    write_json(
        &folder.join("generation_config.json"),
        &json!({
            "bos_token_id": examples.tokenizer.token_id(START),
            "eos_token_id": end, "pad_token_id": end,
        }),
    )?;
    write_json(
        &folder.join(KnownPrompts::FILE),
        &arithmetic::known().to_json(),
    )?;
    write_atomic(&folder.join("tokenizer.json"), &examples.tokenizer_file)?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "add_bos_token": false,
            "add_eos_token": false,
            "bos_token": START,
            "chat_template": TEMPLATE,
            "clean_up_tokenization_spaces": false,
            "eos_token": END,
            "mask_token": MASK,
            "model_max_length": recipe.model["max_sequence_length"],
            "pad_token": END,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }),
    )
}

/// Writes the report of a finished run.
pub(super) fn report(
    session: &Session,
    examples: &Examples,
    exact_match: f64,
    out: &Path,
) -> Result<TextReport> {
    let losses: Vec<f64> = read_log(&out.join(LOG))?
        .iter()
        .filter_map(|entry| entry.loss)
        .collect();
    let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
    let report = TextReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: session.ema.arrays().iter().map(|a| a.values.len()).sum(),
        vocabulary: examples.tokenizer.vocabulary_size(),
        problems: session.step * session.batch() as u64,
        loss: (!tail.is_empty()).then(|| tail.iter().sum::<f64>() / tail.len() as f64),
        exact_match,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}
