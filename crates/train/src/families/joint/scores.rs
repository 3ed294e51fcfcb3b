//! How good a model is on pictures that it was not trained on.

use brisk_models::vila_u::tower::Quantizer;
use brisk_nn::logits;
use brisk_pipelines::Control;

use super::conversation::{Conversation, Speaker};
use super::lessons::questions;
use super::networks::Networks;
use super::objective::{Batch, by_depth};
use crate::data::pictures::PictureEntry;
use crate::error::Result;
use crate::eval::BATCH;
use crate::rng::Rng;

/// Seed of what is asked about held-out pictures.
pub(super) const QUESTIONS: u64 = 0x7175_6573;

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scores {
    /// Questions.
    pub questions: usize,
    /// Share of them that is answered rightly, word for word.
    pub right: f64,
    /// Mean cross-entropy of the codes of each depth.
    pub codes: Vec<f64>,
}

/// Pictures with their codes.
pub(super) struct Shown<'a> {
    pub entries: Vec<&'a PictureEntry>,
    pub codes: &'a [Vec<u32>],
}

/// Measures answers to every question about pictures, and the codes of the pictures by their captions.
pub(super) fn measure(
    networks: &Networks,
    quantizer: &Quantizer,
    speaker: &Speaker,
    shown: &Shown,
    control: &Control,
) -> Result<Scores> {
    let mut rng = Rng::new(QUESTIONS);
    let (mut asked, mut drawn) = (Vec::new(), Vec::new());
    for (entry, codes) in shown.entries.iter().zip(shown.codes) {
        for one in questions(entry, &mut rng) {
            asked.push((speaker.answering(&one.question, &one.answer, false)?, codes));
        }
        drawn.push((speaker.drawing(&entry.name)?, codes));
    }
    let mut right = 0;
    for some in asked.chunks(BATCH) {
        control.check()?;
        let (conversations, codes) = apart(some);
        let batch = Batch {
            quantizer,
            conversations: &conversations,
            codes,
        };
        let all = 0..conversations.len();
        let passed = batch.pass(networks, all.clone())?;
        let (rows, targets) = batch.texts(networks, &passed, all)?;
        let rows = rows.to_vec2::<f32>()?;
        let mut hits = rows
            .iter()
            .zip(targets)
            .map(|(row, token)| logits::likeliest(row) == token);
        for conversation in &conversations {
            let of_answer = hits.by_ref().take(conversation.targets.len());
            right += usize::from(of_answer.filter(|hit| !hit).count() == 0);
        }
    }
    let mut codes_of = vec![0.0; quantizer.depth()];
    let mut places = 0;
    for some in drawn.chunks(BATCH) {
        control.check()?;
        let (conversations, codes) = apart(some);
        let batch = Batch {
            quantizer,
            conversations: &conversations,
            codes,
        };
        let all = 0..conversations.len();
        let passed = batch.pass(networks, all.clone())?;
        if let Some((rows, targets)) = batch.drawn(networks, &passed, all)? {
            let sums = by_depth(&rows, &targets, quantizer.depth())?;
            codes_of
                .iter_mut()
                .zip(sums)
                .for_each(|(all, sum)| *all += sum);
            places += targets.len() / quantizer.depth();
        }
    }
    codes_of
        .iter_mut()
        .for_each(|sum| *sum /= places.max(1) as f64);
    Ok(Scores {
        questions: asked.len(),
        right: right as f64 / asked.len().max(1) as f64,
        codes: codes_of,
    })
}

fn apart<'a>(some: &[(Conversation, &'a Vec<u32>)]) -> (Vec<Conversation>, Vec<&'a [u32]>) {
    let pairs = some.iter().map(|(one, codes)| (one.clone(), &codes[..]));
    pairs.unzip()
}
