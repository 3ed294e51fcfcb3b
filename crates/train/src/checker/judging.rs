//! The checker as a judge of pictures of scenes.

use brisk_media::Picture;
use brisk_pipelines::judging::{Judge, Judgement};
use brisk_pipelines::{Control, Error, Result};

use super::model::SceneChecker;
use super::verdict::{Sighting, certainty, judge_asked};
use crate::data::scenes::Asked;

/// Judges pictures by prompts in the words of scenes.
pub struct SceneJudge {
    checker: SceneChecker,
    label: String,
}

impl SceneJudge {
    /// `label` names it in reports.
    pub fn new(checker: SceneChecker, label: impl Into<String>) -> Self {
        Self {
            checker,
            label: label.into(),
        }
    }

    fn asked(&self, prompt: &str) -> Result<Asked> {
        Asked::read(prompt).ok_or_else(|| {
            Error::request(
                "prompt",
                format!(
                    "{:?} is not in the words of scenes, which {} judges by; it reads \"a cat\", \"a red cat and a \
                     blue balloon\", \"three sheep\", \"a dog left of a tree\"",
                    brisk_store::shown(prompt),
                    self.label
                ),
            )
        })
    }
}

impl Judge for SceneJudge {
    fn name(&self) -> String {
        self.label.clone()
    }

    fn check(&self, prompt: &str) -> Result<()> {
        self.asked(prompt).map(drop)
    }

    fn judge(
        &mut self,
        prompt: &str,
        pictures: &[Picture],
        control: &Control,
    ) -> Result<Vec<Judgement>> {
        let asked = self.asked(prompt)?;
        control.check()?;
        let wrong = |error: crate::Error| Error::folder(&self.label, error.to_string());
        let seen = self.checker.look(pictures).map_err(wrong)?;
        let judgements = seen.iter().map(|seen| {
            let verdict = judge_asked(&asked, seen);
            let seen_words: Vec<String> = seen.iter().map(Sighting::describe).collect();
            Judgement {
                yes: verdict.right,
                score: certainty(&asked, seen, verdict.right),
                said: match verdict.right {
                    true => seen_words.join("; "),
                    false => verdict.fault,
                },
            }
        });
        Ok(judgements.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scenes::Colour;

    #[test]
    fn what_is_surer_and_what_lacks_less_is_better() {
        let sighting = |object: usize, colour: Colour, likelihood: f32| Sighting {
            object,
            colour,
            centre: (0.5, 0.5),
            likelihood,
        };
        let judged = |asked: &str, seen: &[Sighting]| {
            let asked = Asked::read(asked).unwrap();
            let verdict = judge_asked(&asked, seen);
            Judgement {
                yes: verdict.right,
                score: certainty(&asked, seen, verdict.right),
                said: verdict.fault,
            }
        };
        let both = "a red cat and a blue dog";
        let (cat, dog) = (
            sighting(0, Colour::Red, 0.9),
            sighting(1, Colour::Blue, 0.6),
        );
        let right = judged(both, &[cat, dog]);
        assert!(right.yes && (right.score - 0.6).abs() < 1e-6);
        let wrong_colour = judged(both, &[cat, sighting(1, Colour::Red, 0.9)]);
        let one = judged(both, &[cat]);
        assert!(right.quality(&wrong_colour).is_gt() && wrong_colour.quality(&one).is_gt());
        assert!(one.quality(&judged(both, &[])).is_gt());
        let cats = |count: usize| vec![cat; count];
        let (three, four) = (judged("two cats", &cats(3)), judged("two cats", &cats(4)));
        assert!(!three.yes && three.quality(&four).is_gt());
    }
}
