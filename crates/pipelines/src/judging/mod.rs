//! Judging pictures by how well they show their prompts, and choosing among many: SANA-1.5's inference-time scaling
//! (arXiv 2501.18427, section 4).

mod select;
mod yes_no;

use std::cmp::Ordering;

use brisk_media::Picture;
use serde::{Deserialize, Serialize};

pub use select::{Leaders, Rule};
pub use yes_no::{DEFAULT_TEMPLATE, PROMPT_PLACE, YesNoJudge};

use crate::error::Result;
use crate::events::Control;

/// What a judge says of one picture, seen alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Whether it shows what was asked for.
    pub yes: bool,
    /// How surely: of yes where that is the answer, of no where it is not.
    pub score: f64,
    /// What was seen, in words; may be empty.
    #[serde(default)]
    pub said: String,
}

impl Judgement {
    /// Which of two is the better picture: a yes before a no, the surer of two that are yes, the less sure of two that
    /// are no.
    pub fn quality(&self, other: &Self) -> Ordering {
        let by_answer = self.yes.cmp(&other.yes);
        let by_score = self.score.total_cmp(&other.score);
        by_answer.then(match self.yes {
            true => by_score,
            false => by_score.reverse(),
        })
    }
}

/// Whoever judges pictures.
pub trait Judge {
    /// Its name in reports.
    fn name(&self) -> String;

    /// Whether it says yes or no; one that does not calls every picture a yes and tells which is better by its score.
    fn decides(&self) -> bool {
        true
    }

    /// Refuses a prompt that it cannot judge pictures by, before any is drawn.
    ///
    /// # Errors
    /// What it cannot read of the prompt.
    fn check(&self, _prompt: &str) -> Result<()> {
        Ok(())
    }

    /// Judges pictures that were drawn for a prompt, each alone.
    ///
    /// # Errors
    /// Those of its model; [`crate::Error::Cancelled`].
    fn judge(
        &mut self,
        prompt: &str,
        pictures: &[Picture],
        control: &Control,
    ) -> Result<Vec<Judgement>>;
}
