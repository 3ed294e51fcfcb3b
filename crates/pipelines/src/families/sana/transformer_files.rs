//! The transformer's files: a folder in diffusers' or SVDQuant's layout, or one file in any naming.

use std::path::Path;
use std::sync::Arc;

use brisk_models::dcae;
use brisk_models::sana::{self, ControlWiring, Numerics, SanaConfig};
use brisk_models::sana_controlnet;
use brisk_quant::{NunchakuFile, file as quantized};
use brisk_store::{ModelFolder, TensorSource, open_weights, unwrapped};

use super::component::ComponentWeights;
use super::load::{ControlFiles, LoadOptions, component_file, component_weights};
use super::plan::ModelKind;
use crate::error::{Error, Result};

pub(super) struct TransformerFiles {
    pub(super) config: SanaConfig,
    pub(super) weights: ComponentWeights,
    pub(super) control: Option<ControlFiles>,
}

pub(super) fn open_transformer(
    folder: &ModelFolder,
    options: &LoadOptions,
) -> Result<TransformerFiles> {
    let mut files = match &options.transformer_file {
        Some(path) => open_transformer_file(folder, path, options)?,
        None => {
            let config = SanaConfig::from_json(
                &component_file(folder, "transformer", "config.json")?,
                &format!("{}/transformer/config.json", folder.label()),
            )?;
            let weights = transformer_weights(folder, options, config.parameters())?;
            TransformerFiles {
                config,
                weights,
                control: None,
            }
        }
    };
    if options.native {
        files.config.numerics = Numerics::Native;
    }
    Ok(files)
}

/// The folder's weights; SVDQuant's older folders have names of their own.
fn transformer_weights(
    folder: &ModelFolder,
    options: &LoadOptions,
    count: u64,
) -> Result<ComponentWeights> {
    let names = quantized::FOLDER_FILES.map(|name| format!("transformer/{name}"));
    if options.random.is_none() && names.iter().all(|name| folder.exists(name)) {
        let parts = names.iter().map(|name| folder.open(name));
        let joined = brisk_quant::join(parts.collect::<Result<_, _>>()?);
        let joined = joined.map_err(|error| Error::folder(folder.label(), error.to_string()))?;
        return Ok(ComponentWeights::Stored(joined));
    }
    component_weights(folder, "transformer", options, count)
}

/// A quantized transformer in one file, which brings its configuration along.
fn open_quantized_file(path: &Path) -> Result<Option<TransformerFiles>> {
    let wrong =
        |error: brisk_quant::Error| Error::folder(path.display().to_string(), error.to_string());
    let file = NunchakuFile::open(path).map_err(wrong)?;
    let Some(config) = file.config().map_err(wrong)? else {
        return Ok(None);
    };
    let label = format!("{}: metadata \"config\"", path.display());
    Ok(Some(TransformerFiles {
        config: SanaConfig::from_json(config.to_string().as_bytes(), &label)?,
        weights: ComponentWeights::Stored(file.source().clone()),
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
    let source = unwrapped(match path.is_dir() {
        true => quantized::open_folder(path, options.variant.as_deref())
            .map_err(|error| Error::folder(path.display().to_string(), error.to_string()))?,
        false => open_weights(path)?,
    })?;
    check_names(path, &*source)?;
    if quantized::is_quantized(&*source)
        && let Some(files) = open_quantized_file(path)?
    {
        return Ok(files);
    }
    let Some(layout) = sana::native::detect(source.as_ref())? else {
        let beside = match path.is_dir() {
            true => Some(path),
            false => path.parent(),
        };
        let beside = beside.map(|beside| ModelFolder::Disk(beside.to_owned()));
        let (config_folder, name) = match beside {
            Some(beside) if beside.exists("config.json") => (beside, "config.json"),
            _ if folder.exists("transformer/config.json") => {
                (folder.clone(), "transformer/config.json")
            }
            _ => {
                return Err(Error::folder(
                    path.display().to_string(),
                    "holds a transformer in diffusers' naming, which needs its config.json beside it",
                ));
            }
        };
        let label = format!("{}/{name}", config_folder.label());
        let config = SanaConfig::from_json(&config_folder.read(name)?, &label)?;
        return Ok(TransformerFiles {
            config,
            weights: ComponentWeights::Stored(source),
            control: None,
        });
    };
    if layout.control_blocks > 0 {
        let split = sana_controlnet::native::split(source, options.heads)
            .map_err(|error| about_heads(path, &error))?;
        let control = ControlFiles {
            config: split.config,
            weights: Arc::new(split.controlnet),
            wiring: ControlWiring::Native,
        };
        return Ok(TransformerFiles {
            config: split.base_config,
            weights: ComponentWeights::Stored(Arc::new(split.base)),
            control: Some(control),
        });
    }
    let config = layout
        .config(options.heads)
        .map_err(|error| about_heads(path, &error))?;
    Ok(TransformerFiles {
        config,
        weights: ComponentWeights::Stored(Arc::new(sana::native::map(source)?)),
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
