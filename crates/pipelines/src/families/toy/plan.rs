//! From a request to every decision.

use super::options::{BRIGHTNESS, TOY};
use crate::error::Result;
use crate::options::{Scope, keys};
use crate::request::ImageRequest;

/// Steps where a request gives none: on a straight way one would do.
const USUAL_STEPS: usize = 4;

/// A request with every decision made.
#[derive(Debug, Clone)]
pub struct ToyPlan {
    /// Number of each picture's word.
    pub words: Vec<u32>,
    /// Steps.
    pub steps: usize,
    /// Seed of the first picture's noise.
    pub seed: u64,
    /// What is added to every value.
    pub brightness: f32,
    /// Prompts without a word that the model knows.
    pub unknown: Vec<String>,
}

impl ToyPlan {
    /// Seed of a picture.
    pub fn seed_of(&self, picture: usize) -> u64 {
        self.seed.wrapping_add(picture as u64)
    }
}

/// Checks a request to the model `label`, which knows `words`.
///
/// # Errors
/// An option that a toy does not honour, or a value that it cannot serve.
pub fn plan(request: &ImageRequest, label: &str, words: &[String]) -> Result<ToyPlan> {
    TOY.check(label, Scope::Request, &request.options)?;
    request.check()?;
    let asked = &request.options;
    let mut plan = ToyPlan {
        words: Vec::new(),
        steps: asked.get(&keys::STEPS).unwrap_or(USUAL_STEPS),
        seed: asked.get(&keys::SEED).unwrap_or(0),
        brightness: asked.get(&BRIGHTNESS).unwrap_or(0.0),
        unknown: Vec::new(),
    };
    for prompt in &request.prompts {
        let named = words.iter().position(|word| prompt.contains(word.as_str()));
        if named.is_none() {
            plan.unknown.push(prompt.clone());
        }
        let word = named.unwrap_or_else(|| any(prompt, words.len())) as u32;
        plan.words
            .extend(std::iter::repeat_n(word, request.images_per_prompt()));
    }
    Ok(plan)
}

/// One of `count` words for a prompt that names none, always the same.
fn any(prompt: &str, count: usize) -> usize {
    let sum: usize = prompt.bytes().map(usize::from).sum();
    sum % count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_the_word_that_it_names() {
        let words = ["red", "blue"].map(str::to_owned);
        let planned = |prompt: &str| plan(&ImageRequest::new(prompt), "toy", &words).unwrap();
        assert_eq!(planned("a blue ring").words, [1]);
        let other = planned("a ring");
        assert_eq!(other.unknown, ["a ring"]);
        assert_eq!(other.words, planned("a ring").words);
        let request = ImageRequest::new("red").with(&keys::IMAGES, 2);
        assert_eq!(plan(&request, "toy", &words).unwrap().words, [0, 0]);
    }
}
