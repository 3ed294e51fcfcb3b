//! Attentions: softmax over whatever keys a mask leaves, forward and backward ([`forward`],
//! [`backward`]); softmax over keys that stay packed from pass to pass ([`packed`]); ReLU linear attention
//! ([`linear`]); softmax on grids with relative positions ([`relative`]);
//! softmax within windows with a table for every pair ([`window`]); and the rotary embedding of positions ([`rotary`]).

pub mod linear;
pub mod packed;
pub mod relative;
pub mod rotary;
mod softmax;
pub mod window;

pub use softmax::{AttentionShape, backward, forward};
