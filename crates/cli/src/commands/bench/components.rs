//! The components of a text-to-image pipeline, one at a time.

use brisk_models::dcae::{Autoencoder, AutoencoderConfig, Halves};
use brisk_models::gemma2::{Gemma2Config, Gemma2Model};
use brisk_models::sana::{ForwardExtras, SanaConfig, SanaTransformer, Sight};
use brisk_nn::{Tensor, Weights, ops};
use brisk_store::ModelFolder;
use clap::Args;
use serde_json::{Map, Value, json};

use super::inputs::MadeUp;
use super::measure::measure;
use super::report::{Report, Stage};
use super::{FileArguments, ModelArguments, Opened, RunArguments};
use crate::commands::component::{
    Conditioning, TEXT_INPUTS, TRANSFORMER_INPUTS, autoencoder_config, autoencoder_parts,
    check_names,
};
use crate::failure::{Failure, Result};
use crate::output;
use crate::tensors::{self, Inputs};

/// Pixels along a latent cell where no autoencoder says.
const USUAL_RATIO: usize = 32;

/// Encode a text
#[derive(Debug, Args)]
pub struct TextEncoderArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Tokens of the text (default: 300)
    #[arg(long, value_name = "N", conflicts_with = "inputs", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    tokens: Option<u32>,
    /// First tokens whose keys and values are kept from run to run, as an instruction's are
    #[arg(long, value_name = "N", default_value_t = 0)]
    prefix: usize,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// Evaluate SANA's transformer once
#[derive(Debug, Args)]
pub struct TransformerArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Side of the picture in pixels (default: the model's)
    #[arg(long, value_name = "PIXELS", conflicts_with = "inputs", value_parser = clap::value_parser!(u32).range(1..=8192))]
    size: Option<u32>,
    /// Tokens of the caption (default: 300)
    #[arg(long, value_name = "N", conflicts_with = "inputs", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    tokens: Option<u32>,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// Encode a picture
#[derive(Debug, Args)]
pub struct VaeEncodeArguments {
    #[command(flatten)]
    vae: VaeArguments,
}

/// Decode a latent
#[derive(Debug, Args)]
pub struct VaeDecodeArguments {
    #[command(flatten)]
    vae: VaeArguments,
}

#[derive(Debug, Args)]
struct VaeArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Side of the picture in pixels (default: 512)
    #[arg(long, value_name = "PIXELS", conflicts_with = "inputs", value_parser = clap::value_parser!(u32).range(1..=8192))]
    size: Option<u32>,
    /// Convolve tap by tap: slower, closer in the last bits
    #[arg(long)]
    exact: bool,
    /// Work in strips of so many pixel rows: the same numbers in less memory
    #[arg(long, value_name = "ROWS")]
    strip_rows: Option<usize>,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    run: RunArguments,
}

/// Times a text encoder.
pub fn text_encoder(arguments: &TextEncoderArguments) -> Result {
    let prepared = Prepared::begin(&arguments.run, &arguments.files)?;
    let component = arguments.model.open("text_encoder")?;
    let config = Gemma2Config::from_json(&component.found.config, &component.found.label)?;
    let inputs =
        prepared.inputs(|made| Ok(made.text(count(arguments.tokens, 300), config.vocab_size)))?;
    check_names(&inputs, &TEXT_INPUTS)?;
    let (shape, ids) = inputs.ids("input_ids", config.vocab_size)?;
    let (batch, tokens) = (shape[0], shape[1]);
    let mask = inputs.mask("attention_mask", (batch, tokens))?;
    let prefix = arguments.prefix;
    let whole_row = batch == 1 && mask.iter().flatten().all(|keep| *keep);
    if prefix > 0 && (prefix >= tokens || !whole_row) {
        return Err(Failure::usage(format!(
            "--prefix {prefix}: needs one text of more tokens without a mask, this is {batch} of {tokens}"
        )));
    }
    let Opened {
        weights,
        weight_bytes,
    } = component.text_weights(&config)?;
    let model = Gemma2Model::load(&config, &weights)?;
    let kept = match prefix {
        0 => None,
        length => Some(model.prefix(&ids[..length])?),
    };
    let rest = Tensor::from_slice(&ids[prefix * batch..], (batch, tokens - prefix))?;
    let mask: Vec<u32> = mask.into_iter().flatten().map(u32::from).collect();
    let mask = Tensor::from_vec(mask, (batch, tokens))?;
    let measured = measure(&arguments.run, |laps| match &kept {
        Some(kept) => Ok(model.forward_with_prefix(kept, &rest)?),
        None => Ok(model.forward_traced(&rest, Some(&mask), &mut |name, _| {
            laps.lap(text_part(name));
        })?),
    })?;
    let costs: Vec<_> = config
        .encode_cost(tokens - prefix, prefix)
        .iter()
        .map(|cost| cost.for_batch(batch))
        .collect();
    prepared.finish(
        Report {
            component: "text_encoder",
            model: Some(component.found.label.clone()),
            random: component.random.is_some(),
            sizes: sizes(&[("batch", batch), ("tokens", tokens), ("prefix", prefix)]),
            stages: measured.stages("text_encoder", &costs, weight_bytes),
        },
        "last_hidden_state",
        || {
            // As probe: rows of masked positions mean nothing.
            let keep = mask.narrow(1, prefix, tokens - prefix)?;
            let keep = keep.to_dtype(measured.result.dtype())?.unsqueeze(2)?;
            Ok(measured.result.broadcast_mul(&keep)?)
        },
    )
}

/// Times one evaluation of the transformer.
pub fn transformer(arguments: &TransformerArguments) -> Result {
    let prepared = Prepared::begin(&arguments.run, &arguments.files)?;
    let component = arguments.model.open("transformer")?;
    let config = SanaConfig::from_json(&component.found.config, &component.found.label)?;
    let inputs = prepared.inputs(|made| {
        let ratio = pixels_per_cell(&component.folder)?;
        let usual = config.sample_size * ratio;
        let side = cells(count(arguments.size, usual), ratio * config.patch_size)?;
        let side = side * config.patch_size;
        let tokens = count(arguments.tokens, 300);
        let made = made
            .normal(
                "hidden_states",
                &[1, config.in_channels, side, side],
                1.0,
                false,
            )
            .normal(
                "encoder_hidden_states",
                &[1, tokens, config.caption_channels],
                1.0,
                false,
            )
            .constant("encoder_attention_mask", &[1, tokens], 1.0);
        Ok(if config.guidance_embeds {
            made.constant("timestep", &[1], 0.5)
                .constant("guidance", &[1], 0.45)
        } else {
            made.constant("timestep", &[1], 500.0)
        })
    })?;
    check_names(&inputs, &TRANSFORMER_INPUTS)?;
    let given = Conditioning::read(&inputs)?;
    let Opened {
        weights,
        weight_bytes,
    } = component.transformer_weights(&config)?;
    let model = SanaTransformer::load(&config, &weights)?;
    let encode = || model.encode_caption(&given.text, &given.lengths);
    let captions = measure(&arguments.run, |_| Ok(encode()?))?;
    let extras = ForwardExtras::default();
    let measured = measure(&arguments.run, |laps| {
        Ok(model.forward_traced(
            &given.hidden,
            &given.timestep,
            given.guidance.as_ref(),
            &captions.result,
            &extras,
            Sight::parts(&mut |name, _| laps.lap(transformer_part(name))),
        )?)
    })?;
    let (batch, height, width, _) = given.hidden.dims4()?;
    let tokens = given.lengths.iter().copied().max().unwrap_or(0);
    let costs = config.step_cost(batch, height, width, tokens);
    let mut stages = measured.stages("transformer", &costs, weight_bytes);
    let caption = config.caption_cost(batch, tokens);
    stages.push(Stage::new("caption", captions.total).with_cost(&caption, weight_bytes));
    prepared.finish(
        Report {
            component: "transformer",
            model: Some(component.found.label.clone()),
            random: component.random.is_some(),
            sizes: sizes(&[
                ("batch", batch),
                ("latent_height", height),
                ("latent_width", width),
                ("text_tokens", tokens),
            ]),
            stages,
        },
        "sample",
        || Ok(ops::to_nchw(&measured.result)?),
    )
}

/// Times the autoencoder's encoder.
pub fn vae_encode(arguments: &VaeEncodeArguments) -> Result {
    arguments.vae.run(Halves::EncoderOnly)
}

/// Times the autoencoder's decoder, in one piece.
pub fn vae_decode(arguments: &VaeDecodeArguments) -> Result {
    arguments.vae.run(Halves::DecoderOnly)
}

impl VaeArguments {
    fn run(&self, half: Halves) -> Result {
        let encodes = half == Halves::EncoderOnly;
        let (component, input, output) = if encodes {
            ("vae.encode", "sample", "latent")
        } else {
            ("vae.decode", "latent", "sample")
        };
        let prepared = Prepared::begin(&self.run, &self.files)?;
        let opened = self.model.open("vae")?;
        let config = autoencoder_config(&opened.found.config, &opened.found.label)?;
        let inputs = prepared.inputs(|made| {
            let side = cells(count(self.size, 512), config.ratio())?;
            Ok(if encodes {
                let pixels = side * config.ratio();
                made.normal(input, &[1, config.in_channels, pixels, pixels], 0.5, true)
            } else {
                made.normal(input, &[1, config.latent_channels, side, side], 1.0, false)
            })
        })?;
        check_names(&inputs, &[input])?;
        let given = ops::to_nhwc(&inputs.tensor(input, 4)?)?;
        let weights = self.weights(&opened, &config, encodes)?.exact(self.exact);
        let model = Autoencoder::load(&config, &weights, half)?;
        drop(weights);
        crate::allocator::release_memory();
        let measured = measure(&self.run, |laps| {
            let sink = &mut |name: &str, _: &Tensor| laps.lap(autoencoder_part(name));
            Ok(match (encodes, self.strip_rows) {
                (true, None) => model.encode_by_blocks(&given, sink)?,
                (true, Some(rows)) => model.encode_strips(&given, rows)?,
                (false, None) => model.decode_by_blocks(&given, sink)?,
                (false, Some(rows)) => model.decode_strips(&given, rows)?,
            })
        })?;
        let (batch, rows, columns, _) = given.dims4()?;
        let ratio = if encodes { 1 } else { config.ratio() };
        let (height, width) = (rows * ratio, columns * ratio);
        let costs = if encodes {
            config.encode_cost(height, width)
        } else {
            config.decode_cost(height, width)
        };
        let costs: Vec<_> = costs.iter().map(|cost| cost.for_batch(batch)).collect();
        prepared.finish(
            Report {
                component,
                model: Some(opened.found.label.clone()),
                random: opened.random.is_some(),
                sizes: sizes(&[("batch", batch), ("height", height), ("width", width)]),
                // Convolutions compute on f32 copies, whatever the file holds.
                stages: measured.stages(component, &costs, 4.0),
            },
            output,
            || Ok(ops::to_nchw(&measured.result)?),
        )
    }

    fn weights(
        &self,
        opened: &super::Component,
        config: &AutoencoderConfig,
        encodes: bool,
    ) -> Result<Weights> {
        let parameters = config.parameters();
        let count = if encodes {
            parameters.encoder
        } else {
            parameters.decoder
        };
        if opened.random.is_some() {
            return Ok(opened.weights(count)?.weights);
        }
        let (source, _) = opened.stored()?;
        let (_, source) = autoencoder_parts(&opened.found.config, &opened.found.label, source)?;
        Ok(Weights::from_source(source))
    }
}

/// What every component does before and after.
pub(super) struct Prepared<'a> {
    run: &'a RunArguments,
    files: &'a FileArguments,
}

impl<'a> Prepared<'a> {
    pub(super) fn begin(run: &'a RunArguments, files: &'a FileArguments) -> Result<Self> {
        run.threads.apply()?;
        if let Some(path) = &files.outputs {
            output::check_writable(path)?;
        }
        Ok(Self { run, files })
    }

    /// The given inputs, or made-up ones.
    pub(super) fn inputs(&self, make: impl FnOnce(MadeUp) -> Result<MadeUp>) -> Result<Inputs> {
        match &self.files.inputs {
            Some(path) => Inputs::open(path),
            None => make(MadeUp::new())?.finish(),
        }
    }

    /// Writes the output where that is asked for, then prints.
    pub(super) fn finish(
        &self,
        report: Report,
        name: &str,
        result: impl FnOnce() -> Result<Tensor>,
    ) -> Result {
        if let Some(path) = &self.files.outputs {
            tensors::write(path, &[(name.to_owned(), result()?)])?;
        }
        report.print(self.run)
    }
}

fn count(given: Option<u32>, usual: usize) -> usize {
    given.map_or(usual, |value| value as usize)
}

fn sizes(values: &[(&str, usize)]) -> Map<String, Value> {
    values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect()
}

/// Cells along a side of `pixels`.
fn cells(pixels: usize, multiple: usize) -> Result<usize> {
    if pixels == 0 || !pixels.is_multiple_of(multiple) {
        return Err(Failure::usage(format!(
            "--size {pixels}: expected a multiple of {multiple} for this model"
        )));
    }
    Ok(pixels / multiple)
}

/// What the autoencoder beside the transformer says, where there is one.
fn pixels_per_cell(folder: &ModelFolder) -> Result<usize> {
    const FILE: &str = "vae/config.json";
    if !folder.exists(FILE) {
        return Ok(USUAL_RATIO);
    }
    let label = format!("{}/{FILE}", folder.label());
    Ok(autoencoder_config(&folder.read(FILE)?, &label)?.ratio())
}

/// The part that a traced value of the transformer ends.
fn transformer_part(name: &str) -> &'static str {
    let inner = name
        .strip_prefix("transformer_blocks.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(name, |(_, inner)| inner);
    match inner {
        "patch_embed" | "time_embed" | "time_embed.embedded" => "embeddings",
        "attn1" => "attn1",
        "attn2" => "attn2",
        "ff" => "ff",
        "proj_out" => "proj_out",
        _ => "between",
    }
}

/// The part that a traced value of the text encoder ends.
fn text_part(name: &str) -> &'static str {
    let inner = name
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(name, |(_, inner)| inner);
    match inner {
        "embed_tokens" => "embed_tokens",
        "self_attn" => "self_attn",
        "mlp" => "mlp",
        _ => "between",
    }
}

/// The part that a traced value of the autoencoder ends: `decoder.up_blocks.5.1.attn` ends a
/// piece of `up_blocks.5`.
fn autoencoder_part(name: &str) -> &str {
    let inner = name.split_once('.').map_or(name, |(_, inner)| inner);
    let mut dots = inner.match_indices('.').map(|(at, _)| at);
    let end = dots.nth(1).unwrap_or(inner.len());
    match &inner[..end] {
        // The norm before the last convolution belongs to it.
        "norm_out" => "conv_out",
        part => part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traced_names_fall_into_parts() {
        assert_eq!(
            autoencoder_part("decoder.up_blocks.5.1.attn"),
            "up_blocks.5"
        );
        assert_eq!(autoencoder_part("encoder.down_blocks.0.1"), "down_blocks.0");
        assert_eq!(autoencoder_part("decoder.norm_out"), "conv_out");
        assert_eq!(autoencoder_part("decoder.conv_in"), "conv_in");
        assert_eq!(transformer_part("transformer_blocks.11.attn1"), "attn1");
        assert_eq!(
            transformer_part("transformer_blocks.11.attn1.input"),
            "between"
        );
        assert_eq!(transformer_part("transformer_blocks.11"), "between");
        assert_eq!(text_part("layers.3.mlp"), "mlp");
        assert_eq!(text_part("layers.3"), "between");
    }
}
