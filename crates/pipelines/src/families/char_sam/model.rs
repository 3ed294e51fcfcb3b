//! The model: words go to this family's own way, everything else to Segment Anything.

use std::sync::Arc;
use std::time::Instant;

use brisk_media::mask::Runs;
use brisk_media::{Mask, Picture};
use brisk_store::{Limit, ModelFolder, read_text};

use super::characters::Looked;
use super::files::{Besides, Loaded};
use super::settings::Settings;
use super::view::Spent;
use super::word::{Character, Found, Whole, find};
use super::{SUPPORT, Templates, Tools, text_boxes};
use crate::error::{Error, Result};
use crate::events::{Control, Event, StepClock, Work};
use crate::families::sam::SamModel;
use crate::memory;
use crate::options::{Scope, Support, mask_keys, word_keys};
use crate::request::{
    Decisions, FoundCharacter, FoundWord, GeneratedMask, GeneratedMasks, MaskModel, MaskPlan,
    MaskRequest, OpenSettings, StageMemory, Word, WordFile,
};

/// The value of `words` that asks for finding them.
const AUTO: &str = "auto";

struct CharSam {
    segmenter: SamModel,
    besides: Arc<Besides>,
    loaded: Option<Loaded>,
    /// Letters that were drawn, and of which further fonts.
    templates: Option<(Option<std::path::PathBuf>, Templates)>,
}

/// A request about words with every decision made.
struct WordPlan {
    /// None: they are to be found.
    words: Option<Vec<Word>>,
    settings: Settings,
}

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn MaskModel>> {
    SUPPORT.check(&folder.label(), Scope::Open, &settings.options)?;
    Ok(Box::new(CharSam {
        segmenter: SamModel::open(folder, settings)?,
        besides: Arc::new(Besides::open(folder, &settings.options)?),
        loaded: None,
        templates: None,
    }))
}

impl MaskModel for CharSam {
    fn label(&self) -> &str {
        &self.segmenter.files().label
    }

    fn support(&self) -> &'static Support {
        &SUPPORT
    }

    fn frame(&self) -> usize {
        self.segmenter.files().network.config.image_size()
    }

    fn plan(&self, request: &MaskRequest) -> Result<MaskPlan> {
        let mut given = request.options.clone();
        if request.words.is_some() && given.get(&word_keys::WORDS).is_none() {
            given.set(&word_keys::WORDS, "given".into());
        }
        SUPPORT.check(self.label(), Scope::Request, &given)?;
        let Some(file) = given.get(&word_keys::WORDS) else {
            return self.segmenter.plan(request);
        };
        let finds = request.words.is_none() && file.as_os_str() == AUTO;
        for other in [
            mask_keys::POINT.definition(),
            mask_keys::NEGATIVE_POINT.definition(),
            mask_keys::BOX.definition(),
            mask_keys::BOXES.definition(),
            mask_keys::EVERYTHING.definition(),
            mask_keys::MULTIMASK.definition(),
            mask_keys::MASK_THRESHOLD.definition(),
            mask_keys::EMBEDDING.definition(),
        ] {
            if given.has(other) {
                let message = "says what to find besides `words`; give one of both";
                return Err(Error::request(other.name, message));
            }
        }
        let settings = Settings::of(&given);
        let words = match &request.words {
            Some(words) => Some(words.clone()),
            None if finds && !self.besides.has_detector() => {
                return Err(Error::request(
                    "words",
                    "auto needs a detector of characters, which this model's folder has not: give `detector` FILE",
                ));
            }
            None if finds => None,
            None => Some(read_words(&file)?),
        };
        let mut warnings = Vec::new();
        if let Some(words) = &words {
            let no_boxes = words.iter().all(|word| word.characters.is_empty());
            if settings.prompt == super::Prompt::GivenBoxes && no_boxes && !words.is_empty() {
                return Err(Error::request(
                    "prompt",
                    "char-gt takes boxes of characters that come with the words, and these come with none",
                ));
            }
            if words.is_empty() {
                warnings.push("there are no words in this picture".to_owned());
            }
        }
        if let Some(folder) = &settings.fonts {
            Templates::with_folder(folder)?;
        }
        Ok(MaskPlan {
            model: self.label().to_owned(),
            request: request.clone(),
            opened: self.segmenter.files().opened.clone(),
            prompts: Vec::new(),
            settings: settings.to_json(finds),
            memory: self.memory(request.size())?,
            warnings,
            decisions: Arc::new(Decisions::new(WordPlan { words, settings })),
        })
    }

    fn generate(&mut self, plan: &MaskPlan, control: &Control) -> Result<GeneratedMasks> {
        let label = self.label().to_owned();
        match plan.decided::<WordPlan>(&label) {
            Ok(decided) => control
                .drive(|| self.find_words(&plan.request.picture, decided, &plan.memory, control)),
            Err(_) => self.segmenter.generate(plan, control),
        }
    }

    fn another(&mut self) -> Result<Box<dyn MaskModel>> {
        self.load()?;
        Ok(Box::new(Self {
            segmenter: self.segmenter.another()?,
            besides: self.besides.clone(),
            loaded: self.loaded.clone(),
            templates: self.templates.clone(),
        }))
    }

    fn release(&mut self) {
        self.segmenter.release();
        self.loaded = None;
    }
}

/// The words of a picture's own annotation file.
fn read_words(file: &std::path::Path) -> Result<Vec<Word>> {
    let text = read_text(file, Limit::DATA).map_err(|error| Error::from(error).of("words"))?;
    match WordFile::read(&text, &file.display().to_string()).map_err(|error| error.of("words"))? {
        WordFile::One(words) => Ok(words),
        WordFile::Many(pictures) => Err(Error::request(
            "words",
            format!(
                "{} speaks of {} pictures by their names, none of which is this one's",
                file.display(),
                pictures.len()
            ),
        )),
    }
}

impl CharSam {
    /// Estimates what a picture needs and refuses what cannot fit.
    fn memory(&self, size: [usize; 2]) -> Result<Vec<StageMemory>> {
        let files = self.segmenter.files();
        let own = |loaded: bool, bytes: u64| if loaded { 0 } else { bytes };
        let weights = own(
            self.segmenter.is_loaded(),
            (files.network.count() as f64 * files.bytes_per_weight()) as u64,
        ) + own(self.loaded.is_some(), self.besides.bytes());
        let pixels = (size[0] as u64) * (size[1] as u64);
        // The detector's widest maps, of a picture that it sees at 1280 pixels a side at most.
        let detector = if self.besides.has_detector() {
            4 * 1280 * 1280 * 100
        } else {
            0
        };
        let encoder = files.encoder_bytes();
        let needed = weights
            .saturating_add(encoder.max(detector))
            .saturating_add(32 * pixels);
        let suggestion = "use a smaller model or picture, or free memory";
        memory::check("words", needed, memory::available(), suggestion)?;
        Ok(vec![StageMemory {
            stage: "words",
            needed,
        }])
    }

    fn load(&mut self) -> Result<()> {
        self.segmenter.segmenter()?;
        if self.loaded.is_none() {
            self.loaded = Some(self.besides.load()?);
        }
        Ok(())
    }

    fn find_words(
        &mut self,
        picture: &Picture,
        plan: &WordPlan,
        memory: &[StageMemory],
        control: &Control,
    ) -> Result<GeneratedMasks> {
        let started = Instant::now();
        control.memory(memory, memory::available());
        if !self.segmenter.is_loaded() || self.loaded.is_none() {
            control.stage("networks", Work::Load, 0);
        }
        self.load()?;
        control.check()?;
        let templates = match self.templates.take() {
            Some((fonts, templates)) if fonts == plan.settings.fonts => templates,
            _ => match &plan.settings.fonts {
                Some(folder) => Templates::with_folder(folder)?,
                None => Templates::default(),
            },
        };
        let Loaded { detector, reader } = self.loaded.clone().unwrap_or_default();
        let mut tools = Tools {
            segmenter: self.segmenter.segmenter()?.another(),
            detector,
            reader,
            templates,
        };
        let mut looked = Looked::default();
        let words = match &plan.words {
            Some(words) => words.clone(),
            None => {
                control.stage("detector", Work::Run, 0);
                let started = Instant::now();
                let found = detected(&tools, picture, &plan.settings)?;
                looked.detect += started.elapsed().as_secs_f64();
                found
            }
        };
        control.stage("words", Work::Run, words.len());
        let mut clock = StepClock::new(words.len());
        let mut whole = Whole {
            picture,
            seen: None,
        };
        let mut found = Vec::with_capacity(words.len());
        let mut spent = Spent::default();
        for word in &words {
            control.check()?;
            let one = find(word, &mut whole, &mut tools, &plan.settings)?;
            spent.encode += one.spent.encode;
            spent.decode += one.spent.decode;
            looked.detect += one.looked.detect;
            looked.read += one.looked.read;
            found.push(one);
            clock.step(control);
        }
        let generated = generated(picture, &words, found)?;
        self.templates = Some((plan.settings.fonts.clone(), tools.templates));
        let all = started.elapsed().as_secs_f64();
        let known = looked.detect + looked.read + spent.encode + spent.decode;
        control.send(Event::Done {
            results: generated.0.len(),
            seconds: all,
        });
        Ok(GeneratedMasks {
            masks: generated.0,
            words: Some(generated.1),
            embedding: None,
            seconds: vec![
                ("detect", looked.detect),
                ("read", looked.read),
                ("encode", spent.encode),
                ("decode", spent.decode),
                ("rest", (all - known).max(0.0)),
            ],
        })
    }
}

/// The words that the detector finds, from the top down.
fn detected(tools: &Tools, picture: &Picture, settings: &Settings) -> Result<Vec<Word>> {
    let Some(detector) = &tools.detector else {
        return Err(Error::request(
            "words",
            "auto needs a detector of characters",
        ));
    };
    let map = detector.look(picture)?;
    let mut found = text_boxes(&map, &settings.text_box);
    found.sort_by(|a, b| {
        (a[0][1], a[0][0])
            .partial_cmp(&(b[0][1], b[0][0]))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    found.truncate(crate::request::MOST_WORDS);
    let word = |corners: [[f64; 2]; 4]| Word {
        polygon: corners.to_vec(),
        ..Word::default()
    };
    Ok(found.into_iter().map(word).collect())
}

/// Masks of all characters, no pixel in two of them, and the words.
fn generated(
    picture: &Picture,
    words: &[Word],
    found: Vec<Found>,
) -> Result<(Vec<GeneratedMask>, Vec<FoundWord>)> {
    let (width, height) = (picture.width, picture.height);
    // Where characters meet, the surer one has the pixel.
    let mut owner: Vec<(u32, f32)> = vec![(u32::MAX, f32::NEG_INFINITY); width * height];
    let characters = found.iter().flat_map(|word| &word.characters);
    for (number, character) in characters.enumerate() {
        for (at, logit) in &character.pixels {
            if *logit > owner[*at].1 {
                owner[*at] = (number as u32, *logit);
            }
        }
    }
    let mut masks = Vec::new();
    let mut all = Vec::with_capacity(found.len());
    for (given, word) in words.iter().zip(found) {
        let mut union = vec![false; width * height];
        let mut own = Vec::with_capacity(word.characters.len());
        for character in word.characters {
            let number = masks.len();
            let mut pixels = vec![false; width * height];
            for (at, _) in &character.pixels {
                union[*at] = true;
                pixels[*at] = owner[*at].0 as usize == number;
            }
            let name = match character.class {
                Some(class) => Some(class.to_string()),
                None => word.text.clone(),
            };
            masks.push(mask(&character, Mask::new(width, height, pixels)?, name));
            own.push(FoundCharacter {
                class: character.class,
                quad: character.quad,
                points: character.points,
                mask: number,
                flags: character.flags,
            });
        }
        all.push(FoundWord {
            polygon: given.polygon.clone(),
            text: word.text,
            confidence: word.confidence,
            detected: word.detected,
            runs: Runs::from(&Mask::new(width, height, union)?),
            characters: own,
            flags: word.flags,
        });
    }
    Ok((masks, all))
}

fn mask(character: &Character, mask: Mask, name: Option<String>) -> GeneratedMask {
    GeneratedMask {
        runs: Runs::from(&mask),
        bounds: mask.bounds(),
        quality: character.quality,
        stability: character.stability,
        prompt: None,
        name,
        point: None,
    }
}
