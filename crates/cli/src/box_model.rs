//! The models that the binary carries.

use brisk_store::ModelFolder;

include!(concat!(env!("OUT_DIR"), "/box_files.rs"));

/// One of them.
pub struct BoxModel {
    /// What `--model` calls it.
    pub name: &'static str,
    /// What stands for its folder in messages.
    label: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The verb that takes it by default.
    pub verb: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

/// The default of `brisk image`.
pub static IMAGE: BoxModel = BoxModel {
    name: "sana-emoji",
    label: "sana-emoji (in the box)",
    about: "small SANA for emoji",
    verb: "image",
    files: SANA_EMOJI,
};

/// The default of `brisk text`.
pub static TEXT: BoxModel = BoxModel {
    name: "llada-arithmetic",
    label: "llada-arithmetic (in the box)",
    about: "small LLaDA for arithmetic word problems",
    verb: "text",
    files: LLADA_ARITHMETIC,
};

/// All.
pub fn all() -> [&'static BoxModel; 2] {
    [&IMAGE, &TEXT]
}

/// The model of a name.
pub fn named(name: &str) -> Option<&'static BoxModel> {
    all().into_iter().find(|model| model.name == name)
}

impl BoxModel {
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
