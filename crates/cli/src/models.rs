//! From what `--model` says to a model, with downloads shown.

use std::path::PathBuf;

use brisk::{Found, OpenSettings, Options, ResultKind, keys, registry};
use brisk_nn::Quantization;
use brisk_store::ModelFolder;

use crate::failure::{Failure, Result};
use crate::progress::Download;

/// A model by folder, hub id or the name of one in the box; by default the one that gives `kind`.
pub fn find(name: Option<&str>, variant: Option<&str>, kind: ResultKind) -> Result<Found> {
    Ok(brisk::find(name, variant, kind, &Download::default())?)
}

/// The folder of a model, by default the one that draws.
pub fn open(name: Option<&str>, variant: Option<&str>) -> Result<ModelFolder> {
    Ok(find(name, variant, ResultKind::Pictures)?.folder)
}

/// The path of a file, folder or hub model; `local` forbids a download.
pub fn resolve(name: &str, variant: Option<&str>, local: bool) -> Result<PathBuf> {
    Ok(brisk::find_path(
        name,
        variant,
        local,
        &Download::default(),
    )?)
}

/// Settings whose options may name any model, with downloads shown.
pub fn settings(options: Options) -> OpenSettings {
    brisk::settings_with::<Download>(options)
}

/// The same options, with all networks kept in memory where the model leaves a choice.
pub fn kept_in_memory(folder: &ModelFolder, options: Options) -> Options {
    let residency = keys::RESIDENCY.definition();
    let family = registry::family_of(folder, &options);
    match family.is_some_and(|family| family.honours(residency)) {
        true => options.with(&keys::RESIDENCY, "all".to_owned()),
        false => options,
    }
}

/// How weights are quantized while they are loaded, as `flag` names it.
pub fn quantization(flag: &str, name: &str) -> Result<Quantization> {
    Quantization::from_name(name)
        .map_err(|_| Failure::usage(format!("{flag} {name}: expected none, 8bit or 4bit")))
}
