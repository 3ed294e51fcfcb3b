//! The published checkpoints: their files hold a name alone.

use super::config::{Architecture, ClassConditionalConfig};
use crate::{Error, Result};

/// Depth, width and heads.
type Size = (usize, usize, usize);

const SMALL: Size = (12, 512, 8);
const HUGE: Size = (28, 1152, 16);
const TWO_BILLION: Size = (28, 2048, 32);
const THREE_BILLION: Size = (56, 2048, 32);

/// Side of the pictures of all of them, in pixels.
const PIXELS: usize = 512;

/// Name without the end that tells of training, size, whether it was trained with flow.
const NETWORKS: [(&str, Architecture, Size, bool); 8] = [
    ("uvit-s", Architecture::UVit, SMALL, false),
    ("uvit-h", Architecture::UVit, HUGE, false),
    ("uvit-2b", Architecture::UVit, TWO_BILLION, false),
    ("usit-h", Architecture::UVit, HUGE, true),
    ("usit-2b", Architecture::UVit, TWO_BILLION, true),
    ("usit-3b", Architecture::UVit, THREE_BILLION, true),
    ("dit-xl", Architecture::Dit, HUGE, false),
    ("sit-xl", Architecture::Dit, HUGE, true),
];

/// Autoencoder, pixels along a cell of its latents, their channels.
const AUTOENCODERS: [(&str, usize, usize); 3] = [
    ("dc-ae-f32c32-in-1.0", 32, 32),
    ("dc-ae-f64c128-in-1.0", 64, 128),
    ("dc-ae-f64c128-1.5", 64, 128),
];

/// Names of the checkpoints, as `model_name` spells them.
const NAMES: [&str; 14] = [
    "dc-ae-f32c32-in-1.0-dit-xl-in-512px",
    "dc-ae-f32c32-in-1.0-dit-xl-in-512px-trainbs1024",
    "dc-ae-f32c32-in-1.0-uvit-s-in-512px",
    "dc-ae-f32c32-in-1.0-uvit-h-in-512px",
    "dc-ae-f32c32-in-1.0-uvit-2b-in-512px",
    "dc-ae-f32c32-in-1.0-usit-h-in-512px",
    "dc-ae-f32c32-in-1.0-usit-2b-in-512px",
    "dc-ae-f32c32-in-1.0-sit-xl-in-512px",
    "dc-ae-f64c128-in-1.0-uvit-h-in-512px",
    "dc-ae-f64c128-in-1.0-uvit-h-in-512px-train2000k",
    "dc-ae-f64c128-in-1.0-uvit-2b-in-512px",
    "dc-ae-f64c128-in-1.0-uvit-2b-in-512px-train2000k",
    "dc-ae-f64c128-1.5-usit-2b-in-512px",
    "dc-ae-f64c128-1.5-usit-3b-in-512px",
];

/// The names of the published checkpoints.
pub fn published_names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

/// Whether a `model_name`, with or without its organisation, is one of them.
pub fn is_published(name: &str) -> bool {
    NAMES.contains(&bare(name))
}

fn bare(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The network of a published checkpoint.
///
/// # Errors
/// A name that is none of theirs; the message lists them.
pub(super) fn named_config(name: &str) -> Result<ClassConditionalConfig> {
    let unknown = || {
        Error::Config(format!(
            "no class-conditional transformer is called {name:?}; expected one of {}",
            NAMES.join(", ")
        ))
    };
    if !is_published(name) {
        return Err(unknown());
    }
    let found = AUTOENCODERS.iter().find_map(|autoencoder| {
        let network = bare(name).strip_prefix(autoencoder.0)?.strip_prefix('-')?;
        Some((autoencoder, network))
    });
    let ((autoencoder, ratio, channels), network) = found.ok_or_else(unknown)?;
    let (_, architecture, (depth, hidden_size, num_heads), flow) = NETWORKS
        .iter()
        .find(|(known, ..)| network.starts_with(known))
        .ok_or_else(unknown)?;
    Ok(ClassConditionalConfig {
        input_size: PIXELS / ratio,
        patch_size: 1,
        in_channels: *channels,
        hidden_size: *hidden_size,
        depth: *depth,
        num_heads: *num_heads,
        autoencoder: Some(autoencoder),
        ..ClassConditionalConfig::of(*architecture, *flow)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_network() {
        for name in published_names() {
            let config = named_config(&format!("mit-han-lab/{name}")).unwrap();
            config
                .validate()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let title = config.title().to_lowercase();
            assert!(name.contains(&format!("-{title}-")), "{name}: {title}");
        }
        let config = named_config("dc-ae-f64c128-in-1.0-uvit-h-in-512px-train2000k").unwrap();
        assert_eq!((config.input_size, config.in_channels), (8, 128));
        assert_eq!(config.autoencoder, Some("dc-ae-f64c128-in-1.0"));
        let refused = named_config("dc-ae-f32c32-in-1.0-uvit-xs-in-512px").unwrap_err();
        assert!(refused.to_string().contains("uvit-s-in-512px"), "{refused}");
    }
}
