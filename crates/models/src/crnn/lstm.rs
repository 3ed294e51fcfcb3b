//! A bidirectional LSTM (Hochreiter and Schmidhuber 1997) with PyTorch's gates, and a linear map behind it.

use brisk_nn::{Init, Linear, Tensor, Weights, ops};

use crate::Result;

/// Gates: input, forget, candidate, output.
const GATES: usize = 4;

/// Both directions, and what joins them.
#[derive(Debug)]
pub(super) struct BidirectionalLstm {
    directions: [Direction; 2],
    join: Linear,
}

#[derive(Debug)]
struct Direction {
    /// From the inputs to all gates, both biases included.
    inputs: Linear,
    /// From the state to all gates, `[4·hidden, hidden]`.
    state: Tensor,
}

impl BidirectionalLstm {
    /// Reads `rnn` and `linear`.
    pub fn load(weights: &Weights, from: usize, hidden: usize, to: usize) -> Result<Self> {
        let rnn = weights.pp("rnn");
        let direction = |suffix: &str| -> Result<Direction> {
            let get = |name: &str, shape: &[usize]| {
                rnn.get(&format!("{name}_l0{suffix}"), shape, Init::KaimingUniform)
            };
            let gates = GATES * hidden;
            let bias = (get("bias_ih", &[gates])? + get("bias_hh", &[gates])?)?;
            Ok(Direction {
                inputs: Linear::new(get("weight_ih", &[gates, from])?, Some(bias))?,
                state: get("weight_hh", &[gates, hidden])?,
            })
        };
        Ok(Self {
            directions: [direction("")?, direction("_reverse")?],
            join: Linear::load(
                &weights.pp("linear"),
                2 * hidden,
                to,
                true,
                Init::KaimingUniform,
            )?,
        })
    }

    /// `[B, T, from]` to `[B, T, to]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [ahead, back] =
            [false, true].map(|back| self.directions[usize::from(back)].run(x, back));
        self.join.forward(&Tensor::cat(&[ahead?, back?], 2)?)
    }
}

impl Direction {
    /// States `[B, T, hidden]`, from the last step to the first where it goes `back`.
    fn run(&self, x: &Tensor, back: bool) -> Result<Tensor> {
        ops::lstm(&self.inputs.forward(x)?, &self.state, back)
    }
}
