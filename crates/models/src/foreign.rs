//! Networks that brisk does not run, known well enough to say what a file is.

use brisk_store::TensorSource;

/// By a tensor that only they have. The first match counts.
const TELLING: [(&str, &str); 9] = [
    ("double_blocks.0.img_attn.qkv.weight", "FLUX transformer"),
    (
        "single_transformer_blocks.0.attn.to_q.weight",
        "FLUX transformer (diffusers names)",
    ),
    (
        "joint_blocks.0.x_block.attn.qkv.weight",
        "Stable Diffusion 3 transformer",
    ),
    (
        "model.diffusion_model.input_blocks.0.0.weight",
        "Stable Diffusion checkpoint",
    ),
    (
        "down_blocks.0.resnets.0.conv1.weight",
        "Stable Diffusion U-Net (diffusers names)",
    ),
    (
        "encoder.down_blocks.0.resnets.0.conv1.weight",
        "AutoencoderKL",
    ),
    (
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        "T5 text encoder",
    ),
    (
        "text_model.embeddings.token_embedding.weight",
        "CLIP text encoder",
    ),
    ("model.layers.0.self_attn.q_proj.weight", "language model"),
];

/// What a file holds, if it is one of them.
pub fn recognise(source: &dyn TensorSource) -> Option<&'static str> {
    let found = TELLING
        .iter()
        .find(|(tensor, _)| source.info(tensor).is_some());
    found.map(|(_, name)| *name)
}
