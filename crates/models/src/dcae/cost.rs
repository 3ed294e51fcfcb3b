//! What an autoencoder weighs and what it costs, from its configuration alone.

use super::config::{AutoencoderConfig, BlockKind, Downsample, StageConfig, Upsample};

/// A number for each half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerHalf {
    /// The encoder's.
    pub encoder: u64,
    /// The decoder's.
    pub decoder: u64,
}

impl AutoencoderConfig {
    /// Trainable values of each half (batch norm's running statistics don't count).
    pub fn parameters(&self) -> PerHalf {
        PerHalf {
            encoder: self.encoder_cost(0, 0).0,
            decoder: self.decoder_cost(0, 0).0,
        }
    }

    /// Floating point operations of the matrix products and convolutions for one picture of
    /// `height` x `width` pixels, a multiply and an add as two.
    pub fn flops(&self, height: usize, width: usize) -> PerHalf {
        PerHalf {
            encoder: 2 * self.encoder_cost(height, width).1,
            decoder: 2 * self.decoder_cost(height, width).1,
        }
    }

    fn encoder_cost(&self, height: usize, width: usize) -> (u64, u64) {
        let mut cost = Cost {
            height,
            width,
            ..Cost::default()
        };
        let stages = &self.encoder;
        if stages[0].layers > 0 {
            cost.conv(0, 3, self.in_channels, stages[0].channels, true);
        } else {
            cost.down(self.downsample, 0, self.in_channels, stages[1].channels);
        }
        for (level, stage) in stages.iter().enumerate() {
            cost.stage(level, stage, self.head_dim);
            if stage.layers > 0
                && let Some(next) = stages.get(level + 1)
            {
                cost.down(self.downsample, level, stage.channels, next.channels);
            }
        }
        let deepest = stages.len() - 1;
        cost.conv(
            deepest,
            3,
            stages[deepest].channels,
            self.latent_channels,
            true,
        );
        (cost.parameters, cost.products)
    }

    fn decoder_cost(&self, height: usize, width: usize) -> (u64, u64) {
        let mut cost = Cost {
            height,
            width,
            ..Cost::default()
        };
        let stages = &self.decoder;
        let deepest = stages.len() - 1;
        cost.conv(
            deepest,
            3,
            self.latent_channels,
            stages[deepest].channels,
            true,
        );
        for (level, stage) in stages.iter().enumerate() {
            cost.stage(level, stage, self.head_dim);
            if stage.layers > 0
                && let Some(deeper) = stages.get(level + 1)
            {
                cost.up(self.upsample, level, deeper.channels, stage.channels);
            }
        }
        let channels = if stages[0].layers > 0 {
            cost.conv(0, 3, stages[0].channels, self.in_channels, true);
            stages[0].channels
        } else {
            cost.up(self.upsample, 0, stages[1].channels, self.in_channels);
            stages[1].channels
        };
        cost.parameters += 2 * channels as u64;
        (cost.parameters, cost.products)
    }
}

#[derive(Default)]
struct Cost {
    height: usize,
    width: usize,
    parameters: u64,
    products: u64,
}

impl Cost {
    fn pixels(&self, level: usize) -> u64 {
        (self.height >> level) as u64 * (self.width >> level) as u64
    }

    /// A square kernel between `from` and `to` channels; a depthwise one has `from` = 1.
    fn conv(&mut self, level: usize, kernel: usize, from: usize, to: usize, bias: bool) {
        let weights = (kernel * kernel * from * to) as u64;
        self.parameters += weights + if bias { to as u64 } else { 0 };
        self.products += weights * self.pixels(level);
    }

    /// From `level` to the next deeper one.
    fn down(&mut self, kind: Downsample, level: usize, from: usize, to: usize) {
        match kind {
            Downsample::Conv => self.conv(level + 1, 3, from, to, true),
            Downsample::PixelUnshuffle => self.conv(level, 3, from, to / 4, true),
        }
    }

    /// To `level` from the next deeper one.
    fn up(&mut self, kind: Upsample, level: usize, from: usize, to: usize) {
        match kind {
            Upsample::Interpolate => self.conv(level, 3, from, to, true),
            Upsample::PixelShuffle => self.conv(level + 1, 3, from, 4 * to, true),
        }
    }

    fn stage(&mut self, level: usize, stage: &StageConfig, head_dim: usize) {
        let channels = stage.channels;
        for _ in 0..stage.layers {
            match stage.block {
                BlockKind::ResBlock => {
                    self.conv(level, 3, channels, channels, true);
                    self.conv(level, 3, channels, channels, false);
                    self.parameters += 2 * channels as u64;
                }
                BlockKind::EfficientVit => {
                    let parts = 1 + stage.scales.len();
                    self.conv(level, 1, channels, 3 * channels, false);
                    for kernel in &stage.scales {
                        self.conv(level, *kernel, 1, 3 * channels, false);
                        self.conv(level, 1, head_dim, 3 * channels, false);
                    }
                    let heads = parts * channels / head_dim;
                    self.products +=
                        (heads * 2 * head_dim * (head_dim + 1)) as u64 * self.pixels(level);
                    self.conv(level, 1, parts * channels, channels, false);
                    self.conv(level, 1, channels, 8 * channels, true);
                    self.conv(level, 3, 1, 8 * channels, true);
                    self.conv(level, 1, 4 * channels, channels, false);
                    self.parameters += 4 * channels as u64;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::native::named_config;

    #[test]
    fn parameters_match_the_published_checkpoints() {
        for (name, expected) in [
            ("dc-ae-f32c32-sana-1.0", 312_250_000..312_260_000),
            ("dc-ae-lite-f32c32", 421_170_000..421_190_000),
            // The files hold 12 800 running statistics besides.
            ("dc-ae-f32c32-in-1.0", 323_356_460..323_356_461),
            ("dc-ae-f64c128-in-1.0", 676_896_140..676_896_141),
            ("dc-ae-f128c512-mix-1.0", 1_120_670_000..1_120_690_000),
            ("dc-ae-f64c128-1.5", 714_730_000..714_750_000),
        ] {
            let found = named_config(name, None).unwrap().parameters();
            let total = found.encoder + found.decoder;
            assert!(
                expected.contains(&total),
                "{name}: {total}, expected {expected:?}"
            );
        }
    }

    #[test]
    fn products_match_the_counted_ones() {
        for (name, encoder, decoder) in [
            ("dc-ae-f32c32-sana-1.1", 647, 1046),
            ("dc-ae-f32c32-mix-1.0", 1043, 1385),
            ("dc-ae-f128c512-in-1.0", 1055, 1403),
            ("dc-ae-lite-f32c32", 647, 939),
            ("dc-ae-f64c128-1.5", 1376, 1488),
        ] {
            let found = named_config(name, None).unwrap().flops(512, 512);
            for (found, expected) in [(found.encoder, encoder), (found.decoder, decoder)] {
                let giga = found as f64 / 2e9;
                assert!(
                    (giga - expected as f64).abs() < 1.01,
                    "{name}: {giga} not {expected}"
                );
            }
        }
    }
}
