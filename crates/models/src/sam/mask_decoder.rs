//! The mask decoder: the two-way transformer, and masks as products of tokens with the enlarged picture.

use std::sync::{Arc, OnceLock};

use brisk_nn::ops::{Activation, Epilogue};
use brisk_nn::{
    ConvTranspose2d, ConvTransposeOptions, Init, LayerNorm, Linear, Tensor, Trace, Weights,
    check_finite,
};

use super::shared_cells::{Networks, REPAYS, SharedCells};
use super::two_way::{Attention, Projected, TwoWayLayer};
use super::{MaskDecoderConfig, PromptEncoder, Prompts, SamConfig};
use crate::{Error, Result};

/// Epsilon of the norm between the two enlargements, which no key says.
const ENLARGED_EPS: f64 = 1e-6;
/// Layers of the networks that make a token a factor of the enlarged picture.
const FACTOR_LAYERS: usize = 3;
/// Prompts that are decoded together: each holds several copies of the picture.
const TOGETHER: usize = 4;

/// Prompt encoder and mask decoder.
#[derive(Debug)]
pub struct MaskDecoder {
    prompts: PromptEncoder,
    /// For quality and masks, `[1 + masks, C]`.
    output_tokens: Tensor,
    layers: Vec<TwoWayLayer>,
    last: Attention,
    last_norm: LayerNorm,
    enlarge: [ConvTranspose2d; 2],
    enlarged_norm: LayerNorm,
    factors: Vec<Head>,
    quality: Head,
    masks: usize,
}

/// A picture's embedding with all that its prompts share.
#[derive(Clone, Debug)]
pub struct PreparedPicture {
    /// `[1, cells, C]`, nothing added.
    embedding: Tensor,
    /// The same as prompts without a mask see it.
    plain: Tensor,
    positions: Tensor,
    projected: Option<Projected>,
    /// Made for the first prompts that are many enough.
    shared: Arc<OnceLock<Option<SharedCells>>>,
    size: [usize; 2],
}

/// Masks of prompts.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Logits `[prompts, masks, 4h, 4w]`, the single mask first.
    pub masks: Tensor,
    /// Intersection over union that is expected of each, `[prompts, masks]`.
    pub qualities: Tensor,
}

impl MaskDecoder {
    /// Reads `shared_image_embedding`, `prompt_encoder` and `mask_decoder`.
    ///
    /// # Errors
    /// A file that cannot be read; what is missing or of another shape is told by [`Weights::finish`].
    pub fn load(config: &SamConfig, weights: &Weights) -> Result<Self> {
        let prompts = PromptEncoder::load(config, weights)?;
        let (config, weights) = (&config.mask_decoder_config, weights.pp("mask_decoder"));
        let (width, masks) = (config.hidden_size, config.masks());
        let token = |name: &str, count: usize| {
            weights
                .pp(name)
                .get("weight", &[count, width], Init::Normal(1.0))
        };
        let output_tokens =
            Tensor::cat(&[token("iou_token", 1)?, token("mask_tokens", masks)?], 0)?;
        let transformer = weights.pp("transformer");
        let layers = (0..config.num_hidden_layers)
            .map(|index| TwoWayLayer::load(&transformer.pp("layers").pp(index), config, index));
        let double = |name: &str, from: usize, to: usize| {
            let options = ConvTransposeOptions {
                kernel: 2,
                stride: 2,
                padding: 0,
                output_padding: 0,
                bias: true,
            };
            ConvTranspose2d::load(&weights.pp(name), from, to, options)
        };
        let enlarge = [
            double("upscale_conv1", width, width / 4)?,
            double("upscale_conv2", width / 4, width / 8)?,
        ];
        let factors = (0..masks).map(|index| {
            let weights = weights.pp("output_hypernetworks_mlps").pp(index);
            Head::load(&weights, [width, width, width / 8], FACTOR_LAYERS)
        });
        let quality = [width, config.iou_head_hidden_dim, masks];
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            last: Attention::load(
                &transformer.pp("final_attn_token_to_image"),
                config,
                config.last_inner(),
            )?,
            last_norm: LayerNorm::load(
                &transformer.pp("layer_norm_final_attn"),
                width,
                config.final_layer_norm_eps,
                true,
            )?,
            enlarged_norm: LayerNorm::load(
                &weights.pp("upscale_layer_norm"),
                width / 4,
                ENLARGED_EPS,
                true,
            )?,
            factors: factors.collect::<Result<_>>()?,
            quality: Head::load(
                &weights.pp("iou_prediction_head"),
                quality,
                config.iou_head_depth,
            )?,
            prompts,
            output_tokens,
            enlarge,
            masks,
        })
    }

    /// Computes what all prompts of a picture share; `embedding` is `[1,h,w,C]`.
    ///
    /// # Errors
    /// An embedding of another shape.
    pub fn prepare(&self, embedding: &Tensor) -> Result<PreparedPicture> {
        let (pictures, height, width, channels) = embedding.dims4()?;
        if pictures != 1 {
            return Err(Error::Shape(format!(
                "{pictures} pictures to be prepared; expected one"
            )));
        }
        let embedding = embedding.reshape((1, height * width, channels))?;
        let plain = embedding.broadcast_add(&self.prompts.no_mask()?)?;
        let positions = self.prompts.positions(height, width)?;
        let projected = match self.layers.first() {
            Some(first) => Some(first.project(&plain, &positions)?),
            None => None,
        };
        Ok(PreparedPicture {
            embedding,
            plain,
            positions,
            projected,
            shared: Arc::default(),
            size: [height, width],
        })
    }

    /// Masks of prompts of one picture. `trace` sees `prompts`, `layers.{i}`, `tokens`, `enlarged` and `masks` of
    /// every few prompts; in detail the tokens and the picture behind each layer. Several prompts of few tokens hold
    /// no picture of their own unless details are wanted: then it sees `layers.{i}.tokens`, `tokens` and `masks`.
    ///
    /// # Errors
    /// As [`Prompts::count`]; a mask of another size than the picture's; a non-finite activation.
    pub fn decode(
        &self,
        picture: &PreparedPicture,
        prompts: &Prompts,
        trace: &mut Trace,
    ) -> Result<Decoded> {
        let count = prompts.count()?;
        if count >= REPAYS && prompts.masks.is_none() && !trace.is_detailed() {
            let tokens = 1 + self.masks + prompts.tokens();
            if let Some(networks) = self.networks(tokens)
                && let Some(shared) = self.shared(picture, &networks)?
            {
                return self.decode_shared((shared, &networks), picture.size, prompts, trace);
            }
        }
        let mut parts = Vec::new();
        for start in (0..count).step_by(TOGETHER) {
            let some = prompts.some(start, TOGETHER.min(count - start))?;
            parts.push(self.decode_some(picture, &some, trace)?);
        }
        let join = |of: fn(&Decoded) -> &Tensor| -> Result<Tensor> {
            let parts: Vec<&Tensor> = parts.iter().map(of).collect();
            Tensor::cat(&parts, 0)
        };
        Ok(Decoded {
            masks: join(|part| &part.masks)?,
            qualities: join(|part| &part.qualities)?,
        })
    }

    fn decode_some(
        &self,
        picture: &PreparedPicture,
        prompts: &Prompts,
        trace: &mut Trace,
    ) -> Result<Decoded> {
        let (count, width) = (prompts.count()?, picture.plain.dim(2)?);
        let first = self.tokens(prompts, trace)?;
        let mut tokens = first.clone();
        let (mut image, mut projected) = match &prompts.masks {
            None => (picture.plain.clone(), picture.projected.as_ref()),
            Some(masks) => (
                self.prompts
                    .masks(masks)?
                    .broadcast_add(&picture.embedding)?,
                None,
            ),
        };
        for (index, layer) in self.layers.iter().enumerate() {
            (tokens, image) = layer.forward(
                &tokens,
                &image,
                &first,
                &picture.positions,
                projected.take(),
            )?;
            let name = format!("layers.{index}");
            check_finite(&image, "mask decoder", &name)?;
            trace.detail(&format!("{name}.tokens"), &tokens);
            trace.detail(&format!("{name}.image"), &image);
            trace.see(&name, &image);
        }
        let placed = (&tokens + &first)?;
        let looked =
            self.last
                .of_tokens(&placed, &image.broadcast_add(&picture.positions)?, &image)?;
        let tokens = self.last_norm.forward(&(tokens + looked)?)?;
        trace.see("tokens", &tokens);

        let [height, width_of_map] = picture.size;
        let map = image.reshape((count, height, width_of_map, width))?;
        let enlarged = self.enlarged(&map)?;
        trace.see("enlarged", &enlarged);
        let cells = 16 * height * width_of_map;
        let enlarged = enlarged
            .reshape((count, cells, width / 8))?
            .transpose(1, 2)?;
        let masks = self.mask_factors(&tokens)?.matmul(&enlarged)?;
        self.decoded(masks, &tokens, picture.size, trace)
    }

    /// The tokens of prompts `[B,T,C]`, those of the masks first.
    fn tokens(&self, prompts: &Prompts, trace: &mut Trace) -> Result<Tensor> {
        let (outputs, width) = self.output_tokens.dims2()?;
        let own = self.output_tokens.reshape((1, outputs, width))?;
        let tokens = own.broadcast_as((prompts.count()?, outputs, width))?;
        let Some(shown) = self.prompts.tokens(prompts)? else {
            return tokens.contiguous();
        };
        trace.see("prompts", &shown);
        Tensor::cat(&[tokens.contiguous()?, shown], 1)
    }

    /// Factors of each mask by tokens, `[B,masks,C/8]`.
    fn mask_factors(&self, tokens: &Tensor) -> Result<Tensor> {
        let factors = self.factors.iter().enumerate().map(|(index, head)| {
            let token = tokens.narrow(1, index + 1, 1)?.contiguous()?;
            head.forward(&token)
        });
        Tensor::cat(&factors.collect::<Result<Vec<_>>>()?, 1)
    }

    fn decoded(
        &self,
        masks: Tensor,
        tokens: &Tensor,
        [height, width]: [usize; 2],
        trace: &mut Trace,
    ) -> Result<Decoded> {
        check_finite(&masks, "mask decoder", "masks")?;
        trace.see("masks", &masks);
        let count = tokens.dim(0)?;
        let quality = self
            .quality
            .forward(&tokens.narrow(1, 0, 1)?.contiguous()?)?;
        Ok(Decoded {
            masks: masks.reshape((count, self.masks, 4 * height, 4 * width))?,
            qualities: quality.reshape((count, self.masks))?,
        })
    }

    /// What [`SharedCells`] needs, where so many tokens are few enough.
    fn networks(&self, tokens: usize) -> Option<Networks<'_>> {
        Some(Networks {
            layers: Networks::layers(&self.layers, tokens)?,
            last: self.last.contracted(tokens)?,
            last_norm: &self.last_norm,
            enlarge: &self.enlarge,
            enlarged_norm: &self.enlarged_norm,
        })
    }

    fn shared<'a>(
        &self,
        picture: &'a PreparedPicture,
        networks: &Networks,
    ) -> Result<Option<&'a SharedCells>> {
        if let Some(shared) = picture.shared.get() {
            return Ok(shared.as_ref());
        }
        let shared = SharedCells::new(networks, &picture.plain, &picture.positions)?;
        Ok(picture.shared.get_or_init(|| shared).as_ref())
    }

    fn decode_shared(
        &self,
        (shared, networks): (&SharedCells, &Networks),
        size: [usize; 2],
        prompts: &Prompts,
        trace: &mut Trace,
    ) -> Result<Decoded> {
        let tokens = self.tokens(prompts, trace)?;
        let cells = 16 * size[0] * size[1];
        let shape = (tokens.dim(0)?, self.masks, cells);
        let mut logits = vec![0.0; shape.0 * shape.1 * shape.2];
        let factors = |tokens: &Tensor| self.mask_factors(tokens);
        let masks = (size, &factors as &_);
        let tokens = shared.decode(networks, &tokens, masks, &mut logits, trace)?;
        self.decoded(Tensor::from_vec(logits, shape)?, &tokens, size, trace)
    }

    /// Four times as high and wide, `[B,4h,4w,C/8]`.
    fn enlarged(&self, map: &Tensor) -> Result<Tensor> {
        let gelu = Epilogue::activation(Activation::GeluErf);
        let [first, second] = &self.enlarge;
        let map = gelu.apply(self.enlarged_norm.forward(&first.forward(map)?)?)?;
        gelu.apply(second.forward(&map)?)
    }
}

impl MaskDecoderConfig {
    /// Names of a head's layers, the first one first.
    pub(super) fn head_layers(count: usize) -> Vec<String> {
        let middle = (0..count.saturating_sub(2)).map(|index| format!("layers.{index}"));
        let mut names: Vec<String> = std::iter::once("proj_in".to_owned())
            .chain(middle)
            .collect();
        names.push("proj_out".to_owned());
        names
    }
}

/// Linear layers with ReLU between them.
#[derive(Debug)]
struct Head(Vec<Linear>);

impl Head {
    fn load(weights: &Weights, [inputs, inner, outputs]: [usize; 3], count: usize) -> Result<Self> {
        let names = MaskDecoderConfig::head_layers(count);
        let layers = names.iter().enumerate().map(|(index, name)| {
            let from = if index == 0 { inputs } else { inner };
            let to = if index + 1 == count { outputs } else { inner };
            Linear::load(&weights.pp(name), from, to, true, Init::KaimingUniform)
        });
        Ok(Self(layers.collect::<Result<_>>()?))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (index, layer) in self.0.iter().enumerate() {
            x = match index + 1 == self.0.len() {
                true => layer.forward(&x)?,
                false => layer.forward_with(&x, &Epilogue::activation(Activation::Relu))?,
            };
        }
        Ok(x)
    }
}
