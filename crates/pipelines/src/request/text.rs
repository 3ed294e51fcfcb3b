//! Text: what is asked for, what was decided, and what comes back.

use std::sync::Arc;

use brisk_text::{ChatMessage, Tokenizer};
use serde_json::{Map, Value};

use super::{Decisions, StageCost, StageMemory};
use crate::error::{Error, Result};
use crate::events::Control;
use crate::known_prompts::KnownPrompts;
use crate::options::{Key, OptionValue, Options, Support};

/// What a text starts from.
#[derive(Debug, Clone, PartialEq)]
pub enum TextPrompt {
    /// One user's turn, by the model's chat template; a text to continue where it has none.
    Question(String),
    /// A conversation, by the model's chat template; its first turns are left out where it is too long.
    Conversation(Vec<ChatMessage>),
    /// A conversation of which nothing is left out: one that is too long is refused.
    WholeConversation(Vec<ChatMessage>),
    /// A text to continue as it stands.
    Continue(String),
    /// Tokens to continue.
    Tokens(Vec<u32>),
}

impl TextPrompt {
    /// What is asked now: the text, or the last turn of a conversation.
    pub fn last_text(&self) -> Option<&str> {
        match self {
            Self::Question(text) | Self::Continue(text) => Some(text),
            Self::Conversation(turns) | Self::WholeConversation(turns) => {
                turns.last().map(|turn| turn.content.as_str())
            }
            Self::Tokens(_) => None,
        }
    }
}

/// What to write. Every prompt gives one text.
#[derive(Debug, Clone, Default)]
pub struct TextRequest {
    /// At least one prompt.
    pub prompts: Vec<TextPrompt>,
    /// Everything else.
    pub options: Options,
}

impl TextRequest {
    /// A request for the answer to one question.
    pub fn new(question: impl Into<String>) -> Self {
        Self::of(vec![TextPrompt::Question(question.into())])
    }

    /// A request for several prompts.
    pub fn of(prompts: Vec<TextPrompt>) -> Self {
        Self {
            prompts,
            options: Options::new(),
        }
    }

    /// Gives an option.
    pub fn with<T: OptionValue>(mut self, key: &'static Key<T>, value: T) -> Self {
        self.options.set(key, value);
        self
    }
}

/// A request with everything decided.
#[derive(Debug, Clone)]
pub struct TextPlan {
    /// Name of the model.
    pub model: String,
    /// What was asked for.
    pub request: TextRequest,
    /// Tokens of every prompt.
    pub prompts: Vec<Vec<u32>>,
    /// Where the shown part of each text begins.
    pub shown_from: Vec<usize>,
    /// The seed.
    pub seed: u64,
    /// Most tokens of an answer.
    pub length: usize,
    /// Tokens that end a text; what follows the first of them is not shown.
    pub end_tokens: Vec<u32>,
    /// Effective values, by the JSON field of their option.
    pub settings: Map<String, Value>,
    /// Estimated need beside the weights, for all prompts at once.
    pub memory: StageMemory,
    /// What a user should know of the request before it runs.
    pub warnings: Vec<String>,
    pub(crate) decisions: Arc<Decisions>,
}

/// Why a text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// The length was reached.
    Length,
}

/// One result.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedText {
    /// The answer, or the whole text where blanks were filled in; token numbers where the model was
    /// opened without a tokenizer.
    pub text: String,
    /// Prompt and answer, with what follows the first end token.
    pub tokens: Vec<u32>,
    /// Number of prompt tokens.
    pub prompt_tokens: usize,
    /// Tokens of the answer up to its first end token.
    pub answer_tokens: usize,
    /// Forward passes that this text took part in.
    pub forward_passes: usize,
    /// Why it ends.
    pub finish_reason: FinishReason,
}

impl GeneratedText {
    /// Tokens that a forward pass decided, on average.
    pub fn tokens_per_pass(&self) -> f64 {
        self.answer_tokens as f64 / self.forward_passes.max(1) as f64
    }
}

/// A model that writes.
pub trait TextModel: Send + Sync {
    /// Name for messages: the folder or hub id.
    fn label(&self) -> &str;

    /// The options that it honours.
    fn support(&self) -> &'static Support;

    /// Positions that it knows.
    fn context(&self) -> usize;

    /// Number of token ids that it takes.
    fn vocabulary_size(&self) -> usize;

    /// Whether it has a chat template, without which it has no turns.
    fn has_chat_template(&self) -> bool;

    /// What its folder says of the prompts that it was trained on.
    fn known_prompts(&self) -> Option<&KnownPrompts> {
        None
    }

    /// Its tokenizer, where it was opened with one.
    fn tokenizer(&self) -> Option<&Arc<Tokenizer>>;

    /// Checks a request and decides everything that it leaves open. The first turns of a conversation
    /// that is too long are left out, with a warning.
    ///
    /// # Errors
    /// An option that this model does not honour or a value that it cannot serve, by the option's name.
    fn plan(&self, request: &TextRequest) -> Result<TextPlan>;

    /// Bytes of its weights, as they are kept in memory from when it is opened.
    fn weight_bytes(&self) -> u64;

    /// What the texts of a plan compute and move, one after another, if every step that the plan allows is
    /// taken.
    ///
    /// # Errors
    /// A plan of another model.
    fn cost(&self, plan: &TextPlan) -> Result<StageCost>;

    /// Writes the texts of a plan.
    ///
    /// # Errors
    /// A plan of another model, values that are not finite, or a cancellation.
    fn generate(&self, plan: &TextPlan, control: &Control) -> Result<Vec<GeneratedText>>;

    /// Whether [`TextModel::next_scores`] gives any.
    fn scores_next(&self) -> bool {
        false
    }

    /// The scores of every token to follow each prompt of a plan and the tokens `behind` it, before anything is made of
    /// them.
    ///
    /// # Errors
    /// A model that gives none, a plan of another model, values that are not finite, or a cancellation.
    fn next_scores(
        &self,
        _plan: &TextPlan,
        _behind: &[u32],
        _control: &Control,
    ) -> Result<Vec<Vec<f32>>> {
        let message = "it gives no scores of its next token";
        Err(Error::folder(self.label(), message))
    }

    /// A session that prompts join and leave while it runs; none of a model that has no such sessions.
    fn session(&self) -> Option<Box<dyn TextSession + '_>> {
        None
    }

    /// Plans and writes; the plan's warnings go to `control`.
    ///
    /// # Errors
    /// As [`TextModel::plan`] and [`TextModel::generate`].
    fn write(&self, request: &TextRequest, control: &Control) -> Result<Vec<GeneratedText>> {
        let plan = self.plan(request)?;
        plan.warnings
            .iter()
            .for_each(|warning| control.warn(warning));
        self.generate(&plan, control)
    }
}

/// A sequence of a [`TextSession`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub(crate) u64);

/// A text while it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas<'a> {
    /// Its tokens, with undecided ones.
    pub tokens: &'a [u32],
    /// The token that stands for undecided ones.
    pub mask: u32,
    /// Where the shown part begins.
    pub start: usize,
    /// Whether no further pass would change it.
    pub done: bool,
}

/// Sequences of any requests to one model that share forward passes. They come and go between passes, and
/// each decodes as it would alone.
pub trait TextSession: Send {
    /// Takes in prompt `prompt` of a plan; it takes part from the next pass on.
    ///
    /// # Errors
    /// A plan of another model, or one without such a prompt.
    fn admit(&mut self, plan: &TextPlan, prompt: usize) -> Result<SequenceId>;

    /// One forward pass for every sequence that needs one; those that took part. None: all are done.
    ///
    /// After an error, also a cancellation, every sequence stands where it did before, and the session
    /// can go on.
    ///
    /// # Errors
    /// Values that are not finite, or [`Error::Cancelled`](crate::Error::Cancelled).
    fn step(&mut self, control: &Control) -> Result<Vec<SequenceId>>;

    /// How far a sequence is; none that was removed.
    fn canvas(&mut self, sequence: SequenceId) -> Option<Canvas<'_>>;

    /// Lets a sequence go, with the memory that it took. Its text where it was done.
    ///
    /// # Errors
    /// Tokens that are no text.
    fn remove(&mut self, sequence: SequenceId) -> Result<Option<GeneratedText>>;

    /// Sequences that were admitted and not removed.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
