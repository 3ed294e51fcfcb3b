//! Clips of a text: the places of all frames one after another, each frame decoded as a picture is.

use std::sync::Arc;
use std::time::Instant;

use brisk_media::Clip;
use brisk_models::vila_u::Request;
use brisk_nn::{Trace, check_finite};
use brisk_store::ModelFolder;
use serde_json::{Map, Value, json};

use super::drawer::Drawer;
use super::draws::{Draws, How};
use super::options::FILMS;
use super::picture::shown;
use super::plan::{GUIDANCE, check_size, how};
use super::prompt::Answer;
use crate::error::{Error, Result};
use crate::events::{Control, Event, StepClock, Work, timed};
use crate::options::{ClipLatents, OptionValue, Scope, Support, keys, video_keys};
use crate::request::{
    Decisions, GeneratedClip, OpenSettings, StageCost, StageMemory, VideoModel, VideoPlan,
    VideoRequest, WeightBytes, entries,
};

/// Frames a second where a request names none: eight of a clip of two seconds.
const RATE: f64 = 4.0;

/// Opens a model of the family.
pub(super) fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Box<dyn VideoModel>> {
    FILMS.check(&folder.label(), Scope::Open, &settings.options)?;
    Ok(Box::new(Filmer(Drawer::open(folder, settings)?)))
}

struct Filmer(Drawer);

/// A request with every decision made.
#[derive(Debug, Clone)]
struct FilmPlan {
    tokens: Vec<u32>,
    /// Tokens that stand for no prompt, where there is guidance.
    nothing: Option<Vec<u32>>,
    guidance: f32,
    how: How,
    seed: u64,
    frames: usize,
    rate: f64,
}

impl VideoModel for Filmer {
    fn label(&self) -> &str {
        &self.0.files.label
    }

    fn support(&self) -> &'static Support {
        &FILMS
    }

    fn needs_image(&self) -> bool {
        false
    }

    fn usual_size(&self) -> (usize, usize) {
        let [height, width] = self.0.files.tower_config.decoded_size();
        (width, height)
    }

    fn plan(&self, request: &VideoRequest) -> Result<VideoPlan> {
        let files = &self.0.files;
        let asked = &request.options;
        FILMS.check(&files.label, Scope::Request, asked)?;
        request.check()?;
        check_size(asked, [&video_keys::WIDTH, &video_keys::HEIGHT], files)?;
        let guidance = asked.get(&keys::GUIDANCE).unwrap_or(GUIDANCE);
        let nothing = match guidance {
            1.0 => None,
            _ => Some(self.0.tokens("", Answer::Clip)?),
        };
        let plan = FilmPlan {
            tokens: self.0.tokens(&request.prompt, Answer::Clip)?,
            nothing,
            guidance,
            how: how(asked)?,
            seed: asked.get(&keys::SEED).unwrap_or(0),
            frames: asked.get(&video_keys::FRAMES).unwrap_or(files.clip_frames),
            rate: asked.get(&video_keys::FRAME_RATE).unwrap_or(RATE),
        };
        let places = self.places(&plan);
        self.check_positions(&plan, places)?;
        let memory = self.memory(&plan, places)?;
        let (width, height) = self.usual_size();
        Ok(VideoPlan {
            model: files.label.clone(),
            request: request.clone(),
            opened: self.0.opened.clone(),
            seed: plan.seed,
            width,
            height,
            frames: plan.frames,
            given_frames: 0,
            rate: plan.rate,
            steps: places,
            settings: plan.settings(),
            memory,
            warnings: self.warnings(&request.prompt, &plan),
            decisions: Arc::new(Decisions::new(plan)),
        })
    }

    fn generate(&mut self, plan: &VideoPlan, control: &Control) -> Result<GeneratedClip> {
        let decided: &FilmPlan = plan.decided(&self.0.files.label)?;
        control.memory(&plan.memory, crate::memory::available());
        control.drive(|| self.run(decided, control))
    }

    fn cost(&self, plan: &VideoPlan) -> Result<Vec<StageCost>> {
        let decided: &FilmPlan = plan.decided(&self.0.files.label)?;
        let rows = 1 + usize::from(decided.nothing.is_some());
        let places = self.places(decided);
        Ok(vec![
            self.0.generate_cost(places, rows),
            self.0.decode_cost(decided.frames),
        ])
    }

    fn weight_bytes(&self) -> WeightBytes {
        self.0.weights()
    }

    fn release(&mut self) {
        self.0.drop_weights();
    }
}

impl Filmer {
    /// Places of all frames.
    fn places(&self, plan: &FilmPlan) -> usize {
        plan.frames
            .saturating_mul(self.0.files.tower_config.places())
    }

    /// The last place is not read again.
    fn check_positions(&self, plan: &FilmPlan, places: usize) -> Result<()> {
        let context = self.0.files.language_config.context;
        let prompt = plan.tokens.len();
        if prompt.saturating_add(places) > context.saturating_add(1) {
            let each = self.0.files.tower_config.places();
            return Err(Error::request(
                video_keys::FRAMES.name(),
                format!(
                    "{} frames of {each} places behind a prompt of {prompt} tokens are more than the model's \
                     {context} positions; ask for at most {}",
                    plan.frames,
                    (context + 1).saturating_sub(prompt) / each
                ),
            ));
        }
        Ok(())
    }

    /// Estimates every stage's need and refuses what cannot fit.
    fn memory(&self, plan: &FilmPlan, places: usize) -> Result<Vec<StageMemory>> {
        let files = &self.0.files;
        let rows = 1 + usize::from(plan.nothing.is_some());
        let positions = rows.saturating_mul(plan.tokens.len().saturating_add(places));
        let (width, height) = self.usual_size();
        let channels = files.tower_config.decoder.ch;
        let stages = [
            ("generate", self.0.drawing_bytes(positions)),
            (
                "decode",
                crate::memory::decode_whole(height, width, channels),
            ),
        ];
        let stages = stages.map(|(stage, needed)| StageMemory { stage, needed });
        let suggestion = "use `quantize-transformer` 4bit, fewer `frames`, or free memory";
        crate::memory::check_stages(&stages, suggestion)?;
        Ok(stages.to_vec())
    }

    fn warnings(&self, prompt: &str, plan: &FilmPlan) -> Vec<String> {
        let files = &self.0.files;
        let mut warnings = Vec::new();
        let known = files.known_prompts.as_ref();
        warnings.extend(known.and_then(|known| known.warning([prompt].into_iter())));
        warnings.extend(files.unread_warning());
        if plan.frames != files.clip_frames {
            warnings.push(format!(
                "{} frames are asked for; the model was taught clips of {}",
                plan.frames, files.clip_frames
            ));
        }
        warnings
    }

    fn run(&mut self, plan: &FilmPlan, control: &Control) -> Result<GeneratedClip> {
        let started = Instant::now();
        let places = self.places(plan);
        let generator = self.0.load_generator(control)?;
        let (mut generate, mut decode) = (0.0, 0.0);
        control.stage("generate", Work::Run, places);
        let mut clock = StepClock::new(places);
        let maps = timed(&mut generate, || -> Result<_> {
            let without = plan.nothing.as_ref().map(|tokens| vec![tokens.clone()]);
            let request = Request {
                prompts: std::slice::from_ref(&plan.tokens),
                unconditional: without.as_deref(),
                guidance: f64::from(plan.guidance),
                places,
                given: &[],
            };
            let mut draws = Draws::new(plan.how, &[plan.seed]);
            let mut done = |_| {
                clock.step(control);
                Ok(())
            };
            let drawn = generator.draw(&request, &mut draws, &mut done, &mut Trace::none())?;
            Ok(generator.tower().maps(&drawn.sums.squeeze(0)?)?)
        })?;
        control.stage("decode", Work::Run, plan.frames);
        let mut clock = StepClock::new(plan.frames);
        let mut frames = Vec::with_capacity(plan.frames);
        timed(&mut decode, || -> Result<()> {
            for at in 0..plan.frames {
                let map = maps.narrow(0, at, 1)?.contiguous()?;
                let sample = generator.tower().decode(&map, &mut Trace::none())?;
                check_finite(&sample, "decode", "frame")?;
                frames.push(shown(&sample)?);
                clock.step(control);
            }
            Ok(())
        })?;
        control.send(Event::Done {
            results: 1,
            seconds: started.elapsed().as_secs_f64(),
        });
        let (count, height, width, channels) = maps.dims4()?;
        let planes = maps.permute((3, 0, 1, 2))?.contiguous()?.flatten_all()?;
        Ok(GeneratedClip {
            clip: Clip::new(frames, plan.rate)?,
            latents: ClipLatents {
                shape: [1, channels, count, height, width],
                values: planes.to_vec1::<f32>()?,
            },
            seconds: vec![("generate", generate), ("decode", decode)],
        })
    }
}

impl FilmPlan {
    /// Effective values, for metadata.
    fn settings(&self) -> Map<String, Value> {
        let chance = !self.how.greedy;
        entries(json!({
            "frames": self.frames,
            "guidance": self.guidance.into_value().to_json(),
            "top_k": chance.then_some(self.how.sampling.top_k),
            "top_p": chance.then_some(self.how.sampling.top_p),
            "temperature": chance.then_some(self.how.temperature),
        }))
    }
}
