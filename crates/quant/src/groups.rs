//! What a model says of its linear layers: which are quantized together, and how they lie in files.

use std::sync::Arc;

use brisk_store::OutTensor;

use crate::integer::GROUP;
use crate::layout::TILE;
use crate::record::{Naming, Record};

/// What a layer's weight is, besides a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// `[outputs, inputs]`
    Matrix,
    /// A 1×1 convolution, `[outputs, inputs, 1, 1]`.
    Pointwise,
    /// A convolution of each channel by itself, `[outputs, 1, height, width]`; the file has its one input
    /// channel last.
    Depthwise,
}

/// Layers that share their input and are one layer in the file.
#[derive(Clone, Debug)]
pub struct LayerGroup {
    /// The layer in the file.
    pub file: String,
    /// The layers in the model, with the width of each one's result.
    pub layers: Vec<(String, usize)>,
    /// Width of the input; 1 for a depthwise convolution.
    pub inputs: usize,
    /// Their kind.
    pub kernel: Kernel,
    /// For each of their rows, one layer's after another, its row in the file.
    pub rows: Arc<[usize]>,
    /// Rows in the file.
    pub file_rows: usize,
}

impl LayerGroup {
    /// Layers whose rows stand in the file as they do in the model, one layer's after another.
    pub fn in_order(file: String, layers: Vec<(String, usize)>, inputs: usize) -> Self {
        let outputs: usize = layers.iter().map(|(_, outputs)| outputs).sum();
        Self {
            file,
            layers,
            inputs,
            kernel: Kernel::Matrix,
            rows: (0..outputs).collect(),
            file_rows: outputs.next_multiple_of(TILE),
        }
    }

    /// Width of all results together.
    pub fn outputs(&self) -> usize {
        self.rows.len()
    }

    /// Puts a layer in the model's order into that of the file.
    pub fn to_file(&self, plain: &Record) -> Record {
        let mut rows = vec![None; self.file_rows];
        for (row, place) in self.rows.iter().enumerate() {
            rows[*place] = Some(row);
        }
        plain.arrange(&rows, plain.inputs.next_multiple_of(TILE))
    }

    /// The reverse of [`LayerGroup::to_file`]; inputs are cut to whole groups of 64.
    ///
    /// # Errors
    /// A record of another size than the model needs.
    pub fn from_file(&self, record: &Record) -> Result<Record, String> {
        let (outputs, inputs) = (self.outputs(), self.inputs);
        if record.outputs != self.file_rows || record.inputs < inputs {
            return Err(format!(
                "a layer of {}x{} (outputs x inputs), but this model's layer of {outputs}x{inputs} is \
                 stored as {}x{}; is it a file for another model?",
                record.outputs,
                record.inputs,
                self.file_rows,
                inputs.next_multiple_of(TILE)
            ));
        }
        let rows: Vec<_> = self.rows.iter().copied().map(Some).collect();
        Ok(record.arrange(&rows, inputs.next_multiple_of(GROUP)))
    }

    /// The tensors of the file for the layers, quantized together, in the model's order.
    pub fn tensors(&self, plain: &Record) -> Vec<OutTensor<'static>> {
        self.to_file(plain).tensors(&self.file, Naming::First)
    }

    pub(crate) fn weight_shape(&self, outputs: usize) -> Vec<usize> {
        match self.kernel {
            Kernel::Pointwise => vec![outputs, self.inputs, 1, 1],
            Kernel::Matrix | Kernel::Depthwise => vec![outputs, self.inputs],
        }
    }

    /// The shape in the model of `outputs` rows of a tensor of the file.
    pub(crate) fn plain_shape(&self, stored: &[usize], outputs: usize) -> Vec<usize> {
        match (self.kernel, stored) {
            (Kernel::Depthwise, [_, height, width, 1]) => vec![outputs, 1, *height, *width],
            (_, [_, rest @ ..]) => [&[outputs], rest].concat(),
            (_, []) => Vec::new(),
        }
    }

    /// The shape in the file of a tensor of the model.
    pub(crate) fn file_shape(&self, plain: &[usize]) -> Vec<usize> {
        match (self.kernel, plain) {
            // One input channel: its place makes no difference to the bytes.
            (Kernel::Depthwise, [_, 1, height, width]) => vec![self.file_rows, *height, *width, 1],
            (_, [_, rest @ ..]) => [&[self.file_rows], rest].concat(),
            (_, []) => Vec::new(),
        }
    }

    /// The rows of each layer.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let mut rest = &self.rows[..];
        self.layers.iter().map(move |(name, outputs)| {
            let (rows, later) = rest.split_at(*outputs);
            rest = later;
            (name.as_str(), rows)
        })
    }
}

/// How a model's layers lie in the files of the nunchaku engine, for SVDQuant.
pub trait LowBitLayout: Send + Sync {
    /// The engine's class for the model, which its files name.
    fn class(&self) -> &'static str;

    /// Whether a file that names `class` may be of this model.
    fn accepts(&self, class: &str) -> bool;

    /// The layers that are quantized, in the order of computation.
    fn groups(&self) -> Vec<LayerGroup>;

    /// Layers that stay 16 bits wide but are joined or in another order in the file.
    fn rearranged(&self) -> Vec<LayerGroup>;

    /// The name in the file of a tensor that is in no group.
    fn file_name(&self, plain: &str) -> String;

    /// The reverse of [`LowBitLayout::file_name`].
    fn plain_name(&self, file: &str) -> String;

    /// Whether a layer of the model, whose inputs are not rounded, may have 4-bit weights alone.
    fn has_weights_alone(&self, layer: &str) -> bool;

    /// Whether a quantized layer of the file only repeats others.
    fn is_copy(&self, file_layer: &str) -> bool;
}

/// What makes the input of layers, and can be made smaller so that they need not divide it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maker {
    /// A norm that multiplies by 1 + its tensor of this name.
    Norm(String),
    /// A layer. Its outputs stand in heads of `width`, and each of them makes `repeats` heads of the input
    /// that follow each other.
    Layer {
        /// Its name.
        name: String,
        /// Outputs a head.
        width: usize,
        /// Heads of the input that one of its heads makes.
        repeats: usize,
    },
}

/// Layers that share their input, and what makes it.
#[derive(Clone, Debug)]
pub struct AwqGroup {
    /// The layers, with the width of each one's result.
    pub layers: Vec<(String, usize)>,
    /// Width of the input.
    pub inputs: usize,
    /// Where the factors of the input go.
    pub maker: Maker,
}

/// How a model is quantized by AWQ: names are those of the model, in its files too.
pub trait AwqLayout: Send + Sync {
    /// Groups of each block. What stands behind a layer is before it: its factors change the layer's rows.
    fn blocks(&self) -> Vec<Vec<AwqGroup>>;
}
