//! The networks as a model that finds pixels.

use std::sync::Arc;
use std::time::Instant;

use brisk_media::mask::Runs;
use brisk_media::{Mask, Picture};
use brisk_nn::{Tensor, ops};
use brisk_store::ModelFolder;

use super::everything::Stability;
use super::files::Files;
use super::plan::{SamPlan, Sought, Which, plan};
use super::{
    Everything, FoundMask, PicturePrompt, PointMasks, PredictedMasks, SegmentPoints, Segmenter,
};
use crate::error::Result;
use crate::events::{Control, Event, StepClock, Work, timed};
use crate::request::{
    Decisions, GeneratedMask, GeneratedMasks, MaskPlan, MaskPrompt, MaskRequest, OpenSettings,
    PictureEmbedding,
};

/// By how much thresholds move when the stability of a prompt's mask is measured.
const OFFSET: f32 = 1.0;

/// The model, whose options are checked by whoever opens it.
pub(in crate::families) struct SamModel {
    files: Arc<Files>,
    segmenter: Option<Segmenter>,
}

impl SamModel {
    /// Of a folder or file.
    ///
    /// # Errors
    /// Files that are missing, damaged or another network's.
    pub fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Self> {
        Ok(Self {
            files: Arc::new(Files::open(folder, settings)?),
            segmenter: None,
        })
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The networks, loaded if they are not yet.
    ///
    /// # Errors
    /// Weights that cannot be read, or do not fit.
    pub fn segmenter(&mut self) -> Result<&mut Segmenter> {
        let made = match self.segmenter.take() {
            Some(segmenter) => segmenter,
            None => {
                let weights = self.files.parameters()?.build()?;
                Segmenter::load(&self.files.network.config, &weights)?
            }
        };
        Ok(self.segmenter.insert(made))
    }

    pub fn is_loaded(&self) -> bool {
        self.segmenter.is_some()
    }

    /// One with the same networks.
    ///
    /// # Errors
    /// As [`segmenter`](Self::segmenter).
    pub fn another(&mut self) -> Result<Self> {
        let segmenter = self.segmenter()?.another();
        Ok(Self {
            files: self.files.clone(),
            segmenter: Some(segmenter),
        })
    }

    pub fn release(&mut self) {
        self.segmenter = None;
    }

    /// As [`MaskModel::plan`](crate::request::MaskModel::plan) of points, boxes or everything.
    ///
    /// # Errors
    /// The same.
    pub fn plan(&self, request: &MaskRequest) -> Result<MaskPlan> {
        let (decided, prompts) = plan(request, &self.files)?;
        let loaded = self.segmenter.is_some();
        Ok(MaskPlan {
            model: self.files.label.clone(),
            request: request.clone(),
            opened: self.files.opened.clone(),
            prompts,
            settings: decided.settings(),
            memory: decided.memory(&self.files, request.size(), loaded)?,
            warnings: Vec::new(),
            decisions: Arc::new(Decisions::new(decided)),
        })
    }

    /// As [`MaskModel::generate`](crate::request::MaskModel::generate).
    ///
    /// # Errors
    /// The same.
    pub fn generate(&mut self, plan: &MaskPlan, control: &Control) -> Result<GeneratedMasks> {
        let decided: &SamPlan = plan.decided(&self.files.label)?;
        let started = Instant::now();
        control.memory(&plan.memory, crate::memory::available());
        if !self.is_loaded() {
            control.stage("networks", Work::Load, 0);
        }
        let segmenter = self.segmenter()?;
        control.check()?;
        let (mut encoding, mut decoding) = (0.0, 0.0);
        let picture = &*plan.request.picture;
        let whole =
            !matches!(&decided.sought, Sought::Everything(found) if found.crop_n_layers > 0);
        let embedding = match (&decided.embedding, whole) {
            (_, false) => None,
            (Some(given), true) => Some(given.clone()),
            (None, true) => {
                control.stage("encode", Work::Run, 0);
                let made = timed(&mut encoding, || segmenter.embed(picture))?;
                Some(kept(&made, decided)?)
            }
        };
        control.check()?;
        if let Some(embedding) = &embedding {
            let [channels, rows, columns] = embedding.shape;
            let tensor = Tensor::from_slice(&embedding.values, (1, channels, rows, columns))?;
            segmenter.look_at(plan.request.size(), &ops::to_nhwc(&tensor)?)?;
        }
        let masks = timed(&mut decoding, || match &decided.sought {
            Sought::Prompts(which) => {
                prompted(segmenter, &plan.prompts, *which, decided.threshold, control)
            }
            Sought::Everything(settings) => {
                everything(segmenter, settings, picture, embedding.is_some(), control)
            }
        })?;
        control.send(Event::Done {
            results: masks.len(),
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(GeneratedMasks {
            masks,
            words: None,
            embedding,
            seconds: vec![("encode", encoding), ("decode", decoding)],
        })
    }
}

/// An embedding `[1, h, w, C]` as it is kept.
fn kept(embedding: &Tensor, plan: &SamPlan) -> Result<PictureEmbedding> {
    let planes = ops::to_nchw(embedding)?;
    let (_, channels, rows, columns) = planes.dims4()?;
    Ok(PictureEmbedding {
        shape: [channels, rows, columns],
        values: planes.flatten_all()?.to_vec1()?,
        origin: plan.origin.clone(),
    })
}

/// Prompts that are decoded together; between them it can be stopped.
pub(super) const TOGETHER: usize = 32;

fn prompted(
    segmenter: &Segmenter,
    prompts: &[MaskPrompt],
    which: Which,
    threshold: f32,
    control: &Control,
) -> Result<Vec<GeneratedMask>> {
    control.stage("decode", Work::Run, prompts.len());
    let mut clock = StepClock::new(prompts.len());
    let mut found = Vec::with_capacity(prompts.len());
    let size = segmenter.picture()?;
    for (go, some) in prompts.chunks(TOGETHER).enumerate() {
        control.check()?;
        let in_picture = some.iter().map(|prompt| PicturePrompt {
            points: prompt.points.clone(),
            bounds: prompt.bounds,
            mask: None,
        });
        let predicted = segmenter.predict_all(&in_picture.collect::<Vec<_>>())?;
        for (at, (prompt, predicted)) in some.iter().zip(&predicted).enumerate() {
            for choice in choice(predicted, which, prompt) {
                let mut inside = Vec::with_capacity(size[0] * size[1]);
                let mut stability = Stability::new(threshold, OFFSET);
                predicted.rows(choice, |row| {
                    inside.extend(row.iter().map(|logit| *logit > threshold));
                    stability.see(row);
                })?;
                let mask = Mask::new(size[0], size[1], inside)?;
                found.push(GeneratedMask {
                    runs: Runs::from(&mask),
                    bounds: mask.bounds(),
                    quality: predicted.qualities[choice],
                    stability: stability.share(),
                    prompt: Some(go * TOGETHER + at),
                    name: prompt.name.clone(),
                    point: None,
                });
            }
            clock.step(control);
        }
    }
    Ok(found)
}

/// Numbers of the masks that are given.
fn choice(predicted: &PredictedMasks, which: Which, prompt: &MaskPrompt) -> Vec<usize> {
    let qualities = &predicted.qualities;
    let several = 1..qualities.len();
    let lone = prompt.points.len() == 1 && prompt.bounds.is_none();
    match which {
        Which::All if !several.is_empty() => several.collect(),
        Which::Best | Which::Auto if which == Which::Best || lone => {
            let best = several.max_by(|a, b| qualities[*a].total_cmp(&qualities[*b]));
            vec![best.unwrap_or(0)]
        }
        _ => vec![0],
    }
}

fn everything(
    segmenter: &mut Segmenter,
    settings: &Everything,
    picture: &Picture,
    seen: bool,
    control: &Control,
) -> Result<Vec<GeneratedMask>> {
    let total = settings.batches([picture.width, picture.height]);
    control.stage("decode", Work::Run, total);
    let mut watched = Watched {
        segmenter,
        seen,
        control,
        clock: StepClock::new(total),
    };
    let found = settings.find(&mut watched, picture)?;
    let generated = |found: FoundMask| {
        let some = found.runs.area() > 0;
        GeneratedMask {
            bounds: some.then_some(found.bounds),
            runs: found.runs,
            quality: found.quality,
            stability: found.stability,
            prompt: None,
            name: None,
            point: Some(found.point),
        }
    };
    Ok(found.into_iter().map(generated).collect())
}

/// A segmenter that reports how far it is, and can be stopped.
struct Watched<'a> {
    segmenter: &'a mut Segmenter,
    /// Whether the one picture is looked at already.
    seen: bool,
    control: &'a Control,
    clock: StepClock,
}

impl SegmentPoints for Watched<'_> {
    fn look(&mut self, picture: &Picture) -> Result<()> {
        self.control.check()?;
        match self.seen {
            true => Ok(()),
            false => self.segmenter.look(picture),
        }
    }

    fn masks(&mut self, points: &[[f64; 2]]) -> Result<Vec<PointMasks>> {
        self.control.check()?;
        let masks = SegmentPoints::masks(self.segmenter, points)?;
        self.clock.step(self.control);
        Ok(masks)
    }
}
