//! How much each block of a network changes what passes through it: the block importance that SANA-1.5 prunes by
//! (arXiv 2501.18427), one less the mean cosine between the tokens that a block is given and those that it gives.

use std::sync::{Arc, Mutex, PoisonError};

use brisk_nn::{Result, Tensor};

/// What watches the blocks of a network while a model draws.
pub type BlockWatcher = Arc<Mutex<BlockImportance>>;

/// The importance of a network's blocks, summed up pass by pass.
#[derive(Debug, Default)]
pub struct BlockImportance {
    /// Tokens before the next block, row-major.
    tokens: Vec<f32>,
    /// Sum of the cosines at each block, and their number.
    cosines: Vec<(f64, u64)>,
}

impl BlockImportance {
    /// Nothing seen yet.
    pub fn new() -> BlockWatcher {
        Arc::default()
    }

    /// One value a block that was seen, 0 for one that changes no token's direction, up to 2.
    pub fn of_blocks(watcher: &BlockWatcher) -> Vec<f64> {
        let seen = watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let cosines = seen.cosines.iter();
        cosines
            .map(|(sum, count)| 1.0 - sum / (*count).max(1) as f64)
            .collect()
    }

    /// The tokens `[B,N,d]` that the first block is given.
    ///
    /// # Errors
    /// Values that cannot be read.
    pub fn begin(&mut self, tokens: &Tensor) -> Result<()> {
        self.tokens = values(tokens)?;
        Ok(())
    }

    /// The tokens `[B,N,d]` that block `index` gives, which the next one is given.
    ///
    /// # Errors
    /// Values that cannot be read.
    pub fn block(&mut self, index: usize, tokens: &Tensor) -> Result<()> {
        let width = tokens.dims().last().copied().unwrap_or(1).max(1);
        let after = values(tokens)?;
        if self.cosines.len() <= index {
            self.cosines.resize(index + 1, (0.0, 0));
        }
        let (sum, count) = &mut self.cosines[index];
        let pairs = self
            .tokens
            .chunks_exact(width)
            .zip(after.chunks_exact(width));
        for (before, after) in pairs {
            // What a token of zeros points at is not known; it is taken to be unchanged.
            *sum += cosine(before, after).unwrap_or(1.0);
            *count += 1;
        }
        self.tokens = after;
        Ok(())
    }
}

fn values(tokens: &Tensor) -> Result<Vec<f32>> {
    tokens.flatten_all()?.to_vec1::<f32>()
}

fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    if a == b {
        return Some(1.0);
    }
    let (mut product, mut of_a, mut of_b) = (0f64, 0f64, 0f64);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        product += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    let norms = (of_a * of_b).sqrt();
    (norms > 0.0).then(|| product / norms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn importance_is_one_less_the_mean_cosine_of_tokens() {
        let watcher = BlockImportance::new();
        let tokens = |values: [f32; 4]| Tensor::from_vec(values.to_vec(), (1, 2, 2)).unwrap();
        {
            let mut seen = watcher.lock().unwrap();
            for _ in 0..2 {
                seen.begin(&tokens([1.0, 0.0, 0.0, 2.0])).unwrap();
                // One token is only longer, one turns by 90°.
                seen.block(0, &tokens([3.0, 0.0, 5.0, 0.0])).unwrap();
                seen.block(1, &tokens([3.0, 0.0, 5.0, 0.0])).unwrap();
                seen.block(2, &tokens([-3.0, 0.0, 0.0, 0.0])).unwrap();
            }
        }
        assert_eq!(BlockImportance::of_blocks(&watcher), [0.5, 0.0, 1.0]);
    }
}
