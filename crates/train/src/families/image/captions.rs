//! Training captions, tokenised as inference tokenises prompts.

use brisk_pipelines::families::sana::prompt;
use brisk_text::Tokenizer;

use crate::captions::caption;
use crate::data::emoji::EmojiData;
use crate::error::Result;
use crate::recipe::ImageRecipe;
use crate::rng::Rng;

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
                let entry = &self.data.entries[self.training[*slot]];
                let caption = caption(
                    entry,
                    self.recipe.name_probability,
                    &self.recipe.caption_scores,
                    rng,
                );
                tokens(self.tokenizer, &caption, self.recipe.max_tokens)
            })
            .collect()
    }
}

/// Tokens of a prompt without instruction: made lower case and trimmed, `<bos>` in front.
pub(super) fn tokens(tokenizer: &Tokenizer, text: &str, limit: usize) -> Result<Vec<u32>> {
    Ok(prompt::encode(tokenizer, text, None, limit)?.ids)
}
