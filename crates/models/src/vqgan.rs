//! What the layers of VQGAN's descendants weigh and cost, from their options alone.

use brisk_nn::VqganOptions;

use crate::cost::Cost;

/// Collects the layers of one part after another.
pub(crate) struct Counter {
    options: VqganOptions,
    size: [usize; 2],
    parts: Vec<Cost>,
}

impl Counter {
    /// For a latent of `size` places; without any, only weights are counted.
    pub(crate) fn new(options: VqganOptions, size: [usize; 2]) -> Self {
        Self {
            options,
            size,
            parts: Vec::new(),
        }
    }

    /// Begins a part.
    pub(crate) fn begin(&mut self, name: &str) {
        self.parts.push(Cost::new(name));
    }

    /// The parts.
    pub(crate) fn finish(self) -> Vec<Cost> {
        self.parts
    }

    /// The level of the latent.
    pub(crate) fn deepest(&self) -> usize {
        self.options.widths.len().saturating_sub(1)
    }

    /// Places of a map of `level`.
    pub(crate) fn places(&self, level: usize) -> u64 {
        let [height, width] = self
            .size
            .map(|side| (side << (self.deepest() - level)) as u64);
        height * width
    }

    /// Adds to the part that was begun last.
    pub(crate) fn add(&mut self, parameters: usize, products: u64, activations: u64) {
        if let Some(part) = self.parts.last_mut() {
            part.parameters += parameters as u64;
            part.work(products, activations);
        }
    }

    /// A square kernel whose result has the places of `level`.
    pub(crate) fn conv(&mut self, level: usize, kernel: usize, from: usize, to: usize) {
        let (weights, places) = (kernel * kernel * from * to, self.places(level));
        self.add(
            weights + to,
            weights as u64 * places,
            (from + to) as u64 * places,
        );
    }

    /// The encoder: `conv_in`, `down.{i}`, `mid`, `conv_out`.
    pub(crate) fn encoder(&mut self) {
        let (options, deepest) = (self.options.clone(), self.deepest());
        self.begin("conv_in");
        self.conv(0, 3, options.colours, options.base);
        let mut width = options.base;
        for (level, to) in options.widths.iter().enumerate() {
            self.begin(&format!("down.{level}"));
            self.level(level, options.blocks, &mut width, *to);
            if level < deepest {
                self.conv(level + 1, 3, width, width);
            }
        }
        self.begin("mid");
        self.middle(width);
        self.begin("conv_out");
        self.norm(width);
        self.conv(deepest, 3, width, options.latent);
    }

    /// The decoder: its first convolution joins the part that was begun, then `mid`, `up.{i}`, `conv_out`.
    pub(crate) fn decoder(&mut self) {
        let (options, deepest) = (self.options.clone(), self.deepest());
        let mut width = options.widths[deepest];
        self.conv(deepest, 3, options.latent, width);
        self.begin("mid");
        self.middle(width);
        for (level, to) in options.widths.iter().enumerate().rev() {
            self.begin(&format!("up.{level}"));
            self.level(level, options.blocks + 1, &mut width, *to);
            if level > 0 {
                self.conv(level - 1, 3, width, width);
            }
        }
        self.begin("conv_out");
        self.norm(width);
        self.conv(0, 3, width, options.colours);
    }

    fn norm(&mut self, width: usize) {
        self.add(2 * width, 0, 0);
    }

    fn block(&mut self, level: usize, from: usize, to: usize) {
        self.norm(from);
        self.conv(level, 3, from, to);
        self.norm(to);
        self.conv(level, 3, to, to);
        if from != to {
            self.conv(level, 1, from, to);
        }
    }

    fn attention(&mut self, level: usize, width: usize) {
        let places = self.places(level);
        self.norm(width);
        self.conv(level, 1, width, 3 * width);
        self.add(
            0,
            2 * places * places * width as u64,
            4 * places * width as u64,
        );
        self.conv(level, 1, width, width);
    }

    fn level(&mut self, level: usize, blocks: usize, width: &mut usize, to: usize) {
        for _ in 0..blocks {
            self.block(level, *width, to);
            *width = to;
            if self.options.attention[level] {
                self.attention(level, to);
            }
        }
    }

    fn middle(&mut self, width: usize) {
        let deepest = self.deepest();
        self.block(deepest, width, width);
        self.attention(deepest, width);
        self.block(deepest, width, width);
    }
}
