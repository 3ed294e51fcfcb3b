//! Mixture of experts: a router sends every token to a few of many gated feed-forward layers.

use super::{GatedMlp, GatedMlpNames};
use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{DType, Tensor};
use crate::weights::{Init, Weights};

/// How router logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts; a bias joins the score itself (LLaDA-MoE).
    Softmax,
    /// Sigmoid a piece; a bias decides who is chosen, not how much it counts (LLaDA2).
    Sigmoid,
}

/// Sizes and rules of a [`MixtureOfExperts`].
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertOptions {
    /// Number of experts.
    pub count: usize,
    /// Experts a token goes to.
    pub per_token: usize,
    /// Width inside one expert.
    pub inner: usize,
    /// Width inside the expert that sees every token; none: there is no such expert.
    pub shared_inner: Option<usize>,
    /// How logits become scores.
    pub scoring: Scoring,
    /// Whether the router has a bias an expert.
    pub bias: bool,
    /// Experts stand in this many groups of equal size.
    pub groups: usize,
    /// Groups that may be chosen from: those whose two best experts have the highest sum.
    pub groups_kept: usize,
    /// Whether the chosen scores are divided by their sum.
    pub normalise: bool,
    /// Factor of the scores.
    pub scale: f32,
}

/// How a checkpoint names the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertNames {
    /// The router's weight `[count, width]`.
    pub router: &'static str,
    /// The bias `[count]`.
    pub bias: &'static str,
    /// The expert for every token.
    pub shared: &'static str,
}

/// Experts, their router, and the shared expert. Gradients reach experts, not the router.
#[derive(Clone, Debug)]
pub struct MixtureOfExperts {
    options: ExpertOptions,
    router: Tensor,
    bias: Option<Vec<f32>>,
    experts: Vec<GatedMlp>,
    shared: Option<GatedMlp>,
}

impl MixtureOfExperts {
    /// Reads router, `experts.{i}` and, where there is one, the shared expert.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn load(
        weights: &Weights,
        names: ExpertNames,
        width: usize,
        options: &ExpertOptions,
    ) -> Result<Self> {
        let expert = |weights: &Weights, inner: usize| {
            let back = Init::FanIn(1.0);
            GatedMlp::load(weights, GatedMlpNames::LLAMA, width, inner, false, back)
        };
        let bias = if options.bias {
            let bias = weights.get(names.bias, &[options.count], Init::Zeros)?;
            Some(bias.to_vec1()?)
        } else {
            None
        };
        let shape = [options.count, width];
        Ok(Self {
            router: weights.get(names.router, &shape, Init::Normal(0.02))?,
            bias,
            experts: (0..options.count)
                .map(|index| expert(&weights.pp("experts").pp(index), options.inner))
                .collect::<Result<_>>()?,
            shared: options
                .shared_inner
                .map(|inner| expert(&weights.pp(names.shared), inner))
                .transpose()?,
            options: options.clone(),
        })
    }

    /// `[1, tokens, width]` to the same shape.
    ///
    /// # Errors
    /// A tensor of another shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let flat = x.reshape((batch * tokens, width))?;
        let logits: Vec<Vec<f32>> = ops::linear(&flat, &self.router, None)?.to_vec2()?;
        let mut assigned: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); self.options.count];
        for (token, logits) in logits.iter().enumerate() {
            for (expert, weight) in route(&self.options, self.bias.as_deref(), logits) {
                assigned[expert].0.push(token as u32);
                assigned[expert].1.push(weight);
            }
        }
        let mut sum = Tensor::zeros((batch * tokens, width), DType::F32)?;
        for (expert, (rows, factors)) in self.experts.iter().zip(assigned) {
            if rows.is_empty() {
                continue;
            }
            let count = rows.len();
            let rows = Tensor::from_vec(rows, count)?;
            let factors = Tensor::from_vec(factors, (count, 1))?;
            let part = expert.forward(&flat.index_select(&rows, 0)?)?;
            sum = sum.index_add(&rows, &part.broadcast_mul(&factors)?, 0)?;
        }
        if let Some(shared) = &self.shared {
            sum = (sum + shared.forward(&flat)?)?;
        }
        sum.reshape((batch, tokens, width))
    }
}

impl ExpertOptions {
    /// Checks that the numbers fit together.
    ///
    /// # Errors
    /// Names what cannot be honoured.
    pub fn validate(&self) -> Result<()> {
        let fits = self.count > 0
            && self.groups > 0
            && self.count.is_multiple_of(self.groups)
            && (1..=self.groups).contains(&self.groups_kept)
            && self.per_token > 0
            && self.per_token <= self.count / self.groups * self.groups_kept;
        if fits {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{} of {} experts a token, from {} of {} groups: the groups must divide the experts, and \
             the groups kept must hold the experts a token goes to",
            self.per_token, self.count, self.groups_kept, self.groups
        )))
    }
}

/// Chosen experts of one token and their weights.
fn route(options: &ExpertOptions, bias: Option<&[f32]>, logits: &[f32]) -> Vec<(usize, f32)> {
    let mut scores: Vec<f32> = match options.scoring {
        Scoring::Sigmoid => logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect(),
        Scoring::Softmax => {
            let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = logits.iter().map(|l| (l - top).exp()).collect();
            let sum: f32 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect()
        }
    };
    let biased: Vec<f32> = match bias {
        Some(bias) => scores.iter().zip(bias).map(|(s, b)| s + b).collect(),
        None => scores.clone(),
    };
    if options.scoring == Scoring::Softmax {
        scores.clone_from(&biased);
    }
    let size = options.count / options.groups;
    let mut groups: Vec<(usize, f32)> = biased
        .chunks_exact(size)
        .map(|group| {
            let mut sorted = group.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted.iter().take(2).sum()
        })
        .enumerate()
        .collect();
    groups.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut chosen: Vec<usize> = groups
        .iter()
        .take(options.groups_kept)
        .flat_map(|(group, _)| group * size..(group + 1) * size)
        .collect();
    chosen.sort_by(|a, b| biased[*b].total_cmp(&biased[*a]).then(a.cmp(b)));
    chosen.truncate(options.per_token);
    let sum: f32 = chosen.iter().map(|&expert| scores[expert]).sum();
    let factor = if options.normalise && options.per_token > 1 {
        options.scale / (sum + 1e-20)
    } else {
        options.scale
    };
    chosen
        .into_iter()
        .map(|expert| (expert, scores[expert] * factor))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(scoring: Scoring) -> ExpertOptions {
        ExpertOptions {
            count: 4,
            per_token: 2,
            inner: 8,
            shared_inner: None,
            scoring,
            bias: true,
            groups: 2,
            groups_kept: 1,
            normalise: true,
            scale: 2.0,
        }
    }

    #[test]
    fn groups_limit_the_choice_and_the_bias_only_selects() {
        // Experts 0 and 3 score highest, but group {2, 3} has the larger sum once biased.
        let bias = [0.0, 0.0, 1.0, 0.0];
        let routed = route(
            &options(Scoring::Sigmoid),
            Some(&bias),
            &[3.0, -3.0, 0.0, 2.0],
        );
        let experts: Vec<usize> = routed.iter().map(|(expert, _)| *expert).collect();
        assert_eq!(experts, [2, 3]);
        let (two, three) = (0.5f32, 1.0 / (1.0 + (-2.0f32).exp()));
        assert!((routed[0].1 - 2.0 * two / (two + three)).abs() < 1e-6);
    }

    #[test]
    fn softmax_scores_keep_their_bias() {
        let plain = ExpertOptions {
            groups: 1,
            normalise: false,
            scale: 1.0,
            ..options(Scoring::Softmax)
        };
        let routed = route(&plain, Some(&[0.5, 0.0, 0.0, 0.0]), &[0.0; 4]);
        assert_eq!(routed[0], (0, 0.75));
        assert_eq!(routed[1], (1, 0.25));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let bad = ExpertOptions {
            per_token: 3,
            ..options(Scoring::Sigmoid)
        };
        assert!(bad.validate().unwrap_err().to_string().contains("3 of 4"));
        assert!(options(Scoring::Sigmoid).validate().is_ok());
    }
}
