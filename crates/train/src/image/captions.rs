//! Training captions, tokenised as inference tokenises prompts.

use std::collections::BTreeSet;

use brisk_pipelines::KnownPrompts;
use brisk_pipelines::families::sana::prompt;
use brisk_text::Tokenizer;

use crate::data::emoji::EmojiData;
use crate::error::Result;
use crate::recipe::ImageRecipe;
use crate::rng::Rng;

/// Keywords that a caption adds at most.
const MAX_TAGS: usize = 4;

/// The text a tokenizer is trained on.
pub(super) fn lines(data: &EmojiData, training: &[usize]) -> Vec<String> {
    training
        .iter()
        .map(|index| {
            let entry = &data.entries[*index];
            let mut line = entry.name.clone();
            for tag in &entry.tags {
                line.push_str(", ");
                line.push_str(tag);
            }
            line.to_lowercase()
        })
        .collect()
}

/// What a model that was trained on these pictures knows.
pub(super) fn known(data: &EmojiData, training: &[usize]) -> KnownPrompts {
    let entries = || training.iter().map(|index| &data.entries[*index]);
    let names: BTreeSet<String> = entries().map(|entry| entry.name.clone()).collect();
    let keywords = entries().flat_map(|entry| entry.tags.clone());
    KnownPrompts::new(names.into_iter().collect(), keywords)
}

/// Draws a caption for each picture.
pub(super) struct Captions<'a> {
    data: &'a EmojiData,
    training: &'a [usize],
    tokenizer: &'a Tokenizer,
    recipe: &'a ImageRecipe,
    empty: Vec<u32>,
}

impl<'a> Captions<'a> {
    pub fn new(
        data: &'a EmojiData,
        training: &'a [usize],
        tokenizer: &'a Tokenizer,
        recipe: &'a ImageRecipe,
    ) -> Result<Captions<'a>> {
        Ok(Captions {
            data,
            training,
            tokenizer,
            recipe,
            empty: tokens(tokenizer, "", recipe.max_tokens)?,
        })
    }

    /// Token ids for the training pictures at `slots`.
    pub fn draw(&self, slots: &[usize], rng: &mut Rng) -> Result<Vec<Vec<u32>>> {
        slots
            .iter()
            .map(|slot| {
                if rng.chance(self.recipe.text_dropout) {
                    return Ok(self.empty.clone());
                }
                let caption = self.caption(self.training[*slot], rng);
                tokens(self.tokenizer, &caption, self.recipe.max_tokens)
            })
            .collect()
    }

    fn caption(&self, index: usize, rng: &mut Rng) -> String {
        let entry = &self.data.entries[index];
        let mut caption = entry.name.clone();
        if rng.chance(self.recipe.name_probability) || entry.tags.is_empty() {
            return caption;
        }
        let count = 1 + rng.below(entry.tags.len().min(MAX_TAGS));
        for position in rng.permutation(entry.tags.len()).into_iter().take(count) {
            caption.push_str(", ");
            caption.push_str(&entry.tags[position]);
        }
        caption
    }
}

/// Tokens of a prompt without instruction: made lower case and trimmed, `<bos>` in front.
pub(super) fn tokens(tokenizer: &Tokenizer, text: &str, limit: usize) -> Result<Vec<u32>> {
    Ok(prompt::encode(tokenizer, text, None, limit)?.ids)
}
