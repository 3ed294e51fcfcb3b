//! What one evaluation costs.

use super::ToyConfig;
use crate::cost::Cost;

impl ToyConfig {
    /// One evaluation of `batch` samples: `velocity`, two multiply-adds a value, with the pictures read once.
    pub fn step_cost(&self, batch: usize) -> Vec<Cost> {
        let values = (batch * self.values()) as u64;
        let mut velocity = Cost::new("velocity");
        velocity.work(2 * values, 2 * values);
        velocity.parameters = values;
        vec![velocity]
    }
}
