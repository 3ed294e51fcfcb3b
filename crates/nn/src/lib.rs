//! Tensors, operations over the kernels, and every block that models share.
//!
//! [`Tensor`] is what everything above passes around. [`ops`] wraps the kernels as its differentiable
//! operations, candle's on the host, and is the only place that knows both. The layers on top
//! ([`Linear`], [`Conv2d`], [`RmsNorm`], …) read their parameters from [`Weights`], whose names mirror
//! the checkpoint's.
//!
//! Feature maps are channels-last `[batch, height, width, channels]`, tokens are
//! `[batch, tokens, channels]`, values are f32; weights may stay bf16 or f16 in memory.
//!
//! This crate knows no model and no file format.

#![forbid(unsafe_code)]

mod checkpoint;
mod error;
mod layers;
mod lora;
mod low_bit;
pub mod ops;
mod quantized;
pub mod random;
mod tensor;
pub mod tensor_file;
mod trace;
mod weights;

/// NVIDIA cards of this machine.
pub mod cards {
    pub use brisk_cuda::{Found, Result, cards, target};
}

pub use brisk_cuda::{Device, Precision};
pub use brisk_kernels::int4::{Activations, Branch, HalfType, Int4Weight};
pub use brisk_kernels::logits;
pub use brisk_kernels::simd::flush_denormals;
pub use brisk_kernels::two_way;
pub use checkpoint::{Checkpoint, Tokens, checkpoint, with_checkpoint};
pub use error::{Error, Result, WeightReport};
pub use layers::{
    AttentionNames, AttentionProjections, AttentionWidths, ClipPadding, Codebook, Conv2d, Conv3d,
    Conv3dOptions, ConvOptions, ConvTranspose2d, ConvTransposeOptions, DepthwiseConv2d, Embedding,
    EncoderActivation, EncoderLayer, EncoderLayerOptions, ExpertNames, ExpertOptions,
    FoldedBatchNorm, FrozenLiteMla, GatedMlp, GatedMlpNames, GluMbConv, GroupNorm, KeyValueCache,
    KeyValueType, LayerNorm, Linear, LinearGroup, LiteMla, LiteMlaProjection, LiteMlaScale,
    MixtureOfExperts, PatchEmbedding, QueryKeyNorms, RmsNorm, RmsNormKind, Scoring,
    TimestepEmbedding, VqganDecoder, VqganEncoder, VqganOptions, VqganProjections, from_patches,
    sinusoid,
};
pub use lora::{Lora, LoraFile};
pub use low_bit::LowBitSource;
pub use quantized::{Quantization, QuantizedWeights};
pub use tensor::{
    D, DType, Dim, Location, Shape, Tensor, WithDType, train_on_card, training_device,
};
pub use trace::Trace;
pub use weights::{Init, InputWatcher, NamedShape, Storage, Weights, WeightsBuilder, is_of_part};

/// Checks that every value is finite. Of values on a card this is found when any are next brought to the host.
///
/// # Errors
/// [`Error::NonFinite`] naming the stage and layer.
pub fn check_finite(x: &Tensor, stage: &str, layer: &str) -> Result<()> {
    if let Some(x) = x.device() {
        // The answer comes with the next values that go to the host: nothing waits here.
        return Ok(x.device().check_finite(x.tensor(), stage, layer)?);
    }
    if ops::all_finite(x)? {
        return Ok(());
    }
    Err(Error::NonFinite {
        stage: stage.to_string(),
        layer: layer.to_string(),
    })
}
