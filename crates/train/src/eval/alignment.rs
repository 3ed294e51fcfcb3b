//! How well pictures follow their prompts: the share in which everything that was asked for is seen, by kind of
//! prompt and apart for combinations that no training scene shows, as GenEval counts (arXiv 2310.11513).

use std::collections::HashSet;

use brisk_media::Picture;
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use serde::Serialize;

use crate::checker::{SceneChecker, Sighting, Verdict, judge};
use crate::data::scenes::{Kind, Scene, Split};
use crate::error::{Error, Result};

/// Seed of the scenes whose captions are the prompts.
const PROMPTS: u64 = 0x7072_6f6d_7074;
/// Draws after which a kind is taken to have no more different prompts.
const TRIES: u64 = 4000;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct AlignmentOptions {
    /// Different prompts of each kind and part at most; some kinds have fewer that are held out.
    pub prompts: usize,
    /// Pictures of each prompt.
    pub seeds: usize,
    /// The first picture's seed; further ones follow.
    pub seed: u64,
    /// Prompts that are drawn together.
    pub batch: usize,
}

/// One picture and what was seen in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// Kind of the prompt.
    pub kind: Kind,
    /// Whether its combination is held out from training scenes.
    pub held_out: bool,
    /// What was asked for.
    pub prompt: String,
    /// Seed of the picture.
    pub seed: u64,
    /// What was seen, in words.
    pub seen: Vec<String>,
    /// The judgement.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// A share with what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// Different prompts.
    pub prompts: usize,
    /// Pictures.
    pub pictures: usize,
    /// Share of the pictures that are right.
    pub share: f64,
    /// Wilson's 95 % interval of it.
    pub interval: (f64, f64),
}

impl Share {
    /// Of so many right pictures.
    fn of(prompts: usize, pictures: usize, right: usize) -> Self {
        let n = pictures.max(1) as f64;
        let (share, z) = (right as f64 / n, 1.96);
        let middle = share + z * z / (2.0 * n);
        let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z * z / n;
        Self {
            prompts,
            pictures,
            share,
            interval: (
                (middle - half).max(0.0) / scale,
                ((middle + half) / scale).min(1.0),
            ),
        }
    }
}

/// Result of [`evaluate_alignment`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlignmentReport {
    /// Every kind: held-out combinations, then those of training.
    pub kinds: Vec<(Kind, Share, Share)>,
    /// Mean over the kinds of the held-out shares; a single object is never held out and counts as it is.
    pub held_out: f64,
    /// The same of training combinations.
    pub trained: f64,
    /// Every picture's judgement.
    pub judged: Vec<Judged>,
}

/// Draws one picture a prompt from a seed.
pub type Draw<'a> = dyn FnMut(&[String], u64) -> Result<Vec<Picture>> + 'a;

/// Asks a model for scenes by their plain captions and judges what it draws. `control` hears how many pictures
/// are done; `keep` gets every picture with its judgement.
///
/// # Errors
/// A cancellation, pictures of another number, or whatever `draw` returns.
pub fn evaluate_alignment(
    checker: &SceneChecker,
    options: &AlignmentOptions,
    control: &Control,
    draw: &mut Draw<'_>,
    keep: &mut dyn FnMut(&Picture, &Judged),
) -> Result<AlignmentReport> {
    let parts = [Split::HeldOut, Split::Training];
    let asked: Vec<(Kind, Split, Vec<Scene>)> = Kind::ALL
        .iter()
        .flat_map(|kind| parts.map(|split| (*kind, split, prompts(*kind, split, options.prompts))))
        .collect();
    let all: usize = asked.iter().map(|(_, _, scenes)| scenes.len()).sum();
    control.stage("drawing", Work::Run, all * options.seeds);
    let mut clock = StepClock::new(all * options.seeds);
    let mut judged = Vec::new();
    let mut shares = Vec::new();
    for (kind, split, scenes) in &asked {
        let mut right = 0;
        for seed in (0..options.seeds as u64).map(|offset| options.seed.wrapping_add(offset)) {
            for group in scenes.chunks(options.batch.max(1)) {
                control.check()?;
                let captions: Vec<String> = group.iter().map(|scene| scene.caption(0)).collect();
                let pictures = draw(&captions, seed)?;
                if pictures.len() != captions.len() {
                    return Err(Error::Data(format!(
                        "{} pictures for {} prompts",
                        pictures.len(),
                        captions.len()
                    )));
                }
                let seen = checker.look(&pictures)?;
                for (((scene, prompt), picture), seen) in
                    group.iter().zip(captions).zip(&pictures).zip(seen)
                {
                    let verdict = judge(scene, &seen);
                    right += usize::from(verdict.right);
                    let one = Judged {
                        kind: *kind,
                        held_out: *split == Split::HeldOut,
                        prompt,
                        seed,
                        seen: seen.iter().map(Sighting::describe).collect(),
                        verdict,
                    };
                    keep(picture, &one);
                    judged.push(one);
                }
                clock.steps(group.len(), control);
            }
        }
        shares.push(Share::of(scenes.len(), scenes.len() * options.seeds, right));
    }
    let kinds: Vec<_> = Kind::ALL
        .iter()
        .zip(shares.chunks_exact(2))
        .map(|(kind, pair)| (*kind, pair[0], pair[1]))
        .collect();
    let mean = |of: &dyn Fn(&(Kind, Share, Share)) -> f64| {
        kinds.iter().map(of).sum::<f64>() / kinds.len() as f64
    };
    Ok(AlignmentReport {
        held_out: mean(&|kind| kind.1.share),
        trained: mean(&|kind| kind.2.share),
        kinds,
        judged,
    })
}

/// Plain captions of held-out combinations, at most `count` of each kind.
pub fn held_out_prompts(count: usize) -> Vec<String> {
    let scenes = Kind::ALL
        .iter()
        .flat_map(|kind| prompts(*kind, Split::HeldOut, count));
    scenes.map(|scene| scene.caption(0)).collect()
}

/// Scenes of a kind and part with different plain captions.
fn prompts(kind: Kind, split: Split, count: usize) -> Vec<Scene> {
    let mut known = HashSet::new();
    (0..TRIES)
        .map(|index| Scene::draw(PROMPTS, index, Some(kind), split))
        .filter(|scene| known.insert(scene.caption(0)))
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_differ_and_are_of_their_part() {
        for kind in Kind::ALL {
            let held_out = prompts(kind, Split::HeldOut, 12);
            assert_eq!(held_out.len(), 12, "{kind:?}");
            let captions: HashSet<_> = held_out.iter().map(|scene| scene.caption(0)).collect();
            assert_eq!(captions.len(), 12);
        }
        assert!(prompts(Kind::Counting, Split::HeldOut, 1000).len() < 40);
    }

    #[test]
    fn intervals_hold_their_share() {
        let share = Share::of(10, 40, 30);
        assert_eq!(share.share, 0.75);
        // Wilson's interval of 30 of 40.
        assert!((share.interval.0 - 0.598).abs() < 2e-3 && (share.interval.1 - 0.858).abs() < 2e-3);
        assert_eq!(Share::of(1, 4, 0).interval.0, 0.0);
    }
}
