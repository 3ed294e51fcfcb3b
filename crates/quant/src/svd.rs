//! The best low-rank approximation of a matrix: randomised, or exact.

use brisk_kernels::gemm::{Threads, View, multiply};

/// How the singular vectors are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Solver {
    /// Subspace iteration from random vectors: a handful of matrix products.
    #[default]
    Randomised,
    /// One-sided Jacobi in f64: exact, and slow above a thousand columns.
    Exact,
}

/// `up·down`, singular values in `up`.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// Columns of `up`.
    pub rank: usize,
    /// `[rows, rank]`
    pub up: Vec<f32>,
    /// `[rank, columns]`, orthonormal rows.
    pub down: Vec<f32>,
}

/// Vectors beyond the rank that the iteration carries along.
const OVERSAMPLING: usize = 10;
/// Passes over the matrix and back.
const ITERATIONS: usize = 4;

/// The rank-`rank` part of `w` `[rows, columns]`; the rank is cut to the matrix's smaller side.
pub fn truncated(w: &[f32], columns: usize, rank: usize, solver: Solver) -> Factors {
    let rows = w.len() / columns;
    let rank = rank.min(rows).min(columns);
    match solver {
        Solver::Randomised => randomised(w, rows, columns, rank),
        Solver::Exact => exact(w, rows, columns, rank),
    }
}

fn randomised(w: &[f32], rows: usize, columns: usize, rank: usize) -> Factors {
    let count = (rank + OVERSAMPLING).min(rows).min(columns);
    let matrix = View::new(w, rows, columns);
    // Vectors stand in rows: [count, columns] and [count, rows].
    let onto_rows = |right: &[f32], left: &mut [f32]| {
        let right = View::new(right, count, columns);
        multiply(
            left,
            rows,
            right,
            matrix.transposed(),
            1.0,
            false,
            Threads::Pool,
        );
    };
    let onto_columns = |left: &[f32], right: &mut [f32]| {
        let left = View::new(left, count, rows);
        multiply(right, columns, left, matrix, 1.0, false, Threads::Pool);
    };
    let mut right = random_vectors(count, columns);
    let mut left = vec![0.0; count * rows];
    for _ in 0..ITERATIONS {
        onto_rows(&right, &mut left);
        orthonormalise(&mut left, rows);
        onto_columns(&left, &mut right);
        orthonormalise(&mut right, columns);
    }
    onto_rows(&right, &mut left);
    orthonormalise(&mut left, rows);
    // w ≈ leftᵀ·small, and small = V·Σ·(orthonormal rows).
    let mut small = vec![0.0; count * columns];
    onto_columns(&left, &mut small);
    let mut gram = vec![0.0f64; count * count];
    for i in 0..count {
        for j in 0..=i {
            let pairs = small[i * columns..][..columns]
                .iter()
                .zip(&small[j * columns..][..columns]);
            let sum: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (gram[i * count + j], gram[j * count + i]) = (sum, sum);
        }
    }
    let (values, vectors) = symmetric_eigen(gram, count);
    let mut up = vec![0.0; rows * rank];
    let mut down = vec![0.0; rank * columns];
    for r in 0..rank {
        let singular = values[r].max(0.0).sqrt();
        for i in 0..count {
            let weight = vectors[r * count + i];
            let inverse = if singular > 0.0 {
                weight / singular
            } else {
                0.0
            };
            for (d, s) in down[r * columns..][..columns]
                .iter_mut()
                .zip(&small[i * columns..])
            {
                *d += (inverse * f64::from(*s)) as f32;
            }
            for (n, l) in left[i * rows..][..rows].iter().enumerate() {
                up[n * rank + r] += (weight * singular * f64::from(*l)) as f32;
            }
        }
    }
    Factors { rank, up, down }
}

/// Gaussian-like vectors (sums of uniforms), always the same.
fn random_vectors(count: usize, width: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count * width)
        .map(|_| uniform() + uniform() + uniform() + uniform())
        .collect()
}

/// Gram-Schmidt on rows of `width`, twice, in f64. Rows that depend on others become zero.
fn orthonormalise(vectors: &mut [f32], width: usize) {
    let count = vectors.len() / width;
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(count);
    for row in vectors.chunks_exact_mut(width) {
        let mut v: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let before = norm(&v);
        for _ in 0..2 {
            for other in &done {
                let along: f64 = v.iter().zip(other).map(|(a, b)| a * b).sum();
                v.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
        }
        let after = norm(&v);
        let scale = if after > 1e-7 * before && after > 0.0 {
            1.0 / after
        } else {
            0.0
        };
        v.iter_mut().for_each(|x| *x *= scale);
        row.iter_mut().zip(&v).for_each(|(x, v)| *x = *v as f32);
        done.push(v);
    }
}

/// Eigenvalues of a symmetric matrix, largest first, and their vectors in rows: cyclic Jacobi.
fn symmetric_eigen(mut a: Vec<f64>, size: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; size * size];
    (0..size).for_each(|i| vectors[i * size + i] = 1.0);
    for _ in 0..30 {
        let mut off = 0.0;
        for p in 0..size {
            for q in p + 1..size {
                let apq = a[p * size + q];
                let (app, aqq) = (a[p * size + p], a[q * size + q]);
                if apq.abs() <= 1e-15 * (app.abs() * aqq.abs()).sqrt() {
                    continue;
                }
                off += apq.abs();
                let (c, s) = rotation(app, aqq, apq);
                for k in 0..size {
                    let (x, y) = (a[k * size + p], a[k * size + q]);
                    (a[k * size + p], a[k * size + q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..size {
                    let (x, y) = (a[p * size + k], a[q * size + k]);
                    (a[p * size + k], a[q * size + k]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (vectors[p * size + k], vectors[q * size + k]);
                    (vectors[p * size + k], vectors[q * size + k]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
        if off == 0.0 {
            break;
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|i, j| a[j * size + j].total_cmp(&a[i * size + i]));
    let values = order.iter().map(|i| a[i * size + i]).collect();
    let rows = order
        .iter()
        .flat_map(|i| vectors[i * size..][..size].to_vec());
    (values, rows.collect())
}

/// Cosine and sine that make the pair with these squares and product orthogonal.
fn rotation(app: f64, aqq: f64, apq: f64) -> (f64, f64) {
    let theta = (aqq - app) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    (c, t * c)
}

/// One-sided Jacobi: the vectors along the smaller side are made orthogonal by rotations.
fn exact(w: &[f32], rows: usize, columns: usize, rank: usize) -> Factors {
    let wide = columns > rows;
    let (count, length) = if wide {
        (rows, columns)
    } else {
        (columns, rows)
    };
    // Vectors [count, length], and the rotations that have been applied, [count, count].
    let mut vectors = vec![0.0f64; count * length];
    for (n, row) in w.chunks_exact(columns).enumerate() {
        for (k, value) in row.iter().enumerate() {
            let place = if wide { n * length + k } else { k * length + n };
            vectors[place] = f64::from(*value);
        }
    }
    let mut turned = vec![0.0f64; count * count];
    (0..count).for_each(|i| turned[i * count + i] = 1.0);
    for _ in 0..40 {
        let mut changed = false;
        for p in 0..count {
            for q in p + 1..count {
                let (low, high) = vectors.split_at_mut(q * length);
                let (x, y) = (&mut low[p * length..][..length], &mut high[..length]);
                let (mut pp, mut qq, mut pq) = (0.0, 0.0, 0.0);
                for (a, b) in x.iter().zip(y.iter()) {
                    pp += a * a;
                    qq += b * b;
                    pq += a * b;
                }
                if pq.abs() <= 1e-13 * (pp * qq).sqrt() {
                    continue;
                }
                changed = true;
                let (c, s) = rotation(pp, qq, pq);
                turn(x, y, c, s);
                let (low, high) = turned.split_at_mut(q * count);
                turn(&mut low[p * count..][..count], &mut high[..count], c, s);
            }
        }
        if !changed {
            break;
        }
    }
    let norm = |i: usize| {
        vectors[i * length..][..length]
            .iter()
            .map(|x| x * x)
            .sum::<f64>()
            .sqrt()
    };
    let norms: Vec<f64> = (0..count).map(norm).collect();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|i, j| norms[*j].total_cmp(&norms[*i]));
    let mut up = vec![0.0; rows * rank];
    let mut down = vec![0.0; rank * columns];
    for (r, i) in order.into_iter().take(rank).enumerate() {
        let (long, short) = (
            &vectors[i * length..][..length],
            &turned[i * count..][..count],
        );
        let inverse = if norms[i] > 0.0 { 1.0 / norms[i] } else { 0.0 };
        for n in 0..rows {
            up[n * rank + r] = if wide { short[n] * norms[i] } else { long[n] } as f32;
        }
        for k in 0..columns {
            down[r * columns + k] = if wide { long[k] * inverse } else { short[k] } as f32;
        }
    }
    Factors { rank, up, down }
}

fn turn(x: &mut [f64], y: &mut [f64], c: f64, s: f64) {
    for (a, b) in x.iter_mut().zip(y) {
        (*a, *b) = (c * *a - s * *b, s * *a + c * *b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_kernels::reference::noise;

    fn product(f: &Factors, rows: usize, columns: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * columns];
        let up = View::new(&f.up, rows, f.rank);
        multiply(
            &mut out,
            columns,
            up,
            View::new(&f.down, f.rank, columns),
            1.0,
            false,
            Threads::One,
        );
        out
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum::<f64>()
            .sqrt()
    }

    #[test]
    fn both_solvers_find_a_low_rank_matrix_and_agree_on_noise() {
        for (rows, columns, rank) in [(40, 24, 6), (24, 40, 6), (33, 33, 8)] {
            let (a, b) = (noise(rows * 5, 1), noise(5 * columns, 2));
            let mut w = vec![0.0; rows * columns];
            multiply(
                &mut w,
                columns,
                View::new(&a, rows, 5),
                View::new(&b, 5, columns),
                1.0,
                false,
                Threads::One,
            );
            for solver in [Solver::Exact, Solver::Randomised] {
                let found = truncated(&w, columns, rank, solver);
                assert!(distance(&product(&found, rows, columns), &w) < 1e-4);
            }
            // With noise on top the exact one is best, and the other within a percent of it.
            let noisy: Vec<f32> = w
                .iter()
                .zip(noise(w.len(), 3))
                .map(|(w, n)| w + 0.3 * n)
                .collect();
            let error = |solver| {
                let found = truncated(&noisy, columns, rank, solver);
                distance(&product(&found, rows, columns), &noisy)
            };
            let (best, fast) = (error(Solver::Exact), error(Solver::Randomised));
            assert!(
                best <= fast * 1.000_01 && fast < best * 1.01,
                "{best} {fast}"
            );
        }
    }

    #[test]
    fn the_exact_residual_is_the_sum_of_the_other_singular_values() {
        // diag(5, 4, 3, 2, 1) turned by a Householder reflection on both sides.
        let size = 5;
        let v: Vec<f32> = noise(size, 4);
        let norm: f32 = v.iter().map(|x| x * x).sum();
        let reflection = |i: usize, j: usize| f32::from(i == j) - 2.0 * v[i] * v[j] / norm;
        let mut w = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..size {
                w[i * size + j] = (0..size)
                    .map(|k| reflection(i, k) * (5 - k) as f32 * reflection(k, (j + 1) % size))
                    .sum();
            }
        }
        for rank in 1..size {
            let want: f64 = (1..=5 - rank).map(|s| (s * s) as f64).sum::<f64>().sqrt();
            let found = truncated(&w, size, rank, Solver::Exact);
            let error = distance(&product(&found, size, size), &w);
            assert!((error - want).abs() < 1e-5, "{error} {want}");
        }
    }

    #[test]
    fn zeros_and_a_rank_beyond_the_matrix_are_no_trouble() {
        for solver in [Solver::Exact, Solver::Randomised] {
            let zero = truncated(&[0.0; 12], 4, 2, solver);
            assert!(zero.up.iter().chain(&zero.down).all(|v| v.is_finite()));
            let w = noise(12, 5);
            let all = truncated(&w, 4, 32, solver);
            assert_eq!(all.rank, 3);
            assert!(distance(&product(&all, 3, 4), &w) < 1e-5);
        }
    }
}
