//! Tensors that older files hold beside the weights and that the configuration implies.

/// Endings of the rotary embedding's buffers: its frequencies, which older versions of transformers
/// saved in every layer, and the cosines and sines of a first number of positions.
pub(crate) const ROTARY: [&str; 4] = [
    ".rotary_emb.inv_freq",
    ".rotary_emb.original_inv_freq",
    ".rotary_emb.cos_cached",
    ".rotary_emb.sin_cached",
];
