//! The configuration of a weights file that comes without one.

use brisk_store::TensorSource;

use super::names::{Kind, not_run, relative, shape};
use super::shapes::Shapes;
use super::{EfficientVitConfig, ImageEncoderConfig, SamConfig, TinyVitConfig, VisionConfig};
use crate::{Error, Result};

/// Epsilons of the decoder's norms: those that the authors of MobileSAM leave as they are, and those that the authors
/// of EfficientViT-SAM set.
const PLAIN_EPS: f64 = 1e-5;
const SET_EPS: f64 = 1e-6;

impl SamConfig {
    /// The configuration of a weights file that comes without one, by names and shapes of its tensors.
    ///
    /// # Errors
    /// A file of another network, a ViT of a size that the authors did not publish, or sizes that do not fit together.
    pub fn of_tensors(source: &dyn TensorSource) -> Result<Self> {
        if let Some(name) = relative(source) {
            return Err(not_run(name));
        }
        let mut config = Self::default();
        match Kind::of(source) {
            Kind::Vit => {
                let Some((size, _)) = shape(source) else {
                    return Err(Error::Config(
                        "the file holds no Segment Anything: expected tensors under `image_encoder.`, `prompt_encoder.` \
                         and `mask_decoder.`, or `vision_encoder.` in transformers' layout"
                            .into(),
                    ));
                };
                config.vision_config = ImageEncoderConfig::Vit(VisionConfig::of_size(size)?);
                return Ok(config);
            }
            Kind::TinyVit => {
                config.vision_config =
                    ImageEncoderConfig::TinyVit(TinyVitConfig::of_tensors(source));
                config.set_decoder(source, PLAIN_EPS);
            }
            Kind::EfficientVit => {
                let encoder = EfficientVitConfig::of_tensors(source)?;
                config.vision_config = ImageEncoderConfig::EfficientVit(encoder);
                config.set_decoder(source, SET_EPS);
            }
        }
        config.validate()?;
        Ok(config)
    }

    /// Takes over the sizes of prompt encoder and mask decoder.
    fn set_decoder(&mut self, source: &dyn TensorSource, eps: f64) {
        let shapes = Shapes::new(source, "prompt_encoder.");
        let prompt = &mut self.prompt_encoder_config;
        shapes.set(&mut prompt.hidden_size, "no_mask_embed.weight", 1);
        shapes.set(
            &mut prompt.mask_input_channels,
            "mask_downscaling.3.weight",
            0,
        );
        let shapes = Shapes::new(source, "mask_decoder.");
        let decoder = &mut self.mask_decoder_config;
        (decoder.layer_norm_eps, decoder.final_layer_norm_eps) = (eps, eps);
        shapes.set(&mut decoder.hidden_size, "iou_token.weight", 1);
        let layer = |index: usize| format!("transformer.layers.{index}.mlp.lin1.weight");
        shapes.set(&mut decoder.mlp_dim, &layer(0), 0);
        decoder.num_hidden_layers = shapes.count(layer).max(1);
        let last = "transformer.final_attn_token_to_image.q_proj.weight";
        if let Some(inner) = shapes.side(last, 0) {
            decoder.attention_downsample_rate = decoder.hidden_size / inner.max(1);
        }
        if let Some(masks) = shapes.side("mask_tokens.weight", 0) {
            decoder.num_multimask_outputs = masks.saturating_sub(1);
        }
        let quality = |index: usize| format!("iou_prediction_head.layers.{index}.weight");
        shapes.set(&mut decoder.iou_head_hidden_dim, &quality(0), 0);
        decoder.iou_head_depth = match shapes.count(quality) {
            0 => decoder.iou_head_depth,
            depth => depth,
        };
    }
}

#[cfg(test)]
mod tests {
    use brisk_store::{Dtype, MemorySource};

    use super::*;
    use crate::sam::names::AUTHORS;

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
        let large = large.vit().unwrap().clone();
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
    fn sizes_that_contradict_each_other_are_refused() {
        // A stage without blocks.
        let tensors: [(&str, &[usize]); 1] = [("image_encoder.patch_embed.seq.0.c.weight", &[1])];
        let refused = SamConfig::of_tensors(&source(&tensors)).unwrap_err();
        let message = refused.to_string();
        assert!(message.contains("vision_config.depths[0]"), "{message}");
    }
}
