//! Published checkpoints of the family, in the diffusers layout.

use crate::registry::Published;

const fn published(
    id: &'static str,
    model: &'static str,
    pixels: u32,
    note: &'static str,
) -> Published {
    Published {
        id,
        model,
        pixels,
        note,
        discouraged: false,
    }
}

/// Every one, the small and quick ones of a kind first.
pub(super) const PUBLISHED: &[Published] = &[
    published(
        "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers",
        "SANA-Sprint 0.6B",
        1024,
        "1 to 4 steps",
    ),
    published(
        "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers",
        "SANA-Sprint 1.6B",
        1024,
        "1 to 4 steps",
    ),
    published(
        "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers",
        "SANA-1.5 1.6B",
        1024,
        "",
    ),
    published(
        "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers",
        "SANA-1.5 4.8B",
        1024,
        "",
    ),
    published(
        "Efficient-Large-Model/Sana_600M_512px_diffusers",
        "SANA 0.6B",
        512,
        "multilingual; fp16 variant",
    ),
    published(
        "Efficient-Large-Model/Sana_600M_1024px_diffusers",
        "SANA 0.6B",
        1024,
        "multilingual; fp16 variant",
    ),
    published(
        "Efficient-Large-Model/Sana_1600M_512px_diffusers",
        "SANA 1.6B",
        512,
        "English; fp16 variant",
    ),
    published(
        "Efficient-Large-Model/Sana_1600M_512px_MultiLing_diffusers",
        "SANA 1.6B",
        512,
        "multilingual; fp16 variant",
    ),
    Published {
        discouraged: true,
        ..published(
            "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
            "SANA 1.6B",
            1024,
            "not recommended: blobby pictures in every implementation",
        )
    },
    published(
        "Efficient-Large-Model/Sana_1600M_1024px_MultiLing_diffusers",
        "SANA 1.6B",
        1024,
        "multilingual; fp16 variant",
    ),
    published(
        "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
        "SANA 1.6B",
        1024,
        "the usual base; bf16 variant",
    ),
    published(
        "Efficient-Large-Model/Sana_1600M_2Kpx_BF16_diffusers",
        "SANA 1.6B",
        2048,
        "bf16 variant",
    ),
    published(
        "Efficient-Large-Model/Sana_1600M_4Kpx_BF16_diffusers",
        "SANA 1.6B",
        4096,
        "bf16 variant",
    ),
    published(
        "ishan24/Sana_600M_1024px_ControlNetPlus_diffusers",
        "SANA 0.6B + ControlNet",
        1024,
        "third party; HED scribble",
    ),
];
