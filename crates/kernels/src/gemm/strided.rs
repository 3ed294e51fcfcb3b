//! Matrix products over strided views.

use crate::parallel::Work;
use gemm::Parallelism;

/// A matrix inside a slice: element (i, j) stands at `i·row_stride + j·column_stride`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Storage that holds the matrix.
    pub data: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Distance between rows, in elements.
    pub row_stride: usize,
    /// Distance between columns, in elements.
    pub column_stride: usize,
}

impl<'a> View<'a> {
    /// A dense row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns, 1)
    }

    /// A matrix with any strides.
    ///
    /// # Panics
    /// When the last element lies outside `data`.
    pub fn strided(
        data: &'a [f32],
        rows: usize,
        columns: usize,
        row_stride: usize,
        column_stride: usize,
    ) -> Self {
        assert!(
            fits(data.len(), rows, columns, row_stride, column_stride),
            "a {rows}x{columns} matrix with strides {row_stride}, {column_stride} needs more than {} elements",
            data.len()
        );
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride,
        }
    }

    /// The transposed matrix; nothing moves.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

fn fits(len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> bool {
    if rows == 0 || columns == 0 {
        return true;
    }
    (rows - 1)
        .checked_mul(row_stride)
        .zip((columns - 1).checked_mul(column_stride))
        .and_then(|(a, b)| a.checked_add(b))
        .is_some_and(|last| last < len)
}

/// Threads a product may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The caller's thread only (for use inside a parallel loop).
    One,
    /// The whole pool.
    Pool,
}

/// `out = scale·a·b`, or `out += scale·a·b` with `accumulate`. `out` has rows `out_stride` apart.
///
/// # Panics
/// When the inner sizes differ or `out` is too short.
pub fn multiply(
    out: &mut [f32],
    out_stride: usize,
    a: View<'_>,
    b: View<'_>,
    scale: f32,
    accumulate: bool,
    threads: Threads,
) {
    assert_eq!(a.columns, b.rows, "inner sizes of a matrix product differ");
    assert!(
        fits(out.len(), a.rows, b.columns, out_stride, 1) && out_stride >= b.columns,
        "the result {}x{} with row stride {out_stride} needs more than {} elements",
        a.rows,
        b.columns,
        out.len()
    );
    if a.rows == 0 || b.columns == 0 {
        return;
    }
    let work = Work {
        multiplications: a.rows * b.columns * a.columns,
        bytes: size_of::<f32>() * (a.rows + b.columns) * a.columns,
    };
    let parallelism = match threads {
        Threads::Pool if work.is_worth_threads() => Parallelism::Rayon(0),
        _ => Parallelism::None,
    };
    // SAFETY: `View::strided` and the assertion above keep every element that the product touches
    // inside its slice, and `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            out_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}
