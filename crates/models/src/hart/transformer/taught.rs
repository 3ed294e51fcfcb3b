//! All scales in one pass, as the transformer is taught: a scale sees the text, the scales before it and itself.

use brisk_nn::ops::{AttentionSpan, RotaryAngles};
use brisk_nn::{Tensor, Trace, check_finite};

use super::block::Seen;
use super::model::{STAGE, Transformer};
use super::positions;
use crate::{Error, Result};

/// Texts with what is known of their pictures.
pub struct Lesson<'a> {
    /// Texts `[B,L,D]`.
    pub context: &'a Tensor,
    /// Their real rows.
    pub masks: &'a [Vec<bool>],
    /// Which of them are not seen: zeros that stand at position 0, as without a text at inference.
    pub absent: &'a [bool],
    /// Sums of codewords on the grids of the second scale to the last, place after place
    /// ([`Quantizer::taught`](super::super::tokenizer::Quantizer::taught)); of the last scale only the places
    /// that are kept, `[B,n−1,z]`.
    pub inputs: &'a Tensor,
    /// Places of the last scale that each picture keeps, in the order of `inputs`; equally many of each.
    pub kept: &'a [Vec<usize>],
}

/// What is predicted of every place: the first scale's one, then those of [`Lesson::inputs`].
#[derive(Debug)]
pub struct Taught {
    /// Logits `[B,n,V]` of the codes.
    pub logits: Tensor,
    /// Hidden states `[B,n,C]`, which the diffusion head is told of.
    pub hidden: Tensor,
}

impl Transformer {
    /// Predicts all scales by the true ones before them. Gradients flow to everything; rows are those of
    /// [`Transformer::begin`] and [`Transformer::next`] where all places are kept.
    ///
    /// # Errors
    /// Sizes other than the configuration's, places that the last scale does not have, or a non-finite
    /// activation.
    pub fn taught(&self, lesson: &Lesson) -> Result<Taught> {
        let (config, scales) = (&self.config, &self.scales);
        let [batch, length] = self.check_context(lesson.context, lesson.masks)?;
        let kept = lesson.kept.first().map_or(0, Vec::len);
        let last = scales.count() - 1;
        // Places of each scale; the first one's is the text.
        let mut counts: Vec<usize> = scales.sides().iter().map(|side| side * side).collect();
        (counts[0], counts[last]) = (0, kept);
        let places: usize = counts.iter().sum();
        let (most, channels) = (scales.side().pow(2), self.codewords().width);
        let fits = lesson.absent.len() == batch
            && lesson.kept.len() == batch
            && lesson.kept.iter().all(|kept_here| kept_here.len() == kept)
            && lesson.kept.iter().flatten().all(|place| *place < most)
            && lesson.inputs.dims() == [batch, places, channels];
        if !fits {
            return Err(Error::Shape(format!(
                "inputs {:?} with {kept} places of the last scale kept, of {} pictures; expected \
                 [{batch}, {places}, {channels}], places below {most}, and as many of each picture",
                lesson.inputs.dims(),
                lesson.kept.len()
            )));
        }
        let seen = lesson
            .absent
            .iter()
            .map(|absent| if *absent { 0f32 } else { 1.0 });
        let seen = Tensor::from_vec(seen.collect(), (batch, 1, 1))?;
        let embedded = self.embed_context(&lesson.context.broadcast_mul(&seen)?)?;
        // All rows of an absent text are the largest, and each would get the whole gradient: one stands for them.
        let largest = embedded.max_keepdim(1)?.broadcast_mul(&seen)?;
        let first = embedded.narrow(1, 0, 1)?;
        let pooled = (largest + first.broadcast_mul(&seen.affine(-1.0, 1.0)?)?)?;
        let pooled = pooled.reshape((batch, config.embed_dim))?;
        let words = self.word_embed.forward(lesson.inputs)?;
        let levels = self
            .levels
            .forward(&(0..scales.count()).collect::<Vec<_>>())?;
        let total = length + places;
        let mut level_of = vec![0u32; length];
        for (level, count) in counts.iter().enumerate() {
            level_of.extend(std::iter::repeat_n(level as u32, *count));
        }
        let level_rows = levels.index_select(&Tensor::from_vec(level_of, total)?, 0)?;
        let x = Tensor::cat(&[embedded, words], 1)?.broadcast_add(&level_rows)?;
        let mut x = x.reshape((1, batch * total, config.embed_dim))?;
        let angles = self.lesson_angles(lesson, length, places)?;
        let spans = spans(batch, length, &counts[1..]);
        for (index, block) in self.blocks.iter().enumerate() {
            let seen = &mut Seen::Spans(&spans);
            x = block.forward(&x, index, &angles, seen, &mut Trace::none())?;
            check_finite(&x, STAGE, &format!("blocks.{index}"))?;
        }
        let x = x.reshape((batch, total, config.embed_dim))?;
        let hidden = x.narrow(1, length - 1, places + 1)?.contiguous()?;
        let modulation = self.modulation(&pooled)?;
        let logits = self.modulated_logits(&modulation, &hidden, &mut Trace::none())?;
        Ok(Taught { logits, hidden })
    }

    /// Angles of every picture's text and, behind it, its places.
    fn lesson_angles(&self, lesson: &Lesson, length: usize, places: usize) -> Result<RotaryAngles> {
        let (scales, last) = (&self.scales, self.scales.count() - 1);
        let (mut lines, mut grids) = (Vec::new(), Vec::new());
        for ((mask, absent), kept) in lesson.masks.iter().zip(lesson.absent).zip(lesson.kept) {
            let line = match absent {
                true => vec![0.0; length],
                false => positions::of_context(mask),
            };
            let end = line.last().copied().unwrap_or(0.0);
            lines.extend(line);
            for scale in 1..last {
                let all = 0..scales.sides()[scale].pow(2);
                grids.extend(all.map(|at| positions::grid_place(scales, scale, at, end)));
            }
            let kept = kept.iter();
            grids.extend(kept.map(|at| positions::grid_place(scales, last, *at, end)));
        }
        let head_dim = self.config.head_dim();
        let texts = positions::context_angles(head_dim, &lines);
        let both = texts.followed_by(&positions::mixed_angles(head_dim, &grids))?;
        let batch = lesson.masks.len();
        let order = (0..batch).flat_map(|row| {
            let text = row * length..(row + 1) * length;
            let grid = batch * length + row * places;
            text.chain(grid..grid + places)
        });
        Ok(both.select(&order.map(|token| token as u32).collect::<Vec<_>>()))
    }
}

/// Queries of every level, and the keys up to its end.
fn spans(batch: usize, length: usize, counts: &[usize]) -> Vec<AttentionSpan> {
    let total = length + counts.iter().sum::<usize>();
    let mut spans = Vec::with_capacity(batch * (counts.len() + 1));
    for start in (0..batch).map(|row| row * total) {
        let mut end = start;
        for count in std::iter::once(&length).chain(counts) {
            let first = end;
            end += count;
            spans.push(AttentionSpan {
                queries: first..end,
                keys: start..end,
                causal: None,
            });
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_see_what_stands_before_them_and_themselves() {
        let found = spans(2, 3, &[4, 2]);
        let wanted = [
            (0..3, 0..3),
            (3..7, 0..7),
            (7..9, 0..9),
            (9..12, 9..12),
            (12..16, 9..16),
            (16..18, 9..18),
        ];
        let wanted = wanted.map(|(queries, keys)| AttentionSpan {
            queries,
            keys,
            causal: None,
        });
        assert_eq!(found, wanted);
    }
}
