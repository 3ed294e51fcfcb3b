//! Layers with parameters, shared by every model.

mod attention;
mod batch_norm;
mod codebook;
mod conv;
mod conv3d;
mod conv_transpose;
mod embedding;
mod encoder_layer;
mod experts;
mod gated_mlp;
mod glu_mb_conv;
mod key_value_cache;
mod linear;
mod linear_group;
mod lite_mla;
mod norm;
mod timestep;
mod vqgan;

pub use attention::{AttentionNames, AttentionProjections, AttentionWidths, QueryKeyNorms};
pub use batch_norm::FoldedBatchNorm;
pub use codebook::Codebook;
pub use conv::{Conv2d, ConvOptions, DepthwiseConv2d};
pub use conv_transpose::{ConvTranspose2d, ConvTransposeOptions};
pub use conv3d::{ClipPadding, Conv3d, Conv3dOptions};
pub use embedding::Embedding;
pub use encoder_layer::{EncoderActivation, EncoderLayer, EncoderLayerOptions};
pub use experts::{ExpertNames, ExpertOptions, MixtureOfExperts, Scoring};
pub use gated_mlp::{GatedMlp, GatedMlpNames};
pub use glu_mb_conv::GluMbConv;
pub use key_value_cache::{KeyValueCache, KeyValueType};
pub use linear::Linear;
pub use linear_group::LinearGroup;
pub use lite_mla::{FrozenLiteMla, LiteMla, LiteMlaProjection, LiteMlaScale};
pub use norm::{GroupNorm, LayerNorm, RmsNorm, RmsNormKind};
pub use timestep::{TimestepEmbedding, sinusoid};
pub use vqgan::{VqganDecoder, VqganEncoder, VqganOptions, VqganProjections};
