//! Checkpoints of the paper's authors.

use crate::registry::Published;

const fn checkpoint(id: &'static str, model: &'static str) -> Published {
    Published {
        id,
        model,
        pixels: 512,
        note: "classes of ImageNet by their numbers, 0 to 999",
        discouraged: false,
    }
}

pub(super) static PUBLISHED: &[Published] = &[
    checkpoint(
        "mit-han-lab/dc-ae-f32c32-in-1.0-uvit-s-in-512px",
        "UViT-S, f32",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f32c32-in-1.0-dit-xl-in-512px",
        "DiT-XL, f32",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f32c32-in-1.0-dit-xl-in-512px-trainbs1024",
        "DiT-XL, f32, batches of 1024",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f32c32-in-1.0-uvit-h-in-512px",
        "UViT-H, f32",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f64c128-in-1.0-uvit-h-in-512px",
        "UViT-H, f64",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f64c128-in-1.0-uvit-h-in-512px-train2000k",
        "UViT-H, f64, 2000k steps",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f32c32-in-1.0-uvit-2b-in-512px",
        "UViT-2B, f32",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f64c128-in-1.0-uvit-2b-in-512px",
        "UViT-2B, f64",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f64c128-in-1.0-uvit-2b-in-512px-train2000k",
        "UViT-2B, f64, 2000k steps",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f32c32-in-1.0-usit-h-in-512px",
        "USiT-H, f32",
    ),
    checkpoint(
        "mit-han-lab/dc-ae-f32c32-in-1.0-usit-2b-in-512px",
        "USiT-2B, f32",
    ),
];
