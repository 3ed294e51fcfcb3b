//! What one evaluation of the ControlNet costs, part by part.

use super::SanaControlNetConfig;
use crate::cost::Cost;

impl SanaControlNetConfig {
    /// One evaluation, counted as [`SanaConfig::step_cost`](crate::sana::SanaConfig::step_cost):
    /// `embeddings` of latent and control, `attn1`, `attn2` and `ff` of the copied blocks, then
    /// `controlnet_blocks`, the projections before and after them.
    pub fn step_cost(
        &self,
        batch: usize,
        height: usize,
        width: usize,
        text_tokens: usize,
    ) -> Vec<Cost> {
        let base = &self.transformer;
        let mut parts = base.step_cost(batch, height, width, text_tokens);
        parts.retain(|part| part.name != "proj_out");
        let patch = base.patch_size * base.patch_size;
        let tokens = (batch * height * width / patch) as u64;
        let d = base.width() as u64;
        parts[0].linear(tokens, (patch * base.in_channels) as u64, d);
        let mut projections = Cost::new("controlnet_blocks");
        for _ in 0..=base.num_layers {
            projections.linear(tokens, d, d);
        }
        parts.push(projections);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sana::SanaConfig;

    #[test]
    fn weights_that_are_read_are_those_of_the_model() {
        let config = SanaControlNetConfig {
            transformer: SanaConfig {
                num_layers: 7,
                ..SanaConfig::default()
            },
        };
        let mut read = Cost::sum("all", &config.step_cost(1, 8, 8, 10));
        read.add(&config.transformer.caption_cost(1, 10));
        let (found, all) = (read.parameters as f64, config.parameters() as f64);
        // The patch embedding is read twice; biases, norms and tables are not counted.
        assert!(
            found < 1.001 * all && found > 0.998 * all,
            "{found} of {all}"
        );
    }
}
