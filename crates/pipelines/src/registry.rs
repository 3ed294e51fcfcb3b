//! The families: what a request is put to. One line each.

use brisk_quant::LowBitLayout;
use brisk_store::ModelFolder;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::families;
use crate::judging::{Judge, YesNoJudge};
use crate::options::{Definition, Options, Scope, Support};
use crate::reproduce::Reproduction;
use crate::request::{ImageModel, MaskModel, OpenSettings, ResultKind, TextModel, VideoModel};

/// Every family.
pub static FAMILIES: &[&Family] = &[
    &families::sana::FAMILY,
    &families::hart::FAMILY,
    &families::class_conditional::FAMILY,
    &families::hunyuan_video::FAMILY,
    &families::similarity::FAMILY,
    // Before the language models, which take any folder with a configuration.
    &families::vila_u::FAMILY,
    &families::char_sam::FAMILY,
    &families::language::FAMILY,
    #[cfg(feature = "toy")]
    &families::toy::FAMILY,
];

/// Opens a model that draws.
pub type OpenImage = fn(&ModelFolder, &OpenSettings) -> Result<Box<dyn ImageModel>>;
/// Opens a model that writes.
pub type OpenText = fn(&ModelFolder, &OpenSettings) -> Result<Box<dyn TextModel>>;

/// Opens a model that finds pixels.
pub type OpenMasks = fn(&ModelFolder, &OpenSettings) -> Result<Box<dyn MaskModel>>;

/// Opens a model that makes clips.
pub type OpenVideo = fn(&ModelFolder, &OpenSettings) -> Result<Box<dyn VideoModel>>;

/// Opens a model that judges pictures, with the question that it is asked where it is asked any.
pub type OpenJudge = fn(&ModelFolder, &OpenSettings, Option<String>) -> Result<Box<dyn Judge>>;

/// Reads a network's `config.json`, named by the label, for how its layers lie in 4-bit files.
pub type ReadLayout = fn(&[u8], &str) -> Result<Box<dyn LowBitLayout>>;

/// A published checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// Hub id.
    pub id: &'static str,
    /// Model and size.
    pub model: &'static str,
    /// Side of the trained pictures in pixels; 0 where there are none.
    pub pixels: u32,
    /// What to know before choosing it.
    pub note: &'static str,
    /// Whether it gives bad results in every implementation.
    pub discouraged: bool,
}

impl Published {
    fn is_named_by(&self, label: &str) -> bool {
        let name = self.id.rsplit('/').next().unwrap_or(self.id);
        let cached = format!("models--{}", self.id.replace('/', "--"));
        label == self.id
            || label
                .split(['/', '\\'])
                .any(|part| part == name || part == cached)
    }
}

/// One family of models.
pub struct Family {
    /// Short name.
    pub name: &'static str,
    /// The models that it runs, in words.
    pub about: &'static str,
    /// Whether a folder holds one of its models, as far as its configuration files tell.
    pub recognise: fn(&ModelFolder, &Options) -> bool,
    /// Options that its models honour when they give a kind of result; several where models differ.
    pub supports: &'static [(ResultKind, &'static Support)],
    /// Checkpoints that people publish.
    pub published: &'static [Published],
    /// How to open one for pictures.
    pub image: Option<OpenImage>,
    /// How to open one for text.
    pub text: Option<OpenText>,
    /// How to open one for masks.
    pub masks: Option<OpenMasks>,
    /// How to open one for clips.
    pub video: Option<OpenVideo>,
    /// How to open one that judges pictures and gives nothing else.
    pub judge: Option<OpenJudge>,
    /// What a pipeline of a class (`_class_name` of a `model_index.json`) is, in words.
    pub class_in_words: fn(&str) -> Option<&'static str>,
    /// How the layers of the network of a `config.json` lie in 4-bit files, where files of the family's
    /// networks do.
    pub low_bit_layout: Option<ReadLayout>,
    /// Claims of papers that are measured on its models.
    pub reproductions: &'static [&'static Reproduction],
}

impl Family {
    /// Whether at least one kind of its models honours an option.
    pub fn honours(&self, option: &Definition) -> bool {
        let mut supports = self.supports.iter();
        supports.any(|(_, support)| support.honours(option))
    }

    /// What its models honour when they give this.
    fn supports_of(&self, kind: ResultKind) -> impl Iterator<Item = &'static Support> {
        let supports = self.supports.iter();
        supports.filter_map(move |(gives, support)| (*gives == kind).then_some(*support))
    }

    /// What its models give.
    pub fn results(&self) -> Vec<ResultKind> {
        [
            (ResultKind::Pictures, self.image.is_some()),
            (ResultKind::Text, self.text.is_some()),
            (ResultKind::Masks, self.masks.is_some()),
            (ResultKind::Clips, self.video.is_some()),
        ]
        .into_iter()
        .filter_map(|(kind, gives)| gives.then_some(kind))
        .collect()
    }
}

/// The family of a folder.
pub fn family_of(folder: &ModelFolder, options: &Options) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| (family.recognise)(folder, options))
        .copied()
}

/// Opens a model that draws. Weights are read when they are first needed.
///
/// # Errors
/// A folder that no family knows, or one that gives something else; missing or unreadable parts,
/// settings that are not implemented, parts that don't fit together.
pub fn open_image(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn ImageModel>> {
    let (family, open) = opener(folder, &settings.options, ResultKind::Pictures, |f| f.image)?;
    check_open(family, folder, &settings.options, ResultKind::Pictures)?;
    open(folder, settings)
}

/// Opens a judge of pictures: one that compares them with texts, or a model that answers questions about them. `template`
/// is what the latter is asked, with [`PROMPT_PLACE`](crate::judging::PROMPT_PLACE) for the prompt.
///
/// # Errors
/// As [`open_text`]; a model that reads no pictures, a template without a place for the prompt, or for one that is asked
/// nothing.
pub fn open_judge(
    folder: &ModelFolder,
    settings: &OpenSettings,
    template: Option<String>,
) -> Result<Box<dyn Judge>> {
    let judge = family_of(folder, &settings.options).and_then(|family| family.judge);
    if let Some(open) = judge {
        return open(folder, settings, template);
    }
    let model = open_text(folder, settings)?;
    Ok(Box::new(YesNoJudge::new(model, template)?))
}

/// Opens a model that writes, with its weights.
///
/// # Errors
/// As [`open_image`].
pub fn open_text(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn TextModel>> {
    let (family, open) = opener(folder, &settings.options, ResultKind::Text, |f| f.text)?;
    check_open(family, folder, &settings.options, ResultKind::Text)?;
    open(folder, settings)
}

/// Opens a model that finds pixels. Weights are read when they are first needed.
///
/// # Errors
/// As [`open_image`].
pub fn open_masks(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn MaskModel>> {
    let (family, open) = opener(folder, &settings.options, ResultKind::Masks, |f| f.masks)?;
    check_open(family, folder, &settings.options, ResultKind::Masks)?;
    open(folder, settings)
}

/// Opens a model that makes clips. Weights are read when they are first needed.
///
/// # Errors
/// As [`open_image`].
pub fn open_video(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn VideoModel>> {
    let (family, open) = opener(folder, &settings.options, ResultKind::Clips, |f| f.video)?;
    check_open(family, folder, &settings.options, ResultKind::Clips)?;
    open(folder, settings)
}

/// Options that at least one family honours for a kind of result, in the order of the families' lists.
pub fn options(kind: ResultKind) -> Vec<&'static Definition> {
    let mut found: Vec<&'static Definition> = Vec::new();
    for family in FAMILIES {
        for honoured in family.supports_of(kind).flat_map(Support::honoured) {
            if !found.iter().any(|known| known.name == honoured.option.name) {
                found.push(honoured.option);
            }
        }
    }
    found
}

/// An option of a kind of result, by its name or another that people know it by.
pub fn option(kind: ResultKind, name: &str) -> Option<&'static Definition> {
    options(kind)
        .into_iter()
        .find(|option| option.name == name || option.aliases.contains(&name))
}

/// Adds an option to `options` by its name, as [`Options::read`].
///
/// # Errors
/// A name that no model of this kind honours, or a value that is none.
pub fn give(options: &mut Options, kind: ResultKind, name: &str, value: &str) -> Result<()> {
    match option(kind, name) {
        Some(definition) => options.read(definition, value),
        None => Err(Error::folder(
            format!("option {name:?}"),
            format!("no model that gives {} knows it", kind.name()),
        )),
    }
}

/// The published checkpoint that a model's label names: by its hub id, as a folder of its name, or as its
/// place in a hub cache.
pub fn published(label: &str) -> Option<&'static Published> {
    FAMILIES
        .iter()
        .flat_map(|family| family.published)
        .find(|published| published.is_named_by(label))
}

fn opener<T>(
    folder: &ModelFolder,
    options: &Options,
    wanted: ResultKind,
    open: impl Fn(&Family) -> Option<T>,
) -> Result<(&'static Family, T)> {
    let Some(family) = family_of(folder, options) else {
        return Err(Error::folder(folder.label(), unknown(folder, wanted)));
    };
    match open(family) {
        Some(open) => Ok((family, open)),
        None => Err(Error::WrongResult {
            model: folder.label(),
            wanted,
            gives: family.results(),
        }),
    }
}

/// Options of opening must be honoured by at least one kind of the family's models; the model itself
/// refuses what its kind does not honour.
fn check_open(
    family: &Family,
    folder: &ModelFolder,
    options: &Options,
    kind: ResultKind,
) -> Result<()> {
    let supports = || family.supports_of(kind);
    let fits = supports().find(|support| {
        options
            .definitions()
            .filter(|definition| definition.scope == Scope::Open)
            .all(|definition| support.honours(definition))
    });
    match fits.or_else(|| supports().next()) {
        Some(support) => support.check(&folder.label(), Scope::Open, options),
        None => Ok(()),
    }
}

/// What a pipeline of a class is, in words, if a family runs it.
pub fn class_in_words(class: &str) -> Option<&'static str> {
    FAMILIES
        .iter()
        .find_map(|family| (family.class_in_words)(class))
}

/// What the families make of a kind of result, in words.
pub fn in_words(kind: ResultKind) -> String {
    let known: Vec<&str> = FAMILIES
        .iter()
        .filter(|family| family.results().contains(&kind))
        .map(|family| family.about)
        .collect();
    format!("brisk makes {} with {}", kind.name(), known.join("; "))
}

/// Says what a folder is that nobody knows.
fn unknown(folder: &ModelFolder, wanted: ResultKind) -> String {
    let known = in_words(wanted);
    let text_of = |file: &str, key: &str| -> Option<String> {
        let value = folder.exists(file).then(|| folder.read_json(file).ok())??;
        let found = value.get(key)?;
        let found = found.get(0).unwrap_or(found);
        found.as_str().map(str::to_owned)
    };
    if let Some(class) = text_of("model_index.json", "_class_name") {
        let family = class.strip_suffix("Pipeline").unwrap_or(&class);
        return format!("this is {family} ({class}); {known}");
    }
    let named = ["architectures", "model_type", "_class_name"]
        .iter()
        .find_map(|key| text_of("config.json", key));
    match named {
        Some(class) => format!("config.json says {class}; {known}"),
        None if folder.exists("model_index.json") => {
            format!("model_index.json has no _class_name; {known}")
        }
        None => format!(
            "there is no model_index.json and no config.json that says what this is: expected the folder \
             of a model in its published layout; {known}"
        ),
    }
}

/// A text of a folder's JSON file; none where the file or the key is missing or something else.
pub(crate) fn json_text(folder: &ModelFolder, file: &str, key: &str) -> Option<String> {
    let value: Value = folder.exists(file).then(|| folder.read_json(file).ok())??;
    value.get(key)?.as_str().map(str::to_owned)
}

/// How the layers of the network of a `config.json` lie in 4-bit files.
///
/// # Errors
/// A configuration that no family has 4-bit files of.
pub fn low_bit_layout(config: &[u8], label: &str) -> Result<Box<dyn LowBitLayout>> {
    let mut failed = Error::config(
        label,
        "no network with 4-bit files has such a configuration",
    );
    for read in FAMILIES.iter().filter_map(|family| family.low_bit_layout) {
        match read(config, label) {
            Ok(layout) => return Ok(layout),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Every reproduction.
pub fn reproductions() -> impl Iterator<Item = &'static Reproduction> {
    FAMILIES
        .iter()
        .flat_map(|family| family.reproductions)
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_checkpoint_is_known_wherever_it_lies() {
        for family in FAMILIES {
            for checkpoint in family.published {
                let (owner, name) = checkpoint.id.split_once('/').unwrap();
                let cached = format!("/cache/models--{owner}--{name}/snapshots/0a1b");
                for label in [checkpoint.id, &format!("./{name}/"), &cached] {
                    let found = published(label).map(|found| found.id);
                    assert_eq!(found, Some(checkpoint.id), "{label}");
                }
            }
        }
        assert!(published("a/model-of-ones-own").is_none());
    }
}
