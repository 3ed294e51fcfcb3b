//! What an autoencoder weighs and what it costs, from its configuration alone.

use super::config::{AutoencoderConfig, BlockKind, Downsample, StageConfig, Upsample};
use crate::cost::Cost;

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
        let sum = |parts: Vec<Cost>| parts.iter().map(|part| part.parameters).sum();
        PerHalf {
            encoder: sum(self.encode_cost(0, 0)),
            decoder: sum(self.decode_cost(0, 0)),
        }
    }

    /// Floating point operations of the matrix products and convolutions for one picture of
    /// `height` x `width` pixels, a multiply and an add as two.
    pub fn flops(&self, height: usize, width: usize) -> PerHalf {
        let sum = |parts: Vec<Cost>| parts.iter().map(|part| part.flops).sum();
        PerHalf {
            encoder: sum(self.encode_cost(height, width)),
            decoder: sum(self.decode_cost(height, width)),
        }
    }

    /// The encoder's parts in the order they run, for one picture of `height` x `width` pixels:
    /// `conv_in`, `down_blocks.{i}` with its resampler, `conv_out`.
    pub fn encode_cost(&self, height: usize, width: usize) -> Vec<Cost> {
        let mut cost = Counter::new(height, width);
        let stages = &self.encoder;
        cost.begin("conv_in");
        if stages[0].layers > 0 {
            cost.conv(0, 3, self.in_channels, stages[0].channels, true);
        } else {
            cost.down(self.downsample, 0, self.in_channels, stages[1].channels);
        }
        for (level, stage) in stages.iter().enumerate() {
            cost.begin(&format!("down_blocks.{level}"));
            cost.stage(level, stage, self.head_dim);
            if stage.layers > 0
                && let Some(next) = stages.get(level + 1)
            {
                cost.down(self.downsample, level, stage.channels, next.channels);
            }
        }
        cost.begin("conv_out");
        let deepest = stages.len() - 1;
        cost.conv(
            deepest,
            3,
            stages[deepest].channels,
            self.latent_channels,
            true,
        );
        cost.parts
    }

    /// The decoder's parts in the order they run, for one picture of `height` x `width` pixels:
    /// `conv_in`, `up_blocks.{i}` with its resampler, `conv_out`.
    pub fn decode_cost(&self, height: usize, width: usize) -> Vec<Cost> {
        let mut cost = Counter::new(height, width);
        let stages = &self.decoder;
        let deepest = stages.len() - 1;
        cost.begin("conv_in");
        cost.conv(
            deepest,
            3,
            self.latent_channels,
            stages[deepest].channels,
            true,
        );
        for (level, stage) in stages.iter().enumerate().rev() {
            cost.begin(&format!("up_blocks.{level}"));
            if stage.layers > 0
                && let Some(deeper) = stages.get(level + 1)
            {
                cost.up(self.upsample, level, deeper.channels, stage.channels);
            }
            cost.stage(level, stage, self.head_dim);
        }
        cost.begin("conv_out");
        let channels = if stages[0].layers > 0 {
            cost.conv(0, 3, stages[0].channels, self.in_channels, true);
            stages[0].channels
        } else {
            cost.up(self.upsample, 0, stages[1].channels, self.in_channels);
            stages[1].channels
        };
        cost.parameters(2 * channels);
        cost.parts
    }
}

/// Collects the layers of one part after another.
struct Counter {
    height: usize,
    width: usize,
    parts: Vec<Cost>,
    current: usize,
}

impl Counter {
    fn new(height: usize, width: usize) -> Self {
        Self {
            height,
            width,
            parts: Vec::new(),
            current: 0,
        }
    }

    fn begin(&mut self, name: &str) {
        self.current = self.parts.len();
        self.parts.push(Cost::new(name));
    }

    fn pixels(&self, level: usize) -> u64 {
        (self.height >> level) as u64 * (self.width >> level) as u64
    }

    fn parameters(&mut self, count: usize) {
        self.parts[self.current].parameters += count as u64;
    }

    fn work(&mut self, products: u64, activations: u64) {
        self.parts[self.current].work(products, activations);
    }

    /// A square kernel between all of `from` and all of `to` channels.
    fn conv(&mut self, level: usize, kernel: usize, from: usize, to: usize, bias: bool) {
        self.resampling(level, level, kernel, from, to, bias);
    }

    /// As [`Counter::conv`], from the pixels of one level to those of another.
    fn resampling(
        &mut self,
        input: usize,
        level: usize,
        kernel: usize,
        from: usize,
        to: usize,
        bias: bool,
    ) {
        let weights = kernel * kernel * from * to;
        self.parameters(weights + if bias { to } else { 0 });
        let moved = from as u64 * self.pixels(input) + to as u64 * self.pixels(level);
        self.work(weights as u64 * self.pixels(level), moved);
    }

    /// A kernel whose `channels` outputs each read `from` of as many inputs: depthwise or grouped.
    fn grouped(&mut self, level: usize, kernel: usize, from: usize, channels: usize, bias: bool) {
        let weights = kernel * kernel * from * channels;
        self.parameters(weights + if bias { channels } else { 0 });
        let pixels = self.pixels(level);
        self.work(weights as u64 * pixels, 2 * channels as u64 * pixels);
    }

    /// From `level` to the next deeper one.
    fn down(&mut self, kind: Downsample, level: usize, from: usize, to: usize) {
        match kind {
            Downsample::Conv => self.resampling(level, level + 1, 3, from, to, true),
            Downsample::PixelUnshuffle => self.conv(level, 3, from, to / 4, true),
        }
    }

    /// To `level` from the next deeper one.
    fn up(&mut self, kind: Upsample, level: usize, from: usize, to: usize) {
        match kind {
            Upsample::Interpolate => self.resampling(level + 1, level, 3, from, to, true),
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
                    self.parameters(2 * channels);
                }
                BlockKind::EfficientVit => {
                    let parts = 1 + stage.scales.len();
                    self.conv(level, 1, channels, 3 * channels, false);
                    for kernel in &stage.scales {
                        self.grouped(level, *kernel, 1, 3 * channels, false);
                        self.grouped(level, 1, head_dim, 3 * channels, false);
                    }
                    let joined = parts * channels;
                    let products = (joined / head_dim) * 2 * head_dim * (head_dim + 1);
                    let pixels = self.pixels(level);
                    self.work(products as u64 * pixels, 4 * joined as u64 * pixels);
                    self.conv(level, 1, joined, channels, false);
                    self.conv(level, 1, channels, 8 * channels, true);
                    self.grouped(level, 3, 1, 8 * channels, true);
                    self.conv(level, 1, 4 * channels, channels, false);
                    self.parameters(4 * channels);
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
    fn parts_match_the_counted_stages() {
        let config = named_config("dc-ae-f32c32-sana-1.1", None).unwrap();
        let parts = config.decode_cost(512, 512);
        for (name, giga, mebibytes) in [
            ("up_blocks.0", 309.2, 1920.0),
            ("up_blocks.2", 270.6, 448.0),
            ("up_blocks.3", 75.6, 1248.0),
            ("up_blocks.5", 13.9, 153.0),
        ] {
            let part = parts.iter().find(|part| part.name == name).unwrap();
            let found = part.flops as f64 / 2e9;
            // Counted without the attention's own products.
            assert!(
                found > 0.999 * giga && found < 1.02 * giga,
                "{name}: {found} not {giga}"
            );
            // Counted with the upsampled map as an input; here it is never there.
            let moved = part.activations as f64 * 4.0 / f64::from(1 << 20);
            assert!(
                moved > 0.75 * mebibytes && moved < 1.2 * mebibytes,
                "{name}: {moved} MiB, counted {mebibytes}"
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
