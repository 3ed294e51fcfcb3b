//! The sin-cos positional embedding of the 2K and 4K models.

use std::sync::Mutex;

use brisk_nn::Tensor;

use crate::Result;

/// Table of positions for a latent grid, kept for the last grid used.
#[derive(Debug)]
pub(crate) struct PositionEmbedding {
    channels: usize,
    base: usize,
    interpolation: f64,
    last: Mutex<Option<((usize, usize), Tensor)>>,
}

impl PositionEmbedding {
    /// `base` is the side of the training grid in patches; `channels` is divisible by 4.
    pub(crate) fn new(channels: usize, base: usize, interpolation: f64) -> Self {
        Self {
            channels,
            base,
            interpolation,
            last: Mutex::new(None),
        }
    }

    /// `[1, rows*columns, channels]`, tokens row by row.
    pub(crate) fn table(&self, rows: usize, columns: usize) -> Result<Tensor> {
        // A panic elsewhere cannot leave a half-written entry, so a poisoned lock is usable.
        let mut last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((grid, table)) = last.as_ref()
            && *grid == (rows, columns)
        {
            return Ok(table.clone());
        }
        let shape = (1, rows * columns, self.channels);
        let table = Tensor::from_vec(self.values(rows, columns), shape)?;
        *last = Some(((rows, columns), table.clone()));
        Ok(table)
    }

    fn values(&self, rows: usize, columns: usize) -> Vec<f32> {
        let quarter = self.channels / 4;
        let frequencies: Vec<f64> = (0..quarter)
            .map(|k| 10_000f64.powf(-(k as f64) / quarter as f64))
            .collect();
        let position = |index: usize, length: usize| {
            index as f64 / (length as f64 / self.base as f64) / self.interpolation
        };
        let mut values = Vec::with_capacity(rows * columns * self.channels);
        for row in 0..rows {
            for column in 0..columns {
                // Width first: the reference's meshgrid puts x before y.
                for at in [position(column, columns), position(row, rows)] {
                    values.extend(frequencies.iter().map(|f| (at * f).sin() as f32));
                    values.extend(frequencies.iter().map(|f| (at * f).cos() as f32));
                }
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_half_is_the_column() -> Result<()> {
        let table = PositionEmbedding::new(8, 2, 1.0).table(2, 2)?;
        let rows = table.squeeze(0)?.to_vec2::<f32>()?;
        let (sin, cos) = (1f32.sin(), 1f32.cos());
        let expect = |at: usize, wanted: [f32; 8]| {
            for (found, wanted) in rows[at].iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-6, "token {at}: {:?}", rows[at]);
            }
        };
        let (slow_sin, slow_cos) = (0.01f32.sin(), 0.01f32.cos());
        expect(0, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        expect(1, [sin, slow_sin, cos, slow_cos, 0.0, 0.0, 1.0, 1.0]);
        expect(2, [0.0, 0.0, 1.0, 1.0, sin, slow_sin, cos, slow_cos]);
        Ok(())
    }

    #[test]
    fn another_grid_is_computed_again() -> Result<()> {
        let embedding = PositionEmbedding::new(4, 2, 1.0);
        assert_eq!(embedding.table(2, 3)?.dims(), [1, 6, 4]);
        assert_eq!(embedding.table(3, 3)?.dims(), [1, 9, 4]);
        assert_eq!(embedding.table(2, 3)?.dims(), [1, 6, 4]);
        Ok(())
    }
}
