//! Made-up 4-bit layers, to measure speed.

use std::collections::BTreeMap;

use brisk_nn::{Activations, Branch, HalfType, Int4Weight, LowBitSource, WeightsBuilder};
use brisk_quant::LowBitLayout;
use brisk_quant::integer::GROUP;

use crate::Result;

/// Width of the branches.
const RANK: usize = 32;

/// Adds made-up 4-bit layers in place of those of `layout`, which SVDQuant quantizes, to measure speed: rank 32, and
/// weights alone for the layers that keep full activations.
pub fn with_random(
    layout: Box<dyn LowBitLayout>,
    weights: WeightsBuilder,
    activations: Activations,
) -> WeightsBuilder {
    let groups = layout.groups().into_iter();
    let groups = groups.map(|group| {
        let names = group.layers.into_iter().map(|(name, _)| name).collect();
        (names, group.file)
    });
    let source = RandomLowBit {
        groups: groups.collect(),
        layout,
    };
    weights.low_bit(std::sync::Arc::new(source), activations)
}

struct RandomLowBit {
    layout: Box<dyn LowBitLayout>,
    /// Names of the layers that are quantized together, and their name in files.
    groups: BTreeMap<Vec<String>, String>,
}

impl LowBitSource for RandomLowBit {
    fn layers(
        &self,
        paths: &[String],
        inputs: usize,
        outputs: &[usize],
    ) -> Result<Option<Int4Weight>> {
        let (name, alone) = match (self.groups.get(paths), paths) {
            (Some(name), _) => (name, false),
            (None, [path]) if self.layout.has_weights_alone(path) => (path, true),
            _ => return Ok(None),
        };
        let count: usize = outputs.iter().sum();
        let groups = inputs.div_ceil(GROUP);
        let size = 1.0 / (inputs.max(1) as f32).sqrt();
        let mut noise = Noise::new(name);
        let codes = (0..count * groups * GROUP).map(|_| (noise.next() % 15) as i8 - 7);
        let codes = codes.collect();
        Ok(Some(Int4Weight {
            outputs: outputs.to_vec(),
            inputs,
            codes,
            // Codes are even in ±7, so their deviation is 4.3.
            scales: vec![size / 4.3; count * groups],
            zeros: alone.then(|| vec![0.0; count * groups]),
            smooth: (!alone).then(|| vec![1.25; inputs]),
            branch: (!alone).then(|| Branch {
                rank: RANK,
                down: noise.values(RANK * inputs, size),
                up: noise.values(count * RANK, 0.1),
            }),
            bias: Some(noise.values(count, 0.02)),
            half: HalfType::Bf16,
        }))
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Numbers that depend on a name.
struct Noise(u64);

impl Noise {
    fn new(name: &str) -> Self {
        let hash = |h: u64, b: u8| h.wrapping_mul(31).wrapping_add(b.into());
        Self(name.bytes().fold(1, hash))
    }

    fn next(&mut self) -> u64 {
        let step = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = step.wrapping_add(1);
        self.0 >> 33
    }

    /// Even in ±size.
    fn values(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count)
            .map(|_| (self.next() as f32 / (1u64 << 30) as f32 - 1.0) * size)
            .collect()
    }
}
