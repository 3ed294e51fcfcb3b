//! Layers with parameters, shared by every model.

mod conv;
mod glu_mb_conv;
mod linear;
mod norm;
mod timestep;

pub use conv::{Conv2d, ConvOptions, DepthwiseConv2d};
pub use glu_mb_conv::GluMbConv;
pub use linear::Linear;
pub use norm::{RmsNorm, RmsNormKind};
pub use timestep::{TimestepEmbedding, sinusoid};
