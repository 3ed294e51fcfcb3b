//! Maxima of neighbourhoods of channels-last maps.

use rayon::prelude::*;

/// Sizes of a map `[batch, height, width, channels]` and of its neighbourhoods, rows before columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Number of maps.
    pub batch: usize,
    /// Rows of a map.
    pub height: usize,
    /// Columns of a map.
    pub width: usize,
    /// Channels, each by itself.
    pub channels: usize,
    /// Size of a neighbourhood.
    pub kernel: [usize; 2],
    /// Step from one to the next.
    pub stride: [usize; 2],
    /// Rows and columns around the map that never are the largest; less than the kernel.
    pub padding: [usize; 2],
}

impl PoolShape {
    /// Rows and columns of the result.
    pub fn out(&self) -> [usize; 2] {
        let side = |size: usize, axis: usize| {
            (size + 2 * self.padding[axis] - self.kernel[axis]) / self.stride[axis] + 1
        };
        [side(self.height, 0), side(self.width, 1)]
    }

    /// Places in the map, as `row·width + column`, that the result at `row`, `column` is the maximum of.
    fn places(&self, row: usize, column: usize) -> impl Iterator<Item = usize> + use<> {
        let range = |at: usize, axis: usize, size: usize| {
            let start = at * self.stride[axis];
            let end = (start + self.kernel[axis]).saturating_sub(self.padding[axis]);
            start.saturating_sub(self.padding[axis])..end.min(size)
        };
        let (rows, columns) = (range(row, 0, self.height), range(column, 1, self.width));
        let width = self.width;
        rows.flat_map(move |row| columns.clone().map(move |column| row * width + column))
    }

    fn map(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// The maxima `[batch, rows, columns, channels]`. NaN is the largest, as in PyTorch.
pub fn max_forward(shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    let [rows, columns] = shape.out();
    let line = columns * shape.channels;
    y.par_chunks_exact_mut(line)
        .enumerate()
        .for_each(|(index, line)| {
            let x = &x[index / rows * shape.map()..][..shape.map()];
            for (column, y) in line.chunks_exact_mut(shape.channels).enumerate() {
                y.fill(f32::NEG_INFINITY);
                for place in shape.places(index % rows, column) {
                    let values = &x[place * shape.channels..][..shape.channels];
                    for (y, value) in y.iter_mut().zip(values) {
                        if *value > *y || value.is_nan() {
                            *y = *value;
                        }
                    }
                }
            }
        });
}

/// The gradient of the map: each maximum's goes to the first place that has it.
pub fn max_backward(shape: &PoolShape, x: &[f32], grad: &[f32], dx: &mut [f32]) {
    let [rows, columns] = shape.out();
    let result = rows * columns * shape.channels;
    dx.par_chunks_exact_mut(shape.map())
        .enumerate()
        .for_each(|(index, dx)| {
            dx.fill(0.0);
            let x = &x[index * shape.map()..][..shape.map()];
            let grad = &grad[index * result..][..result];
            for (at, grad) in grad.chunks_exact(shape.channels).enumerate() {
                for (channel, grad) in grad.iter().enumerate() {
                    let value = |place: usize| x[place * shape.channels + channel];
                    let mut best = None;
                    for place in shape.places(at / columns, at % columns) {
                        if best.is_none_or(|best| value(place) > value(best)) {
                            best = Some(place);
                        }
                    }
                    if let Some(best) = best {
                        dx[best * shape.channels + channel] += grad;
                    }
                }
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: PoolShape = PoolShape {
        batch: 1,
        height: 3,
        width: 4,
        channels: 1,
        kernel: [2, 2],
        stride: [1, 2],
        padding: [0, 0],
    };

    #[test]
    fn gradients_go_to_the_first_largest() {
        let x = [1.0, 2.0, 0.0, 0.0, 2.0, 1.0, 5.0, 0.0, 0.0, 0.0, 5.0, 1.0];
        let mut y = [0.0; 4];
        max_forward(&SHAPE, &x, &mut y);
        assert_eq!(y, [2.0, 5.0, 2.0, 5.0]);
        let mut dx = [7.0; 12];
        max_backward(&SHAPE, &x, &[1.0, 10.0, 100.0, 1000.0], &mut dx);
        let mut wanted = [0.0; 12];
        (wanted[1], wanted[6], wanted[4]) = (1.0, 1010.0, 100.0);
        assert_eq!(dx, wanted);
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let mut x = [0.0; 12];
        x[5] = f32::NAN;
        let mut y = [0.0; 4];
        max_forward(&SHAPE, &x, &mut y);
        assert!(y[0].is_nan() && y[2].is_nan() && y[1] == 0.0);
    }
}
