//! What each way of running the transformer takes and gives.

use crate::component::{Entry, Port, Setting};

pub(super) const CONTEXT: Port = Port::float("context", &["B", "L", "D"]);
pub(super) const MASK: Port = Port::mask("context_mask", &["B", "L"]);
pub(super) const CODES: Port = Port::ids("codes.", &["B", "codes_I"], "V");
pub(super) const LOGITS: Port = Port::float("logits", &["B", "codes", "V"]);
pub(super) const HIDDEN: Port = Port::float("hidden", &["B", "codes", "C"]);

pub(super) const TRANSFORMER: Entry = Entry {
    name: "transformer",
    about: "Predict the codes of all scales from those before them",
    inputs: &[CONTEXT, MASK, CODES],
    outputs: &[LOGITS, HIDDEN],
    sizes: &[],
    settings: &[Setting::Quantization],
};

pub(super) const NOISY: Port = Port::float("noisy", &["n", "z"]);
pub(super) const TIMESTEP: Port = Port::float("timestep", &["n"]);
pub(super) const CONDITION: Port = Port::float("condition", &["n", "C"]);
pub(super) const SAMPLE: Port = Port::float("sample", &["n", "2z"]);

pub(super) const DIFFUSION_HEAD: Entry = Entry {
    name: "diffusion_head",
    about: "Predict noise and variance of what codewords leave, place by place",
    inputs: &[NOISY, TIMESTEP, CONDITION],
    outputs: &[SAMPLE],
    sizes: &[],
    settings: &[Setting::Quantization],
};

pub(super) const GUIDANCE: Port = Port::scalar("guidance");
pub(super) const SMOOTH: Port = Port::scalar("more_smooth").optional();
pub(super) const LATENTS: Port = Port::float("latents", &["B", "places", "z"]);
pub(super) const NOISE: Port = Port::float("noise.", &["B", "places", "z"]).optional();
pub(super) const LATENT: Port = Port::float("latent", &["B", "z", "h", "w"]);
pub(super) const IMAGE: Port = Port::float("image", &["B", "3", "H", "W"]);

pub(super) const GENERATE: Entry = Entry {
    name: "generate",
    about: "Draw from rows of text, the likeliest code everywhere",
    inputs: &[CONTEXT, MASK, GUIDANCE, SMOOTH, LATENTS, NOISE],
    outputs: &[CODES, LATENT, IMAGE],
    sizes: &[],
    settings: &[Setting::Quantization],
};
