//! What an update minimises.

use std::ops::Range;

use brisk_models::hart::RESIDUAL_SCALE;
use brisk_models::hart::transformer;
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::autoregressive::Sampling;
use brisk_pipelines::families::hart::prompt::EncodedPrompt;

use super::draws::Draws;
use super::lessons::{Lesson, Lessons};
use super::networks::Networks;
use super::recipe::DiffusionLoss;
use crate::error::Result;
use crate::loss::{self, Loss};
use crate::objectives::diffusion::{Noised, Process};
use crate::tensors;

/// How the codes are drawn whose rest the diffusion head is taught.
const SAMPLING: Sampling = Sampling {
    top_k: 600,
    top_p: 0.96,
};

/// An update's samples.
pub(super) struct Batch<'a> {
    pub lessons: &'a Lessons,
    /// Which of them.
    pub slots: &'a [usize],
    pub prompts: &'a [EncodedPrompt],
    pub draws: &'a Draws,
    pub process: &'a Process,
    pub diffusion: &'a DiffusionLoss,
}

impl Batch<'_> {
    /// The mean loss of some samples: of the codes, and of what they leave.
    pub fn loss(&self, networks: &Networks, samples: Range<usize>) -> Result<Loss> {
        let lessons: Vec<&Lesson> = self.slots[samples.clone()]
            .iter()
            .map(|slot| &self.lessons.all[*slot])
            .collect();
        let kept = &self.draws.kept[samples.clone()];
        let prompts = &self.prompts[samples.clone()];
        let context = networks.encode(prompts)?;
        let masks: Vec<Vec<bool>> = prompts.iter().map(|prompt| prompt.real.clone()).collect();
        let taught = networks.transformer.taught(&transformer::Lesson {
            context: &context,
            masks: &masks,
            absent: &self.draws.absent[samples.clone()],
            inputs: &self.inputs(&lessons, kept)?,
            kept,
        })?;
        let (rows, count, codes) = taught.logits.dims3()?;
        let logits = taught.logits.reshape((rows * count, codes))?;
        let share = 1.0 / (rows * count) as f32;
        let weights = vec![share; rows * count];
        let loss = loss::cross_entropy(&logits, &self.targets(&lessons, kept), &weights)?;
        if self.diffusion.weight == 0.0 {
            return Ok(loss);
        }
        let rest = self.rest(networks, &taught, &lessons, samples)?;
        loss.and(rest, self.diffusion.weight)
    }

    /// Sums so far on every place that is computed.
    fn inputs(&self, lessons: &[&Lesson], kept: &[Vec<usize>]) -> Result<Tensor> {
        let width = self.lessons.width;
        // The first scale has none.
        let last = (self.lessons.earlier() - 1) * width;
        let mut values: Vec<f32> = Vec::new();
        for (lesson, kept) in lessons.iter().zip(kept) {
            values.extend(&lesson.inputs[..last]);
            for place in kept {
                values.extend(&lesson.inputs[last + place * width..][..width]);
            }
        }
        let places = values.len() / width / lessons.len().max(1);
        Ok(Tensor::from_vec(values, (lessons.len(), places, width))?)
    }

    /// Their codes.
    fn targets(&self, lessons: &[&Lesson], kept: &[Vec<usize>]) -> Vec<u32> {
        let earlier = self.lessons.earlier();
        let mut targets = Vec::new();
        for (lesson, kept) in lessons.iter().zip(kept) {
            targets.extend(&lesson.codes[..earlier]);
            targets.extend(kept.iter().map(|place| lesson.codes[earlier + place]));
        }
        targets
    }

    /// The loss of the diffusion head: it is told of codes that the model itself draws, and learns what they
    /// leave.
    fn rest(
        &self,
        networks: &Networks,
        taught: &transformer::Taught,
        lessons: &[&Lesson],
        samples: Range<usize>,
    ) -> Result<Loss> {
        let (transformer, width) = (&networks.transformer, self.lessons.width);
        let kept = &self.draws.kept[samples.clone()];
        let (rows, count, channels) = taught.hidden.dims3()?;
        let each = kept.first().map_or(0, Vec::len);
        let repeats = self.diffusion.repeats;
        let last = |x: &Tensor| x.narrow(1, count - each, each)?.contiguous();
        let mut logits = tensors::values(&last(&taught.logits.detach())?)?;
        let codes = transformer.codewords().count;
        let drawn: Vec<u32> = logits
            .chunks_exact_mut(codes)
            .zip(self.draws.uniforms_of(&samples))
            .map(|(row, uniform)| {
                SAMPLING.limit(row);
                Sampling::draw(row, *uniform)
            })
            .collect();
        let places = lessons.iter().zip(kept).flat_map(|(lesson, kept)| {
            kept.iter()
                .map(|place| &lesson.rest[place * width..][..width])
        });
        let (mut words, mut clean): (Vec<f32>, Vec<f32>) = (Vec::new(), Vec::new());
        for (rest, code) in places.zip(&drawn) {
            let word = self.lessons.codeword(*code);
            words.extend(word);
            let left = rest.iter().zip(word);
            let left: Vec<f32> = left.map(|(a, b)| (a - b) / RESIDUAL_SCALE as f32).collect();
            (0..repeats).for_each(|_| clean.extend(&left));
        }
        let noised = Noised {
            width,
            clean: &clean,
            noise: self.draws.noise_of(&samples),
            times: self.draws.times_of(&samples),
        };
        let hidden = last(&taught.hidden)?.reshape((rows * each, channels))?;
        let words = Tensor::from_vec(words, (rows * each, width))?;
        let head = transformer.diffusion();
        let condition = head.condition(&transformer.condition(&hidden, &words)?)?;
        let wide = condition.dim(1)?;
        let condition = condition
            .unsqueeze(1)?
            .repeat((1, repeats, 1))?
            .reshape((rows * each * repeats, wide))?;
        let noisy = Tensor::from_vec(self.process.noisy(&noised)?, (rows * each * repeats, width))?;
        let times: Vec<f32> = noised.times.iter().map(|time| *time as f32).collect();
        let times = Tensor::from_vec(times, rows * each * repeats)?;
        let output = head.forward(&noisy, &times, &condition, &mut Trace::none())?;
        self.process.loss(&output, &noised)
    }
}

#[cfg(test)]
mod tests {
    use brisk_models::hart::Scales;
    use brisk_models::hart::tokenizer::TokenizerConfig;
    use candle_core::Var;
    use serde_json::json;

    use super::super::networks::Configs;
    use super::*;
    use crate::families::codes::{CodesRecipe, KeptPlaces};
    use crate::families::part_weights::PartWeights;
    use crate::recipe::Recipe;
    use crate::rng::Rng;

    const CODES: usize = 24;
    const WIDTH: usize = 4;

    fn recipe() -> CodesRecipe {
        let text = include_str!("../../../recipes/emoji-codes.json");
        let Recipe::Codes(mut recipe) = Recipe::parse(text.as_bytes(), "r").unwrap() else {
            unreachable!()
        };
        for (key, value) in [
            ("context_dim", json!(16)),
            ("context_token", json!(5)),
            ("depth", json!(2)),
            ("embed_dim", json!(32)),
            ("num_heads", json!(2)),
            ("diff_width", json!(32)),
            ("diff_depth", json!(1)),
            ("patch_nums", json!([1, 2, 3])),
        ] {
            recipe.transformer[key] = value;
        }
        for (key, value) in [
            ("hidden_size", 16),
            ("intermediate_size", 32),
            ("num_hidden_layers", 1),
            ("num_attention_heads", 2),
            ("num_key_value_heads", 1),
        ] {
            recipe.text_encoder[key] = value.into();
        }
        recipe.text_dropout = 0.4;
        recipe.last_scale = KeptPlaces {
            mean: 0.5,
            deviation: 0.1,
            least: 0.3,
            fewest: 3,
        };
        recipe
    }

    fn lessons(rng: &mut Rng) -> Lessons {
        let scales = Scales::new("patch_nums", &[1, 2, 3]).unwrap();
        let lesson = |rng: &mut Rng| Lesson {
            codes: (0..14).map(|_| rng.below(CODES) as u32).collect(),
            inputs: rng.normals(13 * WIDTH),
            rest: rng.normals(9 * WIDTH),
        };
        Lessons {
            scales,
            width: WIDTH,
            codewords: rng.normals(CODES * WIDTH),
            all: (0..3).map(|_| lesson(rng)).collect(),
        }
    }

    /// The gradient of every parameter, of text encoder and transformer, is the slope of the codes' loss along it.
    #[test]
    fn gradients_agree_with_differences() {
        let mut rng = Rng::new(6);
        let (mut recipe, lessons) = (recipe(), lessons(&mut rng));
        // What the variance learns does not move the noise, so the other loss has slopes without a gradient.
        recipe.diffusion.weight = 0.0;
        let tokenizer = TokenizerConfig {
            vocab_size: CODES,
            z_channels: WIDTH,
            ..TokenizerConfig::default()
        };
        let configs = Configs::new(&recipe, &tokenizer, 40).unwrap();
        let weights = PartWeights::new(None, 3);
        let networks = Networks::trainable(&configs, &weights).unwrap();
        // Values at which every path is used: some begin at zero.
        let variables: Vec<(String, Var)> = weights.variables();
        for (name, variable) in &variables {
            let norm = name.contains("norm") || name.contains("ln_wo_grad");
            let values = rng.normals(variable.elem_count()).into_iter();
            let values = values.map(|value| {
                if norm {
                    1.0 + 0.1 * value
                } else {
                    0.25 * value
                }
            });
            tensors::set(variable, values.collect()).unwrap();
        }
        let draws = Draws::new(&recipe, 3, lessons.last(), &mut rng);
        assert!(draws.absent.contains(&true) && draws.absent.contains(&false));
        let prompts: Vec<EncodedPrompt> = (0..3)
            .map(|row| EncodedPrompt {
                ids: (0..5).map(|at| (row * 7 + at * 3) % 40).collect(),
                real: (0..5).map(|at| at < 3 + row as usize % 2).collect(),
                truncated: false,
            })
            .collect();
        // Rows of padding are those of inference too, since the transformer reads them.
        let arrays = tensors::copy_variables(&variables).unwrap();
        let frozen = Networks::frozen(&configs, &arrays, false).unwrap();
        let [a, b] = [&networks, &frozen].map(|networks| networks.encode(&prompts).unwrap());
        let off = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f32>().unwrap() < 1e-5);
        let process = Process::cosine();
        let batch = Batch {
            lessons: &lessons,
            slots: &[2, 0, 1],
            prompts: &prompts,
            draws: &draws,
            process: &process,
            diffusion: &recipe.diffusion,
        };
        let loss = || batch.loss(&networks, 0..3).unwrap();
        let store = loss().surrogate.backward().unwrap();
        for (name, variable) in &variables {
            let Some(gradient) = store.get(variable.as_tensor()) else {
                assert!(
                    name.contains("diffloss") || name.contains("decoder_norm"),
                    "{name}"
                );
                continue;
            };
            let gradient = tensors::values(&gradient.into()).unwrap();
            let length = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            let start = tensors::values(&variable.as_tensor().into()).unwrap();
            let along = |by: f64| {
                let step = gradient
                    .iter()
                    .map(|g| (by * f64::from(*g) / length) as f32);
                let moved = start.iter().zip(step).map(|(value, step)| value + step);
                tensors::set(variable, moved.collect()).unwrap();
                loss().value
            };
            // So far that the loss moves by much more than it is rounded, and by little of itself.
            let step = (5e-3 / length.max(1e-3)).min(1e-2);
            let slope = (along(step) - along(-step)) / (2.0 * step);
            tensors::set(variable, start.clone()).unwrap();
            assert!(
                (slope - length).abs() < 0.02 * length + 2e-4,
                "{name}: {slope} {length}"
            );
        }
        // The parts of a batch come to the whole, the rest included.
        let diffusion = DiffusionLoss {
            weight: 0.7,
            repeats: 4,
        };
        let batch = Batch {
            diffusion: &diffusion,
            ..batch
        };
        let whole = batch.loss(&networks, 0..3).unwrap().value;
        let parts = batch.loss(&networks, 0..1).unwrap().value
            + 2.0 * batch.loss(&networks, 1..3).unwrap().value;
        assert!(
            (whole - parts / 3.0).abs() < 1e-4 * whole,
            "{whole} {parts}"
        );
    }
}
