//! Names of the published files: diffusers', which the network goes by, and the authors', bare or behind what
//! training puts before them.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use super::VideoTransformerConfig;
use super::embed::SHIFT_SCALE;
use crate::{Error, Result};

/// What stands before the authors' names: HunyuanVideo's `module`, and what Magic 1-For-1's trainers put there.
const PREFIXES: [&str; 5] = [
    "",
    "module.",
    "model.",
    "module.model.",
    "hydit_unimodel.guidance_model.feedforward_model.",
];
/// The autoencoder that trainers' checkpoints hold besides.
const AUTOENCODER: &str = "vae.";
/// A tensor that only the authors' files have.
const AUTHORS: &str = "double_blocks.0.img_attn_qkv.weight";
/// One that only diffusers' files have.
const DIFFUSERS: &str = "transformer_blocks.0.norm1_context.linear.weight";
const REFINER: &str = "context_embedder.token_refiner.refiner_blocks.0.norm1.weight";

/// Layers that only have another name: theirs and ours.
const LAYERS: [(&str, &str); 12] = [
    ("img_in.proj", "x_embedder.proj"),
    (
        "time_in.mlp.0",
        "time_text_embed.timestep_embedder.linear_1",
    ),
    (
        "time_in.mlp.2",
        "time_text_embed.timestep_embedder.linear_2",
    ),
    (
        "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_1",
    ),
    (
        "vector_in.out_layer",
        "time_text_embed.text_embedder.linear_2",
    ),
    ("txt_in.input_embedder", "context_embedder.proj_in"),
    (
        "txt_in.t_embedder.mlp.0",
        "context_embedder.time_text_embed.timestep_embedder.linear_1",
    ),
    (
        "txt_in.t_embedder.mlp.2",
        "context_embedder.time_text_embed.timestep_embedder.linear_2",
    ),
    (
        "txt_in.c_embedder.linear_1",
        "context_embedder.time_text_embed.text_embedder.linear_1",
    ),
    (
        "txt_in.c_embedder.linear_2",
        "context_embedder.time_text_embed.text_embedder.linear_2",
    ),
    ("final_layer.linear", "proj_out"),
    ("final_layer.adaLN_modulation.1", SHIFT_SCALE),
];
const GUIDANCE: [(&str, &str); 2] = [
    (
        "guidance_in.mlp.0",
        "time_text_embed.guidance_embedder.linear_1",
    ),
    (
        "guidance_in.mlp.2",
        "time_text_embed.guidance_embedder.linear_2",
    ),
];
const REFINER_LAYERS: [(&str, &str); 6] = [
    ("norm1", "norm1"),
    ("norm2", "norm2"),
    ("self_attn_proj", "attn.to_out.0"),
    ("mlp.fc1", "ff.net.0.proj"),
    ("mlp.fc2", "ff.net.2"),
    ("adaLN_modulation.1", "norm_out.linear"),
];
const DOUBLE_LAYERS: [(&str, &str); 12] = [
    ("img_mod.linear", "norm1.linear"),
    ("txt_mod.linear", "norm1_context.linear"),
    ("img_attn_q_norm", "attn.norm_q"),
    ("img_attn_k_norm", "attn.norm_k"),
    ("txt_attn_q_norm", "attn.norm_added_q"),
    ("txt_attn_k_norm", "attn.norm_added_k"),
    ("img_attn_proj", "attn.to_out.0"),
    ("txt_attn_proj", "attn.to_add_out"),
    ("img_mlp.fc1", "ff.net.0.proj"),
    ("img_mlp.fc2", "ff.net.2"),
    ("txt_mlp.fc1", "ff_context.net.0.proj"),
    ("txt_mlp.fc2", "ff_context.net.2"),
];
const SINGLE_LAYERS: [(&str, &str); 4] = [
    ("linear2", "proj_out"),
    ("modulation.linear", "norm.linear"),
    ("q_norm", "attn.norm_q"),
    ("k_norm", "attn.norm_k"),
];
const TO_QKV: [&str; 3] = ["attn.to_q", "attn.to_k", "attn.to_v"];
const ADD_QKV: [&str; 3] = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"];

/// What stands before the authors' names in a file; none where it has other names.
pub(super) fn authors_prefix(source: &dyn TensorSource) -> Option<&'static str> {
    let has = |prefix: &&str| source.info(&format!("{prefix}{AUTHORS}")).is_some();
    PREFIXES.into_iter().find(has)
}

/// Whether a file has diffusers' names.
pub(super) fn is_diffusers(source: &dyn TensorSource) -> bool {
    [DIFFUSERS, REFINER]
        .iter()
        .all(|name| source.info(name).is_some())
}

/// The tensors of a file under the network's names, which are diffusers'; a file that has them is given back as it
/// is. Of a checkpoint of training the autoencoder is left out, and the embedding of guidance where the
/// configuration has none.
///
/// # Errors
/// A tensor of the authors' layout that cannot be cut as the configuration says, or one that is not of it.
pub fn plain_names(
    config: &VideoTransformerConfig,
    source: Arc<dyn TensorSource>,
) -> Result<Arc<dyn TensorSource>> {
    let Some(prefix) = authors_prefix(&*source) else {
        return Ok(source);
    };
    let mut map = Map {
        source: &*source,
        prefix,
        slices: BTreeMap::new(),
    };
    for (theirs, ours) in LAYERS {
        map.rename(theirs, ours);
    }
    if config.guidance_embeds {
        for (theirs, ours) in GUIDANCE {
            map.rename(theirs, ours);
        }
    }
    let (width, hidden) = (config.width(), config.hidden());
    for index in 0..config.num_refiner_layers {
        let theirs = format!("txt_in.individual_token_refiner.blocks.{index}");
        let ours = format!("context_embedder.token_refiner.refiner_blocks.{index}");
        map.layers(&theirs, &ours, &REFINER_LAYERS);
        map.cut(
            &format!("{theirs}.self_attn_qkv"),
            &ours,
            &TO_QKV,
            width,
            None,
        );
    }
    for index in 0..config.num_layers {
        let (theirs, ours) = (
            format!("double_blocks.{index}"),
            format!("transformer_blocks.{index}"),
        );
        map.layers(&theirs, &ours, &DOUBLE_LAYERS);
        map.cut(
            &format!("{theirs}.img_attn_qkv"),
            &ours,
            &TO_QKV,
            width,
            None,
        );
        map.cut(
            &format!("{theirs}.txt_attn_qkv"),
            &ours,
            &ADD_QKV,
            width,
            None,
        );
    }
    for index in 0..config.num_single_layers {
        let (theirs, ours) = (
            format!("single_blocks.{index}"),
            format!("single_transformer_blocks.{index}"),
        );
        map.layers(&theirs, &ours, &SINGLE_LAYERS);
        let mlp = Some(("proj_mlp", hidden));
        map.cut(&format!("{theirs}.linear1"), &ours, &TO_QKV, width, mlp);
    }
    let slices = map.finish(config)?;
    Ok(Arc::new(MappedSource::new(source, slices)?))
}

/// Collects slices of the authors' tensors.
struct Map<'a> {
    source: &'a dyn TensorSource,
    prefix: &'a str,
    slices: BTreeMap<String, Slice>,
}

impl Map<'_> {
    fn layers(&mut self, theirs: &str, ours: &str, layers: &[(&str, &str)]) {
        for (from, to) in layers {
            self.rename(&format!("{theirs}.{from}"), &format!("{ours}.{to}"));
        }
    }

    fn rename(&mut self, theirs: &str, ours: &str) {
        for leaf in ["weight", "bias"] {
            let source = format!("{}{theirs}.{leaf}", self.prefix);
            if self.source.info(&source).is_some() {
                self.slices
                    .insert(format!("{ours}.{leaf}"), Slice::whole(source));
            }
        }
    }

    /// Layers of `width` rows each that lie in one, and what lies behind them.
    fn cut(
        &mut self,
        theirs: &str,
        ours: &str,
        names: &[&str],
        width: usize,
        behind: Option<(&str, usize)>,
    ) {
        for leaf in ["weight", "bias"] {
            let source = format!("{}{theirs}.{leaf}", self.prefix);
            let Some((_, shape)) = self.source.info(&source) else {
                continue;
            };
            let rows = names.len() * width + behind.map_or(0, |(_, rows)| rows);
            if shape.first() != Some(&rows) {
                // Of another size than the configuration says: named as it is, it is reported.
                self.slices.insert(source.clone(), Slice::whole(source));
                continue;
            }
            let mut start = 0;
            let all = names.iter().map(|name| (*name, width)).chain(behind);
            for (name, rows) in all {
                let own = format!("{ours}.{name}.{leaf}");
                self.slices
                    .insert(own, Slice::rows(&*source, start..start + rows));
                start += rows;
            }
        }
    }

    /// The slices; tensors of the file that are neither in them nor beside the network come under their own names, so
    /// that loading reports them.
    fn finish(mut self, config: &VideoTransformerConfig) -> Result<BTreeMap<String, Slice>> {
        let used: std::collections::BTreeSet<String> = self
            .slices
            .values()
            .map(|slice| slice.source.clone())
            .collect();
        for name in self.source.names() {
            let beside = name.contains(AUTOENCODER)
                || (!config.guidance_embeds
                    && GUIDANCE
                        .iter()
                        .any(|(theirs, _)| name.starts_with(&format!("{}{theirs}.", self.prefix))));
            if used.contains(&name) || beside {
                continue;
            }
            if self.slices.contains_key(&name) {
                return Err(Error::Config(format!(
                    "{}: tensor `{name}` has the name that another one gets",
                    self.source.origin(&name)
                )));
            }
            self.slices.insert(name.clone(), Slice::whole(name));
        }
        Ok(self.slices)
    }
}
