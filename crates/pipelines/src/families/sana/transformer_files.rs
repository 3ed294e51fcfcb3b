//! The transformer's files: a folder in diffusers' or SVDQuant's layout, or one file in any naming.

use std::path::Path;
use std::sync::Arc;

use brisk_models::dcae;
use brisk_models::sana::{self, ControlWiring, Numerics, SanaConfig};
use brisk_models::sana_controlnet;
use brisk_quant::{NunchakuFile, file as quantized};
use brisk_store::{ModelFolder, TensorSource, open_weights, unwrapped};

use super::load::{ControlFiles, LoadOptions};
use super::plan::ModelKind;
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Opened};

/// A transformer's folder in a pipeline's.
const FOLDER: &str = "transformer";

pub(super) struct TransformerFiles {
    pub(super) network: Opened<SanaConfig>,
    pub(super) control: Option<ControlFiles>,
}

pub(super) fn open_transformer(
    folder: &ModelFolder,
    options: &LoadOptions,
) -> Result<TransformerFiles> {
    let mut files = match &options.transformer_file {
        Some(path) => open_transformer_file(folder, path, options)?,
        None => {
            let place = ComponentFolder::new(folder, FOLDER);
            TransformerFiles {
                network: place.open(read_config, &options.wanted())?,
                control: None,
            }
        }
    };
    if options.native {
        files.network.config.numerics = Numerics::Native;
    }
    Ok(files)
}

fn read_config(bytes: &[u8], label: &str) -> brisk_models::Result<Box<SanaConfig>> {
    SanaConfig::from_json(bytes, label).map(Box::new)
}

/// A quantized transformer in one file, which brings its configuration along.
fn open_quantized_file(path: &Path) -> Result<Option<TransformerFiles>> {
    let wrong = |error| Error::quantized(error, path.display().to_string());
    let file = NunchakuFile::open(path).map_err(wrong)?;
    let Some(config) = file.config().map_err(wrong)? else {
        return Ok(None);
    };
    let label = format!("{}: metadata \"config\"", path.display());
    Ok(Some(TransformerFiles {
        network: Opened::new(
            read_config(config.to_string().as_bytes(), &label)?,
            file.source().clone(),
        )?,
        control: None,
    }))
}

/// What a file does not say of its heads is said by the option.
fn about_heads(path: &Path, error: &brisk_nn::Error) -> Error {
    Error::folder(
        path.display().to_string(),
        format!("{error}; the option `heads` gives them as SELF,CROSS, such as 36,16"),
    )
}

/// Says what a file is that is no transformer; its name alone would not tell.
fn check_names(path: &Path, source: &dyn TensorSource) -> Result<()> {
    // Of a quantized transformer, this layer may be quantized too.
    let caption = ["weight", "qweight"].map(|end| format!("caption_projection.linear_1.{end}"));
    if caption.iter().any(|name| source.info(name).is_some())
        || sana::native::detect(source)?.is_some()
    {
        return Ok(());
    }
    let mut names = source.names();
    let count = names.len();
    names.truncate(3);
    let what = if dcae::native::is_native(source) {
        "a DC-AE autoencoder: "
    } else {
        ""
    };
    Err(Error::folder(
        path.display().to_string(),
        format!(
            "holds {what}{count} tensors such as {}, expected those of a SANA transformer",
            names.join(", ")
        ),
    )
    .of(super::options::TRANSFORMER.name()))
}

/// One file, or a transformer's own folder: in the authors' naming it describes itself, in diffusers' the
/// folder must.
fn open_transformer_file(
    folder: &ModelFolder,
    path: &Path,
    options: &LoadOptions,
) -> Result<TransformerFiles> {
    let own = match path.is_dir() {
        true => Some(path),
        false => path.parent(),
    };
    let own = own.map(|own| ComponentFolder::new(&ModelFolder::Disk(own.to_owned()), ""));
    let source = match &own {
        Some(own) if path.is_dir() => own.weights(options.variant.as_deref())?,
        _ => unwrapped(open_weights(path)?)?,
    };
    check_names(path, &*source)?;
    if quantized::is_quantized(&*source)
        && let Some(files) = open_quantized_file(path)?
    {
        return Ok(files);
    }
    let Some(layout) = sana::native::detect(source.as_ref())? else {
        let beside = own
            .into_iter()
            .chain([ComponentFolder::new(folder, FOLDER)]);
        let Some(place) = beside.into_iter().find(ComponentFolder::has_config) else {
            return Err(Error::folder(
                path.display().to_string(),
                "holds a transformer in diffusers' naming, which needs its config.json beside it",
            ));
        };
        return Ok(TransformerFiles {
            network: Opened::new(place.config(read_config)?, source)?,
            control: None,
        });
    };
    if layout.control_blocks > 0 {
        let split = sana_controlnet::native::split(source, options.heads)
            .map_err(|error| about_heads(path, &error))?;
        let control = ControlFiles {
            network: Opened::new(Box::new(split.config), Arc::new(split.controlnet))?,
            wiring: ControlWiring::Native,
        };
        return Ok(TransformerFiles {
            network: Opened::new(Box::new(split.base_config), Arc::new(split.base))?,
            control: Some(control),
        });
    }
    let config = layout
        .config(options.heads)
        .map_err(|error| about_heads(path, &error))?;
    Ok(TransformerFiles {
        network: Opened::new(Box::new(config), source)?,
        control: None,
    })
}

pub(super) fn check_transformer(
    folder: &ModelFolder,
    config: &SanaConfig,
    kind: ModelKind,
) -> Result<()> {
    let wrong = |message: String| Err(Error::folder(folder.label(), message));
    if kind == ModelKind::Sana && config.guidance_embeds {
        return wrong(
            "the transformer takes guidance as an input (guidance_embeds), which only SanaSprintPipeline gives it; \
             correct _class_name in model_index.json"
                .to_owned(),
        );
    }
    let (input, output) = (config.in_channels, config.output_channels());
    if output != input && output != 2 * input {
        return wrong(format!(
            "the transformer predicts {output} channels for {input}; expected as many, or twice as many"
        ));
    }
    Ok(())
}
