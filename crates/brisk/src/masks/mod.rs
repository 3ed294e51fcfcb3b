//! Masks as files: a folder with one PNG each, all of them as COCO's runs, the picture with the masks laid over it, and
//! what they are; of words one PNG of all text. Whole folders of pictures: [`PictureFolder`].

mod annotations;
mod folder;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brisk_media::mask::{Marks, Runs, overlay};
use brisk_media::{Mask, encode_png, read_picture};
use brisk_pipelines::options::{Options, word_keys};
use brisk_pipelines::request::{
    FoundWord, GeneratedMask, GeneratedMasks, MaskPlan, MaskRequest, Word,
};
use brisk_pipelines::{Error, Result};
use brisk_store::output::{TemporaryFolder, check_writable};
use brisk_store::{ModelFolder, check_outputs, write_atomic, write_safetensors};
use serde_json::{Value, json};

pub use annotations::Annotations;
pub use folder::{FolderReport, PictureFolder};

/// Files of the folder besides the masks.
const SUMMARY: &str = "summary.json";
const COCO: &str = "coco.json";
const OVERLAY: &str = "overlay.png";
const TEXT: &str = "text.png";
/// What is written of masks without a name.
const NAMELESS: &str = "object";

/// Where the masks of a picture go.
#[derive(Debug, Clone)]
pub struct MaskFiles {
    picture: PathBuf,
    folder: PathBuf,
    embedding: Option<PathBuf>,
    /// Whether the summary says how long it took.
    timed: bool,
}

impl MaskFiles {
    /// Of a picture's file, into `folder` (by default one that does not exist yet, named after the picture); where
    /// `embedding` is given, the picture's embedding is written there.
    pub fn new(picture: &Path, folder: Option<&Path>, embedding: Option<&Path>) -> Self {
        Self {
            picture: picture.to_owned(),
            folder: folder.map_or_else(|| own_name(picture), Path::to_owned),
            embedding: embedding.map(Path::to_owned),
            timed: true,
        }
    }

    /// Reads the picture for a request with these options. Refused, before any work, are outputs that cannot be
    /// written, or that would overwrite what is read.
    ///
    /// # Errors
    /// The same, and a file that is no picture.
    pub fn request(&self, options: Options, model: &ModelFolder) -> Result<MaskRequest> {
        let words = match options.get(&word_keys::WORDS) {
            None => None,
            Some(place) => Annotations::open(&place)?.of(&self.picture)?,
        };
        self.request_about(options, model, words)
    }

    /// The same, about these words.
    fn request_about(
        &self,
        options: Options,
        model: &ModelFolder,
        words: Option<Vec<Word>>,
    ) -> Result<MaskRequest> {
        let mut read: Vec<PathBuf> = options.files();
        read.push(self.picture.clone());
        if let ModelFolder::Disk(folder) = model {
            read.push(folder.clone());
        }
        let read: Vec<&Path> = read.iter().map(PathBuf::as_path).collect();
        let has_files =
            |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some());
        if self.folder.is_file() || has_files(&self.folder) {
            return Err(Error::request(
                "output",
                format!(
                    "{} is there already; name a folder that is not",
                    self.folder.display()
                ),
            ));
        }
        if !self.folder.is_dir() {
            check_writable(&self.folder)?;
        }
        if let Some(file) = &self.embedding {
            if file
                .extension()
                .is_none_or(|ending| ending != "safetensors")
            {
                let message = format!("{} does not end in .safetensors", file.display());
                return Err(Error::request("save-embedding", message));
            }
            check_outputs(&[file.as_path()], &read)?;
            check_writable(file)?;
        }
        let picture = read_picture(&self.picture)?;
        Ok(MaskRequest {
            words,
            options,
            ..MaskRequest::new(Arc::new(picture))
        })
    }

    /// Writes everything, under temporary names that are changed at the end; gives what `summary.json` says.
    ///
    /// # Errors
    /// Files that cannot be written; an embedding that was asked for where there is none.
    pub fn write(&self, plan: &MaskPlan, found: &GeneratedMasks, model: &str) -> Result<Value> {
        match (&self.embedding, &found.embedding) {
            (Some(file), Some(embedding)) => {
                let (tensor, texts) = embedding.to_file();
                write_safetensors(file, &[tensor], &texts)?;
            }
            (Some(_), None) => {
                let message = "parts of the picture were looked at one by one; there is no embedding of the whole";
                return Err(Error::request("save-embedding", message));
            }
            (None, _) => {}
        }
        let room = TemporaryFolder::create(&self.folder)?;
        let write = |name: &str, bytes: &[u8]| write_atomic(&room.path().join(name), bytes);
        let masks: Vec<Mask> = found.masks.iter().map(GeneratedMask::mask).collect();
        match &found.words {
            None => {
                for (index, mask) in masks.iter().enumerate() {
                    write(&file_name(index), &mask.to_png()?)?;
                }
            }
            Some(words) => write(TEXT, &all_text(words, &plan.request)?.to_png()?)?,
        }
        let marks = marks(plan, found);
        let laid = overlay(&plan.request.picture, &masks, &marks)?;
        write(OVERLAY, &encode_png(&laid, &[])?)?;
        write(COCO, pretty(&self.coco(plan, &found.masks)).as_bytes())?;
        let summary = self.summary(plan, found, model);
        write(SUMMARY, pretty(&summary).as_bytes())?;
        room.keep()?;
        Ok(summary)
    }

    /// What was written, for people.
    pub fn in_words(&self, found: &GeneratedMasks) -> String {
        let mut text = String::new();
        let named = |name: &Option<String>| {
            name.as_ref()
                .map_or(String::new(), |name| format!("  {name}"))
        };
        for (index, mask) in found.masks.iter().enumerate() {
            let [width, height] = mask.bounds.map_or([0, 0], |[left, top, right, bottom]| {
                [right + 1 - left, bottom + 1 - top]
            });
            if found.words.is_none() {
                text += &format!(
                    "{}  {} pixels in {width}x{height}, expected quality {:.2}{}\n",
                    self.folder.join(file_name(index)).display(),
                    mask.runs.area(),
                    mask.quality,
                    named(&mask.name)
                );
            }
        }
        for word in found.words.iter().flatten() {
            let flags = if word.flags.is_empty() {
                String::new()
            } else {
                format!(" ({})", word.flags.join("; "))
            };
            let name = brisk_store::shown(word.text.as_deref().unwrap_or("?"));
            let (area, count) = (word.runs.area(), word.characters.len());
            text += &format!("{name}: {area} pixels, {count} masks{flags}\n");
        }
        let of_words = found.words.is_some().then_some(TEXT);
        for name in of_words.into_iter().chain([OVERLAY, COCO, SUMMARY]) {
            text += &format!("{}\n", self.folder.join(name).display());
        }
        text
    }

    fn summary(&self, plan: &MaskPlan, found: &GeneratedMasks, model: &str) -> Value {
        let masks = found.masks.iter().enumerate().map(|(index, mask)| {
            let mut told = serde_json::Map::new();
            if found.words.is_none() {
                told.insert("file".to_owned(), file_name(index).into());
            }
            if let Value::Object(fields) = describe_mask(mask) {
                told.extend(fields);
            }
            Value::Object(told)
        });
        let prompts: Vec<Value> = plan.prompts.iter().map(|prompt| prompt.to_json()).collect();
        let seconds: serde_json::Map<String, Value> = found
            .seconds
            .iter()
            .map(|(name, seconds)| ((*name).to_owned(), json!(seconds)))
            .collect();
        let words = found
            .words
            .as_ref()
            .map(|words| words.iter().map(describe_word).collect::<Vec<_>>());
        without_nulls(json!({
            "picture": self.picture.display().to_string(), "width": plan.request.picture.width,
            "height": plan.request.picture.height, "folder": self.folder.display().to_string(),
            "model": model, "opened": plan.opened.to_json(), "settings": plan.settings, "prompts": prompts,
            "masks": masks.collect::<Vec<_>>(), "words": words, "text": found.words.is_some().then_some(TEXT),
            "overlay": OVERLAY, "coco": COCO, "seconds": self.timed.then_some(seconds),
            "version": env!("CARGO_PKG_VERSION"),
        }))
    }

    /// The masks as an annotation file of COCO's tools, a category for each name.
    fn coco(&self, plan: &MaskPlan, masks: &[GeneratedMask]) -> Value {
        let name = |mask: &GeneratedMask| mask.name.clone().unwrap_or_else(|| NAMELESS.to_owned());
        let mut names: Vec<String> = Vec::new();
        let mut annotations = Vec::with_capacity(masks.len());
        for (index, mask) in masks.iter().enumerate() {
            let name = name(mask);
            let category = names
                .iter()
                .position(|known| *known == name)
                .unwrap_or_else(|| {
                    names.push(name);
                    names.len() - 1
                });
            let [left, top, right, bottom] = mask.bounds.unwrap_or_default();
            let size = mask
                .bounds
                .map_or([0, 0], |_| [right + 1 - left, bottom + 1 - top]);
            annotations.push(json!({
                "id": index + 1, "image_id": 1, "category_id": category + 1, "iscrowd": 0,
                "segmentation": runs(&mask.runs, plan), "area": mask.runs.area(),
                "bbox": [left, top, size[0], size[1]], "score": number(mask.quality),
            }));
        }
        let categories = names.iter().enumerate();
        let categories = categories.map(|(index, name)| json!({"id": index + 1, "name": name}));
        json!({
            "images": [{
                "id": 1, "file_name": self.picture.display().to_string(),
                "width": plan.request.picture.width, "height": plan.request.picture.height,
            }],
            "annotations": annotations,
            "categories": categories.collect::<Vec<_>>(),
        })
    }
}

/// What is told of a mask beside its pixels: `area`, `box`, what the model expects of it, and what showed it.
pub fn describe_mask(mask: &GeneratedMask) -> Value {
    without_nulls(json!({
        "area": mask.runs.area(), "box": mask.bounds, "predicted_iou": number(mask.quality),
        "stability_score": number(mask.stability), "prompt": mask.prompt, "point": mask.point, "name": mask.name,
    }))
}

/// What is told of a word; its characters' masks are among all masks, by number.
pub fn describe_word(word: &FoundWord) -> Value {
    let characters = word.characters.iter().map(|character| {
        let (points, labels): (Vec<_>, Vec<u8>) =
            character.points.iter().map(|(at, inside)| (*at, u8::from(*inside))).unzip();
        without_nulls(json!({
            "class": character.class.map(String::from), "quad": character.quad, "points": points, "labels": labels,
            "mask": character.mask, "flags": character.flags,
        }))
    });
    without_nulls(json!({
        "text": word.text, "confidence": word.confidence.and_then(number), "detected": word.detected, "polygon": word.polygon,
        "area": word.runs.area(), "characters": characters.collect::<Vec<_>>(), "flags": word.flags,
    }))
}

/// All pixels of words.
fn all_text(words: &[FoundWord], request: &MaskRequest) -> Result<Mask> {
    let [width, height] = request.size();
    let mut all = vec![false; width * height];
    for word in words {
        let own = Mask::from(&word.runs);
        all.iter_mut()
            .zip(own.pixels())
            .for_each(|(all, own)| *all |= own);
    }
    Ok(Mask::new(width, height, all)?)
}

fn without_nulls(mut document: Value) -> Value {
    if let Value::Object(fields) = &mut document {
        fields.retain(|_, value| !value.is_null());
    }
    document
}

fn runs(runs: &Runs, plan: &MaskPlan) -> Value {
    json!({"size": [plan.request.picture.height, plan.request.picture.width], "counts": runs.to_text()})
}

/// None for what JSON cannot hold.
fn number(value: f32) -> Option<f32> {
    value.is_finite().then_some(value)
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

fn file_name(index: usize) -> String {
    format!("mask-{index:04}.png")
}

/// What showed what to find.
fn marks(plan: &MaskPlan, found: &GeneratedMasks) -> Marks {
    let points = plan
        .prompts
        .iter()
        .flat_map(|prompt| prompt.points.iter().copied());
    let of_grid = found
        .masks
        .iter()
        .filter_map(|mask| mask.point)
        .map(|at| (at, true));
    let words = || found.words.iter().flatten();
    let characters = || words().flat_map(|word| &word.characters);
    let of_letters = characters().flat_map(|character| character.points.iter().copied());
    let outlines = words().map(|word| word.polygon.clone());
    Marks {
        points: points.chain(of_grid).chain(of_letters).collect(),
        boxes: plan
            .prompts
            .iter()
            .filter_map(|prompt| prompt.bounds)
            .collect(),
        outlines: outlines
            .chain(characters().map(|character| character.quad.to_vec()))
            .collect(),
    }
}

/// `photo-masks`, or the first `photo-masks-N` that is not there yet.
fn own_name(picture: &Path) -> PathBuf {
    let stem = picture.file_stem().unwrap_or_default().to_string_lossy();
    let first = PathBuf::from(format!("{stem}-masks"));
    let names = (1u64..).map(|number| PathBuf::from(format!("{stem}-masks-{number}")));
    let mut names = std::iter::once(first.clone()).chain(names);
    names.find(|name| !name.exists()).unwrap_or(first)
}
