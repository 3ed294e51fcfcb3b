//! How parameters start when they are trained.

/// How a parameter starts when it is trained from scratch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// One value.
    Constant(f32),
    /// Gaussian with this standard deviation.
    Normal(f32),
    /// Gaussian with this standard deviation divided by √inputs: what enters with variance 1 leaves
    /// with its square.
    FanIn(f32),
    /// Uniform in ±√(6/(inputs + outputs)).
    XavierUniform,
    /// Uniform in ±1/√inputs, PyTorch's default for linear layers and convolutions.
    KaimingUniform,
}

/// Inputs and outputs of a layer with a weight of this shape, taps included.
pub(super) fn fans(shape: &[usize]) -> (usize, usize) {
    let taps: usize = shape.iter().skip(2).product();
    let side = |index: usize| shape.get(index).copied().unwrap_or(1) * taps;
    (side(1), side(0))
}
