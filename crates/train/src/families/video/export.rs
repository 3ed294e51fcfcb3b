//! The trained model as a folder in the layout of published checkpoints.

use std::path::Path;

use brisk_store::write_atomic;
use serde_json::json;

use super::configs::Documents;
use super::networks::{TEXT_ENCODER, TEXT_ENCODER_2, TRANSFORMER};
use super::texts::Tokenizers;
use crate::data::motion::{Motion, Pose};
use crate::data::scenes::Drawings;
use crate::error::{FileContext, Result};
use crate::eval::video::DrawnClips;
use crate::families::image::MODEL;
use crate::families::image::export::{copy, write_part, write_stored, write_tokenizer};
use crate::families::video_autoencoder::VideoAutoencoderFiles;
use crate::session::{LOG, write_json};
use crate::tensors::NamedArray;

/// Frames a second of clips that nothing else is asked of.
const RATE: f64 = 8.0;

/// Clips of held-out pairs of object and motion that a model brings along, and as many of others.
const EVALUATION: usize = 40;

/// What goes into the folder.
pub(super) struct Pieces<'a> {
    pub drawings: &'a Drawings,
    pub arrays: &'a [NamedArray],
    pub documents: &'a Documents,
    pub tokenizers: &'a Tokenizers,
    pub vae: &'a VideoAutoencoderFiles,
    /// Whether clips begin with a frame.
    pub is_shown: bool,
    pub defaults: Defaults,
}

/// How clips are drawn that nothing else is asked of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub shift: f64,
    pub steps: usize,
    pub guidance: f64,
    pub frames: usize,
    /// Width and height in pixels.
    pub size: usize,
}

/// Writes the folder; gives the numbers of parameters of transformer and both text encoders.
pub(super) fn write(pieces: &Pieces, out: &Path) -> Result<[usize; 3]> {
    let model = out.join(MODEL);
    let folder = |name: &str| -> Result<std::path::PathBuf> {
        let folder = model.join(name);
        std::fs::create_dir_all(&folder).at(&folder)?;
        Ok(folder)
    };
    let mut counts = [0; 3];
    let documents = pieces.documents;
    for (count, (part, file, document)) in counts.iter_mut().zip([
        (
            TRANSFORMER,
            "diffusion_pytorch_model.safetensors",
            &documents.transformer,
        ),
        (TEXT_ENCODER, "model.safetensors", &documents.text),
        (TEXT_ENCODER_2, "model.safetensors", &documents.pooled),
    ]) {
        let place = folder(part)?;
        *count = write_part(pieces.arrays, part, &place.join(file))?;
        write_json(&place.join("config.json"), document)?;
    }
    for (name, file) in ["tokenizer", "tokenizer_2"]
        .iter()
        .zip(&pieces.tokenizers.files)
    {
        write_tokenizer(file, &folder(name)?)?;
    }
    let vae = folder("vae")?;
    write_stored(pieces.vae.opened.stored(), &vae)?;
    write_json(&vae.join("config.json"), &pieces.vae.document)?;
    let (mut class, mut reader) = ("HunyuanVideoPipeline", "LlamaModel");
    let mut index = json!({});
    if pieces.is_shown {
        (class, reader) = (
            "HunyuanVideoImageToVideoPipeline",
            "LlavaForConditionalGeneration",
        );
        index["image_processor"] = json!(["transformers", "CLIPImageProcessor"]);
        write_preparation(documents, &folder("image_processor")?)?;
    }
    index["_class_name"] = class.into();
    for (part, from, kind) in [
        ("scheduler", "diffusers", "FlowMatchEulerDiscreteScheduler"),
        ("text_encoder", "transformers", reader),
        ("text_encoder_2", "transformers", "CLIPTextModel"),
        ("tokenizer", "transformers", "PreTrainedTokenizerFast"),
        ("tokenizer_2", "transformers", "PreTrainedTokenizerFast"),
        ("transformer", "diffusers", "HunyuanVideoTransformer3DModel"),
        ("vae", "diffusers", "AutoencoderKLHunyuanVideo"),
    ] {
        index[part] = json!([from, kind]);
    }
    write_json(&model.join("model_index.json"), &index)?;
    let defaults = &pieces.defaults;
    write_defaults(defaults, pieces.is_shown, &model)?;
    write_evaluation(pieces.drawings, defaults.frames, defaults.size, &model)?;
    copy(&out.join(LOG), &model.join(LOG))?;
    Ok(counts)
}

/// Clips by which the model in a folder can be measured where there are no drawings.
pub(crate) fn write_evaluation(
    drawings: &Drawings,
    frames: usize,
    size: usize,
    model: &Path,
) -> Result<()> {
    let clips = DrawnClips {
        drawings,
        each: EVALUATION,
        size,
        frames,
    };
    for (name, bytes) in clips.known()?.to_files()? {
        write_atomic(&model.join(name), &bytes)?;
    }
    Ok(())
}

/// Scheduler and defaults of a model's folder.
pub(crate) fn write_defaults(defaults: &Defaults, is_shown: bool, model: &Path) -> Result<()> {
    let scheduler = model.join("scheduler");
    std::fs::create_dir_all(&scheduler).at(&scheduler)?;
    write_json(
        &scheduler.join("scheduler_config.json"),
        &json!({
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": defaults.shift,
        }),
    )?;
    let mut document = json!({
        "guidance_scale": defaults.guidance,
        "num_inference_steps": defaults.steps,
        "num_frames": defaults.frames,
        "width": defaults.size,
        "height": defaults.size,
        "frame_rate": RATE,
    });
    if is_shown {
        // It was taught to draw the frame that it is given, as Magic 1-For-1 is.
        document["keeps_first_frames"] = true.into();
        let first_frame = |(ending, start): (&str, Pose)| {
            let round = |share: f64| (1000.0 * share).round() / 1000.0;
            json!({
                "ends_with": ending,
                "centre": start.centre.map(round),
                "side": round(start.side),
            })
        };
        let starts = Motion::usual_starts().into_iter();
        document["first_frames"] = starts.map(first_frame).collect();
    }
    write_json(&model.join("generation_config.json"), &document)
}

/// How the text encoder's pictures are prepared: CLIP's way.
fn write_preparation(documents: &Documents, folder: &Path) -> Result<()> {
    let side = &documents.text["vision_config"]["image_size"];
    write_json(
        &folder.join("preprocessor_config.json"),
        &json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": true,
            "size": {"shortest_edge": side},
            "do_center_crop": true,
            "crop_size": {"height": side, "width": side},
            "resample": 3,
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
            "image_std": [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }),
    )
}
