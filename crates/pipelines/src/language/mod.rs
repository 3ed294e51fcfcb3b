//! Diffusion language models: from a prompt to text.
//!
//! ```text
//! TextRequest::plan          checked against the model; decoder, rule, blocks and steps settled
//! one Decoder a sequence     says which pass it needs next, takes its logits, decides tokens
//!   blocks.rs                LLaDA and Fast-dLLM: none, prefix or dual cache
//!   dream.rs                 Dream's own algorithms, and its block variant
//!   block_causal.rs          SDAR, LLaDA2, BD3-LM, Fast-dLLM v2: exact caches
//! Session                    packs the passes of all sequences into one forward pass
//! ```
//!
//! Sequences of a batch share forward passes and nothing else: each decodes as it would alone.

mod algorithm;
mod block_causal;
mod blocks;
mod decide;
mod dream;
mod load;
mod pipeline;
mod proposal;
mod random;
mod request;
mod selection;
mod session;
mod weights;

pub use algorithm::{Algorithm, CacheMode, EndTokens};
pub use load::{LanguageFiles, LoadOptions};
pub use pipeline::TextPipeline;
pub use request::{TextPlan, TextRequest};
pub use selection::{Selection, quota};
pub use session::Generation;
