//! How well a model of clips makes emoji move: whether each clip shows the motion asked for, begins with the frame it was
//! given, does not flicker, and is distributed as true clips are.

use brisk_media::{Filter, Picture, psnr, resize_pil};
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use serde::Serialize;

use super::MAX_PSNR;
use super::frechet::{FEATURES, RandomFeatures, frechet_distance};
use crate::data::motion::{Motion, MotionScene, MotionVerdict, judge};
use crate::data::scenes::{Drawings, Split};
use crate::error::{Error, Result};
use crate::pictures;

/// Seed of the scenes that models are asked for; no training draws by it.
const FRESH: u64 = 0x6672_6573_6821;
/// Frames and side of a clip as its features see it.
const SEEN: [usize; 2] = [8, 16];

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct VideoEvaluation {
    /// Clips of pairs of object and motion that are held out, and as many of others.
    pub clips: usize,
    /// Width and height of the true clips in pixels.
    pub size: usize,
    /// Frames of the true clips.
    pub frames: usize,
}

/// The clips of one part of the split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VideoShare {
    /// Clips.
    pub clips: usize,
    /// Share of them that show the motion asked for.
    pub motion_right: f64,
    /// The same of true clips: what the tracker makes of the truth.
    pub truth_right: f64,
    /// Mean PSNR of first frames against those that were given, dB.
    pub first_frame_psnr: f64,
    /// Mean absolute difference of a frame's values from the frame before, 0 to 255.
    pub change: f64,
    /// The same of true clips: less in a drawn clip is one that stands still, more is one that flickers.
    pub truth_change: f64,
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
    /// Fréchet distance of drawn from true clips of both parts in a fixed space of random features.
    pub frechet_distance: f64,
    /// The same between true clips and as many others: what is left of two samples of one law.
    pub truth_frechet_distance: f64,
    /// Share right of each motion.
    pub motions: Vec<(Motion, f64)>,
    /// Every clip.
    pub clips: Vec<JudgedClip>,
}

/// Draws one clip by a caption, a first frame and a seed.
pub type GenerateClip<'a> = dyn FnMut(&str, &Picture, u64) -> Result<Vec<Picture>> + 'a;

/// Asks for clips, and measures what is drawn; `see` gets each with its result.
///
/// # Errors
/// What `generate` refuses, no clips or sizes that cannot be drawn, or a cancellation.
pub fn evaluate_video(
    drawings: &Drawings,
    evaluation: &VideoEvaluation,
    control: &Control,
    generate: &mut GenerateClip,
    see: &mut dyn FnMut(&[Picture], &JudgedClip),
) -> Result<VideoEvaluationReport> {
    let VideoEvaluation {
        clips,
        size,
        frames,
    } = *evaluation;
    if 2 * clips <= FEATURES {
        return Err(Error::Data(format!(
            "{clips} clips of each part; the distance between {FEATURES} features needs more than {}",
            FEATURES / 2
        )));
    }
    control.stage("clips", Work::Run, 2 * clips);
    let mut clock = StepClock::new(2 * clips);
    let features = RandomFeatures::new(SEEN[0] * SEEN[1] * SEEN[1] * 3);
    let (mut drawn, mut truths, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let mut judged = Vec::new();
    let mut shares = Vec::new();
    for (part, split) in [Split::HeldOut, Split::Training].into_iter().enumerate() {
        let mut share = VideoShare {
            clips,
            motion_right: 0.0,
            truth_right: 0.0,
            first_frame_psnr: 0.0,
            change: 0.0,
            truth_change: 0.0,
        };
        for index in 0..clips as u64 {
            control.check()?;
            let scene = MotionScene::draw(FRESH, index, split);
            let truth = scene.render(drawings, frames, size)?;
            let clip = generate(&scene.caption(), &truth[0], index)?;
            let Some(first) = clip.first() else {
                return Err(Error::Data(
                    "the model drew a clip without frames".to_owned(),
                ));
            };
            let verdict = judge(&clip);
            let result = JudgedClip {
                caption: scene.caption(),
                motion: scene.motion,
                held_out: split == Split::HeldOut,
                verdict,
            };
            let given = fitted(&truth[0], first)?;
            let add = |sum: &mut f64, value: f64| *sum += value / clips as f64;
            let right =
                |found: MotionVerdict| f64::from(u8::from(found.motion == Some(scene.motion)));
            add(&mut share.motion_right, right(verdict));
            add(&mut share.truth_right, right(judge(&truth)));
            add(
                &mut share.first_frame_psnr,
                psnr(first, &given)?.min(MAX_PSNR),
            );
            add(&mut share.change, change(&clip));
            add(&mut share.truth_change, change(&truth));
            drawn.push(features.of(&seen(&clip)?));
            truths.push(features.of(&seen(&truth)?));
            let other = MotionScene::draw(FRESH, (clips * (part + 1)) as u64 + index, split);
            others.push(features.of(&seen(&other.render(drawings, frames, size)?)?));
            see(&clip, &result);
            judged.push(result);
            clock.step(control);
        }
        shares.push(share);
    }
    let motions = Motion::ALL.into_iter().filter_map(|motion| {
        let of: Vec<&JudgedClip> = judged.iter().filter(|clip| clip.motion == motion).collect();
        let right = of.iter().filter(|clip| clip.verdict.motion == Some(motion));
        (!of.is_empty()).then(|| (motion, right.count() as f64 / of.len() as f64))
    });
    let motions = motions.collect();
    let [held_out, trained] = <[VideoShare; 2]>::try_from(shares)
        .map_err(|_| Error::Data("two parts were measured".to_owned()))?;
    Ok(VideoEvaluationReport {
        held_out,
        trained,
        frechet_distance: frechet_distance(&drawn, &truths)?,
        truth_frechet_distance: frechet_distance(&others, &truths)?,
        motions,
        clips: judged,
    })
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

/// A clip as its features see it: some frames, small, in −1..1.
fn seen(frames: &[Picture]) -> Result<Vec<f32>> {
    let [count, side] = SEEN;
    let mut values = Vec::with_capacity(count * side * side * 3);
    for index in 0..count {
        let at = index * (frames.len() - 1) / (count - 1);
        let small = resize_pil(&frames[at], side, side, Filter::Bilinear)?;
        values.extend(pictures::signed(&small));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scenes::packages;

    #[test]
    fn true_clips_are_right_and_still_ones_are_not() {
        let packages = packages(None);
        let drawings = Drawings::open(packages.path()).unwrap();
        let evaluation = VideoEvaluation {
            clips: 40,
            size: 32,
            frames: 9,
        };
        let mut count = 0;
        let mut evaluate = |still: bool| {
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
            evaluate_video(
                &drawings,
                &evaluation,
                &quiet,
                &mut generate,
                &mut |_, _| count += 1,
            )
            .unwrap()
        };
        let (moving, still) = (evaluate(false), evaluate(true));
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
        assert!(moving.truth_frechet_distance > 0.0);
        assert_eq!(
            (still.held_out.motion_right, still.trained.change),
            (0.0, 0.0)
        );
        assert_eq!(still.held_out.first_frame_psnr, 100.0);
        assert!(still.frechet_distance > 0.01);
        assert_eq!(moving.clips.len(), 80);
        let few = VideoEvaluation {
            clips: 1,
            ..evaluation
        };
        let refused = evaluate_video(
            &drawings,
            &few,
            &Control::silent(),
            &mut |_, first, _| Ok(vec![first.clone()]),
            &mut |_, _| {},
        );
        assert!(refused.unwrap_err().to_string().contains("1 clips"));
    }
}
