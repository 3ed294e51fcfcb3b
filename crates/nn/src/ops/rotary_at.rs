//! Rotary position embedding at positions given one by one.

use super::accelerated;
use super::linear::shape_error;
use super::storage::cpu_slice;
use crate::error::Result;
use crate::tensor::{OnDevice, Tensor};
use candle_core::{
    CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};
use std::sync::{Arc, Mutex};

/// Sines and cosines of some positions, computed once for all layers. Angles are f32, as in the
/// published models.
#[derive(Clone, Debug)]
pub struct RotaryAngles {
    tokens: usize,
    half: usize,
    /// Sine and cosine, `half` pairs a token.
    pairs: Arc<[(f32, f32)]>,
    /// Those of the second half of the channels, where they are others.
    second: Option<Arc<[(f32, f32)]>>,
    /// Sines and cosines on a card, repeated for so many rows of a batch, once they were needed there.
    uploaded: Arc<Mutex<Option<Uploaded>>>,
    /// Whether the two of a pair are neighbours, not half the channels apart.
    neighbours: bool,
}

/// How often they are repeated, sines, and cosines.
type Uploaded = (usize, [brisk_cuda::Tensor; 2]);

/// `1/θ^(step·i/dim)` for `i` below `count`.
fn frequencies(count: usize, step: usize, dim: usize, theta: f32) -> Vec<f32> {
    (0..count)
        .map(|i| 1.0 / theta.powf((step * i) as f32 / dim as f32))
        .collect()
}

impl RotaryAngles {
    /// For the first `rotary_dim` channels of a head (an odd one counts as the even one below it);
    /// token `t` has position `positions[t]`.
    pub fn new(rotary_dim: usize, theta: f32, positions: &[usize]) -> Self {
        let positions: Vec<f32> = positions.iter().map(|position| *position as f32).collect();
        Self::at(rotary_dim, theta, &positions)
    }

    /// As [`RotaryAngles::new`], at any positions.
    pub fn at(rotary_dim: usize, theta: f32, positions: &[f32]) -> Self {
        let half = rotary_dim / 2;
        let frequencies = frequencies(half, 2, rotary_dim, theta);
        let pairs = positions.iter().flat_map(|position| {
            let angles = frequencies.iter();
            angles.map(|frequency| (*position * frequency).sin_cos())
        });
        Self {
            tokens: positions.len(),
            half,
            pairs: pairs.collect(),
            second: None,
            uploaded: Arc::default(),
            neighbours: false,
        }
    }

    /// For places of several axes: a head's channels fall into as many runs, `dims` wide, each of which turns by
    /// its own axis, neighbouring channels as a pair (HunyuanVideo, arXiv 2412.03603).
    pub fn by_axes<const AXES: usize>(
        dims: [usize; AXES],
        theta: f32,
        places: &[[f32; AXES]],
    ) -> Self {
        let axes = dims.map(|dim| frequencies(dim / 2, 2, dim, theta));
        let pairs = places.iter().flat_map(|place| {
            let runs = place.iter().zip(&axes);
            runs.flat_map(|(at, frequencies)| {
                let angles = frequencies.iter();
                angles.map(move |frequency| (at * frequency).sin_cos())
            })
        });
        Self {
            tokens: places.len(),
            half: axes.iter().map(Vec::len).sum(),
            pairs: pairs.collect(),
            second: None,
            uploaded: Arc::default(),
            neighbours: true,
        }
    }

    /// For places of a plane, row and column: the first half of a head's channels turns by the row's
    /// angles, the second by the column's, each with `dim/4` frequencies that come twice (HART,
    /// arXiv 2410.10812). As the two of a pair turn by different angles, this is no rotation.
    pub fn mixed_axes(dim: usize, theta: f32, places: &[[f32; 2]]) -> Self {
        let half = dim / 2;
        let frequencies = frequencies(half / 2, 4, dim, theta);
        let axis = |axis: usize| -> Arc<[(f32, f32)]> {
            let angles = places.iter().flat_map(|place| {
                let twice = frequencies.iter().chain(&frequencies);
                twice.map(|frequency| (place[axis] * frequency).sin_cos())
            });
            angles.collect()
        };
        Self {
            tokens: places.len(),
            half: 2 * frequencies.len(),
            pairs: axis(0),
            second: Some(axis(1)),
            uploaded: Arc::default(),
            neighbours: false,
        }
    }

    /// Every head of `x` `[batch, tokens, heads·dim]` turned by the angles, on a card. They are uploaded once.
    pub(super) fn turn_on_device(&self, x: &OnDevice, heads: usize) -> Result<Tensor> {
        if self.second.is_some() || self.neighbours {
            return Err(crate::error::Error::Config(
                "positions on a plane or in a clip run on the CPU only; use --device cpu"
                    .to_owned(),
            ));
        }
        let (x, batch) = (x.tensor(), x.shape().dims()[0]);
        let mut uploaded = self
            .uploaded
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = uploaded
            .as_ref()
            .filter(|(known, [sines, _])| *known == batch && sines.device() == x.device());
        let [sines, cosines] = match known {
            Some((_, angles)) => angles.clone(),
            None => {
                let rows = [batch * self.tokens, self.half];
                let all = |which: fn(&(f32, f32)) -> f32| -> Vec<f32> {
                    let once: Vec<f32> = self.pairs.iter().map(which).collect();
                    once.repeat(batch)
                };
                let angles = [
                    x.device().upload(&all(|pair| pair.0), &rows)?,
                    x.device().upload(&all(|pair| pair.1), &rows)?,
                ];
                *uploaded = Some((batch, angles.clone()));
                angles
            }
        };
        Ok(brisk_cuda::ops::rotary(x, &cosines, &sines, heads)?.into())
    }

    /// The rotation stated by candle's operations.
    pub(super) fn statement(&self, heads: usize) -> accelerated::Rotary {
        accelerated::Rotary {
            heads,
            firsts: self.pairs.to_vec(),
            seconds: self.second.as_ref().unwrap_or(&self.pairs).to_vec(),
            half: self.half,
            neighbours: self.neighbours,
        }
    }

    /// Those of these tokens, then those of others.
    ///
    /// # Errors
    /// Another number of channels, or other pairs of them.
    pub fn followed_by(&self, other: &Self) -> Result<Self> {
        if self.half != other.half || self.neighbours != other.neighbours {
            let expected = format!("{} channels that rotate", 2 * self.half);
            return Err(shape_error("followed_by", &[2 * other.half], &expected));
        }
        let both = |first: &Arc<[(f32, f32)]>, then: &Arc<[(f32, f32)]>| -> Arc<[(f32, f32)]> {
            first.iter().chain(then.iter()).copied().collect()
        };
        let second = |angles: &Self| {
            angles
                .second
                .clone()
                .unwrap_or_else(|| angles.pairs.clone())
        };
        let mixed = self.second.is_some() || other.second.is_some();
        Ok(Self {
            tokens: self.tokens + other.tokens,
            half: self.half,
            pairs: both(&self.pairs, &other.pairs),
            second: mixed.then(|| both(&second(self), &second(other))),
            uploaded: Arc::default(),
            neighbours: self.neighbours,
        })
    }

    /// Those of some of the tokens.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn select(&self, tokens: &[u32]) -> Self {
        let chosen = |pairs: &Arc<[(f32, f32)]>| -> Arc<[(f32, f32)]> {
            let rows = tokens.iter().flat_map(|token| {
                let start = *token as usize * self.half;
                pairs[start..start + self.half].iter().copied()
            });
            rows.collect()
        };
        Self {
            tokens: tokens.len(),
            half: self.half,
            pairs: chosen(&self.pairs),
            second: self.second.as_ref().map(chosen),
            uploaded: Arc::default(),
            neighbours: self.neighbours,
        }
    }
}

/// Rotary position embedding of `[batch, tokens, heads·dim]` inside the first channels of every head, half-split
/// or by neighbours, as the angles say; the others pass.
///
/// # Errors
/// Channels that the heads do not divide, fewer of them than rotate, or a number of positions other
/// than the number of tokens.
pub fn rotary_at(x: &Tensor, heads: usize, angles: &RotaryAngles) -> Result<Tensor> {
    let (_, tokens, width) = x
        .dims3()
        .map_err(|_| shape_error("rotary_at", x.dims(), "[batch, tokens, channels]"))?;
    let fits = heads > 0
        && width.is_multiple_of(heads)
        && 2 * angles.half <= width / heads
        && tokens == angles.tokens;
    if !fits {
        let expected = format!(
            "{} tokens of {heads} heads with at least {} channels",
            angles.tokens,
            2 * angles.half
        );
        return Err(shape_error("rotary_at", x.dims(), &expected));
    }
    if let Some(x) = x.device() {
        return angles.turn_on_device(x, heads);
    }
    if x.is_accelerated() {
        return accelerated::apply(angles.statement(heads), &[x]);
    }
    let op = RotaryAt {
        width,
        dim: width / heads,
        angles: angles.clone(),
        transposed: false,
    };
    x.contiguous()?.apply_op1(op)
}

#[derive(Clone)]
struct RotaryAt {
    width: usize,
    dim: usize,
    angles: RotaryAngles,
    /// Whether the transposed map is applied: for a rotation its inverse, and always what gradients take.
    transposed: bool,
}

impl RotaryAt {
    #[inline]
    fn turn(&self, a: &mut f32, b: &mut f32, (one, two): (&(f32, f32), &(f32, f32))) {
        // Sines of what comes from the other channel.
        let (to_first, to_second) = match self.transposed {
            false => (-one.0, two.0),
            true => (two.0, -one.0),
        };
        (*a, *b) = (*a * one.1 + *b * to_first, *b * two.1 + *a * to_second);
    }
}

impl CustomOp1 for RotaryAt {
    fn name(&self) -> &'static str {
        "rotary_at"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut y = cpu_slice(x, layout)?.to_vec();
        let half = self.angles.half;
        if half > 0 {
            let firsts = &self.angles.pairs;
            let seconds = self.angles.second.as_ref().unwrap_or(firsts);
            let tokens = firsts.chunks_exact(half).zip(seconds.chunks_exact(half));
            for (token, (firsts, seconds)) in y.chunks_exact_mut(self.width).zip(tokens.cycle()) {
                for head in token.chunks_exact_mut(self.dim) {
                    let angles = firsts.iter().zip(seconds);
                    if self.angles.neighbours {
                        for (pair, angles) in head.chunks_exact_mut(2).zip(angles) {
                            let [a, b] = pair else { continue };
                            self.turn(a, b, angles);
                        }
                        continue;
                    }
                    let (first, second) = head[..2 * half].split_at_mut(half);
                    for ((a, b), angles) in first.iter_mut().zip(second).zip(angles) {
                        self.turn(a, b, angles);
                    }
                }
            }
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(
        &self,
        _: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let back = Self {
            transposed: !self.transposed,
            ..self.clone()
        };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::variable;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// The halves of a pair turn by the angles of two axes; one axis for both is a rotation.
    #[test]
    fn axes_are_mixed_as_documented() {
        let x: Vec<f32> = (0..16).map(|i| (i as f32 * 0.9).sin()).collect();
        let tensor = Tensor::from_slice(&x, (1, 1, 16)).unwrap();
        let (row, column) = (1.5f32, 4.0f32);
        let mixed = RotaryAngles::mixed_axes(8, 10_000.0, &[[row, column]]);
        let found = values(&rotary_at(&tensor, 2, &mixed).unwrap());
        for head in 0..2 {
            for m in 0..4 {
                let frequency = 10_000f32.powf(-4.0 * (m % 2) as f32 / 8.0);
                let (a, b) = (x[8 * head + m], x[8 * head + m + 4]);
                let (first, second) = (row * frequency, column * frequency);
                let wanted = [
                    a * first.cos() - b * first.sin(),
                    b * second.cos() + a * second.sin(),
                ];
                let found = [found[8 * head + m], found[8 * head + m + 4]];
                for (found, wanted) in found.into_iter().zip(wanted) {
                    assert!((found - wanted).abs() < 1e-6, "{m}: {found} {wanted}");
                }
            }
        }
    }

    /// Tokens of both kinds turn as they do apart.
    #[test]
    fn angles_follow_each_other() {
        let x: Vec<f32> = (0..24).map(|i| (i as f32 * 0.7).sin()).collect();
        let tensor = Tensor::from_slice(&x, (1, 3, 8)).unwrap();
        let line = RotaryAngles::at(8, 100.0, &[2.0]);
        let plane = RotaryAngles::mixed_axes(8, 100.0, &[[1.0, 3.0], [2.0, 0.5]]);
        let both = line.followed_by(&plane).unwrap();
        let found = values(&rotary_at(&tensor, 1, &both).unwrap());
        for (angles, tokens) in [(line.clone(), 0..1), (plane, 1..3)] {
            let own = tensor.narrow(1, tokens.start, tokens.len()).unwrap();
            let wanted = values(&rotary_at(&own, 1, &angles).unwrap());
            assert_eq!(found[8 * tokens.start..8 * tokens.end], wanted);
        }
        assert!(
            line.followed_by(&RotaryAngles::at(6, 100.0, &[0.0]))
                .is_err()
        );
    }

    /// The map is linear: ⟨g, Rx⟩ = ⟨Rᵀg, x⟩.
    #[test]
    fn gradients_take_the_transposed_map() {
        let places = [[0.5, 2.0], [3.0, 0.0], [1.0, 7.5]];
        for angles in [
            RotaryAngles::mixed_axes(8, 100.0, &places),
            RotaryAngles::at(8, 100.0, &[-1.0, 0.0, 2.5]),
        ] {
            let x = variable((0..24).map(|i| (i as f32).cos()).collect(), &[1, 3, 8]);
            let g = (0..24).map(|i| (i as f32 * 1.3).sin()).collect();
            let g = Tensor::from_vec(g, (1, 3, 8)).unwrap();
            let y = rotary_at(&x, 1, &angles).unwrap();
            let product = (&y * &g).unwrap().sum_all().unwrap();
            let store = product.host().unwrap().backward().unwrap();
            let gradient = store
                .get(x.on_host("test").unwrap())
                .unwrap()
                .flatten_all()
                .unwrap();
            let gradient = gradient.to_vec1::<f32>().unwrap();
            let back: f32 = gradient.iter().zip(values(&x)).map(|(a, b)| a * b).sum();
            let forth = product.to_scalar::<f32>().unwrap();
            assert!((back - forth).abs() < 1e-4, "{back} {forth}");
        }
    }
}
