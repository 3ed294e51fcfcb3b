//! The forward pass, depth by depth.

use brisk_nn::ops::{self, AttentionOptions};
use brisk_nn::{
    AttentionNames, AttentionProjections, AttentionWidths, Init, LayerNorm, Linear, Tensor, Trace,
    Weights, check_finite,
};

use super::DepthConfig;
use crate::{Error, Result};

const STAGE: &str = "depth transformer";
const EPSILON: f64 = 1e-5;
const NAMES: AttentionNames = AttentionNames {
    query: "attn.query",
    key: "attn.key",
    value: "attn.value",
    output: "attn.proj",
};

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attention: AttentionProjections,
    norm2: LayerNorm,
    first: Linear,
    second: Linear,
}

/// The depth transformer.
#[derive(Debug)]
pub struct DepthTransformer {
    config: DepthConfig,
    from_codewords: Linear,
    from_hidden: Linear,
    positions: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

/// Keys and values of the depths that some places have behind them.
#[derive(Debug)]
pub struct Cache {
    /// One pair a block, `[places, filled, width]`.
    kept: Vec<(Tensor, Tensor)>,
    filled: usize,
}

impl Cache {
    /// Depths behind.
    pub fn filled(&self) -> usize {
        self.filled
    }
}

impl DepthTransformer {
    /// Reads the published names.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(config: &DepthConfig, weights: &Weights) -> Result<Self> {
        let width = config.embed_dim;
        let start = Init::Normal(0.02);
        let widths = AttentionWidths {
            width,
            context: width,
            queries: width,
            keys: width,
            bias: true,
            output_bias: true,
            init: start,
        };
        let blocks = (0..config.n_layer).map(|index| {
            let weights = weights.pp("head_transformer.blocks").pp(index);
            let norm = |name: &str| LayerNorm::load(&weights.pp(name), width, EPSILON, true);
            let linear = |name: &str, from: usize, to: usize| {
                Linear::load(&weights.pp(name), from, to, true, start)
            };
            Ok(Block {
                norm1: norm("ln1")?,
                attention: AttentionProjections::load(&weights, NAMES, &widths)?,
                norm2: norm("ln2")?,
                first: linear("mlp.0", width, 4 * width)?,
                second: linear("mlp.2", 4 * width, width)?,
            })
        });
        let linear = |name: &str, from: usize, to: usize| {
            Linear::load(&weights.pp(name), from, to, true, start)
        };
        let norm = weights.pp("classifier_mlp.layer_norm");
        Ok(Self {
            from_codewords: linear("in_mlp_1", config.codeword_width, width)?,
            from_hidden: linear("in_mlp_2", config.hidden_width, width)?,
            positions: weights.get("pos_emb_d", &[1, config.depth, width], start)?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: LayerNorm::load(&norm, width, EPSILON, true)?,
            head: linear("classifier_mlp.linear", width, config.vocab_size)?,
            config: config.clone(),
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &DepthConfig {
        &self.config
    }

    /// What stands before the first depth.
    pub fn cache(&self) -> Cache {
        Cache {
            kept: Vec::new(),
            filled: 0,
        }
    }

    /// Logits `[n,V]` of the next depth of `n` places. The first depth goes by their hidden states `[n,H]`,
    /// behind the language model's last norm; each later one by the sum of the codewords before it `[n,C]`.
    /// `trace` sees `input`, every `blocks.{i}`, and `classifier_mlp`.
    ///
    /// # Errors
    /// Another width or number of places, a depth too many, or a non-finite activation.
    pub fn next(&self, cache: &mut Cache, input: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let x = match cache.filled {
            0 => self.from_hidden.forward(input)?,
            _ => self.from_codewords.forward(input)?,
        };
        let logits = self.run(&x.unsqueeze(1)?, cache, trace)?;
        logits.squeeze(1)
    }

    /// Logits `[n,D,V]` of all depths at once, by the hidden states `[n,H]` and the sums of the first 1, 2, …
    /// codewords, each `[n,C]`; the last sum, of all of them, is not looked at. `trace` as in
    /// [`Self::next`].
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn taught(&self, hidden: &Tensor, sums: &[Tensor], trace: &mut Trace) -> Result<Tensor> {
        let mut inputs = vec![self.from_hidden.forward(hidden)?.unsqueeze(1)?];
        for sum in sums.iter().take(self.config.depth - 1) {
            inputs.push(self.from_codewords.forward(sum)?.unsqueeze(1)?);
        }
        self.run(&Tensor::cat(&inputs, 1)?, &mut self.cache(), trace)
    }

    /// Inputs `[n,d,width]` of the next depths to logits `[n,d,V]`.
    fn run(&self, x: &Tensor, cache: &mut Cache, trace: &mut Trace) -> Result<Tensor> {
        let (places, depths, width) = x.dims3()?;
        let before = cache.filled;
        let kept = cache.kept.first().map(|(keys, _)| keys.dims().to_vec());
        if before + depths > self.config.depth
            || kept.is_some_and(|kept| kept != [places, before, width])
        {
            return Err(Error::Shape(format!(
                "{depths} depths of {places} places behind {before} of {}",
                self.config.depth
            )));
        }
        let positions = self.positions.narrow(1, before, depths)?;
        let mut x = x.broadcast_add(&positions)?;
        trace.see("input", &x);
        let heads = self.config.n_head;
        let options = AttentionOptions {
            causal: Some(before),
            ..AttentionOptions::new(heads, width / heads)
        };
        for (index, block) in self.blocks.iter().enumerate() {
            let h = block.norm1.forward(&x)?;
            let maps = &block.attention;
            let query = maps.query.forward(&h)?;
            let (mut keys, mut values) = (maps.key.forward(&h)?, maps.value.forward(&h)?);
            if let Some((old_keys, old_values)) = cache.kept.get(index) {
                keys = Tensor::cat(&[old_keys, &keys], 1)?;
                values = Tensor::cat(&[old_values, &values], 1)?;
            }
            let attended = ops::attention(&query, &keys, &values, &options)?;
            match cache.kept.get_mut(index) {
                Some(kept) => *kept = (keys, values),
                None => cache.kept.push((keys, values)),
            }
            x = ops::add(&x, &maps.output.forward(&attended)?)?;
            let h = block.first.forward(&block.norm2.forward(&x)?)?;
            x = ops::add(&x, &block.second.forward(&ops::gelu_erf(&h)?)?)?;
            let name = format!("blocks.{index}");
            check_finite(&x, STAGE, &name)?;
            trace.see(&name, &x);
        }
        cache.filled += depths;
        let logits = self.head.forward(&self.norm.forward(&x)?)?;
        trace.see("classifier_mlp", &logits);
        check_finite(&logits, STAGE, "classifier_mlp")?;
        Ok(logits)
    }
}
