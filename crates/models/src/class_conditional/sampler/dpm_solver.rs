//! DPM-Solver++ in its singlestep form (Lu et al. 2022, arXiv 2211.01095) with steps of orders 3, 2 and 1, as U-ViT's authors
//! run it: on the clean estimate, over times that are spaced evenly.

use brisk_nn::Tensor;

use super::{After, Predict, evenly, weighted};
use crate::Result;

/// Times of the process; the network is told 1 to this.
const TIMES: usize = 1000;
/// First and last √β of the process, which rises evenly between.
const ROOTS: [f64; 2] = [0.029_154_759_474_226_504, 0.109_544_511_501_033_22];

/// One time of the process x = α·x₀ + σ·ε.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    /// What the network is told.
    time: f64,
    alpha: f64,
    sigma: f64,
    /// Half of the logarithm of the signal-to-noise ratio: ln α − ln σ.
    lambda: f64,
}

/// The walk: a grid of times, and how many of them each step spans.
#[derive(Debug, Clone, PartialEq)]
pub struct DpmSolver {
    points: Vec<Point>,
    orders: Vec<usize>,
}

impl DpmSolver {
    /// A walk of so many evaluations, at least one: as many steps of order 3 as fit, and a lower one or two at the end.
    pub fn new(evaluations: usize) -> Self {
        let evaluations = evaluations.max(1);
        let whole = evaluations / 3;
        let orders = match evaluations % 3 {
            0 => [vec![3; whole - 1], vec![2, 1]].concat(),
            rest => [vec![3; whole], vec![rest]].concat(),
        };
        let logarithms = log_alphas();
        let times = evenly(1.0, 1.0 / TIMES as f64, evaluations + 1);
        Self {
            points: times.iter().map(|time| point(&logarithms, *time)).collect(),
            orders,
        }
    }

    /// The order of each step, which is the number of its evaluations.
    pub fn orders(&self) -> &[usize] {
        &self.orders
    }

    pub(super) fn run(
        &self,
        latents: &Tensor,
        predict: &mut Predict,
        after: &mut After,
    ) -> Result<Tensor> {
        let mut x = latents.clone();
        let mut start = 0;
        for (step, order) in self.orders.iter().enumerate() {
            x = take(&self.points[start..=start + order], &x, predict)?;
            start += order;
            after(step, &x)?;
        }
        Ok(x)
    }
}

/// Factors α of the clean value and σ of the noise at the times 1, 2, … 1000 of the process that a UViT reverses.
pub fn noise_factors() -> Vec<[f64; 2]> {
    let factors = |log_alpha: f64| [log_alpha.exp(), (-(2.0 * log_alpha).exp_m1()).sqrt()];
    log_alphas().into_iter().map(factors).collect()
}

/// ln α at the times 1, 2, … of the process.
fn log_alphas() -> Vec<f64> {
    let [first, last] = ROOTS;
    let roots = evenly(first, last, TIMES);
    let sums = roots.iter().scan(0.0, |sum, root| {
        *sum += 0.5 * (-root * root).ln_1p();
        Some(*sum)
    });
    sums.collect()
}

/// At a time between 1/1000 and 1; between the times of the process ln α is a straight line.
fn point(logarithms: &[f64], time: f64) -> Point {
    let place = (time * TIMES as f64 - 1.0).clamp(0.0, (TIMES - 1) as f64);
    let before = (place as usize).min(TIMES - 2);
    let (low, high) = (logarithms[before], logarithms[before + 1]);
    let log_alpha = low + (place - before as f64) * (high - low);
    let variance = -(2.0 * log_alpha).exp_m1();
    Point {
        time: time * TIMES as f64,
        alpha: log_alpha.exp(),
        sigma: variance.sqrt(),
        lambda: log_alpha - 0.5 * variance.ln(),
    }
}

/// The clean value that the predicted noise leaves at a point.
fn clean(point: &Point, x: &Tensor, predict: &mut Predict) -> Result<Tensor> {
    let noise = predict(x, point.time)?;
    weighted(&[(1.0 / point.alpha, x), (-point.sigma / point.alpha, &noise)])
}

/// One step over two to four points, of the order that they allow.
fn take(points: &[Point], x: &Tensor, predict: &mut Predict) -> Result<Tensor> {
    let (from, to) = (points[0], points[points.len() - 1]);
    let h = to.lambda - from.lambda;
    let first = clean(&from, x, predict)?;
    // To `point` along the first estimate alone.
    let straight = |point: &Point| {
        let gain = -point.alpha * (-(point.lambda - from.lambda)).exp_m1();
        (point.sigma / from.sigma, gain)
    };
    let towards = |point: &Point| {
        let (decay, gain) = straight(point);
        weighted(&[(decay, x), (gain, &first)])
    };
    let (decay, gain) = straight(&to);
    if points.len() == 2 {
        return towards(&to);
    }
    let r1 = (points[1].lambda - from.lambda) / h;
    let second = clean(&points[1], &towards(&points[1])?, predict)?;
    let change = (second - &first)?;
    if points.len() == 3 {
        return weighted(&[(decay, x), (gain, &first), (0.5 / r1 * gain, &change)]);
    }
    let r2 = (points[2].lambda - from.lambda) / h;
    // How a change of the estimate along λ adds up over a span.
    let sum = |span: f64| (-span).exp_m1() / span + 1.0;
    let (middle_decay, middle_gain) = straight(&points[2]);
    let middle = weighted(&[
        (middle_decay, x),
        (middle_gain, &first),
        (r2 / r1 * points[2].alpha * sum(r2 * h), &change),
    ])?;
    let third = clean(&points[2], &middle, predict)?;
    let change = (third - &first)?;
    weighted(&[
        (decay, x),
        (gain, &first),
        (to.alpha * sum(h) / r2, &change),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_the_published_ones() {
        let orders = |evaluations: usize| DpmSolver::new(evaluations).orders;
        assert_eq!(orders(30), [3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 1]);
        for (evaluations, wanted) in [
            (1, &[1][..]),
            (2, &[2]),
            (3, &[2, 1]),
            (4, &[3, 1]),
            (8, &[3, 3, 2]),
        ] {
            assert_eq!(orders(evaluations), wanted, "{evaluations}");
        }
    }

    /// β from 0.00085 to 0.012, and what remains of the clean value at the end.
    #[test]
    fn the_process_is_the_published_one() {
        let first = DpmSolver::new(1).points[1];
        assert!((first.time - 1.0).abs() < 1e-9);
        assert!(
            (first.sigma * first.sigma - 0.00085).abs() < 1e-9,
            "{first:?}"
        );
        let last = DpmSolver::new(1).points[0];
        assert!(
            (last.alpha * last.alpha - 0.004_660).abs() < 1e-6,
            "{last:?}"
        );
    }

    /// Where the clean value is the same all along, every order reaches it exactly.
    #[test]
    fn steps_to_a_fixed_value_are_exact() {
        let wanted = Tensor::new(&[0.5f32, -1.5]).unwrap();
        let start = Tensor::new(&[1.0f32, -0.3]).unwrap();
        for evaluations in [1, 2, 3, 7] {
            let solver = DpmSolver::new(evaluations);
            let points = solver.points.clone();
            let mut predict = |x: &Tensor, time: f64| {
                let at = points.iter().find(|point| point.time == time).unwrap();
                weighted(&[(1.0 / at.sigma, x), (-at.alpha / at.sigma, &wanted)])
            };
            let found = solver
                .run(&start, &mut predict, &mut |_, _| Ok(()))
                .unwrap();
            let (first, last) = (points[0], points[points.len() - 1]);
            // The noise stays, too.
            let noise = weighted(&[
                (1.0 / first.sigma, &start),
                (-first.alpha / first.sigma, &wanted),
            ]);
            let wanted = weighted(&[(last.alpha, &wanted), (last.sigma, &noise.unwrap())]).unwrap();
            let found = found.to_vec1::<f32>().unwrap();
            for (found, wanted) in found.iter().zip(wanted.to_vec1::<f32>().unwrap()) {
                assert!(
                    (found - wanted).abs() < 1e-4,
                    "{evaluations}: {found} {wanted}"
                );
            }
        }
    }
}
