//! What AWQ needs to know of Gemma 2: which layers share an input, and what makes it.

use brisk_quant::AwqLayout;
use brisk_quant::groups::{AwqGroup, Maker};
use brisk_store::TensorSource;

use super::Gemma2Config;

/// The layers of a Gemma 2 body, under the names that its file has.
#[derive(Clone, Debug)]
pub struct Gemma2Layout {
    config: Gemma2Config,
    /// What its names begin with.
    beginning: &'static str,
}

impl Gemma2Layout {
    /// Of a model of this configuration whose tensors are those of `source`.
    pub fn of(config: &Gemma2Config, source: &dyn TensorSource) -> Self {
        let wrapped = source.info("model.embed_tokens.weight").is_some();
        Self {
            config: config.clone(),
            beginning: if wrapped { "model." } else { "" },
        }
    }
}

impl AwqLayout for Gemma2Layout {
    fn blocks(&self) -> Vec<Vec<AwqGroup>> {
        let config = &self.config;
        let (width, inner, dim) = (
            config.hidden_size,
            config.intermediate_size,
            config.head_dim,
        );
        let queries = config.num_attention_heads * dim;
        let keys = config.num_key_value_heads * dim;
        let block = |index: usize| {
            let name = |name: &str| format!("{}layers.{index}.{name}", self.beginning);
            let layers = |layers: &[(&str, usize)]| {
                let named = layers
                    .iter()
                    .map(|(layer, outputs)| (name(layer), *outputs));
                named.collect::<Vec<_>>()
            };
            vec![
                AwqGroup {
                    layers: layers(&[("self_attn.o_proj", width)]),
                    inputs: queries,
                    maker: Maker::Layer {
                        name: name("self_attn.v_proj"),
                        width: dim,
                        repeats: config.num_attention_heads / config.num_key_value_heads,
                    },
                },
                AwqGroup {
                    layers: layers(&[("mlp.down_proj", width)]),
                    inputs: inner,
                    maker: Maker::Layer {
                        name: name("mlp.up_proj"),
                        width: inner,
                        repeats: 1,
                    },
                },
                AwqGroup {
                    layers: layers(&[
                        ("self_attn.q_proj", queries),
                        ("self_attn.k_proj", keys),
                        ("self_attn.v_proj", keys),
                    ]),
                    inputs: width,
                    maker: Maker::Norm(name("input_layernorm.weight")),
                },
                AwqGroup {
                    layers: layers(&[("mlp.gate_proj", inner), ("mlp.up_proj", inner)]),
                    inputs: width,
                    maker: Maker::Norm(name("pre_feedforward_layernorm.weight")),
                },
            ]
        };
        (0..config.num_hidden_layers).map(block).collect()
    }
}
