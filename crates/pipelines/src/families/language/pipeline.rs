//! The pipeline: a loaded model, and decoding with it.

use std::sync::Arc;

use brisk_models::language_model::{Family, LanguageModel};
use brisk_text::{ChatMessage, ChatTemplate, Tokenizer};

use super::algorithm::{CacheMode, EndTokens};
use super::block_causal::{BlockCausalDecoder, BlockCausalOptions};
use super::blocks::BlockDecoder;
use super::decoding::{DecoderKind, Decoding, DecodingPlan};
use super::dream::{DreamBlockDecoder, DreamDecoder};
use super::proposal::{Proposer, Sampling};
use super::random::Random;
use super::session::{Decoder, Generation, Newcomer, Session};
use crate::error::{Error, Result};
use crate::events::Control;
use crate::known_prompts::KnownPrompts;

/// A diffusion language model, with its tokenizer where one was loaded.
#[derive(Debug)]
pub struct TextPipeline {
    pub(super) label: String,
    pub(super) model: LanguageModel,
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    pub(super) template: Option<ChatTemplate>,
    /// Tokens that end a text, according to the files beside the configuration.
    pub(super) stop_tokens: Vec<u32>,
    pub(super) mask_token: Option<u32>,
    /// Whether sequences start so that their prompt ends with a block (BD3-LM).
    pub(super) aligned: bool,
    /// Bytes of the weights, as they are kept.
    pub(super) weight_bytes: u64,
    /// Bytes of one, on average.
    pub(super) bytes_per_weight: f64,
    /// Whether there are no weights to run with.
    pub(super) plan_only: bool,
    /// What the folder says that the model knows.
    pub(super) known_prompts: Option<KnownPrompts>,
    /// What a user should know of the files.
    pub(super) notes: Vec<String>,
}

impl TextPipeline {
    /// The model.
    pub fn model(&self) -> &LanguageModel {
        &self.model
    }

    /// Where the model came from, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// None was loaded.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_deref().ok_or_else(|| {
            Error::folder(
                self.label.clone(),
                "the model was loaded without its tokenizer; text needs one",
            )
        })
    }

    /// Token ids of a text: as one user's turn where the model has a chat template and `raw` is
    /// false, as it stands otherwise.
    ///
    /// # Errors
    /// No tokenizer, or a template that fails.
    pub fn encode(&self, text: &str, raw: bool) -> Result<Vec<u32>> {
        if raw || self.template.is_none() {
            return Ok(self.tokenizer()?.encode(text)?);
        }
        self.encode_chat(&[ChatMessage {
            role: "user".to_owned(),
            content: text.to_owned(),
        }])
    }

    /// Token ids of a conversation by the model's chat template, up to where the assistant answers.
    ///
    /// # Errors
    /// No tokenizer or no chat template, or a template that refuses the conversation.
    pub fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        let Some(template) = &self.template else {
            return Err(Error::folder(
                self.label.clone(),
                "there is no chat template among the model's files, so it has no turns; \
                 give a text to continue instead",
            ));
        };
        // Converted models were trained without their parent's thinking turns.
        let thinking = (self.model.config().family == Family::A2d).then_some(false);
        Ok(tokenizer.encode_plain(&template.render(messages, thinking)?)?)
    }

    /// The request with what the model's files add to it: end tokens and mask.
    pub fn complete(&self, request: &Decoding) -> Decoding {
        let mut request = request.clone();
        request.mask_token = request.mask_token.or(self.mask_token);
        request.stop_tokens.extend(&self.stop_tokens);
        request
    }

    /// Decodes a batch of prompts; `show` sees (sequence, canvas) after every forward pass, those of one
    /// sequence in order.
    ///
    /// # Errors
    /// A request or prompt that does not fit the model, a non-finite activation, or a
    /// cancellation.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        decoding: &Decoding,
        control: &Control,
        show: &mut (dyn FnMut(usize, &[u32]) + Send),
    ) -> Result<Vec<Generation>> {
        let decoding = self.complete(decoding);
        let config = self.model.config();
        let plan = Arc::new(decoding.plan(config)?);
        for prompt in prompts {
            decoding.check_prompt(prompt, &plan, config)?;
        }
        control.drive(|| self.decode(prompts, &decoding, &plan, control, show))
    }

    /// As [`TextPipeline::generate`], where everything was checked.
    pub(super) fn decode(
        &self,
        prompts: &[Vec<u32>],
        decoding: &Decoding,
        plan: &Arc<DecodingPlan>,
        control: &Control,
        show: &mut (dyn FnMut(usize, &[u32]) + Send),
    ) -> Result<Vec<Generation>> {
        let mut session = Session::new(&self.model);
        for prompt in prompts {
            session.admit(self.newcomer(prompt, decoding, plan))?;
        }
        session.run(control, show)?;
        Ok(session.finish())
    }

    /// A sequence that begins with `prompt`.
    pub(super) fn newcomer(
        &self,
        prompt: &[u32],
        decoding: &Decoding,
        plan: &Arc<DecodingPlan>,
    ) -> Newcomer {
        let pad = if self.aligned {
            prompt.len().next_multiple_of(plan.block_length) - prompt.len()
        } else {
            0
        };
        Newcomer {
            decoder: self.decoder(prompt, decoding, plan, pad),
            plan: Arc::clone(plan),
            prompt: prompt.len(),
            pad,
            length: prompt.len() + decoding.gen_length,
            guidance: decoding.guidance as f32,
            cached: decoding.cache != CacheMode::None,
        }
    }

    fn decoder(
        &self,
        prompt: &[u32],
        request: &Decoding,
        plan: &Arc<DecodingPlan>,
        pad: usize,
    ) -> Box<dyn Decoder> {
        let length = request.gen_length;
        let plan = Arc::clone(plan);
        let ends = plan.ends.clone();
        let proposer = Proposer {
            sampling: if plan.decoder == DecoderKind::Blocks {
                Sampling::Gumbel
            } else {
                Sampling::Filtered
            },
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            random: Random::new(request.seed),
            mask: plan.mask,
            removed: match request.end_tokens {
                EndTokens::Never => ends.iter().take(1).copied().collect(),
                _ => Vec::new(),
            },
            doubted: match request.end_tokens {
                EndTokens::Last => ends,
                _ => Vec::new(),
            },
        };
        let config = self.model.config();
        let order = request.algorithm_temperature;
        let (cache, early_stop) = (request.cache, request.early_stop);
        match plan.decoder {
            DecoderKind::Blocks => Box::new(BlockDecoder::new(
                prompt,
                length,
                plan,
                proposer,
                cache,
                config.shifted,
                early_stop,
            )),
            DecoderKind::DreamWhole => {
                Box::new(DreamDecoder::new(prompt, length, plan, proposer, order))
            }
            DecoderKind::DreamBlocks => Box::new(DreamBlockDecoder::new(
                prompt, length, plan, proposer, order, cache, early_stop,
            )),
            DecoderKind::BlockCausal => {
                let options = BlockCausalOptions {
                    cache,
                    early_stop,
                    entropy_bound: request.entropy_bound,
                    sub_block: config.shifted.then_some(request.sub_block_length),
                    pad,
                };
                Box::new(BlockCausalDecoder::new(
                    prompt, length, plan, proposer, options,
                ))
            }
        }
    }
}
