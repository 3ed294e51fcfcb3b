//! Products so small that packing an operand would cost more than it saves, in plain Rust that
//! `simd_dispatch!` compiles for each instruction set.

/// Rows and columns of a result that stay in registers.
const ROWS: usize = 4;
const COLUMNS: usize = 16;

/// The first factor: value (r, n) at `r·row + n·inner`.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub inner: usize,
}

/// `c[r, j] += Σ_n a[r, n]·b[n, j]` for `rows` rows `c_row` apart; `b` is `[depth, columns]`, whole.
/// Every sum starts at what is there and goes through n in order, so sums over parts of n that follow
/// each other equal the sum over all.
#[inline(always)]
pub(crate) fn add(
    rows: usize,
    a: Factor,
    (b, depth, columns): (&[f32], usize, usize),
    c: &mut [f32],
    c_row: usize,
) {
    let b = &b[..depth * columns];
    for first in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - first);
        let a = Factor {
            values: &a.values[first * a.row..],
            ..a
        };
        for column in (0..columns).step_by(COLUMNS) {
            let width = COLUMNS.min(columns - column);
            let c = &mut c[first * c_row + column..];
            if (count, width) == (ROWS, COLUMNS) {
                whole(a, b, columns, column, c, c_row);
            } else {
                for r in 0..count {
                    for (n, b) in b.chunks_exact(columns).enumerate() {
                        let value = a.values[r * a.row + n * a.inner];
                        let c = &mut c[r * c_row..][..width];
                        for (c, b) in c.iter_mut().zip(&b[column..]) {
                            *c += value * b;
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn whole(a: Factor, b: &[f32], columns: usize, column: usize, c: &mut [f32], c_row: usize) {
    let mut sums = [[0.0f32; COLUMNS]; ROWS];
    for (r, sums) in sums.iter_mut().enumerate() {
        sums.copy_from_slice(&c[r * c_row..][..COLUMNS]);
    }
    for (n, b) in b.chunks_exact(columns).enumerate() {
        let b: &[f32; COLUMNS] = b[column..][..COLUMNS].try_into().expect("of this length");
        for (r, sums) in sums.iter_mut().enumerate() {
            let value = a.values[r * a.row + n * a.inner];
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += value * b;
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        c[r * c_row..][..COLUMNS].copy_from_slice(sums);
    }
}
