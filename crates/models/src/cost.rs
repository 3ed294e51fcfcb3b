//! What the parts of a model compute and move, for measuring how well they run.

/// The cost of one part of a forward pass, from the configuration alone.
///
/// Only matrix products, convolutions and attentions count: what stands between them can be fused
/// into them. `activations` is their inputs and outputs, each once a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The part, as its layers are named in the checkpoint.
    pub name: String,
    /// Floating-point operations, two a multiply-add.
    pub flops: u64,
    /// Weights that are read.
    pub parameters: u64,
    /// Values read and written beside the weights.
    pub activations: u64,
}

impl Cost {
    /// A part that costs nothing yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Adds another part's numbers.
    pub fn add(&mut self, other: &Cost) {
        self.flops += other.flops;
        self.parameters += other.parameters;
        self.activations += other.activations;
    }

    /// The sum of `parts`, under one name.
    pub fn sum(name: impl Into<String>, parts: &[Cost]) -> Self {
        let mut sum = Self::new(name);
        parts.iter().for_each(|part| sum.add(part));
        sum
    }

    /// The part run `times` times; weights count each time, as they don't stay in a cache.
    pub fn repeated(&self, times: u64) -> Self {
        Self {
            name: self.name.clone(),
            flops: self.flops * times,
            parameters: self.parameters * times,
            activations: self.activations * times,
        }
    }

    /// The part for a batch of `count` at once: the weights are read once for all.
    pub fn for_batch(&self, count: usize) -> Self {
        Self {
            parameters: self.parameters,
            ..self.repeated(count as u64)
        }
    }

    /// A matrix product of `rows` rows without bias.
    pub(crate) fn linear(&mut self, rows: u64, inputs: u64, outputs: u64) {
        self.flops += 2 * rows * inputs * outputs;
        self.parameters += inputs * outputs;
        self.activations += rows * (inputs + outputs);
    }

    /// What stands beside the weights: `products` multiply-adds over `activations` values.
    pub(crate) fn work(&mut self, products: u64, activations: u64) {
        self.flops += 2 * products;
        self.activations += activations;
    }
}
