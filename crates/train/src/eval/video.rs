//! How well a model of clips makes emoji move: whether each clip shows the motion asked for, begins with the frame it was
//! given, does not flicker, and is distributed as true clips are.

use std::sync::OnceLock;

use brisk_media::{Filter, Picture, psnr, resize_pil};
use brisk_pipelines::events::{StepClock, Work};
use brisk_pipelines::reproduce::ClipFigures;
use brisk_pipelines::{Control, EvaluationClips, KnownClip};
use serde::Serialize;

use super::MAX_PSNR;
use super::frechet::{FEATURES, RandomFeatures, frechet_distance};
use super::samples;
use crate::checker::SceneChecker;
use crate::data::motion::{Motion, MotionScene, MotionVerdict, judge};
use crate::data::scenes::{Drawings, Split};
use crate::error::{Error, Result};

/// Seed of the scenes that models are asked for; no training draws by it.
const FRESH: u64 = 0x6672_6573_6821;
/// Frames of a clip that its features are made of, and parts of each a side.
const SEEN: [usize; 2] = [8, 4];

/// Clips whose motion is known.
pub trait TrueClips {
    /// How many there are.
    fn count(&self) -> usize;

    /// One of them.
    ///
    /// # Errors
    /// One that cannot be drawn.
    fn clip(&self, index: usize) -> Result<TrueClip>;

    /// As many others of the same law, if there are.
    ///
    /// # Errors
    /// One that cannot be drawn.
    fn other(&self, index: usize) -> Result<Option<Vec<Picture>>>;
}

/// A clip whose motion is known.
#[derive(Debug, Clone, PartialEq)]
pub struct TrueClip {
    /// What is in it and what that does.
    pub caption: String,
    /// What it does.
    pub motion: Motion,
    /// Whether no clip of training has this pair of object and motion.
    pub held_out: bool,
    /// Its frames.
    pub frames: Vec<Picture>,
}

/// Clips that are drawn as they are needed: of pairs of object and motion that are held out, and as many of others.
#[derive(Clone, Copy)]
pub struct DrawnClips<'a> {
    /// What is drawn.
    pub drawings: &'a Drawings,
    /// Clips of either part.
    pub each: usize,
    /// Width and height in pixels.
    pub size: usize,
    /// Frames of each.
    pub frames: usize,
}

impl DrawnClips<'_> {
    fn scene(&self, index: usize, further: usize) -> (MotionScene, Split) {
        let (split, part) = match index < self.each {
            true => (Split::HeldOut, 0),
            false => (Split::Training, 1),
        };
        let number = match further {
            0 => index - part * self.each,
            // Numbers that neither part of the clips themselves has.
            _ => index + self.each,
        };
        (MotionScene::draw(FRESH, number as u64, split), split)
    }

    /// All of them, for a model's folder.
    ///
    /// # Errors
    /// One that cannot be drawn.
    pub fn known(&self) -> Result<EvaluationClips> {
        let clips = (0..self.count()).map(|index| {
            let clip = self.clip(index)?;
            Ok(KnownClip {
                caption: clip.caption,
                motion: clip.motion.words().to_owned(),
                held_out: clip.held_out,
                frames: clip.frames,
            })
        });
        Ok(EvaluationClips(clips.collect::<Result<_>>()?))
    }
}

impl TrueClips for DrawnClips<'_> {
    fn count(&self) -> usize {
        2 * self.each
    }

    fn clip(&self, index: usize) -> Result<TrueClip> {
        let (scene, split) = self.scene(index, 0);
        Ok(TrueClip {
            caption: scene.caption(),
            motion: scene.motion,
            held_out: split == Split::HeldOut,
            frames: scene.render(self.drawings, self.frames, self.size)?,
        })
    }

    fn other(&self, index: usize) -> Result<Option<Vec<Picture>>> {
        let (scene, _) = self.scene(index, 1);
        Ok(Some(scene.render(self.drawings, self.frames, self.size)?))
    }
}

/// Clips that a model's folder brings along.
impl TrueClips for EvaluationClips {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn clip(&self, index: usize) -> Result<TrueClip> {
        let known = &self.0[index];
        let motion = Motion::of_words(&known.motion).ok_or_else(|| {
            let all: Vec<&str> = Motion::ALL.iter().map(|motion| motion.words()).collect();
            Error::Data(format!(
                "{}: clip {index} has the motion {:?}; expected one of {}",
                Self::CAPTIONS,
                known.motion,
                all.join(", ")
            ))
        })?;
        Ok(TrueClip {
            caption: known.caption.clone(),
            motion,
            held_out: known.held_out,
            frames: known.frames.clone(),
        })
    }

    fn other(&self, _index: usize) -> Result<Option<Vec<Picture>>> {
        Ok(None)
    }
}

/// The clips of one part of the split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct VideoShare {
    /// Clips.
    pub clips: usize,
    /// Share of them that show the motion asked for.
    pub motion_right: f64,
    /// The same of true clips: what the tracker makes of the truth.
    pub truth_right: f64,
    /// Share of them in which the tracker sees any motion.
    pub moving: f64,
    /// Mean PSNR of first frames against those that were given, dB.
    pub first_frame_psnr: f64,
    /// Mean absolute difference of a frame's values from the frame before, 0 to 255.
    pub change: f64,
    /// The same of true clips: less in a drawn clip is one that stands still, more is one that flickers.
    pub truth_change: f64,
}

impl VideoShare {
    /// Adds a clip that is drawn, and the true one.
    fn add(&mut self, drawn: &[Picture], truth: &TrueClip, verdict: MotionVerdict) -> Result<()> {
        let right = |found: MotionVerdict| f64::from(u8::from(found.shows(&truth.caption)));
        let (Some(first), Some(given)) = (drawn.first(), truth.frames.first()) else {
            return Err(Error::Data(
                "the model drew a clip without frames".to_owned(),
            ));
        };
        self.clips += 1;
        self.motion_right += right(verdict);
        self.truth_right += right(judge(&truth.frames));
        self.moving += f64::from(u8::from(verdict.motion.is_some()));
        self.first_frame_psnr += psnr(first, &fitted(given, first)?)?.min(MAX_PSNR);
        self.change += change(drawn);
        self.truth_change += change(&truth.frames);
        Ok(())
    }

    /// Means of the sums.
    fn means(self) -> Self {
        let of = |sum: f64| sum / self.clips.max(1) as f64;
        Self {
            clips: self.clips,
            motion_right: of(self.motion_right),
            truth_right: of(self.truth_right),
            moving: of(self.moving),
            first_frame_psnr: of(self.first_frame_psnr),
            change: of(self.change),
            truth_change: of(self.truth_change),
        }
    }
}

/// One clip's result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JudgedClip {
    /// What was asked for.
    pub caption: String,
    /// The motion in it.
    pub motion: Motion,
    /// Whether no clip of training has this pair of object and motion.
    pub held_out: bool,
    /// What the tracker found.
    pub verdict: MotionVerdict,
}

/// Result of [`evaluate_video`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VideoEvaluationReport {
    /// Pairs of object and motion that no clip of training has.
    pub held_out: VideoShare,
    /// Other pairs.
    pub trained: VideoShare,
    /// Fréchet distance of drawn from true clips of both parts, by what the checker of scenes sees.
    pub frechet_distance: f64,
    /// The same between true clips and as many others, where there are others: what is left of two samples of one law.
    pub truth_frechet_distance: Option<f64>,
    /// Share right of each motion.
    pub motions: Vec<(Motion, f64)>,
    /// Every clip.
    pub clips: Vec<JudgedClip>,
}

impl VideoEvaluationReport {
    /// A mean over both parts.
    pub fn mean(&self, of: impl Fn(&VideoShare) -> f64) -> f64 {
        let parts = [&self.held_out, &self.trained];
        let count: usize = parts.iter().map(|part| part.clips).sum();
        let sum: f64 = parts.iter().map(|part| of(part) * part.clips as f64).sum();
        sum / count.max(1) as f64
    }
}

impl From<&VideoEvaluationReport> for ClipFigures {
    fn from(report: &VideoEvaluationReport) -> Self {
        Self {
            motion_right: report.mean(|part| part.motion_right),
            moving: report.mean(|part| part.moving),
            first_frame_psnr: report.mean(|part| part.first_frame_psnr),
            change: report.mean(|part| part.change),
            truth_change: report.mean(|part| part.truth_change),
            frechet_distance: report.frechet_distance,
        }
    }
}

/// Draws one clip by a caption, a first frame and a seed.
pub type GenerateClip<'a> = dyn FnMut(&str, &Picture, u64) -> Result<Vec<Picture>> + 'a;

/// Asks for clips, and measures what is drawn; `see` gets each with its result.
///
/// # Errors
/// What `generate` refuses, too few clips for a distance, or a cancellation.
pub fn evaluate_video(
    truths: &dyn TrueClips,
    control: &Control,
    generate: &mut GenerateClip,
    see: &mut dyn FnMut(&[Picture], &JudgedClip),
) -> Result<VideoEvaluationReport> {
    let count = truths.count();
    if count <= FEATURES {
        return Err(Error::Data(format!(
            "{count} clips; the distance between {FEATURES} features needs more than {FEATURES}"
        )));
    }
    control.stage("clips", Work::Run, count);
    let mut clock = StepClock::new(count);
    let features = ClipFeatures::new()?;
    let (mut drawn, mut of_truth, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let (mut judged, mut held_out, mut trained) =
        (Vec::new(), VideoShare::default(), VideoShare::default());
    let mut seeds = [0u64; 2];
    for index in 0..count {
        control.check()?;
        let truth = truths.clip(index)?;
        let Some(given) = truth.frames.first() else {
            return Err(Error::Data(format!("true clip {index} has no frames")));
        };
        let seed = &mut seeds[usize::from(truth.held_out)];
        let clip = generate(&truth.caption, given, *seed)?;
        *seed += 1;
        let verdict = judge(&clip);
        let share = match truth.held_out {
            true => &mut held_out,
            false => &mut trained,
        };
        share.add(&clip, &truth, verdict)?;
        drawn.push(features.of(&clip)?);
        of_truth.push(features.of(&truth.frames)?);
        if let Some(other) = truths.other(index)? {
            others.push(features.of(&other)?);
        }
        let result = JudgedClip {
            caption: truth.caption,
            motion: truth.motion,
            held_out: truth.held_out,
            verdict,
        };
        see(&clip, &result);
        judged.push(result);
        clock.step(control);
    }
    let motions = Motion::ALL.into_iter().filter_map(|motion| {
        let of: Vec<&JudgedClip> = judged.iter().filter(|clip| clip.motion == motion).collect();
        let right = of.iter().filter(|clip| clip.verdict.shows(&clip.caption));
        (!of.is_empty()).then(|| (motion, right.count() as f64 / of.len() as f64))
    });
    let motions = motions.collect();
    Ok(VideoEvaluationReport {
        held_out: held_out.means(),
        trained: trained.means(),
        frechet_distance: frechet_distance(&drawn, &of_truth)?,
        truth_frechet_distance: match others.is_empty() {
            true => None,
            false => Some(frechet_distance(&others, &of_truth)?),
        },
        motions,
        clips: judged,
    })
}

/// Fréchet distance of drawn from true clips, in the space of [`evaluate_video`].
///
/// # Errors
/// Fewer than two of either, or clips without frames.
pub(crate) fn clip_distance(drawn: &[Vec<Picture>], truths: &[Vec<Picture>]) -> Result<f64> {
    let features = ClipFeatures::new()?;
    let of = |clips: &[Vec<Picture>]| -> Result<Vec<Vec<f64>>> {
        clips.iter().map(|clip| features.of(clip)).collect()
    };
    frechet_distance(&of(drawn)?, &of(truths)?)
}

/// The space in which clips are compared: random directions, the same everywhere, of what the checker of scenes sees in
/// the parts of some frames. It sees what is where and when, and whether it is sharp.
struct ClipFeatures {
    checker: SceneChecker,
    directions: OnceLock<RandomFeatures>,
}

impl ClipFeatures {
    fn new() -> Result<Self> {
        Ok(Self {
            checker: SceneChecker::in_the_box()?,
            directions: OnceLock::new(),
        })
    }

    fn of(&self, frames: &[Picture]) -> Result<Vec<f64>> {
        let [count, parts] = SEEN;
        let Some(last) = frames.len().checked_sub(1) else {
            return Err(Error::Data("a clip without frames".to_owned()));
        };
        let some = (0..count).map(|index| frames[index * last / (count - 1)].clone());
        let seen = samples::features(&self.checker, &some.collect::<Vec<_>>(), parts)?;
        let values: Vec<f32> = seen.concat().iter().map(|value| *value as f32).collect();
        let directions = self
            .directions
            .get_or_init(|| RandomFeatures::new(values.len()));
        Ok(directions.of(&values))
    }
}

/// A picture in another's size.
fn fitted(picture: &Picture, like: &Picture) -> Result<Picture> {
    match (picture.width, picture.height) == (like.width, like.height) {
        true => Ok(picture.clone()),
        false => Ok(resize_pil(
            picture,
            like.width,
            like.height,
            Filter::Lanczos,
        )?),
    }
}

/// Mean absolute difference between neighbouring frames.
fn change(frames: &[Picture]) -> f64 {
    let (mut sum, mut count) = (0f64, 0usize);
    for pair in frames.windows(2) {
        for (a, b) in pair[0].pixels.iter().zip(&pair[1].pixels) {
            sum += f64::from(a.abs_diff(*b));
            count += 1;
        }
    }
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scenes::packages;

    #[test]
    fn true_clips_are_right_and_still_ones_are_not() {
        let packages = packages(None);
        let drawings = Drawings::open(packages.path()).unwrap();
        let truths = DrawnClips {
            drawings: &drawings,
            each: 40,
            size: 32,
            frames: 9,
        };
        let known = truths.known().unwrap();
        assert_eq!(known.clip(7).unwrap(), truths.clip(7).unwrap());
        let mut count = 0;
        let mut evaluate = |truths: &dyn TrueClips, still: bool| {
            let mut asked = 0;
            let mut generate = |caption: &str, first: &Picture, index: u64| {
                let split = [Split::HeldOut, Split::Training][asked / 40];
                asked += 1;
                let scene = MotionScene::draw(FRESH, index, split);
                assert_eq!(scene.caption(), caption);
                Ok(match still {
                    true => vec![first.clone(); 9],
                    false => scene.render(&drawings, 9, 32)?,
                })
            };
            let quiet = Control::silent();
            evaluate_video(truths, &quiet, &mut generate, &mut |_, _| count += 1).unwrap()
        };
        let (moving, still) = (evaluate(&truths, false), evaluate(&known, true));
        assert_eq!(count, 160);
        for share in [&moving.held_out, &moving.trained] {
            assert_eq!(share.motion_right, share.truth_right);
            assert!(share.motion_right > 0.9, "{share:?}");
            assert_eq!(
                (share.first_frame_psnr, share.change),
                (100.0, share.truth_change)
            );
        }
        assert!(
            moving.frechet_distance.abs() < 1e-6,
            "{}",
            moving.frechet_distance
        );
        assert!(moving.truth_frechet_distance.unwrap() > 0.0);
        assert_eq!(still.truth_frechet_distance, None);
        assert_eq!((still.held_out.moving, still.trained.change), (0.0, 0.0));
        assert_eq!(ClipFigures::from(&still).motion_right, 0.0);
        assert!(ClipFigures::from(&moving).moving > 0.9);
        assert_eq!(still.held_out.first_frame_psnr, 100.0);
        assert!(still.frechet_distance > 0.01);
        assert_eq!(moving.clips.len(), 80);
        let few = DrawnClips { each: 1, ..truths };
        let refused = evaluate_video(
            &few,
            &Control::silent(),
            &mut |_, first, _| Ok(vec![first.clone()]),
            &mut |_, _| {},
        );
        assert!(refused.unwrap_err().to_string().contains("2 clips"));
    }

    /// What a text leaves open: clips that go another way than the true ones are nearer to these than clips of all ways at once.
    #[test]
    fn an_average_of_ways_is_farther_than_another_way() {
        let packages = packages(None);
        let drawings = Drawings::open(packages.path()).unwrap();
        let ways = [Motion::Left, Motion::Right, Motion::Up, Motion::Down];
        let (mut truths, mut others, mut averages) = (Vec::new(), Vec::new(), Vec::new());
        let scenes = (0..).map(|index| MotionScene::draw(FRESH, index, Split::Training));
        for scene in scenes.filter(|scene| !scene.told).take(60) {
            let clips = ways.map(|motion| {
                let scene = MotionScene {
                    motion,
                    ..scene.clone()
                };
                scene.render(&drawings, 9, 32).unwrap()
            });
            let own = ways.iter().position(|way| *way == scene.motion).unwrap();
            let mean = |frame: usize| {
                let pixels = (0..clips[0][frame].pixels.len()).map(|at| {
                    let sum: u32 = clips
                        .iter()
                        .map(|clip| u32::from(clip[frame].pixels[at]))
                        .sum();
                    (sum / 4) as u8
                });
                Picture::new(32, 32, pixels.collect()).unwrap()
            };
            averages.push((0..9).map(mean).collect::<Vec<_>>());
            others.push(clips[(own + 1) % 4].clone());
            truths.push(clips[own].clone());
        }
        let (other, average) = (
            clip_distance(&others, &truths).unwrap(),
            clip_distance(&averages, &truths).unwrap(),
        );
        assert!(average > 2.0 * other, "{average} {other}");
    }
}
