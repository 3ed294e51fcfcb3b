//! An unpacked `@iconify-json/*` package: drawings by the code points of their emoji.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brisk_store::{Limit, read_text};
use serde_json::Value;

use super::error::DataError;
use super::iconify::Icon;
use super::pictures::PictureSet;

type Result<T> = std::result::Result<T, DataError>;

/// The drawings of one set.
pub(super) struct IconSet {
    set: PictureSet,
    icons: Value,
    icons_path: PathBuf,
    characters_path: PathBuf,
    /// Names by plain code points.
    names: BTreeMap<String, String>,
}

impl IconSet {
    /// Reads `icons.json` and `chars.json` of a package.
    pub(super) fn open(set: PictureSet, folder: &Path) -> Result<Self> {
        let icons_path = folder.join("icons.json");
        let characters_path = folder.join("chars.json");
        let icons = read_json(&icons_path, set.package())?;
        let characters = read_json(&characters_path, set.package())?;
        let characters = characters.as_object().ok_or_else(|| DataError::Source {
            path: characters_path.clone(),
            reason: "not an object of code points and icon names".into(),
            package: set.package().into(),
        })?;
        let names = characters
            .iter()
            .filter_map(|(code, name)| Some((plain_hexcode(code), name.as_str()?.to_owned())))
            .collect();
        Ok(Self {
            set,
            icons,
            icons_path,
            characters_path,
            names,
        })
    }

    /// The drawing of an emoji, if the set has one.
    pub(super) fn icon(&self, plain_hexcode: &str) -> Result<Option<Icon>> {
        let Some(name) = self.names.get(plain_hexcode) else {
            return Ok(None);
        };
        let icon = Icon::find(&self.icons, name).map_err(|reason| DataError::Source {
            path: self.icons_path.clone(),
            reason,
            package: self.set.package().into(),
        })?;
        Ok(Some(icon))
    }

    /// That the set does not hold what it should.
    pub(super) fn lacks(&self, what: &str) -> DataError {
        DataError::Source {
            path: self.characters_path.clone(),
            reason: format!("it does not hold {what}"),
            package: self.set.package().into(),
        }
    }
}

/// Upper case without variation selector 16, which the sets write or leave out at will.
pub(super) fn plain_hexcode(code: &str) -> String {
    let parts: Vec<String> = code
        .split('-')
        .map(str::to_uppercase)
        .filter(|part| part != "FE0F")
        .collect();
    parts.join("-")
}

/// A JSON file of a package.
pub(super) fn read_json(path: &Path, package: &str) -> Result<Value> {
    let text = read_text(path, Limit::DATA)?;
    serde_json::from_str(&text).map_err(|e| DataError::Source {
        path: path.to_owned(),
        reason: e.to_string(),
        package: package.into(),
    })
}
