//! Names of the published layouts: transformers' own, which the networks go by, and the authors'.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use super::MaskDecoderConfig;
use crate::{Error, Result};

/// A tensor that only the authors' files have.
pub(super) const AUTHORS: &str = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix";
/// Frequencies of positions, and where older versions of transformers put them a second time.
pub(super) const FREQUENCIES: &str = "shared_image_embedding.positional_embedding";
pub(super) const FREQUENCIES_AGAIN: &str = "prompt_encoder.shared_embedding.positional_embedding";

/// A tensor that only files with a TinyViT, or with an EfficientViT, have.
const OF_TINY_VIT: &str = "image_encoder.patch_embed.seq.0.c.weight";
const OF_EFFICIENT_VIT: &str = "image_encoder.backbone.stages.0.op_list.0.conv.weight";
/// What batch norms count in training.
const COUNTED: &str = ".num_batches_tracked";
/// The classifier that TinyViT was made for, which no mask depends on.
const CLASSIFIER: [&str; 2] = ["image_encoder.norm_head.", "image_encoder.head."];

/// Relatives whose files look alike, by a tensor that only they have.
const RELATIVES: [(&str, &str); 3] = [
    (
        "mask_decoder.hf_token.weight",
        "HQ-SAM, whose mask decoder has another token and sees the image encoder's first layers",
    ),
    (
        "mask_decoder.hq_token.weight",
        "SAM-HQ, whose mask decoder has another token and sees the image encoder's first layers",
    ),
    (
        "sam_mask_decoder.iou_token.weight",
        "SAM 2, whose image encoder is a Hiera",
    ),
];

/// Image encoders of files in the authors' layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Vit,
    TinyVit,
    EfficientVit,
}

impl Kind {
    /// Of a file; a ViT where nothing tells another.
    pub fn of(source: &dyn TensorSource) -> Self {
        let has = |name: &str| source.info(name).is_some();
        match (has(OF_TINY_VIT), has(OF_EFFICIENT_VIT)) {
            (true, _) => Self::TinyVit,
            (_, true) => Self::EfficientVit,
            _ => Self::Vit,
        }
    }

    /// Theirs and ours of names behind `image_encoder.`.
    fn pairs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Vit => &[
                ("blocks.", "layers."),
                (".norm", ".layer_norm"),
                ("patch_embed.proj.", "patch_embed.projection."),
                ("neck.0.", "neck.conv1."),
                ("neck.1.", "neck.layer_norm1."),
                ("neck.2.", "neck.conv2."),
                ("neck.3.", "neck.layer_norm2."),
            ],
            Self::TinyVit => &[
                (".mlp.fc", ".mlp.lin"),
                ("neck.0.", "neck.conv1."),
                ("neck.1.", "neck.layer_norm1."),
                ("neck.2.", "neck.conv2."),
                ("neck.3.", "neck.layer_norm2."),
            ],
            Self::EfficientVit => &[],
        }
    }
}

/// Whether a file is in the authors' layout.
fn is_authors(source: &dyn TensorSource) -> bool {
    source.info(AUTHORS).is_some() || Kind::of(source) != Kind::Vit
}

/// The relative of Segment Anything that a file holds, which is not run.
pub(super) fn relative(source: &dyn TensorSource) -> Option<&'static str> {
    let found = RELATIVES
        .iter()
        .find(|(tensor, _)| source.info(tensor).is_some());
    found.map(|(_, name)| *name)
}

/// Width and layers of a file's ViT, and whether the file is the authors'; none where it holds no Segment Anything
/// with one.
pub(super) fn shape(source: &dyn TensorSource) -> Option<([usize; 2], bool)> {
    let authors = is_authors(source);
    let (patches, layer) = match authors {
        true => (
            "image_encoder.patch_embed.proj.weight",
            "image_encoder.blocks",
        ),
        false => (
            "vision_encoder.patch_embed.projection.weight",
            "vision_encoder.layers",
        ),
    };
    source.info("mask_decoder.iou_token.weight")?;
    let width = source.info(patches)?.1.first().copied()?;
    let layers = (0..).take_while(|index| {
        source
            .info(&format!("{layer}.{index}.attn.qkv.weight"))
            .is_some()
    });
    Some(([width, layers.count()], authors))
}

pub(super) fn not_run(name: &str) -> Error {
    Error::Config(format!(
        "the file holds {name}; Segment Anything runs with the ViT encoders B, L and H, with those of MobileSAM and \
         EfficientViT-SAM, and with its own mask decoder"
    ))
}

/// The tensors of a file under the network's names, which are those of transformers; a file in that layout is
/// given back as it is, with the frequencies of positions where they are looked for.
///
/// # Errors
/// A relative of Segment Anything; otherwise as [`MappedSource::new`].
pub fn plain_names(source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
    if let Some(name) = relative(&*source) {
        return Err(not_run(name));
    }
    let names = source.names();
    let authors = is_authors(&*source);
    let moved =
        !authors && source.info(FREQUENCIES).is_none() && source.info(FREQUENCIES_AGAIN).is_some();
    if !authors && !moved {
        return Ok(source);
    }
    let (depths, kind) = (Depths::of(&names), Kind::of(&*source));
    let is_unused = |name: &String| {
        let beside = || CLASSIFIER.iter().any(|part| name.starts_with(part));
        name.ends_with(COUNTED) || kind == Kind::TinyVit && beside()
    };
    let map: BTreeMap<String, Slice> = names
        .into_iter()
        .filter(|name| !is_unused(name))
        .map(|name| {
            let own = match authors {
                true => depths
                    .plain_name(kind, &name)
                    .unwrap_or_else(|| name.clone()),
                false if name == FREQUENCIES_AGAIN => FREQUENCIES.to_owned(),
                false => name.clone(),
            };
            (own, Slice::whole(name))
        })
        .collect();
    Ok(Arc::new(MappedSource::new(source, map)?))
}

/// Numbers of layers of the heads, whose last one has a name of its own here.
struct Depths(BTreeMap<String, usize>);

impl Depths {
    fn of(names: &[String]) -> Self {
        let mut depths = BTreeMap::new();
        for name in names {
            if let Some((head, layer)) = head_layer(name) {
                let depth: &mut usize = depths.entry(head.to_owned()).or_default();
                *depth = (layer + 1).max(*depth);
            }
        }
        Self(depths)
    }

    /// Our name of an authors' tensor; none where it is not one of theirs.
    fn plain_name(&self, kind: Kind, name: &str) -> Option<String> {
        if name == AUTHORS {
            return Some(FREQUENCIES.to_owned());
        }
        if let Some((head, layer)) = head_layer(name) {
            let own = MaskDecoderConfig::head_layers(*self.0.get(head)?);
            let leaf = name.rsplit('.').next()?;
            return Some(format!("{head}.{}.{leaf}", own.get(layer)?));
        }
        let (outer, inner) = name.split_once('.')?;
        let pairs: &[(&str, &str)] = match outer {
            "image_encoder" => kind.pairs(),
            "prompt_encoder" => &[
                ("point_embeddings.", "point_embed."),
                ("mask_downscaling.0.", "mask_embed.conv1."),
                ("mask_downscaling.1.", "mask_embed.layer_norm1."),
                ("mask_downscaling.3.", "mask_embed.conv2."),
                ("mask_downscaling.4.", "mask_embed.layer_norm2."),
                ("mask_downscaling.6.", "mask_embed.conv3."),
            ],
            "mask_decoder" => &[
                (".norm", ".layer_norm"),
                ("output_upscaling.0.", "upscale_conv1."),
                ("output_upscaling.1.", "upscale_layer_norm."),
                ("output_upscaling.3.", "upscale_conv2."),
            ],
            _ => return None,
        };
        let outer = if outer == "image_encoder" {
            "vision_encoder"
        } else {
            outer
        };
        let mut inner = inner.to_owned();
        for (theirs, ours) in pairs {
            // Names begin with a part or have it inside, behind a dot.
            if let Some(rest) = inner.strip_prefix(theirs) {
                inner = format!("{ours}{rest}");
            } else if theirs.starts_with('.') {
                inner = inner.replacen(theirs, ours, 1);
            }
        }
        Some(format!("{outer}.{inner}"))
    }
}

/// The head and the layer that `mask_decoder.iou_prediction_head.layers.2.weight` belongs to.
fn head_layer(name: &str) -> Option<(&str, usize)> {
    let (head, rest) = name.split_once(".layers.")?;
    let is_head = head == "mask_decoder.iou_prediction_head"
        || head.starts_with("mask_decoder.output_hypernetworks_mlps.");
    let layer = rest.split('.').next()?.parse().ok()?;
    is_head.then_some((head, layer))
}

#[cfg(test)]
mod tests {
    use brisk_store::{Dtype, MemorySource};

    use super::*;
    use crate::sam::SamConfig;

    fn source(tensors: &[(&str, &[usize])]) -> MemorySource {
        let stored = tensors.iter().map(|(name, shape)| {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            ((*name).to_owned(), Dtype::F32, shape.to_vec(), bytes)
        });
        MemorySource::new(stored.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn relatives_are_refused_by_name() {
        for (tensor, name) in RELATIVES {
            let refused = SamConfig::of_tensors(&source(&[(tensor, &[1])]))
                .unwrap_err()
                .to_string();
            assert!(refused.contains(name), "{refused}");
            let refused = plain_names(Arc::new(source(&[(tensor, &[1])])));
            assert!(refused.is_err());
        }
        assert!(
            SamConfig::of_tensors(&source(&[]))
                .unwrap_err()
                .to_string()
                .contains("mask_decoder.")
        );
    }
}
