//! What an update minimises: the cross-entropy of texts and that of codes, each a mean over all that the batch has.

use std::ops::Range;

use brisk_models::language_model::{Place, Rows};
use brisk_models::vila_u::tower::Quantizer;
use brisk_nn::{KeyValueCache, Tensor, Trace};

use super::conversation::Conversation;
use super::networks::Networks;
use crate::error::Result;
use crate::loss::{self, Loss};
use crate::tensors;
use crate::terms::Terms;

/// Conversations with their pictures.
pub(super) struct Batch<'a> {
    pub quantizer: &'a Quantizer,
    pub conversations: &'a [Conversation],
    /// Codes of each one's picture, all of a place one after another.
    pub codes: Vec<&'a [u32]>,
}

/// Hidden states of some conversations, one after another.
pub(super) struct Passed {
    /// `[positions, H]`.
    hidden: Tensor,
    /// Where each begins.
    starts: Vec<usize>,
    /// Sums of the first 1, 2, … codewords of all places of all pictures, each `[pictures·P, C]`.
    sums: Vec<Tensor>,
}

impl Batch<'_> {
    fn places(&self) -> usize {
        let codes = self.codes.first().map_or(0, |codes| codes.len());
        codes / self.quantizer.depth()
    }

    /// The loss of some conversations and what it is made of, weighed so that the parts of the batch, by their share
    /// of the conversations, come to the means over the batch.
    pub fn loss(&self, networks: &Networks, samples: Range<usize>) -> Result<(Loss, Terms)> {
        let passed = self.pass(networks, samples.clone())?;
        let share = self.conversations.len() as f64 / samples.len().max(1) as f64;
        let texts: usize = self.conversations.iter().map(|one| one.targets.len()).sum();
        let drawn = self.conversations.iter().filter(|one| one.draws).count();
        let (logits, targets) = self.texts(networks, &passed, samples.clone())?;
        let weights = vec![(share / texts.max(1) as f64) as f32; targets.len()];
        let mut loss = loss::cross_entropy(&logits, &targets, &weights)?;
        let mut terms = vec![("text_loss", loss.value)];
        if let Some((logits, targets)) = self.drawn(networks, &passed, samples)? {
            let codes = drawn * self.places() * self.quantizer.depth();
            let weights = vec![(share / codes as f64) as f32; targets.len()];
            let of_codes = loss::cross_entropy(&logits, &targets, &weights)?;
            terms.push(("code_loss", of_codes.value));
            loss = loss.and(of_codes, 1.0)?;
        }
        Ok((loss, terms))
    }

    /// Goes through the language model.
    pub fn pass(&self, networks: &Networks, samples: Range<usize>) -> Result<Passed> {
        let (conversations, codes) = (&self.conversations[samples.clone()], &self.codes[samples]);
        let count = self.places();
        let sums = self.quantizer.sums(&codes.concat())?;
        let mut ids: Vec<u32> = Vec::new();
        for conversation in conversations {
            ids.extend(conversation.before.iter().chain(&conversation.behind));
        }
        let mut order: Vec<u32> = Vec::new();
        let (mut token, mut place) = (0u32, ids.len() as u32);
        let mut starts = Vec::with_capacity(conversations.len());
        let mut take = |from: &mut u32, number: usize| {
            order.extend(*from..*from + number as u32);
            *from += number as u32;
            order.len()
        };
        let mut end = 0;
        for conversation in conversations {
            starts.push(end);
            take(&mut token, conversation.before.len());
            take(&mut place, count);
            end = take(&mut token, conversation.behind.len());
        }
        let trace = &mut Trace::none();
        let embedded = networks.language.embed(&ids)?;
        let all = match sums.last() {
            Some(sum) => Tensor::cat(&[embedded, networks.projector.forward(sum, trace)?], 0)?,
            None => embedded,
        };
        let packed = all.index_select(&Tensor::from_vec(order, end)?, 0)?;
        let places: Vec<Place> = conversations
            .iter()
            .map(|conversation| Place {
                tokens: conversation.length(count),
                start: 0,
                pad: 0,
            })
            .collect();
        let mut caches: Vec<Option<&mut KeyValueCache>> = places.iter().map(|_| None).collect();
        let language = &networks.language;
        Ok(Passed {
            hidden: language.hidden_of(&packed, &places, &mut caches, Rows::All, trace)?,
            starts,
            sums,
        })
    }

    /// Logits of the learned tokens `[n,V]`, and those tokens.
    pub fn texts(
        &self,
        networks: &Networks,
        passed: &Passed,
        samples: Range<usize>,
    ) -> Result<(Tensor, Vec<u32>)> {
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (conversation, start) in self.conversations[samples].iter().zip(&passed.starts) {
            for (position, token) in &conversation.targets {
                rows.push((start + position) as u32);
                targets.push(*token);
            }
        }
        let hidden = rows_of(&passed.hidden, rows)?;
        Ok((networks.language.logits(&hidden)?, targets))
    }

    /// Logits of the codes that are learned `[places·D, V]`, by the true ones before them, and those codes; none
    /// where nothing is drawn.
    pub fn drawn(
        &self,
        networks: &Networks,
        passed: &Passed,
        samples: Range<usize>,
    ) -> Result<Option<(Tensor, Vec<u32>)>> {
        let count = self.places();
        let (mut before, mut places, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        let conversations = self.conversations[samples.clone()].iter().enumerate();
        for ((at, conversation), start) in conversations.zip(&passed.starts) {
            if !conversation.draws {
                continue;
            }
            // What stands before a place knows what comes there.
            let picture = conversation.picture(count);
            before.extend(picture.map(|position| (start + position - 1) as u32));
            places.extend((at * count..(at + 1) * count).map(|place| place as u32));
            targets.extend(self.codes[samples.start + at]);
        }
        if targets.is_empty() {
            return Ok(None);
        }
        let hidden = rows_of(&passed.hidden, before)?;
        let sums = passed.sums.iter().map(|sum| rows_of(sum, places.clone()));
        let sums = sums.collect::<Result<Vec<_>>>()?;
        let logits = networks.depth.taught(&hidden, &sums, &mut Trace::none())?;
        let (rows, depths, codes) = logits.dims3()?;
        Ok(Some((logits.reshape((rows * depths, codes))?, targets)))
    }
}

fn rows_of(x: &Tensor, rows: Vec<u32>) -> Result<Tensor> {
    let count = rows.len();
    Ok(x.index_select(&Tensor::from_vec(rows, count)?, 0)?)
}

/// Cross-entropies of the codes of each depth, summed over places.
pub(super) fn by_depth(logits: &Tensor, targets: &[u32], depths: usize) -> Result<Vec<f64>> {
    let classes = logits.dim(1)?;
    let mut values = tensors::values(logits)?;
    let mut sums = vec![0.0; depths];
    for (at, (row, code)) in values.chunks_exact_mut(classes).zip(targets).enumerate() {
        sums[at % depths] += loss::row_cross_entropy(row, *code as usize, 1.0)?;
    }
    Ok(sums)
}
