//! Captions of pictures, and what they are learned from.

use std::collections::BTreeSet;

use brisk_pipelines::{EvaluationPictures, KnownPrompts, NamedPicture};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::pictures::{PictureData, PictureEntry, ScoredCaption};
use crate::error::{Error, Result};
use crate::eval::spread_over;
use crate::pictures;
use crate::recipe::require;
use crate::rng::Rng;

/// Pictures of either kind that a model brings along to be measured by.
const MEASURED: usize = 96;
/// Keywords that a caption adds at most.
const MAX_TAGS: usize = 4;

/// The text a tokenizer is trained on.
pub(crate) fn lines(data: &PictureData, training: &[usize]) -> Vec<String> {
    training
        .iter()
        .map(|index| {
            let entry = &data.entries()[*index];
            let mut line = entry.name.clone();
            let scored = entry.captions.iter().map(|caption| &caption.text);
            for further in entry.tags.iter().chain(scored) {
                line.push_str(", ");
                line.push_str(further);
            }
            line.to_lowercase()
        })
        .collect()
}

/// The size of the vocabulary that the keys of a text encoder's configuration say.
///
/// # Errors
/// There is none.
pub(crate) fn vocabulary(text_encoder: &Value) -> Result<usize> {
    vocabulary_of("text_encoder", text_encoder)
}

/// The same of the keys of any part of a recipe.
///
/// # Errors
/// There is none.
pub(crate) fn vocabulary_of(part: &str, keys: &Value) -> Result<usize> {
    let count = keys.get("vocab_size").and_then(Value::as_u64);
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| Error::Recipe(format!("{part}.vocab_size is missing; expected a number")))
}

/// What a model that was trained on these pictures knows.
pub(crate) fn known(data: &PictureData, training: &[usize]) -> KnownPrompts {
    let entries = || training.iter().map(|index| &data.entries()[*index]);
    let names: BTreeSet<String> = entries().map(|entry| entry.name.clone()).collect();
    let further = entries().flat_map(|entry| {
        let scored = entry.captions.iter().map(|caption| caption.text.clone());
        entry.tags.iter().cloned().chain(scored)
    });
    KnownPrompts::new(names.into_iter().collect(), further)
}

/// What a model that was trained on these pictures can be measured by: some of them, and some of those that are held out,
/// spread over the data, whose neighbours look alike; no name twice.
pub(crate) fn evaluation(
    data: &PictureData,
    training: &[usize],
    held_out: &[usize],
) -> Result<EvaluationPictures> {
    let some = |indices: &[usize]| {
        let mut names = BTreeSet::new();
        let mut own = indices.to_vec();
        own.retain(|index| names.insert(&data.entries()[*index].name));
        let named = spread_over(&own, MEASURED).into_iter().map(|index| {
            Ok(NamedPicture {
                prompt: data.entries()[index].name.clone(),
                picture: pictures::original(data, index)?,
            })
        });
        named.collect::<Result<Vec<_>>>()
    };
    Ok(EvaluationPictures {
        trained: some(training)?,
        held_out: some(held_out)?,
    })
}

/// By which law a caption is drawn by its score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreLaw {
    /// With the probability of its score to the power of one by the temperature, among those of the least score or more;
    /// where there are none, the best. SANA's program does so.
    #[default]
    Power,
    /// With that of the exponential of its score by the temperature, among all, as in SANA's paper (arXiv 2410.10629).
    Softmax,
}

/// How one of several captions with scores is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionScores {
    /// The law.
    #[serde(default)]
    pub law: ScoreLaw,
    /// The lower, the more the best is preferred; below 0.01 as 0.01.
    pub temperature: f64,
    /// Least score of captions that [`ScoreLaw::Power`] draws.
    pub least: f64,
}

impl Default for CaptionScores {
    /// SANA's configurations.
    fn default() -> Self {
        Self {
            law: ScoreLaw::Power,
            temperature: 0.1,
            least: 25.0,
        }
    }
}

/// Least temperature.
const COLDEST: f64 = 0.01;

impl CaptionScores {
    /// Refuses values that cannot be drawn by.
    pub(crate) fn validate(&self) -> Result<()> {
        let fits = (0.0..=1000.0).contains(&self.temperature);
        require(
            fits,
            "caption_scores.temperature",
            self.temperature,
            "0 to 1000",
        )?;
        let fits = self.least.is_finite();
        require(fits, "caption_scores.least", self.least, "a number")
    }

    fn draw<'a>(&self, captions: &'a [ScoredCaption], rng: &mut Rng) -> Option<&'a str> {
        let best = captions
            .iter()
            .max_by(|a, b| a.score.total_cmp(&b.score))?
            .score;
        let temperature = self.temperature.max(COLDEST);
        // Relative to the best, so that nothing overflows.
        let weight = |score: f64| match self.law {
            ScoreLaw::Power if score < self.least || best <= 0.0 => 0.0,
            ScoreLaw::Power => (score.max(0.0) / best).powf(1.0 / temperature),
            ScoreLaw::Softmax => ((score - best) / temperature).exp(),
        };
        let weights: Vec<f64> = captions
            .iter()
            .map(|caption| weight(caption.score))
            .collect();
        let sum: f64 = weights.iter().sum();
        let mut left = rng.uniform() * sum;
        let drawn = captions.iter().zip(&weights).find(|(_, weight)| {
            left -= **weight;
            **weight > 0.0 && left <= 0.0
        });
        let best = || captions.iter().find(|caption| caption.score == best);
        let drawn = drawn.map(|(caption, _)| caption).or_else(best);
        drawn.map(|caption| caption.text.as_str())
    }
}

/// A caption: one of those with scores where there are any; else for a share of `name_probability` the name alone, or
/// with some keywords.
pub(crate) fn caption(
    entry: &PictureEntry,
    name_probability: f64,
    scores: &CaptionScores,
    rng: &mut Rng,
) -> String {
    if !entry.captions.is_empty()
        && let Some(drawn) = scores.draw(&entry.captions, rng)
    {
        return drawn.to_owned();
    }
    let mut caption = entry.name.clone();
    if rng.chance(name_probability) || entry.tags.is_empty() {
        return caption;
    }
    let count = 1 + rng.below(entry.tags.len().min(MAX_TAGS));
    for position in rng.permutation(entry.tags.len()).into_iter().take(count) {
        caption.push_str(", ");
        caption.push_str(&entry.tags[position]);
    }
    caption
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(scores: &CaptionScores, captions: &[(&str, f64)]) -> Vec<f64> {
        let captions: Vec<ScoredCaption> = captions
            .iter()
            .map(|(text, score)| ScoredCaption {
                text: (*text).to_owned(),
                score: *score,
            })
            .collect();
        let rng = &mut Rng::new(3);
        let mut counts = vec![0usize; captions.len()];
        for _ in 0..20_000 {
            let drawn = scores.draw(&captions, rng).unwrap();
            let index = captions.iter().position(|caption| caption.text == drawn);
            counts[index.unwrap()] += 1;
        }
        counts
            .iter()
            .map(|count| *count as f64 / 20_000.0)
            .collect()
    }

    #[test]
    fn captions_are_drawn_by_their_scores() {
        let all = [("a", 30.0), ("b", 27.0), ("c", 20.0)];
        let power = shares(&CaptionScores::default(), &all);
        // (27/30)^10 beside 1; the third is below 25.
        let second = 0.9f64.powi(10);
        assert!(
            (power[1] - second / (1.0 + second)).abs() < 0.015,
            "{power:?}"
        );
        assert_eq!(power[2], 0.0);
        let softmax = CaptionScores {
            law: ScoreLaw::Softmax,
            temperature: 3.0,
            ..CaptionScores::default()
        };
        let found = shares(&softmax, &all);
        let weights = [0.0f64, -1.0, -10.0 / 3.0].map(f64::exp);
        for (found, weight) in found.iter().zip(weights) {
            let wanted = weight / weights.iter().sum::<f64>();
            assert!((found - wanted).abs() < 0.015, "{found} {wanted}");
        }
        // None reaches the least score: the best, always.
        let low = shares(
            &CaptionScores::default(),
            &[("a", 3.0), ("b", 9.0), ("c", -1.0)],
        );
        assert_eq!(low, [0.0, 1.0, 0.0]);
    }
}
