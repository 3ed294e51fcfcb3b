//! The transforms of a tile, for both tile sizes.
//!
//! A transform of a square is that of its columns followed by that of its rows; [`input_line`],
//! [`output_line`] and the matrix G of each size transform one line.

use super::tile::Tile;
use crate::gemm::layout::{DEPTH, PANEL};
use crate::simd::simd_dispatch;

/// Channels that a transform handles together: a line of eight of them fits the registers.
pub(super) const LANES: usize = 8;
/// Points of the larger tile.
pub(super) const MOST_POINTS: usize = 64;

type Lanes = [f32; LANES];

/// G of F(4, 3), for the points 0, ±1, ±2 and infinity.
const G4: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// G of F(6, 3), for the points 0, ±1, ±2, ±1/2 and infinity.
const G6: [[f64; 3]; 8] = [
    [1.0, 0.0, 0.0],
    [-2.0 / 9.0, -2.0 / 9.0, -2.0 / 9.0],
    [-2.0 / 9.0, 2.0 / 9.0, -2.0 / 9.0],
    [1.0 / 90.0, 1.0 / 45.0, 2.0 / 45.0],
    [1.0 / 90.0, -1.0 / 45.0, 2.0 / 45.0],
    [32.0 / 45.0, 16.0 / 45.0, 8.0 / 45.0],
    [32.0 / 45.0, -16.0 / 45.0, 8.0 / 45.0],
    [0.0, 0.0, 1.0],
];

/// The rows of G, one a point of a line.
fn lines(tile: Tile) -> &'static [[f64; 3]] {
    match tile {
        Tile::Four => &G4,
        Tile::Six => &G6,
    }
}

/// The weight of each of nine taps in a point of a transformed filter.
pub(super) fn taps(tile: Tile, point: usize) -> [f64; 9] {
    let g = lines(tile);
    let (row, column) = (&g[point / tile.inputs()], &g[point % tile.inputs()]);
    std::array::from_fn(|tap| row[tap / 3] * column[tap % 3])
}

/// The weight of a point in each of nine taps, of which most are zero: the first tap of a line is in the point 0 alone, the
/// second in the difference of 1 and −1, the last in infinity alone.
pub(super) fn shares(tile: Tile, point: usize) -> [f64; 9] {
    let g = lines(tile);
    let of_line = |at: usize| match at {
        0 => [g[0][0].recip(), 0.0, 0.0],
        1 => [0.0, -0.5 / g[2][1], 0.0],
        2 => [0.0, 0.5 / g[2][1], 0.0],
        _ if at + 1 == g.len() => [0.0, 0.0, 1.0],
        _ => [0.0; 3],
    };
    let (row, column) = (
        of_line(point / tile.inputs()),
        of_line(point % tile.inputs()),
    );
    std::array::from_fn(|tap| row[tap / 3] * column[tap % 3])
}

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> Lanes {
    let mut out = [0.0; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = f(lane);
    }
    out
}

/// The transforms of lines of one tile size.
trait Line<const OUT: usize, const IN: usize> {
    /// Bᵀd
    fn input(d: &[Lanes; IN]) -> [Lanes; IN];
    /// Aᵀm
    fn output(m: &[Lanes; IN]) -> [Lanes; OUT];
    /// Ay
    fn spread(y: &[Lanes; OUT]) -> [Lanes; IN];
}

struct Four;

impl Line<4, 6> for Four {
    #[inline(always)]
    fn input(d: &[Lanes; 6]) -> [Lanes; 6] {
        let even = lanes(|l| d[4][l] - 4.0 * d[2][l]);
        let odd = lanes(|l| d[3][l] - 4.0 * d[1][l]);
        let near = lanes(|l| d[4][l] - d[2][l]);
        let twice = lanes(|l| 2.0 * (d[3][l] - d[1][l]));
        [
            lanes(|l| 4.0 * d[0][l] - 5.0 * d[2][l] + d[4][l]),
            lanes(|l| even[l] + odd[l]),
            lanes(|l| even[l] - odd[l]),
            lanes(|l| near[l] + twice[l]),
            lanes(|l| near[l] - twice[l]),
            lanes(|l| 4.0 * d[1][l] - 5.0 * d[3][l] + d[5][l]),
        ]
    }

    #[inline(always)]
    fn output(m: &[Lanes; 6]) -> [Lanes; 4] {
        let sum = lanes(|l| m[1][l] + m[2][l]);
        let difference = lanes(|l| m[1][l] - m[2][l]);
        let far_sum = lanes(|l| m[3][l] + m[4][l]);
        let far_difference = lanes(|l| m[3][l] - m[4][l]);
        [
            lanes(|l| m[0][l] + sum[l] + far_sum[l]),
            lanes(|l| difference[l] + 2.0 * far_difference[l]),
            lanes(|l| sum[l] + 4.0 * far_sum[l]),
            lanes(|l| difference[l] + 8.0 * far_difference[l] + m[5][l]),
        ]
    }

    #[inline(always)]
    fn spread(y: &[Lanes; 4]) -> [Lanes; 6] {
        let even = lanes(|l| y[0][l] + y[2][l]);
        let odd = lanes(|l| y[1][l] + y[3][l]);
        let far_even = lanes(|l| y[0][l] + 4.0 * y[2][l]);
        let far_odd = lanes(|l| 2.0 * y[1][l] + 8.0 * y[3][l]);
        [
            y[0],
            lanes(|l| even[l] + odd[l]),
            lanes(|l| even[l] - odd[l]),
            lanes(|l| far_even[l] + far_odd[l]),
            lanes(|l| far_even[l] - far_odd[l]),
            y[3],
        ]
    }
}

struct Six;

impl Line<6, 8> for Six {
    #[inline(always)]
    fn input(d: &[Lanes; 8]) -> [Lanes; 8] {
        // Even and odd parts at 1, 2 and 1/2.
        let even = lanes(|l| d[2][l] + d[6][l] - 4.25 * d[4][l]);
        let odd = lanes(|l| d[1][l] + d[5][l] - 4.25 * d[3][l]);
        let even2 = lanes(|l| 0.25 * d[2][l] - 1.25 * d[4][l] + d[6][l]);
        let odd2 = lanes(|l| 0.5 * d[1][l] - 2.5 * d[3][l] + 2.0 * d[5][l]);
        let even_half = lanes(|l| 4.0 * d[2][l] - 5.0 * d[4][l] + d[6][l]);
        let odd_half = lanes(|l| 2.0 * d[1][l] - 2.5 * d[3][l] + 0.5 * d[5][l]);
        [
            lanes(|l| d[0][l] - d[6][l] + 5.25 * (d[4][l] - d[2][l])),
            lanes(|l| even[l] + odd[l]),
            lanes(|l| even[l] - odd[l]),
            lanes(|l| even2[l] + odd2[l]),
            lanes(|l| even2[l] - odd2[l]),
            lanes(|l| even_half[l] + odd_half[l]),
            lanes(|l| even_half[l] - odd_half[l]),
            lanes(|l| d[7][l] - d[1][l] + 5.25 * (d[3][l] - d[5][l])),
        ]
    }

    #[inline(always)]
    fn output(m: &[Lanes; 8]) -> [Lanes; 6] {
        let sum = lanes(|l| m[1][l] + m[2][l]);
        let difference = lanes(|l| m[1][l] - m[2][l]);
        let sum2 = lanes(|l| m[3][l] + m[4][l]);
        let difference2 = lanes(|l| m[3][l] - m[4][l]);
        let sum_half = lanes(|l| m[5][l] + m[6][l]);
        let difference_half = lanes(|l| m[5][l] - m[6][l]);
        [
            lanes(|l| m[0][l] + sum[l] + sum2[l] + sum_half[l]),
            lanes(|l| difference[l] + 2.0 * difference2[l] + 0.5 * difference_half[l]),
            lanes(|l| sum[l] + 4.0 * sum2[l] + 0.25 * sum_half[l]),
            lanes(|l| difference[l] + 8.0 * difference2[l] + 0.125 * difference_half[l]),
            lanes(|l| sum[l] + 16.0 * sum2[l] + 0.0625 * sum_half[l]),
            lanes(|l| {
                difference[l] + 32.0 * difference2[l] + 0.03125 * difference_half[l] + m[7][l]
            }),
        ]
    }

    #[inline(always)]
    fn spread(y: &[Lanes; 6]) -> [Lanes; 8] {
        let even = lanes(|l| y[0][l] + y[2][l] + y[4][l]);
        let odd = lanes(|l| y[1][l] + y[3][l] + y[5][l]);
        let even2 = lanes(|l| y[0][l] + 4.0 * y[2][l] + 16.0 * y[4][l]);
        let odd2 = lanes(|l| 2.0 * y[1][l] + 8.0 * y[3][l] + 32.0 * y[5][l]);
        let even_half = lanes(|l| y[0][l] + 0.25 * y[2][l] + 0.0625 * y[4][l]);
        let odd_half = lanes(|l| 0.5 * y[1][l] + 0.125 * y[3][l] + 0.03125 * y[5][l]);
        [
            y[0],
            lanes(|l| even[l] + odd[l]),
            lanes(|l| even[l] - odd[l]),
            lanes(|l| even2[l] + odd2[l]),
            lanes(|l| even2[l] - odd2[l]),
            lanes(|l| even_half[l] + odd_half[l]),
            lanes(|l| even_half[l] - odd_half[l]),
            y[5],
        ]
    }
}

/// The first `count` of the values, and zeros.
#[inline(always)]
fn load(from: &[f32], count: usize) -> Lanes {
    if count == LANES
        && let Some(values) = from.first_chunk()
    {
        return *values;
    }
    let mut values = [0.0; LANES];
    for (value, from) in values.iter_mut().zip(&from[..count]) {
        *value = *from;
    }
    values
}

/// Where the values of a tile's transformed input go: point p to `p·point`, blocks of [`DEPTH`]
/// channels `block` apart.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub point: usize,
    pub block: usize,
}

/// A square of `FROM` by `FROM` pixels to one of `TO` by `TO` points, by the transform of a line.
#[inline(always)]
fn square<const FROM: usize, const TO: usize>(
    line: impl Fn(&[Lanes; FROM]) -> [Lanes; TO],
    x: &[f32],
    pixels: &[Option<usize>],
    channels: usize,
    out: &mut [f32],
    strides: Strides,
) {
    for first in (0..channels).step_by(LANES) {
        let count = LANES.min(channels - first);
        let mut columns = [[[0.0; LANES]; TO]; FROM];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut d = [[0.0; LANES]; FROM];
            for (i, d) in d.iter_mut().enumerate() {
                if let Some(pixel) = pixels[i * FROM + j] {
                    *d = load(&x[pixel + first..], count);
                }
            }
            *column = line(&d);
        }
        let start = first / DEPTH * strides.block + first % DEPTH;
        for i in 0..TO {
            let mut d = [[0.0; LANES]; FROM];
            for (d, column) in d.iter_mut().zip(&columns) {
                *d = column[i];
            }
            for (j, value) in line(&d).into_iter().enumerate() {
                // Rows of the output have room for whole lanes past the last channel.
                let at = start + (i * TO + j) * strides.point;
                if let Some(out) = out[at..].first_chunk_mut() {
                    *out = value;
                }
            }
        }
    }
}

simd_dispatch! {
    fn input4(x: &[f32], pixels: &[Option<usize>], channels: usize, out: &mut [f32], strides: Strides) {
        square(Four::input, x, pixels, channels, out, strides);
    }
}

simd_dispatch! {
    fn input6(x: &[f32], pixels: &[Option<usize>], channels: usize, out: &mut [f32], strides: Strides) {
        square(Six::input, x, pixels, channels, out, strides);
    }
}

/// Transforms one tile. `pixels[i]` is where the channels of input pixel i begin, none outside the
/// picture.
pub(super) fn transform_input(
    tile: Tile,
    x: &[f32],
    pixels: &[Option<usize>],
    channels: usize,
    out: &mut [f32],
    strides: Strides,
) {
    match tile {
        Tile::Four => input4(x, pixels, channels, out, strides),
        Tile::Six => input6(x, pixels, channels, out, strides),
    }
}

simd_dispatch! {
    fn gradient4(dy: &[f32], pixels: &[Option<usize>], channels: usize, out: &mut [f32], strides: Strides) {
        square(Four::spread, dy, pixels, channels, out, strides);
    }
}

simd_dispatch! {
    fn gradient6(dy: &[f32], pixels: &[Option<usize>], channels: usize, out: &mut [f32], strides: Strides) {
        square(Six::spread, dy, pixels, channels, out, strides);
    }
}

/// The gradients of a tile's products by those of its outputs, AyAᵀ. `pixels[i]` is where the channels of output pixel i
/// begin, none outside the picture.
pub(super) fn transform_gradient(
    tile: Tile,
    dy: &[f32],
    pixels: &[Option<usize>],
    channels: usize,
    out: &mut [f32],
    strides: Strides,
) {
    match tile {
        Tile::Four => gradient4(dy, pixels, channels, out, strides),
        Tile::Six => gradient6(dy, pixels, channels, out, strides),
    }
}

/// Where a tile of pixels of [`PANEL`] channels goes.
#[derive(Clone, Copy)]
pub(super) struct TileTarget {
    pub out: *mut f32,
    /// From pixel to pixel.
    pub pixel: usize,
    /// From row to row.
    pub row: usize,
}

/// # Safety
/// The target has room for the whole tile, and nobody else uses it.
#[inline(always)]
unsafe fn output<L: Line<OUT, IN>, const OUT: usize, const IN: usize>(
    m: &[f32],
    point_stride: usize,
    target: TileTarget,
) {
    for half in (0..PANEL).step_by(LANES) {
        let mut columns = [[[0.0; LANES]; OUT]; IN];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut d = [[0.0; LANES]; IN];
            for (i, d) in d.iter_mut().enumerate() {
                *d = load(&m[(i * IN + j) * point_stride + half..], LANES);
            }
            *column = L::output(&d);
        }
        for i in 0..OUT {
            let mut d = [[0.0; LANES]; IN];
            for (d, column) in d.iter_mut().zip(&columns) {
                *d = column[i];
            }
            for (j, value) in L::output(&d).into_iter().enumerate() {
                // SAFETY: the pixel lies in the tile, for which the caller has room.
                unsafe {
                    let at = i * target.row + j * target.pixel + half;
                    target.out.add(at).cast::<Lanes>().write_unaligned(value);
                }
            }
        }
    }
}

simd_dispatch! {
    fn output4(m: &[f32], point_stride: usize, target: TileTarget) {
        // SAFETY: as the caller of `transform_output` promised.
        unsafe { output::<Four, 4, 6>(m, point_stride, target) }
    }
}

simd_dispatch! {
    fn output6(m: &[f32], point_stride: usize, target: TileTarget) {
        // SAFETY: as the caller of `transform_output` promised.
        unsafe { output::<Six, 6, 8>(m, point_stride, target) }
    }
}

/// Transforms one tile's products of 16 outputs back: point p at `m[p·point_stride..]`.
///
/// # Safety
/// The target has room for the whole tile, and nobody else uses it.
pub(super) unsafe fn transform_output(
    tile: Tile,
    m: &[f32],
    point_stride: usize,
    target: TileTarget,
) {
    match tile {
        Tile::Four => output4(m, point_stride, target),
        Tile::Six => output6(m, point_stride, target),
    }
}
