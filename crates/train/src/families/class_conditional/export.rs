//! The trained model as a folder in the authors' layout.

use std::path::Path;

use brisk_models::dcae::AutoencoderConfig;
use brisk_pipelines::folder::Opened;
use brisk_pipelines::{EvaluationPictures, NamedPicture};
use brisk_store::{OutTensor, write_atomic, write_safetensors};
use serde_json::{Value, json};

use super::classes::Classes;
use super::training::ClassReport;
use crate::data::pictures::PictureData;
use crate::error::{FileContext, Result};
use crate::eval::spread_over;
use crate::families::image::{MODEL, export};
use crate::log::mean_of_last_tenth;
use crate::pictures;
use crate::session::{LOG, REPORT, Session, write_json};
use crate::tensors::NamedArray;

/// Pictures that the model brings along to be measured by: of those it was trained on, as many as a distance of samples
/// needs, and of those that it never saw.
const MEASURED: [usize; 2] = [480, 96];

/// What goes into the folder.
pub(super) struct Pieces<'a> {
    pub arrays: &'a [NamedArray],
    /// What training left alone.
    pub fixed: &'a [NamedArray],
    /// The network's configuration.
    pub config: &'a Value,
    pub parameters: u64,
    pub classes: &'a Classes,
    /// Guidance that the model is drawn with by default.
    pub guidance: f64,
    pub vae: &'a Opened<AutoencoderConfig>,
    pub data: &'a PictureData,
}

pub(super) fn write(pieces: &Pieces, session: &Session, out: &Path) -> Result<ClassReport> {
    let model = out.join(MODEL);
    let vae = model.join("vae");
    std::fs::create_dir_all(&vae).at(&vae)?;
    let mut tensors: Vec<OutTensor> = pieces.fixed.iter().map(NamedArray::to_f32_tensor).collect();
    for array in pieces.arrays {
        tensors.push(array.to_bf16_tensor());
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    write_safetensors(&model.join("model.safetensors"), &tensors, &metadata)?;
    write_json(&model.join("config.json"), pieces.config)?;
    write_json(&model.join("classes.json"), &pieces.classes.names)?;
    write_json(
        &model.join("generation_config.json"),
        &json!({ "guidance_scale": pieces.guidance }),
    )?;
    export::write_autoencoder(pieces.vae, &vae)?;
    for (name, bytes) in evaluation(pieces)?.to_files()? {
        write_atomic(&model.join(name), &bytes)?;
    }
    export::copy(&out.join(LOG), &model.join(LOG))?;
    let report = ClassReport {
        steps: session.step,
        seconds: session.seconds(),
        parameters: pieces.parameters,
        optimiser_bytes: session.optimiser_bytes(),
        pictures: pieces.classes.pictures.len(),
        classes: pieces.classes.names.len(),
        loss: mean_of_last_tenth(&out.join(LOG))?,
    };
    write_json(&out.join(REPORT), &report)?;
    Ok(report)
}

/// Some pictures of both kinds with their classes' names, spread over the data.
fn evaluation(pieces: &Pieces) -> Result<EvaluationPictures> {
    let classes = pieces.classes;
    let trained = classes
        .pictures
        .iter()
        .copied()
        .zip(classes.of.iter().copied());
    let trained: Vec<(usize, u32)> = trained.collect();
    let some = |pictures: &[(usize, u32)], most: usize| {
        let places: Vec<usize> = (0..pictures.len()).collect();
        let named = spread_over(&places, most).into_iter().map(|place| {
            let (index, class) = pictures[place];
            Ok(NamedPicture {
                prompt: classes.names[class as usize].clone(),
                picture: pictures::original(pieces.data, index)?,
            })
        });
        named.collect::<Result<Vec<_>>>()
    };
    let [most_trained, most_held_out] = MEASURED;
    Ok(EvaluationPictures {
        trained: some(&trained, most_trained)?,
        held_out: some(&classes.held_out, most_held_out)?,
    })
}
