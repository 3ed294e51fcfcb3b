//! Where the npm packages with drawings and names lie.

use std::path::PathBuf;

use brisk_train::data::emoji::EmojiSources;
use clap::Args;

use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
pub struct PackageArguments {
    /// Folder with the packages in noto, emojibase-data, fluent-emoji-flat, twemoji (the last two if there)
    #[arg(long, value_name = "FOLDER")]
    npm: Option<PathBuf>,
    /// Folder of @iconify-json/noto
    #[arg(long, value_name = "FOLDER", required_unless_present = "npm")]
    noto: Option<PathBuf>,
    /// Folder of emojibase-data
    #[arg(long, value_name = "FOLDER", required_unless_present = "npm")]
    emojibase: Option<PathBuf>,
    /// Folder of @iconify-json/fluent-emoji-flat
    #[arg(long, value_name = "FOLDER")]
    fluent: Option<PathBuf>,
    /// Folder of @iconify-json/twemoji
    #[arg(long, value_name = "FOLDER")]
    twemoji: Option<PathBuf>,
}

impl PackageArguments {
    /// The folders, where they are given or found.
    pub fn sources(&self) -> Result<EmojiSources> {
        let beside = |given: &Option<PathBuf>, name: &str| {
            given
                .clone()
                .or_else(|| self.npm.as_ref().map(|npm| npm.join(name)))
        };
        let needed = |given: Option<PathBuf>, option: &str| {
            given.ok_or_else(|| {
                Failure::usage(format!("{option}: is needed where there is no --npm"))
            })
        };
        let optional = |given: &Option<PathBuf>, name: &str| {
            beside(given, name).filter(|folder| given.is_some() || folder.is_dir())
        };
        Ok(EmojiSources {
            noto: needed(beside(&self.noto, "noto"), "--noto")?,
            emojibase: needed(beside(&self.emojibase, "emojibase-data"), "--emojibase")?,
            fluent: optional(&self.fluent, "fluent-emoji-flat"),
            twemoji: optional(&self.twemoji, "twemoji"),
        })
    }
}
