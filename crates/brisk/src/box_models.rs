//! The models that come along with this crate: the folders of `assets` that have a `box.json`.

use brisk_pipelines::ResultKind;
use brisk_store::ModelFolder;

include!(concat!(env!("OUT_DIR"), "/box_models.rs"));

/// One of them.
#[derive(Debug)]
pub struct BoxModel {
    /// Its name, which opens it.
    pub name: &'static str,
    /// What stands for its folder in messages.
    label: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Under which licence its weights are, in words.
    pub licence: &'static str,
    /// What it was trained on: packages with their versions and licences.
    pub data: &'static str,
    /// The kind of result for which it stands where no model is named.
    pub default_of: Option<ResultKind>,
    files: &'static [(&'static str, &'static [u8])],
}

impl BoxModel {
    /// All.
    pub fn all() -> &'static [Self] {
        MODELS
    }

    /// The model of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.name == name)
    }

    /// The one that serves requests for a kind of result where no model is named.
    pub fn default_of(kind: ResultKind) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.default_of == Some(kind))
    }

    /// What stands for its folder in messages.
    pub fn label(&self) -> &'static str {
        self.label
    }

    /// Its files, if this build has them.
    pub fn folder(&self) -> Option<ModelFolder> {
        (!self.files.is_empty()).then_some(ModelFolder::Embedded {
            label: self.label,
            files: self.files,
        })
    }

    /// Bytes that it takes in the binary.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }
}
