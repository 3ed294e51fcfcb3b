//! Names of the published layouts: transformers' own, which the networks go by, and the authors'.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_store::{MappedSource, Slice, TensorSource};

use super::{MaskDecoderConfig, SamConfig};
use crate::{Error, Result};

/// A tensor that only the authors' files have.
const AUTHORS: &str = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix";
/// Frequencies of positions, and where older versions of transformers put them a second time.
pub(super) const FREQUENCIES: &str = "shared_image_embedding.positional_embedding";
pub(super) const FREQUENCIES_AGAIN: &str = "prompt_encoder.shared_embedding.positional_embedding";

/// Relatives whose files look alike, by a tensor that only they have.
const RELATIVES: [(&str, &str); 5] = [
    (
        "image_encoder.patch_embed.seq.0.c.weight",
        "MobileSAM, whose image encoder is a TinyViT",
    ),
    (
        "image_encoder.backbone.stages.0.op_list.0.conv.weight",
        "EfficientViT-SAM, whose image encoder is an EfficientViT",
    ),
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

/// Image encoders that the authors published: name, width, layers, heads and layers that see the whole frame.
const PUBLISHED: [(&str, usize, usize, usize, [usize; 4]); 3] = [
    ("ViT-B", 768, 12, 12, [2, 5, 8, 11]),
    ("ViT-L", 1024, 24, 16, [5, 11, 17, 23]),
    ("ViT-H", 1280, 32, 16, [7, 15, 23, 31]),
];

/// Whether a file is in the authors' layout.
fn is_authors(source: &dyn TensorSource) -> bool {
    source.info(AUTHORS).is_some()
}

/// The relative of Segment Anything that a file holds, which is not run.
pub(super) fn relative(source: &dyn TensorSource) -> Option<&'static str> {
    let found = RELATIVES
        .iter()
        .find(|(tensor, _)| source.info(tensor).is_some());
    found.map(|(_, name)| *name)
}

/// Width and layers of a file's image encoder, and whether the file is the authors'; none where it holds no
/// Segment Anything.
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

/// The published name of an image encoder of this width and so many layers.
pub(super) fn published(width: usize, layers: usize) -> Option<&'static str> {
    let found = PUBLISHED
        .iter()
        .find(|size| [size.1, size.2] == [width, layers]);
    found.map(|size| size.0)
}

impl SamConfig {
    /// The configuration of a weights file that comes without one, by the shapes of its tensors.
    ///
    /// # Errors
    /// A file of another network, or of a size that the authors did not publish.
    pub fn of_tensors(source: &dyn TensorSource) -> Result<Self> {
        if let Some(name) = relative(source) {
            return Err(not_run(name));
        }
        let Some(([width, layers], _)) = shape(source) else {
            return Err(Error::Config(
                "the file holds no Segment Anything: expected tensors under `image_encoder.`, `prompt_encoder.` and \
                 `mask_decoder.`, or `vision_encoder.` in transformers' layout"
                    .into(),
            ));
        };
        let known = PUBLISHED
            .iter()
            .find(|size| [size.1, size.2] == [width, layers]);
        let Some((_, _, _, heads, global)) = known else {
            let known =
                PUBLISHED.map(|(name, width, layers, ..)| format!("{name} ({width}, {layers})"));
            return Err(Error::Config(format!(
                "an image encoder of width {width} and {layers} layers; without a config.json beside the file, \
                 expected {}",
                known.join(", ")
            )));
        };
        let mut config = Self::default();
        config.vision_config.hidden_size = width;
        config.vision_config.num_hidden_layers = layers;
        config.vision_config.num_attention_heads = *heads;
        config.vision_config.global_attn_indexes = global.to_vec();
        Ok(config)
    }
}

fn not_run(name: &str) -> Error {
    Error::Config(format!(
        "the file holds {name}; Segment Anything runs with the ViT encoders B, L and H and its own mask decoder"
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
    let depths = Depths::of(&names);
    let map: BTreeMap<String, Slice> = names
        .into_iter()
        .map(|name| {
            let own = match authors {
                true => depths.plain_name(&name).unwrap_or_else(|| name.clone()),
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
    fn plain_name(&self, name: &str) -> Option<String> {
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
            "image_encoder" => &[
                ("blocks.", "layers."),
                (".norm", ".layer_norm"),
                ("patch_embed.proj.", "patch_embed.projection."),
                ("neck.0.", "neck.conv1."),
                ("neck.1.", "neck.layer_norm1."),
                ("neck.2.", "neck.conv2."),
                ("neck.3.", "neck.layer_norm2."),
            ],
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

    fn source(tensors: &[(&str, &[usize])]) -> MemorySource {
        let stored = tensors.iter().map(|(name, shape)| {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            ((*name).to_owned(), Dtype::F32, shape.to_vec(), bytes)
        });
        MemorySource::new(stored.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn sizes_are_known_by_their_shapes() {
        let file = |width: usize, layers: usize| {
            let layers: Vec<String> = (0..layers)
                .map(|index| format!("image_encoder.blocks.{index}.attn.qkv.weight"))
                .collect();
            let patches = [width, 1];
            let mut tensors: Vec<(&str, &[usize])> = layers
                .iter()
                .map(|name| (name.as_str(), &[1][..]))
                .collect();
            tensors.extend([
                ("mask_decoder.iou_token.weight", &[1][..]),
                (AUTHORS, &[1][..]),
                ("image_encoder.patch_embed.proj.weight", &patches[..]),
            ]);
            SamConfig::of_tensors(&source(&tensors))
        };
        let large = file(1024, 24).unwrap().vision_config;
        assert_eq!(
            (large.num_attention_heads, large.global_attn_indexes),
            (16, vec![5, 11, 17, 23])
        );
        assert_eq!(file(768, 12).unwrap(), SamConfig::default());
        let refused = file(384, 12).unwrap_err().to_string();
        assert!(
            refused.contains("width 384") && refused.contains("ViT-B (768, 12)"),
            "{refused}"
        );
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
