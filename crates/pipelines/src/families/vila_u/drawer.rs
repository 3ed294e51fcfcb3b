//! Pictures, place by place, and reconstructed ones.

use std::sync::Arc;
use std::time::Instant;

use brisk_models::Cost;
use brisk_models::vila_u::projector::Projector;
use brisk_models::vila_u::tower::{Parts, Tower};
use brisk_models::vila_u::{Generator, Request};
use brisk_nn::{Tensor, Trace, check_finite};
use brisk_store::ModelFolder;
use serde_json::{Map, Value, json};

use super::draws::Draws;
use super::files::Files;
use super::options::DRAWS;
use super::picture::{prepared, shown};
use super::plan::{DrawPlan, kept, plan};
use super::prompt::{self, Answer};
use crate::error::{Error, Result};
use crate::events::{Control, Event, StepClock, Work, timed};
use crate::known_prompts::KnownPrompts;
use crate::options::{Codes, OptionValue, Options, Scope, Support};
use crate::request::{
    Decisions, GeneratedImage, ImageModel, ImagePlan, ImageRequest, OpenSettings, StageCost,
    StageMemory, WeightBytes, entries,
};

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn ImageModel>> {
    DRAWS.check(&folder.label(), Scope::Open, &settings.options)?;
    Ok(Box::new(Drawer::open(folder, settings)?))
}

/// A picture before it is decoded.
struct Undecoded {
    /// Sums of codewords `[1,h,w,C]`.
    sums: Tensor,
    codes: Codes,
}

/// A model that draws.
pub(super) struct Drawer {
    pub files: Files,
    /// The options of opening as they were given, for descriptions.
    pub opened: Options,
    /// What draws, its decoder included.
    generator: Option<Generator>,
    /// Encoder and decoder alone, for what is not drawn.
    tower: Option<Tower>,
}

/// Parts of the tower that drawing needs.
const DRAWING: Parts = Parts {
    encoder: false,
    decoder: true,
    depth: true,
};
/// Those that reconstructing needs.
const RECONSTRUCTING: Parts = Parts {
    encoder: true,
    decoder: true,
    depth: false,
};

impl ImageModel for Drawer {
    fn label(&self) -> &str {
        &self.files.label
    }

    fn support(&self) -> &'static Support {
        &DRAWS
    }

    fn known_prompts(&self) -> Option<&KnownPrompts> {
        self.files.known_prompts.as_ref()
    }

    fn usual_size(&self) -> (usize, usize) {
        let [height, width] = self.files.tower_config.decoded_size();
        (width, height)
    }

    fn plan(&self, request: &ImageRequest) -> Result<ImagePlan> {
        let decided = plan(request, &self.files)?;
        let memory = self.plan_memory(&decided)?;
        let (width, height) = self.usual_size();
        let config = &self.files.tower_config;
        let steps = match decided.draws(&self.files) {
            true => config.places() - decided.given_places(config.depth),
            false => 0,
        };
        Ok(ImagePlan {
            model: self.files.label.clone(),
            request: request.clone(),
            opened: self.opened.clone(),
            images: request.planned_images(),
            independent: true,
            width,
            height,
            generated_width: width,
            generated_height: height,
            steps,
            settings: effective(&decided, &self.files),
            memory,
            warnings: self.warnings(&decided),
            decisions: Arc::new(Decisions::new(decided)),
        })
    }

    fn generate(&mut self, plan: &ImagePlan, control: &Control) -> Result<Vec<GeneratedImage>> {
        if plan.model != self.files.label {
            return Err(Error::ForeignPlan {
                model: self.files.label.clone(),
            });
        }
        let decided: &DrawPlan = plan.decisions.of(&self.files.label)?;
        let started = Instant::now();
        control.memory(&plan.memory, crate::memory::available());
        let images = control.drive(|| {
            let mut seconds = 0.0;
            let undecoded = timed(&mut seconds, || match &decided.reconstruct {
                Some(_) => self.encode(decided, control),
                None if decided.draws(&self.files) => self.draw(decided, control),
                None => self.sum_codes(decided, control),
            })?;
            self.decode(decided, undecoded, seconds, control)
        })?;
        control.send(Event::Done {
            results: images.len(),
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(images)
    }

    fn prompt_tokens(&self, plan: &ImagePlan) -> Result<usize> {
        let decided: &DrawPlan = plan.decisions.of(&self.files.label)?;
        if !decided.draws(&self.files) {
            return Ok(0);
        }
        let prompts = decided.prompts.iter();
        let prompts = prompts.map(|text| self.tokens(text, Answer::Picture));
        prompts
            .map(|tokens| tokens.map(|tokens| tokens.len()))
            .sum()
    }

    fn cost(&self, plan: &ImagePlan) -> Result<Vec<StageCost>> {
        let decided: &DrawPlan = plan.decisions.of(&self.files.label)?;
        let config = &self.files.tower_config;
        let images = decided.images() as u64;
        let mut costs = Vec::new();
        if decided.draws(&self.files) {
            let rows = if decided.guided() { 2 } else { 1 };
            let of_batch = self.generate_cost(config.places(), rows * decided.at_once);
            let batches = images.div_ceil(decided.at_once as u64);
            costs.push(StageCost {
                cost: of_batch.cost.repeated(batches),
                ..of_batch
            });
        }
        if decided.reconstruct.is_some() {
            costs.push(StageCost {
                cost: Cost::sum("encode", &config.encode_cost()),
                weight_bytes: self.files.tower_weight_bytes(),
            });
        }
        costs.push(self.decode_cost(decided.images()));
        Ok(costs)
    }

    fn weight_bytes(&self) -> WeightBytes {
        self.weights()
    }

    fn denoiser_bytes(&self) -> u64 {
        self.files.weight_bytes()[0]
    }

    fn release(&mut self) {
        self.drop_weights();
    }
}

impl Drawer {
    /// The work of so many places, one after another, of so many rows at once.
    pub(super) fn generate_cost(&self, places: usize, rows: usize) -> StageCost {
        let language = &self.files.language_config;
        let step = Cost::sum("generate", &language.pass_cost(1, places / 2, 0));
        let mut cost = step.for_batch(rows);
        let head = self.files.tower_config.head.cost(rows, true);
        cost.add(&Cost::sum("", &head));
        StageCost {
            cost: cost.repeated(places as u64),
            weight_bytes: self.files.language_weight_bytes(),
        }
    }

    /// The work of decoding so many pictures.
    pub(super) fn decode_cost(&self, pictures: usize) -> StageCost {
        let one = Cost::sum("decode", &self.files.tower_config.decode_cost());
        StageCost {
            cost: one.repeated(pictures as u64),
            // Convolutions compute on f32 copies, whatever the file holds.
            weight_bytes: 4.0,
        }
    }

    /// Reads what the files say.
    pub fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Self> {
        Ok(Self {
            files: Files::open(folder, settings)?,
            opened: settings.options.of_scope(Scope::Open),
            generator: None,
            tower: None,
        })
    }

    /// Bytes of the weights, and of those in memory.
    pub fn weights(&self) -> WeightBytes {
        let [language, tower] = self.files.weight_bytes();
        let loaded = self.generator.is_some();
        WeightBytes::of(&[(language, loaded), (tower, loaded || self.tower.is_some())])
    }

    /// Drops what is in memory.
    pub fn drop_weights(&mut self) {
        self.generator = None;
        self.tower = None;
    }

    /// What drawing needs with keys and values of so many positions: weights that are not loaded yet too.
    pub fn drawing_bytes(&self, positions: usize) -> u64 {
        let weights = match &self.generator {
            Some(_) => 0,
            None => self.files.weight_bytes()[0] + self.files.tower_part_bytes(DRAWING),
        };
        weights.saturating_add(self.files.cache_bytes(positions))
    }

    fn warnings(&self, plan: &DrawPlan) -> Vec<String> {
        let mut warnings = Vec::new();
        if plan.reconstruct.is_none() {
            let prompts = plan.prompts.iter().map(String::as_str);
            let known = self.files.known_prompts.as_ref();
            warnings.extend(known.and_then(|known| known.warning(prompts)));
        }
        warnings.extend(self.files.unread_warning());
        warnings
    }

    /// Estimates every stage's need and refuses what cannot fit.
    fn plan_memory(&self, plan: &DrawPlan) -> Result<Vec<StageMemory>> {
        let config = &self.files.tower_config;
        let [height, width] = config.decoded_size();
        let maps = crate::memory::decode_whole(height, width, config.decoder.ch);
        let mut stages = Vec::new();
        if plan.draws(&self.files) {
            stages.push(StageMemory {
                stage: "generate",
                needed: self.drawing_bytes(self.positions(plan)),
            });
        }
        let loaded = self.tower.is_some() || self.generator.is_some() || !stages.is_empty();
        let weights = match loaded {
            true => 0,
            false => self.files.tower_part_bytes(RECONSTRUCTING),
        };
        stages.push(StageMemory {
            stage: "decode",
            needed: weights.saturating_add(maps),
        });
        let suggestion = "use `quantize-transformer` 4bit, fewer `images`, or free memory";
        crate::memory::check_stages(&stages, suggestion)?;
        Ok(stages)
    }

    /// Positions of the pictures that are drawn at once.
    fn positions(&self, plan: &DrawPlan) -> usize {
        // Templates and prompts, about.
        let prompt = 128;
        let rows = plan.at_once * if plan.guided() { 2 } else { 1 };
        let positions = prompt + self.files.tower_config.places();
        rows.saturating_mul(positions)
    }

    /// What draws, read where it is not in memory.
    pub fn load_generator(&mut self, control: &Control) -> Result<&Generator> {
        let generator = match self.generator.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("language model", Work::Load, 0);
                let language = self.files.load_language()?;
                control.stage("vision tower", Work::Load, 0);
                let tower = self.files.load_tower(DRAWING)?;
                let projector: Projector = self.files.load_projector()?;
                Generator::new(language, tower, projector)?
            }
        };
        Ok(self.generator.insert(generator))
    }

    fn load_tower(&mut self, parts: Parts, control: &Control) -> Result<&Tower> {
        let tower = match self.tower.take() {
            Some(loaded) => loaded,
            None => {
                control.stage("vision tower", Work::Load, 0);
                self.files.load_tower(parts)?
            }
        };
        Ok(self.tower.insert(tower))
    }

    /// Encodes the picture that is to be reconstructed.
    fn encode(&mut self, plan: &DrawPlan, control: &Control) -> Result<Vec<Undecoded>> {
        let Some(picture) = &plan.reconstruct else {
            return Ok(Vec::new());
        };
        let side = self.files.read_side()?;
        let picture = prepared(picture, side, self.files.aspect)?;
        let depth = self.files.tower_config.depth;
        // Kept with both halves: a tower that was loaded for codes alone cannot encode.
        self.tower = None;
        let tower = self.load_tower(RECONSTRUCTING, control)?;
        control.stage("encode", Work::Run, 0);
        let encoded = tower.encode(&picture, &mut Trace::none())?;
        let one = Undecoded {
            sums: tower.maps(&encoded.sum)?,
            codes: kept(encoded.codes, depth),
        };
        Ok(vec![one])
    }

    /// Sums of codes that are all given.
    fn sum_codes(&mut self, plan: &DrawPlan, control: &Control) -> Result<Vec<Undecoded>> {
        let depth = self.files.tower_config.depth;
        let given = plan.given.clone().unwrap_or_default();
        if self.tower.is_none() {
            let parts = Parts {
                decoder: true,
                ..Parts::default()
            };
            self.load_tower(parts, control)?;
        }
        let tower = self.load_tower(RECONSTRUCTING, control)?;
        given
            .into_iter()
            .map(|codes| {
                Ok(Undecoded {
                    sums: tower.maps(&tower.quantizer().sum(&codes)?)?,
                    codes: kept(codes, depth),
                })
            })
            .collect()
    }

    /// Draws the codes of all pictures, some pictures at a time.
    fn draw(&mut self, plan: &DrawPlan, control: &Control) -> Result<Vec<Undecoded>> {
        let (depth, places) = {
            let config = &self.files.tower_config;
            (config.depth, config.places())
        };
        let prompts = plan
            .prompts
            .iter()
            .map(|text| self.tokens(text, Answer::Picture))
            .collect::<Result<Vec<_>>>()?;
        let nothing = self.tokens("", Answer::Picture)?;
        let generator = self.load_generator(control)?;
        let total = plan.images() * places;
        control.stage("generate", Work::Run, total);
        let mut clock = StepClock::new(total);
        let mut undecoded = Vec::with_capacity(plan.images());
        for first in (0..plan.images()).step_by(plan.at_once) {
            let pictures = first..(first + plan.at_once).min(plan.images());
            let rows: Vec<Vec<u32>> = pictures
                .clone()
                .map(|index| prompts[plan.prompt_of(index)].clone())
                .collect();
            let without = vec![nothing.clone(); rows.len()];
            let given: Vec<Vec<u32>> = (0..plan.given_places(depth))
                .map(|place| {
                    let own = plan.given.iter().flatten().skip(first).take(rows.len());
                    own.flat_map(|codes| &codes[place * depth..(place + 1) * depth])
                        .copied()
                        .collect()
                })
                .collect();
            let request = Request {
                prompts: &rows,
                unconditional: plan.guided().then_some(&without[..]),
                guidance: f64::from(plan.guidance),
                places,
                given: &given,
            };
            let mut draws = Draws::new(plan.how, &plan.seeds[pictures.clone()]);
            let mut done = |_| {
                clock.steps(pictures.len(), control);
                Ok(())
            };
            let drawn = generator.draw(&request, &mut draws, &mut done, &mut Trace::none())?;
            for (index, codes) in drawn.codes.into_iter().enumerate() {
                let sums = drawn.sums.narrow(0, index, 1)?.squeeze(0)?.contiguous()?;
                undecoded.push(Undecoded {
                    sums: generator.tower().maps(&sums)?,
                    codes: kept(codes, depth),
                });
            }
        }
        Ok(undecoded)
    }

    /// The tokens of a prompt up to where the picture or the clip begins.
    pub fn tokens(&self, text: &str, answer: Answer) -> Result<Vec<u32>> {
        let Some(tokenizer) = &self.files.tokenizer else {
            return Err(Error::folder(&self.files.label, "there is no tokenizer"));
        };
        Ok(tokenizer.encode(&prompt::drawing(text, answer))?)
    }

    fn decode(
        &mut self,
        plan: &DrawPlan,
        undecoded: Vec<Undecoded>,
        mut generate: f64,
        control: &Control,
    ) -> Result<Vec<GeneratedImage>> {
        let tower = match (&self.tower, &self.generator) {
            (_, Some(generator)) if plan.draws(&self.files) => generator.tower(),
            (Some(tower), _) => tower,
            (None, Some(generator)) => generator.tower(),
            (None, None) => return Err(Error::folder(&self.files.label, "no decoder is loaded")),
        };
        control.stage("decode", Work::Run, undecoded.len());
        let mut clock = StepClock::new(undecoded.len());
        let first = match plan.reconstruct {
            Some(_) => "encode",
            None => "generate",
        };
        let mut images = Vec::with_capacity(undecoded.len());
        for (index, Undecoded { sums, codes }) in undecoded.into_iter().enumerate() {
            let mut decode = 0.0;
            let picture = timed(&mut decode, || {
                let sample = tower.decode(&sums, &mut Trace::none())?;
                check_finite(&sample, "decode", "picture")?;
                shown(&sample)
            })?;
            clock.step(control);
            images.push(GeneratedImage {
                picture,
                latents: None,
                codes: Some(codes),
                seed: plan.seeds[index],
                prompt: plan.prompts[plan.prompt_of(index)].clone(),
                seconds: vec![(first, generate), ("decode", decode)],
            });
            // The first has borne what all share.
            generate = 0.0;
        }
        Ok(images)
    }
}

/// Effective values, for metadata.
fn effective(plan: &DrawPlan, files: &Files) -> Map<String, Value> {
    let draws = plan.draws(files);
    let chance = draws && !plan.how.greedy;
    let places = plan.given_places(files.tower_config.depth);
    entries(json!({
        "guidance": draws.then(|| plan.guidance.into_value().to_json()),
        "top_k": chance.then_some(plan.how.sampling.top_k),
        "top_p": chance.then_some(plan.how.sampling.top_p),
        "temperature": chance.then_some(plan.how.temperature),
        "given_places": (places > 0).then_some(places),
    }))
}
