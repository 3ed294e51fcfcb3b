//! The forward pass.

use brisk_nn::{Init, Linear, Tensor, Trace, Weights, check_finite, ops};

use super::{LlavaConfig, LlavaVision};
use crate::buffers::ROTARY;
use crate::clip::ClipVision;
use crate::language_model::LanguageModel;
use crate::{Error, Result};

/// Where the body stands in files: of LLaVA as published, of LLaVA in newer versions of transformers, of a causal
/// language model; else it stands alone.
const BODIES: [&str; 3] = ["language_model.model", "model.language_model", "model"];
/// Where the vision encoder stands.
const VISIONS: [&str; 4] = [
    "vision_tower.vision_model",
    "model.vision_tower.vision_model",
    "model.vision_tower",
    "vision_tower",
];
const PROJECTORS: [&str; 2] = ["multi_modal_projector", "model.multi_modal_projector"];
const HEADS: [&str; 2] = ["lm_head.weight", "language_model.lm_head.weight"];

/// A Llama body with what reads pictures.
#[derive(Debug)]
pub struct Llava {
    config: LlavaConfig,
    body: LanguageModel,
    vision: Option<Vision>,
}

#[derive(Debug)]
struct Vision {
    encoder: ClipVision,
    projector: [Linear; 2],
}

/// The first of the paths below which a tensor lies, or the last of them.
fn below(weights: &Weights, paths: &[&'static str], tensor: &str) -> Option<&'static str> {
    let mut paths = paths.iter().copied();
    paths.find(|path| weights.contains(&format!("{path}.{tensor}")))
}

impl Llava {
    /// Loads the body without its head, and what reads pictures where the configuration has it, by any of the
    /// published names.
    ///
    /// # Errors
    /// One report of every tensor that is missing, unexpected or of another shape.
    pub fn load(config: &LlavaConfig, weights: &Weights) -> Result<Self> {
        let inner = match below(weights, &BODIES, "embed_tokens.weight") {
            Some(path) => weights.pp(path),
            None if config.vision.is_some() => weights.pp(BODIES[0]),
            None => weights.clone(),
        };
        let body = LanguageModel::load_body(&config.text, &inner)?;
        let mut ignored: Vec<String> = ROTARY.iter().map(|name| (*name).to_owned()).collect();
        ignored.extend(HEADS.map(str::to_owned));
        let vision = match &config.vision {
            Some(vision) => {
                let class = "embeddings.class_embedding";
                let path = below(weights, &VISIONS, class).unwrap_or(VISIONS[0]);
                // What stands behind the layers that are run.
                let layers = vision.layers..vision.encoder.num_hidden_layers;
                ignored.extend(layers.map(|layer| format!("{path}.encoder.layers.{layer}.")));
                ignored.extend(
                    ["post_layernorm.", "embeddings.position_ids"]
                        .map(|name| format!("{path}.{name}")),
                );
                Some(Vision::load(config, vision, path, weights)?)
            }
            None => None,
        };
        let ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
        weights.finish(&ignored)?;
        Ok(Self {
            config: config.clone(),
            body,
            vision,
        })
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &LlavaConfig {
        &self.config
    }

    /// The tokens of normalised pictures `[B,N,N,3]`, `[B,tokens,D]`.
    ///
    /// # Errors
    /// A model that reads texts alone, pictures of another size, or a non-finite activation.
    pub fn picture_tokens(&self, pictures: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (Some(vision), Some(config)) = (&self.vision, &self.config.vision) else {
            return Err(Error::Shape(
                "the model reads texts alone, and a picture was given".into(),
            ));
        };
        let states = vision
            .encoder
            .forward(pictures, &mut trace.within("vision_tower"))?;
        let first = usize::from(!config.keeps_class);
        let states = states
            .narrow(1, first, states.dim(1)? - first)?
            .contiguous()?;
        trace.see("vision_tower", &states);
        let [one, two] = &vision.projector;
        let tokens = two.forward(&ops::gelu_erf(&one.forward(&states)?)?)?;
        check_finite(&tokens, "vision encoder", "multi_modal_projector")?;
        trace.see("multi_modal_projector", &tokens);
        Ok(tokens)
    }

    /// The states `[T,D]` of a text's tokens, before the last `skipped` layers (without the final norm) or, with none
    /// skipped, behind all; `picture` are the rows `[n,D]` that stand for its image tokens, in their order.
    ///
    /// # Errors
    /// Ids outside the vocabulary, more tokens than the model knows, another number of image tokens than rows, or a
    /// non-finite activation.
    pub fn states(
        &self,
        ids: &[u32],
        picture: Option<&Tensor>,
        skipped: usize,
        trace: &mut Trace,
    ) -> Result<Tensor> {
        let mut embeddings = self.body.embed(ids)?;
        if let Some(picture) = picture {
            embeddings = self.with_picture(ids, &embeddings, picture)?;
        }
        self.body.states_of(&embeddings, skipped, trace)
    }

    fn with_picture(&self, ids: &[u32], embeddings: &Tensor, rows: &Tensor) -> Result<Tensor> {
        let token = self.config.vision.as_ref().map(|vision| vision.image_token);
        let here = |id: &u32| Some(*id) == token;
        let found = ids.iter().filter(|id| here(id)).count();
        if found != rows.dim(0)? {
            return Err(Error::Shape(format!(
                "{found} image tokens in the text for the {} of its pictures",
                rows.dim(0)?
            )));
        }
        let both = Tensor::cat(&[embeddings.clone(), rows.clone()], 0)?;
        let mut next = ids.len();
        let places = ids.iter().enumerate().map(|(place, id)| {
            if here(id) {
                next += 1;
                (next - 1) as u32
            } else {
                place as u32
            }
        });
        both.index_select(&Tensor::from_vec(places.collect(), ids.len())?, 0)
    }
}

impl Vision {
    fn load(
        config: &LlavaConfig,
        vision: &LlavaVision,
        path: &str,
        weights: &Weights,
    ) -> Result<Self> {
        let projector = below(weights, &PROJECTORS, "linear_1.weight").unwrap_or(PROJECTORS[0]);
        let (from, to) = (vision.encoder.hidden_size, config.text.hidden_size);
        let linear = |name: &str, from: usize| {
            let weights = weights.pp(projector).pp(name);
            Linear::load(&weights, from, to, true, Init::FanIn(1.0))
        };
        Ok(Self {
            encoder: ClipVision::load(&vision.encoder, vision.layers, &weights.pp(path))?,
            projector: [linear("linear_1", from)?, linear("linear_2", to)?],
        })
    }
}
