//! The network.

use brisk_nn::ops::{self, Activation, Epilogue};
use brisk_nn::{
    Conv2d, ConvOptions, FoldedBatchNorm, Init, Linear, Tensor, Trace, Weights, check_finite,
};

use super::CrnnConfig;
use super::lstm::BidirectionalLstm;
use crate::{Error, Result};

const NORM_EPS: f64 = 1e-5;
/// Narrowest line: its last convolution needs two columns, a quarter of its own.
pub(super) const NARROWEST: usize = 8;

/// What comes before a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    None,
    /// Rows and columns are halved.
    Both,
    /// Rows are.
    Rows,
}

/// A convolution of the list of layers.
pub(super) struct Layer {
    place: usize,
    pooling: Pooling,
    /// Channels from and to, in eighths of the features'; 0 stands for the one channel of a picture.
    eighths: [usize; 2],
    normed: bool,
    kernel: usize,
}

const fn layer(place: usize, pooling: Pooling, eighths: [usize; 2]) -> Layer {
    Layer {
        place,
        pooling,
        eighths,
        normed: false,
        kernel: 3,
    }
}

/// The convolutions by their places in the list.
pub(super) const LAYERS: [Layer; 7] = [
    layer(0, Pooling::None, [0, 1]),
    layer(3, Pooling::Both, [1, 2]),
    layer(6, Pooling::Both, [2, 4]),
    layer(8, Pooling::None, [4, 4]),
    Layer {
        normed: true,
        ..layer(11, Pooling::Rows, [4, 8])
    },
    Layer {
        normed: true,
        ..layer(14, Pooling::None, [8, 8])
    },
    Layer {
        kernel: 2,
        ..layer(18, Pooling::Rows, [8, 8])
    },
];

impl Layer {
    /// Channels from and to.
    pub fn channels(&self, config: &CrnnConfig) -> [usize; 2] {
        let eighth = config.output_channels / 8;
        self.eighths.map(|count| (count * eighth).max(1))
    }

    /// Rows and columns of its result, from those of what comes before it.
    pub fn result(&self, [rows, columns]: [usize; 2]) -> [usize; 2] {
        let [rows, columns] = match self.pooling {
            Pooling::None => [rows, columns],
            Pooling::Both => [rows / 2, columns / 2],
            Pooling::Rows => [rows / 2, columns],
        };
        let less = usize::from(self.kernel == 2);
        [rows.saturating_sub(less), columns.saturating_sub(less)]
    }

    /// Side of the kernel, and whether a norm follows.
    pub fn kind(&self) -> (usize, bool) {
        (self.kernel, self.normed)
    }
}

/// The network.
#[derive(Debug)]
pub struct Crnn {
    convs: Vec<(Pooling, Conv2d)>,
    sequence: [BidirectionalLstm; 2],
    prediction: Linear,
    height: usize,
}

impl Crnn {
    /// Reads `FeatureExtraction`, `SequenceModeling` and `Prediction`.
    ///
    /// # Errors
    /// Weights that are trained; one report of every tensor that does not fit.
    pub fn load(config: &CrnnConfig, weights: &Weights) -> Result<Self> {
        let layers = weights.pp("FeatureExtraction").pp("ConvNet");
        let convs = LAYERS.iter().map(|layer| {
            let [from, to] = layer.channels(config);
            let options = ConvOptions {
                kernel: layer.kernel,
                padding: usize::from(layer.kernel == 3),
                bias: !layer.normed,
                ..ConvOptions::SAME_3X3
            };
            let own = layers.pp(layer.place);
            if !layer.normed {
                return Ok((layer.pooling, Conv2d::load(&own, from, to, options)?));
            }
            let shape = [to, from, layer.kernel, layer.kernel];
            let weight = own.get("weight", &shape, Init::KaimingUniform)?;
            let norm = FoldedBatchNorm::load(&layers.pp(layer.place + 1), to, NORM_EPS)?;
            let (weight, bias) = norm.fold(&weight, None)?;
            let exact = options.exact || weights.is_exact();
            let options = ConvOptions { exact, ..options };
            Ok((layer.pooling, Conv2d::new(weight, Some(bias), options)?))
        });
        let convs = convs.collect::<Result<Vec<_>>>()?;
        let (wide, hidden) = (config.output_channels, config.hidden_size);
        let sequence = weights.pp("SequenceModeling");
        let network = Self {
            convs,
            sequence: [
                BidirectionalLstm::load(&sequence.pp(0), wide, hidden, hidden)?,
                BidirectionalLstm::load(&sequence.pp(1), hidden, hidden, hidden)?,
            ],
            prediction: Linear::load(
                &weights.pp("Prediction"),
                hidden,
                config.classes(),
                true,
                Init::KaimingUniform,
            )?,
            height: config.image_height,
        };
        weights.finish(&[])?;
        Ok(network)
    }

    /// Lines `[B, H, W, 1]` in −1..1 to logits `[B, W/4 − 1, classes]`. `trace` sees `features`, `sequence.{i}` and
    /// `prediction`.
    ///
    /// # Errors
    /// Lines of another height, or too narrow for a column; a non-finite activation.
    pub fn forward(&self, lines: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (_, height, width, _) = lines.dims4()?;
        if height != self.height || width < NARROWEST {
            return Err(Error::Shape(format!(
                "lines of {height}x{width} pixels; expected {} rows and at least {NARROWEST} columns",
                self.height
            )));
        }
        let relu = Epilogue::activation(Activation::Relu);
        let mut x = lines.clone();
        for (pooling, conv) in &self.convs {
            x = match pooling {
                Pooling::None => x,
                Pooling::Both => ops::max_pool2d(&x, [2, 2], [2, 2], [0, 0])?,
                Pooling::Rows => ops::max_pool2d(&x, [2, 1], [2, 1], [0, 0])?,
            };
            x = conv.forward_with(&x, &relu)?;
        }
        // Rows of a column are alike.
        let mut x = x.mean(1)?;
        check_finite(&x, "recogniser", "features")?;
        trace.see("features", &x);
        for (index, lstm) in self.sequence.iter().enumerate() {
            x = lstm.forward(&x)?;
            trace.see(&format!("sequence.{index}"), &x);
        }
        let x = self.prediction.forward(&x)?;
        check_finite(&x, "recogniser", "prediction")?;
        trace.see("prediction", &x);
        Ok(x)
    }
}
