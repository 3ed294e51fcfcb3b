//! From a request for pictures to every decision.

use std::sync::Arc;

use brisk_media::Picture;

use super::draws::How;
use super::files::Files;
use super::options::{DRAWS, RECONSTRUCT, TEMPERATURE};
use crate::autoregressive::Sampling;
use crate::error::{Error, Result};
use crate::only_size::check_only_size;
use crate::options::{CodeTensor, Codes, Definition, Key, Options, Scope, keys};
use crate::request::ImageRequest;

/// Guidance that published models are drawn with.
pub(super) const GUIDANCE: f32 = 3.0;
/// Most codes that come into question, and the probability that they have.
const TOP_K: usize = 900;
const TOP_P: f64 = 0.96;
/// Pictures that are drawn at once: the weights are read once for all of them.
const AT_ONCE: usize = 8;
/// The tensor of codes in files.
const CODES: &str = "codes";

/// A request with every decision made.
#[derive(Debug, Clone)]
pub(super) struct DrawPlan {
    pub prompts: Vec<String>,
    pub images_per_prompt: usize,
    /// Of each picture.
    pub seeds: Vec<u64>,
    pub guidance: f32,
    pub how: How,
    /// Codes `[places·D]` of each picture's first places; all alike in number.
    pub given: Option<Vec<Vec<u32>>>,
    /// What is encoded and decoded in place of drawing.
    pub reconstruct: Option<Arc<Picture>>,
    pub at_once: usize,
}

impl DrawPlan {
    /// Pictures in all.
    pub fn images(&self) -> usize {
        self.seeds.len()
    }

    /// The prompt of a picture.
    pub fn prompt_of(&self, picture: usize) -> usize {
        picture / self.images_per_prompt
    }

    /// Whether rows without a prompt are computed too.
    pub fn guided(&self) -> bool {
        self.guidance != 1.0
    }

    /// Places whose codes are given.
    pub fn given_places(&self, depth: usize) -> usize {
        let codes = self.given.as_ref().and_then(|rows| rows.first());
        codes.map_or(0, |codes| codes.len() / depth)
    }

    /// Whether anything is drawn: codes of all places need only be decoded.
    pub fn draws(&self, files: &Files) -> bool {
        let config = &files.tower_config;
        self.reconstruct.is_none() && self.given_places(config.depth) < config.places()
    }
}

/// Checks a request against a model and decides what it leaves open.
pub(super) fn plan(request: &ImageRequest, files: &Files) -> Result<DrawPlan> {
    let asked = &request.options;
    DRAWS.check(&files.label, Scope::Request, asked)?;
    request.check()?;
    check_size(asked, [&keys::WIDTH, &keys::HEIGHT], files)?;
    let images = request.prompts.len() * request.images_per_prompt();
    let reconstruct = asked.get(&RECONSTRUCT);
    let drawn: [&'static Definition; 4] = [
        keys::GUIDANCE.definition(),
        keys::GREEDY.definition(),
        keys::CODES.definition(),
        keys::IMAGES.definition(),
    ];
    let how = how(asked)?;
    if reconstruct.is_some() {
        without(asked, &chance(), RECONSTRUCT.name())?;
        without(asked, &drawn, RECONSTRUCT.name())?;
        files.read_side()?;
        if request
            .prompts
            .iter()
            .any(|prompt| !prompt.trim().is_empty())
        {
            return Err(Error::request(
                RECONSTRUCT.name(),
                "nothing is drawn by a prompt with it; leave the prompt out",
            ));
        }
    } else if files.tokenizer.is_none() {
        return Err(Error::folder(
            &files.label,
            "the model was opened without its tokenizer; prompts need one",
        ));
    }
    let given = match asked.get(&keys::CODES) {
        Some(codes) => Some(given(&codes, files, images)?),
        None => None,
    };
    Ok(DrawPlan {
        prompts: request.prompts.clone(),
        images_per_prompt: request.images_per_prompt(),
        seeds: request
            .planned_images()
            .iter()
            .map(|image| image.seed)
            .collect(),
        guidance: asked.get(&keys::GUIDANCE).unwrap_or(GUIDANCE),
        how,
        given,
        reconstruct,
        at_once: AT_ONCE.min(images),
    })
}

/// Options that say how chance decides.
fn chance() -> [&'static Definition; 3] {
    [
        keys::TOP_K.definition(),
        keys::TOP_P.definition(),
        TEMPERATURE.definition(),
    ]
}

/// Refuses options that have no effect beside another.
fn without(asked: &Options, dead: &[&'static Definition], other: &'static str) -> Result<()> {
    match dead.iter().find(|option| asked.has(option)) {
        Some(option) => Err(Error::request(
            option.name,
            format!("has no effect with `{other}`; leave one of them out"),
        )),
        None => Ok(()),
    }
}

/// How codes are drawn.
pub(super) fn how(asked: &Options) -> Result<How> {
    let greedy = asked.get(&keys::GREEDY).unwrap_or(false);
    if greedy {
        without(asked, &chance(), keys::GREEDY.name())?;
    }
    Ok(How {
        greedy,
        temperature: asked.get(&TEMPERATURE).unwrap_or(1.0),
        sampling: Sampling {
            top_k: asked.get(&keys::TOP_K).unwrap_or(TOP_K),
            top_p: asked.get(&keys::TOP_P).unwrap_or(TOP_P),
        },
    })
}

/// Refuses any size but the model's, by the two options that ask for one.
pub(super) fn check_size(
    asked: &Options,
    keys: [&'static Key<usize>; 2],
    files: &Files,
) -> Result<()> {
    let [height, width] = files.tower_config.decoded_size();
    check_only_size(asked, keys, [width, height], "")
}

/// Codes of a file for `images` pictures: one row for each, or one for all.
fn given(codes: &Codes, files: &Files, images: usize) -> Result<Vec<Vec<u32>>> {
    let config = &files.tower_config;
    let wrong = |message: String| Error::request(keys::CODES.name(), message);
    let Some(tensor) = codes.0.get(CODES).filter(|_| codes.0.len() == 1) else {
        let names: Vec<&str> = codes.0.keys().map(String::as_str).collect();
        return Err(wrong(format!(
            "tensors {}; expected \"{CODES}\" alone",
            names.join(", ")
        )));
    };
    let fits = |shape: &[usize]| match *shape {
        [rows, places, depth] => {
            (rows == 1 || rows == images)
                && (1..=config.places()).contains(&places)
                && depth == config.depth
                && tensor.values.len() == rows * places * depth
        }
        _ => false,
    };
    if !fits(&tensor.shape) {
        return Err(wrong(format!(
            "\"{CODES}\" has shape {:?}; expected {images} pictures or 1, up to {} places, and {} codes of each",
            tensor.shape,
            config.places(),
            config.depth
        )));
    }
    if let Some(code) = tensor
        .values
        .iter()
        .find(|code| **code as usize >= config.n_embed)
    {
        return Err(wrong(format!(
            "\"{CODES}\" holds {code}; the codebook has {} codewords",
            config.n_embed
        )));
    }
    let each = tensor.values.len() / tensor.shape[0];
    let rows: Vec<Vec<u32>> = tensor.values.chunks(each).map(<[u32]>::to_vec).collect();
    Ok((0..images)
        .map(|at| rows[at.min(rows.len() - 1)].clone())
        .collect())
}

/// The codes of a picture, as they are given back.
pub(super) fn kept(codes: Vec<u32>, depth: usize) -> Codes {
    let tensor = CodeTensor {
        shape: vec![1, codes.len() / depth, depth],
        values: codes,
    };
    Codes([(CODES.to_owned(), tensor)].into_iter().collect())
}
