//! What the network weighs and costs, from its configuration alone.

use super::CrnnConfig;
use super::model::LAYERS;
use crate::cost::Cost;

impl CrnnConfig {
    /// Parts of reading a line of `width` pixels: `features`, `sequence.{i}`, `prediction`.
    pub fn cost(&self, width: usize) -> Vec<Cost> {
        let mut features = Cost::new("features");
        let mut size = [self.image_height, width];
        for layer in &LAYERS {
            size = layer.result(size);
            let ([from, to], (kernel, normed)) = (layer.channels(self), layer.kind());
            let [from, to, taps] = [from, to, kernel * kernel].map(|count| count as u64);
            let places = (size[0] * size[1]) as u64;
            features.linear(places, taps * from, to);
            features.activations -= places * (taps - 1) * from;
            features.parameters += if normed { 2 * to } else { to };
        }
        let (columns, hidden) = (size[1] as u64, self.hidden_size as u64);
        let mut parts = vec![features];
        for (index, from) in [self.output_channels as u64, hidden]
            .into_iter()
            .enumerate()
        {
            let mut part = Cost::new(format!("sequence.{index}"));
            for _ in 0..2 {
                part.linear(columns, from, 4 * hidden);
                part.linear(columns, hidden, 4 * hidden);
                part.parameters += 8 * hidden;
            }
            part.linear(columns, 2 * hidden, hidden);
            part.parameters += hidden;
            parts.push(part);
        }
        let mut prediction = Cost::new("prediction");
        prediction.linear(columns, hidden, self.classes() as u64);
        prediction.parameters += self.classes() as u64;
        parts.push(prediction);
        parts
    }

    /// Columns of logits of a line of `width` pixels.
    pub fn columns(&self, width: usize) -> usize {
        let start = [self.image_height, width];
        LAYERS.iter().fold(start, |size, layer| layer.result(size))[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_network_is_counted() {
        let config = CrnnConfig::default();
        let parameters: u64 = config.cost(256).iter().map(|part| part.parameters).sum();
        // Without means and variances of the norms, which are no parameters.
        assert_eq!(parameters, 3_781_345);
        assert_eq!(config.columns(256), 63);
    }
}
