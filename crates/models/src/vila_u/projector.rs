//! The projector: from sums of codewords to embeddings of the language model.

use brisk_nn::{Init, Linear, Tensor, Trace, Weights, check_finite, ops};
use serde::Deserialize;

use crate::config::{expect_kind, parse};
use crate::{Error, Result};

/// Most layers that a name may ask for.
const LARGEST_DEPTH: usize = 64;

/// What a projector is made of; no key says how wide it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProjectorConfig {
    /// Nothing: the widths are one.
    Identity,
    /// One layer.
    Linear,
    /// So many layers with GELU between them.
    Mlp(usize),
}

/// Widths of a projector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widths {
    /// Channels of a codeword.
    pub codeword: usize,
    /// Channels of the language model.
    pub hidden: usize,
}

#[derive(Deserialize)]
struct File {
    mm_projector_type: String,
}

impl ProjectorConfig {
    /// Values of `model_type` and `architectures`.
    pub(super) const CLASSES: [&str; 2] = ["v2l_projector", "MultimodalProjector"];

    /// Keys that are read.
    pub(super) const KEYS: [&str; 1] = ["mm_projector_type"];

    /// Reads a `config.json`; `label` names it in messages.
    ///
    /// # Errors
    /// A file of another model, or a kind that does not exist.
    pub fn from_json(bytes: &[u8], label: &str) -> Result<Self> {
        let file: File = parse(bytes, label)?;
        expect_kind(bytes, label, "model_type", Self::CLASSES[0])?;
        let kind = file.mm_projector_type;
        let layers = kind
            .strip_prefix("mlp")
            .and_then(|rest| rest.strip_suffix("x_gelu"))
            .and_then(|count| count.parse().ok());
        match (&*kind, layers) {
            ("identity", _) => Ok(Self::Identity),
            ("linear", _) => Ok(Self::Linear),
            (_, Some(count)) if (1..=LARGEST_DEPTH).contains(&count) => Ok(Self::Mlp(count)),
            _ => Err(Error::Config(format!(
                "{label}: `mm_projector_type` is {kind:?}; expected \"identity\", \"linear\" or \"mlp2x_gelu\" \
                 (with any number of layers up to {LARGEST_DEPTH})"
            ))),
        }
    }

    /// As the file spells it.
    pub fn name(self) -> String {
        match self {
            Self::Identity => "identity".to_owned(),
            Self::Linear => "linear".to_owned(),
            Self::Mlp(count) => format!("mlp{count}x_gelu"),
        }
    }

    /// Widths of a file, where its tensors say them.
    pub(super) fn stored_widths(self, weights: &Weights) -> Option<Widths> {
        let first = match self {
            Self::Identity => return None,
            Self::Linear => "layers.weight",
            Self::Mlp(_) => "layers.0.weight",
        };
        match weights.shape(first)?[..] {
            [hidden, codeword] if hidden > 0 && codeword > 0 => Some(Widths { codeword, hidden }),
            _ => None,
        }
    }

    /// Number of parameters.
    pub fn parameters(self, widths: Widths) -> u64 {
        let (from, to) = (widths.codeword as u64, widths.hidden as u64);
        match self {
            Self::Identity => 0,
            Self::Linear => from * to + to,
            Self::Mlp(count) => from * to + to + (count as u64 - 1) * (to * to + to),
        }
    }
}

/// The projector.
#[derive(Debug)]
pub struct Projector {
    layers: Vec<Linear>,
    widths: Widths,
}

impl Projector {
    /// Reads `layers`.
    ///
    /// # Errors
    /// One report of every tensor that is missing, unexpected or of another shape; widths of an identity
    /// that are two.
    pub fn load(config: ProjectorConfig, widths: Widths, weights: &Weights) -> Result<Self> {
        let Widths { codeword, hidden } = widths;
        let linear = |weights: Weights, from: usize| {
            Linear::load(&weights, from, hidden, true, Init::FanIn(1.0))
        };
        let below = weights.pp("layers");
        let layers = match config {
            ProjectorConfig::Identity if codeword != hidden => {
                return Err(Error::Config(format!(
                    "the projector is \"identity\", but codewords have {codeword} channels and the language \
                     model {hidden}; expected one number"
                )));
            }
            ProjectorConfig::Identity => Vec::new(),
            ProjectorConfig::Linear => vec![linear(below, codeword)?],
            // Every other place of the list is a GELU.
            ProjectorConfig::Mlp(count) => (0..count)
                .map(|index| {
                    linear(
                        below.pp(2 * index),
                        if index == 0 { codeword } else { hidden },
                    )
                })
                .collect::<Result<_>>()?,
        };
        weights.finish(&[])?;
        Ok(Self { layers, widths })
    }

    /// Its widths.
    pub fn widths(&self) -> Widths {
        self.widths
    }

    /// Sums of codewords `[..,C]` to embeddings `[..,H]`; `trace` sees `layers`.
    ///
    /// # Errors
    /// Another width, or a value that is not finite.
    pub fn forward(&self, sums: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let mut x = sums.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                x = ops::gelu_erf(&x)?;
            }
            x = layer.forward(&x)?;
        }
        check_finite(&x, "projector", "layers")?;
        trace.see("layers", &x);
        Ok(x)
    }
}
