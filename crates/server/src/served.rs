//! The models that are served: their ids, what they are, and plans of requests to them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use brisk::options::{Options, Support};
use brisk::{
    BoxModel, Error, FirstFrame, HubProgress, ImageModel, ImagePlan, ImageRequest, KnownPrompts,
    MaskModel, MaskPlan, MaskRequest, ModelFolder, OpenSettings, ResultKind, StageCost, TextModel,
    TextPlan, TextRequest, VideoModel, VideoPlan, VideoRequest, registry,
};
use brisk_store::Fingerprint;

use crate::error::{ApiError, Result, StartError};
use crate::settings::Settings;

/// Longest id of a model.
const MAX_ID: usize = 128;

/// Whether a model is in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Residence {
    /// It is not.
    Idle,
    /// Its weights are being read.
    Loading,
    /// It is.
    Loaded,
    /// It could not be loaded; asked again, it is tried again a minute later.
    Failed {
        /// When.
        at: Instant,
        /// Why.
        error: ApiError,
    },
}

impl Residence {
    /// As replies name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A plan of pictures, and what can be said of it beforehand.
#[derive(Debug)]
pub struct Planned {
    /// It.
    pub plan: ImagePlan,
    /// What its stages compute.
    pub costs: Vec<StageCost>,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
}

/// A model that is served.
pub struct Served {
    /// Its id.
    pub id: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// The name that finds it, which a picture's description gives.
    pub name: String,
    /// Its files.
    pub folder: ModelFolder,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether it stays in memory.
    pub kept: bool,
    /// Seconds since 1970 at which it became available.
    pub created: u64,
    drawer: Option<Mutex<Box<dyn ImageModel>>>,
    writer: Option<Box<dyn TextModel>>,
    finder: Option<Mutex<Box<dyn MaskModel>>>,
    filmer: Option<Mutex<Box<dyn VideoModel>>>,
    residence: Mutex<Residence>,
    fingerprint: String,
}

impl Served {
    fn open(id: String, name: &str, progress: &dyn HubProgress) -> brisk::Result<Self> {
        let found = brisk::find(Some(name), None, ResultKind::Pictures, progress)?;
        let settings = planning();
        let family = registry::family_of(&found.folder, &settings.options);
        let results = family.map(|family| family.results()).unwrap_or_default();
        let wants = |kind| results.contains(&kind) || results.is_empty();
        let drawer = wants(ResultKind::Pictures)
            .then(|| registry::open_image(&found.folder, &settings))
            .transpose()?;
        let writer = wants(ResultKind::Text)
            .then(|| registry::open_text(&found.folder, &settings))
            .transpose()?;
        let finder = results
            .contains(&ResultKind::Masks)
            .then(|| registry::open_masks(&found.folder, &settings))
            .transpose()?;
        let filmer = results
            .contains(&ResultKind::Clips)
            .then(|| registry::open_video(&found.folder, &settings))
            .transpose()?;
        if drawer.is_none() && writer.is_none() && finder.is_none() && filmer.is_none() {
            return Err(Error::WrongResult {
                model: id,
                wanted: ResultKind::Pictures,
                gives: results,
            });
        }
        let files = found.folder.list();
        let mut hash = Fingerprint::default();
        let mut bytes = 0;
        for file in &files {
            let size = found.folder.size(file).unwrap_or(0);
            hash.add(file.as_bytes());
            hash.add(&size.to_le_bytes());
            if let Some(content) = content(&found.folder, file, size) {
                hash.add(&content);
            }
            bytes += size;
        }
        Ok(Self {
            id,
            aliases: Vec::new(),
            name: found.name,
            folder: found.folder,
            bytes,
            kept: false,
            created: seconds_since_1970(),
            drawer: drawer.map(Mutex::new),
            writer,
            finder: finder.map(Mutex::new),
            filmer: filmer.map(Mutex::new),
            residence: Mutex::new(Residence::Idle),
            fingerprint: hash.text(),
        })
    }

    /// A model of which there is nothing but its id.
    #[cfg(test)]
    pub fn absent(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            aliases: Vec::new(),
            name: id.to_owned(),
            folder: ModelFolder::Disk("/nonexistent".into()),
            bytes: 0,
            kept: false,
            created: 0,
            drawer: None,
            writer: None,
            finder: None,
            filmer: None,
            residence: Mutex::new(Residence::Idle),
            fingerprint: String::new(),
        }
    }

    /// What it gives.
    pub fn results(&self) -> Vec<ResultKind> {
        let gives = [
            (ResultKind::Pictures, self.drawer.is_some()),
            (ResultKind::Text, self.writer.is_some()),
            (ResultKind::Masks, self.finder.is_some()),
            (ResultKind::Clips, self.filmer.is_some()),
        ];
        gives
            .into_iter()
            .filter_map(|(kind, gives)| gives.then_some(kind))
            .collect()
    }

    /// The options that it honours where it gives a kind of result.
    pub fn support(&self, kind: ResultKind) -> Option<&'static Support> {
        match kind {
            ResultKind::Pictures => self.with_drawer(|drawer| drawer.support()),
            ResultKind::Text => self.writer.as_ref().map(|writer| writer.support()),
            ResultKind::Masks => self.with_finder(|finder| finder.support()),
            ResultKind::Clips => self.with_filmer(|filmer| filmer.support()),
        }
    }

    /// The writer that plans; it has no weights.
    pub fn writer(&self) -> Option<&dyn TextModel> {
        self.writer.as_deref()
    }

    /// Width and height of its pictures, or else of its clips, where none are asked for, in pixels.
    pub fn usual_size(&self) -> Option<(usize, usize)> {
        self.with_drawer(|drawer| drawer.usual_size())
            .or_else(|| self.with_filmer(|filmer| filmer.usual_size()))
    }

    /// Whether its clips begin with a picture.
    pub fn needs_image(&self) -> bool {
        self.with_filmer(|filmer| filmer.needs_image()) == Some(true)
    }

    /// What the first frame of a clip shows that none is given for, and the usual size of clips; none where it makes none.
    pub fn first_frame(&self, prompt: &str) -> Option<(FirstFrame, (usize, usize))> {
        self.with_filmer(|filmer| (filmer.first_frame(prompt), filmer.usual_size()))
    }

    /// What it was trained on.
    pub fn known_prompts(&self) -> Option<KnownPrompts> {
        let of_drawer = self.with_drawer(|drawer| drawer.known_prompts().cloned());
        let of_writer = || self.writer.as_ref()?.known_prompts().cloned();
        of_drawer.flatten().or_else(of_writer)
    }

    /// Plans pictures.
    ///
    /// # Errors
    /// What the model refuses.
    pub fn plan_images(&self, request: &ImageRequest) -> brisk::Result<Planned> {
        self.planned(|drawer| drawer.plan(request))
    }

    /// Plans the first frame of a clip of this size.
    ///
    /// # Errors
    /// What the model refuses.
    pub fn plan_first_frame(
        &self,
        frame: &FirstFrame,
        size: (usize, usize),
        seed: u64,
    ) -> brisk::Result<Planned> {
        self.planned(|drawer| brisk::plan_first_frame(drawer, frame, size, seed))
    }

    fn planned(
        &self,
        plan: impl FnOnce(&dyn ImageModel) -> brisk::Result<ImagePlan>,
    ) -> brisk::Result<Planned> {
        self.with_drawer(|drawer| {
            let plan = plan(drawer)?;
            Ok(Planned {
                costs: drawer.cost(&plan)?,
                prompt_tokens: drawer.prompt_tokens(&plan)?,
                plan,
            })
        })
        .unwrap_or_else(|| Err(self.gives_no(ResultKind::Pictures)))
    }

    /// What the texts of a plan compute, if every step that it allows is taken.
    ///
    /// # Errors
    /// A plan of another model.
    pub fn text_cost(&self, plan: &TextPlan) -> brisk::Result<StageCost> {
        match &self.writer {
            Some(writer) => writer.cost(plan),
            None => Err(self.gives_no(ResultKind::Text)),
        }
    }

    /// Bytes of its weights in memory, where it gives a kind of result.
    pub fn weight_bytes(&self, kind: ResultKind) -> u64 {
        match kind {
            ResultKind::Pictures => self.with_drawer(|drawer| drawer.weight_bytes().all),
            ResultKind::Text => self.writer.as_ref().map(|writer| writer.weight_bytes()),
            ResultKind::Clips => self.with_filmer(|filmer| filmer.weight_bytes().all),
            ResultKind::Masks => None,
        }
        .unwrap_or(self.bytes)
    }

    /// Plans texts.
    ///
    /// # Errors
    /// What the model refuses.
    pub fn plan_texts(&self, request: &TextRequest) -> brisk::Result<TextPlan> {
        match &self.writer {
            Some(writer) => writer.plan(request),
            None => Err(self.gives_no(ResultKind::Text)),
        }
    }

    /// Plans masks.
    ///
    /// # Errors
    /// What the model refuses.
    pub fn plan_masks(&self, request: &MaskRequest) -> brisk::Result<MaskPlan> {
        self.with_finder(|finder| finder.plan(request))
            .unwrap_or_else(|| Err(self.gives_no(ResultKind::Masks)))
    }

    /// Plans a clip, and tells what it costs.
    ///
    /// # Errors
    /// What the model refuses.
    pub fn plan_clip(&self, request: &VideoRequest) -> brisk::Result<(VideoPlan, Vec<StageCost>)> {
        self.with_filmer(|filmer| {
            let plan = filmer.plan(request)?;
            let costs = filmer.cost(&plan)?;
            Ok((plan, costs))
        })
        .unwrap_or_else(|| Err(self.gives_no(ResultKind::Clips)))
    }

    /// Whether it is in memory.
    pub fn residence(&self) -> Residence {
        self.residence
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes whether it is in memory.
    pub fn set_residence(&self, residence: Residence) {
        *self
            .residence
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = residence;
    }

    /// What changes with its settings and weights.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// That it gives other results than `wanted`.
    pub fn gives_no(&self, wanted: ResultKind) -> Error {
        Error::WrongResult {
            model: self.id.clone(),
            wanted,
            gives: self.results(),
        }
    }

    fn with_drawer<T>(&self, work: impl FnOnce(&dyn ImageModel) -> T) -> Option<T> {
        let drawer = self.drawer.as_ref()?;
        let drawer = drawer.lock().unwrap_or_else(PoisonError::into_inner);
        Some(work(&**drawer))
    }

    fn with_finder<T>(&self, work: impl FnOnce(&dyn MaskModel) -> T) -> Option<T> {
        let finder = self.finder.as_ref()?;
        let finder = finder.lock().unwrap_or_else(PoisonError::into_inner);
        Some(work(&**finder))
    }

    fn with_filmer<T>(&self, work: impl FnOnce(&dyn VideoModel) -> T) -> Option<T> {
        let filmer = self.filmer.as_ref()?;
        let filmer = filmer.lock().unwrap_or_else(PoisonError::into_inner);
        Some(work(&**filmer))
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Served")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// All of them, in the order they were given in.
#[derive(Debug)]
pub struct Models {
    models: Vec<Arc<Served>>,
}

impl Models {
    /// Finds the models of the settings and reads their configurations. Weights are read later.
    ///
    /// # Errors
    /// No such model, or one that cannot be planned for; ids that are given twice or to nothing.
    pub fn open(settings: &Settings, progress: &dyn HubProgress) -> Result<Self, StartError> {
        let boxed = || {
            let models = BoxModel::all().iter();
            models
                .filter(|model| model.folder().is_some())
                .map(|model| model.name.to_owned())
                .collect()
        };
        let asked: Vec<String> = match settings.models.is_empty() {
            true => boxed(),
            false => settings.models.clone(),
        };
        let mut models: Vec<Served> = Vec::new();
        for name in &asked {
            let (id, name) = match name.split_once('=') {
                Some((id, name)) => (id.to_owned(), name),
                None => (id_of(name), name.as_str()),
            };
            check_id(&id)?;
            if models.iter().any(|model| model.id == id) {
                return Err(wrong(format!(
                    "two models have the id {id}; give one of them another: --model OTHER={name}"
                )));
            }
            models.push(Served::open(id, name, progress)?);
        }
        if models.is_empty() {
            return Err(wrong(
                "this build has no models in the box; give one with --model".to_owned(),
            ));
        }
        for alias in &settings.aliases {
            let Some((alias, id)) = alias.split_once('=') else {
                return Err(wrong(format!("--alias {alias}: expected NAME=ID")));
            };
            check_id(alias)?;
            let taken =
                |model: &Served| model.id == alias || model.aliases.iter().any(|a| a == alias);
            if models.iter().any(taken) {
                return Err(wrong(format!("--alias {alias}: this name is taken")));
            }
            known(&mut models, id, "alias")?
                .aliases
                .push(alias.to_owned());
        }
        for id in &settings.keep {
            known(&mut models, id, "keep")?.kept = true;
        }
        for id in &settings.preload {
            known(&mut models, id, "preload")?;
        }
        Ok(Self {
            models: models.into_iter().map(Arc::new).collect(),
        })
    }

    /// None at all.
    pub fn none() -> Self {
        Self { models: Vec::new() }
    }

    /// All, in the order they were given in.
    pub fn all(&self) -> &[Arc<Served>] {
        &self.models
    }

    /// A model by id or alias.
    pub fn named(&self, name: &str) -> Option<&Arc<Served>> {
        let is_named =
            |model: &&Arc<Served>| model.id == name || model.aliases.iter().any(|a| a == name);
        self.models.iter().find(is_named)
    }

    /// The model that a request names, or the first that gives what is wanted.
    ///
    /// # Errors
    /// No such model, or one that gives something else.
    pub fn wanted(&self, name: Option<&str>, kind: ResultKind) -> Result<Arc<Served>> {
        let Some(name) = name else {
            let first = self.models.iter().find(|m| m.results().contains(&kind));
            return first
                .cloned()
                .ok_or_else(|| not_found(format!("no model here gives {}", kind.name()), None));
        };
        let Some(model) = self.named(name) else {
            let ids: Vec<&str> = self.models.iter().map(|model| &*model.id).collect();
            let shown = brisk_store::shown_within(name, 64);
            return Err(not_found(
                format!("model: there is no {shown}; there are {}", ids.join(", ")),
                Some("model"),
            ));
        };
        if !model.results().contains(&kind) {
            return Err(ApiError::of_library(&model.gives_no(kind)));
        }
        Ok(Arc::clone(model))
    }
}

fn not_found(message: String, param: Option<&str>) -> ApiError {
    ApiError {
        param: param.map(str::to_owned),
        ..ApiError::new(
            axum::http::StatusCode::NOT_FOUND,
            "model_not_found",
            message,
        )
    }
}

fn known<'a>(
    models: &'a mut [Served],
    id: &str,
    option: &str,
) -> Result<&'a mut Served, StartError> {
    let ids: Vec<String> = models.iter().map(|model| model.id.clone()).collect();
    models
        .iter_mut()
        .find(|model| model.id == id)
        .ok_or_else(|| {
            wrong(format!(
                "--{option}: there is no model {id}; there are {}",
                ids.join(", ")
            ))
        })
}

fn wrong(message: String) -> StartError {
    StartError::Settings(message)
}

/// The last part of a path or hub id, with a dash for what an id cannot hold.
fn id_of(name: &str) -> String {
    let last = name.trim_end_matches(['/', '\\']);
    let last = last.rsplit(['/', '\\']).next().unwrap_or(last);
    let kept = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' => letter,
        _ => '-',
    };
    last.chars().map(kept).take(MAX_ID).collect()
}

/// `^[A-Za-z0-9._-]{1,128}$`.
fn check_id(id: &str) -> Result<(), StartError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=MAX_ID).contains(&id.len()) && id.bytes().all(allowed) {
        return Ok(());
    }
    Err(wrong(format!(
        "{id:?} is no id: expected 1 to {MAX_ID} letters, digits, dots, dashes and underlines; \
         --model ID=MODEL chooses one"
    )))
}

/// How models are opened to plan.
fn planning() -> OpenSettings {
    OpenSettings {
        plan_only: true,
        ..brisk::settings(Options::new())
    }
}

/// What of a file's content tells models apart: settings as they are, pieces of every tensor of weights.
fn content(folder: &ModelFolder, file: &str, size: u64) -> Option<Vec<u8>> {
    if size <= 1 << 20 && file.ends_with(".json") {
        return Some(folder.read(file).ok()?.into_owned());
    }
    if [".safetensors", ".bin", ".pth"]
        .iter()
        .any(|ending| file.ends_with(ending))
    {
        let source = folder.open(file).ok()?;
        return Some(brisk_store::fingerprint(&*source).ok()?.into_bytes());
    }
    None
}

/// Now.
pub fn seconds_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_names() {
        for (name, id) in [
            ("sana-emoji", "sana-emoji"),
            ("Efficient-Large-Model/Sana_600M", "Sana_600M"),
            ("/data/my models/", "my-models"),
            ("owner/name@main", "name-main"),
        ] {
            assert_eq!(id_of(name), id);
            assert!(check_id(&id_of(name)).is_ok());
        }
        for id in ["", "a/b", "é", "a b", &"x".repeat(129)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
